//! API tokens: minted once, stored as a hash, never more than their maker has.

use clawgate_shared::token::{self, TokenKind};
use clawgate_shared::{clock, id};
use serde_json::json;
use zeroize::Zeroizing;

use super::change::{Change, Target};
use super::rules::Errors;
use super::{Caller, Domain, DomainError, Done, Permission, Role};
use crate::store::api_tokens::{self, ApiTokenRow};
use crate::store::tenants;

/// A token to be made.
#[derive(Clone, Debug, Default)]
pub struct NewApiToken {
    /// For people.
    pub name: String,
    /// A role of the contract.
    pub role: String,
    /// Permissions that it is narrowed to; empty: the whole role.
    pub scopes: Vec<String>,
    /// Unix microseconds; `None`: never.
    pub expires_at: Option<i64>,
}

/// A new token with its text, which is shown once.
pub struct MintedApiToken {
    /// What is stored.
    pub row: ApiTokenRow,
    /// The token itself.
    pub text: Zeroizing<String>,
}

impl std::fmt::Debug for MintedApiToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MintedApiToken").field("id", &self.row.id).finish_non_exhaustive()
    }
}

/// Makes a token for a tenant, or for the platform (`None`).
///
/// # Errors
/// Needs `token.write`; `GrantExceedsGrantor`.
pub async fn create(
    domain: &Domain,
    caller: &Caller,
    tenant_id: Option<&str>,
    new: NewApiToken,
) -> Result<Done<MintedApiToken>, DomainError> {
    require(caller, Permission::TokenWrite, tenant_id)?;
    let now = clock::now_micros();
    let (role, scopes) = validate(&new, tenant_id, now)?;
    caller.principal.require_grant(role, &scopes)?;
    let text = token::mint(TokenKind::Api).map_err(|_| clawgate_shared::seal::SealError::Random).map_err(vault)?;
    let row = ApiTokenRow {
        id: id::new(id::Kind::Token),
        tenant_id: tenant_id.map(str::to_owned),
        name: new.name,
        sha256: token::hash(text.as_bytes()).to_vec(),
        last4: super::bots::last4(&text),
        role: role.as_str().to_owned(),
        scopes: scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        created_by: caller.principal.actor.clone(),
        expires_at: new.expires_at,
        last_used_at: None,
        revoked_at: None,
        created_at: now,
    };
    let mut change = Change::begin(domain).await?;
    if let Some(tenant_id) = tenant_id {
        tenants::get(&mut change, tenant_id).await?.ok_or(DomainError::NotFound { what: "tenant" })?;
    }
    api_tokens::insert(&mut change, &row).await?;
    let detail = json!({"name": row.name, "role": row.role, "scopes": row.scopes, "expires_at": row.expires_at});
    change.audit(caller, "api_token.create", target(&row), detail).await?;
    change.keep(MintedApiToken { row, text }).await
}

/// Revokes a token at once.
///
/// # Errors
/// Needs `token.write`, and at least what the token has.
pub async fn revoke(
    domain: &Domain,
    caller: &Caller,
    tenant_id: Option<&str>,
    token_id: &str,
) -> Result<Done<()>, DomainError> {
    require(caller, Permission::TokenWrite, tenant_id)?;
    let missing = DomainError::NotFound { what: "API token" };
    let mut change = Change::begin(domain).await?;
    let row = api_tokens::get(&mut change, tenant_id, token_id).await?.ok_or(missing)?;
    let role = Role::from_column("role", &row.role)?;
    caller.principal.require_grant(role, &[])?;
    if !api_tokens::revoke(&mut change, token_id, clock::now_micros()).await? {
        return Err(DomainError::NotFound { what: "API token" });
    }
    change.audit(caller, "api_token.revoke", target(&row), json!({"name": row.name})).await?;
    change.keep(()).await
}

fn require(caller: &Caller, permission: Permission, tenant_id: Option<&str>) -> Result<(), DomainError> {
    match tenant_id {
        Some(tenant_id) => caller.principal.require(permission, tenant_id),
        None => caller.principal.require_platform(permission),
    }
}

fn vault(error: clawgate_shared::seal::SealError) -> DomainError {
    DomainError::Vault(error.into())
}

fn target(row: &ApiTokenRow) -> Target<'_> {
    Target { tenant_id: row.tenant_id.as_deref(), kind: "api_token", id: &row.id }
}

fn validate(new: &NewApiToken, tenant_id: Option<&str>, now: i64) -> Result<(Role, Vec<Permission>), DomainError> {
    let mut errors = Errors::default();
    errors.name("name", &new.name);
    let grantable: Vec<Role> = Role::ALL
        .iter()
        .copied()
        .filter(|role| *role != Role::Bootstrap && role.is_platform() == tenant_id.is_none())
        .collect();
    let role = errors.choice("role", &new.role, &grantable, Role::as_str);
    let mut scopes = Vec::new();
    for (at, scope) in new.scopes.iter().enumerate() {
        let field = format!("scopes[{at}]");
        match errors.choice(&field, scope, Permission::ALL, Permission::as_str) {
            Some(scope) if role.is_some_and(|role| !role.permissions().contains(&scope)) => {
                errors.add(field, "not_allowed", "is no permission of the role");
            }
            Some(scope) if scopes.contains(&scope) => errors.add(field, "duplicate", "is given twice"),
            Some(scope) => scopes.push(scope),
            None => {}
        }
    }
    if new.expires_at.is_some_and(|at| at <= now) {
        errors.add("expires_at", "range", "must be in the future");
    }
    errors.finish()?;
    role.map(|role| (role, scopes)).ok_or(DomainError::GrantExceedsGrantor)
}
