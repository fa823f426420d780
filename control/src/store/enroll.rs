//! One-time enrolment tokens; only their hashes are stored.

use sqlx::AnyConnection;

use super::error::StoreError;
use super::row::RowExt as _;

/// A stored token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrollTokenRow {
    /// `ent_…`
    pub id: String,
    /// Unix microseconds.
    pub expires_at: i64,
    /// SHA-256 of the public key it was used with.
    pub used_by_public_key: Option<Vec<u8>>,
    /// The node it was used for.
    pub used_by_id: Option<String>,
}

/// What a new token is stored with.
#[derive(Clone, Copy, Debug)]
pub struct NewEnrollToken<'a> {
    /// `ent_…`
    pub id: &'a str,
    /// `node` or `runner`.
    pub kind: &'a str,
    /// SHA-256 of the secret.
    pub sha256: &'a [u8],
    /// Who asked for it.
    pub created_by: &'a str,
    /// Unix microseconds.
    pub now: i64,
    /// Unix microseconds.
    pub expires_at: i64,
}

const INSERT: &str = "INSERT INTO enroll_tokens (id, kind, sha256, created_by, expires_at, used_at, \
    used_by_public_key_sha256, used_by_id, created_at) VALUES ($1, $2, $3, $4, $5, NULL, NULL, NULL, $6)";
const SELECT: &str = "SELECT id, expires_at, used_by_public_key_sha256, used_by_id FROM enroll_tokens \
    WHERE sha256 = $1 AND kind = $2";
// Two users of one token: one update finds it unused, the other does not.
const USE: &str = "UPDATE enroll_tokens SET used_at = $2, used_by_public_key_sha256 = $3, used_by_id = $4 \
    WHERE id = $1 AND used_at IS NULL";
const DELETE_EXPIRED: &str = "DELETE FROM enroll_tokens WHERE expires_at < $1";

/// Stores a new token.
///
/// # Errors
/// As the database answers; so for all functions here.
pub async fn insert(conn: &mut AnyConnection, token: NewEnrollToken<'_>) -> Result<(), StoreError> {
    sqlx::query(INSERT)
        .bind(token.id)
        .bind(token.kind)
        .bind(token.sha256.to_vec())
        .bind(token.created_by)
        .bind(token.expires_at)
        .bind(token.now)
        .execute(conn)
        .await?;
    Ok(())
}

/// The token with this hash.
///
/// # Errors
/// See [`insert`].
pub async fn find(conn: &mut AnyConnection, kind: &str, sha256: &[u8]) -> Result<Option<EnrollTokenRow>, StoreError> {
    let row = sqlx::query(SELECT).bind(sha256.to_vec()).bind(kind).fetch_optional(conn).await?;
    row.map(|row| {
        Ok(EnrollTokenRow {
            id: row.text("id")?,
            expires_at: row.int("expires_at")?,
            used_by_public_key: row.opt_bytes("used_by_public_key_sha256")?,
            used_by_id: row.opt_text("used_by_id")?,
        })
    })
    .transpose()
}

/// Marks an unused token as used; false when it was used meanwhile.
///
/// # Errors
/// See [`insert`].
pub async fn mark_used(
    conn: &mut AnyConnection,
    id: &str,
    public_key: &[u8],
    used_by: &str,
    now: i64,
) -> Result<bool, StoreError> {
    let done = sqlx::query(USE).bind(id).bind(now).bind(public_key.to_vec()).bind(used_by).execute(conn).await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets tokens that ended before `before`.
///
/// # Errors
/// See [`insert`].
pub async fn delete_expired(conn: &mut AnyConnection, before: i64) -> Result<u64, StoreError> {
    Ok(sqlx::query(DELETE_EXPIRED).bind(before).execute(conn).await?.rows_affected())
}
