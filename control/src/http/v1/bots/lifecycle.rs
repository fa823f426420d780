//! What is wanted of a bot: up or down, served or refused.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;

use super::current;
use crate::domain::bots::{self as domain, Drive};
use crate::domain::{DomainError, Done};
use crate::http::auth::InTenant;
use crate::http::body::UrlPath;
use crate::http::problem::Problem;
use crate::http::rollout::Prefer;
use crate::http::state::App;
use crate::store::bots::BotRow;

/// How long the answer to a kill waits for the container's end; the order stands.
const KILL: Duration = Duration::from_secs(2);

/// What every verb here takes.
type Request = (State<App>, InTenant, UrlPath<String>, Prefer);

async fn answer(app: App, prefer: Prefer, done: Result<Done<BotRow>, DomainError>) -> Result<Response, Problem> {
    app.changed(prefer, done?, |row| current(&app, row)).await
}

async fn drive((State(app), inside, UrlPath(hostname), prefer): Request, verb: Drive) -> Result<Response, Problem> {
    let done = domain::drive(&app.domain, &inside.caller, (&inside.tenant.id, &hostname), verb).await;
    answer(app, prefer, done).await
}

async fn set_suspended(
    (State(app), inside, UrlPath(hostname), prefer): Request,
    on: bool,
) -> Result<Response, Problem> {
    let done = domain::suspend(&app.domain, &inside.caller, (&inside.tenant.id, &hostname), on).await;
    answer(app, prefer, done).await
}

/// `POST /bots/{hostname}/start`
pub async fn start(app: State<App>, of: InTenant, bot: UrlPath<String>, prefer: Prefer) -> Result<Response, Problem> {
    drive((app, of, bot, prefer), Drive::Start).await
}

/// `POST /bots/{hostname}/stop`
pub async fn stop(app: State<App>, of: InTenant, bot: UrlPath<String>, prefer: Prefer) -> Result<Response, Problem> {
    drive((app, of, bot, prefer), Drive::Stop).await
}

/// `POST /bots/{hostname}/restart`
pub async fn restart(app: State<App>, of: InTenant, bot: UrlPath<String>, prefer: Prefer) -> Result<Response, Problem> {
    drive((app, of, bot, prefer), Drive::Restart).await
}

/// `POST /bots/{hostname}/kill`
pub async fn kill(
    State(app): State<App>,
    of: InTenant,
    UrlPath(hostname): UrlPath<String>,
    prefer: Prefer,
) -> Result<Response, Problem> {
    let done = domain::kill(&app.domain, &of.caller, (&of.tenant.id, &hostname)).await?;
    // Its streams end while its container does.
    let bot = done.value.clone();
    let (answer, ended) =
        tokio::join!(answer(app.clone(), prefer, Ok(done)), tokio::time::timeout(KILL, app.runtime.kill(&bot)));
    if !matches!(ended, Ok(Ok(()))) {
        tracing::warn!(bot = bot.id, "a killed bot's container ends later");
    }
    answer
}

/// `POST /bots/{hostname}/suspend`
pub async fn suspend(app: State<App>, of: InTenant, bot: UrlPath<String>, prefer: Prefer) -> Result<Response, Problem> {
    set_suspended((app, of, bot, prefer), true).await
}

/// `POST /bots/{hostname}/resume`
pub async fn resume(app: State<App>, of: InTenant, bot: UrlPath<String>, prefer: Prefer) -> Result<Response, Problem> {
    set_suspended((app, of, bot, prefer), false).await
}
