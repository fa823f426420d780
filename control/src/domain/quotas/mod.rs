//! Quotas of bots, projects, tenants and provider keys.
//!
//! Invariant: a rewrite that keeps a quota's identity (metric, window, model)
//! keeps its id and what was used of it; a new one begins with what its window
//! has used already.
//! Deliberately absent: what is used (`quota`), enforcing (nodes).

mod parse;

use clawgate_shared::glob::Glob;
use clawgate_shared::{clock, id};
use serde_json::{Value, json};

use super::change::{Change, Target};
use super::rules::Errors;
use super::{Caller, Domain, DomainError, Done, Permission};
use crate::quota::state::{self, QuotaState};
use crate::quota::window::{self, Window};
use crate::store::quota_windows::{self, WindowChange, WindowKey};
use crate::store::quotas::{self, QuotaRow};
use crate::store::types::{QuotaMetric, QuotaScope, QuotaSpec, QuotaWindow};
use crate::store::{Conn, bots, projects, provider_keys, quota_usage, tenants};

pub(super) use parse::parse;

/// Quotas of one tenant.
const MAX_QUOTAS: u64 = 200_000;
/// Longest reason of a grant, in characters.
const MAX_REASON: usize = 512;

/// The thing that quotas are on, as a URL names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Owner.
    pub tenant_id: String,
    /// What kind of thing.
    pub scope: QuotaScope,
    /// A bot's hostname, else an id.
    pub name: String,
}

/// More of a window than its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGrant {
    /// With `window` and `model`: which quota.
    pub metric: String,
    /// See [`Self::metric`].
    pub window: String,
    /// See [`Self::metric`]; `None`: the one for every model.
    pub model: Option<String>,
    /// Units of the metric.
    pub amount: u64,
    /// For the audit log.
    pub reason: String,
}

/// The quotas of a thing with what is used of them, in their order.
///
/// # Errors
/// `NotFound`; permissions are the caller's business, who may see the thing may
/// see these.
pub async fn list(conn: &mut Conn, place: &Place) -> Result<Vec<QuotaState>, DomainError> {
    let scope_id = find(conn, place).await?;
    let zone = zone(conn, &place.tenant_id).await?;
    let rows = quotas::of(conn, place.scope, &scope_id).await?;
    Ok(state::of(conn, rows, &zone, clock::now_micros()).await?)
}

/// Replaces the quotas of a thing.
///
/// # Errors
/// Needs `quota.write`.
pub async fn replace(
    domain: &Domain,
    caller: &Caller,
    place: &Place,
    values: &[Value],
) -> Result<Done<Vec<QuotaState>>, DomainError> {
    caller.principal.require(Permission::QuotaWrite, &place.tenant_id)?;
    let mut errors = Errors::default();
    let specs = parse(&mut errors, "", values);
    errors.finish()?;
    let mut change = Change::begin(domain).await?;
    let scope_id = find(&mut change, place).await?;
    write_set(&mut change, &place.tenant_id, (place.scope, &scope_id), &specs).await?;
    let detail = json!({"quotas": specs});
    change.audit(caller, "quota.replace", target(place, &scope_id), detail).await?;
    let zone = zone(&mut change, &place.tenant_id).await?;
    let rows = quotas::of(&mut change, place.scope, &scope_id).await?;
    let states = state::of(&mut change, rows, &zone, clock::now_micros()).await?;
    change.publish(states).await
}

/// Adds to the current window of one quota, for this window only.
///
/// # Errors
/// Needs `quota.write`; `NotFound` when there is no such quota.
pub async fn grant(
    domain: &Domain,
    caller: &Caller,
    place: &Place,
    new: NewGrant,
) -> Result<Done<QuotaState>, DomainError> {
    caller.principal.require(Permission::QuotaWrite, &place.tenant_id)?;
    let mut errors = Errors::default();
    let metric = errors.choice("metric", &new.metric, QuotaMetric::ALL, QuotaMetric::as_str);
    let kind = errors.choice("window", &new.window, QuotaWindow::ALL, QuotaWindow::as_str);
    errors.range("amount", new.amount, 1, parse::MAX_LIMIT);
    errors.text("reason", &new.reason, 1, MAX_REASON);
    errors.finish()?;
    let mut change = Change::begin(domain).await?;
    let scope_id = find(&mut change, place).await?;
    let zone = zone(&mut change, &place.tenant_id).await?;
    let mut rows = quotas::of(&mut change, place.scope, &scope_id).await?;
    rows.retain(|row| Some(row.spec.metric) == metric && Some(row.spec.window) == kind && row.spec.model == new.model);
    let row = rows.pop().ok_or(DomainError::NotFound { what: "quota" })?;
    let now = clock::now_micros();
    let Window { start, end } = window::containing(row.spec.window, now, &zone);
    let key = WindowKey { quota_id: row.id.clone(), start };
    let amount = i64::try_from(new.amount).unwrap_or(i64::MAX);
    if !quota_windows::extend(&mut change, &WindowChange { key, end, amount }).await? {
        return Err(DomainError::field("amount", "range", "is more than a window takes on top of its limit"));
    }
    let detail = json!({
        "quota": row.id, "metric": new.metric, "window": new.window, "model": new.model,
        "window_start": clock::rfc3339(start), "amount": new.amount, "reason": new.reason,
    });
    change.audit(caller, "quota.grant", target(place, &scope_id), detail).await?;
    let mut states = state::of(&mut change, vec![row], &zone, now).await?;
    let state = states.pop().ok_or(DomainError::NotFound { what: "quota" })?;
    change.keep(state).await
}

/// Makes these the quotas of a thing.
pub(super) async fn write_set(
    change: &mut Change,
    tenant_id: &str,
    (scope, scope_id): (QuotaScope, &str),
    specs: &[QuotaSpec],
) -> Result<(), DomainError> {
    let mut before = quotas::of(change, scope, scope_id).await?;
    if before.is_empty() && specs.is_empty() {
        return Ok(());
    }
    let now = clock::now_micros();
    // From here on, what ingest adds is charged to the quotas as they will be.
    changed(change).await?;
    let mut new = Vec::new();
    for (ordering, spec) in (0..).zip(specs) {
        let same = |row: &QuotaRow| identity(&row.spec) == identity(spec);
        match before.iter().position(same) {
            Some(at) => {
                let mut row = before.swap_remove(at);
                (row.spec, row.ordering, row.updated_at) = (spec.clone(), ordering, now);
                quotas::update(change, &row).await?;
            }
            None => new.push(QuotaRow {
                id: id::new(id::Kind::Quota),
                tenant_id: tenant_id.to_owned(),
                scope,
                scope_id: scope_id.to_owned(),
                spec: spec.clone(),
                ordering,
                created_at: now,
                updated_at: now,
            }),
        }
    }
    for row in &before {
        quotas::delete(change, &row.id).await?;
    }
    let counted = quotas::count(change, tenant_id).await?;
    if counted.saturating_add(new.len() as u64) > MAX_QUOTAS {
        return Err(DomainError::LimitReached { what: "quotas", limit: MAX_QUOTAS });
    }
    for row in &new {
        quotas::insert(change, row).await?;
    }
    begin(change, &new, now).await
}

/// Gives new quotas of one thing their current windows, with what these have
/// used.
async fn begin(change: &mut Change, rows: &[QuotaRow], now: i64) -> Result<(), DomainError> {
    let Some(first) = rows.first() else { return Ok(()) };
    let zone = zone(change, &first.tenant_id).await?;
    let mut changes = Vec::new();
    for row in rows {
        let Window { start, end } = window::containing(row.spec.window, now, &zone);
        let to = if end == 0 { i64::MAX } else { end };
        let place = (row.scope, row.scope_id.as_str());
        let used = quota_usage::by_model(change, &row.tenant_id, place, (start, to)).await?;
        let glob = row.spec.model.as_deref().map(Glob::new);
        let covered = used.iter().filter(|sums| glob.as_ref().is_none_or(|glob| glob.matches(&sums.model)));
        let amount = covered.fold(0, |sum: i64, sums| sum.saturating_add(sums.of(row.spec.metric)));
        changes.push(WindowChange { key: WindowKey { quota_id: row.id.clone(), start }, end, amount });
    }
    quota_windows::settle(change, &changes).await?;
    Ok(())
}

/// Removes the quotas of a thing that is deleted.
pub(super) async fn forget(change: &mut Change, scope: QuotaScope, scope_id: &str) -> Result<(), DomainError> {
    if quotas::delete_of(change, scope, scope_id).await? > 0 {
        changed(change).await?;
    }
    Ok(())
}

/// Says that quotas, or the calendars of their windows, are not what they were.
pub(super) async fn changed(change: &mut Change) -> Result<(), DomainError> {
    Ok(quotas::set_version(change, &id::new(id::Kind::Quota)).await?)
}

fn identity(spec: &QuotaSpec) -> (QuotaMetric, QuotaWindow, Option<&str>) {
    (spec.metric, spec.window, spec.model.as_deref())
}

/// The id of the thing, which must exist in its tenant.
async fn find(conn: &mut Conn, place: &Place) -> Result<String, DomainError> {
    let Place { tenant_id, scope, name } = place;
    let (found, what) = match scope {
        QuotaScope::Bot => (bots::get(conn, tenant_id, name).await?.map(|row| row.id), "bot"),
        QuotaScope::Project => (projects::get(conn, tenant_id, name).await?.map(|row| row.id), "project"),
        QuotaScope::ProviderKey => (provider_keys::get(conn, tenant_id, name).await?.map(|row| row.id), "provider key"),
        QuotaScope::Tenant => (tenants::get(conn, tenant_id).await?.map(|row| row.id), "tenant"),
    };
    found.ok_or(DomainError::NotFound { what })
}

async fn zone(conn: &mut Conn, tenant_id: &str) -> Result<jiff::tz::TimeZone, DomainError> {
    let tenant = tenants::get(conn, tenant_id).await?.ok_or(DomainError::NotFound { what: "tenant" })?;
    Ok(window::zone(&tenant.time_zone))
}

fn target<'a>(place: &'a Place, scope_id: &'a str) -> Target<'a> {
    Target { tenant_id: Some(&place.tenant_id), kind: place.scope.as_str(), id: scope_id }
}
