//! What a node would do with a request of a bot, without one.
//!
//! Goes by what nodes are told and by what they reported last, in the order in
//! which a node looks. What only a node knows of the moment (rates, places, what
//! it holds of a quota, whose turn it is) is not decided here.

use std::cmp::Reverse;

use clawgate_shared::catalogue::{self, RootTarget, Vendor, base_for_key, resolve};
use clawgate_shared::clock;
use clawgate_shared::dialect::Dialect;
use clawgate_shared::glob::{Glob, lists_model};
use clawgate_shared::origin::BaseUrl;
use clawgate_shared::pricing::candidates;

use crate::domain::rules::Errors;
use crate::domain::vendors::entry;
use crate::domain::{Caller, Domain, DomainError, Permission};
use crate::fleet::{Cooling, KeyStates};
use crate::prices::Table;
use crate::quota::state::{self, QuotaState};
use crate::quota::window;
use crate::store::bots::{self, BotRow, Limits};
use crate::store::page::{self, Page};
use crate::store::provider_keys::{self, KeyFilter, ProviderKeyRow};
use crate::store::tenants::{self, TenantRow};
use crate::store::types::{KeyStatus, KeyStrategy, QuotaAction, QuotaMetric, QuotaScope, TenantState};
use crate::store::{Tx, prices, quotas, vendors};

/// Longest name of a vendor or model.
const MAX_NAME: usize = 256;

/// A decision and what it rests on.
#[derive(Debug)]
pub struct Explanation {
    /// As stored.
    pub bot: BotRow,
    /// Its tenant is suspended.
    pub tenant_suspended: bool,
    /// What all bots of its tenant may do together.
    pub tenant_limits: Limits,
    /// As asked for.
    pub vendor: String,
    /// As asked for.
    pub model: String,
    /// There is such a vendor.
    pub vendor_known: bool,
    /// The bot may use it.
    pub vendor_allowed: bool,
    /// The bot may use the model.
    pub model_allowed: bool,
    /// Keys in the order in which they would be tried, as far as that is known.
    pub candidates: Vec<Candidate>,
    /// The other keys for the vendor.
    pub left_out: Vec<LeftOut>,
    /// Quotas of bot, project and tenant.
    pub quotas: Vec<Covering>,
    /// `None`: it would be sent.
    pub refusal: Option<Refused>,
}

/// A key that would be tried.
#[derive(Debug)]
pub struct Candidate {
    /// With its status as nodes report it.
    pub key: ProviderKeyRow,
    /// Where the request would go; no query.
    pub url: Option<String>,
    /// Its own quotas.
    pub quotas: Vec<Covering>,
}

/// A key that would not.
#[derive(Debug)]
pub struct LeftOut {
    /// With its status as nodes report it.
    pub key: ProviderKeyRow,
    /// In one word.
    pub reason: Reason,
    /// Until when, in unix microseconds, where that is known.
    pub until: Option<i64>,
}

/// Why a key is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Switched off.
    Disabled,
    /// It is for another project.
    OtherProject,
    /// It lacks a tag that the bot requires.
    MissingTags,
    /// A limit of its vendor waits to reset.
    Cooling,
    /// Its vendor does not know it.
    Invalid,
    /// Its account has no credit.
    Exhausted,
    /// A quota of its own is used up.
    Quota,
}

impl Reason {
    /// As in the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::OtherProject => "other_project",
            Self::MissingTags => "missing_tags",
            Self::Cooling => "cooling",
            Self::Invalid => "invalid",
            Self::Exhausted => "exhausted",
            Self::Quota => "quota",
        }
    }
}

/// A quota, and whether it has a say.
#[derive(Debug)]
pub struct Covering {
    /// With its current window.
    pub state: QuotaState,
    /// It applies to the model.
    pub covers: bool,
}

impl Covering {
    /// What is left of the window, before what is reserved.
    #[must_use]
    pub fn remaining(&self) -> i64 {
        let limit = i64::try_from(self.state.quota.spec.limit).unwrap_or(i64::MAX);
        limit.saturating_add(self.state.extra).saturating_sub(self.state.used).max(0)
    }

    /// Nodes refuse for it.
    fn refuses(&self) -> bool {
        self.blocks() && self.remaining() == 0
    }

    fn blocks(&self) -> bool {
        self.covers && self.state.quota.spec.action == QuotaAction::Block
    }

    fn counts_money(&self) -> bool {
        self.blocks() && self.state.quota.spec.metric == QuotaMetric::CostMicros
    }
}

/// A refusal in the words of the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Stable code.
    pub code: &'static str,
    /// Of `no_key_available`.
    pub reason: Option<&'static str>,
}

const fn refused(code: &'static str) -> Option<Refused> {
    Some(Refused { code, reason: None })
}

const fn no_key(reason: &'static str) -> Option<Refused> {
    Some(Refused { code: "no_key_available", reason: Some(reason) })
}

/// Explains what would become of a request for `model` at `vendor`.
///
/// # Errors
/// Needs `bot.read`; `NotFound`.
pub async fn explain(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, hostname): (&str, &str),
    (vendor, model): (&str, &str),
    live: &KeyStates,
) -> Result<Explanation, DomainError> {
    caller.principal.require(Permission::BotRead, tenant_id)?;
    let mut errors = Errors::default();
    errors.text("vendor", vendor, 1, MAX_NAME);
    errors.text("model", model, 0, MAX_NAME);
    errors.finish()?;
    let mut tx = domain.db.snapshot().await?;
    let now = clock::now_micros();
    let tenant = tenants::get(&mut tx, tenant_id).await?.ok_or(DomainError::NotFound { what: "tenant" })?;
    let bot = bots::get(&mut tx, tenant_id, hostname).await?.ok_or(DomainError::NotFound { what: "bot" })?;
    let own = vendors::get(&mut tx, tenant_id, vendor).await?;
    let own = own.and_then(|row| entry(&row).ok());
    let known = catalogue::find(vendor).or(own.as_ref());
    let mut quotas = Vec::new();
    let project = bot.project_id.as_deref().unwrap_or_default();
    for place in [(QuotaScope::Bot, bot.id.as_str()), (QuotaScope::Project, project), (QuotaScope::Tenant, tenant_id)] {
        quotas.extend(covering(&mut tx, place, model, &tenant, now).await?);
    }
    let mut sorted = Sorted::default();
    for row in keys(&mut tx, tenant_id, vendor).await? {
        let scope = (QuotaScope::ProviderKey, row.id.as_str());
        let of_key = if row.enabled { covering(&mut tx, scope, model, &tenant, now).await? } else { Vec::new() };
        sorted.add(&bot, known, model, standing(live, row), of_key);
    }
    sorted.order(&bot);
    let unpriced = match known {
        Some(vendor) if quotas.iter().any(Covering::counts_money) || sorted.counts_money() => {
            let table = Table::new(String::new(), prices::all(&mut tx).await?);
            table.find(tenant_id, &vendor.slug, &candidates(&vendor.slug, model), now).is_none()
        }
        _ => false,
    };
    tx.commit().await?;
    let allowed: Vec<Glob> = bot.allowed_models.iter().map(|pattern| Glob::new(pattern)).collect();
    let mut out = Explanation {
        tenant_suspended: tenant.state == TenantState::Suspended,
        tenant_limits: tenant.limits,
        vendor: vendor.to_owned(),
        model: model.to_owned(),
        vendor_known: known.is_some(),
        vendor_allowed: bot.allowed_vendors.is_empty() || bot.allowed_vendors.iter().any(|slug| slug == vendor),
        model_allowed: lists_model(&allowed, vendor, model),
        refusal: None,
        bot,
        quotas,
        candidates: Vec::new(),
        left_out: Vec::new(),
    };
    out.refusal = decide(&out, unpriced, &sorted);
    (out.candidates, out.left_out) = (sorted.candidates, sorted.left_out);
    Ok(out)
}

/// In the order in which a node looks.
fn decide(known: &Explanation, unpriced: bool, keys: &Sorted) -> Option<Refused> {
    let money = |quota: &Covering| quota.state.quota.spec.metric == QuotaMetric::CostMicros;
    let used_up = |quota: &Covering| refused(if money(quota) { "budget_exceeded" } else { "quota_exceeded" });
    if known.tenant_suspended {
        return refused("tenant_suspended");
    }
    if known.bot.suspended {
        return refused("bot_suspended");
    }
    if !known.bot.enabled {
        return refused("bot_disabled");
    }
    if !known.vendor_known {
        return refused("vendor_unknown");
    }
    if !known.vendor_allowed {
        return refused("vendor_not_allowed");
    }
    if known.model.is_empty() {
        return refused("model_missing");
    }
    if !known.model_allowed {
        return refused("model_not_allowed");
    }
    if unpriced {
        return refused("model_unpriced");
    }
    if let Some(quota) = known.quotas.iter().find(|quota| quota.refuses()) {
        return used_up(quota);
    }
    if !keys.candidates.is_empty() {
        return None;
    }
    if let Some(quota) = &keys.used_up {
        return used_up(quota);
    }
    let any = |reason: Reason| keys.left_out.iter().any(|left| left.reason == reason);
    if any(Reason::Cooling) {
        no_key("all_cooling")
    } else if any(Reason::Invalid) || any(Reason::Exhausted) {
        no_key("all_invalid")
    } else if any(Reason::MissingTags) || any(Reason::OtherProject) {
        no_key("no_matching_tags")
    } else {
        no_key("none_configured")
    }
}

/// Keys, as far as they were looked at.
#[derive(Default)]
struct Sorted {
    candidates: Vec<Candidate>,
    left_out: Vec<LeftOut>,
    /// The quota for which a key was left out that could serve otherwise.
    used_up: Option<Covering>,
}

impl Sorted {
    fn add(
        &mut self,
        bot: &BotRow,
        vendor: Option<&Vendor>,
        model: &str,
        (key, cooling): (ProviderKeyRow, Vec<Cooling>),
        mut quotas: Vec<Covering>,
    ) {
        let until = cooling.iter().find(|(name, _)| name == model).map(|(_, until)| *until);
        let reason = if !key.enabled {
            Some(Reason::Disabled)
        } else if key.project_id.is_some() && key.project_id != bot.project_id {
            Some(Reason::OtherProject)
        } else if !bot.tags.iter().all(|tag| key.tags.contains(tag)) {
            Some(Reason::MissingTags)
        } else if key.status == KeyStatus::Invalid {
            Some(Reason::Invalid)
        } else if until.is_some() {
            Some(Reason::Cooling)
        } else if key.status == KeyStatus::Exhausted {
            Some(Reason::Exhausted)
        } else {
            None
        };
        if let Some(reason) = reason {
            let until = until.filter(|_| reason == Reason::Cooling);
            return self.left_out.push(LeftOut { key, reason, until });
        }
        if let Some(at) = quotas.iter().position(Covering::refuses) {
            self.used_up.get_or_insert(quotas.swap_remove(at));
            return self.left_out.push(LeftOut { key, reason: Reason::Quota, until: None });
        }
        let url = vendor.and_then(|vendor| url(vendor, &key, model));
        self.candidates.push(Candidate { key, url, quotas });
    }

    /// Suspects last; by priority where that decides.
    fn order(&mut self, bot: &BotRow) {
        let by_priority = bot.key_strategy == KeyStrategy::Priority;
        self.candidates.sort_by_key(|candidate| {
            let priority = if by_priority { candidate.key.priority } else { 0 };
            (candidate.key.status == KeyStatus::Suspect, Reverse(priority))
        });
    }

    fn counts_money(&self) -> bool {
        self.candidates.iter().flat_map(|candidate| &candidate.quotas).any(Covering::counts_money)
    }
}

/// A key as nodes found it: what is stored of its state says what an admin was
/// told once, and no node goes by it.
fn standing(live: &KeyStates, row: ProviderKeyRow) -> (ProviderKeyRow, Vec<Cooling>) {
    live.overlay(ProviderKeyRow { status: KeyStatus::Active, status_reason: String::new(), ..row })
}

async fn covering(
    tx: &mut Tx,
    (scope, id): (QuotaScope, &str),
    model: &str,
    tenant: &TenantRow,
    now: i64,
) -> Result<Vec<Covering>, DomainError> {
    let rows = if id.is_empty() { Vec::new() } else { quotas::of(tx, scope, id).await? };
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let states = state::of(tx, rows, &window::zone(&tenant.time_zone), now).await?;
    let covers = |glob: &Option<String>| model.is_empty() || glob.as_ref().is_none_or(|g| Glob::new(g).matches(model));
    Ok(states.into_iter().map(|state| Covering { covers: covers(&state.quota.spec.model), state }).collect())
}

async fn keys(tx: &mut Tx, tenant_id: &str, vendor: &str) -> Result<Vec<ProviderKeyRow>, DomainError> {
    let filter = KeyFilter { vendor: Some(vendor), project_id: None };
    let (mut all, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = Page::new(Some(page::MAX_LIMIT), after.as_deref()).unwrap_or_default();
        let paged = provider_keys::list(tx, tenant_id, filter, &page).await?;
        all.extend(paged.rows);
        after = paged.next_cursor;
        if after.is_none() {
            return Ok(all);
        }
    }
}

/// Where a request in the vendor's first language would go with a key.
fn url(vendor: &Vendor, key: &ProviderKeyRow, model: &str) -> Option<String> {
    let gemini = format!("models/{model}:generateContent");
    let mut paths = ["chat/completions", "messages", &gemini, "v2/chat", "chat", "api/chat", "embeddings", "rerank"];
    match vendor.dialect {
        Dialect::OpenAi => {}
        Dialect::Anthropic => paths.swap(0, 1),
        Dialect::Gemini => paths.swap(0, 2),
    }
    let own = key.base_url.as_deref().and_then(|text| BaseUrl::parse(text).ok());
    let resolved = paths.iter().find_map(|path| resolve(vendor, "POST", path).ok())?;
    let moved = resolved.root.filter(|root| matches!(root.target, RootTarget::Path(_)));
    let base = base_for_key(vendor, own.as_ref(), moved)?;
    let origin = base.origin.to_string();
    let usual = if base.origin.tls { ":443" } else { ":80" };
    Some(format!("{}{}", origin.strip_suffix(usual).unwrap_or(&origin), resolved.upstream_path(&base)))
}
