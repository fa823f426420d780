//! Custody of secrets: envelope encryption under one master key.
//!
//! Invariant: a provider key's plaintext exists only inside functions of this
//! folder, in memory that is wiped; what leaves is sealed, either for the
//! database or for one node. Each secret has a key of its own (DEK), wrapped by
//! the master key (KEK); both are bound to tenant, key, vendor, origin and
//! secret version, so a row that was moved or edited does not open.
//! Asking a vendor whether a secret works is done here for the same reason.
//! Deliberately absent: SQL, permissions, reading the environment, deciding
//! which address may be asked.

mod envelope;
mod master;
mod probe;

use std::path::Path;
use std::sync::Arc;

use clawgate_shared::seal::{SealError, Sealed, SealingKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::store::{Db, StoreError, settings};

pub use envelope::{Fingerprint, NewSecret};
pub use master::MasterKeyError;
pub use probe::{Probe, ProbeAnswer};

const KEY_CHECK: &str = "vault.key_check";
const FINGERPRINT_KEY: &str = "vault.fingerprint_key";
const CHECK_TEXT: &[u8] = b"this master key is the right one";

/// What a small sealed value is for; part of what it is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Private key of the nodes' certificate authority.
    CaKey,
    /// The key to which one node's secrets are sealed; context: node id.
    NodeSealingKey,
    /// The bot token inside a container; context: bot id.
    ContainerToken,
    /// What opens a container's own door; context: bot id.
    GatewayToken,
    /// An answer kept for `Idempotency-Key`; context: principal and key.
    IdempotentAnswer,
    /// Proves that a master key is the right one.
    KeyCheck,
    /// The key of the fingerprints.
    FingerprintKey,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::CaKey => "ca-key",
            Self::NodeSealingKey => "node-sealing-key",
            Self::ContainerToken => "container-token",
            Self::GatewayToken => "gateway-token",
            Self::IdempotentAnswer => "idempotent-answer",
            Self::KeyCheck => "key-check",
            Self::FingerprintKey => "fingerprint-key",
        }
    }
}

/// Why the vault does not open or a value does not.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// See [`MasterKeyError`].
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// Sealed values exist and no key was given.
    #[error(
        "the database holds sealed secrets but no master key was given: set CLAWGATE_MASTER_KEY or \
         CLAWGATE_MASTER_KEY_FILE, or put master.key back into the data directory"
    )]
    Missing,
    /// The key given is not the one the values are sealed under.
    #[error("the master key is not the one this database was sealed with")]
    Wrong,
    /// A value is sealed under another master key than the open one.
    #[error("the value is sealed under master key {0}, which is not the open one")]
    OtherKey(String),
    /// A sealed value does not open, or cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The secret is not printable text of 1 to 8192 bytes.
    #[error("the secret is not printable text of 1 to 8192 bytes")]
    SecretForm,
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The open vault; share it in an [`Arc`].
pub struct Vault {
    kek: SealingKey,
    kek_id: String,
    fingerprint_key: SealingKey,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("kek_id", &self.kek_id).finish_non_exhaustive()
    }
}

impl Vault {
    /// Opens the vault of a migrated database. `given` is the configured master
    /// key in base64; without one, `key_file` is read, and made (0600) when
    /// nothing has been sealed in this database yet.
    ///
    /// # Errors
    /// See [`VaultError`]; a database with sealed values is never opened with
    /// another key than its own.
    pub async fn open(db: &Db, given: Option<&str>, key_file: &Path) -> Result<Arc<Self>, VaultError> {
        let mut tx = db.begin().await?;
        let check = settings::get(&mut tx, KEY_CHECK).await?;
        let kek = match given {
            Some(text) => master::decode(text)?,
            None => match master::read_file(key_file)? {
                Some(kek) => kek,
                None if check.is_some() => return Err(VaultError::Missing),
                None => master::create_file(key_file)?,
            },
        };
        let kek_id = kek_id(&kek);
        let open = |purpose, text: &str| -> Result<Zeroizing<Vec<u8>>, VaultError> {
            let sealed = Sealed::from_bytes(&unhex(text).ok_or(SealError::Open)?)?;
            Ok(kek.open(&sealed, &blob_aad(purpose, ""))?)
        };
        if let Some(check) = check {
            let proof = open(Purpose::KeyCheck, &check).map_err(|_| VaultError::Wrong)?;
            if proof.as_slice() != CHECK_TEXT {
                return Err(VaultError::Wrong);
            }
        } else {
            let sealed = kek.seal(CHECK_TEXT, &blob_aad(Purpose::KeyCheck, ""))?;
            settings::insert(&mut tx, KEY_CHECK, &hex(&sealed.to_bytes())).await?;
        }
        let fingerprint_key = match settings::get(&mut tx, FINGERPRINT_KEY).await? {
            Some(text) => SealingKey::from_slice(&open(Purpose::FingerprintKey, &text)?)?,
            None => {
                let key = SealingKey::generate()?;
                let sealed = kek.seal(key.expose(), &blob_aad(Purpose::FingerprintKey, ""))?;
                settings::insert(&mut tx, FINGERPRINT_KEY, &hex(&sealed.to_bytes())).await?;
                key
            }
        };
        tx.commit().await?;
        Ok(Arc::new(Self { kek, kek_id, fingerprint_key }))
    }

    /// Which master key is open: a name, not a secret.
    #[must_use]
    pub fn kek_id(&self) -> &str {
        &self.kek_id
    }

    /// Seals a small value for the database, bound to its purpose and context.
    ///
    /// # Errors
    /// No random bytes from the system.
    pub fn seal_blob(&self, purpose: Purpose, context: &str, plaintext: &[u8]) -> Result<Vec<u8>, VaultError> {
        Ok(self.kek.seal(plaintext, &blob_aad(purpose, context))?.to_bytes())
    }

    /// Opens what [`Self::seal_blob`] sealed for the same purpose and context.
    ///
    /// # Errors
    /// [`VaultError::Seal`] for every mismatch, without saying which.
    pub fn open_blob(&self, purpose: Purpose, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        Ok(self.kek.open(&Sealed::from_bytes(sealed)?, &blob_aad(purpose, context))?)
    }
}

/// A name for a master key that says nothing about it.
fn kek_id(kek: &SealingKey) -> String {
    let mut sum = Sha256::new();
    sum.update(b"clawgate/kek-id/1");
    sum.update(kek.expose());
    hex(sum.finalize().get(..8).unwrap_or_default())
}

fn blob_aad(purpose: Purpose, context: &str) -> Vec<u8> {
    let mut out = b"clawgate/blob/1".to_vec();
    for field in [purpose.as_str(), context] {
        out.extend_from_slice(&(field.len() as u64).to_be_bytes());
        out.extend_from_slice(field.as_bytes());
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .chunks_exact(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect()
}

#[cfg(test)]
mod tests;
