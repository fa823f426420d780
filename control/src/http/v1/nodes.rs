//! Data-plane nodes and the tokens that let a new one in.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use clawgate_shared::clock;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::domain::{Caller, DomainError, Permission};
use crate::fleet::NodeView;
use crate::http::auth::Who;
use crate::http::body::OptionalJson;
use crate::http::idempotency::IdempotencyKey;
use crate::http::outcome::Outcome;
use crate::http::page::Page;
use crate::http::problem::Problem;
use crate::http::state::App;
use crate::store::audit::{self, NewAudit};

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

/// Nodes are the platform's, and operators of any tenant see and enrol them.
fn require(caller: &Caller, permission: Permission) -> Result<(), Problem> {
    if caller.principal.has(permission) {
        return Ok(());
    }
    Err(DomainError::Forbidden { permission: permission.as_str() }.into())
}

/// `GET /nodes`
pub async fn list(State(app): State<App>, who: Who) -> Result<Json<Page<NodeStatus>>, Problem> {
    require(&who.caller, Permission::NodeRead)?;
    let nodes = app.fleet.list_nodes().await?;
    Ok(Json(Page::whole(nodes.into_iter().map(NodeStatus::from).collect())))
}

/// `POST /nodes/enroll-tokens`
pub async fn mint(
    State(app): State<App>,
    who: Who,
    key: IdempotencyKey,
    OptionalJson { bytes, .. }: OptionalJson<CreateEnrollToken>,
) -> Result<Response, Problem> {
    require(&who.caller, Permission::NodeWrite)?;
    let (at, caller) = (app.clone(), who.caller.clone());
    let work = async move {
        let mut tx = at.db().begin().await?;
        audit::lock(&mut tx).await?;
        let minted = at.fleet.mint_enroll_token(&mut tx, &caller.principal.actor).await?;
        let entry = NewAudit {
            tenant_id: caller.principal.tenant_id,
            actor: caller.principal.actor,
            action: "enroll_token.create".into(),
            target_kind: "enroll_token".into(),
            target_id: minted.id.clone(),
            detail: json!({"kind": "node", "expires_at": minted.expires_at}).to_string(),
            ip: caller.ip,
            user_agent: caller.user_agent.chars().filter(|c| !c.is_control()).take(256).collect(),
        };
        audit::append(&mut tx, entry).await?;
        tx.commit().await?;
        let expires_at = clock::rfc3339(minted.expires_at);
        Outcome::created(&EnrollToken { id: minted.id, token: minted.text.to_string(), expires_at })
    };
    Ok(key.once(&app, who.asker(), &bytes, work).await?.into_response())
}
