//! Sums by what clients tell of themselves: agent and session, by day.
//!
//! Invariant: of every event that began before [`before`], the sums of its day
//! hold it; of no other. Agents and sessions are too many, and too short-lived,
//! to be told apart in the sums of hours, so their events are summed up some time
//! later, a few at a time: nobody waits long for the write lock. What comes later
//! still is added by who adds the event. Both exclude each other, as for folded
//! days ([`super::usage_rollup`]).

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use sqlx::AnyConnection;

use super::dialect;
use super::error::StoreError;
use super::row::RowExt as _;
use super::usage_ingest::{Statements, Values, query};
use super::usage_query::{DAY, EVENT_SUMS};
use super::usage_rollup::RollupSums;

/// Most characters that two agents or two sessions are told apart by.
pub const MAX_NAME: usize = 256;

/// What is summed up together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionKey {
    /// A row of `usage_dims` of kind `bot`.
    pub dim_id: i64,
    /// Unix microseconds of a full day, UTC.
    pub start_at: i64,
    /// As the client told, at most [`MAX_NAME`] characters.
    pub agent: String,
    /// Likewise.
    pub session: String,
}

/// Names of the sums' columns, in the order of [`EVENT_SUMS`].
pub(super) const SUMS: [&str; 8] = [
    "request_count",
    "error_count",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "duration_sum_micros",
    "duration_count",
    "cost_micros",
];

/// An agent or session of event `e`, as it is told apart.
pub(super) const AGENT: &str = "SUBSTR(COALESCE(e.agent_id, ''), 1, 256)";
pub(super) const SESSION: &str = "SUBSTR(COALESCE(e.session_id, ''), 1, 256)";

const SELECT_BEFORE: &str = "SELECT sessions_before FROM usage_state WHERE id = 1";
const SET_BEFORE: &str = "UPDATE usage_state SET sessions_before = $1 WHERE id = 1";
/// By tenant, because that is what the index of time begins with: when the first
/// event from $1 on began, and the one $2 after it, of any tenant.
const SELECT_NEXT: &str = "SELECT CAST(MIN(first_at) AS BIGINT) AS first_at, CAST(MIN(last_at) AS BIGINT) AS last_at \
    FROM (SELECT (SELECT e.created_at FROM usage_events e WHERE e.tenant_no = t.id AND e.created_at >= $1 \
    ORDER BY e.created_at LIMIT 1) AS first_at, (SELECT e.created_at FROM usage_events e WHERE e.tenant_no = t.id \
    AND e.created_at >= $1 ORDER BY e.created_at LIMIT 1 OFFSET $2) AS last_at \
    FROM usage_dims t WHERE t.kind = 'tenant') AS tenants";
const DELETE: &str = "DELETE FROM usage_session_day WHERE start_at < $1 AND dim_id IN \
    (SELECT id FROM usage_dims WHERE kind = 'bot' AND id > $2 AND id <= $3)";
const SELECT_LAST_DIM: &str = "SELECT CAST(MAX(id) AS BIGINT) AS id FROM usage_dims";

/// What adds rows to those that are there.
static TAIL: LazyLock<String> = LazyLock::new(|| {
    let added: Vec<String> =
        SUMS.iter().map(|sum| format!("{sum} = usage_session_day.{sum} + excluded.{sum}")).collect();
    format!(" ON CONFLICT (dim_id, start_at, agent, session) DO UPDATE SET {}", added.join(", "))
});
static HEAD: LazyLock<String> =
    LazyLock::new(|| format!("INSERT INTO usage_session_day (dim_id, start_at, agent, session, {})", SUMS.join(", ")));
static ADD: LazyLock<Statements> = LazyLock::new(|| Statements::new(&format!("{} VALUES ", *HEAD), 12, &TAIL));
/// On SQLite a cross join is read in the order it is written.
static SUM_UP: LazyLock<Arc<str>> = LazyLock::new(|| {
    Arc::from(format!(
        "{} SELECT d.bot_dim, e.created_at - e.created_at % {DAY}, {AGENT}, {SESSION}, {EVENT_SUMS} \
         FROM usage_dims t CROSS JOIN usage_events e CROSS JOIN usage_dims d WHERE t.kind = 'tenant' \
         AND e.tenant_no = t.id AND e.created_at >= $1 AND e.created_at < $2 AND d.id = e.dim_id \
         GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4{}",
        *HEAD, *TAIL
    ))
});

/// Events that began before this are summed up. Unix microseconds.
///
/// # Errors
/// As the database answers; so for all functions here.
pub async fn before(conn: &mut AnyConnection) -> Result<i64, StoreError> {
    sqlx::query(SELECT_BEFORE).fetch_one(conn).await?.int("sessions_before")
}

/// Adds sums of events that began before [`before`], while nothing is summed up.
///
/// # Errors
/// See [`before`].
pub async fn add(conn: &mut AnyConnection, rows: &BTreeMap<SessionKey, RollupSums>) -> Result<(), StoreError> {
    let rows: Vec<(&SessionKey, &RollupSums)> = rows.iter().collect();
    for (sql, run) in ADD.runs(conn, &rows) {
        let mut values = Values::with_capacity(run.len() * 12);
        for (key, sums) in run {
            values.push(key.dim_id)?;
            values.push(key.start_at)?;
            values.push(key.agent.as_str())?;
            values.push(key.session.as_str())?;
            let sums = [
                sums.requests,
                sums.errors,
                sums.input,
                sums.output,
                sums.total,
                sums.duration_sum,
                sums.duration_count,
                sums.cost,
            ];
            for sum in sums {
                values.push(sum)?;
            }
        }
        values.of(sql).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Sums up about `events` events of each tenant, the oldest first, of those that
/// began before `until`; in a writing transaction of its own. Whether there may
/// be more.
///
/// # Errors
/// See [`before`].
pub async fn sum_some(conn: &mut AnyConnection, until: i64, events: i64) -> Result<bool, StoreError> {
    if let Some(lock) = dialect::fold_lock(conn.backend_name() == "SQLite", false) {
        sqlx::query(lock).fetch_one(&mut *conn).await?;
    }
    let from = before(conn).await?;
    if from >= until {
        return Ok(false);
    }
    let next = sqlx::query(SELECT_NEXT).bind(from).bind(events).fetch_one(&mut *conn).await?;
    let first = next.opt_int("first_at")?.unwrap_or(until).clamp(from, until);
    let to = next.opt_int("last_at")?.unwrap_or(until).max(first.saturating_add(1)).min(until);
    if first < to {
        query(Arc::clone(&SUM_UP)).bind(first).bind(to).execute(&mut *conn).await?;
    }
    sqlx::query(SET_BEFORE).bind(to).execute(conn).await?;
    Ok(to < until)
}

/// Deletes the days before `start_at` of up to `dims` dims behind `after`. The
/// last of these dims; `None`: these were the last.
///
/// # Errors
/// See [`before`].
pub async fn delete(conn: &mut AnyConnection, start_at: i64, after: i64, dims: i64) -> Result<Option<i64>, StoreError> {
    let last = sqlx::query(SELECT_LAST_DIM).fetch_one(&mut *conn).await?.opt_int("id")?.unwrap_or(0);
    let to = after.saturating_add(dims);
    sqlx::query(DELETE).bind(start_at).bind(after).bind(to).execute(conn).await?;
    Ok((to < last).then_some(to))
}
