//! Tenants.

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::bots::Limits;
use super::error::StoreError;
use super::fetch;
use super::page::{Page, Paged};
use super::row::{RowExt as _, to_int};
use super::types::TenantState;

macro_rules! columns {
    () => {
        "id, slug, name, state, time_zone, requests_per_minute, tokens_per_minute, max_concurrency, version, created_at, \
         updated_at"
    };
}

const INSERT: &str =
    concat!("INSERT INTO tenants (", columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)");
const UPDATE: &str = "UPDATE tenants SET slug = $2, name = $3, state = $4, time_zone = $5, \
    requests_per_minute = $6, tokens_per_minute = $7, max_concurrency = $8, version = version + 1, updated_at = $9 \
    WHERE id = $1 AND version = $10";
const DELETE: &str = "DELETE FROM tenants WHERE id = $1";
const SELECT: &str = concat!("SELECT ", columns!(), " FROM tenants WHERE id = $1");
const SELECT_BY_SLUG: &str = concat!("SELECT ", columns!(), " FROM tenants WHERE slug = $1");
const SELECT_ALL: &str = concat!("SELECT ", columns!(), " FROM tenants ORDER BY id");
const SELECT_PAGE: &str = concat!("SELECT ", columns!(), " FROM tenants WHERE id > $1 ORDER BY id LIMIT $2");
const COUNT: &str = "SELECT COUNT(*) AS n FROM tenants";

/// One tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRow {
    /// `ten_…`
    pub id: String,
    /// Unique, what `x-clawgate-tenant` names.
    pub slug: String,
    /// For people.
    pub name: String,
    /// Whether its bots are served.
    pub state: TenantState,
    /// IANA name: the calendar of its quotas and statistics.
    pub time_zone: String,
    /// What all its bots may use together.
    pub limits: Limits,
    /// For `ETag`; starts at 1.
    pub version: u64,
    /// Unix microseconds.
    pub created_at: i64,
    /// Unix microseconds.
    pub updated_at: i64,
}

fn read(row: &AnyRow) -> Result<TenantRow, StoreError> {
    Ok(TenantRow {
        id: row.text("id")?,
        slug: row.text("slug")?,
        name: row.text("name")?,
        state: TenantState::from_column("state", &row.text("state")?)?,
        time_zone: row.text("time_zone")?,
        limits: Limits {
            requests_per_minute: row.opt_uint("requests_per_minute")?,
            tokens_per_minute: row.opt_uint("tokens_per_minute")?,
            max_concurrency: row.opt_uint("max_concurrency")?,
        },
        version: row.uint("version")?,
        created_at: row.int("created_at")?,
        updated_at: row.int("updated_at")?,
    })
}

/// Adds a tenant.
///
/// # Errors
/// `Conflict(TenantSlug)`.
pub async fn insert(conn: &mut AnyConnection, row: &TenantRow) -> Result<(), StoreError> {
    sqlx::query(INSERT)
        .bind(row.id.as_str())
        .bind(row.slug.as_str())
        .bind(row.name.as_str())
        .bind(row.state.as_str())
        .bind(row.time_zone.as_str())
        .bind(row.limits.requests_per_minute.map(to_int))
        .bind(row.limits.tokens_per_minute.map(to_int))
        .bind(row.limits.max_concurrency.map(to_int))
        .bind(to_int(row.version))
        .bind(row.created_at)
        .bind(row.updated_at)
        .execute(conn)
        .await?;
    Ok(())
}

/// Writes every field; `row.version` is the version it was read at. False when
/// somebody else wrote it since.
///
/// # Errors
/// `Conflict(TenantSlug)`.
pub async fn update(conn: &mut AnyConnection, row: &TenantRow) -> Result<bool, StoreError> {
    let statement = sqlx::query(UPDATE)
        .bind(row.id.as_str())
        .bind(row.slug.as_str())
        .bind(row.name.as_str())
        .bind(row.state.as_str())
        .bind(row.time_zone.as_str())
        .bind(row.limits.requests_per_minute.map(to_int))
        .bind(row.limits.tokens_per_minute.map(to_int))
        .bind(row.limits.max_concurrency.map(to_int))
        .bind(row.updated_at)
        .bind(to_int(row.version));
    fetch::changed(conn, statement).await
}

/// Removes a tenant that owns nothing.
///
/// # Errors
/// `Reference` when it still owns something.
pub async fn delete(conn: &mut AnyConnection, id: &str) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(DELETE).bind(id)).await
}

/// By id.
///
/// # Errors
/// As the statement.
pub async fn get(conn: &mut AnyConnection, id: &str) -> Result<Option<TenantRow>, StoreError> {
    fetch::one(conn, sqlx::query(SELECT).bind(id), read).await
}

/// By slug.
///
/// # Errors
/// As the statement.
pub async fn by_slug(conn: &mut AnyConnection, slug: &str) -> Result<Option<TenantRow>, StoreError> {
    fetch::one(conn, sqlx::query(SELECT_BY_SLUG).bind(slug), read).await
}

/// Every tenant, by id.
///
/// # Errors
/// As the statement.
pub async fn all(conn: &mut AnyConnection) -> Result<Vec<TenantRow>, StoreError> {
    fetch::all(conn, sqlx::query(SELECT_ALL), read).await
}

/// One page, by id.
///
/// # Errors
/// As the statements.
pub async fn list(conn: &mut AnyConnection, page: &Page) -> Result<Paged<TenantRow>, StoreError> {
    fetch::page(conn, page, sqlx::query(COUNT), sqlx::query(SELECT_PAGE), read, |row| &row.id).await
}
