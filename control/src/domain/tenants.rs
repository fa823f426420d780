//! Tenants.

use clawgate_shared::{clock, id};
use serde_json::json;

use super::change::{Change, Target, check_version, check_written};
use super::error::conflict;
use super::rules::Errors;
use super::{Caller, Domain, DomainError, Done, Permission, Principal, Role, quotas};
use crate::store::bots::Limits;
use crate::store::tenants::{self, TenantRow};
use crate::store::tombstones::{self, Tombstone};
use crate::store::types::TenantState;
use crate::store::{StoreError, api_tokens};

/// Slug of the tenant that the bootstrap token speaks for unless told otherwise.
pub const DEFAULT_TENANT: &str = "default";
const MAX_SLUG: usize = 40;

/// A tenant to be made.
#[derive(Clone, Debug, Default)]
pub struct NewTenant {
    /// Unique DNS label.
    pub slug: String,
    /// The slug unless given.
    pub name: Option<String>,
    /// IANA name; UTC unless given.
    pub time_zone: Option<String>,
    /// Whether it starts suspended.
    pub suspended: bool,
}

/// What to change; `None`: nothing.
#[derive(Clone, Debug, Default)]
pub struct TenantPatch {
    /// Unique DNS label.
    pub slug: Option<String>,
    /// For people.
    pub name: Option<String>,
    /// IANA name.
    pub time_zone: Option<String>,
    /// Needs `tenant.manage`.
    pub suspended: Option<bool>,
}

/// The tenant a request is about: the one named, else the caller's own, else
/// `default` for the bootstrap token.
///
/// # Errors
/// `NotFound` when it does not exist or is not the caller's; `TenantRequired`.
pub async fn select(domain: &Domain, principal: &Principal, slug: Option<&str>) -> Result<TenantRow, DomainError> {
    let mut conn = domain.db.read().await?;
    let missing = DomainError::NotFound { what: "tenant" };
    match (&principal.tenant_id, slug) {
        (Some(own), slug) => {
            let row = tenants::get(&mut conn, own).await?.ok_or(missing)?;
            if slug.is_some_and(|slug| slug != row.slug) {
                return Err(DomainError::NotFound { what: "tenant" });
            }
            Ok(row)
        }
        (None, Some(slug)) => tenants::by_slug(&mut conn, slug).await?.ok_or(missing),
        (None, None) if principal.role == Role::Bootstrap => {
            tenants::by_slug(&mut conn, DEFAULT_TENANT).await?.ok_or(missing)
        }
        (None, None) => Err(DomainError::TenantRequired),
    }
}

/// Makes a tenant.
///
/// # Errors
/// Needs `tenant.manage` of the platform.
pub async fn create(domain: &Domain, caller: &Caller, new: NewTenant) -> Result<Done<TenantRow>, DomainError> {
    caller.principal.require_platform(Permission::TenantManage)?;
    let now = clock::now_micros();
    let state = if new.suspended { TenantState::Suspended } else { TenantState::Active };
    let row = TenantRow {
        id: id::new(id::Kind::Tenant),
        name: new.name.unwrap_or_else(|| new.slug.clone()),
        slug: new.slug,
        state,
        time_zone: new.time_zone.unwrap_or_else(|| "UTC".into()),
        limits: Limits::default(),
        version: 1,
        created_at: now,
        updated_at: now,
    };
    validate(&row)?;
    let mut change = Change::begin(domain).await?;
    tenants::insert(&mut change, &row).await.map_err(conflict)?;
    let detail = json!({"slug": row.slug, "time_zone": row.time_zone, "state": row.state.as_str()});
    change.audit(caller, "tenant.create", target(&row), detail).await?;
    change.publish(row).await
}

/// Changes a tenant.
///
/// # Errors
/// Needs `tenant.write` in it or `tenant.manage` of the platform; `suspended`
/// needs the latter.
pub async fn update(
    domain: &Domain,
    caller: &Caller,
    tenant_id: &str,
    patch: TenantPatch,
    expected: Option<u64>,
) -> Result<Done<TenantRow>, DomainError> {
    let principal = &caller.principal;
    if patch.suspended.is_some() {
        principal.require(Permission::TenantManage, tenant_id)?;
    } else {
        require_write(caller, tenant_id)?;
    }
    let mut change = Change::begin(domain).await?;
    let mut row = find(&mut change, tenant_id).await?;
    check_version(expected, row.version)?;
    let before = row.clone();
    row.slug = patch.slug.unwrap_or(row.slug);
    row.name = patch.name.unwrap_or(row.name);
    row.time_zone = patch.time_zone.unwrap_or(row.time_zone);
    if let Some(suspended) = patch.suspended {
        row.state = if suspended { TenantState::Suspended } else { TenantState::Active };
    }
    validate(&row)?;
    if before.slug == DEFAULT_TENANT && row.slug != DEFAULT_TENANT {
        return Err(DomainError::field("slug", "reserved", "the default tenant keeps its slug"));
    }
    row.updated_at = clock::now_micros();
    check_written(tenants::update(&mut change, &row).await.map_err(conflict)?)?;
    row.version += 1;
    if row.time_zone != before.time_zone {
        quotas::changed(&mut change).await?;
    }
    let detail = json!({
        "slug": row.slug, "name": row.name, "time_zone": row.time_zone, "state": row.state.as_str(),
        "before": {"slug": before.slug, "time_zone": before.time_zone, "state": before.state.as_str()},
    });
    change.audit(caller, "tenant.update", target(&row), detail).await?;
    change.publish(row).await
}

/// Deletes a tenant that owns no project, bot, key or vendor. Its API tokens go
/// with it; its usage and audit rows stay.
///
/// # Errors
/// Needs `tenant.delete` in it or `tenant.manage` of the platform; `StillInUse`.
pub async fn delete(
    domain: &Domain,
    caller: &Caller,
    tenant_id: &str,
    expected: Option<u64>,
) -> Result<Done<()>, DomainError> {
    if caller.principal.require(Permission::TenantManage, tenant_id).is_err() {
        caller.principal.require(Permission::TenantDelete, tenant_id)?;
    }
    let mut change = Change::begin(domain).await?;
    let row = find(&mut change, tenant_id).await?;
    check_version(expected, row.version)?;
    if row.slug == DEFAULT_TENANT {
        return Err(DomainError::StillInUse { what: "tenant" });
    }
    api_tokens::delete_of_tenant(&mut change, tenant_id).await?;
    tenants::delete(&mut change, tenant_id).await.map_err(|error| match error {
        StoreError::Reference => DomainError::StillInUse { what: "tenant" },
        other => other.into(),
    })?;
    // Its quotas went with it.
    quotas::changed(&mut change).await?;
    let stone = Tombstone { id: &row.id, kind: "tenant", tenant_id: &row.id, name: &row.slug };
    tombstones::insert(&mut change, stone, clock::now_micros()).await?;
    change.audit(caller, "tenant.delete", target(&row), json!({"slug": row.slug})).await?;
    change.publish(()).await
}

/// Who may change a tenant's settings.
pub(super) fn require_write(caller: &Caller, tenant_id: &str) -> Result<(), DomainError> {
    match caller.principal.require(Permission::TenantManage, tenant_id) {
        Ok(()) => Ok(()),
        Err(_) => caller.principal.require(Permission::TenantWrite, tenant_id),
    }
}

pub(super) async fn find(change: &mut Change, tenant_id: &str) -> Result<TenantRow, DomainError> {
    tenants::get(change, tenant_id).await?.ok_or(DomainError::NotFound { what: "tenant" })
}

pub(super) fn target(row: &TenantRow) -> Target<'_> {
    Target { tenant_id: Some(&row.id), kind: "tenant", id: &row.id }
}

fn validate(row: &TenantRow) -> Result<(), DomainError> {
    let mut errors = Errors::default();
    errors.dns_label("slug", &row.slug, MAX_SLUG, &[]);
    errors.name("name", &row.name);
    if row.time_zone.len() > 64 || jiff::tz::TimeZone::get(&row.time_zone).is_err() {
        errors.add("time_zone", "format", "must be an IANA time zone, for example Europe/Berlin or UTC");
    }
    errors.finish()
}
