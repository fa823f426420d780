//! Who may do what: the matrix of the contract, as data.

use crate::store::types::text_enum;

use super::error::DomainError;

text_enum!(
    /// A role, as granted to a token or a person.
    Role {
        /// Reads bots and usage.
        Viewer => "viewer",
        /// Viewer, and writes and drives own bots.
        Developer => "developer",
        /// Developer for all bots, and nodes.
        Operator => "operator",
        /// Operator, and provider keys, quotas, members up to admin.
        Admin => "admin",
        /// Admin, and tenant settings, custom vendors, deletion.
        Owner => "owner",
        /// Reads audit, usage and configuration.
        Auditor => "auditor",
        /// Tenants and nodes; nothing inside a tenant.
        PlatformAdmin => "platform_admin",
        /// The bootstrap token and the installation itself: everything; never
        /// granted to anybody.
        Bootstrap => "bootstrap",
    }
);

text_enum!(
    /// One thing that may be done; also what a token's scopes name.
    Permission {
        /// See bots and their tokens' names.
        BotRead => "bot.read",
        /// Change own bots.
        BotWriteOwn => "bot.write_own",
        /// Change any bot.
        BotWrite => "bot.write",
        /// See usage.
        UsageRead => "usage.read",
        /// See projects, vendors and the tenant itself.
        CatalogueRead => "catalogue.read",
        /// See provider keys, never their secrets.
        KeyRead => "key.read",
        /// Change provider keys.
        KeyWrite => "key.write",
        /// Change quotas.
        QuotaWrite => "quota.write",
        /// Change projects.
        ProjectWrite => "project.write",
        /// Change the tenant's own vendors.
        VendorWrite => "vendor.write",
        /// Change prices: the tenant's own, or with a role of the platform everybody's.
        PriceWrite => "price.write",
        /// Change the tenant's settings.
        TenantWrite => "tenant.write",
        /// Delete the tenant.
        TenantDelete => "tenant.delete",
        /// See API tokens, never their text.
        TokenRead => "token.read",
        /// Grant and revoke API tokens.
        TokenWrite => "token.write",
        /// See the audit log.
        AuditRead => "audit.read",
        /// See nodes.
        NodeRead => "node.read",
        /// Enrol and revoke nodes.
        NodeWrite => "node.write",
        /// Make, suspend and see all tenants.
        TenantManage => "tenant.manage",
    }
);

use Permission as P;

const VIEWER: &[P] = &[P::BotRead, P::UsageRead, P::CatalogueRead];
const DEVELOPER: &[P] = &[P::BotRead, P::UsageRead, P::CatalogueRead, P::BotWriteOwn];
const OPERATOR: &[P] =
    &[P::BotRead, P::UsageRead, P::CatalogueRead, P::BotWriteOwn, P::BotWrite, P::NodeRead, P::NodeWrite];
const ADMIN: &[P] = &[
    P::BotRead,
    P::UsageRead,
    P::CatalogueRead,
    P::BotWriteOwn,
    P::BotWrite,
    P::NodeRead,
    P::NodeWrite,
    P::KeyRead,
    P::KeyWrite,
    P::QuotaWrite,
    P::ProjectWrite,
    P::TokenRead,
    P::TokenWrite,
    P::AuditRead,
];
const OWNER: &[P] = &[
    P::BotRead,
    P::UsageRead,
    P::CatalogueRead,
    P::BotWriteOwn,
    P::BotWrite,
    P::NodeRead,
    P::NodeWrite,
    P::KeyRead,
    P::KeyWrite,
    P::QuotaWrite,
    P::ProjectWrite,
    P::TokenRead,
    P::TokenWrite,
    P::AuditRead,
    P::VendorWrite,
    P::PriceWrite,
    P::TenantWrite,
    P::TenantDelete,
];
const AUDITOR: &[P] =
    &[P::AuditRead, P::UsageRead, P::BotRead, P::KeyRead, P::CatalogueRead, P::TokenRead, P::NodeRead];
const PLATFORM_ADMIN: &[P] =
    &[P::TenantManage, P::NodeRead, P::NodeWrite, P::TokenRead, P::TokenWrite, P::AuditRead, P::PriceWrite];

impl Role {
    /// What the role may do.
    #[must_use]
    pub const fn permissions(self) -> &'static [Permission] {
        match self {
            Self::Viewer => VIEWER,
            Self::Developer => DEVELOPER,
            Self::Operator => OPERATOR,
            Self::Admin => ADMIN,
            Self::Owner => OWNER,
            Self::Auditor => AUDITOR,
            Self::PlatformAdmin => PLATFORM_ADMIN,
            Self::Bootstrap => Permission::ALL,
        }
    }

    /// Whether the role is one of the platform, not of a tenant.
    #[must_use]
    pub const fn is_platform(self) -> bool {
        matches!(self, Self::PlatformAdmin | Self::Bootstrap)
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// As in the audit log: `token:tok_…`, `bootstrap`, `system`.
    pub actor: String,
    /// `None`: of the platform.
    pub tenant_id: Option<String>,
    /// What they are.
    pub role: Role,
    /// What the role is narrowed to; empty: not narrowed.
    pub scopes: Vec<Permission>,
}

impl Principal {
    /// The holder of the bootstrap admin token.
    #[must_use]
    pub fn bootstrap() -> Self {
        Self { actor: "bootstrap".into(), tenant_id: None, role: Role::Bootstrap, scopes: Vec::new() }
    }

    /// The installation itself.
    #[must_use]
    pub fn system() -> Self {
        Self { actor: "system".into(), ..Self::bootstrap() }
    }

    /// Whether role and scopes both say so; says nothing about whose it is.
    #[must_use]
    pub fn has(&self, permission: Permission) -> bool {
        self.role.permissions().contains(&permission) && (self.scopes.is_empty() || self.scopes.contains(&permission))
    }

    /// Whether `permission` may be used on something of a tenant.
    ///
    /// # Errors
    /// `NotFound` for another tenant, `Forbidden` without the permission.
    pub fn require(&self, permission: Permission, tenant_id: &str) -> Result<(), DomainError> {
        let inside = match &self.tenant_id {
            Some(own) => own == tenant_id,
            // A platform administrator manages tenants and sees into none.
            None => self.role == Role::Bootstrap || permission == Permission::TenantManage,
        };
        if !inside {
            return Err(if self.tenant_id.is_some() {
                DomainError::NotFound { what: "tenant" }
            } else {
                DomainError::Forbidden { permission: permission.as_str() }
            });
        }
        if self.has(permission) { Ok(()) } else { Err(DomainError::Forbidden { permission: permission.as_str() }) }
    }

    /// Whether `permission` may be used on something of the platform.
    ///
    /// # Errors
    /// `Forbidden` without the permission.
    pub fn require_platform(&self, permission: Permission) -> Result<(), DomainError> {
        if self.tenant_id.is_none() && self.has(permission) {
            return Ok(());
        }
        Err(DomainError::Forbidden { permission: permission.as_str() })
    }

    /// Whether `permission` may be used on nodes: they are the platform's, and
    /// operators of any tenant see, enrol and revoke them.
    ///
    /// # Errors
    /// `Forbidden` without the permission.
    pub fn require_nodes(&self, permission: Permission) -> Result<(), DomainError> {
        if self.has(permission) { Ok(()) } else { Err(DomainError::Forbidden { permission: permission.as_str() }) }
    }

    /// Whether a bot with this owner may be changed.
    ///
    /// # Errors
    /// As [`Self::require`].
    pub fn require_bot(&self, tenant_id: &str, owner: &str) -> Result<(), DomainError> {
        let own = owner == self.actor && self.has(Permission::BotWriteOwn);
        self.require(if own { Permission::BotWriteOwn } else { Permission::BotWrite }, tenant_id)
    }

    /// Whether a role narrowed to scopes is within what this caller has.
    ///
    /// # Errors
    /// `GrantExceedsGrantor`.
    pub fn require_grant(&self, role: Role, scopes: &[Permission]) -> Result<(), DomainError> {
        let within = role != Role::Bootstrap
            && role
                .permissions()
                .iter()
                .filter(|permission| scopes.is_empty() || scopes.contains(permission))
                .all(|permission| self.has(*permission));
        if within { Ok(()) } else { Err(DomainError::GrantExceedsGrantor) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(role: Role) -> Principal {
        Principal { actor: "token:1".into(), tenant_id: Some("ten_1".into()), role, scopes: Vec::new() }
    }

    #[test]
    fn the_matrix_of_the_contract() {
        use Role as R;
        for (permission, roles) in [
            (P::BotRead, vec![R::Viewer, R::Developer, R::Operator, R::Admin, R::Owner, R::Auditor]),
            (P::UsageRead, vec![R::Viewer, R::Developer, R::Operator, R::Admin, R::Owner, R::Auditor]),
            (P::BotWriteOwn, vec![R::Developer, R::Operator, R::Admin, R::Owner]),
            (P::BotWrite, vec![R::Operator, R::Admin, R::Owner]),
            (P::NodeWrite, vec![R::Operator, R::Admin, R::Owner, R::PlatformAdmin]),
            (P::KeyWrite, vec![R::Admin, R::Owner]),
            (P::VendorWrite, vec![R::Owner]),
            (P::PriceWrite, vec![R::Owner, R::PlatformAdmin]),
            (P::TenantWrite, vec![R::Owner]),
            (P::AuditRead, vec![R::Admin, R::Owner, R::Auditor, R::PlatformAdmin]),
            (P::TenantManage, vec![R::PlatformAdmin]),
        ] {
            let found: Vec<Role> =
                R::ALL.iter().copied().filter(|role| *role != R::Bootstrap && of(*role).has(permission)).collect();
            assert_eq!(found, roles, "{}", permission.as_str());
        }
    }

    #[test]
    fn another_tenant_does_not_exist() {
        let owner = of(Role::Owner);
        assert!(owner.require(P::BotRead, "ten_1").is_ok());
        assert!(matches!(owner.require(P::BotRead, "ten_2"), Err(DomainError::NotFound { .. })));
        assert!(matches!(of(Role::Viewer).require(P::KeyRead, "ten_1"), Err(DomainError::Forbidden { .. })));
        let platform = Principal { tenant_id: None, ..of(Role::PlatformAdmin) };
        assert!(platform.require(P::TenantManage, "ten_1").is_ok());
        assert!(matches!(platform.require(P::KeyRead, "ten_1"), Err(DomainError::Forbidden { .. })));
        assert!(matches!(of(Role::Owner).require_platform(P::NodeRead), Err(DomainError::Forbidden { .. })));
    }

    #[test]
    fn a_grant_never_exceeds_the_grantor() {
        for (grantor, role, scopes, ok) in [
            (Role::Admin, Role::Admin, vec![], true),
            (Role::Admin, Role::Owner, vec![], false),
            (Role::Admin, Role::Owner, vec![P::BotRead], true),
            (Role::Owner, Role::Owner, vec![], true),
            (Role::Owner, Role::PlatformAdmin, vec![], false),
            (Role::Bootstrap, Role::PlatformAdmin, vec![], true),
            (Role::Bootstrap, Role::Bootstrap, vec![], false),
        ] {
            assert_eq!(of(grantor).require_grant(role, &scopes).is_ok(), ok, "{grantor:?} {role:?} {scopes:?}");
        }
        let narrowed = Principal { scopes: vec![P::TokenWrite, P::BotRead], ..of(Role::Owner) };
        assert!(narrowed.require_grant(Role::Viewer, &[]).is_err());
        assert!(narrowed.require_grant(Role::Viewer, &[P::BotRead]).is_ok());
    }

    #[test]
    fn developers_write_their_own_bots() {
        let developer = of(Role::Developer);
        assert!(developer.require_bot("ten_1", "token:1").is_ok());
        assert!(developer.require_bot("ten_1", "token:2").is_err());
        assert!(of(Role::Operator).require_bot("ten_1", "token:2").is_ok());
    }
}
