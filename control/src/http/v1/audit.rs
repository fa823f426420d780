//! The audit log.

use axum::Json;
use axum::extract::State;
use clawgate_shared::clock;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::domain::{Permission, tenants};
use crate::http::auth::Who;
use crate::http::body::StrictQuery;
use crate::http::page::{self, Page};
use crate::http::problem::Problem;
use crate::http::state::App;
use crate::store::audit::{self, AuditFilter, AuditRow};

/// One row of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    id: String,
    /// Gap-free; each row is chained to the one before.
    seq: u64,
    created_at: String,
    /// null: the platform.
    tenant_id: Option<String>,
    /// Who.
    actor: String,
    /// What: bot.create, provider_key.rotate, …
    action: String,
    /// To what kind of thing.
    resource_kind: String,
    /// To which.
    resource_id: String,
    /// Names and changed fields; never a secret.
    #[schema(value_type = Object)]
    detail: Value,
    /// Of the caller.
    ip: Option<String>,
    /// Of the caller.
    user_agent: Option<String>,
    /// Hex; covers this row and the hash before it.
    hash: String,
}

impl From<AuditRow> for AuditEntry {
    fn from(row: AuditRow) -> Self {
        let some = |text: String| (!text.is_empty()).then_some(text);
        Self {
            id: row.id,
            seq: row.seq,
            created_at: clock::rfc3339(row.at),
            tenant_id: row.entry.tenant_id,
            actor: row.entry.actor,
            action: row.entry.action,
            resource_kind: row.entry.target_kind,
            resource_id: row.entry.target_id,
            detail: serde_json::from_str(&row.entry.detail).unwrap_or_default(),
            ip: some(row.entry.ip),
            user_agent: some(row.entry.user_agent),
            hash: row.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// What the list is narrowed to.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Rows, 1 to 200; 50 unless given.
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub after: Option<String>,
    /// One action.
    pub action: Option<String>,
    /// One resource.
    pub resource_id: Option<String>,
}

/// `GET /audit`: a tenant's rows; for the platform, unless it names a tenant,
/// everything.
pub async fn list(
    State(app): State<App>,
    who: Who,
    StrictQuery(query): StrictQuery<AuditQuery>,
) -> Result<Json<Page<AuditEntry>>, Problem> {
    let page = page::wanted(query.limit, query.after.as_deref())?;
    let principal = &who.caller.principal;
    let tenant_id = match (&principal.tenant_id, &who.tenant_slug) {
        (None, None) => {
            principal.require_platform(Permission::AuditRead)?;
            None
        }
        (own, slug) => {
            let id = tenants::select(&app.domain, principal, slug.as_deref()).await?.id;
            if own.is_some() {
                principal.require(Permission::AuditRead, &id)?;
            } else {
                principal.require_platform(Permission::AuditRead)?;
            }
            Some(id)
        }
    };
    let filter = AuditFilter {
        tenant_id: tenant_id.as_deref(),
        action: query.action.as_deref(),
        target_id: query.resource_id.as_deref(),
    };
    let paged = audit::list(&mut *app.read().await?, filter, &page).await?;
    Ok(Json(Page::of(paged, AuditEntry::from)))
}
