//! Projects.

use clawgate_shared::{clock, id};
use serde_json::json;

use super::change::{Change, Target, check_version, check_written};
use super::error::conflict;
use super::rules::Errors;
use super::{Caller, Domain, DomainError, Done, Permission, quotas};
use crate::store::projects::{self, ProjectRow};
use crate::store::tombstones::{self, Tombstone};
use crate::store::types::QuotaScope;
use crate::store::{StoreError, tenants};

const MAX_SLUG: usize = 40;
const MAX_DESCRIPTION: usize = 1024;

/// A project to be made.
#[derive(Clone, Debug, Default)]
pub struct NewProject {
    /// DNS label, unique in the tenant.
    pub slug: String,
    /// The slug unless given.
    pub name: Option<String>,
    /// Empty unless given.
    pub description: Option<String>,
}

/// What to change; `None`: nothing.
#[derive(Clone, Debug, Default)]
pub struct ProjectPatch {
    /// DNS label, unique in the tenant.
    pub slug: Option<String>,
    /// For people.
    pub name: Option<String>,
    /// For people.
    pub description: Option<String>,
}

/// Makes a project.
///
/// # Errors
/// Needs `project.write`.
pub async fn create(
    domain: &Domain,
    caller: &Caller,
    tenant_id: &str,
    new: NewProject,
) -> Result<Done<ProjectRow>, DomainError> {
    caller.principal.require(Permission::ProjectWrite, tenant_id)?;
    let now = clock::now_micros();
    let row = ProjectRow {
        id: id::new(id::Kind::Project),
        tenant_id: tenant_id.to_owned(),
        name: new.name.unwrap_or_else(|| new.slug.clone()),
        slug: new.slug,
        description: new.description.unwrap_or_default(),
        version: 1,
        created_at: now,
        updated_at: now,
    };
    validate(&row)?;
    let mut change = Change::begin(domain).await?;
    tenants::get(&mut change, tenant_id).await?.ok_or(DomainError::NotFound { what: "tenant" })?;
    projects::insert(&mut change, &row).await.map_err(conflict)?;
    change.audit(caller, "project.create", target(&row), json!({"slug": row.slug})).await?;
    change.publish(row).await
}

/// Changes a project.
///
/// # Errors
/// Needs `project.write`.
pub async fn update(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, project_id): (&str, &str),
    patch: ProjectPatch,
    expected: Option<u64>,
) -> Result<Done<ProjectRow>, DomainError> {
    caller.principal.require(Permission::ProjectWrite, tenant_id)?;
    let mut change = Change::begin(domain).await?;
    let mut row = find(&mut change, tenant_id, project_id).await?;
    check_version(expected, row.version)?;
    let before = row.slug.clone();
    row.slug = patch.slug.unwrap_or(row.slug);
    row.name = patch.name.unwrap_or(row.name);
    row.description = patch.description.unwrap_or(row.description);
    validate(&row)?;
    row.updated_at = clock::now_micros();
    check_written(projects::update(&mut change, &row).await.map_err(conflict)?)?;
    row.version += 1;
    let detail = json!({"slug": row.slug, "name": row.name, "before": {"slug": before}});
    change.audit(caller, "project.update", target(&row), detail).await?;
    change.publish(row).await
}

/// Deletes a project that no bot or key is bound to.
///
/// # Errors
/// Needs `project.write`; `StillInUse`.
pub async fn delete(
    domain: &Domain,
    caller: &Caller,
    (tenant_id, project_id): (&str, &str),
    expected: Option<u64>,
) -> Result<Done<()>, DomainError> {
    caller.principal.require(Permission::ProjectWrite, tenant_id)?;
    let mut change = Change::begin(domain).await?;
    let row = find(&mut change, tenant_id, project_id).await?;
    check_version(expected, row.version)?;
    projects::delete(&mut change, tenant_id, project_id).await.map_err(|error| match error {
        StoreError::Reference => DomainError::StillInUse { what: "project" },
        other => other.into(),
    })?;
    quotas::forget(&mut change, QuotaScope::Project, &row.id).await?;
    let stone = Tombstone { id: &row.id, kind: "project", tenant_id, name: &row.slug };
    tombstones::insert(&mut change, stone, clock::now_micros()).await?;
    change.audit(caller, "project.delete", target(&row), json!({"slug": row.slug})).await?;
    change.publish(()).await
}

async fn find(change: &mut Change, tenant_id: &str, project_id: &str) -> Result<ProjectRow, DomainError> {
    projects::get(change, tenant_id, project_id).await?.ok_or(DomainError::NotFound { what: "project" })
}

/// Notes an error when a bot or key names a project that is not the tenant's.
pub(super) async fn check_exists(
    change: &mut Change,
    errors: &mut Errors,
    tenant_id: &str,
    project_id: Option<&str>,
) -> Result<(), DomainError> {
    if let Some(project_id) = project_id
        && projects::get(change, tenant_id, project_id).await?.is_none()
    {
        errors.add("project_id", "exists", "names no project of this tenant");
    }
    Ok(())
}

fn target(row: &ProjectRow) -> Target<'_> {
    Target { tenant_id: Some(&row.tenant_id), kind: "project", id: &row.id }
}

fn validate(row: &ProjectRow) -> Result<(), DomainError> {
    let mut errors = Errors::default();
    errors.dns_label("slug", &row.slug, MAX_SLUG, &[]);
    errors.name("name", &row.name);
    errors.text("description", &row.description, 0, MAX_DESCRIPTION);
    errors.finish()
}
