//! What a node would do with a request, without one.

use axum::Json;
use axum::extract::State;
use clawgate_shared::clock;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::requests::LimitsBody;
use crate::domain::Permission;
use crate::domain::bots::explain::{self as domain, Candidate, Covering, Explanation, LeftOut};
use crate::http::auth::InTenant;
use crate::http::body::{StrictJson, UrlPath};
use crate::http::problem::Problem;
use crate::http::state::App;
use crate::http::v1::quotas::views::QuotaView;
use crate::store::types::QuotaAction;

/// What is asked about.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Slug, as in `/v1/{vendor}/…`.
    vendor: String,
    /// As the bot would name it there.
    model: String,
}

/// A decision without a request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BotExplanation)]
pub struct ExplanationView {
    hostname: String,
    vendor: String,
    model: String,
    /// send or refuse.
    would: &'static str,
    /// What the bot would be told: the data plane's code; null when it is sent.
    code: Option<&'static str>,
    /// Why no key could be used, with `no_key_available`.
    reason: Option<&'static str>,
    /// enabled, disabled or suspended.
    bot_state: &'static str,
    tenant_suspended: bool,
    vendor_known: bool,
    vendor_allowed: bool,
    /// Empty: all.
    allowed_vendors: Vec<String>,
    model_allowed: bool,
    /// Globs; empty: all.
    allowed_models: Vec<String>,
    /// Tags that a key must carry.
    tags: Vec<String>,
    /// How a key is chosen among the candidates.
    key_strategy: &'static str,
    /// Keys that would be tried; who is first among equals is for the node.
    candidates: Vec<CandidateKey>,
    /// The tenant's other keys for the vendor.
    left_out: Vec<LeftOutKey>,
    /// Quotas of the bot, its project and its tenant.
    quotas: Vec<ExplainedQuota>,
    /// What the bot may do per minute and at one time; the node counts.
    limits: LimitsBody,
    /// What all bots of the tenant may together.
    tenant_limits: LimitsBody,
}

/// A key that would be tried.
#[derive(Debug, Serialize, ToSchema)]
pub struct CandidateKey {
    id: String,
    /// null without the right to see provider keys.
    label: Option<String>,
    tags: Vec<String>,
    weight: u32,
    priority: i32,
    /// active, or suspect: tried last.
    status: &'static str,
    /// Where the vendor's usual request would go, without its query; null without
    /// the right to see provider keys.
    url: Option<String>,
    /// Its own quotas.
    quotas: Vec<ExplainedQuota>,
}

/// A key that would not.
#[derive(Debug, Serialize, ToSchema)]
pub struct LeftOutKey {
    id: String,
    /// null without the right to see provider keys.
    label: Option<String>,
    tags: Vec<String>,
    /// disabled, other_project, missing_tags, cooling, invalid, exhausted or
    /// quota.
    reason: &'static str,
    /// Until when it cools.
    until: Option<String>,
}

/// A quota, and whether it has a say.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplainedQuota {
    /// bot, project, tenant or provider_key.
    scope: &'static str,
    /// It applies to the model.
    covers: bool,
    /// Requests are refused for it.
    blocks: bool,
    /// Of the current window, with what is reserved.
    remaining: i64,
    quota: QuotaView,
}

/// `POST /bots/{hostname}/explain`
pub async fn explain(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
    StrictJson { value, .. }: StrictJson<ExplainRequest>,
) -> Result<Json<ExplanationView>, Problem> {
    let tenant = inside.tenant.id.as_str();
    let asked = (value.vendor.as_str(), value.model.as_str());
    let live = app.fleet.key_states();
    let found = domain::explain(&app.domain, &inside.caller, (tenant, &hostname), asked, &live).await?;
    let sees_keys = inside.require(Permission::KeyRead).is_ok();
    Ok(Json(view(found, sees_keys)))
}

fn view(found: Explanation, sees_keys: bool) -> ExplanationView {
    let bot = found.bot;
    ExplanationView {
        hostname: bot.hostname,
        vendor: found.vendor,
        model: found.model,
        would: if found.refusal.is_none() { "send" } else { "refuse" },
        code: found.refusal.map(|refusal| refusal.code),
        reason: found.refusal.and_then(|refusal| refusal.reason),
        bot_state: match (bot.suspended, bot.enabled) {
            (true, _) => "suspended",
            (false, false) => "disabled",
            (false, true) => "enabled",
        },
        tenant_suspended: found.tenant_suspended,
        vendor_known: found.vendor_known,
        vendor_allowed: found.vendor_allowed,
        allowed_vendors: bot.allowed_vendors,
        model_allowed: found.model_allowed,
        allowed_models: bot.allowed_models,
        tags: bot.tags,
        key_strategy: bot.key_strategy.as_str(),
        candidates: found.candidates.into_iter().map(|candidate| candidate_key(candidate, sees_keys)).collect(),
        left_out: found.left_out.into_iter().map(|left| left_out_key(left, sees_keys)).collect(),
        quotas: found.quotas.into_iter().map(ExplainedQuota::from).collect(),
        limits: bot.limits.into(),
        tenant_limits: found.tenant_limits.into(),
    }
}

fn candidate_key(Candidate { key, url, quotas }: Candidate, sees_keys: bool) -> CandidateKey {
    CandidateKey {
        id: key.id,
        label: Some(key.label).filter(|_| sees_keys),
        tags: key.tags,
        weight: key.weight,
        priority: key.priority,
        status: key.status.as_str(),
        url: url.filter(|_| sees_keys),
        quotas: quotas.into_iter().map(ExplainedQuota::from).collect(),
    }
}

fn left_out_key(LeftOut { key, reason, until }: LeftOut, sees_keys: bool) -> LeftOutKey {
    LeftOutKey {
        id: key.id,
        label: Some(key.label).filter(|_| sees_keys),
        tags: key.tags,
        reason: reason.as_str(),
        until: until.map(clock::rfc3339),
    }
}

impl From<Covering> for ExplainedQuota {
    fn from(covering: Covering) -> Self {
        let spec = &covering.state.quota.spec;
        Self {
            scope: covering.state.quota.scope.as_str(),
            covers: covering.covers,
            blocks: covering.covers && spec.action == QuotaAction::Block,
            remaining: covering.remaining(),
            quota: QuotaView::from(covering.state),
        }
    }
}
