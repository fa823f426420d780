//! Who a token is.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{Permission, tenants};
use crate::http::auth::Who;
use crate::http::problem::Problem;
use crate::http::state::App;

/// The caller.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    /// As in the audit log.
    actor: String,
    role: &'static str,
    /// What may be done, narrowed by the token's scopes.
    permissions: Vec<&'static str>,
    /// The tenant that requests without `x-clawgate-tenant` are about; null:
    /// one must be named.
    tenant: Option<MyTenant>,
}

/// The caller's tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct MyTenant {
    id: String,
    slug: String,
    name: String,
    time_zone: String,
}

/// `GET /auth/me`
pub async fn me(State(app): State<App>, who: Who) -> Result<Json<Me>, Problem> {
    let principal = &who.caller.principal;
    let tenant = tenants::select(&app.domain, principal, who.tenant_slug.as_deref()).await;
    let tenant = match tenant {
        Ok(row) => Some(MyTenant { id: row.id, slug: row.slug, name: row.name, time_zone: row.time_zone }),
        Err(crate::domain::DomainError::TenantRequired) => None,
        Err(error) => return Err(error.into()),
    };
    let permissions =
        Permission::ALL.iter().filter(|permission| principal.has(**permission)).map(|permission| permission.as_str());
    Ok(Json(Me {
        actor: principal.actor.clone(),
        role: principal.role.as_str(),
        permissions: permissions.collect(),
        tenant,
    }))
}
