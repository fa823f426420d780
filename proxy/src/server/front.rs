//! The front of a listener: who may connect, how many, and for how long an
//! idle connection is kept. Speaks HTTP/1 itself; an HTTP/2 connection is
//! handed to `http2`.

use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::ready;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::apps::ServerApp;
use pingora_core::listeners::ConnectionFilter;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::server::ShutdownWatch;
use pingora_timeout::timeout;
use tokio::io::{AsyncRead, ReadBuf};

use super::gateway::{Gateway, HeadProblem};
use super::http2;
use crate::telemetry::{Metrics, NotAdmitted};

/// Until the first byte of a connection's first request.
const FIRST_BYTE: Duration = Duration::from_secs(15);
/// Between two requests of a connection.
const KEEPALIVE: Duration = Duration::from_secs(75);
/// From the first byte of a request to the end of its head.
const HEAD: Duration = Duration::from_secs(15);
/// The same for a connection that was accepted just before the node began to
/// stop: its client has every right to an answer.
const FIRST_BYTE_STOPPING: Duration = Duration::from_millis(300);
/// What is read ahead of the parser.
const FIRST_READ: usize = 4096;

/// Which source addresses a listener accepts, decided before a byte is read.
#[derive(Clone, Debug)]
pub enum SourcePolicy {
    /// Everybody.
    Any,
    /// Only addresses inside this IPv4 or IPv6 network.
    Within {
        /// Network address.
        network: IpAddr,
        /// Prefix length in bits.
        prefix: u8,
    },
}

impl SourcePolicy {
    /// Whether `source` may connect.
    #[must_use]
    pub fn accepts(&self, source: IpAddr) -> bool {
        let Self::Within { network, prefix } = self else { return true };
        let source = source.to_canonical();
        match (network, source) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let shift = 32_u32.saturating_sub(u32::from(*prefix));
                let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
                (net.to_bits() & mask) == (ip.to_bits() & mask)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let shift = 128_u32.saturating_sub(u32::from(*prefix));
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                (net.to_bits() & mask) == (ip.to_bits() & mask)
            }
            _ => false,
        }
    }
}

/// The policy as the accept loop asks it. What it refuses is closed before TLS,
/// before a byte is read and without a byte of answer.
#[derive(Debug)]
pub(super) struct SourceGate {
    policy: SourcePolicy,
    metrics: Arc<Metrics>,
}

impl SourceGate {
    pub(super) const fn new(policy: SourcePolicy, metrics: Arc<Metrics>) -> Self {
        Self { policy, metrics }
    }
}

#[async_trait]
impl ConnectionFilter for SourceGate {
    async fn should_accept(&self, source: Option<&std::net::SocketAddr>) -> bool {
        let accepted = source.is_some_and(|address| self.policy.accepts(address.ip()));
        if !accepted {
            self.metrics.not_admitted(NotAdmitted::Source);
        }
        accepted
    }
}

/// Counts connections against a cap; shared by all listeners of a node.
#[derive(Debug)]
pub(super) struct ConnectionCap {
    open: AtomicUsize,
    /// Of them, those whose first request was not answered yet.
    fresh: AtomicUsize,
    limit: usize,
}

/// A connection that waits for the answer to its first request.
struct Fresh<'a>(&'a ConnectionCap);

impl<'a> Fresh<'a> {
    fn new(cap: &'a ConnectionCap) -> Self {
        cap.fresh.fetch_add(1, Ordering::Relaxed);
        Self(cap)
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        self.0.fresh.fetch_sub(1, Ordering::Relaxed);
    }
}

struct ConnectionPermit<'a>(&'a Front);

impl Drop for ConnectionPermit<'_> {
    fn drop(&mut self) {
        self.0.cap.open.fetch_sub(1, Ordering::Relaxed);
        self.0.gateway.metrics().connections.dec();
    }
}

/// One listener's application.
#[derive(Debug)]
pub struct Front {
    gateway: Arc<Gateway>,
    cap: Arc<ConnectionCap>,
}

impl ConnectionCap {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), fresh: AtomicUsize::new(0), limit })
    }
}

impl Front {
    /// A front for `gateway`, with at most `limit` connections.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, limit: usize) -> Self {
        Self { gateway, cap: ConnectionCap::new(limit) }
    }

    /// A further listener's front: the same gateway under the same cap.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { gateway: self.gateway.clone(), cap: self.cap.clone() }
    }

    /// Connections whose first request was not answered yet. Once the node
    /// stops there are none after 300 ms, but for those that are being served.
    #[must_use]
    pub fn fresh(&self) -> usize {
        self.cap.fresh.load(Ordering::Relaxed)
    }

    fn admit(&self) -> Option<ConnectionPermit<'_>> {
        if self.cap.open.fetch_add(1, Ordering::Relaxed) >= self.cap.limit {
            self.cap.open.fetch_sub(1, Ordering::Relaxed);
            self.gateway.metrics().not_admitted(NotAdmitted::Cap);
            return None;
        }
        self.gateway.metrics().connections.inc();
        Some(ConnectionPermit(self))
    }

    async fn serve_http1(&self, mut stream: Stream, shutdown: &ShutdownWatch) {
        let mut shutdown = shutdown.clone();
        let mut prefix: Option<BytesMut> = None;
        let mut wait = FIRST_BYTE;
        let mut fresh = Some(Fresh::new(&self.cap));
        loop {
            let first = match prefix.take() {
                Some(bytes) => bytes,
                None => {
                    let arrived = tokio::select! {
                        biased;
                        read = timeout(wait, first_bytes(&mut stream)) => read,
                        () = stopping(&mut shutdown, fresh.is_some()) => return,
                    };
                    match arrived {
                        Ok(Ok(bytes)) if !bytes.is_empty() => bytes,
                        _ => return,
                    }
                }
            };
            wait = KEEPALIVE;
            let mut session = ServerSession::new_http1(stream);
            session.set_pipelined_prefix(first);
            session.set_pipelining_enabled(true);
            session.set_keepalive(Some(KEEPALIVE.as_secs()));
            match timeout(HEAD, session.read_request()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return,
                Ok(Err(error)) => return self.gateway.refuse_head(session, HeadProblem::of(&error)).await,
                Err(_) => return self.gateway.refuse_head(session, HeadProblem::Slow).await,
            }
            let stopping = *shutdown.borrow();
            let Some(reusable) = self.gateway.serve(session, stopping).await else { return };
            drop(fresh.take());
            let (next, rest) = reusable.into_parts();
            stream = next;
            prefix = rest.filter(|bytes| !bytes.is_empty());
        }
    }
}

/// Until a connection that waits for a request may be closed: one that was
/// served before has nothing to lose, a fresh one gets a moment.
async fn stopping(shutdown: &mut ShutdownWatch, fresh: bool) {
    let _ = shutdown.wait_for(|stopping| *stopping).await;
    if fresh {
        tokio::time::sleep(FIRST_BYTE_STOPPING).await;
    }
}

/// Waits for bytes without holding a buffer while there are none: the buffer
/// is on the stack of the poll that finds some.
async fn first_bytes(stream: &mut Stream) -> io::Result<BytesMut> {
    std::future::poll_fn(|context| {
        let mut space = [const { MaybeUninit::uninit() }; FIRST_READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
        std::task::Poll::Ready(Ok(BytesMut::from(buffer.filled())))
    })
    .await
}

#[async_trait]
impl ServerApp for Front {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let _permit = self.admit()?;
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            http2::serve(self.gateway.clone(), stream, FIRST_BYTE, shutdown).await;
            return None;
        }
        self.serve_http1(stream, shutdown).await;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_accepts_only_its_own() {
        let pool = SourcePolicy::Within { network: "10.231.0.0".parse().expect("ip"), prefix: 16 };
        for (source, accepted) in [
            ("10.231.0.1", true),
            ("10.231.255.255", true),
            ("::ffff:10.231.3.4", true),
            ("10.232.0.1", false),
            ("127.0.0.1", false),
            ("::1", false),
        ] {
            assert_eq!(pool.accepts(source.parse().expect("ip")), accepted, "{source}");
        }
        assert!(SourcePolicy::Any.accepts("8.8.8.8".parse().expect("ip")));
        let all = SourcePolicy::Within { network: "0.0.0.0".parse().expect("ip"), prefix: 0 };
        assert!(all.accepts("8.8.8.8".parse().expect("ip")));
    }
}
