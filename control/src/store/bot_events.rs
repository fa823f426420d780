//! What happened to bots that we run, and a minute of their containers each.

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::fetch;
use super::page::{Page, Paged};
use super::row::{RowExt as _, to_int};
use super::types::BotEventKind;

const INSERT: &str = "INSERT INTO bot_events (id, bot_id, kind, status, reason_code, reason, exit_code, at) \
    SELECT $1, id, $3, $4, $5, $6, $7, $8 FROM bots WHERE id = $2";
const SELECT_PAGE: &str = "SELECT id, bot_id, kind, status, reason_code, reason, exit_code, at FROM bot_events \
    WHERE bot_id = $1 AND ($2 = '' OR kind = $2) AND ($3 = '' OR id < $3) ORDER BY id DESC LIMIT $4";
const PURGE: &str = "DELETE FROM bot_events WHERE at < $1";
const PUT_MINUTE: &str = "INSERT INTO bot_metrics (bot_id, minute_at, cpu_millis, memory_bytes, rx_bytes, tx_bytes, pids) \
    SELECT id, $2, $3, $4, $5, $6, $7 FROM bots WHERE id = $1 ON CONFLICT (bot_id, minute_at) DO UPDATE SET \
    cpu_millis = excluded.cpu_millis, memory_bytes = excluded.memory_bytes, rx_bytes = excluded.rx_bytes, \
    tx_bytes = excluded.tx_bytes, pids = excluded.pids";
const SELECT_MINUTES: &str = "SELECT minute_at, cpu_millis, memory_bytes, rx_bytes, tx_bytes, pids FROM bot_metrics \
    WHERE bot_id = $1 AND minute_at >= $2 AND minute_at < $3 ORDER BY minute_at LIMIT $4";
const PURGE_MINUTES: &str = "DELETE FROM bot_metrics WHERE minute_at < $1";

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BotEventRow {
    /// `evt_…`
    pub id: String,
    /// Whose.
    pub bot_id: String,
    /// A change of status, or a word of the engine.
    pub kind: BotEventKind,
    /// The status then, or the engine's word.
    pub status: String,
    /// Why, as a code.
    pub reason_code: String,
    /// Why, for people.
    pub reason: String,
    /// Of an end.
    pub exit_code: Option<i64>,
    /// Unix microseconds.
    pub at: i64,
}

/// A minute of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Minute {
    /// Its beginning, unix microseconds.
    pub at: i64,
    /// Mean, thousandths of a processor.
    pub cpu_millis: u64,
    /// Highest.
    pub memory_bytes: u64,
    /// Received.
    pub rx_bytes: u64,
    /// Sent.
    pub tx_bytes: u64,
    /// Highest.
    pub pids: u64,
}

fn read(row: &AnyRow) -> Result<BotEventRow, StoreError> {
    Ok(BotEventRow {
        id: row.text("id")?,
        bot_id: row.text("bot_id")?,
        kind: BotEventKind::from_column("kind", &row.text("kind")?)?,
        status: row.text("status")?,
        reason_code: row.text("reason_code")?,
        reason: row.text("reason")?,
        exit_code: row.opt_int("exit_code")?,
        at: row.int("at")?,
    })
}

/// Adds one, unless its bot is gone.
///
/// # Errors
/// As the database answers; so for all functions here.
pub async fn insert(conn: &mut AnyConnection, row: &BotEventRow) -> Result<(), StoreError> {
    sqlx::query(INSERT)
        .bind(row.id.clone())
        .bind(row.bot_id.clone())
        .bind(row.kind.as_str())
        .bind(row.status.clone())
        .bind(row.reason_code.clone())
        .bind(row.reason.clone())
        .bind(row.exit_code)
        .bind(row.at)
        .execute(conn)
        .await?;
    Ok(())
}

/// One page of a bot's, newest first.
///
/// # Errors
/// See [`insert`].
pub async fn list(
    conn: &mut AnyConnection,
    bot_id: &str,
    kind: Option<BotEventKind>,
    page: &Page,
) -> Result<Paged<BotEventRow>, StoreError> {
    let statement = sqlx::query(SELECT_PAGE)
        .bind(bot_id.to_owned())
        .bind(kind.map_or("", BotEventKind::as_str))
        .bind(page.after().to_owned())
        .bind(page.fetch());
    let rows = fetch::all(conn, statement, read).await?;
    Ok(page.cut(rows, None, |row| &row.id))
}

/// Deletes what happened before `cutoff`.
///
/// # Errors
/// See [`insert`].
pub async fn purge(conn: &mut AnyConnection, cutoff: i64) -> Result<u64, StoreError> {
    let events = sqlx::query(PURGE).bind(cutoff).execute(&mut *conn).await?.rows_affected();
    Ok(events + sqlx::query(PURGE_MINUTES).bind(cutoff).execute(conn).await?.rows_affected())
}

/// Adds or replaces a minute, unless its bot is gone.
///
/// # Errors
/// See [`insert`].
pub async fn put_minute(conn: &mut AnyConnection, bot_id: &str, minute: &Minute) -> Result<(), StoreError> {
    sqlx::query(PUT_MINUTE)
        .bind(bot_id.to_owned())
        .bind(minute.at)
        .bind(to_int(minute.cpu_millis))
        .bind(to_int(minute.memory_bytes))
        .bind(to_int(minute.rx_bytes))
        .bind(to_int(minute.tx_bytes))
        .bind(to_int(minute.pids))
        .execute(conn)
        .await?;
    Ok(())
}

/// A bot's minutes from `from` to `to`, at most `limit`.
///
/// # Errors
/// See [`insert`].
pub async fn minutes(
    conn: &mut AnyConnection,
    bot_id: &str,
    (from, to): (i64, i64),
    limit: i64,
) -> Result<Vec<Minute>, StoreError> {
    let statement = sqlx::query(SELECT_MINUTES).bind(bot_id.to_owned()).bind(from).bind(to).bind(limit);
    fetch::all(conn, statement, |row| {
        Ok(Minute {
            at: row.int("minute_at")?,
            cpu_millis: row.uint("cpu_millis")?,
            memory_bytes: row.uint("memory_bytes")?,
            rx_bytes: row.uint("rx_bytes")?,
            tx_bytes: row.uint("tx_bytes")?,
            pids: row.uint("pids")?,
        })
    })
    .await
}
