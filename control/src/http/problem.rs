//! RFC 9457 answers. A handler names a code; the language is chosen where the
//! answer leaves, because only there the request's headers are still known.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::messages::{self, Language};
use crate::runtime::orders::Failure;

/// One field of the request that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// Where: `labels.team`, `tags[2]`, a query parameter or a header.
    pub field: String,
    /// Which rule: `required`, `type`, `unknown`, `format`, …
    pub rule: String,
    /// English text when the rule alone does not say enough.
    pub message: Option<String>,
}

impl FieldProblem {
    /// A field and the rule it breaks.
    pub fn new(field: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { field: field.into(), rule: rule.into(), message: None }
    }

    /// Says more than the rule.
    #[must_use]
    pub fn saying(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }
}

/// A refused request.
#[derive(Clone, Debug)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable and documented; what scripts branch on.
    pub code: &'static str,
    /// What fills the placeholders of the message.
    pub params: Vec<(&'static str, String)>,
    /// Every refused field.
    pub errors: Vec<FieldProblem>,
    /// Further headers (`allow`, `www-authenticate`, `retry-after`).
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem with a code of [`messages`].
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str) -> Self {
        Self { status, code, params: Vec::new(), errors: Vec::new(), headers: Vec::new() }
    }

    /// Fills a placeholder of the message.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.params.push((name, value.into()));
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// 422 with every refused field.
    #[must_use]
    pub fn invalid(errors: Vec<FieldProblem>) -> Self {
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed") }
    }

    /// 400 for one query parameter or header.
    #[must_use]
    pub fn bad_parameter(field: FieldProblem) -> Self {
        Self { errors: vec![field], ..Self::new(StatusCode::BAD_REQUEST, "invalid_parameter") }
    }

    /// 404; also for what belongs to somebody else.
    #[must_use]
    pub fn not_found(what: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found").with("what", what)
    }

    /// 503: the bot's runner does not do it now.
    #[must_use]
    pub fn runner_failed(failure: &Failure) -> Self {
        tracing::warn!(reason = failure.reason.as_str(), cause = %failure, "a runner did not do what it was asked");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "runner_failed").with("reason", failure.reason.as_str())
    }

    /// 500; the cause goes to the log here and nowhere else.
    #[must_use]
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "request failed inside");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal")
    }

    /// The body in a language.
    #[must_use]
    pub fn body(&self, language: Language, request_id: &str) -> ProblemBody {
        let (title, detail) = messages::problem(language, self.code, &self.params);
        let errors = self
            .errors
            .iter()
            .map(|error| ProblemError {
                field: error.field.clone(),
                rule: error.rule.clone(),
                message: messages::rule(language, &error.rule, error.message.as_deref()),
            })
            .collect();
        ProblemBody {
            kind: format!("urn:clawgate:problem:{}", self.code),
            title,
            status: self.status.as_u16(),
            detail,
            instance: format!("urn:clawgate:request:{request_id}"),
            code: self.code.to_owned(),
            errors,
        }
    }
}

/// `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// A URN that names the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short text of the code.
    pub title: String,
    /// As in the status line.
    pub status: u16,
    /// What happened and what to do.
    pub detail: String,
    /// A URN that names this request, as in the log and `x-request-id`.
    pub instance: String,
    /// Stable code.
    pub code: String,
    /// The refused fields; empty when the problem is not about fields.
    pub errors: Vec<ProblemError>,
}

/// One refused field.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemError {
    /// Where in the request.
    pub field: String,
    /// Which rule.
    pub rule: String,
    /// For people.
    pub message: String,
}

impl IntoResponse for Problem {
    /// Only marks the answer; [`render`] writes the body.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        for (name, value) in &self.headers {
            response.headers_mut().append(name.clone(), value.clone());
        }
        response.extensions_mut().insert(std::sync::Arc::new(self));
        response
    }
}

/// Writes the body of a marked answer in the language of the request.
#[must_use]
pub fn render(mut response: Response, request: &HeaderMap, request_id: &str) -> Response {
    let Some(problem) = response.extensions_mut().remove::<std::sync::Arc<Problem>>() else { return response };
    let language = Language::of(request);
    let body = serde_json::to_vec(&problem.body(language, request_id)).unwrap_or_default();
    let mut rendered = (problem.status, body).into_response();
    *rendered.headers_mut() = std::mem::take(response.headers_mut());
    let headers = rendered.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(language.tag()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    rendered
}
