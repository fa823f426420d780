//! What is wanted of a bot: up or down, served or refused.

use axum::extract::State;
use axum::response::Response;

use super::outcome;
use crate::domain::bots::{self as domain, Drive};
use crate::http::auth::InTenant;
use crate::http::body::UrlPath;
use crate::http::problem::Problem;
use crate::http::rollout::Prefer;
use crate::http::state::App;

async fn drive(app: App, inside: InTenant, hostname: &str, prefer: Prefer, verb: Drive) -> Result<Response, Problem> {
    let done = domain::drive(&app.domain, &inside.caller, (&inside.tenant.id, hostname), verb).await?;
    let (row, revision) = app.committed(done);
    Ok(app.answer(prefer, outcome(&app, row, revision)?).await)
}

async fn set_suspended(
    app: App,
    inside: InTenant,
    hostname: &str,
    prefer: Prefer,
    suspended: bool,
) -> Result<Response, Problem> {
    let done = domain::suspend(&app.domain, &inside.caller, (&inside.tenant.id, hostname), suspended).await?;
    let (row, revision) = app.committed(done);
    Ok(app.answer(prefer, outcome(&app, row, revision)?).await)
}

/// `POST /bots/{hostname}/start`
pub async fn start(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
    prefer: Prefer,
) -> Result<Response, Problem> {
    drive(app, inside, &hostname, prefer, Drive::Start).await
}

/// `POST /bots/{hostname}/stop`
pub async fn stop(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
    prefer: Prefer,
) -> Result<Response, Problem> {
    drive(app, inside, &hostname, prefer, Drive::Stop).await
}

/// `POST /bots/{hostname}/suspend`
pub async fn suspend(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
    prefer: Prefer,
) -> Result<Response, Problem> {
    set_suspended(app, inside, &hostname, prefer, true).await
}

/// `POST /bots/{hostname}/resume`
pub async fn resume(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(hostname): UrlPath<String>,
    prefer: Prefer,
) -> Result<Response, Problem> {
    set_suspended(app, inside, &hostname, prefer, false).await
}
