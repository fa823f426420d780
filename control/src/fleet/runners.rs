//! How a runner becomes one of ours: as a node does, but for the sealing key,
//! because no provider key ever goes to a runner.

use clawgate_shared::token::{self, TokenKind};
use clawgate_shared::{clock, id};

use super::Fleet;
use super::ca::{NodeCertificate, NodeRequest};
use super::enroll::{EnrollError, EnrollKind, spend};
use crate::store::audit::{self, NewAudit};
use crate::store::row::clean;
use crate::store::{StoreError, Tx, enroll, runners};

/// Longest software version that is stored, in characters.
const MAX_VERSION: usize = 64;

impl Fleet {
    /// Enrols a runner over TLS: token and certificate request.
    ///
    /// # Errors
    /// See [`EnrollError`].
    pub async fn enroll_runner(
        &self,
        runner_id: &str,
        token: &str,
        csr_der: &[u8],
        software: &str,
    ) -> Result<NodeCertificate, EnrollError> {
        check_id(runner_id)?;
        if !token::well_formed(TokenKind::Enroll, token) {
            return Err(EnrollError::Token);
        }
        let request = NodeRequest::parse(csr_der)?;
        let fingerprint = request.key_fingerprint();
        let sha256 = token::hash(token.as_bytes());
        // Strangers must not be able to queue for the write lock.
        if enroll::find(&mut *self.db.read().await?, EnrollKind::Runner.as_str(), &sha256).await?.is_none() {
            return Err(EnrollError::Token);
        }
        let mut tx = self.db.begin().await?;
        spend(&mut tx, (EnrollKind::Runner, token), &fingerprint, runner_id, clock::now_micros()).await?;
        match runners::find(&mut tx, runner_id).await? {
            Some(row) if row.revoked_at.is_some() => return Err(EnrollError::Revoked),
            Some(row) if row.public_key.as_ref().is_some_and(|key| key.as_slice() != fingerprint) => {
                return Err(EnrollError::NodeTaken);
            }
            Some(_) | None => {}
        }
        let certificate = self.authority.sign_runner(runner_id, &request)?;
        save(&mut tx, runner_id, (Some(fingerprint.to_vec()), Some(certificate.expires_at)), software).await?;
        tx.commit().await?;
        tracing::info!(runner = runner_id, "runner enrolled");
        Ok(certificate)
    }

    /// Enrols a runner of this machine: it could open the socket.
    ///
    /// # Errors
    /// See [`EnrollError`].
    pub async fn enroll_local_runner(&self, runner_id: &str, software: &str) -> Result<(), EnrollError> {
        check_id(runner_id)?;
        let mut tx = self.db.begin().await?;
        match runners::find(&mut tx, runner_id).await? {
            Some(row) if row.revoked_at.is_some() => return Err(EnrollError::Revoked),
            Some(_) => {}
            None => {
                save(&mut tx, runner_id, (None, None), software).await?;
                tracing::info!(runner = runner_id, "runner of this machine enrolled");
            }
        }
        Ok(tx.commit().await?)
    }

    /// A new certificate for a runner that proved to be `runner_id` by its old one.
    ///
    /// # Errors
    /// See [`EnrollError`].
    pub async fn renew_runner(&self, runner_id: &str, csr_der: &[u8]) -> Result<NodeCertificate, EnrollError> {
        check_id(runner_id)?;
        let request = NodeRequest::parse(csr_der)?;
        let mut tx = self.db.begin().await?;
        let row = runners::find(&mut tx, runner_id).await?.ok_or(EnrollError::Unknown)?;
        if row.revoked_at.is_some() {
            return Err(EnrollError::Revoked);
        }
        let certificate = self.authority.sign_runner(runner_id, &request)?;
        let identity = (Some(request.key_fingerprint().to_vec()), Some(certificate.expires_at));
        save(&mut tx, runner_id, identity, &row.software_version).await?;
        tx.commit().await?;
        Ok(certificate)
    }

    /// Whether a runner may be given orders.
    ///
    /// # Errors
    /// As the database answers.
    pub async fn runner_may_work(&self, runner_id: &str) -> Result<bool, StoreError> {
        let row = runners::find(&mut *self.db.read().await?, runner_id).await?;
        Ok(row.is_some_and(|row| row.revoked_at.is_none()))
    }
}

fn check_id(runner_id: &str) -> Result<(), EnrollError> {
    if id::Kind::Runner.matches(runner_id) { Ok(()) } else { Err(EnrollError::NodeId) }
}

async fn save(
    tx: &mut Tx,
    runner_id: &str,
    identity: (Option<Vec<u8>>, Option<i64>),
    software: &str,
) -> Result<(), StoreError> {
    let software = clean(&software.chars().take(MAX_VERSION).collect::<String>());
    runners::save_identity(tx, runner_id, identity, &software, clock::now_micros()).await?;
    let entry = NewAudit {
        tenant_id: None,
        actor: format!("runner:{runner_id}"),
        action: "runner.enroll".to_owned(),
        target_kind: "runner".to_owned(),
        target_id: runner_id.to_owned(),
        detail: "{}".to_owned(),
        ip: String::new(),
        user_agent: String::new(),
    };
    audit::append(tx, entry).await?;
    Ok(())
}
