//! What is told about provider keys: never their secrets.

use clawgate_shared::clock;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::provider_keys::{Verdict, Verified};
use crate::fleet::Cooling;
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
    /// Only in the answer to a creation with `?verify=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<ProviderKeyVerification>,
}

/// What asking the vendor about a key came to.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProviderKeyVerification {
    id: String,
    /// active, invalid, exhausted, rate_limited, forbidden, unsupported,
    /// vendor_error, unreachable or address_denied; only the first three decide
    /// the key's status.
    result: &'static str,
    /// What that means.
    message: &'static str,
    /// The vendor's own; null when it did not answer or was not asked.
    http_status: Option<u16>,
    /// The key's, as it is now.
    status: &'static str,
    checked_at: String,
    duration_ms: u64,
}

impl From<&Verified> for ProviderKeyVerification {
    fn from(verified: &Verified) -> Self {
        Self {
            id: verified.row.id.clone(),
            result: verified.verdict.as_str(),
            message: explain(verified.verdict),
            http_status: verified.http_status,
            status: verified.row.status.as_str(),
            checked_at: clock::rfc3339(verified.checked_at),
            duration_ms: u64::try_from(verified.duration.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

const fn explain(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Active => "the vendor takes the key",
        Verdict::Invalid => "the vendor does not know the key; check it at the vendor and rotate it",
        Verdict::Exhausted => "the vendor knows the key, but its account has no credit",
        Verdict::RateLimited => "the vendor asks to wait; try again later",
        Verdict::Forbidden => "the vendor does not let this key list models; it may still serve other routes",
        Verdict::Unsupported => "this vendor has no route that would prove a key; the first request will tell",
        Verdict::VendorError => "the vendor answered with an error that says nothing about the key",
        Verdict::Unreachable => "the vendor did not answer; check base_url and the network",
        Verdict::AddressDenied => "base_url leads to an address that is not in the operator's private upstreams",
    }
}

impl ProviderKeyView {
    /// A new key with what its vendor says about it.
    pub fn verified(verified: Verified) -> Self {
        let verification = Some(ProviderKeyVerification::from(&verified));
        Self { verification, ..Self::from(verified.row) }
    }
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
            verification: None,
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
    /// Models whose limits at the vendor are used up.
    cooling: Vec<CoolingModel>,
}

/// A model that a key is not asked for now.
#[derive(Debug, Serialize, ToSchema)]
pub struct CoolingModel {
    /// As clients named it; empty for requests that name none.
    model: String,
    until: String,
}

impl From<(ProviderKeyRow, Vec<Cooling>)> for ProviderKeyHealth {
    fn from((row, cooling): (ProviderKeyRow, Vec<Cooling>)) -> Self {
        let cooling = cooling.into_iter().map(|(model, until)| CoolingModel { model, until: clock::rfc3339(until) });
        Self {
            cooling: cooling.collect(),
            id: row.id,
            vendor: row.vendor,
            label: row.label,
            enabled: row.enabled,
            status: row.status.as_str(),
            reason: row.status_reason,
        }
    }
}
