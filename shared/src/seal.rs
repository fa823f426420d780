//! Authenticated encryption of small secrets (AES-256-GCM, random 96-bit
//! nonces) and the associated data that ties a provider key to the one origin
//! it may be sent to.
//!
//! Invariant: a sealed provider key opens only under the same tenant, key,
//! vendor, origin and secret version it was sealed for, so that a swapped row
//! or an edited `base_url` can never make a key travel elsewhere.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A 256-bit key; wiped when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SealingKey([u8; 32]);

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

/// What can go wrong; deliberately silent about contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not 32 bytes.
    #[error("a sealing key has 32 bytes")]
    KeyLength,
    /// Not 12 bytes.
    #[error("a nonce has 12 bytes")]
    NonceLength,
    /// Wrong key, wrong associated data, or damaged bytes.
    #[error("the sealed value does not open: wrong key, wrong binding or damaged")]
    Open,
    /// The cipher refused (value longer than 64 GiB).
    #[error("the value cannot be sealed")]
    Seal,
    /// The system gave no random bytes.
    #[error("no random bytes from the system")]
    Random,
}

/// A nonce and its ciphertext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// 12 bytes, random per seal.
    pub nonce: [u8; 12],
    /// Ciphertext with its 16-byte tag.
    pub ciphertext: Vec<u8>,
}

impl Sealed {
    /// `nonce || ciphertext`, for one column or one file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.nonce.as_slice(), &self.ciphertext].concat()
    }

    /// The inverse of [`Self::to_bytes`].
    ///
    /// # Errors
    /// Fewer than 12 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        let (nonce, ciphertext) = bytes.split_at_checked(12).ok_or(SealError::NonceLength)?;
        Self::from_parts(nonce, ciphertext)
    }

    /// From a nonce and a ciphertext that travelled apart.
    ///
    /// # Errors
    /// The nonce is not 12 bytes long.
    pub fn from_parts(nonce: &[u8], ciphertext: &[u8]) -> Result<Self, SealError> {
        let nonce = nonce.try_into().map_err(|_| SealError::NonceLength)?;
        Ok(Self { nonce, ciphertext: ciphertext.to_vec() })
    }
}

impl SealingKey {
    /// # Errors
    /// `bytes` is not 32 long.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, SealError> {
        bytes.try_into().map(Self).map_err(|_| SealError::KeyLength)
    }

    /// A new random key.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn generate() -> Result<Self, SealError> {
        let mut raw = [0u8; 32];
        getrandom::fill(&mut raw).map_err(|_| SealError::Random)?;
        Ok(Self(raw))
    }

    /// The raw key, for the one place that must hand it on or store it.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Seals `plaintext` and binds it to `aad`.
    ///
    /// # Errors
    /// No random bytes, or an impossible length.
    pub fn seal(&self, plaintext: &[u8], aad: &[u8]) -> Result<Sealed, SealError> {
        let mut nonce = [0u8; 12];
        getrandom::fill(&mut nonce).map_err(|_| SealError::Random)?;
        let cipher = Aes256Gcm::new_from_slice(&self.0).map_err(|_| SealError::KeyLength)?;
        let ciphertext =
            cipher.encrypt(&Nonce::from(nonce), Payload { msg: plaintext, aad }).map_err(|_| SealError::Seal)?;
        Ok(Sealed { nonce, ciphertext })
    }

    /// Opens what [`Self::seal`] sealed under the same `aad`.
    ///
    /// # Errors
    /// [`SealError::Open`] for every mismatch, without saying which.
    pub fn open(&self, sealed: &Sealed, aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let cipher = Aes256Gcm::new_from_slice(&self.0).map_err(|_| SealError::KeyLength)?;
        cipher
            .decrypt(&Nonce::from(sealed.nonce), Payload { msg: &sealed.ciphertext, aad })
            .map(Zeroizing::new)
            .map_err(|_| SealError::Open)
    }
}

/// What a sealed provider key is bound to.
#[derive(Clone, Copy, Debug)]
pub struct SecretBinding<'a> {
    /// Owner.
    pub tenant_id: &'a str,
    /// The provider key's id.
    pub key_id: &'a str,
    /// Vendor slug.
    pub vendor: &'a str,
    /// `scheme://host:port` of every request this key may travel in
    /// ([`crate::origin::Origin`] as text).
    pub origin: &'a str,
    /// Goes up by one with each rotation.
    pub secret_version: u64,
}

impl SecretBinding<'_> {
    /// Associated data: each field with its length before it, so that no two
    /// bindings have the same bytes.
    #[must_use]
    pub fn aad(&self) -> Vec<u8> {
        let mut out = b"clawgate/provider-key/1".to_vec();
        for field in [self.tenant_id, self.key_id, self.vendor, self.origin] {
            out.extend_from_slice(&(field.len() as u64).to_be_bytes());
            out.extend_from_slice(field.as_bytes());
        }
        out.extend_from_slice(&self.secret_version.to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDING: SecretBinding<'_> = SecretBinding {
        tenant_id: "ten_1",
        key_id: "key_1",
        vendor: "openai",
        origin: "https://api.openai.com:443",
        secret_version: 1,
    };

    #[test]
    fn opens_only_under_its_own_binding() {
        let key = SealingKey::generate().expect("random");
        let sealed = key.seal(b"sk-secret", &BINDING.aad()).expect("seals");
        assert_eq!(key.open(&sealed, &BINDING.aad()).expect("opens").as_slice(), b"sk-secret");
        let swaps = [
            SecretBinding { tenant_id: "ten_2", ..BINDING },
            SecretBinding { key_id: "key_2", ..BINDING },
            SecretBinding { vendor: "anthropic", ..BINDING },
            SecretBinding { origin: "https://evil.example:443", ..BINDING },
            SecretBinding { origin: "http://api.openai.com:443", ..BINDING },
            SecretBinding { secret_version: 2, ..BINDING },
        ];
        for swapped in swaps {
            assert_eq!(key.open(&sealed, &swapped.aad()).err(), Some(SealError::Open), "{swapped:?}");
        }
        let other = SealingKey::generate().expect("random");
        assert_eq!(other.open(&sealed, &BINDING.aad()).err(), Some(SealError::Open));
    }

    #[test]
    fn fields_cannot_run_into_each_other() {
        let a = SecretBinding { tenant_id: "ab", key_id: "c", ..BINDING };
        let b = SecretBinding { tenant_id: "a", key_id: "bc", ..BINDING };
        assert_ne!(a.aad(), b.aad());
    }

    #[test]
    fn bytes_round_trip_and_damage_is_seen() {
        let key = SealingKey::generate().expect("random");
        let sealed = key.seal(b"x", b"aad").expect("seals");
        let mut bytes = sealed.to_bytes();
        assert_eq!(Sealed::from_bytes(&bytes), Ok(sealed));
        bytes[13] ^= 1;
        let damaged = Sealed::from_bytes(&bytes).expect("long enough");
        assert_eq!(key.open(&damaged, b"aad").err(), Some(SealError::Open));
        assert_eq!(Sealed::from_bytes(&[0; 11]).err(), Some(SealError::NonceLength));
    }
}
