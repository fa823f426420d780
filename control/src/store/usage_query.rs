//! Sums of usage: over a span, along it, and by what they belong to.
//!
//! Invariant: a sum over whole hours reads the hourly rollups; anything else
//! reads the events themselves, by quarters of an hour, which every time zone's
//! offset is a multiple of. Both give the same numbers.

use std::collections::BTreeMap;

use sqlx::AnyConnection;

use super::error::StoreError;
use super::row::RowExt as _;

/// Microseconds of an hour.
pub const HOUR: i64 = 3_600_000_000;
/// Most groups that one statement returns.
pub const MAX_GROUPS: usize = 10_000;

/// Whose usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Everything of the tenant.
    Tenant,
    /// One project's.
    Project(&'a str),
    /// One bot's, by id.
    Bot(&'a str),
}

/// A tenant, a part of it, and a span of time.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// Always one tenant's.
    pub tenant_id: &'a str,
    /// Which part.
    pub scope: Scope<'a>,
    /// Unix microseconds, inclusive.
    pub from: i64,
    /// Exclusive.
    pub to: i64,
}

/// What groups are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Slug.
    Vendor,
    /// As served.
    Model,
    /// Status code as text.
    Status,
    /// Provider key id.
    Key,
    /// Bot id.
    Bot,
    /// Project id.
    Project,
    /// The labels of an event as one JSON object.
    Labels,
    /// As the client reported.
    Agent,
    /// As the client reported.
    Session,
}

/// Sums of some exchanges. Counts the vendor did not report add nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Exchanges.
    pub requests: i64,
    /// Of them, those that did not end well.
    pub errors: i64,
    /// Tokens.
    pub input: i64,
    /// Tokens.
    pub output: i64,
    /// Tokens.
    pub total: i64,
    /// Microseconds.
    pub duration_sum: i64,
    /// How many were added to `duration_sum`.
    pub duration_count: i64,
    /// Micro-USD.
    pub cost: i64,
}

impl Sums {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.input += other.input;
        self.output += other.output;
        self.total += other.total;
        self.duration_sum += other.duration_sum;
        self.duration_count += other.duration_count;
        self.cost += other.cost;
    }
}

/// The sums of one time slot or one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Unix microseconds of the slot's start; 0 when not asked for.
    pub slot: i64,
    /// The group; empty when not asked for or when there is none.
    pub group: String,
    /// What belongs to both.
    pub sums: Sums,
}

// $1 tenant, $2 from, $3 to, $4 project or bot. LIMIT one more than MAX_GROUPS
// would tell nothing: the largest groups come first.
macro_rules! statement {
    ($scope:expr, $table:literal, $time:literal, $sums:literal, $slot:literal, $group:literal) => {
        match $scope {
            Scope::Tenant => concat!(
                "SELECT ",
                $slot,
                " AS slot, ",
                $group,
                " AS grp, ",
                $sums,
                " FROM ",
                $table,
                " WHERE tenant_id = $1 AND ",
                $time,
                " >= $2 AND ",
                $time,
                " < $3 AND $4 = ''",
                " GROUP BY 1, 2 ORDER BY total DESC LIMIT 10000"
            ),
            Scope::Project(_) => concat!(
                "SELECT ",
                $slot,
                " AS slot, ",
                $group,
                " AS grp, ",
                $sums,
                " FROM ",
                $table,
                " WHERE tenant_id = $1 AND ",
                $time,
                " >= $2 AND ",
                $time,
                " < $3 AND project_id = $4",
                " GROUP BY 1, 2 ORDER BY total DESC LIMIT 10000"
            ),
            Scope::Bot(_) => concat!(
                "SELECT ",
                $slot,
                " AS slot, ",
                $group,
                " AS grp, ",
                $sums,
                " FROM ",
                $table,
                " WHERE tenant_id = $1 AND ",
                $time,
                " >= $2 AND ",
                $time,
                " < $3 AND bot_id = $4",
                " GROUP BY 1, 2 ORDER BY total DESC LIMIT 10000"
            ),
        }
    };
}

macro_rules! rollup {
    ($scope:expr, $slot:literal, $group:literal) => {
        statement!(
            $scope,
            "usage_rollup_hour",
            "hour_start",
            "CAST(SUM(request_count) AS BIGINT) AS requests, CAST(SUM(error_count) AS BIGINT) AS errors, \
             CAST(SUM(input_tokens) AS BIGINT) AS input, CAST(SUM(output_tokens) AS BIGINT) AS output, \
             CAST(SUM(total_tokens) AS BIGINT) AS total, CAST(SUM(duration_sum_micros) AS BIGINT) AS duration_sum, \
             CAST(SUM(duration_count) AS BIGINT) AS duration_count, CAST(SUM(cost_micros) AS BIGINT) AS cost",
            $slot,
            $group
        )
    };
}

// What is an error here is what `ingest::rollup` counts as one; the test of
// equal sums in `tests/rest_usage.rs` holds the two together.
macro_rules! events {
    ($scope:expr, $slot:literal, $group:literal) => {
        statement!(
            $scope,
            "usage_events",
            "created_at",
            "CAST(COUNT(*) AS BIGINT) AS requests, \
             CAST(SUM(CASE WHEN outcome IN ('ok', 'client_disconnect') THEN 0 ELSE 1 END) AS BIGINT) AS errors, \
             CAST(SUM(COALESCE(input_tokens, 0)) AS BIGINT) AS input, \
             CAST(SUM(COALESCE(output_tokens, 0)) AS BIGINT) AS output, \
             CAST(SUM(COALESCE(total_tokens, 0)) AS BIGINT) AS total, \
             CAST(SUM(duration_micros) AS BIGINT) AS duration_sum, CAST(COUNT(*) AS BIGINT) AS duration_count, \
             CAST(SUM(COALESCE(cost_micros, 0)) AS BIGINT) AS cost",
            $slot,
            $group
        )
    };
}

const fn whole_hours(span: &Span<'_>) -> bool {
    span.from % HOUR == 0 && span.to % HOUR == 0
}

/// Everything in the span as one sum.
///
/// # Errors
/// As the database answers.
pub async fn totals(conn: &mut AnyConnection, span: &Span<'_>) -> Result<Sums, StoreError> {
    let sql = if whole_hours(span) {
        rollup!(span.scope, "CAST(0 AS BIGINT)", "''")
    } else {
        events!(span.scope, "CAST(0 AS BIGINT)", "''")
    };
    let mut sums = Sums::default();
    for cell in run(conn, sql, span).await? {
        sums.add(&cell.sums);
    }
    Ok(sums)
}

/// The span in slots: hours when `hourly` and the span allow it, else quarters
/// of an hour. Slots without usage are left out; the order is not that of time.
/// The span must not hold more than [`MAX_GROUPS`] slots.
///
/// # Errors
/// As the database answers.
pub async fn slots(conn: &mut AnyConnection, span: &Span<'_>, hourly: bool) -> Result<Vec<Cell>, StoreError> {
    let sql = if hourly && whole_hours(span) {
        rollup!(span.scope, "hour_start", "''")
    } else {
        events!(span.scope, "created_at - created_at % 900000000", "''")
    };
    run(conn, sql, span).await
}

/// The span by groups, the largest first, at most [`MAX_GROUPS`].
///
/// # Errors
/// As the database answers.
pub async fn groups(conn: &mut AnyConnection, span: &Span<'_>, by: By) -> Result<Vec<Cell>, StoreError> {
    let scope = span.scope;
    let whole = whole_hours(span);
    macro_rules! either {
        ($group:literal) => {
            if whole {
                rollup!(scope, "CAST(0 AS BIGINT)", $group)
            } else {
                events!(scope, "CAST(0 AS BIGINT)", $group)
            }
        };
    }
    let sql = match by {
        By::Vendor => either!("vendor"),
        By::Model => either!("model"),
        By::Status => either!("CAST(status_code AS TEXT)"),
        By::Key => either!("provider_key_id"),
        By::Bot => either!("bot_id"),
        By::Project => either!("project_id"),
        By::Labels => events!(scope, "CAST(0 AS BIGINT)", "labels"),
        By::Agent => events!(scope, "CAST(0 AS BIGINT)", "agent_id"),
        By::Session => events!(scope, "CAST(0 AS BIGINT)", "session_id"),
    };
    run(conn, sql, span).await
}

async fn run(conn: &mut AnyConnection, sql: &'static str, span: &Span<'_>) -> Result<Vec<Cell>, StoreError> {
    let part = match span.scope {
        Scope::Tenant => "",
        Scope::Project(id) | Scope::Bot(id) => id,
    };
    let rows = sqlx::query(sql).bind(span.tenant_id).bind(span.from).bind(span.to).bind(part).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            let sums = Sums {
                requests: row.int("requests")?,
                errors: row.int("errors")?,
                input: row.int("input")?,
                output: row.int("output")?,
                total: row.int("total")?,
                duration_sum: row.int("duration_sum")?,
                duration_count: row.int("duration_count")?,
                cost: row.int("cost")?,
            };
            Ok(Cell { slot: row.int("slot")?, group: row.text("grp")?, sums })
        })
        .collect()
}

const BOT_NAMES: &str = "SELECT id, hostname AS name FROM bots WHERE tenant_id = $1 \
    UNION ALL SELECT id, name FROM tombstones WHERE tenant_id = $1 AND kind = 'bot'";
const PROJECT_NAMES: &str = "SELECT id, slug AS name FROM projects WHERE tenant_id = $1 \
    UNION ALL SELECT id, name FROM tombstones WHERE tenant_id = $1 AND kind = 'project'";

/// What ids of a group are called, deleted ones included; empty for groups that
/// are no ids of bots or projects.
///
/// # Errors
/// As the database answers.
pub async fn names(conn: &mut AnyConnection, tenant_id: &str, by: By) -> Result<BTreeMap<String, String>, StoreError> {
    let sql = match by {
        By::Bot => BOT_NAMES,
        By::Project => PROJECT_NAMES,
        _ => return Ok(BTreeMap::new()),
    };
    let rows = sqlx::query(sql).bind(tenant_id).fetch_all(conn).await?;
    rows.iter().map(|row| Ok((row.text("id")?, row.text("name")?))).collect()
}
