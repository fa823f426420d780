//! Binding listeners and running them on pingora's accept loops.
//!
//! We bind ourselves and give pingora the descriptor: so port 0 works, a taken
//! port is an error at once (pingora would retry for 30 s), and the same table
//! of descriptors is what an upgrade hands over.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{IntoRawFd, RawFd};
use std::sync::Arc;

use nix::libc;
use nix::sys::socket::setsockopt;
use parking_lot::Mutex;
use pingora_core::apps::ServerApp;
use pingora_core::listeners::{ConnectionFilter, ListenerConfig};
use pingora_core::protocols::l4::stream::L4BufferSettings;
use pingora_core::server::{Fds, ShutdownWatch};
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;

use super::handover::inherited_listener;
use super::pace::UNSENT;
use super::sources::{SourceGate, SourcePolicy};
use super::tls::{Tls, TlsFiles};
use crate::limits::Pressure;
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
    /// Connections one source may have; `None`: as many as all together.
    pub per_source: Option<usize>,
    /// TLS with HTTP/2 by ALPN; `None`: plain HTTP/1.1.
    pub tls: Option<TlsFiles>,
}

/// A bound listener.
pub struct Bound {
    name: &'static str,
    /// The real address.
    pub address: SocketAddr,
    sources: SourcePolicy,
    per_source: Option<usize>,
    descriptor: RawFd,
    tls: Option<Tls>,
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
            // Accepted sockets inherit it, and so does a successor with the
            // listener. A matter of fairness only: a kernel may not know it.
            if let Err(error) = setsockopt(&socket, TcpNotsentLowat, &UNSENT) {
                tracing::debug!(%error, "no limit on unsent bytes");
            }
            let address = socket.local_addr().map_err(fail)?;
            // From here on pingora owns the descriptor.
            (socket.into_raw_fd(), address)
        }
    };
    let tls = listener.tls.as_ref().map(Tls::open).transpose().map_err(fail)?;
    let Listener { name, sources, per_source, .. } = listener.clone();
    Ok(Bound { name, address, sources, per_source, descriptor, tls })
}

/// Without this the kernel takes up to some megabytes of an answer for a client
/// that does not read, and wakes a writer only when a third of them is gone: a
/// slow reader would look like one that has stopped.
#[derive(Clone, Copy, Debug)]
struct TcpNotsentLowat;

nix::setsockopt_impl!(
    TcpNotsentLowat,
    libc::IPPROTO_TCP,
    libc::TCP_NOTSENT_LOWAT,
    u32,
    nix::sys::socket::sockopt::SetStruct<u32>
);

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

    pub(super) const fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(super) const fn per_source(&self) -> Option<usize> {
        self.per_source
    }

    /// Accepts until `shutdown` turns true; connections go on afterwards. With
    /// `pressure` nobody is accepted while memory is almost used up. What the
    /// source policy turns away is counted in `metrics`.
    pub async fn run<A: ServerApp + Send + Sync + 'static>(
        self,
        app: A,
        metrics: Arc<Metrics>,
        pressure: Option<Arc<Pressure>>,
        shutdown: ShutdownWatch,
    ) {
        let mut service = Service::new(self.name.to_owned(), app);
        let config = ListenerConfig::tcp(self.address.to_string());
        service.add_listener(config.l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER)));
        let reloading = self.tls.map(|tls| tokio::spawn(tls.reload(metrics.clone())));
        if let Some(pressure) = pressure {
            let filter: Arc<dyn ConnectionFilter> = Arc::new(SourceGate::new(self.sources, metrics, pressure));
            service.set_connection_filter(filter);
        }
        let mut table = Fds::new();
        table.add(self.address.to_string(), self.descriptor);
        service.start_service(Some(Arc::new(Mutex::new(table))), shutdown, 1).await;
        if let Some(reloading) = reloading {
            reloading.abort();
        }
    }
}
