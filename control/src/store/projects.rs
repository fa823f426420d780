//! Projects: groups of bots and keys inside a tenant.

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::fetch;
use super::page::{Page, Paged};
use super::row::{RowExt as _, to_int};

macro_rules! columns {
    () => {
        "id, tenant_id, slug, name, description, version, created_at, updated_at"
    };
}

const INSERT: &str = concat!("INSERT INTO projects (", columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8)");
const UPDATE: &str = "UPDATE projects SET slug = $2, name = $3, description = $4, version = version + 1, \
    updated_at = $5 WHERE id = $1 AND version = $6";
const DELETE: &str = "DELETE FROM projects WHERE tenant_id = $1 AND id = $2";
const SELECT: &str = concat!("SELECT ", columns!(), " FROM projects WHERE tenant_id = $1 AND id = $2");
const SELECT_ALL: &str = concat!("SELECT ", columns!(), " FROM projects ORDER BY id");
const SELECT_PAGE: &str =
    concat!("SELECT ", columns!(), " FROM projects WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3");
const COUNT: &str = "SELECT COUNT(*) AS n FROM projects WHERE tenant_id = $1";

/// One project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectRow {
    /// `prj_…`
    pub id: String,
    /// Owner.
    pub tenant_id: String,
    /// Unique within the tenant.
    pub slug: String,
    /// For people.
    pub name: String,
    /// For people.
    pub description: String,
    /// For `ETag`; starts at 1.
    pub version: u64,
    /// Unix microseconds.
    pub created_at: i64,
    /// Unix microseconds.
    pub updated_at: i64,
}

fn read(row: &AnyRow) -> Result<ProjectRow, StoreError> {
    Ok(ProjectRow {
        id: row.text("id")?,
        tenant_id: row.text("tenant_id")?,
        slug: row.text("slug")?,
        name: row.text("name")?,
        description: row.text("description")?,
        version: row.uint("version")?,
        created_at: row.int("created_at")?,
        updated_at: row.int("updated_at")?,
    })
}

/// Adds a project.
///
/// # Errors
/// `Conflict(ProjectSlug)`.
pub async fn insert(conn: &mut AnyConnection, row: &ProjectRow) -> Result<(), StoreError> {
    sqlx::query(INSERT)
        .bind(row.id.as_str())
        .bind(row.tenant_id.as_str())
        .bind(row.slug.as_str())
        .bind(row.name.as_str())
        .bind(row.description.as_str())
        .bind(to_int(row.version))
        .bind(row.created_at)
        .bind(row.updated_at)
        .execute(conn)
        .await?;
    Ok(())
}

/// Writes every field; false when somebody else wrote it since `row.version`.
///
/// # Errors
/// `Conflict(ProjectSlug)`.
pub async fn update(conn: &mut AnyConnection, row: &ProjectRow) -> Result<bool, StoreError> {
    let statement = sqlx::query(UPDATE)
        .bind(row.id.as_str())
        .bind(row.slug.as_str())
        .bind(row.name.as_str())
        .bind(row.description.as_str())
        .bind(row.updated_at)
        .bind(to_int(row.version));
    fetch::changed(conn, statement).await
}

/// Removes a project that nothing is bound to.
///
/// # Errors
/// `Reference` when a bot or key is bound to it.
pub async fn delete(conn: &mut AnyConnection, tenant_id: &str, id: &str) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(DELETE).bind(tenant_id).bind(id)).await
}

/// By id, within its tenant.
///
/// # Errors
/// As the statement.
pub async fn get(conn: &mut AnyConnection, tenant_id: &str, id: &str) -> Result<Option<ProjectRow>, StoreError> {
    fetch::one(conn, sqlx::query(SELECT).bind(tenant_id).bind(id), read).await
}

/// Every project of every tenant, by id.
///
/// # Errors
/// As the statement.
pub async fn all(conn: &mut AnyConnection) -> Result<Vec<ProjectRow>, StoreError> {
    fetch::all(conn, sqlx::query(SELECT_ALL), read).await
}

/// One page of a tenant's, by id.
///
/// # Errors
/// As the statements.
pub async fn list(conn: &mut AnyConnection, tenant_id: &str, page: &Page) -> Result<Paged<ProjectRow>, StoreError> {
    let (counted, rows) = (sqlx::query(COUNT).bind(tenant_id), sqlx::query(SELECT_PAGE).bind(tenant_id));
    fetch::page(conn, page, counted, rows, read, |row| &row.id).await
}
