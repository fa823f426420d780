//! Provider keys: sealed for the database, resealed for a node.

use clawgate_shared::proto::node::SealedSecret;
use clawgate_shared::seal::{SealError, Sealed, SealingKey, SecretBinding};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Vault, VaultError, hex};
use crate::store::provider_keys::SealedColumns;

/// Longest secret, in bytes (a service account's JSON has about 2,400).
const MAX_SECRET: usize = 8192;
/// A secret shorter than this shows none of its characters.
const MIN_FOR_LAST4: usize = 12;

/// A secret on its way in: printable, wiped when dropped, never printed.
pub struct NewSecret(Zeroizing<String>);

impl std::fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewSecret(…)")
    }
}

/// What may be shown of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Last four characters; empty when the secret is short.
    pub last4: String,
    /// 16 hex digits of a keyed hash: equal secrets look equal.
    pub fingerprint: String,
}

impl NewSecret {
    /// Takes a secret as an admin typed it, without surrounding white space.
    ///
    /// # Errors
    /// [`VaultError::SecretForm`]: empty, over 8192 bytes, or with a character
    /// that a header cannot carry.
    pub fn parse(text: Zeroizing<String>) -> Result<Self, VaultError> {
        let trimmed = text.trim();
        let plain = (1..=MAX_SECRET).contains(&trimmed.len()) && trimmed.bytes().all(|b| (b' '..=b'~').contains(&b));
        if !plain {
            return Err(VaultError::SecretForm);
        }
        Ok(Self(Zeroizing::new(trimmed.to_owned())))
    }
}

impl Vault {
    /// Seals a secret for its row.
    ///
    /// # Errors
    /// No random bytes from the system.
    pub fn seal_secret(&self, binding: &SecretBinding<'_>, secret: &NewSecret) -> Result<SealedColumns, VaultError> {
        let aad = binding.aad();
        let dek = SealingKey::generate()?;
        let sealed_secret = dek.seal(secret.0.as_bytes(), &aad)?.to_bytes();
        let wrapped_dek = self.kek.seal(dek.expose(), &dek_aad(&aad))?.to_bytes();
        Ok(SealedColumns { sealed_secret, wrapped_dek, kek_id: self.kek_id.clone() })
    }

    /// What may be shown of a secret.
    #[must_use]
    pub fn fingerprint(&self, secret: &NewSecret) -> Fingerprint {
        let text = secret.0.as_str();
        let last4 = if text.len() >= MIN_FOR_LAST4 { text.get(text.len() - 4..).unwrap_or_default() } else { "" };
        // HMAC takes keys of any length: this cannot fail.
        let fingerprint = Hmac::<Sha256>::new_from_slice(self.fingerprint_key.expose()).map_or_else(
            |_| String::new(),
            |mut mac| {
                mac.update(text.as_bytes());
                hex(mac.finalize().into_bytes().get(..8).unwrap_or_default())
            },
        );
        Fingerprint { last4: last4.to_owned(), fingerprint }
    }

    /// Seals a stored secret anew for one node, under the same binding.
    ///
    /// # Errors
    /// The row does not open under this binding, or belongs to another master key.
    pub fn reseal_for_node(
        &self,
        node_key: &SealingKey,
        binding: &SecretBinding<'_>,
        row: &SealedColumns,
    ) -> Result<SealedSecret, VaultError> {
        let plaintext = self.open_secret(binding, row)?;
        let sealed = node_key.seal(&plaintext, &binding.aad())?;
        Ok(SealedSecret {
            key_id: binding.key_id.to_owned(),
            secret_version: binding.secret_version,
            nonce: sealed.nonce.to_vec(),
            ciphertext: sealed.ciphertext,
        })
    }

    /// Proves that a stored secret still opens, without giving it out.
    ///
    /// # Errors
    /// As [`Self::reseal_for_node`].
    pub fn check_secret(&self, binding: &SecretBinding<'_>, row: &SealedColumns) -> Result<(), VaultError> {
        self.open_secret(binding, row).map(drop)
    }

    /// Only for this folder: nobody else sees a plaintext.
    pub(super) fn open_secret(
        &self,
        binding: &SecretBinding<'_>,
        row: &SealedColumns,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        if row.kek_id != self.kek_id {
            return Err(VaultError::OtherKey(row.kek_id.clone()));
        }
        let aad = binding.aad();
        let dek = self.kek.open(&Sealed::from_bytes(&row.wrapped_dek)?, &dek_aad(&aad))?;
        let dek = SealingKey::from_slice(&dek).map_err(|_| SealError::Open)?;
        Ok(dek.open(&Sealed::from_bytes(&row.sealed_secret)?, &aad)?)
    }
}

/// A wrapped key is bound to the same things as what it opens, and is never
/// taken for it.
fn dek_aad(binding: &[u8]) -> Vec<u8> {
    [b"clawgate/dek/1".as_slice(), binding].concat()
}
