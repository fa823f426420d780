//! The tenant at a glance.

use axum::Json;
use axum::extract::State;
use clawgate_shared::clock;
use serde::Serialize;
use utoipa::ToSchema;

use super::views::UsageStats;
use super::window::{self, Unit};
use crate::domain::Permission;
use crate::http::auth::InTenant;
use crate::http::problem::Problem;
use crate::http::state::App;
use crate::http::v1::bots::views::BotStats;
use crate::store::usage_query::{self, Scope, Span};
use crate::store::{bots, provider_keys};

/// Usage of the running calendar periods.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsagePeriods {
    /// Since midnight.
    pub day: UsageStats,
    /// Since Monday.
    pub week: UsageStats,
    /// Since the first.
    pub month: UsageStats,
}

/// The tenant at a glance.
#[derive(Debug, Serialize, ToSchema)]
pub struct Overview {
    /// Bots by state.
    bots: BotStats,
    /// How many provider keys.
    provider_keys: u64,
    /// Nodes that are connected.
    nodes_connected: u64,
    /// Usage of the running periods.
    usage: UsagePeriods,
}

async fn periods(app: &App, inside: &InTenant) -> Result<UsagePeriods, Problem> {
    let zone = window::zone(&inside.tenant.time_zone);
    let mut conn = app.db().snapshot().await?;
    let mut of = async |unit| -> Result<UsageStats, Problem> {
        let window = window::span(unit, 1, (None, None), &zone, clock::now_micros())?;
        let span = Span { tenant_id: &inside.tenant.id, scope: Scope::Tenant, from: window.from, to: window.to };
        Ok(usage_query::totals(&mut conn, &span).await?.into())
    };
    Ok(UsagePeriods { day: of(Unit::Day).await?, week: of(Unit::Week).await?, month: of(Unit::Month).await? })
}

/// `GET /metrics/usage`
pub async fn usage(State(app): State<App>, inside: InTenant) -> Result<Json<UsagePeriods>, Problem> {
    inside.require(Permission::UsageRead)?;
    periods(&app, &inside).await.map(Json)
}

/// `GET /metrics/overview`
pub async fn overview(State(app): State<App>, inside: InTenant) -> Result<Json<Overview>, Problem> {
    inside.require(Permission::UsageRead)?;
    let usage = periods(&app, &inside).await?;
    let (counts, keys) = {
        let mut conn = app.read().await?;
        let counts = bots::stats(&mut conn, &inside.tenant.id).await?;
        (counts, provider_keys::count(&mut conn, &inside.tenant.id).await?)
    };
    let nodes = app.fleet.list_nodes().await?;
    let nodes_connected = nodes.iter().filter(|node| node.connected).count();
    let nodes_connected = u64::try_from(nodes_connected).unwrap_or(u64::MAX);
    Ok(Json(Overview { bots: counts.into(), provider_keys: keys, nodes_connected, usage }))
}
