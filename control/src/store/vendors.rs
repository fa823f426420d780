//! A tenant's own vendors. The built-in ones are in the catalogue.

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::fetch;
use super::page::{Page, Paged};
use super::row::{RowExt as _, to_int, to_json};

macro_rules! columns {
    () => {
        "id, tenant_id, slug, title, base_url, auth, dialect, include_usage, routes, version, created_at, updated_at"
    };
}

const INSERT: &str =
    concat!("INSERT INTO vendors (", columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)");
const UPDATE: &str = "UPDATE vendors SET title = $2, base_url = $3, auth = $4, dialect = $5, include_usage = $6, \
    routes = $7, version = version + 1, updated_at = $8 WHERE id = $1 AND version = $9";
const DELETE: &str = "DELETE FROM vendors WHERE tenant_id = $1 AND slug = $2";
const SELECT: &str = concat!("SELECT ", columns!(), " FROM vendors WHERE tenant_id = $1 AND slug = $2");
const SELECT_ALL: &str = concat!("SELECT ", columns!(), " FROM vendors ORDER BY id");
const SELECT_PAGE: &str =
    concat!("SELECT ", columns!(), " FROM vendors WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3");
const COUNT: &str = "SELECT COUNT(*) AS n FROM vendors WHERE tenant_id = $1";

/// One vendor of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendorRow {
    /// `ven_…`
    pub id: String,
    /// Owner.
    pub tenant_id: String,
    /// The path segment; unique within the tenant, never a built-in one.
    pub slug: String,
    /// For people.
    pub title: String,
    /// Where it is.
    pub base_url: String,
    /// As `AuthForm::parse` reads it.
    pub auth: String,
    /// As `Dialect::parse` reads it.
    pub dialect: String,
    /// As `IncludeUsage::parse` reads it; empty: passthrough.
    pub include_usage: String,
    /// Patterns below the base URL; empty: those of the dialect.
    pub routes: Vec<String>,
    /// For `ETag`; starts at 1.
    pub version: u64,
    /// Unix microseconds.
    pub created_at: i64,
    /// Unix microseconds.
    pub updated_at: i64,
}

fn read(row: &AnyRow) -> Result<VendorRow, StoreError> {
    Ok(VendorRow {
        id: row.text("id")?,
        tenant_id: row.text("tenant_id")?,
        slug: row.text("slug")?,
        title: row.text("title")?,
        base_url: row.text("base_url")?,
        auth: row.text("auth")?,
        dialect: row.text("dialect")?,
        include_usage: row.text("include_usage")?,
        routes: row.json("routes")?,
        version: row.uint("version")?,
        created_at: row.int("created_at")?,
        updated_at: row.int("updated_at")?,
    })
}

/// Adds a vendor.
///
/// # Errors
/// `Conflict(VendorSlug)`.
pub async fn insert(conn: &mut AnyConnection, row: &VendorRow) -> Result<(), StoreError> {
    sqlx::query(INSERT)
        .bind(row.id.as_str())
        .bind(row.tenant_id.as_str())
        .bind(row.slug.as_str())
        .bind(row.title.as_str())
        .bind(row.base_url.as_str())
        .bind(row.auth.as_str())
        .bind(row.dialect.as_str())
        .bind(row.include_usage.as_str())
        .bind(to_json(&row.routes)?)
        .bind(to_int(row.version))
        .bind(row.created_at)
        .bind(row.updated_at)
        .execute(conn)
        .await?;
    Ok(())
}

/// Writes every field but the slug; false when somebody else wrote it since
/// `row.version`.
///
/// # Errors
/// As the statement.
pub async fn update(conn: &mut AnyConnection, row: &VendorRow) -> Result<bool, StoreError> {
    let statement = sqlx::query(UPDATE)
        .bind(row.id.as_str())
        .bind(row.title.as_str())
        .bind(row.base_url.as_str())
        .bind(row.auth.as_str())
        .bind(row.dialect.as_str())
        .bind(row.include_usage.as_str())
        .bind(to_json(&row.routes)?)
        .bind(row.updated_at)
        .bind(to_int(row.version));
    fetch::changed(conn, statement).await
}

/// Removes a vendor.
///
/// # Errors
/// As the statement.
pub async fn delete(conn: &mut AnyConnection, tenant_id: &str, slug: &str) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(DELETE).bind(tenant_id).bind(slug)).await
}

/// By slug, within its tenant.
///
/// # Errors
/// As the statement.
pub async fn get(conn: &mut AnyConnection, tenant_id: &str, slug: &str) -> Result<Option<VendorRow>, StoreError> {
    fetch::one(conn, sqlx::query(SELECT).bind(tenant_id).bind(slug), read).await
}

/// Every vendor of every tenant, by id.
///
/// # Errors
/// As the statement.
pub async fn all(conn: &mut AnyConnection) -> Result<Vec<VendorRow>, StoreError> {
    fetch::all(conn, sqlx::query(SELECT_ALL), read).await
}

/// One page of a tenant's, by id.
///
/// # Errors
/// As the statements.
pub async fn list(conn: &mut AnyConnection, tenant_id: &str, page: &Page) -> Result<Paged<VendorRow>, StoreError> {
    let (counted, rows) = (sqlx::query(COUNT).bind(tenant_id), sqlx::query(SELECT_PAGE).bind(tenant_id));
    fetch::page(conn, page, counted, rows, read, |row| &row.id).await
}

/// How many a tenant has.
///
/// # Errors
/// As the statement.
pub async fn count(conn: &mut AnyConnection, tenant_id: &str) -> Result<u64, StoreError> {
    fetch::count(conn, sqlx::query(COUNT).bind(tenant_id)).await
}
