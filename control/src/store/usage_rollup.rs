//! Hourly sums, and the proof that they equal the events.

use std::sync::LazyLock;

use sqlx::AnyConnection;

use super::error::StoreError;
use super::row::RowExt as _;
use super::usage_ingest::{Bound, Statements, query};

/// What is summed up together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RollupKey {
    /// Ids; empty text: none.
    pub tenant_id: String,
    /// The caller.
    pub bot_id: String,
    /// Unix microseconds of a full hour, UTC.
    pub hour_start: i64,
    /// Empty: none.
    pub project_id: String,
    /// Slug.
    pub vendor: String,
    /// As served.
    pub model: String,
    /// Of the last attempt.
    pub provider_key_id: String,
    /// What the client got.
    pub status_code: i64,
    /// How it ended.
    pub outcome: String,
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

static ADD: LazyLock<Statements> = LazyLock::new(|| {
    let sums = [
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
    let added: Vec<String> =
        sums.iter().map(|sum| format!("{sum} = usage_rollup_hour.{sum} + excluded.{sum}")).collect();
    Statements::new(
        &format!(
            "INSERT INTO usage_rollup_hour (tenant_id, bot_id, hour_start, project_id, vendor, model, \
             provider_key_id, status_code, outcome, {}) VALUES ",
            sums.join(", ")
        ),
        22,
        &format!(
            " ON CONFLICT (tenant_id, bot_id, hour_start, project_id, vendor, model, provider_key_id, \
             status_code, outcome) DO UPDATE SET {}",
            added.join(", ")
        ),
    )
});

// What counts as an error is stated in `ingest::rollup`; here it is left out.
const MISMATCHES: &str = "SELECT tenant_id, bot_id, hour_start, model, outcome, CAST(SUM(n) AS BIGINT) AS requests, \
    CAST(SUM(i) AS BIGINT) AS input, CAST(SUM(o) AS BIGINT) AS output, CAST(SUM(t) AS BIGINT) AS total, \
    CAST(SUM(d) AS BIGINT) AS duration FROM (\
    SELECT tenant_id, bot_id, hour_start, project_id, vendor, model, provider_key_id, status_code, outcome, \
    request_count AS n, input_tokens AS i, output_tokens AS o, total_tokens AS t, duration_sum_micros AS d, \
    cached_input_tokens AS c, cache_write_tokens AS w, reasoning_tokens AS r, cost_micros AS m \
    FROM usage_rollup_hour WHERE hour_start >= $1 AND hour_start < $2 UNION ALL \
    SELECT tenant_id, bot_id, created_at - created_at % 3600000000, project_id, vendor, model, provider_key_id, \
    status_code, outcome, -1, -COALESCE(input_tokens, 0), -COALESCE(output_tokens, 0), -COALESCE(total_tokens, 0), \
    -duration_micros, -COALESCE(cached_input_tokens, 0), -COALESCE(cache_write_tokens, 0), \
    -COALESCE(reasoning_tokens, 0), -COALESCE(cost_micros, 0) \
    FROM usage_events WHERE created_at >= $1 AND created_at < $2) AS both_sides \
    GROUP BY tenant_id, bot_id, hour_start, project_id, vendor, model, provider_key_id, status_code, outcome \
    HAVING SUM(n) <> 0 OR SUM(i) <> 0 OR SUM(o) <> 0 OR SUM(t) <> 0 OR SUM(d) <> 0 OR SUM(c) <> 0 OR SUM(w) <> 0 \
    OR SUM(r) <> 0 OR SUM(m) <> 0 ORDER BY hour_start LIMIT $3";

#[cfg(test)]
const SELECT_ALL: &str = "SELECT * FROM usage_rollup_hour";

/// A rollup row that is not the sum of its events: rollup minus events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Whose.
    pub tenant_id: String,
    /// Whose.
    pub bot_id: String,
    /// Which hour.
    pub hour_start: i64,
    /// Which model.
    pub model: String,
    /// Which outcome.
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

/// Adds sums to their rows. `rows` in key order, so that two writers on
/// PostgreSQL never wait for each other in a circle.
///
/// # Errors
/// As the database answers.
pub async fn add(conn: &mut AnyConnection, rows: &[(RollupKey, RollupSums)]) -> Result<(), StoreError> {
    for (sql, run) in ADD.runs(conn, rows) {
        run.iter().fold(query(sql), |query, row| bind(query, row)).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Rollup rows between two full hours that differ from the sum of their
/// events, at most `limit`.
///
/// # Errors
/// As the database answers.
pub async fn mismatches(
    conn: &mut AnyConnection,
    from_hour: i64,
    to_hour: i64,
    limit: i64,
) -> Result<Vec<Mismatch>, StoreError> {
    let rows = sqlx::query(MISMATCHES).bind(from_hour).bind(to_hour).bind(limit).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            Ok(Mismatch {
                tenant_id: row.text("tenant_id")?,
                bot_id: row.text("bot_id")?,
                hour_start: row.int("hour_start")?,
                model: row.text("model")?,
                outcome: row.text("outcome")?,
                requests: row.int("requests")?,
                input: row.int("input")?,
                output: row.int("output")?,
                total: row.int("total")?,
                duration: row.int("duration")?,
            })
        })
        .collect()
}

/// Every row, for tests.
#[cfg(test)]
pub(crate) async fn all(conn: &mut AnyConnection) -> Result<Vec<(RollupKey, RollupSums)>, StoreError> {
    let rows = sqlx::query(SELECT_ALL).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            let key = RollupKey {
                tenant_id: row.text("tenant_id")?,
                bot_id: row.text("bot_id")?,
                hour_start: row.int("hour_start")?,
                project_id: row.text("project_id")?,
                vendor: row.text("vendor")?,
                model: row.text("model")?,
                provider_key_id: row.text("provider_key_id")?,
                status_code: row.int("status_code")?,
                outcome: row.text("outcome")?,
            };
            let sums = RollupSums {
                requests: row.int("request_count")?,
                errors: row.int("error_count")?,
                input: row.int("input_tokens")?,
                cached_input: row.int("cached_input_tokens")?,
                cache_write: row.int("cache_write_tokens")?,
                output: row.int("output_tokens")?,
                reasoning: row.int("reasoning_tokens")?,
                total: row.int("total_tokens")?,
                duration_sum: row.int("duration_sum_micros")?,
                duration_count: row.int("duration_count")?,
                ttft_sum: row.int("ttft_sum_micros")?,
                ttft_count: row.int("ttft_count")?,
                cost: row.int("cost_micros")?,
            };
            Ok((key, sums))
        })
        .collect()
}

fn bind(query: Bound, (key, sums): &(RollupKey, RollupSums)) -> Bound {
    query
        .bind(key.tenant_id.clone())
        .bind(key.bot_id.clone())
        .bind(key.hour_start)
        .bind(key.project_id.clone())
        .bind(key.vendor.clone())
        .bind(key.model.clone())
        .bind(key.provider_key_id.clone())
        .bind(key.status_code)
        .bind(key.outcome.clone())
        .bind(sums.requests)
        .bind(sums.errors)
        .bind(sums.input)
        .bind(sums.cached_input)
        .bind(sums.cache_write)
        .bind(sums.output)
        .bind(sums.reasoning)
        .bind(sums.total)
        .bind(sums.duration_sum)
        .bind(sums.duration_count)
        .bind(sums.ttft_sum)
        .bind(sums.ttft_count)
        .bind(sums.cost)
}
