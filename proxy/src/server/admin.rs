//! The node's admin listener: health and metrics, as a pingora application, so
//! that an upgrade hands it over like the others.

use std::sync::Arc;

use async_trait::async_trait;
use http::Response;
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;

use crate::telemetry::Metrics;

/// What is still pending before the node may be sent traffic; empty: ready.
pub type Readiness = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Fills gauges just before a scrape.
pub type BeforeScrape = Arc<dyn Fn(&Metrics) + Send + Sync>;

/// Serves `/livez`, `/readyz` and `/metrics`.
pub struct Admin {
    readiness: Readiness,
    metrics: Arc<Metrics>,
    before_scrape: BeforeScrape,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    /// The admin application of a node.
    #[must_use]
    pub fn new(readiness: Readiness, metrics: Arc<Metrics>, before_scrape: BeforeScrape) -> Self {
        Self { readiness, metrics, before_scrape }
    }

    fn answer(&self, path: &str) -> (u16, &'static str, String) {
        match path {
            "/livez" => (200, "application/json", r#"{"status":"live"}"#.to_owned()),
            "/readyz" => {
                let pending = (self.readiness)();
                let status = if pending.is_empty() { 200 } else { 503 };
                (
                    status,
                    "application/json",
                    serde_json::json!({ "ready": pending.is_empty(), "pending": pending }).to_string(),
                )
            }
            "/metrics" => {
                (self.before_scrape)(&self.metrics);
                (200, "application/openmetrics-text; version=1.0.0; charset=utf-8", self.metrics.render())
            }
            _ => (404, "application/json", r#"{"error":"not found"}"#.to_owned()),
        }
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        let (status, content_type, body) = if head.method == http::Method::GET || head.method == http::Method::HEAD {
            self.answer(head.uri.path())
        } else {
            (405, "application/json", r#"{"error":"method not allowed"}"#.to_owned())
        };
        let mut response = Response::new(body.into_bytes());
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
        let length = response.body().len();
        response.headers_mut().insert(http::header::CONTENT_LENGTH, http::HeaderValue::from(length));
        response
    }
}
