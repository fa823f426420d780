//! What an exchange needs of the connection to the bot.
//!
//! Two implementations: pingora's session (`server::downstream`) and the
//! scripted one of the tests.

use std::future::Future;
use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};

use super::budget::Held;

/// The head of a request.
#[derive(Debug)]
pub struct Head {
    /// Any.
    pub method: Method,
    /// Origin form: path and query.
    pub uri: Uri,
    /// As received.
    pub headers: HeaderMap,
    /// The other end of the connection, where it has an address.
    pub source: Option<IpAddr>,
}

/// Why a request body could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// Over the limit.
    TooLarge,
    /// All bodies together are at theirs.
    NoRoom,
    /// Too slow.
    Timeout,
    /// The client went away.
    Gone,
    /// Broken framing.
    Malformed,
}

/// How an answer's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// After this many bytes.
    Known(u64),
    /// When it is finished (chunked, or the end of the connection).
    Open,
    /// There is none: `HEAD`, 204, 304. Headers pass as they are.
    NoBody,
    /// It is another protocol from here on (101).
    Upgraded,
}

/// The client is gone, or too slow to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// The connection to the bot, for one exchange.
pub trait Downstream: Send {
    /// The request's head; called once.
    fn take_head(&mut self) -> Head;

    /// The whole body, at most `limit` bytes, each counted in `held` as it
    /// comes. Answers `Expect: 100-continue`.
    fn read_body(&mut self, limit: usize, held: &mut Held<'_>)
    -> impl Future<Output = Result<Bytes, BodyError>> + Send;

    /// Sends the answer's head.
    fn write_head(
        &mut self,
        status: StatusCode,
        headers: HeaderMap,
        length: Length,
    ) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Sends a piece of the body at once.
    fn write_chunk(&mut self, chunk: Bytes) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Ends the answer properly.
    fn finish(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Resolves when the client hangs up; never otherwise. Dropping the future
    /// loses nothing.
    fn hung_up(&mut self) -> impl Future<Output = ()> + Send;

    /// The client's next bytes after an upgrade; `None` at its end. Dropping the
    /// future loses nothing.
    fn read_upgraded(&mut self) -> impl Future<Output = Option<Bytes>> + Send;

    /// Makes sure that the client sees a broken answer, not a short one.
    fn abort(&mut self);
}
