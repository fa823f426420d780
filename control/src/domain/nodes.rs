//! Data-plane nodes: who is let in, who is shut out.

use clawgate_shared::clock;
use clawgate_shared::seal::SealError;
use serde_json::json;

use super::change::{Change, Target};
use super::{Caller, Domain, DomainError, Done, Permission};
use crate::fleet::{Fleet, FleetError, MintedEnrollToken};
use crate::store::nodes;

/// Mints a token that lets one node in.
///
/// # Errors
/// Needs `node.write`.
pub async fn mint_enroll_token(
    domain: &Domain,
    fleet: &Fleet,
    caller: &Caller,
) -> Result<Done<MintedEnrollToken>, DomainError> {
    caller.principal.require_nodes(Permission::NodeWrite)?;
    let mut change = Change::begin(domain).await?;
    let minted = fleet.mint_enroll_token(&mut change, &caller.principal.actor).await.map_err(refused)?;
    let target =
        Target { tenant_id: caller.principal.tenant_id.as_deref(), kind: "enroll_token", id: minted.id.as_str() };
    let detail = json!({"kind": "node", "expires_at": minted.expires_at});
    change.audit(caller, "enroll_token.create", target, detail).await?;
    change.keep(minted).await
}

/// Shuts a node out for good: its stream ends within seconds, its next
/// connection, its usage and its certificate's renewal are refused, and its id
/// never comes back.
///
/// # Errors
/// Needs `node.write`; `NotFound` also when it was revoked before.
pub async fn revoke(domain: &Domain, fleet: &Fleet, caller: &Caller, node_id: &str) -> Result<Done<()>, DomainError> {
    caller.principal.require_nodes(Permission::NodeWrite)?;
    let mut change = Change::begin(domain).await?;
    if !nodes::revoke(&mut change, node_id, clock::now_micros()).await? {
        return Err(DomainError::NotFound { what: "node" });
    }
    let target = Target { tenant_id: caller.principal.tenant_id.as_deref(), kind: "node", id: node_id };
    change.audit(caller, "node.revoke", target, json!({})).await?;
    let done = change.keep(()).await?;
    fleet.forget(node_id);
    Ok(done)
}

/// What minting can fail with.
fn refused(error: FleetError) -> DomainError {
    match error {
        FleetError::Store(error) => error.into(),
        FleetError::Vault(error) => error.into(),
        FleetError::Seal(error) => DomainError::Vault(error.into()),
        _ => DomainError::Vault(SealError::Random.into()),
    }
}
