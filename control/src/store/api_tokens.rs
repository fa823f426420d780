//! API tokens of admins and scripts: only their hashes.

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::fetch;
use super::page::{Page, Paged};
use super::row::{RowExt as _, to_json};

macro_rules! columns {
    () => {
        "id, tenant_id, name, sha256, last4, role, scopes, created_by, expires_at, last_used_at, revoked_at, created_at"
    };
}

const INSERT: &str =
    concat!("INSERT INTO api_tokens (", columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)");
const SELECT_BY_HASH: &str = concat!("SELECT ", columns!(), " FROM api_tokens WHERE sha256 = $1");
const SELECT: &str = concat!("SELECT ", columns!(), " FROM api_tokens WHERE COALESCE(tenant_id, '') = $1 AND id = $2");
const SELECT_PAGE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM api_tokens WHERE COALESCE(tenant_id, '') = $1 AND id > $2 ORDER BY id LIMIT $3"
);
const COUNT: &str = "SELECT COUNT(*) AS n FROM api_tokens WHERE COALESCE(tenant_id, '') = $1";
const REVOKE: &str = "UPDATE api_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
const TOUCH: &str = "UPDATE api_tokens SET last_used_at = $2 WHERE id = $1 AND COALESCE(last_used_at, 0) < $3";
const DELETE_OF_TENANT: &str = "DELETE FROM api_tokens WHERE tenant_id = $1";

/// One API token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiTokenRow {
    /// `tok_…`
    pub id: String,
    /// `None`: of the platform.
    pub tenant_id: Option<String>,
    /// For people.
    pub name: String,
    /// Of the whole token text.
    pub sha256: Vec<u8>,
    /// Last four characters of the token.
    pub last4: String,
    /// A role of the contract.
    pub role: String,
    /// What it is narrowed to; empty: the whole role.
    pub scopes: Vec<String>,
    /// The actor who made it.
    pub created_by: String,
    /// Unix microseconds; `None`: never.
    pub expires_at: Option<i64>,
    /// Unix microseconds, to the minute.
    pub last_used_at: Option<i64>,
    /// Unix microseconds; set: refused.
    pub revoked_at: Option<i64>,
    /// Unix microseconds.
    pub created_at: i64,
}

fn read(row: &AnyRow) -> Result<ApiTokenRow, StoreError> {
    Ok(ApiTokenRow {
        id: row.text("id")?,
        tenant_id: row.opt_text("tenant_id")?,
        name: row.text("name")?,
        sha256: row.bytes("sha256")?,
        last4: row.text("last4")?,
        role: row.text("role")?,
        scopes: row.json("scopes")?,
        created_by: row.text("created_by")?,
        expires_at: row.opt_int("expires_at")?,
        last_used_at: row.opt_int("last_used_at")?,
        revoked_at: row.opt_int("revoked_at")?,
        created_at: row.int("created_at")?,
    })
}

/// Adds a token.
///
/// # Errors
/// As the statement.
pub async fn insert(conn: &mut AnyConnection, row: &ApiTokenRow) -> Result<(), StoreError> {
    sqlx::query(INSERT)
        .bind(row.id.as_str())
        .bind(row.tenant_id.clone())
        .bind(row.name.as_str())
        .bind(row.sha256.as_slice())
        .bind(row.last4.as_str())
        .bind(row.role.as_str())
        .bind(to_json(&row.scopes)?)
        .bind(row.created_by.as_str())
        .bind(row.expires_at)
        .bind(row.last_used_at)
        .bind(row.revoked_at)
        .bind(row.created_at)
        .execute(conn)
        .await?;
    Ok(())
}

/// By the hash of the presented text; revoked and expired ones too.
///
/// # Errors
/// As the statement.
pub async fn by_hash(conn: &mut AnyConnection, sha256: &[u8]) -> Result<Option<ApiTokenRow>, StoreError> {
    fetch::one(conn, sqlx::query(SELECT_BY_HASH).bind(sha256), read).await
}

/// By id, within its tenant (`None`: the platform).
///
/// # Errors
/// As the statement.
pub async fn get(conn: &mut AnyConnection, tenant: Option<&str>, id: &str) -> Result<Option<ApiTokenRow>, StoreError> {
    fetch::one(conn, sqlx::query(SELECT).bind(tenant.unwrap_or_default()).bind(id), read).await
}

/// One page of a tenant's (`None`: the platform's), by id.
///
/// # Errors
/// As the statements.
pub async fn list(
    conn: &mut AnyConnection,
    tenant: Option<&str>,
    page: &Page,
) -> Result<Paged<ApiTokenRow>, StoreError> {
    let tenant = tenant.unwrap_or_default();
    let (counted, rows) = (sqlx::query(COUNT).bind(tenant), sqlx::query(SELECT_PAGE).bind(tenant));
    fetch::page(conn, page, counted, rows, read, |row| &row.id).await
}

/// Revokes one; false when it was before.
///
/// # Errors
/// As the statement.
pub async fn revoke(conn: &mut AnyConnection, id: &str, now: i64) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(REVOKE).bind(id).bind(now)).await
}

/// Notes a use, unless one was noted after `not_since`: a read must not write
/// on every request.
///
/// # Errors
/// As the statement.
pub async fn touch(conn: &mut AnyConnection, id: &str, now: i64, not_since: i64) -> Result<(), StoreError> {
    sqlx::query(TOUCH).bind(id).bind(now).bind(not_since).execute(conn).await?;
    Ok(())
}

/// Removes a tenant's tokens, before the tenant itself.
///
/// # Errors
/// As the statement.
pub async fn delete_of_tenant(conn: &mut AnyConnection, tenant_id: &str) -> Result<u64, StoreError> {
    Ok(sqlx::query(DELETE_OF_TENANT).bind(tenant_id).execute(conn).await?.rows_affected())
}
