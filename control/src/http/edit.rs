//! What every change of one existing thing of a tenant takes, and how it is
//! answered.

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::request::Parts;

use super::auth::InTenant;
use super::body::UrlPath;
use super::etag::IfMatch;
use super::outcome::Outcome;
use super::problem::Problem;
use super::rollout::Prefer;
use super::state::App;
use crate::domain::{Caller, Domain, Done};

/// A request to change or delete the one thing that the path names.
pub struct Edit {
    /// For shaping the answer.
    pub app: App,
    inside: InTenant,
    name: String,
    /// The version that `If-Match` demands.
    pub version: Option<u64>,
    prefer: Prefer,
}

impl Edit {
    /// For the use case.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.app.domain
    }

    /// Who asks.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.inside.caller
    }

    /// Tenant, and the id or name in the path.
    #[must_use]
    pub fn place(&self) -> (&str, &str) {
        (&self.inside.tenant.id, &self.name)
    }

    /// Answers with the thing as it is now.
    ///
    /// # Errors
    /// As `shape`'s.
    pub async fn changed<T>(
        self,
        done: Done<T>,
        shape: impl FnOnce(T) -> Result<Outcome, Problem>,
    ) -> Result<Response, Problem> {
        self.app.changed(self.prefer, done, shape).await
    }

    /// Answers that it is gone.
    pub async fn gone(self, done: Done<()>) -> Response {
        self.app.gone(self.prefer, done).await
    }
}

impl FromRequestParts<App> for Edit {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let inside = InTenant::from_request_parts(parts, app).await?;
        let UrlPath(name) = UrlPath::from_request_parts(parts, app).await?;
        let version = IfMatch::from_request_parts(parts, app).await?.version()?;
        let prefer = Prefer::from_request_parts(parts, app).await?;
        Ok(Self { app: app.clone(), inside, name, version, prefer })
    }
}
