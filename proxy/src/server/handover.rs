//! Handing listeners to a successor, so that an upgrade refuses nobody.
//!
//! The successor is started with `--upgrade` and waits on a socket in the data
//! directory (0700, so nobody else can squat it); the old process sends its
//! listening descriptors there on SIGQUIT, then stops accepting and drains.
//! Both accept for a moment: the kernel's queue belongs to the socket, not to
//! a process, so no connection is lost between them.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use nix::sys::socket::{SockaddrStorage, getsockname};
use pingora_core::server::Fds;

use super::service::Bound;

/// The descriptors to hand over. Valid while the listeners accept: it must be
/// sent before they are shut down.
#[derive(Clone, Debug)]
pub struct Handover {
    socket: PathBuf,
    listeners: Vec<(&'static str, RawFd)>,
}

/// Why listeners did not change hands.
#[derive(Debug, thiserror::Error)]
#[error("listeners could not be handed over through {path}: {cause}")]
pub struct HandoverError {
    /// The socket.
    pub path: PathBuf,
    /// The system's words.
    pub cause: nix::Error,
}

impl Handover {
    /// Collects the listeners' descriptors.
    #[must_use]
    pub fn new(socket: PathBuf, bound: &[Bound]) -> Self {
        Self { socket, listeners: bound.iter().map(|b| (b.name(), b.descriptor())).collect() }
    }

    /// Sends them to the successor waiting on the socket. Blocks for some
    /// seconds when nobody waits yet.
    ///
    /// # Errors
    /// Nobody took them.
    pub fn send(&self) -> Result<(), HandoverError> {
        let mut table = Fds::new();
        for (name, descriptor) in &self.listeners {
            table.add((*name).to_owned(), *descriptor);
        }
        let path = self.socket.to_string_lossy();
        let sent = table.send_to_sock(path.as_ref());
        sent.map(drop).map_err(|cause| HandoverError { path: self.socket.clone(), cause })
    }
}

/// Waits for a predecessor's listeners. Blocks for some seconds.
///
/// # Errors
/// None came.
pub fn receive_listeners(socket: &Path) -> Result<Fds, HandoverError> {
    let mut table = Fds::new();
    let path = socket.to_string_lossy();
    let received = table.get_from_sock(path.as_ref());
    received.map_err(|cause| HandoverError { path: socket.to_owned(), cause })?;
    Ok(table)
}

/// The inherited descriptor of a listener and the address it is bound to.
pub(super) fn inherited_listener(table: &Fds, name: &str) -> Option<(RawFd, SocketAddr)> {
    let descriptor = *table.get(name)?;
    let address: SockaddrStorage = getsockname(descriptor).ok()?;
    let address = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => SocketAddr::V4((*v4).into()),
        (_, Some(v6)) => SocketAddr::V6((*v6).into()),
        _ => return None,
    };
    Some((descriptor, address))
}
