//! Binding listeners and running them on pingora's accept loops.
//!
//! We bind ourselves and give pingora the descriptor: so port 0 works, a taken
//! port is an error at once (pingora would retry for 30 s), and the same table
//! of descriptors is what an upgrade hands over.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{IntoRawFd, RawFd};
use std::sync::Arc;

use parking_lot::Mutex;
use pingora_core::apps::ServerApp;
use pingora_core::listeners::{ConnectionFilter, ListenerConfig};
use pingora_core::protocols::l4::stream::L4BufferSettings;
use pingora_core::server::{Fds, ShutdownWatch};
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;

use super::front::SourcePolicy;
use super::handover::inherited_listener;

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
}

/// A bound listener.
#[derive(Debug)]
pub struct Bound {
    name: &'static str,
    /// The real address.
    pub address: SocketAddr,
    sources: SourcePolicy,
    descriptor: RawFd,
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
/// The address cannot be bound.
pub fn bind(listener: &Listener, inherited: &Fds) -> Result<Bound, BindError> {
    let fail = |cause| BindError { name: listener.name, address: listener.address, cause };
    let (descriptor, address) = match inherited_listener(inherited, listener.name) {
        Some(found) => found,
        None => {
            let socket = TcpListener::bind(listener.address).map_err(fail)?;
            socket.set_nonblocking(true).map_err(fail)?;
            let address = socket.local_addr().map_err(fail)?;
            // From here on pingora owns the descriptor.
            (socket.into_raw_fd(), address)
        }
    };
    Ok(Bound { name: listener.name, address, sources: listener.sources.clone(), descriptor })
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
    pub async fn run<A: ServerApp + Send + Sync + 'static>(self, app: A, shutdown: ShutdownWatch) {
        let mut service = Service::new(self.name.to_owned(), app);
        let config = ListenerConfig::tcp(self.address.to_string());
        service.add_listener(config.l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER)));
        if matches!(self.sources, SourcePolicy::Within { .. }) {
            let filter: Arc<dyn ConnectionFilter> = Arc::new(self.sources);
            service.set_connection_filter(filter);
        }
        let mut table = Fds::new();
        table.add(self.address.to_string(), self.descriptor);
        service.start_service(Some(Arc::new(Mutex::new(table))), shutdown, 1).await;
    }
}
