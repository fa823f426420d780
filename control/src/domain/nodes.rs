//! Data-plane nodes and runners: who is let in, who is shut out.

use clawgate_shared::clock;
use clawgate_shared::seal::SealError;
use serde_json::json;

use super::change::{Change, Target};
use super::{Caller, Domain, DomainError, Done, Permission};
use crate::fleet::{EnrollKind, Fleet, FleetError, MintedEnrollToken};
use crate::runtime::Runtime;
use crate::store::{nodes, runners};

/// Mints a token that lets one node or one runner in.
///
/// # Errors
/// Needs `node.write`.
pub async fn mint_enroll_token(
    domain: &Domain,
    fleet: &Fleet,
    caller: &Caller,
    kind: EnrollKind,
) -> Result<Done<MintedEnrollToken>, DomainError> {
    caller.principal.require_nodes(Permission::NodeWrite)?;
    let mut change = Change::begin(domain).await?;
    let minted = fleet.mint_enroll_token(&mut change, kind, &caller.principal.actor).await.map_err(refused)?;
    let target =
        Target { tenant_id: caller.principal.tenant_id.as_deref(), kind: "enroll_token", id: minted.id.as_str() };
    let detail = json!({"kind": kind.as_str(), "expires_at": minted.expires_at});
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

/// Shuts a runner out for good: it gets no more orders and its id never comes
/// back. Its bots go on where they are until they are cleared up.
///
/// # Errors
/// Needs `node.write`; `NotFound` also when it was revoked before.
pub async fn revoke_runner(
    domain: &Domain,
    runtime: &Runtime,
    caller: &Caller,
    runner_id: &str,
) -> Result<Done<()>, DomainError> {
    caller.principal.require_nodes(Permission::NodeWrite)?;
    let mut change = Change::begin(domain).await?;
    if !runners::revoke(&mut change, runner_id, clock::now_micros()).await? {
        return Err(DomainError::NotFound { what: "runner" });
    }
    let target = Target { tenant_id: caller.principal.tenant_id.as_deref(), kind: "runner", id: runner_id };
    change.audit(caller, "runner.revoke", target, json!({})).await?;
    let done = change.keep(()).await?;
    runtime.links.forget(runner_id);
    Ok(done)
}

/// Writes down that somebody has what is out of place cleared up.
///
/// # Errors
/// Needs `node.write`.
pub async fn cleaning_up(domain: &Domain, caller: &Caller) -> Result<Done<()>, DomainError> {
    caller.principal.require_nodes(Permission::NodeWrite)?;
    let mut change = Change::begin(domain).await?;
    let tenant_id = caller.principal.tenant_id.clone();
    let target = Target { tenant_id: tenant_id.as_deref(), kind: "diagnostics", id: "cleanup" };
    change.audit(caller, "diagnostics.cleanup", target, json!({})).await?;
    change.keep(()).await
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
