//! Rate and concurrency limits of bots and tenants.

use axum::extract::State;
use axum::response::Response;

use super::bots::requests::LimitsBody;
use super::tenants;
use crate::domain::{Permission, limits as domain};
use crate::http::auth::{InTenant, Who};
use crate::http::body::{StrictJson, UrlPath};
use crate::http::edit::Edit;
use crate::http::etag::IfMatch;
use crate::http::outcome::Outcome;
use crate::http::problem::Problem;
use crate::http::rollout::Prefer;
use crate::http::state::App;
use crate::store::bots::{self, Limits};

fn current(limits: Limits, version: u64) -> Result<Outcome, Problem> {
    Outcome::current(&LimitsBody::from(limits), version)
}

/// `GET /bots/{hostname}/limits`
pub async fn bot_get(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
) -> Result<Response, Problem> {
    inside.require(Permission::BotRead)?;
    let row = bots::get(&mut *app.read().await?, &inside.tenant.id, &hostname).await?;
    let row = row.ok_or(Problem::not_found("bot"))?;
    Ok(current(row.limits, row.version)?.into_response())
}

/// `PUT /bots/{hostname}/limits`
pub async fn bot_replace(edit: Edit, StrictJson { value, .. }: StrictJson<LimitsBody>) -> Result<Response, Problem> {
    let done = domain::replace_of_bot(edit.domain(), edit.caller(), edit.place(), value.into(), edit.version).await?;
    edit.changed(done, |row| current(row.limits, row.version)).await
}

/// `GET /tenants/{id}/limits`
pub async fn tenant_get(State(app): State<App>, who: Who, UrlPath(id): UrlPath<String>) -> Result<Response, Problem> {
    let row = tenants::find(&app, &who.caller.principal, &id).await?;
    Ok(current(row.limits, row.version)?.into_response())
}

/// `PUT /tenants/{id}/limits`
pub async fn tenant_replace(
    State(app): State<App>,
    who: Who,
    UrlPath(id): UrlPath<String>,
    if_match: IfMatch,
    prefer: Prefer,
    StrictJson { value, .. }: StrictJson<LimitsBody>,
) -> Result<Response, Problem> {
    let id = tenants::find(&app, &who.caller.principal, &id).await?.id;
    let done = domain::replace_of_tenant(&app.domain, &who.caller, &id, value.into(), if_match.version()?).await?;
    app.changed(prefer, done, |row| current(row.limits, row.version)).await
}
