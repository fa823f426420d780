//! The door of nodes and runners: gRPC over a Unix socket for this machine, over mTLS for
//! every other.
//!
//! Invariant: a handler acts for the node or runner that the transport proves, and only
//! enrolment may be asked for without a certificate. TCP without TLS does not
//! exist here.
//! Deliberately absent: what the calls do (`fleet`, `snapshot`, `ingest`,
//! `quota`, `runtime`).

mod account_ids;
mod enroll;
mod peer;
pub mod quota;
mod runner;
mod sync;
mod usage;

#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clawgate_shared::proto::node::account_ids_server::AccountIdsServer;
use clawgate_shared::proto::node::config_sync_server::ConfigSyncServer;
use clawgate_shared::proto::node::fleet_server::FleetServer;
use clawgate_shared::proto::node::quota_leases_server::QuotaLeasesServer;
use clawgate_shared::proto::node::usage_ingest_server::UsageIngestServer;
use clawgate_shared::proto::runner::runner_server::RunnerServer;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::fleet::Fleet;
use crate::fleet::ca::CaError;
use crate::runtime::Runtime;
use peer::Transport;

/// A silent connection is asked for a sign of life after this.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// And closed when none came within this.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Calls at a time on one connection.
const MAX_STREAMS: u32 = 256;
/// Largest message of enrolment and of a node's stream, in bytes.
const MAX_SMALL_MESSAGE: usize = 256 << 10;
/// Largest list of containers, or answer of a runner, in bytes.
const MAX_LIST: usize = 8 << 20;
/// Largest batch of usage records, in bytes.
const MAX_BATCH: usize = 16 << 20;
/// Largest call for leases, in bytes: more than its most claims need.
const MAX_TRADE: usize = 1 << 20;
/// What a node may send of one batch before it hears from us: all of it, so
/// that a batch does not cost a dozen round trips.
const WINDOW: u32 = 8 << 20;
/// Largest frame of HTTP/2 that is accepted.
const MAX_FRAME: u32 = 1 << 18;

/// Why the door does not open, or closed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket's path cannot be used.
    #[error("gRPC socket {path}: {source}")]
    Socket {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Another process listens there.
    #[error("gRPC socket {0} is in use by another process")]
    InUse(String),
    /// See [`CaError`].
    #[error(transparent)]
    Certificate(#[from] CaError),
    /// The listener or the TLS set-up failed.
    #[error("gRPC: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves processes of this machine until `stop` is true. The socket is made
/// with mode 0600; one that nobody listens on any more is replaced.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve_unix(
    path: &Path,
    (fleet, runtime): (Arc<Fleet>, Arc<Runtime>),
    mut stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let listener = bind(path).await?;
    let router = services(Server::builder(), (fleet, runtime), Transport::Local, &stop);
    let incoming = UnixListenerStream::new(listener);
    let served = router.serve_with_incoming_shutdown(incoming, async move { stopped(&mut stop).await }).await;
    // A leftover only costs the next start a connection attempt.
    let _ = std::fs::remove_file(path);
    Ok(served?)
}

/// Serves nodes over mTLS until `stop` is true.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve_mtls(
    listener: TcpListener,
    (fleet, runtime): (Arc<Fleet>, Arc<Runtime>),
    mut stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    // A process has one; whoever was first chose the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let identity = fleet.server_identity()?;
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(&identity.certificate_pem, identity.key_pem.as_bytes()))
        .client_ca_root(Certificate::from_pem(fleet.ca_pem()))
        // Enrolment has no certificate yet; every other handler asks for one.
        .client_auth_optional(true)
        .timeout(HANDSHAKE);
    let router = services(Server::builder().tls_config(tls)?, (fleet, runtime), Transport::Tls, &stop);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(router.serve_with_incoming_shutdown(incoming, async move { stopped(&mut stop).await }).await?)
}

fn services(
    server: Server,
    (fleet, runtime): (Arc<Fleet>, Arc<Runtime>),
    transport: Transport,
    stop: &watch::Receiver<bool>,
) -> Router {
    let enroll = FleetServer::new(enroll::Service { fleet: Arc::clone(&fleet), transport });
    let sync = ConfigSyncServer::new(sync::Service { fleet: Arc::clone(&fleet), transport, stop: stop.clone() });
    let quota = QuotaLeasesServer::new(quota::Service { fleet: Arc::clone(&fleet), transport });
    let ids = AccountIdsServer::new(account_ids::Service { fleet: Arc::clone(&fleet), transport });
    let runner = runner::Service { fleet: Arc::clone(&fleet), runtime, transport, stop: stop.clone() };
    let usage = UsageIngestServer::new(usage::Service { fleet, transport });
    server
        .http2_keepalive_interval(Some(KEEPALIVE))
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .max_frame_size(MAX_FRAME)
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(MAX_STREAMS)
        .add_service(enroll.max_decoding_message_size(MAX_SMALL_MESSAGE))
        .add_service(sync.max_decoding_message_size(MAX_SMALL_MESSAGE))
        .add_service(quota.max_decoding_message_size(MAX_TRADE))
        .add_service(ids.max_decoding_message_size(MAX_SMALL_MESSAGE))
        .add_service(RunnerServer::new(runner).max_decoding_message_size(MAX_LIST))
        .add_service(usage.max_decoding_message_size(MAX_BATCH))
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody can ask any more, which is the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn bind(path: &Path) -> Result<UnixListener, ServeError> {
    use std::os::unix::fs::PermissionsExt as _;
    let name = || path.display().to_string();
    let failed = |source| ServeError::Socket { path: name(), source };
    if path.exists() {
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            return Err(ServeError::InUse(name()));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}
