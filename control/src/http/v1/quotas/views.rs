//! The shapes of quotas.

use clawgate_shared::clock;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::quotas::NewGrant;
use crate::quota::state::QuotaState;

/// A quota, and what is used of its current window.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Quota)]
pub struct QuotaView {
    id: String,
    /// total_tokens, input_tokens, output_tokens, requests or cost_micros.
    metric: &'static str,
    /// minute, hour, day, week, month or total, in the tenant's time zone.
    window: &'static str,
    /// Units of the metric per window.
    limit: u64,
    /// Glob; null: every model.
    model: Option<String>,
    /// block or notify.
    action: &'static str,
    /// Share of the limit, in percent, at which people are warned.
    warn_pct: u8,
    /// strict or estimate.
    mode: &'static str,
    /// refuse or cut.
    on_exceed: &'static str,
    /// deny, allowance or allow.
    on_outage: &'static str,
    /// Settled in this window.
    used: i64,
    /// Held by nodes for requests under way or to come.
    reserved: i64,
    /// Granted on top of the limit in this window.
    extra: i64,
    /// By how much the limit and what was granted on top are passed.
    overrun: i64,
    /// null: since ever.
    window_start: Option<String>,
    /// null: never.
    resets_at: Option<String>,
}

impl From<QuotaState> for QuotaView {
    fn from(state: QuotaState) -> Self {
        let overrun = state.overrun();
        let QuotaState { quota, window, extra, used, reserved } = state;
        let spec = quota.spec;
        let ends = window.end != 0;
        Self {
            id: quota.id,
            metric: spec.metric.as_str(),
            window: spec.window.as_str(),
            limit: spec.limit,
            model: spec.model,
            action: spec.action.as_str(),
            warn_pct: spec.warn_pct,
            mode: spec.mode.as_str(),
            on_exceed: spec.on_exceed.as_str(),
            on_outage: spec.on_outage.as_str(),
            used,
            reserved,
            extra,
            overrun,
            window_start: ends.then(|| clock::rfc3339(window.start)),
            resets_at: ends.then(|| clock::rfc3339(window.end)),
        }
    }
}

/// Every quota of one thing.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuotaSet {
    /// In the order they were written in.
    data: Vec<QuotaView>,
}

impl From<Vec<QuotaState>> for QuotaSet {
    fn from(states: Vec<QuotaState>) -> Self {
        Self { data: states.into_iter().map(QuotaView::from).collect() }
    }
}

/// A quota to be set.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "for the document; the domain reads the JSON, to name every wrong field at once")]
pub struct QuotaEntry {
    /// total_tokens, input_tokens, output_tokens, requests or cost_micros.
    metric: String,
    /// minute, hour, day, week, month or total.
    window: String,
    /// Units of the metric per window.
    limit: u64,
    /// Glob; every model unless given.
    model: Option<String>,
    /// block (default) or notify.
    action: Option<String>,
    /// 80 unless given.
    warn_pct: Option<u8>,
    /// strict (default) or estimate.
    mode: Option<String>,
    /// refuse (default) or cut.
    on_exceed: Option<String>,
    /// deny (default), allowance or allow.
    on_outage: Option<String>,
}

/// Replaces the set; a quota of the same metric, window and model keeps what was
/// used of it.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "for the document; see QuotaEntry")]
pub struct ReplaceQuotas(Vec<QuotaEntry>);

/// More of the current window of one quota.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateQuotaGrant {
    /// As the quota's.
    metric: String,
    /// As the quota's.
    window: String,
    /// As the quota's; without it the one for every model.
    model: Option<String>,
    /// Units of the metric.
    amount: u64,
    /// For the audit log.
    reason: String,
}

impl From<CreateQuotaGrant> for NewGrant {
    fn from(body: CreateQuotaGrant) -> Self {
        let CreateQuotaGrant { metric, window, model, amount, reason } = body;
        Self { metric, window, model, amount, reason }
    }
}
