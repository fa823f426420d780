//! What happens around every request, outermost first: a request id, the
//! access line, a deadline, caught panics, the language of problems, the `Host`
//! allow-list.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use clawgate_shared::id;
use futures::FutureExt as _;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};

use super::problem::{self, Problem};
use crate::app::metrics::Metrics;

/// The longest any request may take; a write may wait 30 s for its rollout.
const DEADLINE: Duration = Duration::from_secs(60);

/// The id of one request: ours, never the client's.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

/// Under which names this server answers.
#[derive(Clone, Debug)]
pub struct AllowedHosts(Arc<BTreeSet<String>>);

impl AllowedHosts {
    /// Loopback names, the listener's own address and what the operator adds.
    #[must_use]
    pub fn new(listener: std::net::IpAddr, extra: &BTreeSet<String>) -> Self {
        let mut hosts: BTreeSet<String> = extra.clone();
        hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(str::to_owned));
        if !listener.is_unspecified() {
            hosts.insert(match listener {
                std::net::IpAddr::V4(address) => address.to_string(),
                std::net::IpAddr::V6(address) => format!("[{address}]"),
            });
        }
        Self(Arc::new(hosts))
    }

    /// Exactly one plain `Host`, with or without a port, that is on the list;
    /// an absolute-form target must agree.
    fn admits(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let known = |authority: &Authority| {
            !authority.as_str().contains('@') && self.0.contains(&authority.host().to_ascii_lowercase())
        };
        let host_ok = host.to_str().ok().and_then(|text| text.parse::<Authority>().ok()).is_some_and(|a| known(&a));
        host_ok && uri.authority().is_none_or(known)
    }
}

/// The middleware.
pub async fn around(
    State((hosts, metrics)): State<(AllowedHosts, Arc<Metrics>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let request_id: Arc<str> = id::new(id::Kind::Exchange).into();
    request.extensions_mut().insert(RequestId(request_id.clone()));
    let headers = request.headers().clone();
    let method = request.method().clone();
    // Never the query: it may carry what does not belong in a log.
    let path = request.uri().path().to_owned();

    let admitted = hosts.admits(&headers, request.uri());
    let answer = if admitted {
        match tokio::time::timeout(DEADLINE, AssertUnwindSafe(next.run(request)).catch_unwind()).await {
            Ok(Ok(response)) => response,
            Ok(Err(_panic)) => Problem::internal(&"a handler panicked").into_response(),
            Err(_late) => Problem::new(StatusCode::REQUEST_TIMEOUT, "request_incomplete").into_response(),
        }
    } else {
        Problem::new(StatusCode::MISDIRECTED_REQUEST, "host_not_allowed").into_response()
    };
    let mut response = problem::render(answer, &headers, &request_id);
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(HeaderName::from_static("x-request-id"), value);
    }
    harden(response.headers_mut());
    metrics.rest_answer(response.status().as_u16());
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(
        target: "clawgate::access", request_id = &*request_id, %method, path,
        status = response.status().as_u16(), millis, "request"
    );
    response
}

fn harden(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_hosts_are_admitted() {
        let extra = BTreeSet::from(["gate.example".to_owned()]);
        let hosts = AllowedHosts::new([10, 0, 0, 5].into(), &extra);
        for (values, uri, admitted) in [
            (vec!["localhost"], "/", true),
            (vec!["LOCALHOST:8081"], "/", true),
            (vec!["127.0.0.1:9"], "/", true),
            (vec!["[::1]:9"], "/", true),
            (vec!["10.0.0.5"], "/", true),
            (vec!["gate.example"], "/", true),
            (vec![], "/", false),
            (vec!["evil.example"], "/", false),
            (vec!["localhost.evil.example"], "/", false),
            (vec!["evil@localhost"], "/", false),
            (vec!["localhost", "evil.example"], "/", false),
            (vec!["localhost/x"], "/", false),
            (vec!["localhost?x"], "/", false),
            (vec!["localhost:8081"], "http://evil.example/", false),
            (vec!["localhost:8081"], "http://localhost:8081/", true),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(header::HOST, HeaderValue::from_static(value));
            }
            let uri: Uri = uri.parse().expect("uri");
            assert_eq!(hosts.admits(&headers, &uri), admitted, "{values:?} {uri}");
        }
    }
}
