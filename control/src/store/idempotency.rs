//! Answers kept for requests that are sent again with the same
//! `Idempotency-Key`. The answers are sealed by the caller.

use sqlx::AnyConnection;

use super::error::StoreError;
use super::row::RowExt as _;

/// How long an answer is kept, in microseconds: 24 hours.
pub const KEEP_MICROS: i64 = 24 * 60 * 60 * 1_000_000;
/// How long a request may stay without an answer before its key is free again,
/// in microseconds: a crash must not block it for a day.
pub const PENDING_MICROS: i64 = 60 * 1_000_000;

const PURGE_ONE: &str =
    "DELETE FROM idempotency_keys WHERE principal = $1 AND idempotency_key = $2 AND expires_at <= $3";
const CLAIM: &str = "INSERT INTO idempotency_keys (principal, idempotency_key, route, body_sha256, state, \
    sealed_answer, created_at, expires_at) VALUES ($1, $2, $3, $4, 'pending', NULL, $5, $6) \
    ON CONFLICT (principal, idempotency_key) DO NOTHING";
const SELECT: &str = "SELECT route, body_sha256, state, sealed_answer FROM idempotency_keys \
    WHERE principal = $1 AND idempotency_key = $2";
const FINISH: &str = "UPDATE idempotency_keys SET state = 'done', sealed_answer = $3, expires_at = $4 \
    WHERE principal = $1 AND idempotency_key = $2";
const RELEASE: &str =
    "DELETE FROM idempotency_keys WHERE principal = $1 AND idempotency_key = $2 AND state = 'pending'";
const PURGE: &str = "DELETE FROM idempotency_keys WHERE expires_at <= $1";

/// What names a request.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Who sent it.
    pub principal: &'a str,
    /// The header's value.
    pub key: &'a str,
    /// Method and path.
    pub route: &'a str,
    /// Hash of the body.
    pub body_sha256: &'a [u8],
}

/// What is known of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It is new and now ours to answer.
    New,
    /// It was answered; this is the sealed answer.
    Done(Vec<u8>),
    /// It is being answered.
    InProgress,
    /// The key was used for another route or body.
    Mismatch,
}

/// Claims a key, or says what became of its first request.
///
/// # Errors
/// As the statements.
pub async fn claim(conn: &mut AnyConnection, claim: Claim<'_>, now: i64) -> Result<Claimed, StoreError> {
    let Claim { principal, key, route, body_sha256 } = claim;
    sqlx::query(PURGE_ONE).bind(principal).bind(key).bind(now).execute(&mut *conn).await?;
    let inserted = sqlx::query(CLAIM)
        .bind(principal)
        .bind(key)
        .bind(route)
        .bind(body_sha256)
        .bind(now)
        .bind(now.saturating_add(PENDING_MICROS))
        .execute(&mut *conn)
        .await?;
    if inserted.rows_affected() == 1 {
        return Ok(Claimed::New);
    }
    let Some(row) = sqlx::query(SELECT).bind(principal).bind(key).fetch_optional(conn).await? else {
        return Ok(Claimed::InProgress);
    };
    if row.text("route")? != route || row.bytes("body_sha256")? != body_sha256 {
        return Ok(Claimed::Mismatch);
    }
    Ok(row.opt_bytes("sealed_answer")?.map_or(Claimed::InProgress, Claimed::Done))
}

/// Stores the answer of a claimed request.
///
/// # Errors
/// As the statement.
pub async fn finish(
    conn: &mut AnyConnection,
    principal: &str,
    key: &str,
    sealed: &[u8],
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query(FINISH)
        .bind(principal)
        .bind(key)
        .bind(sealed)
        .bind(now.saturating_add(KEEP_MICROS))
        .execute(conn)
        .await?;
    Ok(())
}

/// Frees a claimed key whose request failed and changed nothing.
///
/// # Errors
/// As the statement.
pub async fn release(conn: &mut AnyConnection, principal: &str, key: &str) -> Result<(), StoreError> {
    sqlx::query(RELEASE).bind(principal).bind(key).execute(conn).await?;
    Ok(())
}

/// Removes what has expired; says how many.
///
/// # Errors
/// As the statement.
pub async fn purge(conn: &mut AnyConnection, now: i64) -> Result<u64, StoreError> {
    Ok(sqlx::query(PURGE).bind(now).execute(conn).await?.rows_affected())
}
