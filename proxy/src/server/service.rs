//! Binding listeners and running them on pingora's accept loops.
//!
//! We bind ourselves and give pingora the descriptor: so port 0 works, a taken
//! port is an error at once (pingora would retry for 30 s), and the same table
//! of descriptors is what an upgrade hands over.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{IntoRawFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use pingora_core::apps::ServerApp;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::listeners::{ConnectionFilter, ListenerConfig};
use pingora_core::protocols::l4::stream::L4BufferSettings;
use pingora_core::server::{Fds, ShutdownWatch};
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::front::{SourceGate, SourcePolicy};
use super::handover::inherited_listener;
use crate::telemetry::Metrics;

/// Read buffer of a connection: an idle one costs this much.
const READ_BUFFER: usize = 8 << 10;
/// Write buffer of a connection.
const WRITE_BUFFER: usize = 8 << 10;

/// A listener to be bound.
#[derive(Clone, Debug)]
pub struct Listener {
    /// For logs and for the hand-over: stable across restarts.
    pub name: &'static str,
    /// Port 0: any free one.
    pub address: SocketAddr,
    /// Decided at accept.
    pub sources: SourcePolicy,
    /// TLS with HTTP/2 by ALPN; `None`: plain HTTP/1.1.
    pub tls: Option<TlsFiles>,
}

/// A certificate chain and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Leaf first.
    pub certificate: PathBuf,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// A bound listener.
pub struct Bound {
    name: &'static str,
    /// The real address.
    pub address: SocketAddr,
    sources: SourcePolicy,
    descriptor: RawFd,
    tls: Option<TlsSettings>,
}

/// Why a listener is not there.
#[derive(Debug, thiserror::Error)]
#[error("{name} listener {address}: {cause}")]
pub struct BindError {
    /// As in [`Listener`].
    pub name: &'static str,
    /// As in [`Listener`].
    pub address: SocketAddr,
    /// The system's words.
    pub cause: std::io::Error,
}

/// Binds `listener`, or takes the socket of that name from `inherited`.
///
/// # Errors
/// The address cannot be bound, or the TLS files cannot be used.
pub fn bind(listener: &Listener, inherited: Option<&Fds>) -> Result<Bound, BindError> {
    let fail = |cause| BindError { name: listener.name, address: listener.address, cause };
    let (descriptor, address) = match inherited.and_then(|table| inherited_listener(table, listener.name)) {
        Some(found) => found,
        None => {
            let socket = TcpListener::bind(listener.address).map_err(fail)?;
            socket.set_nonblocking(true).map_err(fail)?;
            let address = socket.local_addr().map_err(fail)?;
            // From here on pingora owns the descriptor.
            (socket.into_raw_fd(), address)
        }
    };
    let tls = listener.tls.as_ref().map(tls_settings).transpose().map_err(fail)?;
    Ok(Bound { name: listener.name, address, sources: listener.sources.clone(), descriptor, tls })
}

/// Checks the files now: pingora would panic over them when the listener runs.
fn tls_settings(files: &TlsFiles) -> std::io::Result<TlsSettings> {
    let bad = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("TLS: {what}"));
    let certificates: Vec<_> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(|_| bad("the certificate file is not PEM"))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|_| bad("the key file is not PEM"))?;
    let provider = rustls::crypto::ring::default_provider();
    let certified = CertifiedKey::from_der(certificates, key, &provider).map_err(|e| bad(&e.to_string()))?;
    let mut settings = TlsSettings::intermediate("", "").map_err(|_| bad("refused"))?;
    settings.set_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    settings.enable_h2();
    Ok(settings)
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}

impl Bound {
    /// The name of the listener.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) const fn descriptor(&self) -> RawFd {
        self.descriptor
    }

    /// Accepts until `shutdown` turns true; connections go on afterwards.
    /// What the source policy turns away is counted in `metrics`.
    pub async fn run<A: ServerApp + Send + Sync + 'static>(
        self,
        app: A,
        metrics: Arc<Metrics>,
        shutdown: ShutdownWatch,
    ) {
        let mut service = Service::new(self.name.to_owned(), app);
        let mut config = ListenerConfig::tcp(self.address.to_string());
        if let Some(tls) = self.tls {
            config = config.tls(tls);
        }
        service.add_listener(config.l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER)));
        if matches!(self.sources, SourcePolicy::Within { .. }) {
            let filter: Arc<dyn ConnectionFilter> = Arc::new(SourceGate::new(self.sources, metrics));
            service.set_connection_filter(filter);
        }
        let mut table = Fds::new();
        table.add(self.address.to_string(), self.descriptor);
        service.start_service(Some(Arc::new(Mutex::new(table))), shutdown, 1).await;
    }
}
