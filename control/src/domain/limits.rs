//! Rate and concurrency limits of bots and tenants.

use clawgate_shared::clock;
use serde_json::json;

use super::bots::{self, BotFields};
use super::change::{Change, check_version, check_written};
use super::rules::Errors;
use super::tenants::{find, require_write, target};
use super::{Caller, Domain, DomainError, Done};
use crate::store::bots::{BotRow, Limits};
use crate::store::tenants::{self, TenantRow};

/// The largest token rate; nodes count in nanoseconds per token and more.
const MAX_TOKENS: u64 = 1_000_000_000_000;

/// Notes every limit that is out of range; `below` is put before its name.
pub(super) fn check(errors: &mut Errors, below: &str, limits: &Limits) {
    let Limits { requests_per_minute, tokens_per_minute, max_concurrency } = *limits;
    for (name, value, max) in [
        ("requests_per_minute", requests_per_minute, u64::from(u32::MAX)),
        ("tokens_per_minute", tokens_per_minute, MAX_TOKENS),
        ("max_concurrency", max_concurrency, u64::from(u32::MAX)),
    ] {
        if let Some(value) = value {
            errors.range(&format!("{below}{name}"), value, 1, max);
        }
    }
}

/// Replaces the limits of a bot.
///
/// # Errors
/// Needs `bot.write`, or `bot.write_own` on an own one.
pub async fn replace_of_bot(
    domain: &Domain,
    caller: &Caller,
    place: (&str, &str),
    limits: Limits,
    expected: Option<u64>,
) -> Result<Done<BotRow>, DomainError> {
    let mut errors = Errors::default();
    check(&mut errors, "", &limits);
    errors.finish()?;
    let fields = BotFields { limits: Some(limits), ..BotFields::default() };
    bots::update(domain, caller, place, fields, expected).await
}

/// Replaces the limits of a tenant: what all its bots may use together.
///
/// # Errors
/// Needs `tenant.write` in it or `tenant.manage` of the platform.
pub async fn replace_of_tenant(
    domain: &Domain,
    caller: &Caller,
    tenant_id: &str,
    limits: Limits,
    expected: Option<u64>,
) -> Result<Done<TenantRow>, DomainError> {
    require_write(caller, tenant_id)?;
    let mut errors = Errors::default();
    check(&mut errors, "", &limits);
    errors.finish()?;
    let mut change = Change::begin(domain).await?;
    let mut row = find(&mut change, tenant_id).await?;
    check_version(expected, row.version)?;
    let before = std::mem::replace(&mut row.limits, limits);
    row.updated_at = clock::now_micros();
    check_written(tenants::update(&mut change, &row).await?)?;
    row.version += 1;
    let said = |limits: &Limits| {
        json!({
            "requests_per_minute": limits.requests_per_minute, "tokens_per_minute": limits.tokens_per_minute,
            "max_concurrency": limits.max_concurrency,
        })
    };
    let detail = json!({"slug": row.slug, "limits": said(&row.limits), "before": said(&before)});
    change.audit(caller, "tenant.limits", target(&row), detail).await?;
    change.publish(row).await
}
