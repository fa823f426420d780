//! Sums by hour, and by day for hours that are folded.
//!
//! Invariant: an hour's row is the sum of its events; a row of a day is the sum
//! of those of its hours that are folded. Adding and folding exclude each other,
//! so that nothing is added to an hour after it was folded but not to the day.
//! Days that are over are folded a few dims at a time, so that nobody waits long
//! for the write lock; the running day, hour after hour, each at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use sqlx::AnyConnection;

use super::dialect;
use super::error::StoreError;
use super::row::RowExt as _;
use super::usage_ingest::{Bound, Statements, Values, query};
use super::usage_query::{DAY, HOUR};

/// Most rows of one statement on PostgreSQL.
const MAX_ARRAY: usize = 4096;

/// Days that were not folded yet are looked for, instead of taken one after the
/// other, when there may be so many of them; in microseconds.
const GAP: i64 = 3 * DAY;

/// With more dims the running day is not begun: an hour is folded at once, at
/// some microseconds for each of them.
const MAX_AT_ONCE: i64 = 20_000;

/// What is summed up together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RollupKey {
    /// Unix microseconds of a full hour, or day, UTC.
    pub start_at: i64,
    /// A row of `usage_dims`.
    pub dim_id: i64,
}

/// The sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RollupSums {
    /// Exchanges.
    pub requests: i64,
    /// Of them, those that count as errors.
    pub errors: i64,
    /// Tokens; so below.
    pub input: i64,
    /// Part of `input`.
    pub cached_input: i64,
    /// Part of `input`.
    pub cache_write: i64,
    /// All generated.
    pub output: i64,
    /// Part of `output`.
    pub reasoning: i64,
    /// All.
    pub total: i64,
    /// Microseconds.
    pub duration_sum: i64,
    /// How many were added to `duration_sum`.
    pub duration_count: i64,
    /// Microseconds.
    pub ttft_sum: i64,
    /// How many were added to `ttft_sum`.
    pub ttft_count: i64,
    /// Micro-USD.
    pub cost: i64,
}

/// Names of the sums' columns, in the order of [`RollupSums::values`].
pub(super) const SUMS: [&str; 13] = [
    "request_count",
    "error_count",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "total_tokens",
    "duration_sum_micros",
    "duration_count",
    "ttft_sum_micros",
    "ttft_count",
    "cost_micros",
];

impl RollupSums {
    fn values(&self) -> [i64; 13] {
        [
            self.requests,
            self.errors,
            self.input,
            self.cached_input,
            self.cache_write,
            self.output,
            self.reasoning,
            self.total,
            self.duration_sum,
            self.duration_count,
            self.ttft_sum,
            self.ttft_count,
            self.cost,
        ]
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        let plus = |sum: &mut i64, value: i64| *sum = sum.saturating_add(value);
        plus(&mut self.requests, other.requests);
        plus(&mut self.errors, other.errors);
        plus(&mut self.input, other.input);
        plus(&mut self.cached_input, other.cached_input);
        plus(&mut self.cache_write, other.cache_write);
        plus(&mut self.output, other.output);
        plus(&mut self.reasoning, other.reasoning);
        plus(&mut self.total, other.total);
        plus(&mut self.duration_sum, other.duration_sum);
        plus(&mut self.duration_count, other.duration_count);
        plus(&mut self.ttft_sum, other.ttft_sum);
        plus(&mut self.ttft_count, other.ttft_count);
        plus(&mut self.cost, other.cost);
    }
}

/// How sums get into one table.
struct Adding {
    rows: Statements,
    arrays: Arc<str>,
}

impl Adding {
    fn new(table: &str) -> Self {
        let added: Vec<String> = SUMS.iter().map(|sum| format!("{sum} = {table}.{sum} + excluded.{sum}")).collect();
        let sums = SUMS.join(", ");
        let head = format!("INSERT INTO {table} (dim_id, start_at, {sums})");
        let tail = format!("ON CONFLICT (dim_id, start_at) DO UPDATE SET {}", added.join(", "));
        let arrays: Vec<String> = (1..=15).map(|n| format!("CAST(${n} AS BIGINT[])")).collect();
        Self {
            rows: Statements::new(&format!("{head} VALUES "), 15, &format!(" {tail}")),
            arrays: Arc::from(format!("{head} SELECT * FROM UNNEST({}) {tail}", arrays.join(", "))),
        }
    }

    async fn run(&self, conn: &mut AnyConnection, rows: &[(RollupKey, RollupSums)]) -> Result<(), StoreError> {
        if conn.backend_name() == "SQLite" {
            for (sql, run) in self.rows.runs(conn, rows) {
                let mut values = Values::with_capacity(run.len() * 15);
                for cell in run.iter().flat_map(|(key, sums)| cells(key, sums)) {
                    values.push(cell)?;
                }
                values.of(sql).execute(&mut *conn).await?;
            }
            return Ok(());
        }
        for run in rows.chunks(MAX_ARRAY) {
            let mut arrays = vec![String::with_capacity(run.len() * 8); 15];
            for (key, sums) in run {
                for (array, cell) in arrays.iter_mut().zip(cells(key, sums)) {
                    let _infallible = write!(array, "{}{cell}", if array.is_empty() { '{' } else { ',' });
                }
            }
            let close = |mut array: String| {
                array.push('}');
                array
            };
            let bound = arrays.into_iter().map(close).fold(query(Arc::clone(&self.arrays)), Bound::bind);
            bound.execute(&mut *conn).await?;
        }
        Ok(())
    }
}

/// A row as it is written.
fn cells(key: &RollupKey, sums: &RollupSums) -> impl Iterator<Item = i64> + use<> {
    [key.dim_id, key.start_at].into_iter().chain(sums.values())
}

static HOURS: LazyLock<Adding> = LazyLock::new(|| Adding::new("usage_rollup_hour"));
static DAYS: LazyLock<Adding> = LazyLock::new(|| Adding::new("usage_rollup_day"));

const SELECT_STATE: &str = "SELECT folded_before, folded_dims, sessions_before FROM usage_state WHERE id = 1";
const SET_STATE: &str = "UPDATE usage_state SET folded_before = $1, folded_dims = $2 WHERE id = 1";
const SELECT_FIRST: &str =
    "SELECT CAST(MIN(start_at) AS BIGINT) AS start_at FROM usage_rollup_hour WHERE start_at >= $1";
const SELECT_LAST_DIM: &str = "SELECT CAST(MAX(id) AS BIGINT) AS id FROM usage_dims";

/// An hour is found by its dim: a look at each of them, instead of at all hours.
static FOLD: LazyLock<Arc<str>> = LazyLock::new(|| {
    let summed: Vec<String> = SUMS.iter().map(|sum| format!("CAST(SUM(h.{sum}) AS BIGINT)")).collect();
    let added: Vec<String> =
        SUMS.iter().map(|sum| format!("{sum} = usage_rollup_day.{sum} + excluded.{sum}")).collect();
    Arc::from(format!(
        "INSERT INTO usage_rollup_day (dim_id, start_at, {}) SELECT h.dim_id, CAST($1 AS BIGINT), {} \
         FROM usage_dims d CROSS JOIN usage_rollup_hour h WHERE d.id > $2 AND d.id <= $3 \
         AND h.dim_id = d.id AND h.start_at >= $4 AND h.start_at < $5 GROUP BY h.dim_id ORDER BY h.dim_id \
         ON CONFLICT (dim_id, start_at) DO UPDATE SET {}",
        SUMS.join(", "),
        summed.join(", "),
        added.join(", ")
    ))
});

/// How far hours are folded.
#[derive(Clone, Copy, Debug)]
struct Folded {
    /// Hours that start before this are.
    before: i64,
    /// Of the day that starts there, dims up to this one are.
    dims: i64,
    /// Events that began before this are summed up by session.
    sessions: i64,
}

impl Folded {
    async fn read(conn: &mut AnyConnection) -> Result<Self, StoreError> {
        let row = sqlx::query(SELECT_STATE).fetch_one(conn).await?;
        Ok(Self {
            before: row.int("folded_before")?,
            dims: row.int("folded_dims")?,
            sessions: row.int("sessions_before")?,
        })
    }

    /// Whether a sum of an hour is in a day as well.
    const fn has(self, key: &RollupKey) -> bool {
        key.start_at < self.before || (key.start_at < self.before.saturating_add(DAY) && key.dim_id <= self.dims)
    }
}

/// Adds sums to their hours, while no day is folded. `rows` in key order.
///
/// # Errors
/// As the database answers.
pub(super) async fn add_hours(conn: &mut AnyConnection, rows: &[(RollupKey, RollupSums)]) -> Result<(), StoreError> {
    HOURS.run(conn, rows).await
}

/// Adds sums to their hours, and to the days of these when they are folded.
/// `rows` in key order, so that two writers on PostgreSQL never wait for each
/// other in a circle. Events that began before what comes back are to be added
/// to the sums of sessions as well ([`super::usage_sessions`]).
///
/// # Errors
/// As the database answers.
pub async fn add(conn: &mut AnyConnection, rows: &[(RollupKey, RollupSums)]) -> Result<i64, StoreError> {
    if rows.is_empty() {
        return Ok(0);
    }
    if let Some(lock) = dialect::fold_lock(conn.backend_name() == "SQLite", true) {
        sqlx::query(lock).fetch_one(&mut *conn).await?;
    }
    let folded = Folded::read(conn).await?;
    add_hours(conn, rows).await?;
    let mut days: BTreeMap<RollupKey, RollupSums> = BTreeMap::new();
    for (key, sums) in rows.iter().filter(|(key, _)| folded.has(key)) {
        let day = RollupKey { start_at: key.start_at - key.start_at.rem_euclid(DAY), dim_id: key.dim_id };
        days.entry(day).or_default().add(sums);
    }
    let days: Vec<(RollupKey, RollupSums)> = days.into_iter().collect();
    DAYS.run(conn, &days).await?;
    Ok(folded.sessions)
}

/// Hours that start before this are folded. Unix microseconds.
///
/// # Errors
/// As the database answers.
pub async fn folded_before(conn: &mut AnyConnection) -> Result<i64, StoreError> {
    Ok(Folded::read(conn).await?.before)
}

/// What [`fold_some`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// Every hour that is over is folded, but for those of a running day that has
    /// too many dims.
    Over,
    /// A part of a day, which goes on.
    Part,
    /// An hour, or the last part of a day: so many microseconds.
    Whole(i64),
}

/// Folds up to `dims` dims of the first day that is not folded and ends at
/// `until` or before, or else an hour; in a writing transaction of its own.
///
/// # Errors
/// As the database answers.
pub async fn fold_some(conn: &mut AnyConnection, until: i64, dims: i64) -> Result<Fold, StoreError> {
    if let Some(lock) = dialect::fold_lock(conn.backend_name() == "SQLite", false) {
        sqlx::query(lock).fetch_one(&mut *conn).await?;
    }
    let folded = Folded::read(conn).await?;
    let Some(hour) = next_hour(conn, folded, until).await? else { return Ok(Fold::Over) };
    let day = hour - hour.rem_euclid(DAY);
    let last = sqlx::query(SELECT_LAST_DIM).fetch_one(&mut *conn).await?.opt_int("id")?.unwrap_or(0);
    let (from, to, above, up_to) = if day >= folded.before && day.saturating_add(DAY) <= until {
        (day, day + DAY, folded.dims, folded.dims.saturating_add(dims))
    } else if hour.saturating_add(HOUR) <= until && (last <= MAX_AT_ONCE || hour != day) {
        (hour, hour + HOUR, 0, last)
    } else {
        return Ok(Fold::Over);
    };
    let fold = query(Arc::clone(&FOLD)).bind(day).bind(above).bind(up_to).bind(from).bind(to);
    fold.execute(&mut *conn).await?;
    let (state, done) = if up_to < last { ((from, up_to), Fold::Part) } else { ((to, 0), Fold::Whole(to - from)) };
    sqlx::query(SET_STATE).bind(state.0).bind(state.1).execute(conn).await?;
    Ok(done)
}

/// The first hour to fold. To find that there are none for days takes a look at
/// all hours, which is worth it only for many days.
async fn next_hour(conn: &mut AnyConnection, folded: Folded, until: i64) -> Result<Option<i64>, StoreError> {
    if folded.dims > 0 || folded.before >= until.saturating_sub(GAP) {
        return Ok(Some(folded.before));
    }
    sqlx::query(SELECT_FIRST).bind(folded.before).fetch_one(&mut *conn).await?.opt_int("start_at")
}
