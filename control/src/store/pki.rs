//! Certificate authorities: certificate in clear, key sealed.

use sqlx::AnyConnection;

use super::error::StoreError;
use super::row::RowExt as _;

/// A stored authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PkiRow {
    /// PEM.
    pub certificate_pem: String,
    /// Sealed by the vault.
    pub sealed_key: Vec<u8>,
}

const SELECT: &str = "SELECT certificate_pem, sealed_key FROM pki WHERE name = $1";
const INSERT: &str = "INSERT INTO pki (name, certificate_pem, sealed_key, created_at, expires_at) \
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO NOTHING";

/// The authority of this name.
///
/// # Errors
/// As the database answers.
pub async fn find(conn: &mut AnyConnection, name: &str) -> Result<Option<PkiRow>, StoreError> {
    let row = sqlx::query(SELECT).bind(name).fetch_optional(conn).await?;
    row.map(|row| Ok(PkiRow { certificate_pem: row.text("certificate_pem")?, sealed_key: row.bytes("sealed_key")? }))
        .transpose()
}

/// Stores a new authority, unless another process was faster.
///
/// # Errors
/// As the database answers.
pub async fn insert(
    conn: &mut AnyConnection,
    name: &str,
    row: &PkiRow,
    now: i64,
    expires_at: i64,
) -> Result<(), StoreError> {
    sqlx::query(INSERT)
        .bind(name)
        .bind(row.certificate_pem.as_str())
        .bind(row.sealed_key.clone())
        .bind(now)
        .bind(expires_at)
        .execute(conn)
        .await?;
    Ok(())
}
