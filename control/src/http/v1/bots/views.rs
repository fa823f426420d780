//! What is told about bots and their tokens.

use std::collections::BTreeMap;

use clawgate_shared::clock;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::requests::LimitsBody;
use crate::store::bot_tokens::BotTokenRow;
use crate::store::bots::{BotCount, BotRow, Limits};
use crate::store::containers::ContainerRow;
use crate::store::types::Adapter;

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
    /// What is wanted of its container: running, stopped, or suspended for as
    /// long as the bot is.
    desired_state: &'static str,
    /// What is observed.
    status: &'static str,
    status_reason: String,
    status_since: String,
    /// Of a bot that we run.
    container: Option<ContainerView>,
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
            desired_state: if row.suspended && row.adapter != Adapter::External {
                "suspended"
            } else {
                row.desired_state.as_str()
            },
            status: row.status.as_str(),
            status_reason: row.status_reason,
            status_since: clock::rfc3339(row.status_since),
            container: row.container.map(|container| ContainerView::from(*container)),
            enabled: row.enabled,
            suspended: row.suspended,
            base_urls: BaseUrls::below(public_url),
            token,
            created_at: clock::rfc3339(row.created_at),
            updated_at: clock::rfc3339(row.updated_at),
        }
    }
}

/// What is known of a bot's container.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BotContainer)]
pub struct ContainerView {
    /// Moves when the container is made anew.
    generation: u64,
    runner_id: Option<String>,
    /// As given.
    #[schema(value_type = Object)]
    spec: Value,
    cpu_millis: u64,
    memory_mb: u64,
    pids_limit: u64,
    /// 0: as the runner has it.
    disk_mb: u64,
    /// Why the status is what it is; empty: nothing to explain.
    reason_code: &'static str,
    /// The engine's id.
    container_id: Option<String>,
    /// What the image was resolved to.
    image_digest: Option<String>,
    started_at: Option<String>,
    /// Of its last end.
    exit_code: Option<i64>,
    /// It ended for want of memory.
    oom: bool,
    restart_count: u64,
    /// healthy, unhealthy or unknown.
    health: &'static str,
    last_health_check: Option<String>,
    /// When its runner spoke of it.
    observed_at: Option<String>,
    /// In a row.
    failures: u32,
    /// Not tried again before; null also when it is not tried again by itself.
    retry_at: Option<String>,
}

impl From<ContainerRow> for ContainerView {
    fn from(row: ContainerRow) -> Self {
        let seen = row.seen;
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            generation: row.generation,
            runner_id: row.runner_id,
            spec: serde_json::from_str(&row.run).unwrap_or_default(),
            cpu_millis: row.size.cpu_millis,
            memory_mb: row.size.memory_mb,
            pids_limit: row.size.pids_limit,
            disk_mb: row.size.disk_mb,
            reason_code: seen.reason.as_str(),
            container_id: given(seen.container_id),
            image_digest: given(seen.image_digest),
            started_at: given(seen.started_at),
            exit_code: seen.exit_code,
            oom: seen.oom,
            restart_count: seen.restart_count,
            health: seen.health.as_str(),
            last_health_check: seen.health_at.map(clock::rfc3339),
            observed_at: seen.observed_at.map(clock::rfc3339),
            failures: seen.failures,
            retry_at: seen.retry_at.filter(|at| *at != i64::MAX).map(clock::rfc3339),
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
