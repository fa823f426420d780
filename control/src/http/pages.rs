//! The pages that need no token: the documentation's shell, the console's
//! placeholder. No script or style comes from elsewhere.

use axum::response::{IntoResponse, Response};
use http::header;

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// `GET /docs`
pub async fn docs() -> Response {
    asset("text/html; charset=utf-8", include_str!("pages/docs.html"))
}

/// `GET /docs/docs.js`
pub async fn docs_script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("pages/docs.js"))
}

/// `GET /`
pub async fn console() -> Response {
    asset("text/html; charset=utf-8", include_str!("pages/console.html"))
}
