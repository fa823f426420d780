//! Provider keys. A row holds the secret only sealed; `vault` alone opens it.

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::fetch::{self, Statement};
use super::page::{Page, Paged};
use super::row::{RowExt as _, to_int, to_json};
use super::types::{KeyOptions, KeyStatus};

macro_rules! columns {
    () => {
        "id, tenant_id, project_id, vendor, label, tags, base_url, origin, sealed_secret, wrapped_dek, kek_id, \
         secret_version, last4, fingerprint, status, status_reason, weight, priority, max_concurrency, options, \
         enabled, updated_at, version, created_at"
    };
}

const INSERT: &str = concat!(
    "INSERT INTO provider_keys (",
    columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, \
     $23, $24)"
);
const UPDATE: &str = "UPDATE provider_keys SET tenant_id = $2, project_id = $3, vendor = $4, label = $5, tags = $6, \
    base_url = $7, origin = $8, sealed_secret = $9, wrapped_dek = $10, kek_id = $11, secret_version = $12, \
    last4 = $13, fingerprint = $14, status = $15, status_reason = $16, weight = $17, priority = $18, \
    max_concurrency = $19, options = $20, enabled = $21, updated_at = $22, version = version + 1 \
    WHERE id = $1 AND version = $23";
const DELETE: &str = "DELETE FROM provider_keys WHERE tenant_id = $1 AND id = $2";
const SELECT: &str = concat!("SELECT ", columns!(), " FROM provider_keys WHERE tenant_id = $1 AND id = $2");
const SELECT_ALL: &str = concat!("SELECT ", columns!(), " FROM provider_keys ORDER BY id");
const SELECT_PAGE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM provider_keys WHERE tenant_id = $1 AND ($2 = '' OR vendor = $2) AND ($3 = '' OR project_id = $3) \
     AND id > $4 ORDER BY id LIMIT $5"
);
const COUNT: &str = "SELECT COUNT(*) AS n FROM provider_keys WHERE tenant_id = $1 AND ($2 = '' OR vendor = $2) \
    AND ($3 = '' OR project_id = $3)";
const COUNT_OF_TENANT: &str = "SELECT COUNT(*) AS n FROM provider_keys WHERE tenant_id = $1";
const COUNT_OF_VENDOR: &str = "SELECT COUNT(*) AS n FROM provider_keys WHERE tenant_id = $1 AND vendor = $2 \
    AND ($3 = 0 OR base_url = '')";

/// The sealed form of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedColumns {
    /// Nonce and ciphertext under the secret's own key.
    pub sealed_secret: Vec<u8>,
    /// That key under the master key.
    pub wrapped_dek: Vec<u8>,
    /// Which master key.
    pub kek_id: String,
}

impl std::fmt::Debug for SealedColumns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedColumns").field("kek_id", &self.kek_id).finish_non_exhaustive()
    }
}

/// One provider key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderKeyRow {
    /// `key_…`
    pub id: String,
    /// Owner.
    pub tenant_id: String,
    /// `None`: for all projects.
    pub project_id: Option<String>,
    /// Vendor slug.
    pub vendor: String,
    /// For people; unique within tenant and vendor.
    pub label: String,
    /// What a bot may require.
    pub tags: Vec<String>,
    /// As text; `None`: the vendor's own.
    pub base_url: Option<String>,
    /// `scheme://host:port` that the secret is sealed for.
    pub origin: String,
    /// `None`: the vendor wants no secret.
    pub sealed: Option<SealedColumns>,
    /// Starts at 1, plus one with each new secret.
    pub secret_version: u64,
    /// Last four characters of the secret; empty when it is short or absent.
    pub last4: String,
    /// Keyed hash of the secret: equal secrets can be seen, not guessed.
    pub fingerprint: String,
    /// Health as far as known.
    pub status: KeyStatus,
    /// Why it is not active.
    pub status_reason: String,
    /// 1–1000, for `weighted`.
    pub weight: u32,
    /// Higher goes first, for `priority`.
    pub priority: i32,
    /// 0: no limit.
    pub max_concurrency: u32,
    /// What it says about its account.
    pub options: KeyOptions,
    /// Off: never picked.
    pub enabled: bool,
    /// For `ETag`; starts at 1.
    pub version: u64,
    /// Unix microseconds.
    pub created_at: i64,
    /// Unix microseconds.
    pub updated_at: i64,
}

fn read(row: &AnyRow) -> Result<ProviderKeyRow, StoreError> {
    let sealed = match (row.opt_bytes("sealed_secret")?, row.opt_bytes("wrapped_dek")?) {
        (Some(sealed_secret), Some(wrapped_dek)) => {
            Some(SealedColumns { sealed_secret, wrapped_dek, kek_id: row.text("kek_id")? })
        }
        _ => None,
    };
    let narrow = |column: &str, value: i64| u32::try_from(value).map_err(|_| StoreError::corrupt(column, "range"));
    Ok(ProviderKeyRow {
        id: row.text("id")?,
        tenant_id: row.text("tenant_id")?,
        project_id: row.opt_text("project_id")?,
        vendor: row.text("vendor")?,
        label: row.text("label")?,
        tags: row.json("tags")?,
        base_url: Some(row.text("base_url")?).filter(|url| !url.is_empty()),
        origin: row.text("origin")?,
        sealed,
        secret_version: row.uint("secret_version")?,
        last4: row.text("last4")?,
        fingerprint: row.text("fingerprint")?,
        status: KeyStatus::from_column("status", &row.text("status")?)?,
        status_reason: row.text("status_reason")?,
        weight: narrow("weight", row.int("weight")?)?,
        priority: i32::try_from(row.int("priority")?).map_err(|_| StoreError::corrupt("priority", "range"))?,
        max_concurrency: narrow("max_concurrency", row.int("max_concurrency")?)?,
        options: row.json("options")?,
        enabled: row.flag("enabled")?,
        version: row.uint("version")?,
        created_at: row.int("created_at")?,
        updated_at: row.int("updated_at")?,
    })
}

/// `$1` to `$22`: the same for insert and update.
fn bind_fields<'q>(sql: &'static str, row: &ProviderKeyRow) -> Result<Statement<'q>, StoreError> {
    let sealed = row.sealed.as_ref();
    Ok(sqlx::query(sql)
        .bind(row.id.clone())
        .bind(row.tenant_id.clone())
        .bind(row.project_id.clone())
        .bind(row.vendor.clone())
        .bind(row.label.clone())
        .bind(to_json(&row.tags)?)
        .bind(row.base_url.clone().unwrap_or_default())
        .bind(row.origin.clone())
        .bind(sealed.map(|sealed| sealed.sealed_secret.clone()))
        .bind(sealed.map(|sealed| sealed.wrapped_dek.clone()))
        .bind(sealed.map(|sealed| sealed.kek_id.clone()).unwrap_or_default())
        .bind(to_int(row.secret_version))
        .bind(row.last4.clone())
        .bind(row.fingerprint.clone())
        .bind(row.status.as_str())
        .bind(row.status_reason.clone())
        .bind(i64::from(row.weight))
        .bind(i64::from(row.priority))
        .bind(i64::from(row.max_concurrency))
        .bind(to_json(&row.options)?)
        .bind(i64::from(row.enabled))
        .bind(row.updated_at))
}

/// Adds a key.
///
/// # Errors
/// `Conflict(ProviderKeyLabel)`; `Reference` when its project does not exist.
pub async fn insert(conn: &mut AnyConnection, row: &ProviderKeyRow) -> Result<(), StoreError> {
    bind_fields(INSERT, row)?.bind(to_int(row.version)).bind(row.created_at).execute(conn).await?;
    Ok(())
}

/// Writes every field; false when somebody else wrote it since `row.version`.
///
/// # Errors
/// As [`insert`].
pub async fn update(conn: &mut AnyConnection, row: &ProviderKeyRow) -> Result<bool, StoreError> {
    fetch::changed(conn, bind_fields(UPDATE, row)?.bind(to_int(row.version))).await
}

/// Removes a key with its sealed secret.
///
/// # Errors
/// As the statement.
pub async fn delete(conn: &mut AnyConnection, tenant_id: &str, id: &str) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(DELETE).bind(tenant_id).bind(id)).await
}

/// By id, within its tenant.
///
/// # Errors
/// As the statement.
pub async fn get(conn: &mut AnyConnection, tenant_id: &str, id: &str) -> Result<Option<ProviderKeyRow>, StoreError> {
    fetch::one(conn, sqlx::query(SELECT).bind(tenant_id).bind(id), read).await
}

/// Every key of every tenant, by id.
///
/// # Errors
/// As the statement.
pub async fn all(conn: &mut AnyConnection) -> Result<Vec<ProviderKeyRow>, StoreError> {
    fetch::all(conn, sqlx::query(SELECT_ALL), read).await
}

/// What a list is narrowed to.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyFilter<'a> {
    /// One vendor.
    pub vendor: Option<&'a str>,
    /// Keys bound to one project.
    pub project_id: Option<&'a str>,
}

/// One page of a tenant's, by id.
///
/// # Errors
/// As the statements.
pub async fn list(
    conn: &mut AnyConnection,
    tenant_id: &str,
    filter: KeyFilter<'_>,
    page: &Page,
) -> Result<Paged<ProviderKeyRow>, StoreError> {
    let (vendor, project) = (filter.vendor.unwrap_or_default(), filter.project_id.unwrap_or_default());
    let counted = sqlx::query(COUNT).bind(tenant_id).bind(vendor).bind(project);
    let rows = sqlx::query(SELECT_PAGE).bind(tenant_id).bind(vendor).bind(project);
    fetch::page(conn, page, counted, rows, read, |row| &row.id).await
}

/// How many a tenant has.
///
/// # Errors
/// As the statement.
pub async fn count(conn: &mut AnyConnection, tenant_id: &str) -> Result<u64, StoreError> {
    fetch::count(conn, sqlx::query(COUNT_OF_TENANT).bind(tenant_id)).await
}

/// How many of a tenant's keys are for a vendor; `default_url` counts only those
/// without a base URL of their own.
///
/// # Errors
/// As the statement.
pub async fn count_of_vendor(
    conn: &mut AnyConnection,
    tenant_id: &str,
    vendor: &str,
    default_url: bool,
) -> Result<u64, StoreError> {
    fetch::count(conn, sqlx::query(COUNT_OF_VENDOR).bind(tenant_id).bind(vendor).bind(i64::from(default_url))).await
}
