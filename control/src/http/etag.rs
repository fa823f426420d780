//! Versions of resources as `ETag`, and `If-Match` on updates.

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};

use super::problem::{FieldProblem, Problem};

/// The entity tag of a resource's row version.
#[must_use]
pub fn of(version: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"v{version}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// `If-Match` of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// Absent, or `*`: the resource only has to exist.
    Any,
    /// This row version and no other.
    Version(u64),
    /// A tag that none of our resources ever has.
    Never,
}

impl IfMatch {
    /// The version that the update demands.
    ///
    /// # Errors
    /// 412 for a tag that cannot be ours.
    pub fn version(self) -> Result<Option<u64>, Problem> {
        match self {
            Self::Any => Ok(None),
            Self::Version(version) => Ok(Some(version)),
            Self::Never => Err(Problem::new(StatusCode::PRECONDITION_FAILED, "precondition_failed")),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(header::IF_MATCH).iter();
        let Some(value) = values.next() else { return Ok(Self::Any) };
        let text = value.to_str().unwrap_or_default().trim();
        if values.next().is_some() || text.contains(',') {
            return Err(Problem::bad_parameter(
                FieldProblem::new("if-match", "format").saying("exactly one entity tag"),
            ));
        }
        if text == "*" {
            return Ok(Self::Any);
        }
        let version = text.strip_prefix("\"v").and_then(|rest| rest.strip_suffix('"')).and_then(|n| n.parse().ok());
        Ok(version.map_or(Self::Never, Self::Version))
    }
}
