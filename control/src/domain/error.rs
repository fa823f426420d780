//! Why a change is refused, as a closed set. Public text is made by the caller
//! from codes and parameters; causes go to the log.

use crate::store::{Constraint, StoreError};
use crate::vault::VaultError;

/// One field that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// `hostname`, `tags[2]`, `options.auth`.
    pub field: String,
    /// `required`, `unknown`, `type`, `format`, `range`, `length`, `unique`,
    /// `one_of`, `exists`, `not_allowed`, `reserved`, `duplicate`.
    pub rule: &'static str,
    /// What would be right, in English; never the refused value of a secret.
    pub message: String,
}

/// Why a use case changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// Fields that break rules: all of them.
    #[error("{} field(s) break a rule", errors.len())]
    Invalid {
        /// Never empty.
        errors: Vec<FieldError>,
    },
    /// There is none, or it is another tenant's.
    #[error("no such {what}")]
    NotFound {
        /// `bot`, `provider key`, …
        what: &'static str,
    },
    /// The caller may not.
    #[error("permission {permission} is missing")]
    Forbidden {
        /// What is missing.
        permission: &'static str,
    },
    /// A grant of more than the caller has.
    #[error("the grant exceeds the grantor")]
    GrantExceedsGrantor,
    /// A caller of the platform named no tenant.
    #[error("a tenant must be named")]
    TenantRequired,
    /// A unique field is taken.
    #[error("{what} with this {field} exists")]
    AlreadyExists {
        /// `bot`, `provider key`, …
        what: &'static str,
        /// `hostname`, `label`, …
        field: &'static str,
    },
    /// Something still needs it.
    #[error("{what} is still in use")]
    StillInUse {
        /// `tenant`, `project`, `vendor`.
        what: &'static str,
    },
    /// A new destination needs the secret again.
    #[error("the secret is needed again")]
    SecretRequired,
    /// Container verbs on a bot that we do not run.
    #[error("the bot is not run by us")]
    NotRunByUs,
    /// There are too many.
    #[error("the limit of {limit} {what} is reached")]
    LimitReached {
        /// `bot tokens`, …
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// `If-Match` names another version than there is.
    #[error("the resource was changed since it was read")]
    PreconditionFailed,
    /// See [`VaultError`].
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DomainError {
    /// One refused field.
    pub fn field(field: impl Into<String>, rule: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { errors: vec![FieldError { field: field.into(), rule, message: message.into() }] }
    }

    /// The stable code of the REST answer.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "validation_failed",
            Self::NotFound { .. } => "not_found",
            Self::Forbidden { .. } => "forbidden",
            Self::GrantExceedsGrantor => "grant_exceeds_grantor",
            Self::TenantRequired => "tenant_required",
            Self::AlreadyExists { .. } => "already_exists",
            Self::StillInUse { .. } => "still_in_use",
            Self::SecretRequired => "secret_required",
            Self::NotRunByUs => "not_run_by_us",
            Self::LimitReached { .. } => "limit_reached",
            Self::PreconditionFailed => "precondition_failed",
            Self::Vault(_) => "secret_unreadable",
            Self::Store(error) if error.is_transient() => "database_busy",
            Self::Store(_) => "internal",
        }
    }
}

/// A broken unique rule as what it means to the caller; anything else as it is.
pub(super) fn conflict(error: StoreError) -> DomainError {
    let (what, field) = match error {
        StoreError::Conflict(Constraint::TenantSlug) => ("tenant", "slug"),
        StoreError::Conflict(Constraint::ProjectSlug) => ("project", "slug"),
        StoreError::Conflict(Constraint::VendorSlug) => ("vendor", "slug"),
        StoreError::Conflict(Constraint::ProviderKeyLabel) => ("provider key", "label"),
        StoreError::Conflict(Constraint::BotHostname) => ("bot", "hostname"),
        other => return other.into(),
    };
    DomainError::AlreadyExists { what, field }
}
