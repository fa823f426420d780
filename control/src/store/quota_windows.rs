//! The ledger: what is settled and what is outstanding of each window.
//!
//! A window's row is the lock of its leases. Every function here that takes
//! several rows takes them in the order given, which must be that of
//! [`WindowKey`], so that two writers on PostgreSQL never wait for each other
//! in a circle.

use std::sync::LazyLock;

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::fetch;
use super::row::RowExt as _;
use super::usage_ingest::{Statements, query};

/// Most that grants can add to one window; far enough from the largest number
/// that sums with it never overflow.
pub const MAX_EXTRA: i64 = 4_000_000_000_000_000_000;

/// One window of one quota.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowKey {
    /// `quo_…`
    pub quota_id: String,
    /// Unix microseconds.
    pub start: i64,
}

/// What is known of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowRow {
    /// Which.
    pub key: WindowKey,
    /// Exclusive; 0: it never ends.
    pub end: i64,
    /// Granted on top of the limit.
    pub extra: i64,
    /// Charged by exchanges.
    pub settled: i64,
    /// Leased and not settled.
    pub outstanding: i64,
    /// 0: not yet.
    pub warned_at: i64,
    /// 0: not yet.
    pub exhausted_at: i64,
}

/// A change of a window; `end` counts only when the window is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowChange {
    /// Which.
    pub key: WindowKey,
    /// Exclusive; 0: it never ends.
    pub end: i64,
    /// How much.
    pub amount: i64,
}

/// A grant of a window's remainder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowGrant {
    /// Which.
    pub key: WindowKey,
    /// How much.
    pub amount: i64,
    /// Of its quota, without what was granted on top.
    pub limit: i64,
}

/// A window that reached its warning share or its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeRow {
    /// `quo_…`, of the notice itself.
    pub id: String,
    /// Which window.
    pub key: WindowKey,
    /// The limit, not only the warning share.
    pub exhausted: bool,
    /// What was settled then.
    pub used: i64,
    /// The limit then, with what was granted on top.
    pub limit: i64,
    /// Unix microseconds.
    pub at: i64,
}

macro_rules! columns {
    () => {
        "quota_id, window_start, window_end, extra, settled, outstanding, warned_at, exhausted_at"
    };
}

macro_rules! returning {
    () => {
        " RETURNING quota_id, window_start, window_end, extra, settled, outstanding, warned_at, exhausted_at"
    };
}

static SELECT: LazyLock<Statements> = LazyLock::new(|| {
    let head = concat!("SELECT ", columns!(), " FROM quota_windows WHERE (quota_id, window_start) IN (VALUES ");
    Statements::new(head, 2, ")")
});
// Columns of one row: all eight, so that a new window is written whole.
static SETTLE: LazyLock<Statements> = LazyLock::new(|| {
    Statements::new(
        concat!("INSERT INTO quota_windows (", columns!(), ") VALUES "),
        8,
        concat!(
            " ON CONFLICT (quota_id, window_start) DO UPDATE SET settled = quota_windows.settled + excluded.settled",
            returning!()
        ),
    )
});
static SHIFT: LazyLock<Statements> = LazyLock::new(|| {
    Statements::new(
        concat!("INSERT INTO quota_windows (", columns!(), ") VALUES "),
        8,
        " ON CONFLICT (quota_id, window_start) DO UPDATE \
         SET outstanding = quota_windows.outstanding + excluded.outstanding",
    )
});
// `extra` of the proposed row carries the limit.
static GRANT: LazyLock<Statements> = LazyLock::new(|| {
    Statements::new(
        concat!("INSERT INTO quota_windows (", columns!(), ") VALUES "),
        8,
        concat!(
            " ON CONFLICT (quota_id, window_start) DO UPDATE \
             SET outstanding = quota_windows.outstanding + excluded.outstanding \
             WHERE quota_windows.settled + quota_windows.outstanding + excluded.outstanding \
             <= excluded.extra + quota_windows.extra",
            returning!()
        ),
    )
});
const EXTEND: &str = "INSERT INTO quota_windows (quota_id, window_start, window_end, extra, settled, outstanding, \
    warned_at, exhausted_at) VALUES ($1, $2, $3, $4, 0, 0, 0, 0) ON CONFLICT (quota_id, window_start) \
    DO UPDATE SET extra = quota_windows.extra + excluded.extra WHERE quota_windows.extra + excluded.extra <= $5";
const WARNED: &str =
    "UPDATE quota_windows SET warned_at = $3 WHERE quota_id = $1 AND window_start = $2 AND warned_at = 0";
const EXHAUSTED: &str =
    "UPDATE quota_windows SET exhausted_at = $3 WHERE quota_id = $1 AND window_start = $2 AND exhausted_at = 0";
const NOTICE: &str = "INSERT INTO quota_notices (id, quota_id, window_start, kind, used, limit_amount, at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7)";
const SELECT_NOTICES: &str = "SELECT id, quota_id, window_start, kind, used, limit_amount, at FROM quota_notices \
    WHERE quota_id = $1 ORDER BY at, id LIMIT 1000";
const PURGE_ENDED: &str = "DELETE FROM quota_windows WHERE window_end > 0 AND window_end < $1 \
    AND (window_end < $2 OR window_end - window_start <= 7200000000) AND outstanding <= 0";
const PURGE_ORPHANS: &str =
    "DELETE FROM quota_windows WHERE NOT EXISTS (SELECT 1 FROM quotas WHERE quotas.id = quota_windows.quota_id)";
const PURGE_NOTICES: &str = "DELETE FROM quota_notices WHERE at < $1 \
    OR NOT EXISTS (SELECT 1 FROM quotas WHERE quotas.id = quota_notices.quota_id)";

fn read(row: &AnyRow) -> Result<WindowRow, StoreError> {
    Ok(WindowRow {
        key: WindowKey { quota_id: row.text("quota_id")?, start: row.int("window_start")? },
        end: row.int("window_end")?,
        extra: row.int("extra")?,
        settled: row.int("settled")?,
        outstanding: row.int("outstanding")?,
        warned_at: row.int("warned_at")?,
        exhausted_at: row.int("exhausted_at")?,
    })
}

/// The windows there are of these; nothing is locked.
///
/// # Errors
/// As the database answers; so for all functions here.
pub async fn get(conn: &mut AnyConnection, keys: &[WindowKey]) -> Result<Vec<WindowRow>, StoreError> {
    let mut found = Vec::new();
    for (sql, run) in SELECT.runs(conn, keys) {
        let bound = run.iter().fold(query(sql), |query, key| query.bind(key.quota_id.clone()).bind(key.start));
        found.append(&mut fetch::all(conn, bound, read).await?);
    }
    Ok(found)
}

/// What a proposed row says.
struct Proposed<'a> {
    key: &'a WindowKey,
    end: i64,
    extra: i64,
    settled: i64,
    outstanding: i64,
}

async fn put(
    conn: &mut AnyConnection,
    statements: &Statements,
    rows: &[Proposed<'_>],
) -> Result<Vec<WindowRow>, StoreError> {
    let mut found = Vec::new();
    for (sql, run) in statements.runs(conn, rows) {
        let bound = run.iter().fold(query(sql), |query, row| {
            query
                .bind(row.key.quota_id.clone())
                .bind(row.key.start)
                .bind(row.end)
                .bind(row.extra)
                .bind(row.settled)
                .bind(row.outstanding)
                .bind(0_i64)
                .bind(0_i64)
        });
        found.append(&mut fetch::all(conn, bound, read).await?);
    }
    Ok(found)
}

/// Adds to what is settled, and locks the windows until the transaction ends;
/// new ones are made. An amount of 0 only locks. The windows as they are now.
///
/// # Errors
/// See [`get`].
pub async fn settle(conn: &mut AnyConnection, changes: &[WindowChange]) -> Result<Vec<WindowRow>, StoreError> {
    let proposed = changes.iter().map(|change| Proposed {
        key: &change.key,
        end: change.end,
        extra: 0,
        settled: change.amount,
        outstanding: 0,
    });
    let rows: Vec<_> = proposed.collect();
    put(conn, &SETTLE, &rows).await
}

/// Moves what is outstanding, whatever the limit.
///
/// # Errors
/// See [`get`].
pub async fn shift(conn: &mut AnyConnection, changes: &[WindowChange]) -> Result<(), StoreError> {
    let proposed = changes.iter().map(|change| Proposed {
        key: &change.key,
        end: change.end,
        extra: 0,
        settled: 0,
        outstanding: change.amount,
    });
    let rows: Vec<_> = proposed.collect();
    put(conn, &SHIFT, &rows).await.map(drop)
}

/// Makes amounts of existing windows outstanding where the limit has room for
/// them; the windows where it had.
///
/// # Errors
/// See [`get`].
pub async fn grant(conn: &mut AnyConnection, grants: &[WindowGrant]) -> Result<Vec<WindowRow>, StoreError> {
    let proposed = grants.iter().map(|grant| Proposed {
        key: &grant.key,
        end: 0,
        extra: grant.limit,
        settled: 0,
        outstanding: grant.amount,
    });
    let rows: Vec<_> = proposed.collect();
    put(conn, &GRANT, &rows).await
}

/// Adds to what a window has on top of its limit; false when that would pass
/// [`MAX_EXTRA`].
///
/// # Errors
/// See [`get`].
pub async fn extend(conn: &mut AnyConnection, change: &WindowChange) -> Result<bool, StoreError> {
    let statement = sqlx::query(EXTEND)
        .bind(change.key.quota_id.as_str())
        .bind(change.key.start)
        .bind(change.end)
        .bind(change.amount)
        .bind(MAX_EXTRA);
    fetch::changed(conn, statement).await
}

/// Notes that a window reached its warning share, or its limit; false when that
/// was noted before.
///
/// # Errors
/// See [`get`].
pub async fn note(conn: &mut AnyConnection, notice: &NoticeRow) -> Result<bool, StoreError> {
    let sql = if notice.exhausted { EXHAUSTED } else { WARNED };
    let statement = sqlx::query(sql).bind(notice.key.quota_id.as_str()).bind(notice.key.start).bind(notice.at);
    if !fetch::changed(conn, statement).await? {
        return Ok(false);
    }
    sqlx::query(NOTICE)
        .bind(notice.id.as_str())
        .bind(notice.key.quota_id.as_str())
        .bind(notice.key.start)
        .bind(if notice.exhausted { "exhausted" } else { "warning" })
        .bind(notice.used)
        .bind(notice.limit)
        .bind(notice.at)
        .execute(conn)
        .await?;
    Ok(true)
}

/// The notices of a quota, oldest first, at most 1,000.
///
/// # Errors
/// See [`get`].
pub async fn notices(conn: &mut AnyConnection, quota_id: &str) -> Result<Vec<NoticeRow>, StoreError> {
    let read = |row: &AnyRow| {
        Ok(NoticeRow {
            id: row.text("id")?,
            key: WindowKey { quota_id: row.text("quota_id")?, start: row.int("window_start")? },
            exhausted: row.text("kind")? == "exhausted",
            used: row.int("used")?,
            limit: row.int("limit_amount")?,
            at: row.int("at")?,
        })
    };
    fetch::all(conn, sqlx::query(SELECT_NOTICES).bind(quota_id), read).await
}

/// Clears away windows that ended before `before` (minutes and hours) or
/// `long_before` (the others) and have nothing outstanding, and what belongs to
/// no quota. How many windows went.
///
/// # Errors
/// See [`get`].
pub async fn purge(conn: &mut AnyConnection, before: i64, long_before: i64) -> Result<u64, StoreError> {
    let ended = sqlx::query(PURGE_ENDED).bind(before).bind(long_before).execute(&mut *conn).await?;
    let orphans = sqlx::query(PURGE_ORPHANS).execute(&mut *conn).await?;
    sqlx::query(PURGE_NOTICES).bind(long_before).execute(conn).await?;
    Ok(ended.rows_affected().saturating_add(orphans.rows_affected()))
}
