//! Reading bots.

use axum::Json;
use axum::extract::State;
use axum::response::Response;

use super::views::{BotStats, BotView};
use super::{BotsQuery, current};
use crate::domain::Permission;
use crate::http::auth::InTenant;
use crate::http::body::{StrictQuery, UrlPath};
use crate::http::page::{self, Page};
use crate::http::problem::Problem;
use crate::http::state::App;
use crate::store::bots::{self, BotFilter};

/// `GET /bots`
pub async fn list(
    State(app): State<App>,
    inside: InTenant,
    StrictQuery(query): StrictQuery<BotsQuery>,
) -> Result<Json<Page<BotView>>, Problem> {
    inside.require(Permission::BotRead)?;
    let page = page::wanted(query.limit, query.after.as_deref())?;
    let filter = BotFilter { project_id: query.project_id.as_deref(), owner: query.owner.as_deref() };
    let paged = bots::list(&mut *app.read().await?, &inside.tenant.id, filter, &page).await?;
    Ok(Json(Page::of(paged, |row| BotView::new(row, &app.public_url, None))))
}

/// `GET /bots/{hostname}`
pub async fn get(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
) -> Result<Response, Problem> {
    inside.require(Permission::BotRead)?;
    let row = bots::get(&mut *app.read().await?, &inside.tenant.id, &hostname).await?;
    Ok(current(&app, row.ok_or(Problem::not_found("bot"))?)?.into_response())
}

/// `GET /bots/stats`
pub async fn stats(State(app): State<App>, inside: InTenant) -> Result<Json<BotStats>, Problem> {
    inside.require(Permission::BotRead)?;
    Ok(Json(bots::stats(&mut *app.read().await?, &inside.tenant.id).await?.into()))
}
