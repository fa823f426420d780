//! Making, changing, rotating and deleting provider keys.

use axum::extract::State;
use axum::response::Response;

use super::requests::{CreateProviderKey, CreateProviderKeyQuery, PatchProviderKey, RotateProviderKey, SecretText};
use super::views::ProviderKeyView;
use super::{created, current};
use crate::domain::provider_keys::{self as domain, NewProviderKey, ProviderKeyPatch};
use crate::http::auth::InTenant;
use crate::http::body::{StrictJson, StrictQuery};
use crate::http::edit::Edit;
use crate::http::idempotency::IdempotencyKey;
use crate::http::problem::Problem;
use crate::http::rollout::Prefer;
use crate::http::state::App;

impl From<SecretText> for domain::SecretText {
    fn from(secret: SecretText) -> Self {
        Self(secret.0)
    }
}

/// `POST /provider-keys`
pub async fn create(
    State(app): State<App>,
    inside: InTenant,
    key: IdempotencyKey,
    prefer: Prefer,
    StrictQuery(query): StrictQuery<CreateProviderKeyQuery>,
    StrictJson { value, bytes }: StrictJson<CreateProviderKey>,
) -> Result<Response, Problem> {
    let new = NewProviderKey {
        vendor: value.vendor,
        label: value.label,
        secret: value.secret.map(domain::SecretText::from),
        secret_ref: value.secret_ref,
        tags: value.tags,
        base_url: value.base_url,
        project_id: value.project_id,
        weight: value.weight,
        priority: value.priority,
        max_concurrency: value.max_concurrency,
        options: value.options,
        enabled: value.enabled,
    };
    let (at, within) = (app.clone(), inside.clone());
    let work = async move {
        let done = domain::create(&at.domain, &within.caller, &within.tenant.id, new).await?;
        let (row, revision) = at.committed(done);
        let verified = if query.verify == Some(true) { ask(&at, &within, &row.id).await } else { None };
        let outcome = match verified {
            Some(verified) => {
                let (version, outcome) = (verified.row.version, created(row)?);
                outcome.showing(&ProviderKeyView::verified(verified), version)?
            }
            None => created(row)?,
        };
        Ok(outcome.revision(revision))
    };
    key.create(&app, inside.asker(), &bytes, prefer, work).await
}

/// The key exists by now: a failure of ours to ask must not look like a failure
/// to make it.
async fn ask(app: &App, inside: &InTenant, id: &str) -> Option<domain::Verified> {
    let asked = domain::verify(&app.domain, &inside.caller, (&inside.tenant.id, id)).await;
    match asked {
        Ok(done) => Some(done.value),
        Err(error) => {
            tracing::warn!(key = id, %error, "a new provider key could not be verified");
            None
        }
    }
}

/// `PATCH /provider-keys/{id}`
pub async fn update(edit: Edit, StrictJson { value, .. }: StrictJson<PatchProviderKey>) -> Result<Response, Problem> {
    let patch = ProviderKeyPatch {
        label: value.label,
        secret: value.secret.map(domain::SecretText::from),
        tags: value.tags,
        base_url: value.base_url,
        project_id: value.project_id,
        weight: value.weight,
        priority: value.priority,
        max_concurrency: value.max_concurrency,
        options: value.options,
        enabled: value.enabled,
    };
    let done = domain::update(edit.domain(), edit.caller(), edit.place(), patch, edit.version).await?;
    edit.changed(done, current).await
}

/// `POST /provider-keys/{id}/rotate`
pub async fn rotate(edit: Edit, StrictJson { value, .. }: StrictJson<RotateProviderKey>) -> Result<Response, Problem> {
    let done = domain::rotate(edit.domain(), edit.caller(), edit.place(), value.secret.into(), edit.version).await?;
    edit.changed(done, current).await
}

/// `DELETE /provider-keys/{id}`
pub async fn delete(edit: Edit) -> Result<Response, Problem> {
    let done = domain::delete(edit.domain(), edit.caller(), edit.place(), edit.version).await?;
    Ok(edit.gone(done).await)
}
