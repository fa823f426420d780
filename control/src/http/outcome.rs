//! What a write answers: kept apart from the HTTP answer so that it can be
//! stored for a repeated request and so that waiting for nodes comes last.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::etag;
use super::problem::Problem;

/// The result of a committed write.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    status: u16,
    /// Row version of the resource.
    version: Option<u64>,
    /// What nodes must reach; `None`: the change is none of theirs.
    pub revision: Option<u64>,
    body: Option<Value>,
    location: Option<String>,
}

impl Outcome {
    fn with<T: Serialize>(status: StatusCode, body: &T) -> Result<Self, Problem> {
        let body = serde_json::to_value(body).map_err(|error| Problem::internal(&error))?;
        Ok(Self { status: status.as_u16(), version: None, revision: None, body: Some(body), location: None })
    }

    /// 201 with something new that has no version and no address of its own.
    ///
    /// # Errors
    /// The view is no JSON.
    pub fn minted<T: Serialize>(body: &T) -> Result<Self, Problem> {
        Self::with(StatusCode::CREATED, body)
    }

    /// 200 with a list as it is now, which has no version.
    ///
    /// # Errors
    /// The view is no JSON.
    pub fn list<T: Serialize>(body: &T) -> Result<Self, Problem> {
        Self::with(StatusCode::OK, body)
    }

    /// 200 with a resource as it is now, its row version as `ETag`.
    ///
    /// # Errors
    /// The view is no JSON.
    pub fn current<T: Serialize>(body: &T, version: u64) -> Result<Self, Problem> {
        Ok(Self { version: Some(version), ..Self::with(StatusCode::OK, body)? })
    }

    /// 201 instead, with where the new resource is.
    #[must_use]
    pub fn created_at(self, location: String) -> Self {
        Self { status: StatusCode::CREATED.as_u16(), location: Some(location), ..self }
    }

    /// 204.
    #[must_use]
    pub const fn gone() -> Self {
        Self { status: 204, version: None, revision: None, body: None, location: None }
    }

    /// The same answer with another view of the resource, at this version.
    ///
    /// # Errors
    /// The view is no JSON.
    pub fn showing<T: Serialize>(self, body: &T, version: u64) -> Result<Self, Problem> {
        Ok(Self { body: Self::with(StatusCode::OK, body)?.body, version: Some(version), ..self })
    }

    /// Nodes must reach this revision.
    #[must_use]
    pub const fn revision(mut self, revision: Option<u64>) -> Self {
        self.revision = revision;
        self
    }

    /// The HTTP answer.
    #[must_use]
    pub fn into_response(self) -> Response {
        let body = self.body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let headers = response.headers_mut();
        if self.status != 204 {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(version) = self.version {
            headers.insert(header::ETAG, etag::of(version));
        }
        if let Some(location) = self.location.and_then(|location| HeaderValue::from_str(&location).ok()) {
            headers.insert(header::LOCATION, location);
        }
        response
    }
}
