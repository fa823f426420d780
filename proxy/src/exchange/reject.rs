//! Refusals: one value from any stage, one way to say it.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::ports::{Downstream, Gone, Length};
use super::record::Facts;
use crate::wire::error::{Code, render};

/// A request that is not, or no longer, served.
#[derive(Debug)]
pub struct Refusal {
    /// Stable code; status and error type follow from it.
    pub code: Code,
    /// For the caller: says what to repair. Never holds a secret.
    pub message: String,
    /// For the log only.
    pub cause: Option<String>,
    /// Seconds for `retry-after`, when more is known than the code says.
    pub retry_after: Option<u32>,
}

impl Refusal {
    /// A refusal with a message for the caller.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), cause: None, retry_after: None }
    }
}

/// Sends the refusal in the caller's dialect.
///
/// # Errors
/// The client is gone.
pub async fn answer<D: Downstream>(down: &mut D, facts: &Facts, refusal: &Refusal) -> Result<(), Gone> {
    let rendered = render(facts.dialect, refusal.code, &refusal.message, &facts.id);
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(rendered.content_type));
    if let Some(retry) = refusal.code.should_retry() {
        let value = if retry { "true" } else { "false" };
        headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static(value));
    }
    if let Some(seconds) = refusal.retry_after.or(refusal.code.retry_after()) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    facts.stamp(&mut headers);
    let status = StatusCode::from_u16(rendered.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = Bytes::from(rendered.body);
    down.write_head(status, headers, Length::Known(body.len() as u64)).await?;
    down.write_chunk(body).await?;
    down.finish().await
}
