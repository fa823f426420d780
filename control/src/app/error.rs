//! Why the control plane does not start, each with a stable code.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Reasons to stop. No text holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Somebody else listens there.
    #[error("{setting}: {address} is already in use; end the other process or choose another port")]
    PortTaken {
        /// Which listener.
        setting: &'static str,
        /// Its address.
        address: String,
    },
    /// The address cannot be bound for another reason.
    #[error("{setting}: cannot listen on {address}: {source}")]
    CannotListen {
        /// Which listener.
        setting: &'static str,
        /// Its address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Missing permission, read-only, full, or not a directory.
    #[error("data directory: {} cannot be read or written: {source}", path.display())]
    DataDirNotWritable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another control plane holds the lock.
    #[error("data directory: {} is in use by another clawgate control plane", path.display())]
    DataDirInUse {
        /// The directory.
        path: PathBuf,
    },
    /// Another process holds the database.
    #[error("database: locked by another process; nothing was changed")]
    DatabaseLocked,
    /// Not reachable, not ours, or damaged.
    #[error("database: {0}")]
    Database(String),
    /// Sealed rows exist and no key was given.
    #[error(
        "master key: the database holds sealed keys and no master key was given; set CLAWGATE_MASTER_KEY or \
         CLAWGATE_MASTER_KEY_FILE, or put the key back into {}", path.display()
    )]
    MasterKeyMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Not the key the database was sealed with.
    #[error("master key: this is not the key the database was sealed with")]
    MasterKeyWrong,
    /// Not 32 bytes in base64.
    #[error("master key: must be 32 bytes in base64")]
    MasterKeyMalformed,
    /// The file cannot be read, or others can read it too.
    #[error("master key: {0}")]
    MasterKeyUnreadable(String),
    /// Too short to be a secret.
    #[error("admin token: must be at least 20 printable characters without spaces")]
    AdminTokenMalformed,
    /// The system gave no random bytes.
    #[error("no random bytes from the system")]
    Random,
    /// A part of the control plane ended by itself.
    #[error("{part} failed: {message}")]
    Part {
        /// Which.
        part: &'static str,
        /// Its own words.
        message: String,
    },
}

impl ControlError {
    /// For scripts and the supervisor.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::PortTaken { .. } => "port_taken",
            Self::CannotListen { .. } => "cannot_listen",
            Self::DataDirNotWritable { .. } => "data_dir_not_writable",
            Self::DataDirInUse { .. } => "data_dir_in_use",
            Self::DatabaseLocked => "database_locked",
            Self::Database(_) => "database_error",
            Self::MasterKeyMissing { .. } => "master_key_missing",
            Self::MasterKeyWrong => "master_key_wrong",
            Self::MasterKeyMalformed => "master_key_malformed",
            Self::MasterKeyUnreadable(_) => "master_key_unreadable",
            Self::AdminTokenMalformed => "admin_token_malformed",
            Self::Random => "no_random_bytes",
            Self::Part { .. } => "part_failed",
        }
    }

    /// A bind error with its setting.
    #[must_use]
    pub fn listen(setting: &'static str, address: SocketAddr, source: io::Error) -> Self {
        let address = address.to_string();
        if source.kind() == io::ErrorKind::AddrInUse {
            return Self::PortTaken { setting, address };
        }
        Self::CannotListen { setting, address, source }
    }
}
