//! API tokens: how scripts and the command line act as somebody.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use clawgate_shared::clock;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::instant;
use crate::domain::api_tokens::{self as domain, NewApiToken};
use crate::domain::{DomainError, Permission, Role, tenants};
use crate::http::auth::Who;
use crate::http::body::{StrictJson, StrictQuery, UrlPath};
use crate::http::idempotency::{Asker, IdempotencyKey};
use crate::http::outcome::Outcome;
use crate::http::page::{self, Page};
use crate::http::problem::Problem;
use crate::http::rollout::Prefer;
use crate::http::state::App;
use crate::store::api_tokens::{self, ApiTokenRow};

/// An API token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiToken)]
pub struct ApiTokenView {
    id: String,
    /// null: of the platform.
    tenant_id: Option<String>,
    name: String,
    role: String,
    /// Narrows the role; empty: the whole role.
    scopes: Vec<String>,
    last4: String,
    created_by: String,
    created_at: String,
    expires_at: Option<String>,
    /// To the minute.
    last_used_at: Option<String>,
    revoked_at: Option<String>,
    /// Only in the answer to its creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl ApiTokenView {
    /// `token`: only for one that was minted just now.
    #[must_use]
    pub fn new(row: ApiTokenRow, token: Option<String>) -> Self {
        Self {
            id: row.id,
            tenant_id: row.tenant_id,
            name: row.name,
            role: row.role,
            scopes: row.scopes,
            last4: row.last4,
            created_by: row.created_by,
            created_at: clock::rfc3339(row.created_at),
            expires_at: row.expires_at.map(clock::rfc3339),
            last_used_at: row.last_used_at.map(clock::rfc3339),
            revoked_at: row.revoked_at.map(clock::rfc3339),
            token,
        }
    }
}

/// A new API token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApiToken {
    /// For people.
    pub name: String,
    /// viewer, developer, operator, admin, owner, auditor or platform_admin.
    pub role: String,
    /// Narrows the role.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// RFC 3339; without it the token does not expire.
    pub expires_at: Option<String>,
}

/// Which tokens.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct TokensQuery {
    /// Rows, 1 to 200; 50 unless given.
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    after: Option<String>,
    /// true: those of the platform instead of a tenant's.
    platform: Option<bool>,
}

/// Whose tokens are meant: a tenant's, or with `None` the platform's.
async fn scope(app: &App, who: &Who, platform: bool) -> Result<Option<String>, Problem> {
    let principal = &who.caller.principal;
    if platform {
        principal.require_platform(Permission::TokenRead)?;
        return Ok(None);
    }
    match tenants::select(&app.domain, principal, who.tenant_slug.as_deref()).await {
        Ok(row) => Ok(Some(row.id)),
        // A platform administrator has no tenant but the platform itself.
        Err(DomainError::TenantRequired) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// `GET /api-tokens`
pub async fn list(
    State(app): State<App>,
    who: Who,
    StrictQuery(query): StrictQuery<TokensQuery>,
) -> Result<Json<Page<ApiTokenView>>, Problem> {
    let page = page::wanted(query.limit, query.after.as_deref())?;
    let tenant_id = scope(&app, &who, query.platform.unwrap_or(false)).await?;
    let principal = &who.caller.principal;
    match &tenant_id {
        Some(tenant_id) => principal.require(Permission::TokenRead, tenant_id)?,
        None => principal.require_platform(Permission::TokenRead)?,
    }
    let paged = api_tokens::list(&mut *app.read().await?, tenant_id.as_deref(), &page).await?;
    Ok(Json(Page::of(paged, |row| ApiTokenView::new(row, None))))
}

/// `POST /api-tokens`: a token of a platform role belongs to the platform.
pub async fn create(
    State(app): State<App>,
    who: Who,
    key: IdempotencyKey,
    prefer: Prefer,
    StrictJson { value, bytes }: StrictJson<CreateApiToken>,
) -> Result<Response, Problem> {
    let CreateApiToken { name, role, scopes, expires_at } = value;
    let expires_at = instant("expires_at", expires_at.as_deref())?;
    let platform = Role::parse(&role).is_some_and(Role::is_platform);
    let tenant_id = scope(&app, &who, platform).await?;
    let new = NewApiToken { name, role, scopes, expires_at };
    let (at, caller, place) = (app.clone(), who.caller.clone(), tenant_id.clone());
    let work = async move {
        let done = domain::create(&at.domain, &caller, place.as_deref(), new).await?;
        at.outcome(done, |minted| Outcome::minted(&ApiTokenView::new(minted.row, Some(minted.text.to_string()))))
    };
    let asker = Asker { tenant_id: tenant_id.as_deref().unwrap_or_default(), ..who.asker() };
    key.create(&app, asker, &bytes, prefer, work).await
}

/// `DELETE /api-tokens/{id}`
pub async fn delete(State(app): State<App>, who: Who, UrlPath(id): UrlPath<String>) -> Result<Response, Problem> {
    let tenant_id = scope(&app, &who, false).await?;
    let mut result = domain::revoke(&app.domain, &who.caller, tenant_id.as_deref(), &id).await;
    // The bootstrap token also holds the platform's.
    if matches!(result, Err(DomainError::NotFound { .. })) && who.caller.principal.tenant_id.is_none() {
        result = domain::revoke(&app.domain, &who.caller, None, &id).await;
    }
    let ((), _) = app.committed(result?);
    Ok(Outcome::gone().into_response())
}
