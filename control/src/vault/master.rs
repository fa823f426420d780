//! The master key: 32 bytes, as base64 text, from the configuration or a file.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clawgate_shared::seal::SealingKey;
use zeroize::Zeroizing;

/// Why a master key cannot be used. Never holds any of it.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// Not base64 of 32 bytes.
    #[error("the master key is not 32 bytes in base64")]
    Malformed,
    /// Others than its owner may read it.
    #[error("{0} can be read by others: chmod 600 it")]
    Readable(PathBuf),
    /// The file cannot be read or written.
    #[error("{path}: {cause}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The system gave no random bytes.
    #[error("no random bytes from the system")]
    Random,
}

/// From its text form.
pub(super) fn decode(text: &str) -> Result<SealingKey, MasterKeyError> {
    let raw = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| MasterKeyError::Malformed)?);
    SealingKey::from_slice(&raw).map_err(|_| MasterKeyError::Malformed)
}

/// From a file; `None` when there is none.
pub(super) fn read_file(path: &Path) -> Result<Option<SealingKey>, MasterKeyError> {
    let failed = |cause| MasterKeyError::File { path: path.to_owned(), cause };
    let meta = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    if meta.mode() & 0o077 != 0 {
        return Err(MasterKeyError::Readable(path.to_owned()));
    }
    if meta.len() > 4096 {
        return Err(MasterKeyError::Malformed);
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
    decode(&text).map(Some)
}

/// Makes a new key and its file (0600). The file is durable before the key is
/// used: what is sealed with it must never outlive it.
pub(super) fn create_file(path: &Path) -> Result<SealingKey, MasterKeyError> {
    let failed = |cause| MasterKeyError::File { path: path.to_owned(), cause };
    let key = SealingKey::generate().map_err(|_| MasterKeyError::Random)?;
    let mut text = Zeroizing::new(STANDARD.encode(key.expose()));
    text.push('\n');
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    }
    Ok(key)
}
