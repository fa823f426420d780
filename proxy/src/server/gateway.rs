//! From a session with a read head to an exchange and back to a connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora_core::Error;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::server::ReusableHttpStream;
use pingora_timeout::timeout;

use super::downstream::{CLOSE, SessionDownstream};
use crate::exchange::{self, Services};
use crate::telemetry::Metrics;
use crate::wire::error::{Code, render};
use clawgate_shared::dialect::Dialect;

/// Ending a session: flushing, and reading away a rest of the body.
const FINISH: Duration = Duration::from_secs(5);

/// Serves exchanges on sessions.
#[derive(Debug)]
pub struct Gateway {
    services: Arc<Services>,
}

impl Gateway {
    /// A gateway over the node's services.
    #[must_use]
    pub fn new(services: Arc<Services>) -> Self {
        Self { services }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.services.metrics
    }

    /// Serves one request; gives the connection back if it can be used again.
    pub(super) async fn serve(&self, mut session: ServerSession, stopping: bool) -> Option<ReusableHttpStream> {
        if stopping {
            session.set_keepalive(None);
        }
        if ambiguous_length(&session) {
            self.refuse_head(session, HeadProblem::AmbiguousLength).await;
            return None;
        }
        let mut down = SessionDownstream::new(session);
        exchange::run(&self.services, &mut down).await;
        let session = down.into_reusable().await?;
        timeout(FINISH, session.finish()).await.ok()?.ok()?
    }

    /// Answers a head that is not served, then closes.
    pub(super) async fn refuse_head(&self, mut session: ServerSession, problem: HeadProblem) {
        session.set_keepalive(None);
        let (code, message) = match problem {
            HeadProblem::TooLarge => {
                (Code::HeadersTooLarge, "the request's headers are larger than 32 KiB or more than 100")
            }
            HeadProblem::Slow => (Code::RequestTimeout, "the request's head did not arrive within 15 seconds"),
            HeadProblem::Invalid => (Code::BadRequest, "the request is not valid HTTP"),
            HeadProblem::AmbiguousLength => {
                (Code::BadRequest, "the request has both transfer-encoding and content-length")
            }
        };
        self.metrics().refused(code.as_str());
        let rendered = render(Dialect::OpenAi, code, message, "");
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
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
    Slow,
    Invalid,
    AmbiguousLength,
}

impl HeadProblem {
    /// What pingora's parser meant.
    pub(super) fn of(error: &Error) -> Self {
        // The parser has no error type of its own for either limit.
        let text = error.to_string();
        if text.contains("larger than") || text.contains("too many headers") { Self::TooLarge } else { Self::Invalid }
    }
}

/// A request with both a transfer coding and a content length is legal but
/// ambiguous: some parsers take the other one. pingora removes the length
/// before it can be seen, the raw head still has it.
fn ambiguous_length(session: &ServerSession) -> bool {
    let Some(h1) = session.as_http1() else { return false };
    if !session.req_header().headers.contains_key(http::header::TRANSFER_ENCODING) {
        return false;
    }
    let raw = h1.get_headers_raw_bytes();
    raw.split(|byte| *byte == b'\n')
        .any(|line| line.get(..15).is_some_and(|start| start.eq_ignore_ascii_case(b"content-length:")))
}
