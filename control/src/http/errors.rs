//! Errors of the layers below as problems.

use http::{HeaderValue, StatusCode, header};

use super::problem::{FieldProblem, Problem};
use crate::domain::DomainError;
use crate::fleet::FleetError;
use crate::store::StoreError;
use crate::vault::VaultError;

impl From<StoreError> for Problem {
    /// What may pass is 503 and may be sent again; everything else is a
    /// mistake of ours.
    fn from(error: StoreError) -> Self {
        if error.is_transient() {
            tracing::warn!(cause = %error, "database not available");
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "database_busy")
                .header(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Self::internal(&error)
    }
}

impl From<DomainError> for Problem {
    fn from(error: DomainError) -> Self {
        let code = error.code();
        let of = |status| Self::new(status, code);
        match error {
            DomainError::Invalid { errors } => Self::invalid(
                errors
                    .into_iter()
                    .map(|error| FieldProblem::new(error.field, error.rule).saying(error.message))
                    .collect(),
            ),
            DomainError::NotFound { what } => Self::not_found(what),
            DomainError::Forbidden { permission } => of(StatusCode::FORBIDDEN).with("permission", permission),
            DomainError::GrantExceedsGrantor => of(StatusCode::FORBIDDEN),
            DomainError::TenantRequired => of(StatusCode::BAD_REQUEST),
            DomainError::AlreadyExists { what, field } => {
                let mut problem = of(StatusCode::CONFLICT).with("what", what).with("field", field);
                problem.errors.push(FieldProblem::new(field, "unique"));
                problem
            }
            DomainError::StillInUse { what } => of(StatusCode::CONFLICT).with("what", what),
            DomainError::SecretRequired => {
                let mut problem = of(StatusCode::UNPROCESSABLE_ENTITY);
                problem.errors.push(FieldProblem::new("secret", "required"));
                problem
            }
            DomainError::NotRunByUs => of(StatusCode::CONFLICT),
            DomainError::LimitReached { what, limit } => {
                of(StatusCode::CONFLICT).with("what", what).with("limit", limit.to_string())
            }
            DomainError::PreconditionFailed => of(StatusCode::PRECONDITION_FAILED),
            DomainError::Vault(error) => error.into(),
            DomainError::Store(error) => error.into(),
        }
    }
}

impl From<VaultError> for Problem {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Store(error) => error.into(),
            other => {
                tracing::error!(cause = %other, "the vault refused");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "secret_unreadable")
            }
        }
    }
}

impl From<FleetError> for Problem {
    fn from(error: FleetError) -> Self {
        match error {
            FleetError::Store(error) => error.into(),
            FleetError::Vault(error) => error.into(),
            other => Self::internal(&other),
        }
    }
}
