//! Bots.

use std::collections::{BTreeMap, HashMap};

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::containers::{self, ContainerRow};
use super::error::StoreError;
use super::fetch::{self, Statement};
use super::page::{Page, Paged};
use super::quotas;
use super::row::{RowExt as _, to_int, to_json};
use super::types::{
    Adapter, BotIncludeUsage, BotPermission, BotStatus, DesiredState, KeyStrategy, OnDisconnect, QuotaSpec, Resources,
};

macro_rules! columns {
    () => {
        "id, tenant_id, project_id, hostname, name, owner, labels, tags, allowed_vendors, allowed_models, \
         model_aliases, fallbacks, key_strategy, on_disconnect, default_max_tokens, include_usage, permissions, \
         requests_per_minute, tokens_per_minute, max_concurrency, adapter, image, resources, template, \
         desired_state, status, status_reason, status_since, enabled, suspended, updated_at, version, created_at"
    };
}

const INSERT: &str = concat!(
    "INSERT INTO bots (",
    columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, \
     $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33)"
);
const UPDATE: &str = "UPDATE bots SET tenant_id = $2, project_id = $3, hostname = $4, name = $5, owner = $6, \
    labels = $7, tags = $8, allowed_vendors = $9, allowed_models = $10, model_aliases = $11, fallbacks = $12, \
    key_strategy = $13, on_disconnect = $14, default_max_tokens = $15, include_usage = $16, permissions = $17, \
    requests_per_minute = $18, tokens_per_minute = $19, max_concurrency = $20, adapter = $21, image = $22, \
    resources = $23, template = $24, desired_state = $25, status = $26, status_reason = $27, status_since = $28, \
    enabled = $29, suspended = $30, updated_at = $31, version = version + 1 WHERE id = $1 AND version = $32";
const DELETE: &str = "DELETE FROM bots WHERE id = $1";
const SELECT: &str = concat!("SELECT ", columns!(), " FROM bots WHERE tenant_id = $1 AND hostname = $2");
const SELECT_ALL: &str = concat!("SELECT ", columns!(), " FROM bots ORDER BY id");
const SELECT_PAGE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM bots WHERE tenant_id = $1 AND ($2 = '' OR project_id = $2) AND ($3 = '' OR owner = $3) AND id > $4 \
     ORDER BY id LIMIT $5"
);
const COUNT: &str = "SELECT COUNT(*) AS n FROM bots WHERE tenant_id = $1 AND ($2 = '' OR project_id = $2) \
    AND ($3 = '' OR owner = $3)";
const STATS: &str = "SELECT COALESCE(c.status, b.status) AS status, b.enabled, b.suspended, COUNT(*) AS n FROM bots b \
    LEFT JOIN bot_containers c ON c.bot_id = b.id WHERE b.tenant_id = $1 GROUP BY 1, 2, 3";
const STATS_ALL: &str = "SELECT COALESCE(c.status, b.status) AS status, b.enabled, b.suspended, COUNT(*) AS n \
    FROM bots b LEFT JOIN bot_containers c ON c.bot_id = b.id GROUP BY 1, 2, 3";
const SELECT_BY_ID: &str = concat!("SELECT ", columns!(), " FROM bots WHERE id = $1");
const SELECT_RUN: &str = concat!("SELECT ", columns!(), " FROM bots WHERE adapter <> 'external' ORDER BY id");

/// What one bot may use at once or per minute; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests per minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens per minute.
    pub tokens_per_minute: Option<u64>,
    /// Exchanges in flight.
    pub max_concurrency: Option<u64>,
}

/// One bot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BotRow {
    /// `bot_…`
    pub id: String,
    /// Owner.
    pub tenant_id: String,
    /// `None`: bound to none.
    pub project_id: Option<String>,
    /// Unique within the tenant; how people and URLs name it.
    pub hostname: String,
    /// For people.
    pub name: String,
    /// The actor who made it: what "own bots" means for developers.
    pub owner: String,
    /// Recorded with every usage row.
    pub labels: BTreeMap<String, String>,
    /// Tags that a key must carry.
    pub tags: Vec<String>,
    /// Empty: all.
    pub allowed_vendors: Vec<String>,
    /// Globs; empty: all.
    pub allowed_models: Vec<String>,
    /// What the client says → what is meant.
    pub model_aliases: BTreeMap<String, String>,
    /// Model → models to try next.
    pub fallbacks: BTreeMap<String, Vec<String>>,
    /// How keys are picked.
    pub key_strategy: KeyStrategy,
    /// When a client hangs up.
    pub on_disconnect: OnDisconnect,
    /// Output limit when the client gives none and a strict quota needs one.
    pub default_max_tokens: Option<u64>,
    /// Whether usage may be asked for.
    pub include_usage: BotIncludeUsage,
    /// Beyond inference.
    pub permissions: Vec<BotPermission>,
    /// As configured; kept in a table of their own, which this module only
    /// reads, and not for [`all`].
    pub quotas: Vec<QuotaSpec>,
    /// Rates.
    pub limits: Limits,
    /// What runs it.
    pub adapter: Adapter,
    /// Container image.
    pub image: Option<String>,
    /// Container limits.
    pub resources: Option<Resources>,
    /// Configuration template.
    pub template: Option<String>,
    /// What we want.
    pub desired_state: DesiredState,
    /// What is observed; of a bot that we run it is what `container` says.
    pub status: BotStatus,
    /// Why.
    pub status_reason: String,
    /// Unix microseconds.
    pub status_since: i64,
    /// Off: `bot_disabled`.
    pub enabled: bool,
    /// On: `bot_suspended`.
    pub suspended: bool,
    /// For `ETag`; starts at 1.
    pub version: u64,
    /// Unix microseconds.
    pub created_at: i64,
    /// Unix microseconds.
    pub updated_at: i64,
    /// Of a bot that we run; in a table of its own, which this module only
    /// reads, and not for [`all`].
    pub container: Option<Box<ContainerRow>>,
}

fn read(row: &AnyRow) -> Result<BotRow, StoreError> {
    let resources = row.opt_text("resources")?.map(|text| {
        serde_json::from_str::<Resources>(&text).map_err(|_| StoreError::corrupt("resources", "JSON of another shape"))
    });
    Ok(BotRow {
        id: row.text("id")?,
        tenant_id: row.text("tenant_id")?,
        project_id: row.opt_text("project_id")?,
        hostname: row.text("hostname")?,
        name: row.text("name")?,
        owner: row.text("owner")?,
        labels: row.json("labels")?,
        tags: row.json("tags")?,
        allowed_vendors: row.json("allowed_vendors")?,
        allowed_models: row.json("allowed_models")?,
        model_aliases: row.json("model_aliases")?,
        fallbacks: row.json("fallbacks")?,
        key_strategy: KeyStrategy::from_column("key_strategy", &row.text("key_strategy")?)?,
        on_disconnect: OnDisconnect::from_column("on_disconnect", &row.text("on_disconnect")?)?,
        default_max_tokens: row.opt_uint("default_max_tokens")?,
        include_usage: BotIncludeUsage::from_column("include_usage", &row.text("include_usage")?)?,
        permissions: row.json("permissions")?,
        quotas: Vec::new(),
        limits: Limits {
            requests_per_minute: row.opt_uint("requests_per_minute")?,
            tokens_per_minute: row.opt_uint("tokens_per_minute")?,
            max_concurrency: row.opt_uint("max_concurrency")?,
        },
        adapter: Adapter::from_column("adapter", &row.text("adapter")?)?,
        image: row.opt_text("image")?,
        resources: resources.transpose()?,
        template: row.opt_text("template")?,
        desired_state: DesiredState::from_column("desired_state", &row.text("desired_state")?)?,
        status: BotStatus::from_column("status", &row.text("status")?)?,
        status_reason: row.text("status_reason")?,
        status_since: row.int("status_since")?,
        enabled: row.flag("enabled")?,
        suspended: row.flag("suspended")?,
        version: row.uint("version")?,
        created_at: row.int("created_at")?,
        updated_at: row.int("updated_at")?,
        container: None,
    })
}

/// `$1` to `$31`: the same for insert and update.
fn bind_fields<'q>(sql: &'static str, row: &BotRow) -> Result<Statement<'q>, StoreError> {
    Ok(sqlx::query(sql)
        .bind(row.id.clone())
        .bind(row.tenant_id.clone())
        .bind(row.project_id.clone())
        .bind(row.hostname.clone())
        .bind(row.name.clone())
        .bind(row.owner.clone())
        .bind(to_json(&row.labels)?)
        .bind(to_json(&row.tags)?)
        .bind(to_json(&row.allowed_vendors)?)
        .bind(to_json(&row.allowed_models)?)
        .bind(to_json(&row.model_aliases)?)
        .bind(to_json(&row.fallbacks)?)
        .bind(row.key_strategy.as_str())
        .bind(row.on_disconnect.as_str())
        .bind(row.default_max_tokens.map(to_int))
        .bind(row.include_usage.as_str())
        .bind(to_json(&row.permissions)?)
        .bind(row.limits.requests_per_minute.map(to_int))
        .bind(row.limits.tokens_per_minute.map(to_int))
        .bind(row.limits.max_concurrency.map(to_int))
        .bind(row.adapter.as_str())
        .bind(row.image.clone())
        .bind(row.resources.as_ref().map(to_json).transpose()?)
        .bind(row.template.clone())
        .bind(row.desired_state.as_str())
        .bind(row.status.as_str())
        .bind(row.status_reason.clone())
        .bind(row.status_since)
        .bind(i64::from(row.enabled))
        .bind(i64::from(row.suspended))
        .bind(row.updated_at))
}

/// Adds a bot.
///
/// # Errors
/// `Conflict(BotHostname)`; `Reference` when its project does not exist.
pub async fn insert(conn: &mut AnyConnection, row: &BotRow) -> Result<(), StoreError> {
    bind_fields(INSERT, row)?.bind(to_int(row.version)).bind(row.created_at).execute(conn).await?;
    Ok(())
}

/// Writes every field; false when somebody else wrote it since `row.version`.
///
/// # Errors
/// As [`insert`].
pub async fn update(conn: &mut AnyConnection, row: &BotRow) -> Result<bool, StoreError> {
    fetch::changed(conn, bind_fields(UPDATE, row)?.bind(to_int(row.version))).await
}

/// Removes a bot with its tokens.
///
/// # Errors
/// As the statement.
pub async fn delete(conn: &mut AnyConnection, id: &str) -> Result<bool, StoreError> {
    fetch::changed(conn, sqlx::query(DELETE).bind(id)).await
}

/// By hostname, within its tenant.
///
/// # Errors
/// As the statement.
pub async fn get(conn: &mut AnyConnection, tenant_id: &str, hostname: &str) -> Result<Option<BotRow>, StoreError> {
    let found = fetch::one(conn, sqlx::query(SELECT).bind(tenant_id).bind(hostname), read).await?;
    let mut rows: Vec<BotRow> = found.into_iter().collect();
    with_the_rest(conn, &mut rows).await?;
    Ok(rows.pop())
}

/// By id, of any tenant.
///
/// # Errors
/// As the statement.
pub async fn by_id(conn: &mut AnyConnection, id: &str) -> Result<Option<BotRow>, StoreError> {
    let found = fetch::one(conn, sqlx::query(SELECT_BY_ID).bind(id.to_owned()), read).await?;
    let mut rows: Vec<BotRow> = found.into_iter().collect();
    with_the_rest(conn, &mut rows).await?;
    Ok(rows.pop())
}

/// Every bot that we run, of every tenant, with its container.
///
/// # Errors
/// As the statements.
pub async fn run_by_us(conn: &mut AnyConnection) -> Result<Vec<BotRow>, StoreError> {
    let mut rows = fetch::all(conn, sqlx::query(SELECT_RUN), read).await?;
    let found = containers::all(conn).await?.into_iter().map(|row| (row.bot_id.clone(), row)).collect();
    add_containers(&mut rows, found);
    Ok(rows)
}

async fn with_the_rest(conn: &mut AnyConnection, rows: &mut [BotRow]) -> Result<(), StoreError> {
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let mut found = quotas::of_bots(conn, &ids).await?;
    let run: Vec<&str> =
        rows.iter().filter(|row| row.adapter != Adapter::External).map(|row| row.id.as_str()).collect();
    let of_bots = containers::of_bots(conn, &run).await?;
    for row in rows.iter_mut() {
        row.quotas = found.remove(&row.id).unwrap_or_default();
    }
    add_containers(rows, of_bots);
    Ok(())
}

fn add_containers(rows: &mut [BotRow], mut found: HashMap<String, ContainerRow>) {
    for row in rows {
        if let Some(container) = found.remove(&row.id) {
            row.status = container.seen.status;
            row.status_since = container.seen.since;
            row.status_reason.clone_from(&container.seen.text);
            row.container = Some(Box::new(container));
        }
    }
}

/// Every bot of every tenant, by id.
///
/// # Errors
/// As the statement.
pub async fn all(conn: &mut AnyConnection) -> Result<Vec<BotRow>, StoreError> {
    fetch::all(conn, sqlx::query(SELECT_ALL), read).await
}

/// What a list is narrowed to.
#[derive(Clone, Copy, Debug, Default)]
pub struct BotFilter<'a> {
    /// Bots of one project.
    pub project_id: Option<&'a str>,
    /// Bots of one owner.
    pub owner: Option<&'a str>,
}

/// One page of a tenant's, by id.
///
/// # Errors
/// As the statements.
pub async fn list(
    conn: &mut AnyConnection,
    tenant_id: &str,
    filter: BotFilter<'_>,
    page: &Page,
) -> Result<Paged<BotRow>, StoreError> {
    let (project, owner) = (filter.project_id.unwrap_or_default(), filter.owner.unwrap_or_default());
    let counted = sqlx::query(COUNT).bind(tenant_id).bind(project).bind(owner);
    let rows = sqlx::query(SELECT_PAGE).bind(tenant_id).bind(project).bind(owner);
    let mut paged = fetch::page(conn, page, counted, rows, read, |row| &row.id).await?;
    with_the_rest(conn, &mut paged.rows).await?;
    Ok(paged)
}

/// How many bots of a tenant share a status and its two switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BotCount {
    /// Observed status.
    pub status: BotStatus,
    /// Switched on.
    pub enabled: bool,
    /// Suspended.
    pub suspended: bool,
    /// How many.
    pub count: u64,
}

/// Counts a tenant's bots.
///
/// # Errors
/// As the statement.
pub async fn stats(conn: &mut AnyConnection, tenant_id: &str) -> Result<Vec<BotCount>, StoreError> {
    fetch::all(conn, sqlx::query(STATS).bind(tenant_id), read_count).await
}

/// Counts the bots of all tenants.
///
/// # Errors
/// As the statement.
pub async fn stats_of_all(conn: &mut AnyConnection) -> Result<Vec<BotCount>, StoreError> {
    fetch::all(conn, sqlx::query(STATS_ALL), read_count).await
}

fn read_count(row: &AnyRow) -> Result<BotCount, StoreError> {
    Ok(BotCount {
        status: BotStatus::from_column("status", &row.text("status")?)?,
        enabled: row.flag("enabled")?,
        suspended: row.flag("suspended")?,
        count: row.uint("n")?,
    })
}
