//! The single steps of a start, and how their errors are told.

use std::fmt::Display;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use clawgate_shared::token::{self, TokenHash, TokenKind};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use zeroize::Zeroizing;

use super::datadir::DataDir;
use super::{ControlError, Ended};
use crate::config::ControlConfig;
use crate::store::{Db, StoreError};
use crate::vault::{MasterKeyError, Vault, VaultError};

/// Shortest bootstrap token that is accepted from outside.
const MIN_ADMIN_TOKEN: usize = 20;

/// Says where everything listens; exists while the control plane is ready.
const READY_FILE: &str = "run/control.json";

/// Sockets that are bound and not yet served.
pub(super) struct Listeners {
    pub(super) console: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) grpc: Option<TcpListener>,
}

/// Where they really are.
pub(super) struct Addresses {
    console: SocketAddr,
    admin: SocketAddr,
    grpc: Option<SocketAddr>,
}

impl Listeners {
    pub(super) async fn bind(config: &ControlConfig) -> Result<Self, ControlError> {
        let grpc = match config.grpc_listen {
            Some(address) => Some(bind("grpc_listen", address).await?),
            None => None,
        };
        Ok(Self {
            console: bind("console_listen", config.console_listen).await?,
            admin: bind("control_admin_listen", config.admin_listen).await?,
            grpc,
        })
    }

    pub(super) fn addresses(&self) -> Result<Addresses, ControlError> {
        let of = |listener: &TcpListener| listener.local_addr().map_err(|error| failed("listener", &error));
        Ok(Addresses {
            console: of(&self.console)?,
            admin: of(&self.admin)?,
            grpc: self.grpc.as_ref().map(of).transpose()?,
        })
    }
}

impl Addresses {
    /// For the address policy: a provider key must not lead to ourselves.
    pub(super) fn own(&self) -> impl Iterator<Item = SocketAddr> {
        [Some(self.console), Some(self.admin), self.grpc].into_iter().flatten()
    }
}

async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, ControlError> {
    TcpListener::bind(address).await.map_err(|source| ControlError::listen(setting, address, source))
}

/// A part that ends well only when it is told to stop.
pub(super) fn spawn(parts: &mut JoinSet<Ended>, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
    parts.spawn(async move {
        part.await;
        (name, Ok(()))
    });
}

/// A part that ended before it was told to.
pub(super) fn ended(ended: Result<Ended, JoinError>) -> ControlError {
    match ended {
        Ok((part, Err(message))) => ControlError::Part { part, message },
        Ok((part, Ok(()))) => ControlError::Part { part, message: "it ended by itself".into() },
        Err(error) => ControlError::Part { part: "a part", message: error.to_string() },
    }
}

pub(super) fn failed(part: &'static str, error: &dyn Display) -> ControlError {
    ControlError::Part { part, message: error.to_string() }
}

pub(super) fn database(error: StoreError) -> ControlError {
    match error {
        StoreError::Busy => ControlError::DatabaseLocked,
        other => ControlError::Database(other.to_string()),
    }
}

pub(super) async fn open_data_dir(config: &ControlConfig) -> Result<DataDir, ControlError> {
    let path = config.data_dir.clone();
    // It may wait for a predecessor to end.
    let opened = tokio::task::spawn_blocking(move || DataDir::open(&path)).await;
    let data = opened.map_err(|error| failed("data directory", &error))??;
    // Where a predecessor was is not where we are.
    let _ = std::fs::remove_file(data.join(READY_FILE));
    Ok(data)
}

pub(super) async fn open_vault(config: &ControlConfig, data: &DataDir, db: &Db) -> Result<Arc<Vault>, ControlError> {
    let path = data.join("master.key");
    let given = config.master_key.as_ref().map(|key| key.as_str());
    Vault::open(db, given, &path).await.map_err(|error| match error {
        VaultError::Missing => ControlError::MasterKeyMissing { path },
        VaultError::Wrong | VaultError::OtherKey(_) | VaultError::Seal(_) => ControlError::MasterKeyWrong,
        VaultError::MasterKey(MasterKeyError::Malformed) => ControlError::MasterKeyMalformed,
        VaultError::MasterKey(other) => ControlError::MasterKeyUnreadable(other.to_string()),
        VaultError::Store(error) => database(error),
        other => failed("vault", &other),
    })
}

/// The configured token, else the data directory's, else a new one.
pub(super) fn bootstrap_token(config: &ControlConfig, data: &DataDir) -> Result<TokenHash, ControlError> {
    const FILE: &str = "admin.token";
    let text = match &config.admin_token {
        Some(text) => text.clone(),
        None => match data.read_text(FILE)? {
            Some(text) => text,
            None => {
                let text = token::mint(TokenKind::Api).map_err(|_| ControlError::Random)?;
                let path = data.write_private(FILE, Zeroizing::new(format!("{}\n", *text)).as_bytes())?;
                tracing::info!(path = %path.display(), "the bootstrap admin token is in this file");
                text
            }
        },
    };
    if text.len() < MIN_ADMIN_TOKEN || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ControlError::AdminTokenMalformed);
    }
    Ok(token::hash(text.as_bytes()))
}

/// Tells supervisor and tests where everything listens; written when ready.
pub(super) fn announce(data: &DataDir, config: &ControlConfig, addresses: &Addresses) -> Result<(), ControlError> {
    let grpc = match (addresses.grpc, &config.grpc_socket) {
        (Some(address), _) => Some(address.to_string()),
        (None, Some(socket)) => Some(format!("unix:{}", socket.display())),
        (None, None) => None,
    };
    let content = json!({
        "console": addresses.console.to_string(),
        "admin": addresses.admin.to_string(),
        "grpc": grpc,
        "grpc_socket": config.grpc_socket.as_ref().map(|path| path.display().to_string()),
    });
    data.write_private(READY_FILE, content.to_string().as_bytes())?;
    tracing::info!(console = %addresses.console, admin = %addresses.admin, grpc, "ready");
    Ok(())
}
