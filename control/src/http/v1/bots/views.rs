//! What is told about bots and their tokens.

use std::collections::BTreeMap;

use clawgate_shared::clock;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::requests::LimitsBody;
use crate::store::bot_tokens::BotTokenRow;
use crate::store::bots::{BotCount, BotRow, Limits};

/// A bot.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Bot)]
pub struct BotView {
    id: String,
    hostname: String,
    name: String,
    project_id: Option<String>,
    /// Who made it.
    owner: String,
    labels: BTreeMap<String, String>,
    tags: Vec<String>,
    allowed_vendors: Vec<String>,
    allowed_models: Vec<String>,
    model_aliases: BTreeMap<String, String>,
    fallbacks: BTreeMap<String, Vec<String>>,
    key_strategy: &'static str,
    on_disconnect: &'static str,
    default_max_tokens: Option<u64>,
    include_usage: &'static str,
    permissions: Vec<&'static str>,
    #[schema(value_type = Vec<Object>)]
    quotas: Vec<Value>,
    limits: LimitsBody,
    adapter: &'static str,
    image: Option<String>,
    #[schema(value_type = Option<Object>)]
    resources: Option<Value>,
    template: Option<String>,
    /// What is wanted of its container.
    desired_state: &'static str,
    /// What is observed.
    status: &'static str,
    status_reason: String,
    status_since: String,
    enabled: bool,
    suspended: bool,
    /// Where its SDKs are pointed.
    base_urls: BaseUrls,
    /// Only in the answer to its creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    created_at: String,
    updated_at: String,
}

/// Base URLs by the SDK that takes them.
#[derive(Debug, Serialize, ToSchema)]
pub struct BaseUrls {
    openai: String,
    anthropic: String,
    google: String,
    /// Vendor-qualified models: `openai/gpt-4o-mini`.
    unified: String,
}

impl BaseUrls {
    fn below(public_url: &str) -> Self {
        Self {
            openai: format!("{public_url}/v1/openai"),
            anthropic: format!("{public_url}/v1/anthropic"),
            google: format!("{public_url}/v1/google"),
            unified: format!("{public_url}/v1"),
        }
    }
}

impl From<Limits> for LimitsBody {
    fn from(limits: Limits) -> Self {
        Self {
            requests_per_minute: limits.requests_per_minute,
            tokens_per_minute: limits.tokens_per_minute,
            max_concurrency: limits.max_concurrency,
        }
    }
}

impl BotView {
    /// `token`: only for a bot that was made just now.
    #[must_use]
    pub fn new(row: BotRow, public_url: &str, token: Option<String>) -> Self {
        let quotas = row.quotas.iter().filter_map(|quota| serde_json::to_value(quota).ok()).collect();
        Self {
            id: row.id,
            hostname: row.hostname,
            name: row.name,
            project_id: row.project_id,
            owner: row.owner,
            labels: row.labels,
            tags: row.tags,
            allowed_vendors: row.allowed_vendors,
            allowed_models: row.allowed_models,
            model_aliases: row.model_aliases,
            fallbacks: row.fallbacks,
            key_strategy: row.key_strategy.as_str(),
            on_disconnect: row.on_disconnect.as_str(),
            default_max_tokens: row.default_max_tokens,
            include_usage: row.include_usage.as_str(),
            permissions: row.permissions.iter().map(|permission| permission.as_str()).collect(),
            quotas,
            limits: row.limits.into(),
            adapter: row.adapter.as_str(),
            image: row.image,
            resources: row.resources.and_then(|resources| serde_json::to_value(resources).ok()),
            template: row.template,
            desired_state: row.desired_state.as_str(),
            status: row.status.as_str(),
            status_reason: row.status_reason,
            status_since: clock::rfc3339(row.status_since),
            enabled: row.enabled,
            suspended: row.suspended,
            base_urls: BaseUrls::below(public_url),
            token,
            created_at: clock::rfc3339(row.created_at),
            updated_at: clock::rfc3339(row.updated_at),
        }
    }
}

/// A bot token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BotToken)]
pub struct BotTokenView {
    id: String,
    name: String,
    last4: String,
    created_at: String,
    expires_at: Option<String>,
    revoked_at: Option<String>,
    /// Only in the answer to its creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl BotTokenView {
    /// `token`: only for one that was minted just now.
    #[must_use]
    pub fn new(row: BotTokenRow, token: Option<String>) -> Self {
        Self {
            id: row.id,
            name: row.name,
            last4: row.last4,
            created_at: clock::rfc3339(row.created_at),
            expires_at: row.expires_at.map(clock::rfc3339),
            revoked_at: row.revoked_at.map(clock::rfc3339),
            token,
        }
    }
}

/// How many bots there are.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct BotStats {
    /// All.
    pub total: u64,
    /// By observed status.
    pub by_status: BTreeMap<&'static str, u64>,
    /// Switched off.
    pub disabled: u64,
    /// Suspended.
    pub suspended: u64,
}

impl From<Vec<BotCount>> for BotStats {
    fn from(counts: Vec<BotCount>) -> Self {
        let mut stats = Self::default();
        for BotCount { status, enabled, suspended, count } in counts {
            stats.total += count;
            *stats.by_status.entry(status.as_str()).or_default() += count;
            stats.disabled += if enabled { 0 } else { count };
            stats.suspended += if suspended { count } else { 0 };
        }
        stats
    }
}
