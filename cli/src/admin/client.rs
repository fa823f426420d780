//! The REST client.
//!
//! Answers are bounded, redirects are not followed (a token must not travel to
//! where a redirect points), and a loopback control plane is never reached
//! through a proxy from the environment.

use std::time::Duration;

use reqwest::{Method, Url};
use serde_json::Value;

use super::target::Target;
use crate::failure::Failure;

/// Longest wait for an answer; a write may wait for the nodes for 30 s.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer taken in.
const ANSWER_LIMIT: usize = 32 * 1024 * 1024;
/// Rows asked for at once.
const PAGE: u32 = 100;

/// One control plane, spoken to as one caller.
pub(crate) struct Api {
    http: reqwest::Client,
    base: Url,
    token: String,
    tenant: Option<String>,
}

/// A successful answer.
pub(crate) struct Answer {
    /// The JSON body; null when there was none.
    pub(crate) body: Value,
    /// `x-clawgate-rollout`: who has taken over a change.
    pub(crate) rollout: Option<String>,
}

impl Api {
    /// A client; connects only when asked something.
    pub(crate) fn new(target: Target) -> Result<Self, Failure> {
        let base = Url::parse(&format!("{}/api/v1", target.url))
            .map_err(|e| Failure::Usage(format!("the control plane's URL is not valid: {e}")))?;
        // Another part of the process may have chosen the same provider before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("clawgate/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|e| Failure::failed("preparing the HTTP client", e))?;
        Ok(Self { http, base, token: target.token, tenant: target.tenant })
    }

    /// Acts in another tenant from now on.
    pub(crate) fn in_tenant(mut self, slug: &str) -> Self {
        self.tenant = Some(slug.to_owned());
        self
    }

    /// The tenant it acts in, if one was named.
    pub(crate) fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// `GET`; `path` starts with a slash and has its segments encoded by
    /// [`path`].
    pub(crate) async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        Ok(self.send(Method::GET, path, query, None).await?.body)
    }

    /// `POST` with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        self.send(Method::POST, path, &[], Some(body)).await
    }

    /// `POST` with parameters and a JSON body.
    pub(crate) async fn post_with(
        &self,
        path: &str,
        query: &[(&str, String)],
        body: &Value,
    ) -> Result<Answer, Failure> {
        self.send(Method::POST, path, query, Some(body)).await
    }

    /// `PUT` with parameters and a JSON body.
    pub(crate) async fn put(&self, path: &str, query: &[(&str, String)], body: &Value) -> Result<Answer, Failure> {
        self.send(Method::PUT, path, query, Some(body)).await
    }

    /// `PATCH` with a JSON body.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        self.send(Method::PATCH, path, &[], Some(body)).await
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, path: &str) -> Result<Answer, Failure> {
        self.send(Method::DELETE, path, &[], None).await
    }

    /// All rows of a listing, page by page, at most `limit`.
    pub(crate) async fn list(&self, path: &str, filters: &[(&str, String)], limit: u32) -> Result<Vec<Value>, Failure> {
        let limit = limit as usize;
        let mut rows: Vec<Value> = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = PAGE.min(u32::try_from(limit - rows.len()).unwrap_or(PAGE));
            let mut query = filters.to_vec();
            query.push(("limit", page.to_string()));
            query.extend(after.take().map(|cursor| ("after", cursor)));
            let body = self.get(path, &query).await?;
            if let Some(data) = body.get("data").and_then(Value::as_array) {
                rows.extend(data.iter().cloned());
            }
            let more = body.get("has_more").and_then(Value::as_bool).unwrap_or(false);
            after = body.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
            if !more || after.is_none() || rows.len() >= limit {
                rows.truncate(limit);
                return Ok(rows);
            }
        }
    }

    /// `GET` of a file, written as it comes.
    pub(crate) async fn download(
        &self,
        path: &str,
        query: &[(&str, String)],
        out: &mut impl std::io::Write,
    ) -> Result<(), Failure> {
        // A file takes as long as it takes; only its beginning is waited for.
        let asked = tokio::time::timeout(TIMEOUT, self.ask(Method::GET, path, query, None, None)).await;
        let mut answer = asked.map_err(|_| Failure::Failed(format!("{} did not answer in time", self.base)))??;
        let written = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::failed("writing the file", e),
        };
        let broken = |_| Failure::Failed("the answer broke off: the file is not complete".to_owned());
        while let Some(chunk) = answer.chunk().await.map_err(broken)? {
            out.write_all(&chunk).map_err(written)?;
        }
        out.flush().map_err(written)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let answer = self.ask(method, path, query, body, Some(TIMEOUT)).await?;
        let rollout = answer.headers().get("x-clawgate-rollout").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let bytes = bounded(answer).await?;
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).map_err(|_| {
                Failure::Failed(format!("{} did not answer with JSON: is it a control plane?", self.base))
            })?
        };
        Ok(Answer { body, rollout })
    }

    /// A successful answer, its body not yet read.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&Value>,
        timeout: Option<Duration>,
    ) -> Result<reqwest::Response, Failure> {
        let mut url = Url::parse(&format!("{}{path}", self.base))
            .map_err(|e| Failure::Usage(format!("not a valid path: {e}")))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query.iter().map(|(k, v)| (*k, v.as_str())));
        }
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(tenant) = &self.tenant {
            request = request.header("x-clawgate-tenant", tenant);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(timeout) = timeout {
            request = request.timeout(timeout);
        }
        let answer = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = answer.status();
        if !status.is_success() {
            let bytes = bounded(answer).await?;
            return Err(Failure::from_status(status.as_u16(), problem(status.as_u16(), &bytes)));
        }
        Ok(answer)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let origin = self.base.origin().ascii_serialization();
        if error.is_timeout() {
            return Failure::Failed(format!("{origin} did not answer in time"));
        }
        let cause = std::iter::successors(std::error::Error::source(error), |e| e.source()).last();
        match cause {
            Some(cause) => Failure::Failed(format!("{origin} cannot be reached: {cause}")),
            None => Failure::Failed(format!("{origin} cannot be reached")),
        }
    }
}

impl Answer {
    /// Says on stderr when not every node has taken the change over.
    pub(crate) fn warn_if_not_everywhere(&self) {
        if let Some(rollout) = &self.rollout
            && ["nacked", "pending", "disconnected"]
                .iter()
                .any(|name| rollout.split(' ').any(|part| part.starts_with(name) && !part.ends_with("=0")))
        {
            eprintln!("clawgate: saved, but not on every node yet: {rollout} (see `clawgate node list`)");
        }
    }
}

/// Joins path segments, each percent-encoded.
///
/// # Errors
/// A segment that a URL parser would take for a step (`..`) or for nothing.
pub(crate) fn path(segments: &[&str]) -> Result<String, Failure> {
    let mut out = String::new();
    for segment in segments {
        if matches!(*segment, "" | "." | "..") {
            return Err(Failure::Usage(format!("{segment:?} is not a name")));
        }
        out.push('/');
        for byte in segment.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    Ok(out)
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

async fn bounded(mut answer: reqwest::Response) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|e| Failure::failed("reading the answer", e))? {
        if bytes.len() + chunk.len() > ANSWER_LIMIT {
            return Err(Failure::Failed("the answer is larger than 32 MiB".to_owned()));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The text of a problem document, or the status alone when it is none.
fn problem(status: u16, bytes: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return format!("the control plane answered {status}");
    };
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut out = match (text("detail"), text("title")) {
        ("", "") => format!("the control plane answered {status}"),
        ("", title) => title.to_owned(),
        (detail, _) => detail.to_owned(),
    };
    if !text("code").is_empty() {
        out.push_str(&format!(" ({})", text("code")));
    }
    for error in value.get("errors").and_then(Value::as_array).into_iter().flatten() {
        let part = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let why = if part("message").is_empty() { part("rule") } else { part("message") };
        out.push_str(&format!("\n  {}: {why}", part("field")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cannot_leave_their_place() {
        let joined = |segments: &[&str]| path(segments).ok();
        assert_eq!(joined(&["bots", "a/../b?x", "tokens"]).as_deref(), Some("/bots/a%2F..%2Fb%3Fx/tokens"));
        assert_eq!(joined(&["bots", "demo-1.x"]).as_deref(), Some("/bots/demo-1.x"));
        for step in ["..", ".", ""] {
            assert_eq!(joined(&["bots", step]), None, "{step:?}");
        }
    }

    #[test]
    fn problems_are_told_with_code_and_fields() {
        let body = br#"{"title":"Unprocessable","detail":"the bot is not valid","code":"invalid",
            "errors":[{"field":"hostname","rule":"pattern"},{"field":"tags","message":"at most 64"}]}"#;
        assert_eq!(problem(422, body), "the bot is not valid (invalid)\n  hostname: pattern\n  tags: at most 64");
        assert_eq!(problem(502, b"<html>"), "the control plane answered 502");
    }

    #[test]
    fn only_loopback_goes_around_a_proxy() {
        for (url, loopback) in [
            ("http://127.0.0.1:1/", true),
            ("http://[::1]:1/", true),
            ("http://localhost/", true),
            ("http://10.0.0.1/", false),
            ("https://localhost.example/", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).expect("url")), loopback, "{url}");
        }
    }
}
