//! The control plane's own health and metrics, on a listener of its own:
//! nothing here needs a token and nothing here tells more than that it runs.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use serde_json::json;

use crate::app::metrics::Metrics;
use crate::app::readiness::Readiness;

/// What the listener needs.
#[derive(Clone)]
pub struct Admin {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What is still missing.
    pub readiness: Arc<Readiness>,
}

/// `/livez`, `/readyz`, `/metrics`
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(|| async { Json(json!({"status": "live"})) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

async fn ready(State(admin): State<Admin>) -> Response {
    let pending = admin.readiness.pending().await;
    let status = if pending.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": pending.is_empty(), "pending": pending}))).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.metrics.scrape().await).into_response()
}
