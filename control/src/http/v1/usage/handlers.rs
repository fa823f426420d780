//! Sums over HTTP: find out whose usage is meant, then [`super::sums`].

use axum::Json;
use axum::extract::State;

use super::sums::{self, BreakdownQuery, StatsQuery, TenantScope, TrendQuery, Whose};
use super::views::{UsageBreakdown, UsageStats, UsageTrend};
use super::window;
use crate::domain::Permission;
use crate::http::auth::InTenant;
use crate::http::body::{StrictQuery, TwoQueries, UrlPath};
use crate::http::problem::Problem;
use crate::http::state::App;
use crate::store::{bots, projects};

/// Resolves names and checks that usage may be read.
async fn whose(app: &App, inside: &InTenant, scope: TenantScope) -> Result<Whose, Problem> {
    inside.require(Permission::UsageRead)?;
    let tenant_id = inside.tenant.id.clone();
    let mut conn = app.read().await?;
    let bot_id = match scope.bot {
        None => None,
        Some(hostname) => Some(bots::get(&mut conn, &tenant_id, &hostname).await?.ok_or(Problem::not_found("bot"))?.id),
    };
    let project_id = match scope.project_id {
        None => None,
        Some(id) => Some(projects::get(&mut conn, &tenant_id, &id).await?.ok_or(Problem::not_found("project"))?.id),
    };
    Ok(Whose { tenant_id, zone: window::zone(&inside.tenant.time_zone), bot_id, project_id })
}

async fn whose_bot(app: &App, inside: &InTenant, hostname: String) -> Result<Whose, Problem> {
    whose(app, inside, TenantScope { bot: Some(hostname), project_id: None }).await
}

/// `GET /bots/{hostname}/usage/stats`
pub async fn bot_stats(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
    StrictQuery(query): StrictQuery<StatsQuery>,
) -> Result<Json<UsageStats>, Problem> {
    let whose = whose_bot(&app, &inside, hostname).await?;
    sums::stats(app.db(), &whose, &query).await.map(Json)
}

/// `GET /bots/{hostname}/usage/trend`
pub async fn bot_trend(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
    StrictQuery(query): StrictQuery<TrendQuery>,
) -> Result<Json<UsageTrend>, Problem> {
    let whose = whose_bot(&app, &inside, hostname).await?;
    sums::trend(app.db(), &whose, &query).await.map(Json)
}

/// `GET /bots/{hostname}/usage/breakdown`
pub async fn bot_breakdown(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
    StrictQuery(query): StrictQuery<BreakdownQuery>,
) -> Result<Json<UsageBreakdown>, Problem> {
    let whose = whose_bot(&app, &inside, hostname).await?;
    sums::breakdown(app.db(), &whose, &query).await.map(Json)
}

/// `GET /usage/stats`
pub async fn stats(
    State(app): State<App>,
    inside: InTenant,
    TwoQueries(scope, query): TwoQueries<TenantScope, StatsQuery>,
) -> Result<Json<UsageStats>, Problem> {
    let whose = whose(&app, &inside, scope).await?;
    sums::stats(app.db(), &whose, &query).await.map(Json)
}

/// `GET /usage/trend`
pub async fn trend(
    State(app): State<App>,
    inside: InTenant,
    TwoQueries(scope, query): TwoQueries<TenantScope, TrendQuery>,
) -> Result<Json<UsageTrend>, Problem> {
    let whose = whose(&app, &inside, scope).await?;
    sums::trend(app.db(), &whose, &query).await.map(Json)
}

/// `GET /usage/breakdown`
pub async fn breakdown(
    State(app): State<App>,
    inside: InTenant,
    TwoQueries(scope, query): TwoQueries<TenantScope, BreakdownQuery>,
) -> Result<Json<UsageBreakdown>, Problem> {
    let whose = whose(&app, &inside, scope).await?;
    sums::breakdown(app.db(), &whose, &query).await.map(Json)
}
