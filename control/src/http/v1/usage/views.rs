//! What the usage operations answer, in the names of the original designs.

use clawgate_shared::clock;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

use crate::http::problem::Problem;
use crate::store::usage_log::LogRow;
use crate::store::usage_query::Sums;

/// Micro-USD as USD.
#[allow(clippy::cast_precision_loss)]
fn usd(micros: i64) -> f64 {
    micros as f64 / 1e6
}

#[allow(clippy::cast_precision_loss)]
fn millis(micros: i64) -> f64 {
    micros as f64 / 1e3
}

#[allow(clippy::cast_precision_loss)]
fn ratio(part: i64, whole: i64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Sums of a span.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageStats {
    /// All tokens.
    total_tokens: i64,
    /// Input tokens, cached ones included.
    request_tokens: i64,
    /// Output tokens, reasoning included.
    response_tokens: i64,
    /// Exchanges, refused ones included.
    request_count: i64,
    /// Exchanges that did not end well.
    error_count: i64,
    /// `errorCount / requestCount`, 0 to 1.
    error_rate: f64,
    /// Mean duration; null without exchanges.
    avg_duration_ms: Option<f64>,
    /// USD.
    estimated_cost: f64,
}

impl From<Sums> for UsageStats {
    fn from(sums: Sums) -> Self {
        Self {
            total_tokens: sums.total,
            request_tokens: sums.input,
            response_tokens: sums.output,
            request_count: sums.requests,
            error_count: sums.errors,
            error_rate: ratio(sums.errors, sums.requests),
            avg_duration_ms: (sums.duration_count > 0).then(|| ratio(sums.duration_sum, sums.duration_count) / 1e3),
            estimated_cost: usd(sums.cost),
        }
    }
}

/// Sums over time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageTrend {
    /// One per unit, also for units without usage, in order.
    pub data_points: Vec<TrendPoint>,
}

/// One unit of time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrendPoint {
    /// Start of the unit.
    timestamp: String,
    /// Input tokens.
    request_tokens: i64,
    /// Output tokens.
    response_tokens: i64,
    /// Exchanges.
    request_count: i64,
    /// Exchanges that did not end well.
    error_count: i64,
    /// USD.
    estimated_cost: f64,
}

impl TrendPoint {
    /// The sums of the unit that starts at `start`.
    pub fn new(start: i64, sums: &Sums) -> Self {
        Self {
            timestamp: clock::rfc3339(start),
            request_tokens: sums.input,
            response_tokens: sums.output,
            request_count: sums.requests,
            error_count: sums.errors,
            estimated_cost: usd(sums.cost),
        }
    }
}

/// Sums by something.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageBreakdown {
    /// Most tokens first.
    pub groups: Vec<BreakdownGroup>,
}

/// One group.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BreakdownGroup {
    /// Vendor slug, model, status code, key id, hostname, project slug,
    /// `label=value`, agent or session; empty: none.
    key: String,
    /// Input tokens.
    request_tokens: i64,
    /// Output tokens.
    response_tokens: i64,
    /// Exchanges.
    request_count: i64,
    /// Share of all tokens, 0 to 100.
    percentage: f64,
    /// USD.
    estimated_cost: f64,
}

impl BreakdownGroup {
    /// The sums of one group; `whole`: tokens of everything.
    pub fn new(key: String, sums: &Sums, whole: i64) -> Self {
        Self {
            key,
            request_tokens: sums.input,
            response_tokens: sums.output,
            request_count: sums.requests,
            percentage: ratio(sums.total, whole) * 100.0,
            estimated_cost: usd(sums.cost),
        }
    }
}

/// One exchange.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageLog {
    id: String,
    /// As in `x-clawgate-request-id`.
    request_id: String,
    /// The client's own `x-request-id`.
    client_request_id: Option<String>,
    /// When the request began.
    created_at: String,
    /// Hostname.
    bot: String,
    /// Slug.
    project: Option<String>,
    labels: BTreeMap<String, String>,
    agent_id: Option<String>,
    session_id: Option<String>,
    vendor: String,
    /// As served, else as asked for.
    model: Option<String>,
    endpoint: String,
    status_code: i64,
    /// ok, upstream_error, client_disconnect, interrupted, refused, failed or
    /// indeterminate.
    outcome: String,
    error_code: Option<String>,
    error_message: Option<String>,
    stream: bool,
    /// Absent counts: the vendor did not say.
    input_tokens: Option<i64>,
    cached_input_tokens: Option<i64>,
    cache_write_tokens: Option<i64>,
    output_tokens: Option<i64>,
    reasoning_tokens: Option<i64>,
    total_tokens: Option<i64>,
    /// upstream, estimated or none.
    usage_source: String,
    /// Tokens held before the exchange.
    reserved: i64,
    provider_key_id: Option<String>,
    /// Every attempt, in order.
    tried: Vec<Attempt>,
    duration_ms: f64,
    ttft_ms: Option<f64>,
    /// Null: no price known.
    cost_micros: Option<i64>,
    /// Which price that is; ends in #batch, #flex or #priority when the vendor
    /// served it so.
    price_ref: Option<String>,
    config_version: Option<String>,
}

/// One try with one key.
#[derive(Debug, Serialize, ToSchema, serde::Deserialize)]
pub struct Attempt {
    /// Provider key id.
    key: String,
    /// 0: no answer.
    status: i64,
    /// Why it was not the last one; empty for a success.
    reason: String,
    /// Milliseconds.
    ms: i64,
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl TryFrom<LogRow> for UsageLog {
    type Error = Problem;

    fn try_from(row: LogRow) -> Result<Self, Problem> {
        let unreadable = |column| Problem::internal(&format!("usage_events.{column} is not what was written"));
        Ok(Self {
            id: row.exchange_id.clone(),
            request_id: row.exchange_id,
            client_request_id: some(row.client_request_id),
            created_at: clock::rfc3339(row.created_at),
            bot: row.bot,
            project: some(row.project),
            labels: labels(&row.labels).ok_or_else(|| unreadable("labels"))?,
            agent_id: some(row.agent_id),
            session_id: some(row.session_id),
            vendor: row.vendor,
            model: some(row.model),
            endpoint: row.endpoint,
            status_code: row.status_code,
            outcome: row.outcome,
            error_code: some(row.error_code),
            error_message: some(row.error_message),
            stream: row.stream,
            input_tokens: row.input_tokens,
            cached_input_tokens: row.cached_input_tokens,
            cache_write_tokens: row.cache_write_tokens,
            output_tokens: row.output_tokens,
            reasoning_tokens: row.reasoning_tokens,
            total_tokens: row.total_tokens,
            usage_source: row.usage_source,
            reserved: row.reserved_tokens,
            provider_key_id: some(row.provider_key_id),
            tried: serde_json::from_str(&row.tried).map_err(|_| unreadable("tried"))?,
            duration_ms: millis(row.duration_micros),
            ttft_ms: row.ttft_micros.map(millis),
            cost_micros: row.cost_micros,
            price_ref: some(row.price_ref),
            config_version: some(row.config_version),
        })
    }
}

/// A stored label object; `None` when it is none.
pub fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    let Value::Object(object) = serde_json::from_str(text).ok()? else { return None };
    object.into_iter().map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect()
}
