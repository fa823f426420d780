//! A connection to a vendor that sends a request's head together with the
//! beginning of its body.
//!
//! The library flushes after the head, which costs a packet, two trips through
//! the network stack and a wake-up of the vendor for half a request. This
//! wrapper takes that one flush as "the head is complete".
//!
//! It also reads less at a time than the library has room for: of an answer whose
//! client does not read, each buffer on the way would be filled.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::{SslDigest, TlsRef};
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, Take};

/// What is copied behind a held head, in bytes; more is sent from where it is.
const JOIN: usize = 16 << 10;

/// What is read at a time.
const READ: u64 = 12 << 10;

/// See the module.
pub(super) struct VendorStream {
    inner: Take<Stream>,
    /// The next flush only ends the head.
    hold: bool,
    /// Written here and not yet to `inner`.
    pending: Vec<u8>,
    /// Something was read since the last request began.
    answered: bool,
}

impl VendorStream {
    pub(super) fn new(inner: Stream) -> Self {
        Self { inner: inner.take(READ), hold: false, pending: Vec::new(), answered: false }
    }

    /// A request begins; `held`: it has a body, and its head waits for it.
    pub(super) fn begin(&mut self, held: bool) {
        self.hold = held;
        self.answered = false;
    }

    /// Whether the other side has sent anything since the request began.
    pub(super) fn answered(&self) -> bool {
        self.answered
    }

    /// Writes what is pending, then `more`; says how much of `more` was taken.
    fn poll_send(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        while !self.pending.is_empty() {
            let inner = Pin::new(self.inner.get_mut());
            let sent = if more.is_empty() {
                ready!(inner.poll_write(cx, &self.pending))?
            } else {
                ready!(inner.poll_write_vectored(cx, &[io::IoSlice::new(&self.pending), io::IoSlice::new(more)]))?
            };
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_pending = sent.min(self.pending.len());
            self.pending.drain(..of_pending);
            if sent > of_pending {
                return Poll::Ready(Ok(sent - of_pending));
            }
        }
        if more.is_empty() { Poll::Ready(Ok(0)) } else { Pin::new(self.inner.get_mut()).poll_write(cx, more) }
    }
}

impl fmt::Debug for VendorStream {
    // Pending bytes hold a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VendorStream").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl AsyncRead for VendorStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        self.inner.set_limit(READ);
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.answered |= buf.filled().len() > before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for VendorStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let joins = self.hold || (!self.pending.is_empty() && self.pending.len() + buf.len() <= JOIN);
        if joins {
            self.pending.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        self.poll_send(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.hold) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_send(cx, &[]))?;
        Pin::new(self.inner.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.inner.get_mut()).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for VendorStream {
    async fn shutdown(&mut self) {
        self.inner.get_mut().shutdown().await;
    }
}

#[async_trait]
impl Peek for VendorStream {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.inner.get_mut().try_peek(buf).await
    }
}

impl UniqueID for VendorStream {
    fn id(&self) -> UniqueIDType {
        self.inner.get_ref().id()
    }
}

impl Ssl for VendorStream {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ref().get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ref().get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.get_ref().selected_alpn_proto()
    }
}

// Digests serve logs that we do not write; collecting them at every request
// would cost allocations.
impl GetTimingDigest for VendorStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for VendorStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for VendorStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_ref().get_socket_digest()
    }
}

/// Back from what a session returns; `None` when it was made of another stream.
pub(super) fn recover(stream: Stream) -> Option<Box<VendorStream>> {
    stream.into_any().downcast().ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    async fn received(other: &mut DuplexStream) -> Vec<u8> {
        let mut buffer = vec![0; 1 << 20];
        let read = other.read(&mut buffer).await.unwrap();
        buffer.truncate(read);
        buffer
    }

    #[tokio::test]
    async fn a_held_head_leaves_with_its_body() {
        let (near, mut far) = duplex(1 << 20);
        let mut stream = VendorStream::new(Box::new(near));
        stream.begin(true);
        stream.write_all(b"head").await.unwrap();
        stream.flush().await.unwrap();
        stream.write_all(b"body").await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(received(&mut far).await, b"headbody");
    }

    #[tokio::test]
    async fn without_hold_a_flush_sends() {
        let (near, mut far) = duplex(1 << 20);
        let mut stream = VendorStream::new(Box::new(near));
        stream.write_all(b"head").await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(received(&mut far).await, b"head");
    }

    #[tokio::test]
    async fn bodies_of_any_size_arrive_whole_through_a_narrow_pipe() {
        for size in [0, 1, JOIN - 5, JOIN, JOIN + 1, 300_000] {
            let (near, mut far) = duplex(1000);
            let body: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap_or(0)).collect();
            let sent = body.clone();
            let writer = tokio::spawn(async move {
                let mut stream = VendorStream::new(Box::new(near));
                stream.begin(true);
                stream.write_all(b"head").await.unwrap();
                stream.flush().await.unwrap();
                stream.write_all(&sent).await.unwrap();
                stream.flush().await.unwrap();
            });
            let mut seen = Vec::new();
            far.read_to_end(&mut seen).await.unwrap();
            writer.await.unwrap();
            assert_eq!(seen, [b"head".as_slice(), &body].concat());
        }
    }
}
