//! Single exchanges.

use axum::Json;
use axum::extract::State;
use clawgate_shared::clock;
use serde::Deserialize;
use utoipa::IntoParams;

use super::views::UsageLog;
use crate::domain::Permission;
use crate::http::auth::InTenant;
use crate::http::body::{Named, TwoQueries, UrlPath};
use crate::http::page::Page;
use crate::http::problem::{FieldProblem, Problem};
use crate::http::state::App;
use crate::store::usage_log::{self, LogFilter, LogRow};
use crate::store::{bots, page};

/// Rows unless told otherwise, and at most.
const LIMITS: (u32, u32) = (50, 1000);

/// Which exchanges.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct LogsFilter {
    /// Hostname.
    bot: Option<String>,
    /// Vendor slug.
    vendor: Option<String>,
    /// Model, as served.
    model: Option<String>,
    /// Status code.
    status: Option<u16>,
    /// ok, upstream_error, client_disconnect, interrupted, refused, failed or indeterminate.
    outcome: Option<String>,
    /// Provider key id.
    key: Option<String>,
    /// RFC 3339; inclusive.
    from: Option<String>,
    /// RFC 3339; exclusive.
    to: Option<String>,
}

impl Named for LogsFilter {
    const NAMES: &'static [&'static str] = &["bot", "vendor", "model", "status", "outcome", "key", "from", "to"];
}

/// Which page of them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct LogsPage {
    /// Rows, 1 to 1000; 50 unless given.
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    after: Option<String>,
}

impl LogsFilter {
    /// As the store wants it, from the first row on; who may not read usage is
    /// refused.
    ///
    /// # Errors
    /// No permission, a bot that is not there, a time that is none.
    pub(super) async fn resolve(self, app: &App, inside: &InTenant, limit: i64) -> Result<LogFilter, Problem> {
        inside.require(Permission::UsageRead)?;
        let bot_id = match &self.bot {
            None => String::new(),
            Some(hostname) => {
                let bot = bots::get(&mut *app.read().await?, &inside.tenant.id, hostname).await?;
                bot.ok_or(Problem::not_found("bot"))?.id
            }
        };
        Ok(LogFilter {
            tenant_id: inside.tenant.id.clone(),
            from: instant("from", self.from.as_deref(), 0)?,
            to: instant("to", self.to.as_deref(), i64::MAX)?,
            bot_id,
            vendor: self.vendor.unwrap_or_default(),
            model: self.model.unwrap_or_default(),
            status: self.status.map(i64::from),
            outcome: self.outcome.unwrap_or_default(),
            key: self.key.unwrap_or_default(),
            after: None,
            limit,
        })
    }
}

fn instant(field: &str, text: Option<&str>, default: i64) -> Result<i64, Problem> {
    let Some(text) = text else { return Ok(default) };
    clock::parse_rfc3339(&text.replace(' ', "+"))
        .map_err(|_| Problem::bad_parameter(FieldProblem::new(field, "format").saying("must be an RFC 3339 time")))
}

/// Time and id of the last row of the page before.
fn parse_after(cursor: &str) -> Result<(i64, String), Problem> {
    let parsed = page::decode(cursor).and_then(|key| {
        let (time, id) = key.split_once(':')?;
        Some((time.parse().ok()?, id.to_owned()))
    });
    parsed.ok_or_else(|| {
        Problem::bad_parameter(FieldProblem::new("after", "format").saying("must be a next_cursor of this list"))
    })
}

/// `GET /usage/logs`
pub async fn list(
    State(app): State<App>,
    inside: InTenant,
    TwoQueries(filter, query): TwoQueries<LogsFilter, LogsPage>,
) -> Result<Json<Page<UsageLog>>, Problem> {
    let limit = query.limit.unwrap_or(LIMITS.0);
    if !(1..=LIMITS.1).contains(&limit) {
        return Err(Problem::bad_parameter(FieldProblem::new("limit", "range").saying("must be 1 to 1000")));
    }
    let mut filter = filter.resolve(&app, &inside, i64::from(limit) + 1).await?;
    filter.after = query.after.as_deref().filter(|cursor| !cursor.is_empty()).map(parse_after).transpose()?;
    let mut rows = usage_log::page(&mut *app.read().await?, &filter).await?;
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let cursor = |row: &LogRow| page::encode(&format!("{}:{}", row.created_at, row.exchange_id));
    let next_cursor = rows.last().filter(|_| has_more).map(cursor);
    let data = rows.into_iter().map(UsageLog::try_from).collect::<Result<_, _>>()?;
    Ok(Json(Page { data, has_more, next_cursor, total: None }))
}

/// `GET /usage/logs/{request_id}`
pub async fn get(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(request_id): UrlPath<String>,
) -> Result<Json<UsageLog>, Problem> {
    inside.require(Permission::UsageRead)?;
    let row = usage_log::get(&mut *app.read().await?, &inside.tenant.id, &request_id).await?;
    Ok(Json(row.ok_or(Problem::not_found("exchange"))?.try_into()?))
}
