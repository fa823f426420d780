//! Bot tokens: only their hashes.

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::fetch;
use super::row::RowExt as _;

macro_rules! columns {
    () => {
        "id, bot_id, name, sha256, last4, expires_at, revoked_at, created_at, network"
    };
}

const INSERT: &str = concat!("INSERT INTO bot_tokens (", columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)");
const SELECT_OF_BOT: &str = concat!("SELECT ", columns!(), " FROM bot_tokens WHERE bot_id = $1 ORDER BY id");
const SELECT_USABLE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM bot_tokens WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1) ORDER BY id"
);
const REVOKE: &str = "UPDATE bot_tokens SET revoked_at = $3 WHERE bot_id = $1 AND id = $2 AND revoked_at IS NULL";
const REVOKE_ALL: &str = "UPDATE bot_tokens SET revoked_at = $2 WHERE bot_id = $1 AND revoked_at IS NULL";
const EXPIRE_ALL: &str = "UPDATE bot_tokens SET expires_at = $2 WHERE bot_id = $1 AND revoked_at IS NULL \
    AND (expires_at IS NULL OR expires_at > $2)";
const COUNT_USABLE: &str = "SELECT COUNT(*) AS n FROM bot_tokens WHERE bot_id = $1 AND revoked_at IS NULL \
    AND (expires_at IS NULL OR expires_at > $2)";

/// One bot token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BotTokenRow {
    /// `tok_…`
    pub id: String,
    /// Its bot.
    pub bot_id: String,
    /// For people.
    pub name: String,
    /// Of the whole token text.
    pub sha256: Vec<u8>,
    /// Last four characters of the token.
    pub last4: String,
    /// Unix microseconds; `None`: never.
    pub expires_at: Option<i64>,
    /// Unix microseconds; set: refused.
    pub revoked_at: Option<i64>,
    /// Unix microseconds.
    pub created_at: i64,
    /// The CIDR block that it is good from; `None`: anywhere.
    pub network: Option<String>,
}

fn read(row: &AnyRow) -> Result<BotTokenRow, StoreError> {
    Ok(BotTokenRow {
        id: row.text("id")?,
        bot_id: row.text("bot_id")?,
        name: row.text("name")?,
        sha256: row.bytes("sha256")?,
        last4: row.text("last4")?,
        expires_at: row.opt_int("expires_at")?,
        revoked_at: row.opt_int("revoked_at")?,
        created_at: row.int("created_at")?,
        network: row.opt_text("network")?,
    })
}

/// Adds a token.
///
/// # Errors
/// As the statement.
pub async fn insert(conn: &mut AnyConnection, row: &BotTokenRow) -> Result<(), StoreError> {
    sqlx::query(INSERT)
        .bind(row.id.as_str())
        .bind(row.bot_id.as_str())
        .bind(row.name.as_str())
        .bind(row.sha256.as_slice())
        .bind(row.last4.as_str())
        .bind(row.expires_at)
        .bind(row.revoked_at)
        .bind(row.created_at)
        .bind(row.network.clone())
        .execute(conn)
        .await?;
    Ok(())
}

/// A bot's tokens, revoked ones too, oldest first.
///
/// # Errors
/// As the statement.
pub async fn of_bot(conn: &mut AnyConnection, bot_id: &str) -> Result<Vec<BotTokenRow>, StoreError> {
    fetch::all(conn, sqlx::query(SELECT_OF_BOT).bind(bot_id), read).await
}

/// Every token of every bot that is neither revoked nor expired at `now`.
///
/// # Errors
/// As the statement.
pub async fn usable(conn: &mut AnyConnection, now: i64) -> Result<Vec<BotTokenRow>, StoreError> {
    fetch::all(conn, sqlx::query(SELECT_USABLE).bind(now), read).await
}

/// How many of a bot's tokens are usable at `now`.
///
/// # Errors
/// As the statement.
pub async fn count_usable(conn: &mut AnyConnection, bot_id: &str, now: i64) -> Result<u64, StoreError> {
    fetch::count(conn, sqlx::query(COUNT_USABLE).bind(bot_id).bind(now)).await
}

/// Revokes one; false when there is none or it was revoked before.
///
/// # Errors
/// As the statement.
pub async fn revoke(conn: &mut AnyConnection, bot_id: &str, id: &str, now: i64) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(REVOKE).bind(bot_id).bind(id).bind(now)).await
}

/// Makes every usable token of a bot end at `at` unless it ends before; says
/// how many were changed.
///
/// # Errors
/// As the statement.
pub async fn expire_all(conn: &mut AnyConnection, bot_id: &str, at: i64) -> Result<u64, StoreError> {
    Ok(sqlx::query(EXPIRE_ALL).bind(bot_id).bind(at).execute(conn).await?.rows_affected())
}

/// Revokes every token of a bot; says how many there were.
///
/// # Errors
/// As the statement.
pub async fn revoke_all(conn: &mut AnyConnection, bot_id: &str, now: i64) -> Result<u64, StoreError> {
    Ok(sqlx::query(REVOKE_ALL).bind(bot_id).bind(now).execute(conn).await?.rows_affected())
}
