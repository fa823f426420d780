//! The front of a listener: how many may connect, and for how long an
//! idle connection is kept. Speaks HTTP/1 itself; an HTTP/2 connection is
//! handed to `http2`.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::ready;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf as _, BytesMut};
use pingora_core::apps::ServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::server::ShutdownWatch;
use pingora_timeout::timeout;
use tokio::io::{AsyncRead, ReadBuf};

use super::connections::{ConnectionCap, Fresh, Place, SourceCap, SourcePlace};
use super::gateway::{Gateway, HeadProblem};
use super::http2;
use super::service::Bound;
use super::tls::Tls;
use crate::telemetry::{Metrics, NotAdmitted};
use crate::wire::{HeadEnd, HeadFault, check_head};

/// Until the first byte of a connection's first request.
const FIRST_BYTE: Duration = Duration::from_secs(15);
/// Between two requests of a connection.
const KEEPALIVE: Duration = Duration::from_secs(75);
/// From the first byte of a request to the end of its head.
const HEAD: Duration = Duration::from_secs(15);
/// Until the first byte of a request once the node stops. A connection that was
/// accepted just before has every right to an answer, and on one that is kept the
/// next request may be on its way.
const FIRST_BYTE_STOPPING: Duration = Duration::from_millis(300);
/// What is read ahead of the parser.
const FIRST_READ: usize = 4096;

/// One listener's application.
#[derive(Debug)]
pub struct Front {
    gateway: Arc<Gateway>,
    cap: Arc<ConnectionCap>,
    /// Places for each source, where there is such a limit.
    sources: Option<SourceCap>,
    tls: Option<Tls>,
}

/// A connection's places; given back when dropped.
struct Admitted<'a> {
    _place: Place<'a>,
    _with_source: Option<SourcePlace<'a>>,
    metrics: &'a Metrics,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

impl Front {
    /// A front for `gateway`, with at most `limit` connections.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, limit: usize) -> Self {
        Self { gateway, cap: ConnectionCap::new(limit), sources: None, tls: None }
    }

    /// The front of a listener: the same gateway under the same cap, with the
    /// listener's TLS and its limit per source.
    #[must_use]
    pub fn at(&self, listener: &Bound) -> Self {
        let (tls, sources) = (listener.tls().cloned(), listener.per_source().map(SourceCap::new));
        Self { gateway: self.gateway.clone(), cap: self.cap.clone(), sources, tls }
    }

    /// Connections whose first request was not answered yet. Once the node
    /// stops there are none after 300 ms, but for those that are being served.
    #[must_use]
    pub fn fresh(&self) -> usize {
        self.cap.fresh()
    }

    /// Connections that are open. Once the node stops there are none after 300 ms,
    /// but for those that are being served.
    #[must_use]
    pub fn open(&self) -> usize {
        self.cap.open()
    }

    fn admit(&self, stream: &Stream) -> Option<Admitted<'_>> {
        let metrics = self.gateway.metrics();
        let place = self.cap.enter();
        let Some(place) = place else {
            metrics.not_admitted(NotAdmitted::Cap);
            return None;
        };
        let with_source = match &self.sources {
            None => None,
            Some(sources) => {
                let digest = stream.get_socket_digest();
                let address = digest.as_ref().and_then(|digest| digest.peer_addr()).and_then(|peer| peer.as_inet());
                let entered = sources.enter(address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), SocketAddr::ip));
                if entered.is_none() {
                    metrics.not_admitted(NotAdmitted::SourceCap);
                    return None;
                }
                entered
            }
        };
        metrics.connections.inc();
        Some(Admitted { _place: place, _with_source: with_source, metrics })
    }

    /// On the heap: it is rare.
    async fn refuse(&self, session: Box<ServerSession>, problem: HeadProblem) {
        Box::pin(self.gateway.refuse_head(session, problem)).await;
    }

    async fn serve_http1(&self, mut stream: Stream, fresh: Fresh<'_>, mut shutdown: ShutdownWatch) {
        let mut prefix = BytesMut::new();
        let mut wait = FIRST_BYTE;
        let mut fresh = Some(fresh);
        let mut skipped = false;
        loop {
            if prefix.is_empty() {
                let arrived = tokio::select! {
                    biased;
                    read = timeout(wait, first_bytes(&mut stream)) => read,
                    () = stopping(&mut shutdown) => return,
                };
                match arrived {
                    Ok(Ok(bytes)) if !bytes.is_empty() => prefix = bytes,
                    _ => return,
                }
            }
            // An empty line before a request is the rest of the one before (RFC
            // 9112, 2.2): one is skipped.
            if !skipped && prefix.starts_with(b"\r\n") {
                prefix.advance(2);
                skipped = true;
                if prefix.is_empty() {
                    continue;
                }
            }
            skipped = false;
            wait = KEEPALIVE;
            let read = timeout(HEAD, whole_head(&mut stream, &mut prefix)).await;
            let mut session = Box::new(ServerSession::new_http1(stream));
            match read {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return,
                Ok(Err(fault)) => return self.refuse(session, HeadProblem::from(fault)).await,
                Err(_) => return self.refuse(session, HeadProblem::Slow).await,
            }
            session.set_pipelined_prefix(std::mem::take(&mut prefix));
            session.set_pipelining_enabled(true);
            session.set_keepalive(Some(KEEPALIVE.as_secs()));
            // All of the head is there: this reads nothing more.
            match timeout(HEAD, session.read_request()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return,
                Ok(Err(error)) => return self.refuse(session, HeadProblem::of(&error)).await,
                Err(_) => return self.refuse(session, HeadProblem::Slow).await,
            }
            let stopping = *shutdown.borrow();
            // On the heap for as long as it takes: an idle connection does without.
            let served = Box::pin(self.gateway.serve(session, stopping, fresh.is_none())).await;
            let Some(reusable) = served.reusable else { return };
            drop(fresh.take());
            let (next, rest) = reusable.into_parts();
            stream = next;
            prefix = rest.unwrap_or_default();
        }
    }
}

/// Until a connection that waits for a request may be closed.
async fn stopping(shutdown: &mut ShutdownWatch) {
    let _ = shutdown.wait_for(|stopping| *stopping).await;
    tokio::time::sleep(FIRST_BYTE_STOPPING).await;
}

/// Reads on until a whole head is there and checks it. False: the client is
/// gone.
async fn whole_head(stream: &mut Stream, bytes: &mut BytesMut) -> Result<bool, HeadFault> {
    let mut end = HeadEnd::default();
    loop {
        if let Some(length) = end.find(bytes)? {
            return check_head(bytes.get(..length).unwrap_or_default()).map(|()| true);
        }
        match first_bytes(stream).await {
            Ok(more) if !more.is_empty() => bytes.extend_from_slice(&more),
            _ => return Ok(false),
        }
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
        let _admitted = self.admit(&stream)?;
        let fresh = Fresh::new(&self.cap);
        let mut watch = shutdown.clone();
        let stream = match &self.tls {
            Some(tls) => tokio::select! {
                secured = tls.handshake(stream) => secured?,
                () = stopping(&mut watch) => return None,
            },
            None => stream,
        };
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            drop(fresh);
            http2::serve(self.gateway.clone(), stream, FIRST_BYTE, shutdown).await;
            return None;
        }
        self.serve_http1(stream, fresh, watch).await;
        None
    }
}
