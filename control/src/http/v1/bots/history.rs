//! What happened to a bot that we run, what it takes, what it wrote.

use axum::Json;
use axum::extract::State;
use clawgate_shared::clock;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::views::ContainerView;
use crate::domain::{DomainError, Permission};
use crate::http::auth::InTenant;
use crate::http::body::{StrictQuery, UrlPath};
use crate::http::page::{Page, PageQuery};
use crate::http::problem::{FieldProblem, Problem};
use crate::http::state::App;
use crate::runtime::plan::Hands;
use crate::store::bot_events::{self, BotEventRow, Minute};
use crate::store::bots::{self, BotRow};
use crate::store::types::BotEventKind;

/// Most lines of a log that are answered.
const MAX_LINES: u32 = 10_000;
/// Lines unless given.
const LINES: u32 = 200;
/// Most minutes that are answered, and how far back unless given.
const MINUTES: i64 = 1440;
const MINUTE: i64 = 60_000_000;

/// Something that happened to a bot.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BotEvent)]
pub struct BotEventView {
    id: String,
    /// status or engine.
    kind: &'static str,
    /// The status from then on, or the engine's word.
    status: String,
    reason_code: Option<String>,
    reason: Option<String>,
    exit_code: Option<i64>,
    created_at: String,
}

impl From<BotEventRow> for BotEventView {
    fn from(row: BotEventRow) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            id: row.id,
            kind: row.kind.as_str(),
            status: row.status,
            reason_code: some(row.reason_code),
            reason: some(row.reason),
            exit_code: row.exit_code,
            created_at: clock::rfc3339(row.at),
        }
    }
}

/// How much of a log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct LogsQuery {
    /// The last lines, 1 to 10000; 200 unless given.
    tail: Option<u32>,
}

/// The end of a log.
#[derive(Debug, Serialize, ToSchema)]
pub struct BotLogs {
    /// Oldest first.
    lines: Vec<String>,
}

/// From when to when.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct MetricsQuery {
    /// RFC 3339; a day ago unless given.
    from: Option<String>,
    /// RFC 3339; now unless given.
    to: Option<String>,
}

/// A minute of a container.
#[derive(Debug, Serialize, ToSchema)]
pub struct BotMinute {
    timestamp: String,
    /// Mean, thousandths of a processor.
    cpu_millis: u64,
    /// Highest.
    memory_bytes: u64,
    rx_bytes: u64,
    tx_bytes: u64,
    /// Highest.
    pids: u64,
}

/// What a bot takes.
#[derive(Debug, Serialize, ToSchema)]
pub struct BotMetrics {
    /// At most 1440.
    data_points: Vec<BotMinute>,
    restart_count: u64,
}

/// What is known of why a bot is as it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct BotDiagnostics {
    hostname: String,
    status: &'static str,
    reason: String,
    container: ContainerView,
    /// not_placed, away, engine_unavailable or ready.
    runner: &'static str,
    /// Whether its runner has a container of it now; null: it has not told yet.
    container_seen: Option<bool>,
    /// The last ten things that happened.
    events: Vec<BotEventView>,
}

/// A bot that we run.
async fn ours(app: &App, inside: &InTenant, hostname: &str) -> Result<BotRow, Problem> {
    inside.require(Permission::BotRead)?;
    let row = bots::get(&mut *app.read().await?, &inside.tenant.id, hostname).await?;
    let row = row.ok_or(Problem::not_found("bot"))?;
    if row.container.is_none() {
        return Err(DomainError::NotRunByUs.into());
    }
    Ok(row)
}

async fn page_of(
    app: &App,
    inside: &InTenant,
    hostname: &str,
    query: &PageQuery,
    kind: Option<BotEventKind>,
) -> Result<Json<Page<BotEventView>>, Problem> {
    let page = query.wanted()?;
    let bot = ours(app, inside, hostname).await?;
    let paged = bot_events::list(&mut *app.read().await?, &bot.id, kind, &page).await?;
    Ok(Json(Page::of(paged, BotEventView::from)))
}

/// `GET /bots/{hostname}/events`
pub async fn events(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
    StrictQuery(query): StrictQuery<PageQuery>,
) -> Result<Json<Page<BotEventView>>, Problem> {
    page_of(&app, &inside, &hostname, &query, None).await
}

/// `GET /bots/{hostname}/status-history`
pub async fn status_history(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
    StrictQuery(query): StrictQuery<PageQuery>,
) -> Result<Json<Page<BotEventView>>, Problem> {
    page_of(&app, &inside, &hostname, &query, Some(BotEventKind::Status)).await
}

/// `GET /bots/{hostname}/logs`
pub async fn logs(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
    StrictQuery(query): StrictQuery<LogsQuery>,
) -> Result<Json<BotLogs>, Problem> {
    let tail = query.tail.unwrap_or(LINES);
    if !(1..=MAX_LINES).contains(&tail) {
        return Err(Problem::bad_parameter(FieldProblem::new("tail", "range").saying("must be from 1 to 10000")));
    }
    let bot = ours(&app, &inside, &hostname).await?;
    let text = app.runtime.logs(&bot, tail).await.map_err(|failure| Problem::runner_failed(&failure))?;
    Ok(Json(BotLogs { lines: text.lines().map(str::to_owned).collect() }))
}

/// `GET /bots/{hostname}/metrics`
pub async fn metrics(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
    StrictQuery(query): StrictQuery<MetricsQuery>,
) -> Result<Json<BotMetrics>, Problem> {
    let now = clock::now_micros();
    let to = crate::http::v1::instant("to", query.to.as_deref())?.unwrap_or(now);
    let day_before = to.saturating_sub(MINUTES * MINUTE);
    let from = crate::http::v1::instant("from", query.from.as_deref())?.unwrap_or(day_before);
    let bot = ours(&app, &inside, &hostname).await?;
    let minutes = bot_events::minutes(&mut *app.read().await?, &bot.id, (from, to), MINUTES).await?;
    let restart_count = bot.container.map(|container| container.seen.restart_count).unwrap_or_default();
    Ok(Json(BotMetrics { data_points: minutes.into_iter().map(BotMinute::from).collect(), restart_count }))
}

impl From<Minute> for BotMinute {
    fn from(minute: Minute) -> Self {
        Self {
            timestamp: clock::rfc3339(minute.at),
            cpu_millis: minute.cpu_millis,
            memory_bytes: minute.memory_bytes,
            rx_bytes: minute.rx_bytes,
            tx_bytes: minute.tx_bytes,
            pids: minute.pids,
        }
    }
}

/// `GET /bots/{hostname}/diagnostics`
pub async fn diagnostics(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
) -> Result<Json<BotDiagnostics>, Problem> {
    let mut bot = ours(&app, &inside, &hostname).await?;
    let Some(container) = bot.container.take() else { return Err(DomainError::NotRunByUs.into()) };
    let look = app.runtime.links.look(container.runner_id.as_deref(), &bot.id);
    let page = crate::http::page::wanted(Some(10), None)?;
    let events = bot_events::list(&mut *app.read().await?, &bot.id, None, &page).await?;
    Ok(Json(BotDiagnostics {
        hostname: bot.hostname,
        status: bot.status.as_str(),
        reason: bot.status_reason,
        container: ContainerView::from(*container),
        runner: match look.hands {
            Hands::NotPlaced => "not_placed",
            Hands::Away => "away",
            Hands::EngineUnavailable => "engine_unavailable",
            Hands::Ready => "ready",
        },
        container_seen: look.cell.map(|cell| cell.is_some()),
        events: events.rows.into_iter().map(BotEventView::from).collect(),
    }))
}
