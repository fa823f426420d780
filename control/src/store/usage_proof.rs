//! The proof that sums equal events: hours against their events, wider rows
//! against narrower ones, days against their hours, sessions against the hours
//! of their bots.

use std::sync::{Arc, LazyLock};

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::row::RowExt as _;
use super::usage_ingest::query;
use super::usage_query::{DAY, HOUR};
use super::usage_rollup::SUMS;
use super::usage_sessions;

/// A sum that is not that of its parts: sum minus parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// `hour`: against events; `wider`: against rows of single exchanges;
    /// `day`: against hours; `session`: against hours of bots.
    pub what: &'static str,
    /// Whose.
    pub tenant_id: String,
    /// Whose; empty: the row is of all bots.
    pub bot_id: String,
    /// Which hour or day.
    pub start_at: i64,
    /// Which model; empty: the row is of all.
    pub model: String,
    /// Which outcome; empty: the row is of all.
    pub outcome: String,
    /// Difference in exchanges.
    pub requests: i64,
    /// Difference in input tokens.
    pub input: i64,
    /// Difference in output tokens.
    pub output: i64,
    /// Difference in total tokens.
    pub total: i64,
    /// Difference in microseconds.
    pub duration: i64,
}

const SELECT_EVENTS_FROM: &str = "SELECT events_from FROM usage_state WHERE id = 1";

/// What counts as an error and what has a duration is stated in
/// `ingest::rollup`; here they are left out.
const LEFT_OUT: [&str; 4] = ["error_count", "duration_count", "ttft_sum_micros", "ttft_count"];

/// `parts` selects dim, start and sums of both sides, one of them negative.
fn differing(columns: &[&str], parts: &str) -> Arc<str> {
    let sums: Vec<String> = columns.iter().map(|sum| format!("CAST(SUM({sum}) AS BIGINT) AS {sum}")).collect();
    let having: Vec<String> = columns.iter().map(|sum| format!("SUM({sum}) <> 0")).collect();
    Arc::from(format!(
        "SELECT d.tenant_id, d.bot_id, d.model, d.outcome, x.* FROM (SELECT dim, start_at, {} FROM ({parts}) AS parts \
         GROUP BY dim, start_at HAVING {} ORDER BY start_at LIMIT $3) AS x JOIN usage_dims d ON d.id = x.dim",
        sums.join(", "),
        having.join(" OR ")
    ))
}

fn list(columns: &[&str], each: impl Fn(&str) -> String) -> String {
    columns.iter().map(|sum| format!("{} AS {sum}", each(sum))).collect::<Vec<_>>().join(", ")
}

static HOURS: LazyLock<Arc<str>> = LazyLock::new(|| {
    let columns: Vec<&str> = SUMS.into_iter().filter(|sum| !LEFT_OUT.contains(sum)).collect();
    let of_event = |sum: &str| match sum {
        "request_count" => "-1".to_owned(),
        "duration_sum_micros" => "-duration_micros".to_owned(),
        column => format!("-COALESCE({column}, 0)"),
    };
    differing(
        &columns,
        &format!(
            "SELECT r.dim_id AS dim, r.start_at, {} FROM usage_rollup_hour r JOIN usage_dims k ON k.id = r.dim_id \
             WHERE k.kind = 'exchange' AND r.start_at >= $1 AND r.start_at < $2 UNION ALL \
             SELECT dim_id, created_at - created_at % 3600000000, {} FROM usage_events \
             WHERE created_at >= $1 AND created_at < $2",
            list(&columns, |sum| format!("r.{sum}")),
            list(&columns, of_event)
        ),
    )
});
static WIDER: LazyLock<Arc<str>> = LazyLock::new(|| {
    let narrower = |dim: &str| {
        format!(
            "SELECT k.{dim} AS dim, r.start_at, {} FROM usage_rollup_hour r JOIN usage_dims k ON k.id = r.dim_id \
             WHERE k.kind = 'exchange' AND r.start_at >= $1 AND r.start_at < $2",
            list(&SUMS, |sum| format!("-r.{sum}"))
        )
    };
    differing(
        &SUMS,
        &format!(
            "SELECT r.dim_id AS dim, r.start_at, {} FROM usage_rollup_hour r JOIN usage_dims k ON k.id = r.dim_id \
             WHERE k.kind <> 'exchange' AND r.start_at >= $1 AND r.start_at < $2 \
             UNION ALL {} UNION ALL {} UNION ALL {}",
            list(&SUMS, |sum| format!("r.{sum}")),
            narrower("model_dim"),
            narrower("key_dim"),
            narrower("bot_dim")
        ),
    )
});
static DAYS: LazyLock<Arc<str>> = LazyLock::new(|| {
    differing(
        &SUMS,
        &format!(
            "SELECT dim_id AS dim, start_at, {} FROM usage_rollup_day WHERE start_at >= $1 AND start_at < $2 \
             AND start_at < (SELECT folded_before - folded_before % {DAY} FROM usage_state WHERE id = 1) UNION ALL \
             SELECT dim_id, start_at - start_at % 86400000000, {} FROM usage_rollup_hour WHERE start_at >= $1 \
             AND start_at < $2 AND start_at < (SELECT folded_before - folded_before % {DAY} FROM usage_state WHERE id = 1)",
            list(&SUMS, str::to_owned),
            list(&SUMS, |sum| format!("-{sum}"))
        ),
    )
});

static SESSIONS: LazyLock<Arc<str>> = LazyLock::new(|| {
    // Days that are summed up wholly, and whose events are there.
    let days = |start: &str| {
        format!(
            "{start} >= $1 AND {start} < $2 AND {start} <= (SELECT sessions_before FROM usage_state WHERE id = 1) - {DAY} \
             AND {start} >= (SELECT events_from FROM usage_state WHERE id = 1)"
        )
    };
    let columns = usage_sessions::SUMS;
    differing(
        &columns,
        &format!(
            "SELECT dim_id AS dim, start_at, {} FROM usage_session_day WHERE {} UNION ALL \
             SELECT r.dim_id, r.start_at - r.start_at % {DAY}, {} FROM usage_rollup_hour r \
             JOIN usage_dims k ON k.id = r.dim_id WHERE k.kind = 'bot' AND {}",
            list(&columns, str::to_owned),
            days("start_at"),
            list(&columns, |sum| format!("-r.{sum}")),
            days(&format!("(r.start_at - r.start_at % {DAY})"))
        ),
    )
});

/// Sums between two full hours that differ from what they are the sum of, at
/// most `limit` of each sort; days when they touch that span. Hours whose
/// events may have been deleted are compared with each other only. All sides
/// must be read at one moment: `conn` is a snapshot or a writing transaction.
///
/// # Errors
/// As the database answers.
pub async fn mismatches(
    conn: &mut AnyConnection,
    from_hour: i64,
    to_hour: i64,
    limit: i64,
) -> Result<Vec<Mismatch>, StoreError> {
    let kept = sqlx::query(SELECT_EVENTS_FROM).fetch_one(&mut *conn).await?.int("events_from")?;
    let kept_hour = kept.saturating_add(HOUR - 1) / HOUR * HOUR;
    let (from_day, to_day) = (from_hour - from_hour.rem_euclid(DAY), to_hour.saturating_add(DAY - 1) / DAY * DAY);
    let mut found = Vec::new();
    for (what, sql, from, to) in [
        ("hour", &*HOURS, from_hour.max(kept_hour), to_hour),
        ("wider", &*WIDER, from_hour, to_hour),
        ("day", &*DAYS, from_day, to_day),
        ("session", &*SESSIONS, from_day, to_day),
    ] {
        let rows = query(Arc::clone(sql)).bind(from).bind(to).bind(limit).fetch_all(&mut *conn).await?;
        for row in &rows {
            found.push(read(what, row)?);
        }
    }
    Ok(found)
}

fn read(what: &'static str, row: &AnyRow) -> Result<Mismatch, StoreError> {
    Ok(Mismatch {
        what,
        tenant_id: row.text("tenant_id")?,
        bot_id: row.text("bot_id")?,
        start_at: row.int("start_at")?,
        model: row.text("model")?,
        outcome: row.text("outcome")?,
        requests: row.int("request_count")?,
        input: row.int("input_tokens")?,
        output: row.int("output_tokens")?,
        total: row.int("total_tokens")?,
        duration: row.int("duration_sum_micros")?,
    })
}
