//! Tenants.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use clawgate_shared::clock;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::tenants::{self as domain, NewTenant, TenantPatch};
use crate::domain::{Permission, Principal};
use crate::http::auth::Who;
use crate::http::body::{StrictJson, StrictQuery, UrlPath, present};
use crate::http::etag::IfMatch;
use crate::http::idempotency::IdempotencyKey;
use crate::http::outcome::Outcome;
use crate::http::page::{Page, PageQuery};
use crate::http::problem::Problem;
use crate::http::rollout::Prefer;
use crate::http::state::App;
use crate::store::tenants::{self, TenantRow};
use crate::store::types::TenantState;

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub struct TenantView {
    id: String,
    slug: String,
    name: String,
    /// IANA name; the calendar of quotas and statistics.
    time_zone: String,
    /// Every request of its bots is refused.
    suspended: bool,
    created_at: String,
    updated_at: String,
}

impl From<TenantRow> for TenantView {
    fn from(row: TenantRow) -> Self {
        Self {
            id: row.id,
            slug: row.slug,
            name: row.name,
            time_zone: row.time_zone,
            suspended: row.state == TenantState::Suspended,
            created_at: clock::rfc3339(row.created_at),
            updated_at: clock::rfc3339(row.updated_at),
        }
    }
}

/// A new tenant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTenant {
    /// Unique; what `x-clawgate-tenant` names.
    pub slug: String,
    /// For people; the slug unless given.
    pub name: Option<String>,
    /// IANA name; UTC unless given.
    pub time_zone: Option<String>,
    /// false unless given.
    pub suspended: Option<bool>,
}

/// Changes to a tenant; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchTenant {
    /// Unique.
    #[serde(default, deserialize_with = "present")]
    pub slug: Option<String>,
    /// For people.
    #[serde(default, deserialize_with = "present")]
    pub name: Option<String>,
    /// IANA name.
    #[serde(default, deserialize_with = "present")]
    pub time_zone: Option<String>,
    /// true: every request of its bots is refused.
    #[serde(default, deserialize_with = "present")]
    pub suspended: Option<bool>,
}

/// A tenant that the caller may see, by id or slug; another one does not exist.
pub(super) async fn find(app: &App, principal: &Principal, name: &str) -> Result<TenantRow, Problem> {
    let mut conn = app.read().await?;
    let row = match tenants::get(&mut conn, name).await? {
        Some(row) => Some(row),
        None => tenants::by_slug(&mut conn, name).await?,
    };
    let row = row.ok_or(Problem::not_found("tenant"))?;
    if principal.require(Permission::TenantManage, &row.id).is_err() {
        principal.require(Permission::CatalogueRead, &row.id)?;
    }
    Ok(row)
}

fn current(row: TenantRow) -> Result<Outcome, Problem> {
    let version = row.version;
    Outcome::current(&TenantView::from(row), version)
}

fn created(row: TenantRow) -> Result<Outcome, Problem> {
    let at = format!("/api/v1/tenants/{}", row.id);
    Ok(current(row)?.created_at(at))
}

/// `GET /tenants`
pub async fn list(
    State(app): State<App>,
    who: Who,
    StrictQuery(query): StrictQuery<PageQuery>,
) -> Result<Json<Page<TenantView>>, Problem> {
    let page = query.wanted()?;
    let principal = &who.caller.principal;
    if let Some(own) = &principal.tenant_id {
        return Ok(Json(Page::whole(vec![find(&app, principal, own).await?.into()])));
    }
    principal.require_platform(Permission::TenantManage)?;
    let paged = tenants::list(&mut *app.read().await?, &page).await?;
    Ok(Json(Page::of(paged, TenantView::from)))
}

/// `GET /tenants/{id}`
pub async fn get(State(app): State<App>, who: Who, UrlPath(id): UrlPath<String>) -> Result<Response, Problem> {
    let row = find(&app, &who.caller.principal, &id).await?;
    Ok(current(row)?.into_response())
}

/// `POST /tenants`
pub async fn create(
    State(app): State<App>,
    who: Who,
    key: IdempotencyKey,
    prefer: Prefer,
    StrictJson { value, bytes }: StrictJson<CreateTenant>,
) -> Result<Response, Problem> {
    let CreateTenant { slug, name, time_zone, suspended } = value;
    let new = NewTenant { slug, name, time_zone, suspended: suspended.unwrap_or(false) };
    let (at, caller) = (app.clone(), who.caller.clone());
    let work = async move { at.outcome(domain::create(&at.domain, &caller, new).await?, created) };
    key.create(&app, who.asker(), &bytes, prefer, work).await
}

/// `PATCH /tenants/{id}`
pub async fn update(
    State(app): State<App>,
    who: Who,
    UrlPath(id): UrlPath<String>,
    if_match: IfMatch,
    prefer: Prefer,
    StrictJson { value, .. }: StrictJson<PatchTenant>,
) -> Result<Response, Problem> {
    let PatchTenant { slug, name, time_zone, suspended } = value;
    let patch = TenantPatch { slug, name, time_zone, suspended };
    let id = find(&app, &who.caller.principal, &id).await?.id;
    let done = domain::update(&app.domain, &who.caller, &id, patch, if_match.version()?).await?;
    app.changed(prefer, done, current).await
}

/// `DELETE /tenants/{id}`
pub async fn delete(
    State(app): State<App>,
    who: Who,
    UrlPath(id): UrlPath<String>,
    if_match: IfMatch,
    prefer: Prefer,
) -> Result<Response, Problem> {
    let id = find(&app, &who.caller.principal, &id).await?.id;
    let done = domain::delete(&app.domain, &who.caller, &id, if_match.version()?).await?;
    Ok(app.gone(prefer, done).await)
}
