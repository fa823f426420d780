//! What a quota's window has used already when the quota is made: from hourly
//! rollups where they fit, from the events themselves at the edges.

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::fetch;
use super::row::RowExt as _;
use super::types::{QuotaMetric, QuotaScope};
use super::usage_query::HOUR;

/// Sums of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelSums {
    /// As served.
    pub model: String,
    /// Exchanges that were not refused.
    pub requests: i64,
    /// Tokens.
    pub input: i64,
    /// Tokens.
    pub output: i64,
    /// Tokens.
    pub total: i64,
    /// Micro-USD.
    pub cost: i64,
}

impl ModelSums {
    /// What a quota of this metric counts of them.
    #[must_use]
    pub const fn of(&self, metric: QuotaMetric) -> i64 {
        match metric {
            QuotaMetric::TotalTokens => self.total,
            QuotaMetric::InputTokens => self.input,
            QuotaMetric::OutputTokens => self.output,
            QuotaMetric::Requests => self.requests,
            QuotaMetric::CostMicros => self.cost,
        }
    }
}

macro_rules! rollup {
    ($column:literal) => {
        concat!(
            "SELECT model, CAST(SUM(CASE WHEN outcome = 'refused' THEN 0 ELSE request_count END) AS BIGINT) AS requests, \
             CAST(SUM(input_tokens) AS BIGINT) AS input, CAST(SUM(output_tokens) AS BIGINT) AS output, \
             CAST(SUM(total_tokens) AS BIGINT) AS total, CAST(SUM(cost_micros) AS BIGINT) AS cost \
             FROM usage_rollup_hour WHERE tenant_id = $1 AND ",
            $column,
            " = $2 AND hour_start >= $3 AND hour_start < $4 GROUP BY model"
        )
    };
}

macro_rules! events {
    ($column:literal) => {
        concat!(
            "SELECT model, CAST(SUM(CASE WHEN outcome = 'refused' THEN 0 ELSE 1 END) AS BIGINT) AS requests, \
             CAST(SUM(COALESCE(input_tokens, 0)) AS BIGINT) AS input, \
             CAST(SUM(COALESCE(output_tokens, 0)) AS BIGINT) AS output, \
             CAST(SUM(COALESCE(total_tokens, 0)) AS BIGINT) AS total, \
             CAST(SUM(COALESCE(cost_micros, 0)) AS BIGINT) AS cost \
             FROM usage_events WHERE tenant_id = $1 AND ",
            $column,
            " = $2 AND created_at >= $3 AND created_at < $4 GROUP BY model"
        )
    };
}

fn read(row: &AnyRow) -> Result<ModelSums, StoreError> {
    Ok(ModelSums {
        model: row.text("model")?,
        requests: row.int("requests")?,
        input: row.int("input")?,
        output: row.int("output")?,
        total: row.int("total")?,
        cost: row.int("cost")?,
    })
}

/// What was used within `from <= t < to` by the thing a quota limits, by model;
/// a model may come more than once.
///
/// # Errors
/// As the database answers.
pub async fn by_model(
    conn: &mut AnyConnection,
    tenant_id: &str,
    (scope, scope_id): (QuotaScope, &str),
    (from, to): (i64, i64),
) -> Result<Vec<ModelSums>, StoreError> {
    let (rollup, events) = match scope {
        QuotaScope::Bot => (rollup!("bot_id"), events!("bot_id")),
        QuotaScope::Project => (rollup!("project_id"), events!("project_id")),
        QuotaScope::Tenant => (rollup!("tenant_id"), events!("tenant_id")),
        QuotaScope::ProviderKey => (rollup!("provider_key_id"), events!("provider_key_id")),
    };
    let first = from.saturating_add(HOUR - 1).div_euclid(HOUR).saturating_mul(HOUR);
    let last = to.div_euclid(HOUR).saturating_mul(HOUR);
    let parts = if first < last {
        vec![(events, from, first), (rollup, first, last), (events, last, to)]
    } else {
        vec![(events, from, to)]
    };
    let mut found = Vec::new();
    for (sql, from, to) in parts.into_iter().filter(|(_, from, to)| from < to) {
        let statement = sqlx::query(sql).bind(tenant_id).bind(scope_id).bind(from).bind(to);
        found.append(&mut fetch::all(conn, statement, read).await?);
    }
    Ok(found)
}
