//! What the bots of a tenant may take together.
//!
//! Checked in the transaction that makes or changes a bot, under the lock of
//! all configuration writes: two bots made at once do not both get the last
//! place.

use clawgate_shared::clock;
use serde_json::json;

use super::change::Change;
use super::rules::Errors;
use super::tenants::{find, target};
use super::{Caller, Domain, DomainError, Done, Permission};
use crate::store::containers::{self, Size, Taken};
use crate::store::resource_quotas::{self, ResourceQuota};

/// The most that a limit can be set to.
const MAX: u64 = 1_000_000_000;

/// Replaces a tenant's limits; what is taken beyond them stays.
///
/// # Errors
/// Needs `tenant.manage` of the platform, or `quota.write` in the tenant.
pub async fn replace(
    domain: &Domain,
    caller: &Caller,
    tenant_id: &str,
    quota: ResourceQuota,
) -> Result<Done<ResourceQuota>, DomainError> {
    if caller.principal.require(Permission::TenantManage, tenant_id).is_err() {
        caller.principal.require(Permission::QuotaWrite, tenant_id)?;
    }
    let mut errors = Errors::default();
    for (field, value) in parts(&quota) {
        if let Some(value) = value {
            errors.range(field, value, 0, MAX);
        }
    }
    errors.finish()?;
    let mut change = Change::begin(domain).await?;
    let row = find(&mut change, tenant_id).await?;
    resource_quotas::put(&mut change, tenant_id, quota, clock::now_micros()).await?;
    let detail = json!({
        "slug": row.slug, "bots": quota.bots, "cpu_millis": quota.cpu_millis, "memory_mb": quota.memory_mb,
        "disk_mb": quota.disk_mb,
    });
    change.audit(caller, "tenant.resource_quota", target(&row), detail).await?;
    change.keep(quota).await
}

const fn parts(quota: &ResourceQuota) -> [(&'static str, Option<u64>); 4] {
    [("bots", quota.bots), ("cpu_millis", quota.cpu_millis), ("memory_mb", quota.memory_mb), ("disk_mb", quota.disk_mb)]
}

/// Whether one more bot has its place; `size`: what it takes if we run it.
pub(super) async fn check_new(change: &mut Change, tenant_id: &str, size: Option<Size>) -> Result<(), DomainError> {
    let mut taken = containers::taken(change, tenant_id).await?;
    taken.bots += 1;
    check(change, tenant_id, taken, Size::default(), size.unwrap_or_default()).await
}

/// Whether a bot may take `after` instead of `before`.
pub(super) async fn check_size(
    change: &mut Change,
    tenant_id: &str,
    before: Size,
    after: Size,
) -> Result<(), DomainError> {
    let taken = containers::taken(change, tenant_id).await?;
    check(change, tenant_id, taken, before, after).await
}

/// Only what grows is refused: a tenant beyond its limits can still shrink.
async fn check(
    change: &mut Change,
    tenant_id: &str,
    taken: Taken,
    before: Size,
    after: Size,
) -> Result<(), DomainError> {
    let quota = resource_quotas::get(change, tenant_id).await?;
    let grows_bots = before == Size::default();
    let later = |now: u64, less: u64, more: u64| now.saturating_sub(less).saturating_add(more);
    for (what, limit, wanted, grows) in [
        ("bots", quota.bots, taken.bots, grows_bots),
        (
            "cpu_millis of all bots",
            quota.cpu_millis,
            later(taken.cpu_millis, before.cpu_millis, after.cpu_millis),
            after.cpu_millis > before.cpu_millis,
        ),
        (
            "memory_mb of all bots",
            quota.memory_mb,
            later(taken.memory_mb, before.memory_mb, after.memory_mb),
            after.memory_mb > before.memory_mb,
        ),
        (
            "disk_mb of all bots",
            quota.disk_mb,
            later(taken.disk_mb, before.disk_mb, after.disk_mb),
            after.disk_mb > before.disk_mb,
        ),
    ] {
        if let Some(limit) = limit.filter(|limit| grows && wanted > *limit) {
            return Err(DomainError::LimitReached { what, limit });
        }
    }
    // A disk without a limit of its own would be a way around the tenant's.
    if quota.disk_mb.is_some() && after != Size::default() && after.disk_mb == 0 {
        return Err(DomainError::field("resources.disk_mb", "required", "the tenant's disk is limited"));
    }
    Ok(())
}
