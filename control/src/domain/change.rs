//! One configuration write: its transaction, its audit row, its revision.

use std::ops::{Deref, DerefMut};

use serde_json::Value;

use super::{Caller, Domain, DomainError, Done};
use crate::store::audit::{self, NewAudit};
use crate::store::{Tx, revisions};

/// Longest text from a request that an audit row keeps, in characters.
const MAX_AUDIT_TEXT: usize = 256;

/// A running write. It holds the lock of all configuration writes, so that what
/// a rule read stays true until the commit.
pub(super) struct Change {
    tx: Tx,
}

/// What an audit row is about.
pub(super) struct Target<'a> {
    pub(super) tenant_id: Option<&'a str>,
    pub(super) kind: &'static str,
    pub(super) id: &'a str,
}

impl Change {
    pub(super) async fn begin(domain: &Domain) -> Result<Self, DomainError> {
        let mut tx = domain.db.begin().await?;
        audit::lock(&mut tx).await?;
        Ok(Self { tx })
    }

    /// Appends the audit row. `detail` never holds a secret.
    pub(super) async fn audit(
        &mut self,
        caller: &Caller,
        action: &'static str,
        target: Target<'_>,
        detail: Value,
    ) -> Result<(), DomainError> {
        let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(MAX_AUDIT_TEXT).collect();
        let entry = NewAudit {
            tenant_id: target.tenant_id.map(str::to_owned),
            actor: caller.principal.actor.clone(),
            action: action.to_owned(),
            target_kind: target.kind.to_owned(),
            target_id: target.id.to_owned(),
            detail: detail.to_string(),
            ip: short(&caller.ip),
            user_agent: short(&caller.user_agent),
        };
        audit::append(&mut self.tx, entry).await?;
        Ok(())
    }

    /// Commits a change that nodes must see.
    pub(super) async fn publish<T>(mut self, value: T) -> Result<Done<T>, DomainError> {
        let revision = revisions::bump(&mut self.tx).await?.revision;
        self.tx.commit().await?;
        Ok(Done { value, revision: Some(revision) })
    }

    /// Commits a change that is none of the nodes'.
    pub(super) async fn keep<T>(self, value: T) -> Result<Done<T>, DomainError> {
        self.tx.commit().await?;
        Ok(Done { value, revision: None })
    }
}

impl Deref for Change {
    type Target = Tx;
    fn deref(&self) -> &Tx {
        &self.tx
    }
}

impl DerefMut for Change {
    fn deref_mut(&mut self) -> &mut Tx {
        &mut self.tx
    }
}

/// Whether the version a client read is the one there is; `None`: it did not say.
pub(super) fn check_version(expected: Option<u64>, found: u64) -> Result<(), DomainError> {
    match expected {
        Some(version) if version != found => Err(DomainError::PreconditionFailed),
        _ => Ok(()),
    }
}

/// The result of an update by version: false means somebody else was faster,
/// which the lock rules out for every writer that takes it.
pub(super) fn check_written(written: bool) -> Result<(), DomainError> {
    if written { Ok(()) } else { Err(DomainError::PreconditionFailed) }
}
