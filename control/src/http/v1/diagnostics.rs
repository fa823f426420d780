//! What is out of place among bots that we run.
//!
//! Who belongs to a tenant sees and clears what is the tenant's.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{Permission, nodes as domain};
use crate::http::auth::Who;
use crate::http::problem::Problem;
use crate::http::state::App;
use crate::runtime::orphans::{Cleared, Orphan};

/// One thing out of place.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Orphan)]
pub struct OrphanView {
    /// container_without_bot, bot_without_container or bot_without_runner.
    kind: &'static str,
    tenant_id: String,
    bot_id: String,
    hostname: String,
    runner_id: Option<String>,
    container_id: Option<String>,
}

/// Everything out of place.
#[derive(Debug, Serialize, ToSchema)]
pub struct Orphans {
    data: Vec<OrphanView>,
}

/// What became of one thing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ClearedOrphan)]
pub struct ClearedView {
    orphan: OrphanView,
    /// removed, retried, displaced or failed.
    outcome: &'static str,
    /// Why it failed.
    reason_code: Option<&'static str>,
    reason: Option<String>,
}

/// What became of everything.
#[derive(Debug, Serialize, ToSchema)]
pub struct CleanUp {
    data: Vec<ClearedView>,
}

impl From<&Orphan> for OrphanView {
    fn from(orphan: &Orphan) -> Self {
        match orphan {
            Orphan::Container { runner_id, marked } => Self {
                kind: "container_without_bot",
                tenant_id: marked.tenant_id.clone(),
                bot_id: marked.bot_id.clone(),
                hostname: marked.hostname.clone(),
                runner_id: Some(runner_id.clone()),
                container_id: Some(marked.cell.container_id.clone()),
            },
            Orphan::Bot { bot, runner_gone } => Self {
                kind: if *runner_gone { "bot_without_runner" } else { "bot_without_container" },
                tenant_id: bot.tenant_id.clone(),
                bot_id: bot.id.clone(),
                hostname: bot.hostname.clone(),
                runner_id: bot.container.as_deref().and_then(|container| container.runner_id.clone()),
                container_id: None,
            },
        }
    }
}

impl From<Cleared> for ClearedView {
    fn from(cleared: Cleared) -> Self {
        let outcome = match (&cleared.failure, &cleared.orphan) {
            (Some(_), _) => "failed",
            (None, Orphan::Container { .. }) => "removed",
            (None, Orphan::Bot { runner_gone: true, .. }) => "displaced",
            (None, Orphan::Bot { .. }) => "retried",
        };
        Self {
            orphan: OrphanView::from(&cleared.orphan),
            outcome,
            reason_code: cleared.failure.as_ref().map(|failure| failure.reason.as_str()),
            reason: cleared.failure.map(|failure| failure.text),
        }
    }
}

/// `GET /diagnostics/orphans`
pub async fn orphans(State(app): State<App>, who: Who) -> Result<Json<Orphans>, Problem> {
    who.caller.principal.require_nodes(Permission::NodeRead)?;
    let found = app.runtime.orphans(who.caller.principal.tenant_id.as_deref()).await?;
    Ok(Json(Orphans { data: found.iter().map(OrphanView::from).collect() }))
}

/// `POST /diagnostics/cleanup`
pub async fn cleanup(State(app): State<App>, who: Who) -> Result<Json<CleanUp>, Problem> {
    domain::cleaning_up(&app.domain, &who.caller).await?;
    let cleared = app.runtime.clean_up(who.caller.principal.tenant_id.as_deref()).await?;
    Ok(Json(CleanUp { data: cleared.into_iter().map(ClearedView::from).collect() }))
}
