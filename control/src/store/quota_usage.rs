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
    ($filter:literal) => {
        // On SQLite a cross join is read in the order it is written.
        concat!(
            "SELECT d.model, CAST(SUM(CASE WHEN d.outcome = 'refused' THEN 0 ELSE r.request_count END) AS BIGINT) AS requests, \
             CAST(SUM(r.input_tokens) AS BIGINT) AS input, CAST(SUM(r.output_tokens) AS BIGINT) AS output, \
             CAST(SUM(r.total_tokens) AS BIGINT) AS total, CAST(SUM(r.cost_micros) AS BIGINT) AS cost \
             FROM usage_dims d CROSS JOIN usage_rollup_hour r WHERE d.tenant_id = $1 AND ",
            $filter,
            " AND r.dim_id = d.id AND r.start_at >= $3 AND r.start_at < $4 GROUP BY d.model"
        )
    };
}

macro_rules! events {
    ($filter:literal) => {
        concat!(
            "SELECT d.model, CAST(SUM(CASE WHEN d.outcome = 'refused' THEN 0 ELSE 1 END) AS BIGINT) AS requests, \
             CAST(SUM(COALESCE(e.input_tokens, 0)) AS BIGINT) AS input, \
             CAST(SUM(COALESCE(e.output_tokens, 0)) AS BIGINT) AS output, \
             CAST(SUM(COALESCE(e.total_tokens, 0)) AS BIGINT) AS total, \
             CAST(SUM(COALESCE(e.cost_micros, 0)) AS BIGINT) AS cost \
             FROM usage_events e JOIN usage_dims d ON d.id = e.dim_id \
             WHERE e.tenant_no = (SELECT id FROM usage_dims WHERE tenant_id = $1 AND kind = 'tenant') AND ",
            $filter,
            " AND e.created_at >= $3 AND e.created_at < $4 GROUP BY d.model"
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
        QuotaScope::Bot => (rollup!("d.kind = 'exchange' AND d.bot_id = $2"), events!("d.bot_id = $2")),
        QuotaScope::Project => (rollup!("d.kind = 'model' AND d.project_id = $2"), events!("d.project_id = $2")),
        QuotaScope::Tenant => (rollup!("d.kind = 'model' AND d.tenant_id = $2"), events!("d.tenant_id = $2")),
        QuotaScope::ProviderKey => {
            (rollup!("d.kind = 'exchange' AND d.provider_key_id = $2"), events!("d.provider_key_id = $2"))
        }
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
