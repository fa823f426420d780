//! What is told about provider keys: never their secrets.

use clawgate_shared::clock;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::store::provider_keys::ProviderKeyRow;

/// A provider key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProviderKey)]
pub struct ProviderKeyView {
    id: String,
    vendor: String,
    label: String,
    tags: Vec<String>,
    /// null: the vendor's own.
    base_url: Option<String>,
    /// null: for all projects.
    project_id: Option<String>,
    weight: u32,
    /// Higher goes first.
    priority: i32,
    /// 0: no limit.
    max_concurrency: u32,
    #[schema(value_type = Object)]
    options: Value,
    enabled: bool,
    /// active, suspect, invalid, exhausted or cooling.
    status: &'static str,
    status_reason: String,
    /// Last four characters of the secret; empty when it is short or absent.
    last4: String,
    /// Equal for equal secrets; says nothing else about them.
    fingerprint: String,
    /// Goes up with each rotation.
    secret_version: u64,
    created_at: String,
    updated_at: String,
}

impl From<ProviderKeyRow> for ProviderKeyView {
    fn from(row: ProviderKeyRow) -> Self {
        Self {
            id: row.id,
            vendor: row.vendor,
            label: row.label,
            tags: row.tags,
            base_url: row.base_url,
            project_id: row.project_id,
            weight: row.weight,
            priority: row.priority,
            max_concurrency: row.max_concurrency,
            options: serde_json::to_value(&row.options).unwrap_or_default(),
            enabled: row.enabled,
            status: row.status.as_str(),
            status_reason: row.status_reason,
            last4: row.last4,
            fingerprint: row.fingerprint,
            secret_version: row.secret_version,
            created_at: clock::rfc3339(row.created_at),
            updated_at: clock::rfc3339(row.updated_at),
        }
    }
}

/// Health of one key.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProviderKeyHealth {
    id: String,
    vendor: String,
    label: String,
    enabled: bool,
    /// active, suspect, invalid, exhausted or cooling.
    status: &'static str,
    reason: String,
}

impl From<ProviderKeyRow> for ProviderKeyHealth {
    fn from(row: ProviderKeyRow) -> Self {
        Self {
            id: row.id,
            vendor: row.vendor,
            label: row.label,
            enabled: row.enabled,
            status: row.status.as_str(),
            reason: row.status_reason,
        }
    }
}
