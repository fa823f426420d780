//! A tenant's own vendors.

use clawgate_shared::catalogue::{CustomVendor, CustomVendorError, Vendor};
use clawgate_shared::egress::Verdict;
use clawgate_shared::origin::BaseUrl;
use clawgate_shared::{clock, id};
use serde_json::json;

use super::change::{Change, Target, check_version, check_written};
use super::error::conflict;
use super::rules::Errors;
use super::{Caller, Domain, DomainError, Done, Permission};
use crate::store::vendors::{self, VendorRow};
use crate::store::{provider_keys, tenants};

/// Own vendors of one tenant.
const MAX_VENDORS: u64 = 256;

/// A vendor to be made.
#[derive(Clone, Debug, Default)]
pub struct NewVendor {
    /// The path segment; not built in, not reserved.
    pub slug: String,
    /// The slug unless given.
    pub title: Option<String>,
    /// Where it is.
    pub base_url: String,
    /// `bearer` unless given.
    pub auth: Option<String>,
    /// `openai` unless given.
    pub dialect: Option<String>,
    /// `passthrough` unless given.
    pub include_usage: Option<String>,
    /// Patterns below the base URL; empty: those of the dialect.
    pub routes: Vec<String>,
}

/// What to change; `None`: nothing.
#[derive(Clone, Debug, Default)]
pub struct VendorPatch {
    /// For people.
    pub title: Option<String>,
    /// Only while no key relies on it.
    pub base_url: Option<String>,
    /// As in [`NewVendor`].
    pub auth: Option<String>,
    /// As in [`NewVendor`].
    pub dialect: Option<String>,
    /// As in [`NewVendor`].
    pub include_usage: Option<String>,
    /// As in [`NewVendor`].
    pub routes: Option<Vec<String>>,
}

/// Makes a vendor.
///
/// # Errors
/// Needs `vendor.write`.
pub async fn create(
    domain: &Domain,
    caller: &Caller,
    tenant_id: &str,
    new: NewVendor,
) -> Result<Done<VendorRow>, DomainError> {
    caller.principal.require(Permission::VendorWrite, tenant_id)?;
    let now = clock::now_micros();
    let row = VendorRow {
        id: id::new(id::Kind::Vendor),
        tenant_id: tenant_id.to_owned(),
        title: new.title.unwrap_or_else(|| new.slug.clone()),
        slug: new.slug,
        base_url: new.base_url,
        auth: new.auth.unwrap_or_else(|| "bearer".into()),
        dialect: new.dialect.unwrap_or_else(|| "openai".into()),
        include_usage: new.include_usage.unwrap_or_default(),
        routes: new.routes,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    validate(domain, &row)?;
    let mut change = Change::begin(domain).await?;
    tenants::get(&mut change, tenant_id).await?.ok_or(DomainError::NotFound { what: "tenant" })?;
    if vendors::count(&mut change, tenant_id).await? >= MAX_VENDORS {
        return Err(DomainError::LimitReached { what: "vendors", limit: MAX_VENDORS });
    }
    vendors::insert(&mut change, &row).await.map_err(conflict)?;
    change.audit(caller, "vendor.create", target(&row), detail(&row)).await?;
    change.publish(row).await
}

/// Changes a vendor. Its origin stays as long as a key without a base URL of its
/// own relies on it: a secret is bound to one origin.
///
/// # Errors
/// Needs `vendor.write`; `StillInUse`.
pub async fn update(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, slug): (&str, &str),
    patch: VendorPatch,
    expected: Option<u64>,
) -> Result<Done<VendorRow>, DomainError> {
    caller.principal.require(Permission::VendorWrite, tenant_id)?;
    let mut change = Change::begin(domain).await?;
    let mut row = find(&mut change, tenant_id, slug).await?;
    check_version(expected, row.version)?;
    let before = row.clone();
    row.title = patch.title.unwrap_or(row.title);
    row.base_url = patch.base_url.unwrap_or(row.base_url);
    row.auth = patch.auth.unwrap_or(row.auth);
    row.dialect = patch.dialect.unwrap_or(row.dialect);
    row.include_usage = patch.include_usage.unwrap_or(row.include_usage);
    row.routes = patch.routes.unwrap_or(row.routes);
    validate(domain, &row)?;
    let moved = BaseUrl::parse(&before.base_url).ok() != BaseUrl::parse(&row.base_url).ok();
    if moved && provider_keys::count_of_vendor(&mut change, tenant_id, slug, true).await? > 0 {
        return Err(DomainError::StillInUse { what: "base_url of the vendor" });
    }
    row.updated_at = clock::now_micros();
    check_written(vendors::update(&mut change, &row).await?)?;
    row.version += 1;
    change.audit(caller, "vendor.update", target(&row), detail(&row)).await?;
    change.publish(row).await
}

/// Deletes a vendor that no key is for.
///
/// # Errors
/// Needs `vendor.write`; `StillInUse`.
pub async fn delete(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, slug): (&str, &str),
    expected: Option<u64>,
) -> Result<Done<()>, DomainError> {
    caller.principal.require(Permission::VendorWrite, tenant_id)?;
    let mut change = Change::begin(domain).await?;
    let row = find(&mut change, tenant_id, slug).await?;
    check_version(expected, row.version)?;
    if provider_keys::count_of_vendor(&mut change, tenant_id, slug, false).await? > 0 {
        return Err(DomainError::StillInUse { what: "vendor" });
    }
    vendors::delete(&mut change, tenant_id, slug).await?;
    change.audit(caller, "vendor.delete", target(&row), json!({"slug": row.slug})).await?;
    change.publish(()).await
}

async fn find(change: &mut Change, tenant_id: &str, slug: &str) -> Result<VendorRow, DomainError> {
    vendors::get(change, tenant_id, slug).await?.ok_or(DomainError::NotFound { what: "vendor" })
}

/// A row as a catalogue entry.
pub(super) fn entry(row: &VendorRow) -> Result<Vendor, CustomVendorError> {
    Vendor::custom(CustomVendor {
        slug: &row.slug,
        title: &row.title,
        base_url: &row.base_url,
        auth: &row.auth,
        dialect: &row.dialect,
        include_usage: &row.include_usage,
        routes: &row.routes,
    })
}

fn validate(domain: &Domain, row: &VendorRow) -> Result<(), DomainError> {
    let mut errors = Errors::default();
    errors.name("title", &row.title);
    // One at a time: the catalogue stops at the first.
    if let Err(error) = entry(row) {
        let (field, rule) = match error {
            CustomVendorError::Slug => ("slug", "format"),
            CustomVendorError::BaseUrl(_) => ("base_url", "format"),
            CustomVendorError::Auth => ("auth", "one_of"),
            CustomVendorError::Dialect => ("dialect", "one_of"),
            CustomVendorError::IncludeUsage => ("include_usage", "one_of"),
            CustomVendorError::Routes => ("routes", "format"),
        };
        errors.add(field, rule, error.to_string());
    }
    if let Ok(url) = BaseUrl::parse(&row.base_url)
        && let Verdict::Denied(denial) = domain.upstreams.origin_verdict(&url.origin)
    {
        errors.add("base_url", "not_allowed", denial.to_string());
    }
    errors.finish()
}

fn detail(row: &VendorRow) -> serde_json::Value {
    json!({"slug": row.slug, "base_url": row.base_url, "auth": row.auth, "dialect": row.dialect})
}

fn target(row: &VendorRow) -> Target<'_> {
    Target { tenant_id: Some(&row.tenant_id), kind: "vendor", id: &row.id }
}
