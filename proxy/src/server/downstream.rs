//! A bot's connection as an exchange sees it, over a pingora session.

use std::net::SocketAddr;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use pingora_core::protocols::http::ServerSession;
use pingora_core::{Error, ErrorType};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_timeout::timeout;

use super::pace::{Pace, WRITE_PIECE, body_is_slow, write_limit};
use crate::exchange::{BodyError, Downstream, Gone, Head, Held, Length};

/// Longest silence within a request body.
const BODY_IDLE: Duration = Duration::from_secs(15);
/// Longest time a whole request body may take.
const BODY_TOTAL: Duration = Duration::from_secs(120);
/// Longest time the head or the end of an answer may take.
const WRITE: Duration = Duration::from_secs(30);
/// Longest time closing may take. It flushes first, which a client that does not
/// read would hold up for ever.
pub(super) const CLOSE: Duration = Duration::from_secs(2);
/// A refused request's unread body is read away up to this, so that the client
/// sees the refusal and not a reset.
const DRAIN_BYTES: usize = 1 << 20;
/// And for this long.
const DRAIN_FOR: Duration = Duration::from_secs(2);

/// Implements [`Downstream`].
pub(super) struct SessionDownstream {
    session: ServerSession,
    method: Method,
    version: Version,
    expects_continue: bool,
    content_length: Option<u64>,
    chunked: bool,
    head_written: bool,
    finished: bool,
    broken: bool,
    pace: Pace,
}

impl SessionDownstream {
    /// For a session whose head was read.
    pub(super) fn new(mut session: ServerSession) -> Self {
        // The body reader takes its framing from the headers, which `take_head`
        // is about to move out.
        session.is_body_empty();
        let head = session.req_header();
        let content_length = head.headers.get(CONTENT_LENGTH);
        Self {
            method: head.method.clone(),
            version: head.version,
            expects_continue: head
                .headers
                .get(EXPECT)
                .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue")),
            chunked: head.headers.contains_key(TRANSFER_ENCODING),
            content_length: content_length.and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok()),
            head_written: false,
            finished: false,
            broken: false,
            pace: Pace::default(),
            session,
        }
    }

    /// The session, if the connection may be used again.
    pub(super) async fn into_reusable(mut self) -> Option<ServerSession> {
        if self.broken || !self.finished {
            let _ = timeout(CLOSE, self.session.shutdown()).await;
            return None;
        }
        if !self.session.is_body_done() {
            self.drain().await;
            self.session.set_keepalive(None);
        }
        Some(self.session)
    }

    async fn drain(&mut self) {
        let read_away = async {
            let mut read = 0;
            while read < DRAIN_BYTES {
                match self.session.read_request_body().await {
                    Ok(Some(chunk)) => read += chunk.len(),
                    _ => return,
                }
            }
        };
        let _ = timeout(DRAIN_FOR, read_away).await;
    }

    async fn collect(&mut self, limit: usize, held: &mut Held<'_>) -> Result<Bytes, BodyError> {
        let mut whole: Option<BytesMut> = None;
        let mut first: Option<Bytes> = None;
        let mut len = 0_usize;
        let began = Instant::now();
        loop {
            let read = timeout(BODY_IDLE, self.session.read_request_body()).await.map_err(|_| BodyError::Timeout)?;
            let Some(chunk) = read.map_err(|e| body_error(&e))? else { break };
            len = len.saturating_add(chunk.len());
            if body_is_slow(len as u64, began.elapsed()) {
                return Err(BodyError::Timeout);
            }
            if len > limit {
                return Err(BodyError::TooLarge);
            }
            if !held.grow(chunk.len()) {
                return Err(BodyError::NoRoom);
            }
            match (&mut first, &mut whole) {
                (None, None) => first = Some(chunk),
                (Some(one), None) => {
                    let expected = self.content_length.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                    let mut buffer = BytesMut::with_capacity(expected.clamp(len, limit));
                    buffer.extend_from_slice(one);
                    buffer.extend_from_slice(&chunk);
                    whole = Some(buffer);
                }
                (_, Some(buffer)) => buffer.extend_from_slice(&chunk),
            }
        }
        Ok(whole.map(BytesMut::freeze).or(first).unwrap_or_default())
    }

    /// Writes a piece, waiting for the client no longer than its rate allows.
    async fn write_piece(&mut self, piece: Bytes) -> Result<(), Gone> {
        let len = piece.len();
        let (written, waited) = {
            let mut write = std::pin::pin!(self.session.write_response_body(piece, false));
            match futures::poll!(&mut write) {
                // The usual case costs no look at the clock.
                Poll::Ready(written) => (written.is_ok(), None),
                Poll::Pending => {
                    let began = Instant::now();
                    let written = matches!(timeout(write_limit(len), write).await, Ok(Ok(())));
                    (written, Some(began.elapsed()))
                }
            }
        };
        let keeps_up = match waited {
            None => {
                self.pace.flowed(len as u64);
                true
            }
            Some(took) => self.pace.waited(len as u64, took),
        };
        if written && keeps_up { Ok(()) } else { Err(self.gone()) }
    }

    fn gone(&mut self) -> Gone {
        self.broken = true;
        Gone
    }
}

fn body_error(error: &Error) -> BodyError {
    match error.etype() {
        ErrorType::ConnectionClosed | ErrorType::ReadError => BodyError::Gone,
        ErrorType::ReadTimedout => BodyError::Timeout,
        _ => BodyError::Malformed,
    }
}

impl Downstream for SessionDownstream {
    fn take_head(&mut self) -> Head {
        let upgrade = self.session.is_upgrade_req();
        let source = self.session.client_addr().and_then(|peer| peer.as_inet()).map(SocketAddr::ip);
        let current = self.session.req_header_mut();
        // An upgrade is judged by pingora again when the answer comes, and an
        // HTTP/2 session keeps its own view: those keep their headers.
        let stub = (!upgrade && self.version != Version::HTTP_2)
            .then(|| RequestHeader::build_no_case(current.method.clone(), b"/", Some(0)).ok())
            .flatten();
        let owned = match stub {
            Some(mut stub) => {
                stub.set_version(self.version);
                std::mem::replace(current, stub)
            }
            None => current.clone(),
        };
        let parts: http::request::Parts = owned.into();
        Head { method: parts.method, uri: parts.uri, headers: parts.headers, source }
    }

    async fn read_body(&mut self, limit: usize, held: &mut Held<'_>) -> Result<Bytes, BodyError> {
        if self.content_length.is_some_and(|n| n > limit as u64) {
            self.session.set_keepalive(None);
            return Err(BodyError::TooLarge);
        }
        if self.session.is_body_done() {
            return Ok(Bytes::new());
        }
        if std::mem::take(&mut self.expects_continue) {
            let sent = timeout(WRITE, self.session.write_continue_response()).await;
            if !matches!(sent, Ok(Ok(()))) {
                self.broken = true;
                return Err(BodyError::Gone);
            }
        }
        let read = timeout(BODY_TOTAL, self.collect(limit, held)).await.unwrap_or(Err(BodyError::Timeout));
        if read.is_err() {
            // Where the next request would begin is no longer known.
            self.session.set_keepalive(None);
        }
        read
    }

    async fn write_head(&mut self, status: StatusCode, mut headers: HeaderMap, length: Length) -> Result<(), Gone> {
        let no_body = length == Length::NoBody || self.method == Method::HEAD;
        match length {
            Length::Known(n) => {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(n));
            }
            Length::Open if !no_body => {
                headers.remove(CONTENT_LENGTH);
                if self.version == Version::HTTP_11 {
                    headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
            }
            Length::Open | Length::NoBody | Length::Upgraded => {}
        }
        headers.remove(CONNECTION);
        // pingora's parser takes some chunks that others would not (an empty
        // size, a line feed in an extension): what follows one that came to
        // nothing is not taken for a request.
        if self.chunked && status.is_client_error() {
            self.session.set_keepalive(None);
        }
        if length == Length::Upgraded {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            self.session.set_read_timeout(None);
        }
        let mut parts = http::Response::new(()).into_parts().0;
        parts.status = status;
        parts.headers = headers;
        let head = Box::new(ResponseHeader::from(parts));
        match timeout(WRITE, self.session.write_response_header(head)).await {
            Ok(Ok(())) => {
                self.head_written = true;
                Ok(())
            }
            _ => Err(self.gone()),
        }
    }

    async fn write_chunk(&mut self, mut chunk: Bytes) -> Result<(), Gone> {
        if self.method == Method::HEAD {
            return Ok(());
        }
        while !chunk.is_empty() {
            let piece = chunk.split_to(chunk.len().min(WRITE_PIECE));
            self.write_piece(piece).await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Gone> {
        match timeout(WRITE, self.session.write_response_body(Bytes::new(), true)).await {
            Ok(Ok(())) => {
                self.finished = true;
                Ok(())
            }
            _ => Err(self.gone()),
        }
    }

    async fn hung_up(&mut self) {
        // An early byte of a pipelined request is stashed by the session and
        // served after this exchange; only an end or an error is a hang-up.
        loop {
            if self.session.read_body_or_idle(true).await.is_err() {
                self.broken = true;
                return;
            }
        }
    }

    async fn read_upgraded(&mut self) -> Option<Bytes> {
        self.session.read_request_body().await.ok().flatten()
    }

    fn abort(&mut self) {
        self.broken = true;
    }
}
