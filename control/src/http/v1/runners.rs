//! Runners: the processes that hold a container engine.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use clawgate_shared::clock;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

use super::nodes::{CreateEnrollToken, EnrollToken};
use crate::domain::{Permission, nodes as domain};
use crate::fleet::EnrollKind;
use crate::http::auth::Who;
use crate::http::body::{OptionalJson, UrlPath};
use crate::http::idempotency::IdempotencyKey;
use crate::http::outcome::Outcome;
use crate::http::page::Page;
use crate::http::problem::Problem;
use crate::http::rollout::Prefer;
use crate::http::state::App;
use crate::store::runners::{self, RunnerRow};

/// Most runners that are listed.
const MAX: i64 = 10_000;

/// A runner: what is stored of it, and whether it is connected to this process.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Runner)]
pub struct RunnerView {
    id: String,
    name: String,
    /// Its release.
    version: String,
    connected: bool,
    /// unknown, ready or engine_unavailable.
    state: &'static str,
    /// Why its engine is not at hand.
    state_reason: Option<String>,
    labels: BTreeMap<String, String>,
    /// What it told of its engine.
    #[schema(value_type = Object)]
    engine: Value,
    /// What bots may take of it together; 0: no limit is known.
    capacity: RunnerCapacity,
    last_seen: Option<String>,
    /// null over the Unix socket.
    certificate_expires_at: Option<String>,
    created_at: String,
}

/// What bots may take of a runner together.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunnerCapacity {
    cpu_millis: u64,
    memory_mb: u64,
    max_bots: u64,
}

fn view(row: RunnerRow, connected: &[String]) -> RunnerView {
    RunnerView {
        connected: connected.contains(&row.id),
        id: row.id,
        name: row.name,
        version: row.software_version,
        state: row.state.as_str(),
        state_reason: Some(row.state_reason).filter(|text| !text.is_empty()),
        labels: row.labels,
        engine: row.engine,
        capacity: RunnerCapacity {
            cpu_millis: row.capacity.cpu_millis,
            memory_mb: row.capacity.memory_mb,
            max_bots: row.capacity.max_bots,
        },
        last_seen: row.last_seen_at.map(clock::rfc3339),
        certificate_expires_at: row.certificate_expires_at.map(clock::rfc3339),
        created_at: clock::rfc3339(row.created_at),
    }
}

/// `GET /runners`
pub async fn list(State(app): State<App>, who: Who) -> Result<Json<Page<RunnerView>>, Problem> {
    who.caller.principal.require_nodes(Permission::NodeRead)?;
    let rows = runners::list(&mut *app.read().await?, MAX).await?;
    let connected = app.runtime.links.connected();
    Ok(Json(Page::whole(rows.into_iter().map(|row| view(row, &connected)).collect())))
}

/// `GET /runners/{id}`
pub async fn get(State(app): State<App>, who: Who, UrlPath(id): UrlPath<String>) -> Result<Json<RunnerView>, Problem> {
    who.caller.principal.require_nodes(Permission::NodeRead)?;
    let row = runners::find(&mut *app.read().await?, &id).await?.filter(|row| row.revoked_at.is_none());
    Ok(Json(view(row.ok_or(Problem::not_found("runner"))?, &app.runtime.links.connected())))
}

/// `DELETE /runners/{id}`
pub async fn revoke(
    State(app): State<App>,
    who: Who,
    UrlPath(id): UrlPath<String>,
    prefer: Prefer,
) -> Result<Response, Problem> {
    let done = domain::revoke_runner(&app.domain, &app.runtime, &who.caller, &id).await?;
    Ok(app.gone(prefer, done).await)
}

/// `POST /runners/enroll-tokens`
pub async fn mint(
    State(app): State<App>,
    who: Who,
    key: IdempotencyKey,
    prefer: Prefer,
    OptionalJson { bytes, .. }: OptionalJson<CreateEnrollToken>,
) -> Result<Response, Problem> {
    let (at, caller) = (app.clone(), who.caller.clone());
    let work = async move {
        let done = domain::mint_enroll_token(&at.domain, &at.fleet, &caller, EnrollKind::Runner).await?;
        at.outcome(done, |minted| Outcome::minted(&EnrollToken::from(minted)))
    };
    key.create(&app, who.asker(), &bytes, prefer, work).await
}
