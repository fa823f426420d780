//! What the bots of a tenant may take together.

use axum::extract::State;
use axum::response::Response;
use axum::{Json, response::IntoResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::tenants;
use crate::domain::resources as domain;
use crate::http::auth::Who;
use crate::http::body::{StrictJson, UrlPath};
use crate::http::problem::Problem;
use crate::http::state::App;
use crate::store::containers;
use crate::store::resource_quotas::{self, ResourceQuota};

/// Limits; null: none.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ResourceLimits)]
pub struct ResourceLimits {
    /// Bots, external ones too.
    pub bots: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u64>,
    /// MiB.
    pub memory_mb: Option<u64>,
    /// MiB; bots must say then what they take.
    pub disk_mb: Option<u64>,
}

/// Limits, and what is taken of them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResourceQuota)]
pub struct ResourceQuotaView {
    bots: Option<u64>,
    cpu_millis: Option<u64>,
    memory_mb: Option<u64>,
    disk_mb: Option<u64>,
    used: ResourceUse,
}

/// What bots take together.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResourceUse {
    bots: u64,
    cpu_millis: u64,
    memory_mb: u64,
    disk_mb: u64,
}

async fn view(app: &App, tenant_id: &str) -> Result<Response, Problem> {
    let mut conn = app.read().await?;
    let quota = resource_quotas::get(&mut conn, tenant_id).await?;
    let used = containers::taken(&mut conn, tenant_id).await?;
    let view = ResourceQuotaView {
        bots: quota.bots,
        cpu_millis: quota.cpu_millis,
        memory_mb: quota.memory_mb,
        disk_mb: quota.disk_mb,
        used: ResourceUse {
            bots: used.bots,
            cpu_millis: used.cpu_millis,
            memory_mb: used.memory_mb,
            disk_mb: used.disk_mb,
        },
    };
    Ok(Json(view).into_response())
}

/// `GET /tenants/{id}/resource-quota`
pub async fn get(State(app): State<App>, who: Who, UrlPath(id): UrlPath<String>) -> Result<Response, Problem> {
    let tenant = tenants::find(&app, &who.caller.principal, &id).await?;
    view(&app, &tenant.id).await
}

/// `PUT /tenants/{id}/resource-quota`
pub async fn replace(
    State(app): State<App>,
    who: Who,
    UrlPath(id): UrlPath<String>,
    StrictJson { value, .. }: StrictJson<ResourceLimits>,
) -> Result<Response, Problem> {
    let tenant = tenants::find(&app, &who.caller.principal, &id).await?;
    let ResourceLimits { bots, cpu_millis, memory_mb, disk_mb } = value;
    let quota = ResourceQuota { bots, cpu_millis, memory_mb, disk_mb };
    domain::replace(&app.domain, &who.caller, &tenant.id, quota).await?;
    view(&app, &tenant.id).await
}
