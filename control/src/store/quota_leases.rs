//! Leases: what each epoch of each node was given of a window. A lease is
//! written only while its window's row is locked (see `quota_windows`).

use std::sync::LazyLock;

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::fetch;
use super::quota_windows::WindowKey;
use super::row::RowExt as _;
use super::usage_ingest::{Statements, query};

/// One epoch of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder<'a> {
    /// `node_…`
    pub node_id: &'a str,
    /// Of its spool.
    pub epoch: i64,
}

/// One lease. All amounts are cumulative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// Of which window.
    pub key: WindowKey,
    /// Whose.
    pub node_id: String,
    /// Whose.
    pub epoch: i64,
    /// Given.
    pub granted: i64,
    /// Given back, or taken back when its time had passed.
    pub returned: i64,
    /// Charged by exchanges of this epoch.
    pub settled: i64,
    /// Unix microseconds; 0: its rest was taken back.
    pub expires_at: i64,
}

impl LeaseRow {
    /// A lease of nothing.
    #[must_use]
    pub fn none(key: WindowKey, holder: Holder<'_>) -> Self {
        let (node_id, epoch) = (holder.node_id.to_owned(), holder.epoch);
        Self { key, node_id, epoch, granted: 0, returned: 0, settled: 0, expires_at: 0 }
    }

    /// What it makes outstanding.
    #[must_use]
    pub const fn rest(&self) -> i64 {
        let rest = self.granted - self.returned - self.settled;
        if rest > 0 { rest } else { 0 }
    }
}

macro_rules! columns {
    () => {
        "quota_id, window_start, node_id, epoch, granted, returned, settled, expires_at"
    };
}

static SELECT: LazyLock<Statements> = LazyLock::new(|| {
    Statements::new(
        concat!("SELECT ", columns!(), " FROM quota_leases WHERE (quota_id, window_start, node_id, epoch) IN (VALUES "),
        4,
        ")",
    )
});
static SETTLE: LazyLock<Statements> = LazyLock::new(|| {
    Statements::new(
        concat!("INSERT INTO quota_leases (", columns!(), ") VALUES "),
        8,
        concat!(
            " ON CONFLICT (quota_id, window_start, node_id, epoch) \
             DO UPDATE SET settled = quota_leases.settled + excluded.settled RETURNING ",
            columns!()
        ),
    )
});
static WRITE: LazyLock<Statements> = LazyLock::new(|| {
    Statements::new(
        concat!("INSERT INTO quota_leases (", columns!(), ") VALUES "),
        8,
        " ON CONFLICT (quota_id, window_start, node_id, epoch) DO UPDATE SET granted = excluded.granted, \
         returned = excluded.returned, expires_at = excluded.expires_at",
    )
});
const SELECT_OF: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM quota_leases WHERE node_id = $1 AND epoch = $2 ORDER BY quota_id, window_start LIMIT $3"
);
const SELECT_EXPIRED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM quota_leases WHERE expires_at > 0 AND expires_at <= $1 ORDER BY expires_at LIMIT $2"
);
const DELETE_OF: &str = "DELETE FROM quota_leases WHERE quota_id = $1 AND window_start = $2 AND node_id = $3 \
    AND epoch = $4";
const PURGE: &str = "DELETE FROM quota_leases WHERE NOT EXISTS (SELECT 1 FROM quota_windows w \
    WHERE w.quota_id = quota_leases.quota_id AND w.window_start = quota_leases.window_start)";
// How many shards of an epoch are known, and how many of them have ended.
const SHARDS: &str = "SELECT COUNT(*) AS known, CAST(COALESCE(SUM(CASE WHEN ended = '' THEN 0 ELSE 1 END), 0) AS \
    BIGINT) AS ended FROM ingest_cursors WHERE node_id = $1 AND epoch = $2";
const LOCK_NODE: &str = "UPDATE nodes SET name = name WHERE id = $1";

fn read(row: &AnyRow) -> Result<LeaseRow, StoreError> {
    Ok(LeaseRow {
        key: WindowKey { quota_id: row.text("quota_id")?, start: row.int("window_start")? },
        node_id: row.text("node_id")?,
        epoch: row.int("epoch")?,
        granted: row.int("granted")?,
        returned: row.int("returned")?,
        settled: row.int("settled")?,
        expires_at: row.int("expires_at")?,
    })
}

/// The leases that a holder has of these windows.
///
/// # Errors
/// As the database answers; so for all functions here.
pub async fn get(
    conn: &mut AnyConnection,
    holder: Holder<'_>,
    keys: &[WindowKey],
) -> Result<Vec<LeaseRow>, StoreError> {
    let all: Vec<_> = keys.iter().map(|key| (key, holder.node_id, holder.epoch)).collect();
    select(conn, &all).await
}

async fn select(conn: &mut AnyConnection, keys: &[(&WindowKey, &str, i64)]) -> Result<Vec<LeaseRow>, StoreError> {
    let mut found = Vec::new();
    for (sql, run) in SELECT.runs(conn, keys) {
        let bound = run.iter().fold(query(sql), |query, (key, node_id, epoch)| {
            query.bind(key.quota_id.clone()).bind(key.start).bind((*node_id).to_owned()).bind(*epoch)
        });
        found.append(&mut fetch::all(conn, bound, read).await?);
    }
    Ok(found)
}

/// Reads leases again, now that their windows are locked.
///
/// # Errors
/// See [`get`].
pub async fn again(conn: &mut AnyConnection, rows: &[LeaseRow]) -> Result<Vec<LeaseRow>, StoreError> {
    let all: Vec<_> = rows.iter().map(|row| (&row.key, row.node_id.as_str(), row.epoch)).collect();
    select(conn, &all).await
}

/// Adds to what leases have settled. A lease that is not known is noted with
/// nothing granted. The leases as they are now.
///
/// # Errors
/// See [`get`].
pub async fn settle(
    conn: &mut AnyConnection,
    holder: Holder<'_>,
    amounts: &[(WindowKey, i64)],
) -> Result<Vec<LeaseRow>, StoreError> {
    let row = |(key, settled): &(WindowKey, i64)| LeaseRow { settled: *settled, ..LeaseRow::none(key.clone(), holder) };
    let rows: Vec<_> = amounts.iter().map(row).collect();
    put(conn, &SETTLE, &rows).await
}

/// Writes what leases have been granted and have returned, and when they
/// expire; what they have settled stays.
///
/// # Errors
/// See [`get`].
pub async fn write(conn: &mut AnyConnection, rows: &[LeaseRow]) -> Result<(), StoreError> {
    put(conn, &WRITE, rows).await.map(drop)
}

async fn put(
    conn: &mut AnyConnection,
    statements: &Statements,
    rows: &[LeaseRow],
) -> Result<Vec<LeaseRow>, StoreError> {
    let mut found = Vec::new();
    for (sql, run) in statements.runs(conn, rows) {
        let bound = run.iter().fold(query(sql), |query, row| {
            query
                .bind(row.key.quota_id.clone())
                .bind(row.key.start)
                .bind(row.node_id.clone())
                .bind(row.epoch)
                .bind(row.granted)
                .bind(row.returned)
                .bind(row.settled)
                .bind(row.expires_at)
        });
        found.append(&mut fetch::all(conn, bound, read).await?);
    }
    Ok(found)
}

/// The next at most `limit` leases of a holder, in the order of their windows.
///
/// # Errors
/// See [`get`].
pub async fn of(conn: &mut AnyConnection, holder: Holder<'_>, limit: i64) -> Result<Vec<LeaseRow>, StoreError> {
    fetch::all(conn, sqlx::query(SELECT_OF).bind(holder.node_id).bind(holder.epoch).bind(limit), read).await
}

/// The next at most `limit` leases whose time has passed.
///
/// # Errors
/// See [`get`].
pub async fn expired(conn: &mut AnyConnection, now: i64, limit: i64) -> Result<Vec<LeaseRow>, StoreError> {
    fetch::all(conn, sqlx::query(SELECT_EXPIRED).bind(now).bind(limit), read).await
}

/// Forgets leases.
///
/// # Errors
/// See [`get`].
pub async fn delete(conn: &mut AnyConnection, rows: &[LeaseRow]) -> Result<(), StoreError> {
    for row in rows {
        sqlx::query(DELETE_OF)
            .bind(row.key.quota_id.as_str())
            .bind(row.key.start)
            .bind(row.node_id.as_str())
            .bind(row.epoch)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// Forgets leases of windows that are no more; how many.
///
/// # Errors
/// See [`get`].
pub async fn purge(conn: &mut AnyConnection) -> Result<u64, StoreError> {
    Ok(sqlx::query(PURGE).execute(conn).await?.rows_affected())
}

/// How many shards of an epoch are known, and how many of them have ended.
///
/// # Errors
/// See [`get`].
pub async fn shards(conn: &mut AnyConnection, holder: Holder<'_>) -> Result<(u64, u64), StoreError> {
    let row = sqlx::query(SHARDS).bind(holder.node_id).bind(holder.epoch).fetch_one(conn).await?;
    Ok((row.uint("known")?, row.uint("ended")?))
}

/// Makes the ends of two shards of one node wait for each other, so that the
/// later one sees the earlier.
///
/// # Errors
/// See [`get`].
pub async fn lock_node(conn: &mut AnyConnection, node_id: &str) -> Result<(), StoreError> {
    sqlx::query(LOCK_NODE).bind(node_id).execute(conn).await?;
    Ok(())
}

/// What all leases of a quota make outstanding, for tests.
#[cfg(test)]
pub(crate) async fn rest_of(conn: &mut AnyConnection, quota_id: &str) -> Result<i64, StoreError> {
    const SQL: &str = "SELECT CAST(COALESCE(SUM(CASE WHEN granted - returned - settled > 0 \
        THEN granted - returned - settled ELSE 0 END), 0) AS BIGINT) AS n FROM quota_leases WHERE quota_id = $1";
    sqlx::query(SQL).bind(quota_id.to_owned()).fetch_one(conn).await?.int("n")
}
