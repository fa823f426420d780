//! Asking a vendor whether a key works.

use axum::Json;
use axum::extract::State;

use super::views::ProviderKeyVerification;
use crate::domain::provider_keys as domain;
use crate::http::auth::InTenant;
use crate::http::body::UrlPath;
use crate::http::problem::Problem;
use crate::http::state::App;

/// `POST /provider-keys/{id}/verify`
pub async fn verify(
    State(app): State<App>,
    inside: InTenant,
    UrlPath(id): UrlPath<String>,
) -> Result<Json<ProviderKeyVerification>, Problem> {
    let done = domain::verify(&app.domain, &inside.caller, (&inside.tenant.id, &id)).await?;
    let (verified, _) = app.committed(done);
    Ok(Json((&verified).into()))
}
