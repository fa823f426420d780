//! Every quota, in memory: a value, read again when the table has changed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use clawgate_shared::glob::Glob;
use jiff::tz::TimeZone;

use super::HOLD;
use super::window::{self, Window};
use crate::store::quotas::{self, QuotaRow};
use crate::store::types::{QuotaAction, QuotaMetric, QuotaScope, QuotaWindow};
use crate::store::{Conn, StoreError};

/// Lowered quotas that are remembered; beyond, a node hears of them when it next
/// names what it holds.
const MAX_LOWERED: usize = 1000;

/// A quota as ingest and leases need it.
#[derive(Clone, Debug)]
pub struct Quota {
    /// `quo_…`
    pub id: String,
    /// Owner.
    pub tenant_id: String,
    /// What kind of thing it limits.
    pub scope: QuotaScope,
    /// Which one.
    pub scope_id: String,
    /// What it counts.
    pub metric: QuotaMetric,
    /// Over which window.
    pub window: QuotaWindow,
    /// Without grants.
    pub limit: i64,
    /// Whether nodes enforce it.
    pub blocks: bool,
    /// Share of the limit, in percent, at which people are warned.
    pub warn_pct: u8,
    /// When it was last written, unix microseconds.
    updated_at: i64,
    /// `None`: every model.
    model: Option<Glob>,
    /// Its tenant's.
    zone: TimeZone,
}

impl Quota {
    /// Whether it covers a model, as served.
    #[must_use]
    pub fn covers(&self, model: &str) -> bool {
        self.model.as_ref().is_none_or(|glob| glob.matches(model))
    }

    /// The window that holds an instant.
    #[must_use]
    pub fn window_at(&self, at: i64) -> Window {
        window::containing(self.window, at, &self.zone)
    }

    /// The window that a start names. A start that is none (the tenant's zone
    /// was changed) names what is left of the window it lies in.
    #[must_use]
    pub fn window_from(&self, start: i64) -> Window {
        let window = self.window_at(start);
        if window.end == 0 { window } else { Window { start, ..window } }
    }

    /// The window after one; the same, when it never ends.
    #[must_use]
    pub fn window_after(&self, this: Window) -> Window {
        window::after(self.window, this, &self.zone).unwrap_or(this)
    }
}

/// The quotas of one tenant, by what they limit.
#[derive(Debug, Default)]
pub struct TenantBook {
    whole: Vec<Arc<Quota>>,
    bots: HashMap<String, Vec<Arc<Quota>>>,
    projects: HashMap<String, Vec<Arc<Quota>>>,
    keys: HashMap<String, Vec<Arc<Quota>>>,
}

impl TenantBook {
    /// Every quota on one of these; an empty project or key is none.
    pub fn on<'a>(&'a self, bot: &str, project: &str, key: &str) -> impl Iterator<Item = &'a Quota> + use<'a> {
        let of = |map: &'a HashMap<String, Vec<Arc<Quota>>>, id: &str| map.get(id).map_or(&[][..], Vec::as_slice);
        let parts = [of(&self.bots, bot), of(&self.projects, project), &self.whole, of(&self.keys, key)];
        parts.into_iter().flatten().map(AsRef::as_ref)
    }
}

/// Every quota.
#[derive(Debug, Default)]
pub struct Book {
    version: String,
    by_id: HashMap<String, Arc<Quota>>,
    tenants: HashMap<String, TenantBook>,
    /// Quotas whose limit was lowered while this process ran: what is leased of
    /// them may be too much.
    lowered: BTreeSet<String>,
}

impl Book {
    /// From rows; `zones` by tenant.
    #[must_use]
    pub fn new(version: String, rows: Vec<QuotaRow>, zones: &HashMap<String, TimeZone>) -> Self {
        let mut book = Self { version, ..Self::default() };
        for row in rows {
            let quota = Arc::new(Quota {
                id: row.id.clone(),
                tenant_id: row.tenant_id.clone(),
                scope: row.scope,
                scope_id: row.scope_id.clone(),
                metric: row.spec.metric,
                window: row.spec.window,
                limit: i64::try_from(row.spec.limit).unwrap_or(i64::MAX),
                blocks: row.spec.action == QuotaAction::Block,
                warn_pct: row.spec.warn_pct,
                updated_at: row.updated_at,
                model: row.spec.model.as_deref().map(Glob::new),
                zone: zones.get(&row.tenant_id).cloned().unwrap_or(TimeZone::UTC),
            });
            let tenant = book.tenants.entry(row.tenant_id).or_default();
            let place = match row.scope {
                QuotaScope::Bot => tenant.bots.entry(row.scope_id).or_default(),
                QuotaScope::Project => tenant.projects.entry(row.scope_id).or_default(),
                QuotaScope::Tenant => &mut tenant.whole,
                QuotaScope::ProviderKey => tenant.keys.entry(row.scope_id).or_default(),
            };
            place.push(Arc::clone(&quota));
            book.by_id.insert(row.id, quota);
        }
        book
    }

    /// By id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Quota> {
        self.by_id.get(id).map(AsRef::as_ref)
    }

    /// Notes which limits are lower than in the book before; what that one had
    /// noted stays noted, until there are too many.
    pub fn lowered_since(&mut self, before: &Self) {
        let was = |id: &str| before.by_id.get(id).map_or(0, |quota| quota.limit);
        self.lowered = before.lowered.iter().filter(|id| self.by_id.contains_key(*id)).cloned().collect();
        self.lowered.extend(self.by_id.values().filter(|quota| quota.limit < was(&quota.id)).map(|q| q.id.clone()));
        if self.lowered.len() > MAX_LOWERED {
            self.lowered.clear();
        }
    }

    /// Quotas of which more may be leased than there is: lowered lately enough
    /// for a node to hold what it has not named since.
    pub fn lowered(&self, now: i64) -> impl Iterator<Item = &Quota> {
        let lately = move |quota: &&Quota| now.saturating_sub(quota.updated_at) <= HOLD;
        self.lowered.iter().filter_map(|id| self.get(id)).filter(lately)
    }

    /// Those of a tenant; `None`: it has none.
    #[must_use]
    pub fn tenant(&self, id: &str) -> Option<&TenantBook> {
        self.tenants.get(id)
    }
}

/// The book in use.
#[derive(Debug, Default)]
pub struct Books {
    current: Mutex<Arc<Book>>,
}

impl Books {
    /// The book as this statement sees it.
    ///
    /// # Errors
    /// As the database answers.
    pub async fn now(&self, conn: &mut Conn) -> Result<Arc<Book>, StoreError> {
        let version = quotas::version(conn).await?;
        self.at(conn, version).await
    }

    /// The book as it stays until the transaction ends: writers of quotas wait,
    /// and a quota that is made after it finds what this transaction wrote.
    ///
    /// # Errors
    /// As the database answers.
    pub async fn held(&self, conn: &mut Conn) -> Result<Arc<Book>, StoreError> {
        let version = quotas::hold_version(conn).await?;
        self.at(conn, version).await
    }

    async fn at(&self, conn: &mut Conn, version: String) -> Result<Arc<Book>, StoreError> {
        let known = Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner));
        if known.version == version {
            return Ok(known);
        }
        let zones = quotas::zones(conn).await?;
        let zones = zones.into_iter().map(|(tenant, zone)| (tenant, window::zone(&zone))).collect();
        let mut book = Book::new(version, quotas::all(conn).await?, &zones);
        book.lowered_since(&known);
        let book = Arc::new(book);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&book);
        Ok(book)
    }
}
