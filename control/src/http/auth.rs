//! Who asks, and for which tenant.
//!
//! Invariant: a token comes from the `Authorization` header and nowhere else;
//! what it may is decided by `domain`.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::idempotency::Asker;
use super::problem::{FieldProblem, Problem};
use super::state::App;
use crate::domain::auth::{AuthError, authenticate};
use crate::domain::{Caller, Permission, tenants};
use crate::store::tenants::TenantRow;

/// The other end of the connection.
#[derive(Clone, Copy, Debug)]
pub struct PeerIp(pub IpAddr);

/// An authenticated caller, not yet inside a tenant.
#[derive(Clone, Debug)]
pub struct Who {
    /// For the domain.
    pub caller: Caller,
    /// Slug in `x-clawgate-tenant`.
    pub tenant_slug: Option<String>,
}

/// An authenticated caller inside one tenant.
#[derive(Clone, Debug)]
pub struct InTenant {
    /// For the domain.
    pub caller: Caller,
    /// The tenant the request is about.
    pub tenant: TenantRow,
}

impl Who {
    /// For an idempotency key of something that belongs to no tenant.
    #[must_use]
    pub fn asker(&self) -> Asker<'_> {
        Asker { principal: &self.caller.principal.actor, tenant_id: "" }
    }

    /// Enters the tenant that is named, else the caller's own.
    ///
    /// # Errors
    /// `tenant_required`, or 404 for one that is not the caller's.
    pub async fn enter(self, app: &App) -> Result<InTenant, Problem> {
        let tenant = tenants::select(&app.domain, &self.caller.principal, self.tenant_slug.as_deref()).await?;
        Ok(InTenant { caller: self.caller, tenant })
    }
}

impl InTenant {
    /// For an idempotency key.
    #[must_use]
    pub fn asker(&self) -> Asker<'_> {
        Asker { principal: &self.caller.principal.actor, tenant_id: &self.tenant.id }
    }

    /// Whether this may be done here.
    ///
    /// # Errors
    /// 403.
    pub fn require(&self, permission: Permission) -> Result<(), Problem> {
        Ok(self.caller.principal.require(permission, &self.tenant.id)?)
    }
}

impl FromRequestParts<App> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)?;
        let principal = authenticate(&app.domain.db, &app.bootstrap, token).await.map_err(|error| match error {
            AuthError::Invalid => challenge("token_invalid"),
            AuthError::Expired => challenge("token_expired"),
            AuthError::Store(error) => error.into(),
        })?;
        let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let caller = Caller {
            principal,
            ip: parts.extensions.get::<PeerIp>().map(|peer| peer.0.to_string()).unwrap_or_default(),
            user_agent: text(header::USER_AGENT.as_str()).unwrap_or_default().to_owned(),
        };
        let slugs: Vec<_> = parts.headers.get_all("x-clawgate-tenant").iter().collect();
        let tenant_slug = match slugs.as_slice() {
            [] => None,
            [slug] => slug.to_str().ok().map(str::to_owned),
            _ => return Err(Problem::bad_parameter(FieldProblem::new("x-clawgate-tenant", "duplicate"))),
        };
        if tenant_slug.is_none() && !slugs.is_empty() {
            return Err(Problem::bad_parameter(FieldProblem::new("x-clawgate-tenant", "format")));
        }
        Ok(Self { caller, tenant_slug })
    }
}

impl FromRequestParts<App> for InTenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Who::from_request_parts(parts, app).await?.enter(app).await
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(challenge("token_missing")) };
    let text = value.to_str().map_err(|_| challenge("token_invalid"))?;
    let (scheme, token) = text.split_once(' ').ok_or_else(|| challenge("token_missing"))?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(challenge("token_missing"));
    }
    Ok(token)
}

fn challenge(code: &'static str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, code)
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"clawgate\""))
}
