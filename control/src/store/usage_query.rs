//! Sums of usage: over a span, along it, and by what they belong to.
//!
//! Invariant: whole hours and days read the sums that are kept, what is left at
//! the ends of a span reads the events themselves; quarters of an hour, which
//! every time zone's offset is a multiple of, read events only. By agent and
//! session, whole days as far as these are summed up. All give the same numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::row::RowExt as _;
use super::usage_ingest::query;
use super::usage_rollup::folded_before;
use super::usage_sessions::{self, AGENT, SESSION};

/// Microseconds of an hour.
pub const HOUR: i64 = 3_600_000_000;
/// Microseconds of a UTC day.
pub const DAY: i64 = 24 * HOUR;
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

/// Where a part of a span is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Events,
    Hours,
    Days,
    /// Days by agent and session.
    Sessions,
}

/// How finely a span is cut into slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Not at all.
    Whole,
    /// Quarters of an hour; read from the events themselves.
    Quarter,
    /// UTC hours.
    Hour,
    /// UTC days.
    Day,
}

/// Of events `e` with their dims `d`.
pub(super) const EVENT_SUMS: &str = "CAST(COUNT(*) AS BIGINT) AS requests, \
    CAST(SUM(CASE WHEN d.outcome IN ('ok', 'client_disconnect') THEN 0 ELSE 1 END) AS BIGINT) AS errors, \
    CAST(SUM(COALESCE(e.input_tokens, 0)) AS BIGINT) AS input, \
    CAST(SUM(COALESCE(e.output_tokens, 0)) AS BIGINT) AS output, \
    CAST(SUM(COALESCE(e.total_tokens, 0)) AS BIGINT) AS total, \
    CAST(SUM(e.duration_micros) AS BIGINT) AS duration_sum, \
    CAST(SUM(CASE WHEN d.outcome = 'indeterminate' THEN 0 ELSE 1 END) AS BIGINT) AS duration_count, \
    CAST(SUM(COALESCE(e.cost_micros, 0)) AS BIGINT) AS cost";
const ROLLUP_SUMS: &str = "CAST(SUM(request_count) AS BIGINT) AS requests, CAST(SUM(error_count) AS BIGINT) AS errors, \
    CAST(SUM(input_tokens) AS BIGINT) AS input, CAST(SUM(output_tokens) AS BIGINT) AS output, \
    CAST(SUM(total_tokens) AS BIGINT) AS total, CAST(SUM(duration_sum_micros) AS BIGINT) AS duration_sum, \
    CAST(SUM(duration_count) AS BIGINT) AS duration_count, CAST(SUM(cost_micros) AS BIGINT) AS cost";

/// The statement, made of constants. $1 tenant, $2 from, $3 to, $4 project or
/// bot. The largest groups come first.
///
/// What is an error here is what `ingest::rollup` counts as one; the test of
/// equal sums in `control/tests/rest/usage.rs` holds the two together.
fn statement(source: Source, slot: Slot, scope: Scope<'_>, by: Option<By>) -> String {
    let part = match scope {
        Scope::Tenant => "$4 = ''",
        Scope::Project(_) => "d.project_id = $4",
        Scope::Bot(_) => "d.bot_id = $4",
    };
    let group = by.map_or("''", |by| by.column(source));
    if source == Source::Events {
        let slot = if slot == Slot::Whole { "CAST(0 AS BIGINT)" } else { "e.created_at - e.created_at % 900000000" };
        let place = match scope {
            Scope::Bot(_) => {
                "e.caller_no = (SELECT id FROM usage_dims WHERE tenant_id = $1 AND kind = 'caller' AND bot_id = $4)"
            }
            _ => "e.tenant_no = (SELECT id FROM usage_dims WHERE tenant_id = $1 AND kind = 'tenant')",
        };
        return format!(
            "SELECT {slot} AS slot, {group} AS grp, {EVENT_SUMS} FROM usage_events e JOIN usage_dims d ON d.id = e.dim_id \
             WHERE {place} AND e.created_at >= $2 AND e.created_at < $3 AND {part} GROUP BY 1, 2 \
             ORDER BY total DESC LIMIT 10000"
        );
    }
    let table = match source {
        Source::Days => "usage_rollup_day",
        Source::Sessions => "usage_session_day",
        Source::Hours | Source::Events => "usage_rollup_hour",
    };
    let slot = match slot {
        Slot::Whole | Slot::Quarter => "CAST(0 AS BIGINT)",
        Slot::Hour => "r.start_at",
        Slot::Day => "r.start_at - r.start_at % 86400000000",
    };
    // The widest rows that tell the groups apart.
    let kind = match (scope, by) {
        (_, Some(By::Agent | By::Session)) => "bot",
        (Scope::Bot(_), _) => "exchange",
        (_, Some(By::Key)) => "key",
        (_, Some(By::Bot | By::Labels)) => "bot",
        _ => "model",
    };
    // On SQLite a cross join is read in the order it is written.
    format!(
        "SELECT {slot} AS slot, {group} AS grp, {ROLLUP_SUMS} FROM usage_dims d CROSS JOIN {table} r \
         WHERE d.tenant_id = $1 AND d.kind = '{kind}' AND {part} AND r.dim_id = d.id \
         AND r.start_at >= $2 AND r.start_at < $3 GROUP BY 1, 2 ORDER BY total DESC LIMIT 10000"
    )
}

impl By {
    const fn column(self, source: Source) -> &'static str {
        match self {
            Self::Vendor => "d.vendor",
            Self::Model => "d.model",
            Self::Status => "CAST(d.status_code AS TEXT)",
            Self::Key => "d.provider_key_id",
            Self::Bot => "d.bot_id",
            Self::Project => "d.project_id",
            Self::Labels => "d.labels",
            Self::Agent if matches!(source, Source::Sessions) => "r.agent",
            Self::Session if matches!(source, Source::Sessions) => "r.session",
            Self::Agent => AGENT,
            Self::Session => SESSION,
        }
    }

    /// Whether it is what clients tell of themselves.
    const fn is_told(self) -> bool {
        matches!(self, Self::Agent | Self::Session)
    }
}

const fn up(at: i64, unit: i64) -> i64 {
    down(at.saturating_add(unit - 1), unit)
}

const fn down(at: i64, unit: i64) -> i64 {
    at.div_euclid(unit).saturating_mul(unit)
}

/// A span as parts, by what clients tell: whole days from their sums, the day
/// that is summed up in part as far as it is, the rest from the events.
fn parts_by_session(from: i64, to: i64, summed_before: i64) -> Vec<(Source, i64, i64)> {
    let first = up(from, DAY).min(to);
    let last = if to <= summed_before { down(to, DAY) } else { summed_before }.max(first);
    let all = [(Source::Events, from, first), (Source::Sessions, first, last), (Source::Events, last, to)];
    all.into_iter().filter(|(_, from, to)| from < to).collect()
}

/// A span as parts that are read from one source each. Whole days come from the
/// sums of days, the running one as far as it is folded, other whole hours from
/// those of hours, what is left at the ends from the events.
fn parts(from: i64, to: i64, folded: i64, slot: Slot) -> Vec<(Source, i64, i64)> {
    let (first, last) = (up(from, HOUR), down(to, HOUR));
    if slot == Slot::Quarter || first >= last {
        return vec![(Source::Events, from, to)];
    }
    let (mut day_first, mut day_last) = (up(first, DAY), if last <= folded { down(last, DAY) } else { folded });
    if slot == Slot::Hour || day_first >= day_last {
        (day_first, day_last) = (last, last);
    }
    let all = [
        (Source::Events, from, first),
        (Source::Hours, first, day_first),
        (Source::Days, day_first, day_last),
        (Source::Hours, day_last, last),
        (Source::Events, last, to),
    ];
    all.into_iter().filter(|(_, from, to)| from < to).collect()
}

/// Everything in the span as one sum. `conn` is a snapshot: parts of the span
/// are read one after the other; so for all functions here.
///
/// # Errors
/// As the database answers.
pub async fn totals(conn: &mut AnyConnection, span: &Span<'_>) -> Result<Sums, StoreError> {
    let mut sums = Sums::default();
    for cell in run(conn, span, Slot::Whole, None).await? {
        sums.add(&cell.sums);
    }
    Ok(sums)
}

/// The span in slots. A slot that the span cuts off may begin before it. Slots
/// without usage are left out; the order is not that of time. One slot may come
/// several times. The span must not hold more than [`MAX_GROUPS`] slots.
///
/// # Errors
/// As the database answers.
pub async fn slots(conn: &mut AnyConnection, span: &Span<'_>, slot: Slot) -> Result<Vec<Cell>, StoreError> {
    run(conn, span, slot, None).await
}

/// The span by groups, the largest first, at most [`MAX_GROUPS`].
///
/// # Errors
/// As the database answers.
pub async fn groups(conn: &mut AnyConnection, span: &Span<'_>, by: By) -> Result<Vec<Cell>, StoreError> {
    let cells = run(conn, span, Slot::Whole, Some(by)).await?;
    let mut groups: BTreeMap<String, Sums> = BTreeMap::new();
    for cell in cells {
        groups.entry(cell.group).or_default().add(&cell.sums);
    }
    let mut cells: Vec<Cell> = groups.into_iter().map(|(group, sums)| Cell { slot: 0, group, sums }).collect();
    cells.sort_by_key(|cell| std::cmp::Reverse(cell.sums.total));
    cells.truncate(MAX_GROUPS);
    Ok(cells)
}

async fn run(conn: &mut AnyConnection, span: &Span<'_>, slot: Slot, by: Option<By>) -> Result<Vec<Cell>, StoreError> {
    let part = match span.scope {
        Scope::Tenant => "",
        Scope::Project(id) | Scope::Bot(id) => id,
    };
    let parts = if by.is_some_and(By::is_told) {
        parts_by_session(span.from, span.to, usage_sessions::before(conn).await?)
    } else {
        parts(span.from, span.to, folded_before(conn).await?, slot)
    };
    let mut cells = Vec::new();
    for (source, from, to) in parts {
        let sql = Arc::from(statement(source, slot, span.scope, by));
        let bound = query(sql).bind(span.tenant_id.to_owned()).bind(from).bind(to).bind(part.to_owned());
        for row in &bound.fetch_all(&mut *conn).await? {
            cells.push(decode(row)?);
        }
    }
    Ok(cells)
}

fn decode(row: &AnyRow) -> Result<Cell, StoreError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_in_parts_without_gap_or_overlap() {
        let names = |from: i64, to: i64, folded: i64, slot: Slot| -> String {
            let parts = parts(from, to, folded, slot);
            assert_eq!((parts[0].1, parts[parts.len() - 1].2), (from, to));
            assert!(parts.windows(2).all(|pair| pair[0].2 == pair[1].1), "{parts:?}");
            parts.iter().map(|part| format!("{:?} ", part.0)).collect()
        };
        let (whole, far) = (Slot::Whole, 100 * DAY);
        assert_eq!(names(DAY, 3 * DAY, far, whole), "Days ");
        assert_eq!(names(DAY, 3 * DAY, 2 * DAY, whole), "Days Hours ");
        assert_eq!(
            names(DAY, 3 * DAY, 2 * DAY + HOUR, whole),
            "Days Hours ",
            "the running day, as far as it is folded"
        );
        assert_eq!(names(2 * DAY, 3 * DAY, 2 * DAY + HOUR, whole), "Days Hours ");
        assert_eq!(names(2 * DAY, 2 * DAY + HOUR, 2 * DAY + 2 * HOUR, whole), "Hours ", "a day that the span cuts off");
        assert_eq!(names(DAY, 3 * DAY, 0, whole), "Hours ");
        assert_eq!(names(DAY, 3 * DAY, far, Slot::Hour), "Hours ");
        assert_eq!(names(DAY, 3 * DAY, far, Slot::Day), "Days ");
        assert_eq!(names(DAY, 3 * DAY, far, Slot::Quarter), "Events ");
        assert_eq!(names(DAY - HOUR, 3 * DAY + HOUR, far, whole), "Hours Days Hours ");
        assert_eq!(names(DAY - HOUR / 2, 3 * DAY + 1, far, whole), "Events Days Events ");
        assert_eq!(names(DAY - HOUR - 1, 2 * DAY + HOUR + 1, far, whole), "Events Hours Days Hours Events ");
        let told = |from: i64, to: i64, before: i64| -> String {
            let parts = parts_by_session(from, to, before);
            assert_eq!((parts[0].1, parts[parts.len() - 1].2), (from, to));
            assert!(parts.windows(2).all(|pair| pair[0].2 == pair[1].1), "{parts:?}");
            parts.iter().map(|part| format!("{:?} ", part.0)).collect()
        };
        assert_eq!(told(DAY, 3 * DAY, far), "Sessions ");
        assert_eq!(told(DAY, 3 * DAY, 2 * DAY + 5), "Sessions Events ");
        assert_eq!(told(DAY, 3 * DAY, 0), "Events ");
        assert_eq!(told(DAY, 2 * DAY - 1, far), "Events ", "a row of a day that the span cuts off");
        assert_eq!(told(DAY, 2 * DAY - 1, DAY + 5), "Sessions Events ", "what is summed up of the day is all inside");
        assert_eq!(told(DAY - 1, 3 * DAY + 1, far), "Events Sessions Events ");
        assert_eq!(told(DAY + 1, 2 * DAY - 1, far), "Events ");
        assert_eq!(names(HOUR, 2 * HOUR, far, whole), "Hours ");
        assert_eq!(names(HOUR + 1, 2 * HOUR + 5, far, whole), "Events ");
    }
}
