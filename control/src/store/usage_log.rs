//! Usage events, one row per exchange, newest first.

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::error::StoreError;
use super::row::RowExt as _;
use super::usage_events;

/// What a caller wants to see. Empty text: no filter.
#[derive(Clone, Debug)]
pub struct LogFilter {
    /// Always one tenant's.
    pub tenant_id: String,
    /// Unix microseconds, inclusive.
    pub from: i64,
    /// Exclusive.
    pub to: i64,
    /// Bot id.
    pub bot_id: String,
    /// Slug.
    pub vendor: String,
    /// As served.
    pub model: String,
    /// Exact code; `None`: any.
    pub status: Option<i64>,
    /// As in the contract.
    pub outcome: String,
    /// Provider key id.
    pub key: String,
    /// Only rows after this one: its time and its exchange id.
    pub after: Option<(i64, String)>,
    /// At most so many rows.
    pub limit: i64,
}

/// One row, names resolved.
#[derive(Clone, Debug)]
pub struct LogRow {
    /// `req_…`
    pub exchange_id: String,
    /// When the request began.
    pub created_at: i64,
    /// Hostname, also of a deleted bot.
    pub bot: String,
    /// Slug; empty: none.
    pub project: String,
    /// JSON object.
    pub labels: String,
    /// As stored; see the columns of the same names.
    pub client_request_id: String,
    /// Empty: none.
    pub agent_id: String,
    /// Empty: none.
    pub session_id: String,
    /// Slug.
    pub vendor: String,
    /// As served.
    pub model: String,
    /// The route.
    pub endpoint: String,
    /// What the client got.
    pub status_code: i64,
    /// How it ended.
    pub outcome: String,
    /// Empty: none.
    pub error_code: String,
    /// Empty: none.
    pub error_message: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// `None`: the vendor did not say; so for all counts.
    pub input_tokens: Option<i64>,
    /// Part of `input_tokens`.
    pub cached_input_tokens: Option<i64>,
    /// Part of `input_tokens`.
    pub cache_write_tokens: Option<i64>,
    /// All generated.
    pub output_tokens: Option<i64>,
    /// Part of `output_tokens`.
    pub reasoning_tokens: Option<i64>,
    /// All.
    pub total_tokens: Option<i64>,
    /// `upstream`, `estimated` or `none`.
    pub usage_source: String,
    /// Tokens held.
    pub reserved_tokens: i64,
    /// Empty: none was chosen.
    pub provider_key_id: String,
    /// JSON array of attempts.
    pub tried: String,
    /// Microseconds.
    pub duration_micros: i64,
    /// Microseconds.
    pub ttft_micros: Option<i64>,
    /// Micro-USD; `None`: no price known.
    pub cost_micros: Option<i64>,
    /// Empty: none.
    pub price_ref: String,
    /// Snapshot it was admitted under.
    pub config_version: String,
}

macro_rules! select {
    ($where:literal) => {
        // On SQLite a cross join is read in the order it is written: events
        // first, in the order of their index.
        concat!(
            "SELECT e.exchange_id, e.created_at, d.labels, COALESCE(e.client_request_id, '') AS client_request_id, \
             COALESCE(e.agent_id, '') AS agent_id, COALESCE(e.session_id, '') AS session_id, d.vendor, d.model, \
             COALESCE(e.endpoint, '') AS endpoint, d.status_code, d.outcome, o.error_code, \
             COALESCE(e.error_message, '') AS error_message, o.stream, e.input_tokens, e.cached_input_tokens, \
             e.cache_write_tokens, e.output_tokens, e.reasoning_tokens, e.total_tokens, o.usage_source, \
             e.reserved_tokens, d.provider_key_id, COALESCE(e.tried, '[]') AS tried, e.duration_micros, e.ttft_micros, \
             e.cost_micros, o.price_ref, o.config_version, COALESCE(b.hostname, t.name, d.bot_id) AS bot, \
             COALESCE(p.slug, u.name, d.project_id) AS project \
             FROM usage_events e CROSS JOIN usage_dims d CROSS JOIN usage_origins o \
             LEFT JOIN bots b ON b.id = d.bot_id LEFT JOIN tombstones t ON t.id = d.bot_id \
             LEFT JOIN projects p ON p.id = d.project_id LEFT JOIN tombstones u ON u.id = d.project_id \
             WHERE d.id = e.dim_id AND o.id = e.origin_id AND ",
            $where
        )
    };
}

// $1 tenant, $2 from, $3 to, $4/$5 cursor, $6 vendor, $7 model, $8 status,
// $9 outcome, $10 key, $11 limit, $12 bot. There is one upper bound of the time,
// which is the cursor's on every page but the first: of two, SQLite would begin
// to read at the wrong one.
macro_rules! page {
    ($place:literal) => {
        concat!(
            select!(""),
            $place,
            " AND e.created_at >= $2 AND e.created_at < $3 \
             AND (e.created_at, e.exchange_id) < ($4, $5) \
             AND ($6 = '' OR d.vendor = $6) AND ($7 = '' OR d.model = $7) AND ($8 < 0 OR d.status_code = $8) \
             AND ($9 = '' OR d.outcome = $9) AND ($10 = '' OR d.provider_key_id = $10) \
             ORDER BY e.created_at DESC, e.exchange_id DESC LIMIT $11"
        )
    };
}

const BY_TENANT: &str =
    page!("e.tenant_no = (SELECT id FROM usage_dims WHERE tenant_id = $1 AND kind = 'tenant') AND $12 = ''");
const BY_BOT: &str =
    page!("e.caller_no = (SELECT id FROM usage_dims WHERE tenant_id = $1 AND kind = 'caller' AND bot_id = $12)");
const BY_ID: &str = select!("d.tenant_id = $1 AND e.exchange_id = $2");

/// One page, newest first.
///
/// # Errors
/// As the database answers.
pub async fn page(conn: &mut AnyConnection, filter: &LogFilter) -> Result<Vec<LogRow>, StoreError> {
    let sql = if filter.bot_id.is_empty() { BY_TENANT } else { BY_BOT };
    let (time, id) = filter.after.clone().unwrap_or((i64::MAX, String::new()));
    let id = usage_events::id_bytes(&id).map(Vec::from).unwrap_or_default();
    let rows = sqlx::query(sql)
        .bind(filter.tenant_id.as_str())
        .bind(filter.from)
        .bind(filter.to.min(time.saturating_add(1)))
        .bind(time)
        .bind(id)
        .bind(filter.vendor.as_str())
        .bind(filter.model.as_str())
        .bind(filter.status.unwrap_or(-1))
        .bind(filter.outcome.as_str())
        .bind(filter.key.as_str())
        .bind(filter.limit)
        .bind(filter.bot_id.as_str())
        .fetch_all(conn)
        .await?;
    rows.iter().map(decode).collect()
}

/// One exchange of a tenant.
///
/// # Errors
/// As the database answers.
pub async fn get(conn: &mut AnyConnection, tenant_id: &str, exchange_id: &str) -> Result<Option<LogRow>, StoreError> {
    let Some(id) = usage_events::id_bytes(exchange_id) else { return Ok(None) };
    let row = sqlx::query(BY_ID).bind(tenant_id).bind(id.to_vec()).fetch_optional(conn).await?;
    row.as_ref().map(decode).transpose()
}

fn decode(row: &AnyRow) -> Result<LogRow, StoreError> {
    let (provider_key_id, status_code, tried) =
        (row.text("provider_key_id")?, row.int("status_code")?, row.text("tried")?);
    let tried = tried.parse::<u32>().map_or(tried, |ms| one_attempt(&provider_key_id, status_code, ms));
    Ok(LogRow {
        exchange_id: usage_events::id_text(&row.bytes("exchange_id")?),
        created_at: row.int("created_at")?,
        bot: row.text("bot")?,
        project: row.text("project")?,
        labels: row.text("labels")?,
        client_request_id: row.text("client_request_id")?,
        agent_id: row.text("agent_id")?,
        session_id: row.text("session_id")?,
        vendor: row.text("vendor")?,
        model: row.text("model")?,
        endpoint: row.text("endpoint")?,
        status_code,
        outcome: row.text("outcome")?,
        error_code: row.text("error_code")?,
        error_message: row.text("error_message")?,
        stream: row.flag("stream")?,
        input_tokens: row.opt_int("input_tokens")?,
        cached_input_tokens: row.opt_int("cached_input_tokens")?,
        cache_write_tokens: row.opt_int("cache_write_tokens")?,
        output_tokens: row.opt_int("output_tokens")?,
        reasoning_tokens: row.opt_int("reasoning_tokens")?,
        total_tokens: row.opt_int("total_tokens")?,
        usage_source: row.text("usage_source")?,
        reserved_tokens: row.int("reserved_tokens")?,
        provider_key_id,
        tried,
        duration_micros: row.int("duration_micros")?,
        ttft_micros: row.opt_int("ttft_micros")?,
        cost_micros: row.opt_int("cost_micros")?,
        price_ref: row.text("price_ref")?,
        config_version: row.text("config_version")?,
    })
}

/// The long form of a single attempt; see [`EventRow`].
///
/// [`EventRow`]: super::usage_ingest::EventRow
fn one_attempt(key: &str, status: i64, ms: u32) -> String {
    serde_json::json!([{ "key": key, "status": status, "reason": "", "ms": ms }]).to_string()
}
