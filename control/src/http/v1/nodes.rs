//! Data-plane nodes and the tokens that let a new one in.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use clawgate_shared::clock;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{Permission, nodes as domain};
use crate::fleet::{EnrollKind, MintedEnrollToken, NodeView};
use crate::http::auth::Who;
use crate::http::body::{OptionalJson, UrlPath};
use crate::http::idempotency::IdempotencyKey;
use crate::http::outcome::Outcome;
use crate::http::page::Page;
use crate::http::problem::Problem;
use crate::http::rollout::Prefer;
use crate::http::state::App;

/// A node: what is stored of it, overlaid by what is live.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
pub struct NodeStatus {
    id: String,
    name: String,
    /// Its release.
    version: String,
    /// What it serves, in the form of `x-clawgate-config`.
    acked_version: Option<String>,
    acked_revision: Option<u64>,
    /// What it refused last, unless it took something since.
    nacked_version: Option<String>,
    /// Why, in its own words.
    nack_reason: Option<String>,
    connected: bool,
    last_seen: Option<String>,
    /// Usage records it has not delivered.
    spool_backlog: u64,
    spool_bytes: u64,
    spool_oldest_seconds: f64,
    /// Exchanges under way.
    inflight: u64,
    /// Since its process started.
    requests_total: u64,
    /// null over the Unix socket.
    certificate_expires_at: Option<String>,
    created_at: String,
}

impl From<NodeView> for NodeStatus {
    fn from(node: NodeView) -> Self {
        Self {
            id: node.id,
            name: node.name,
            version: node.version,
            acked_version: node.acked_version,
            acked_revision: node.acked_revision,
            nacked_version: node.nacked_version,
            nack_reason: node.nack_reason,
            connected: node.connected,
            last_seen: node.last_seen.map(clock::rfc3339),
            spool_backlog: node.spool_backlog,
            spool_bytes: node.spool_bytes,
            spool_oldest_seconds: node.spool_oldest_seconds,
            inflight: node.inflight,
            requests_total: node.requests_total,
            certificate_expires_at: node.certificate_expires_at.map(clock::rfc3339),
            created_at: clock::rfc3339(node.created_at),
        }
    }
}

/// Nothing can be chosen yet.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateEnrollToken {}

/// Lets one node in.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnrollToken {
    id: String,
    /// Shown once.
    token: String,
    expires_at: String,
}

impl From<MintedEnrollToken> for EnrollToken {
    fn from(minted: MintedEnrollToken) -> Self {
        Self { id: minted.id, token: minted.text.to_string(), expires_at: clock::rfc3339(minted.expires_at) }
    }
}

/// `GET /nodes`
pub async fn list(State(app): State<App>, who: Who) -> Result<Json<Page<NodeStatus>>, Problem> {
    who.caller.principal.require_nodes(Permission::NodeRead)?;
    let nodes = app.fleet.list_nodes().await?;
    Ok(Json(Page::whole(nodes.into_iter().map(NodeStatus::from).collect())))
}

/// `GET /nodes/{id}`
pub async fn get(State(app): State<App>, who: Who, UrlPath(id): UrlPath<String>) -> Result<Json<NodeStatus>, Problem> {
    who.caller.principal.require_nodes(Permission::NodeRead)?;
    let nodes = app.fleet.list_nodes().await?;
    let node = nodes.into_iter().find(|node| node.id == id).ok_or(Problem::not_found("node"))?;
    Ok(Json(node.into()))
}

/// `DELETE /nodes/{id}`
pub async fn revoke(
    State(app): State<App>,
    who: Who,
    UrlPath(id): UrlPath<String>,
    prefer: Prefer,
) -> Result<Response, Problem> {
    let done = domain::revoke(&app.domain, &app.fleet, &who.caller, &id).await?;
    Ok(app.gone(prefer, done).await)
}

/// `POST /nodes/enroll-tokens`
pub async fn mint(
    State(app): State<App>,
    who: Who,
    key: IdempotencyKey,
    prefer: Prefer,
    OptionalJson { bytes, .. }: OptionalJson<CreateEnrollToken>,
) -> Result<Response, Problem> {
    let (at, caller) = (app.clone(), who.caller.clone());
    let work = async move {
        let done = domain::mint_enroll_token(&at.domain, &at.fleet, &caller, EnrollKind::Node).await?;
        at.outcome(done, |minted| Outcome::minted(&EnrollToken::from(minted)))
    };
    key.create(&app, who.asker(), &bytes, prefer, work).await
}
