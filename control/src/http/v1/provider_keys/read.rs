//! Reading provider keys, without their secrets.

use axum::Json;
use axum::extract::State;
use axum::response::Response;

use super::views::{ProviderKeyHealth, ProviderKeyView};
use super::{KeysQuery, current};
use crate::domain::Permission;
use crate::http::auth::InTenant;
use crate::http::body::{StrictQuery, UrlPath};
use crate::http::page::{self, Page};
use crate::http::problem::Problem;
use crate::http::state::App;
use crate::store::page::Paged;
use crate::store::provider_keys::{self, KeyFilter, ProviderKeyRow};

async fn rows(app: &App, inside: &InTenant, query: &KeysQuery) -> Result<Paged<ProviderKeyRow>, Problem> {
    inside.require(Permission::KeyRead)?;
    let page = page::wanted(query.limit, query.after.as_deref())?;
    let filter = KeyFilter { vendor: query.vendor.as_deref(), project_id: query.project_id.as_deref() };
    Ok(provider_keys::list(&mut *app.read().await?, &inside.tenant.id, filter, &page).await?)
}

/// `GET /provider-keys`
pub async fn list(
    State(app): State<App>,
    inside: InTenant,
    StrictQuery(query): StrictQuery<KeysQuery>,
) -> Result<Json<Page<ProviderKeyView>>, Problem> {
    let live = app.fleet.key_states();
    let view = |row| ProviderKeyView::from(live.overlay(row).0);
    Ok(Json(Page::of(rows(&app, &inside, &query).await?, view)))
}

/// `GET /provider-keys/health`
pub async fn health(
    State(app): State<App>,
    inside: InTenant,
    StrictQuery(query): StrictQuery<KeysQuery>,
) -> Result<Json<Page<ProviderKeyHealth>>, Problem> {
    let live = app.fleet.key_states();
    let view = |row| ProviderKeyHealth::from(live.overlay(row));
    Ok(Json(Page::of(rows(&app, &inside, &query).await?, view)))
}

/// `GET /provider-keys/{id}`
pub async fn get(State(app): State<App>, inside: InTenant, UrlPath(id): UrlPath<String>) -> Result<Response, Problem> {
    inside.require(Permission::KeyRead)?;
    let row = provider_keys::get(&mut *app.read().await?, &inside.tenant.id, &id).await?;
    let (row, _) = app.fleet.key_states().overlay(row.ok_or(Problem::not_found("provider key"))?);
    Ok(current(row)?.into_response())
}
