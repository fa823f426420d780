//! How a node becomes one of ours.
//!
//! A token is good for one key pair: whoever repeats the request with the same
//! key (its answer was lost) gets the same node again, anybody else is refused.

use std::time::Duration;

use clawgate_shared::seal::SealingKey;
use clawgate_shared::token::{self, TokenKind};
use clawgate_shared::{clock, id};
use zeroize::Zeroizing;

use super::authority::micros;
use super::ca::{CaError, NodeCertificate, NodeRequest};
use super::{Fleet, FleetError, token as token_text};
use crate::store::audit::{self, NewAudit};
use crate::store::enroll::{self, EnrollTokenRow, NewEnrollToken};
use crate::store::nodes::{self, NodeRow, NodeState};
use crate::store::row::clean;
use crate::store::{StoreError, Tx};
use crate::vault::{Purpose, VaultError};

/// How long an enrolment token is good.
pub const TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);
/// Longest software version that is stored, in bytes.
const MAX_VERSION: usize = 64;

/// Whom a token lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrollKind {
    /// A node of the data plane.
    Node,
    /// A runner.
    Runner,
}

impl EnrollKind {
    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Runner => "runner",
        }
    }
}

const KIND: &str = EnrollKind::Node.as_str();

/// A new enrolment token; its text is shown once.
pub struct MintedEnrollToken {
    /// `ent_…`
    pub id: String,
    /// See [`super::token`].
    pub text: Zeroizing<String>,
    /// Unix microseconds.
    pub expires_at: i64,
}

/// What a node gets.
pub struct Enrolled {
    /// `None` over the Unix socket.
    pub certificate: Option<NodeCertificate>,
    /// What its secrets are sealed with.
    pub sealing_key: SealingKey,
}

/// Why a node is not enrolled. `Display` is for the node's operator.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// Not `node_`, or for a runner `run_`, and 32 hex digits.
    #[error("this is no id of a node or runner")]
    NodeId,
    /// Unknown, mistyped or expired; deliberately not said which.
    #[error("the enrolment token is not valid or has expired")]
    Token,
    /// Another key pair used it, or the same one for another node.
    #[error("the enrolment token was used by another node")]
    TokenUsed,
    /// See [`CaError::Request`].
    #[error("the certificate request is not valid")]
    Request,
    /// The id belongs to a node with another key pair.
    #[error("this node id is taken by another key pair; remove the node's identity file so that it chooses a new id")]
    NodeTaken,
    /// An admin removed this node.
    #[error("this node was revoked")]
    Revoked,
    /// Enrol first.
    #[error("this node is not enrolled")]
    Unknown,
    /// Anything of ours.
    #[error("enrolment failed")]
    Internal(#[from] FleetError),
}

impl From<StoreError> for EnrollError {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.into())
    }
}

impl From<VaultError> for EnrollError {
    fn from(error: VaultError) -> Self {
        Self::Internal(error.into())
    }
}

impl From<CaError> for EnrollError {
    fn from(error: CaError) -> Self {
        match error {
            CaError::Request => Self::Request,
            other => Self::Internal(other.into()),
        }
    }
}

impl Fleet {
    /// Mints a token in the caller's transaction, beside its audit row.
    ///
    /// # Errors
    /// As the database answers, or no random bytes.
    pub async fn mint_enroll_token(
        &self,
        tx: &mut Tx,
        kind: EnrollKind,
        created_by: &str,
    ) -> Result<MintedEnrollToken, FleetError> {
        let secret = token::mint(TokenKind::Enroll).map_err(|_| FleetError::Random)?;
        let (id, now) = (id::new(id::Kind::EnrollToken), clock::now_micros());
        let expires_at = now.saturating_add(micros(TOKEN_LIFE));
        let sha256 = token::hash(secret.as_bytes());
        let row = NewEnrollToken { id: &id, kind: kind.as_str(), sha256: &sha256, created_by, now, expires_at };
        enroll::insert(tx, row).await?;
        Ok(MintedEnrollToken { text: token_text::text(&secret, self.ca_pem()), id, expires_at })
    }

    /// Enrols over TLS: token and certificate request.
    ///
    /// # Errors
    /// See [`EnrollError`].
    pub async fn enroll(
        &self,
        node_id: &str,
        token: &str,
        csr_der: &[u8],
        software: &str,
    ) -> Result<Enrolled, EnrollError> {
        check_id(node_id)?;
        if !token::well_formed(TokenKind::Enroll, token) {
            return Err(EnrollError::Token);
        }
        let request = NodeRequest::parse(csr_der)?;
        let fingerprint = request.key_fingerprint();
        // Strangers must not be able to queue for the write lock.
        if enroll::find(&mut *self.db.read().await?, KIND, &token::hash(token.as_bytes())).await?.is_none() {
            return Err(EnrollError::Token);
        }
        let mut tx = self.db.begin().await?;
        let now = clock::now_micros();
        spend(&mut tx, (EnrollKind::Node, token), &fingerprint, node_id, now).await?;
        let known = nodes::find(&mut tx, node_id).await?;
        let key = match &known {
            Some(node) if node.revoked_at.is_some() => return Err(EnrollError::Revoked),
            Some(node) if node.public_key.as_deref() == Some(fingerprint.as_slice()) => self.stored_key(node)?,
            Some(NodeRow { public_key: Some(_), .. }) => return Err(EnrollError::NodeTaken),
            // Known from the socket only, or new: what another process may
            // have seen is not handed to this one.
            Some(_) | None => SealingKey::generate().map_err(FleetError::from)?,
        };
        let certificate = self.authority.sign_node(node_id, &request)?;
        let identity = Identity { public_key: Some(fingerprint.to_vec()), expires_at: Some(certificate.expires_at) };
        self.save(&mut tx, node_id, &key, identity, software).await?;
        tx.commit().await?;
        tracing::info!(node = node_id, "node enrolled");
        Ok(Enrolled { certificate: Some(certificate), sealing_key: key })
    }

    /// Enrols a process of this machine: it could open the socket.
    ///
    /// # Errors
    /// See [`EnrollError`].
    pub async fn enroll_local(&self, node_id: &str, software: &str) -> Result<Enrolled, EnrollError> {
        check_id(node_id)?;
        let mut tx = self.db.begin().await?;
        let key = match nodes::find(&mut tx, node_id).await? {
            Some(node) if node.revoked_at.is_some() => return Err(EnrollError::Revoked),
            Some(node) => self.stored_key(&node)?,
            None => {
                let key = SealingKey::generate().map_err(FleetError::from)?;
                let identity = Identity { public_key: None, expires_at: None };
                self.save(&mut tx, node_id, &key, identity, software).await?;
                tracing::info!(node = node_id, "node of this machine enrolled");
                key
            }
        };
        tx.commit().await?;
        Ok(Enrolled { certificate: None, sealing_key: key })
    }

    /// A new certificate for a node that proved to be `node_id` by its old one.
    ///
    /// # Errors
    /// See [`EnrollError`].
    pub async fn renew(&self, node_id: &str, csr_der: &[u8]) -> Result<Enrolled, EnrollError> {
        check_id(node_id)?;
        let request = NodeRequest::parse(csr_der)?;
        let mut tx = self.db.begin().await?;
        let node = nodes::find(&mut tx, node_id).await?.ok_or(EnrollError::Unknown)?;
        if node.revoked_at.is_some() {
            return Err(EnrollError::Revoked);
        }
        let key = self.stored_key(&node)?;
        let certificate = self.authority.sign_node(node_id, &request)?;
        let public_key = Some(request.key_fingerprint().to_vec());
        let identity = Identity { public_key, expires_at: Some(certificate.expires_at) };
        self.save(&mut tx, node_id, &key, identity, &node.state.software_version).await?;
        tx.commit().await?;
        Ok(Enrolled { certificate: Some(certificate), sealing_key: key })
    }

    fn stored_key(&self, node: &NodeRow) -> Result<SealingKey, FleetError> {
        let key = self.vault.open_blob(Purpose::NodeSealingKey, &node.id, &node.sealed_sealing_key)?;
        Ok(SealingKey::from_slice(&key)?)
    }

    async fn save(
        &self,
        tx: &mut Tx,
        node_id: &str,
        key: &SealingKey,
        identity: Identity,
        software: &str,
    ) -> Result<(), FleetError> {
        let software = software.chars().take(MAX_VERSION).collect::<String>();
        let row = NodeRow {
            id: node_id.to_owned(),
            public_key: identity.public_key,
            certificate_expires_at: identity.expires_at,
            sealed_sealing_key: self.vault.seal_blob(Purpose::NodeSealingKey, node_id, key.expose())?,
            state: NodeState { software_version: clean(&software), ..NodeState::default() },
            ..NodeRow::default()
        };
        nodes::save_identity(tx, &row, clock::now_micros()).await?;
        let audit = NewAudit {
            tenant_id: None,
            actor: format!("node:{node_id}"),
            action: "node.enroll".to_owned(),
            target_kind: "node".to_owned(),
            target_id: node_id.to_owned(),
            detail: "{}".to_owned(),
            ip: String::new(),
            user_agent: String::new(),
        };
        audit::append(tx, audit).await?;
        Ok(())
    }
}

struct Identity {
    public_key: Option<Vec<u8>>,
    expires_at: Option<i64>,
}

fn check_id(node_id: &str) -> Result<(), EnrollError> {
    if id::Kind::Node.matches(node_id) { Ok(()) } else { Err(EnrollError::NodeId) }
}

/// Uses up the token for this key and node, or finds that it was used by them.
pub(super) async fn spend(
    tx: &mut Tx,
    (kind, token): (EnrollKind, &str),
    fingerprint: &[u8],
    node_id: &str,
    now: i64,
) -> Result<(), EnrollError> {
    let kind = kind.as_str();
    let sha256 = token::hash(token.as_bytes());
    let row = enroll::find(tx, kind, &sha256).await?.filter(|row| row.expires_at > now).ok_or(EnrollError::Token)?;
    if row.used_by_public_key.is_none() && enroll::mark_used(tx, &row.id, fingerprint, node_id, now).await? {
        return Ok(());
    }
    // Used: before, or a moment ago by another process.
    let row = enroll::find(tx, kind, &sha256).await?.ok_or(EnrollError::Token)?;
    let EnrollTokenRow { used_by_public_key, used_by_id, .. } = row;
    let same = used_by_public_key.as_deref() == Some(fingerprint) && used_by_id.as_deref() == Some(node_id);
    if same { Ok(()) } else { Err(EnrollError::TokenUsed) }
}
