//! From a session with a read head to an exchange and back to a connection.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora_core::Error;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::server::ReusableHttpStream;
use pingora_timeout::timeout;

use super::downstream::{CLOSE, SessionDownstream};
use crate::exchange::{self, Services};
use crate::limits::{Level, Pressure};
use crate::telemetry::Metrics;
use crate::wire::error::{Code, render};
use crate::wire::{HeadFault, check_target};
use clawgate_shared::dialect::Dialect;

/// Ending a session: flushing, and reading away a rest of the body.
const FINISH: Duration = Duration::from_secs(5);

/// For so long after the node began to stop, requests are served: they come on
/// connections whose clients could not know. Later ones are told to go elsewhere.
const LATE: Duration = Duration::from_secs(1);

/// Serves exchanges on sessions.
#[derive(Debug)]
pub struct Gateway {
    services: Arc<Services>,
    stopping: OnceLock<Instant>,
}

/// What came of a request.
pub(super) struct Served {
    /// The connection, if it can be used again.
    pub(super) reusable: Option<ReusableHttpStream>,
    /// Its answer was sent to the end.
    pub(super) answered: bool,
}

impl Gateway {
    /// A gateway over the node's services.
    #[must_use]
    pub fn new(services: Arc<Services>) -> Self {
        Self { services, stopping: OnceLock::new() }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.services.metrics
    }

    /// The node begins to stop.
    pub fn stop(&self) {
        let _ = self.stopping.set(Instant::now());
    }

    pub(super) fn pressure(&self) -> &Pressure {
        &self.services.pressure
    }

    /// Serves one request. `kept`: it came on an HTTP/1 connection that was served
    /// before, whose client was never told that the node stops.
    pub(super) async fn serve(&self, mut session: Box<ServerSession>, stopping: bool, kept: bool) -> Served {
        if stopping || self.pressure().level() >= Level::Close {
            session.set_keepalive(None);
        }
        let problem = if !kept && self.stopping.get().is_some_and(|since| since.elapsed() > LATE) {
            Some(HeadProblem::Stopping)
        } else {
            bad_target(&session)
        };
        if let Some(problem) = problem {
            self.refuse_head(session, problem).await;
            return Served { reusable: None, answered: true };
        }
        let mut down = SessionDownstream::new(session);
        exchange::run(&self.services, &mut down).await;
        let Some(session) = down.into_reusable().await else { return Served { reusable: None, answered: false } };
        let reusable = timeout(FINISH, session.finish()).await.ok().and_then(Result::ok).flatten();
        Served { reusable, answered: true }
    }

    /// Answers a head that is not served, then closes.
    pub(super) async fn refuse_head(&self, mut session: Box<ServerSession>, problem: HeadProblem) {
        session.set_keepalive(None);
        let (code, message) = match problem {
            HeadProblem::TooLarge => {
                (Code::HeadersTooLarge, "the request's headers are larger than 32 KiB or more than 100")
            }
            HeadProblem::UriTooLong => (Code::UriTooLong, "the path and query are longer than 8192 bytes"),
            HeadProblem::Slow => (Code::RequestTimeout, "the request's head did not arrive within 15 seconds"),
            HeadProblem::Invalid(why) => (Code::BadRequest, why),
            HeadProblem::Stopping => (Code::ShuttingDown, "this node is stopping; send the request again"),
        };
        self.metrics().refused(code.as_str());
        let rendered = render(Dialect::OpenAi, code, message, "");
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(retry) = code.should_retry() {
            headers.insert("x-should-retry", HeaderValue::from_static(if retry { "true" } else { "false" }));
        }
        if let Some(seconds) = code.retry_after() {
            headers.insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        let status = StatusCode::from_u16(rendered.status).unwrap_or(StatusCode::BAD_REQUEST);
        let body = Bytes::from(rendered.body);
        let mut response = pingora_http::ResponseHeader::from({
            let mut parts = http::Response::new(()).into_parts().0;
            parts.status = status;
            parts.headers = headers;
            parts
        });
        let _ = response.set_content_length(body.len());
        let answer = async {
            session.write_response_header(Box::new(response)).await?;
            session.write_response_body(body, true).await
        };
        let _ = timeout(FINISH, answer).await;
        let _ = timeout(CLOSE, session.shutdown()).await;
    }
}

/// Why a head is not served.
#[derive(Clone, Copy, Debug)]
pub(super) enum HeadProblem {
    TooLarge,
    UriTooLong,
    Slow,
    /// In words for the client.
    Invalid(&'static str),
    Stopping,
}

impl HeadProblem {
    /// What pingora's parser meant.
    pub(super) fn of(error: &Error) -> Self {
        // The parser has no error type of its own for either limit.
        let text = error.to_string();
        if text.contains("larger than") || text.contains("too many headers") {
            Self::TooLarge
        } else {
            Self::Invalid("the request is not valid HTTP")
        }
    }
}

impl From<HeadFault> for HeadProblem {
    fn from(fault: HeadFault) -> Self {
        match fault {
            HeadFault::TooLarge => Self::TooLarge,
            HeadFault::UriTooLong => Self::UriTooLong,
            HeadFault::Malformed(why) => Self::Invalid(why),
        }
    }
}

/// What `front` checks of an HTTP/1 head before it is parsed, of an HTTP/2 one
/// after it.
fn bad_target(session: &ServerSession) -> Option<HeadProblem> {
    if session.as_http1().is_some() {
        return None;
    }
    let target = session.req_header().raw_path();
    check_target(target).err().map(HeadProblem::from)
}
