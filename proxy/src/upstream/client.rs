//! One request to a vendor over pingora's HTTP/1 session, with our own
//! deadlines around every read and write.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clawgate_shared::origin::Origin;
use http::header::UPGRADE;
use http::{HeaderMap, Method, StatusCode, Uri, Version};
use pingora_core::connectors::TransportConnector;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::{Error, ErrorType};
use pingora_http::RequestHeader;
use pingora_timeout::timeout;

use super::stream::{VendorStream, recover};
use super::target::{Address, Egress, Target};

/// How often idle connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Informational answers accepted before the real one.
const MAX_INFORMATIONAL: usize = 8;
/// Longest wait for the body of an error before it is judged without.
const PEEK: Duration = Duration::from_secs(2);
/// Closing a connection that is not kept.
const CLOSE: Duration = Duration::from_secs(1);
/// One write after a 101.
const UPGRADED_WRITE: Duration = Duration::from_secs(30);
/// How often a request is sent again because a pooled connection turned out
/// to be closed before a byte of answer came.
const MAX_STALE: usize = 3;
/// A closed connection shows within a trip through the network.
const STALE_WITHIN: Duration = Duration::from_secs(1);

/// Deadlines of an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// TCP connect; TCP and TLS together may take twice this.
    pub connect: Duration,
    /// Each write of the request.
    pub write: Duration,
    /// Until the answer's head is there.
    pub head: Duration,
    /// Between two pieces of the answer's body.
    pub idle: Duration,
}

/// Why an attempt failed, with the internal cause.
#[derive(Debug, thiserror::Error)]
#[error("{kind:?}: {cause}")]
pub struct Failure {
    /// For decisions, labels and the public code.
    pub kind: FailureKind,
    /// For the log only.
    pub cause: String,
}

/// Closed list of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection.
    Connect,
    /// No TLS session.
    Tls,
    /// A deadline passed before the answer's head was there.
    HeadTimeout,
    /// The vendor fell silent in the body.
    IdleTimeout,
    /// The connection ended too early.
    Closed,
    /// What came was not HTTP.
    Protocol,
    /// The egress policy forbids the address.
    Denied,
}

impl FailureKind {
    /// Whether the vendor may be at work on the request, and bill it.
    #[must_use]
    pub const fn may_have_been_sent(self) -> bool {
        matches!(self, Self::HeadTimeout | Self::IdleTimeout | Self::Closed | Self::Protocol)
    }

    /// Label of `upstream_errors_total`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::HeadTimeout => "head_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::Denied => "denied",
        }
    }
}

impl Failure {
    pub(super) const fn connect(cause: String) -> Self {
        Self { kind: FailureKind::Connect, cause }
    }

    pub(super) fn denied(cause: &str) -> Self {
        Self { kind: FailureKind::Denied, cause: cause.to_owned() }
    }

    /// The path or query cannot be sent.
    #[must_use]
    pub fn bad_request_target() -> Self {
        Self { kind: FailureKind::Protocol, cause: "the request target is not a valid URI".to_owned() }
    }

    fn timed_out(kind: FailureKind) -> Self {
        Self { kind, cause: "deadline passed".to_owned() }
    }

    fn of(error: &Error) -> Self {
        let kind = match error.etype() {
            ErrorType::TLSHandshakeFailure
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::InvalidCert
            | ErrorType::HandshakeError
            | ErrorType::TLSWantX509Lookup => FailureKind::Tls,
            ErrorType::ConnectTimedout
            | ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
            | ErrorType::BindError
            | ErrorType::SocketError
            | ErrorType::ConnectProxyFailure => FailureKind::Connect,
            ErrorType::ReadTimedout | ErrorType::WriteTimedout => FailureKind::IdleTimeout,
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => FailureKind::Closed,
            _ => FailureKind::Protocol,
        };
        // Only the type: pingora's contexts may quote header bytes.
        Self { kind, cause: error.etype().as_str().to_owned() }
    }
}

/// What is sent.
#[derive(Debug)]
pub struct Outgoing {
    /// As the bot sent it.
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// Complete, credential included.
    pub headers: HeaderMap,
    /// Empty: no body.
    pub body: Bytes,
}

/// A request that failed on one connection.
struct Broken {
    failure: Failure,
    /// Some of an answer came.
    answered: bool,
    /// From the last byte of the request to the failure.
    waited: Duration,
}

impl Broken {
    fn late() -> Self {
        Self { failure: Failure::timed_out(FailureKind::HeadTimeout), answered: false, waited: Duration::MAX }
    }

    /// The vendor had closed the connection before the request came: it does
    /// not know of it. One that thinks about it first and then closes does.
    fn stale(&self) -> bool {
        self.failure.kind == FailureKind::Closed && !self.answered && self.waited < STALE_WITHIN
    }
}

/// Sends requests. One per node.
pub struct Client {
    connector: TransportConnector,
    egress: Egress,
    timeouts: Timeouts,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("timeouts", &self.timeouts).finish_non_exhaustive()
    }
}

/// The vendor's answer, its head read, its body still to come. Dropping it
/// closes the connection.
pub struct Answer {
    /// It is large, and would be copied on its way.
    session: Box<HttpSession>,
    address: Arc<Address>,
    idle: Duration,
    /// Of the body, what was read ahead.
    ahead: VecDeque<Bytes>,
    /// Final status.
    pub status: StatusCode,
    /// As the vendor sent them.
    pub headers: HeaderMap,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Client {
    /// A client with its own connection pool.
    #[must_use]
    pub fn new(egress: Egress, timeouts: Timeouts) -> Self {
        Self { connector: TransportConnector::new(None), egress, timeouts }
    }

    /// The target of an origin, for its `Host` value.
    ///
    /// # Errors
    /// See [`Egress::target`].
    pub fn target(&self, origin: &Origin) -> Result<Arc<Target>, Failure> {
        self.egress.target(origin)
    }

    /// Closes idle connections in time, until it is dropped.
    pub async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.egress.sweep();
        }
    }

    /// Sends one request and reads the answer's head.
    ///
    /// A request is sent a second time on its own only when a pooled
    /// connection was already closed by the vendor: nothing of it was answered.
    /// `request` makes it anew each time, which costs less than keeping a copy.
    /// `leaving` says, also when this is dropped, whether a byte of it may have
    /// got to a vendor.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn send(
        &self,
        target: &Target,
        leaving: &AtomicBool,
        request: impl Fn() -> Outgoing,
    ) -> Result<Answer, Failure> {
        let address = self.egress.address(target).await?;
        for _ in 0..MAX_STALE {
            let Some(stream) = address.idle.take() else { break };
            leaving.store(true, Ordering::Relaxed);
            match self.exchange(stream, &address, request()).await {
                Err(broken) if broken.stale() => leaving.store(false, Ordering::Relaxed),
                result => return result.map_err(|broken| broken.failure),
            }
        }
        let stream = self.connector.new_stream(&address.peer).await.map_err(|e| Failure::of(&e))?;
        leaving.store(true, Ordering::Relaxed);
        self.exchange(Box::new(VendorStream::new(stream)), &address, request()).await.map_err(|broken| broken.failure)
    }

    async fn exchange(
        &self,
        mut stream: Box<VendorStream>,
        address: &Arc<Address>,
        out: Outgoing,
    ) -> Result<Answer, Broken> {
        let Outgoing { method, uri, headers, body } = out;
        let switches = headers.contains_key(UPGRADE);
        let mut parts = http::Request::new(()).into_parts().0;
        (parts.method, parts.uri, parts.version, parts.headers) = (method, uri, Version::HTTP_11, headers);
        let head = Box::new(RequestHeader::from(parts));
        stream.begin(!body.is_empty());
        let mut session = Box::new(HttpSession::new(stream));
        let write = async {
            session.write_request_header(head).await?;
            if !body.is_empty() {
                session.write_body(&body).await?;
            }
            session.finish_body().await
        };
        let Ok(written) = timeout(self.timeouts.write, write).await else { return Err(Broken::late()) };
        let sent = Instant::now();
        // A vendor may answer (413, say) and stop reading: the answer counts.
        let read = timeout(self.timeouts.head, read_head(&mut session, switches)).await;
        match (read, written) {
            (Ok(Ok((status, headers))), _) => {
                let (address, idle, ahead) = (address.clone(), self.timeouts.idle, VecDeque::new());
                Ok(Answer { session, address, idle, ahead, status, headers })
            }
            (_, Err(error)) | (Ok(Err(error)), Ok(_)) => {
                let answered = recover(session.into_inner()).is_none_or(|stream| stream.answered());
                Err(Broken { failure: Failure::of(&error), answered, waited: sent.elapsed() })
            }
            (Err(_), Ok(_)) => Err(Broken::late()),
        }
    }

    /// Keeps the connection of a wholly read answer for the next request,
    /// unless the vendor wants it closed.
    pub async fn release(&self, answer: Answer) {
        let Answer { mut session, address, .. } = answer;
        session.respect_keepalive();
        // Closing has a deadline like everything else: it may have to flush.
        if let Ok(Some(stream)) = timeout(CLOSE, session.reuse()).await
            && let Some(stream) = recover(stream)
        {
            address.idle.put(stream);
        }
    }
}

/// `switches`: the request asked for another protocol. Nobody else may be given
/// one: what client and vendor said from then on would be unknown.
async fn read_head(session: &mut HttpSession, switches: bool) -> Result<(StatusCode, HeaderMap), Box<Error>> {
    for _ in 0..MAX_INFORMATIONAL {
        session.read_response().await?;
        let Some(head) = session.resp_header() else { continue };
        if head.status == StatusCode::SWITCHING_PROTOCOLS && !switches {
            return Error::e_explain(ErrorType::InvalidHTTPHeader, "a switch of protocols that nobody asked for");
        }
        if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok((head.status, head.headers.clone()));
        }
    }
    Error::e_explain(ErrorType::InvalidHTTPHeader, "too many informational answers")
}

impl Answer {
    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// Silence beyond the idle limit, an early end, bytes that are not HTTP.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Some(chunk) = self.ahead.pop_front() {
            return Ok(Some(chunk));
        }
        match timeout(self.idle, self.session.read_body_bytes()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(Failure::of(&error)),
            Err(_) => Err(Failure::timed_out(FailureKind::IdleTimeout)),
        }
    }

    /// Whether the body has been read to its end.
    pub fn done(&mut self) -> bool {
        self.ahead.is_empty() && self.session.is_body_done()
    }

    /// Reads ahead what comes of the body within a moment, and returns at most
    /// `limit` bytes of it. [`Self::chunk`] gives it all once more.
    pub async fn peek(&mut self, limit: usize) -> Vec<u8> {
        let until = Instant::now() + PEEK;
        let mut seen = Vec::new();
        while seen.len() < limit && !self.session.is_body_done() {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(Ok(Some(chunk))) = timeout(left, self.session.read_body_bytes()).await else { break };
            let room = limit.saturating_sub(seen.len());
            seen.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
            self.ahead.push_back(chunk);
        }
        seen
    }

    /// After a 101: what is sent from here on is passed as it is.
    pub fn begin_upgraded(&mut self) {
        self.session.maybe_upgrade_body_writer();
    }

    /// The vendor's next bytes after a 101; `None` at its end. No deadline of
    /// its own; dropping the future loses nothing.
    pub async fn upgraded_chunk(&mut self) -> Option<Bytes> {
        self.session.read_body_bytes().await.ok().flatten()
    }

    /// Sends bytes after a 101.
    ///
    /// # Errors
    /// The vendor is gone or does not read.
    pub async fn send_upgraded(&mut self, chunk: Bytes) -> Result<(), Failure> {
        match timeout(UPGRADED_WRITE, self.session.write_body(&chunk)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Failure::of(&error)),
            Err(_) => Err(Failure::timed_out(FailureKind::IdleTimeout)),
        }
    }
}
