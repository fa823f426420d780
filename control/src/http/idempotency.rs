//! `Idempotency-Key`: a create that is sent again gets its first answer again.
//!
//! Invariant: the stored answer is sealed, because it may hold a token that is
//! shown once. The work goes on when the client hangs up, so that a repeat
//! finds the answer and not a half-known state.

use std::future::Future;

use axum::body::Bytes;
use axum::extract::FromRequestParts;
use axum::response::Response;
use clawgate_shared::clock;
use http::StatusCode;
use http::request::Parts;
use sha2::{Digest as _, Sha256};

use super::outcome::Outcome;
use super::problem::{FieldProblem, Problem};
use super::rollout::Prefer;
use super::state::App;
use crate::store::idempotency::{self, Claim, Claimed};
use crate::vault::Purpose;

/// Longest accepted key.
const MAX_KEY: usize = 255;

/// The header and what it is bound to.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    key: Option<String>,
    route: String,
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all("idempotency-key").iter();
        let route = format!("{} {}", parts.method, parts.uri.path());
        let Some(value) = values.next() else { return Ok(Self { key: None, route }) };
        let text = value.to_str().unwrap_or_default().trim();
        let plain = !text.is_empty() && text.len() <= MAX_KEY && text.bytes().all(|b| b.is_ascii_graphic());
        if values.next().is_some() || !plain {
            let problem = FieldProblem::new("idempotency-key", "format").saying("1 to 255 printable characters, once");
            return Err(Problem::bad_parameter(problem));
        }
        Ok(Self { key: Some(text.to_owned()), route })
    }
}

/// Whose key it is, and for which tenant the work is done.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The actor.
    pub principal: &'a str,
    /// Empty: the platform's.
    pub tenant_id: &'a str,
}

impl IdempotencyKey {
    /// Does the work once per key; without a key, always.
    ///
    /// # Errors
    /// As the work's; 409 while the first request is still at it, 422 when the
    /// key was used for something else.
    pub async fn once<F>(self, app: &App, asker: Asker<'_>, body: &Bytes, work: F) -> Result<Outcome, Problem>
    where
        F: Future<Output = Result<Outcome, Problem>> + Send + 'static,
    {
        let Some(key) = self.key else { return work.await };
        let Asker { principal, tenant_id } = asker;
        let body_sha256: [u8; 32] = Sha256::digest(body).into();
        let route = format!("{} {tenant_id}", self.route);
        let claim = Claim { principal, key: &key, route: &route, body_sha256: &body_sha256 };
        let mut tx = app.domain.db.begin().await?;
        let claimed = idempotency::claim(&mut tx, claim, clock::now_micros()).await?;
        tx.commit().await?;
        match claimed {
            Claimed::New => {
                let (app, principal) = (app.clone(), principal.to_owned());
                let task = tokio::spawn(async move { finish(&app, &principal, &key, work.await).await });
                task.await.map_err(|error| Problem::internal(&error))?
            }
            Claimed::Done(sealed) => open(app, principal, &key, &sealed),
            Claimed::InProgress => Err(Problem::new(StatusCode::CONFLICT, "idempotency_in_progress")),
            Claimed::Mismatch => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused")),
        }
    }

    /// [`Self::once`], and then the answer, after the nodes have had their time.
    ///
    /// # Errors
    /// As [`Self::once`].
    pub async fn create<F>(
        self,
        app: &App,
        asker: Asker<'_>,
        body: &Bytes,
        prefer: Prefer,
        work: F,
    ) -> Result<Response, Problem>
    where
        F: Future<Output = Result<Outcome, Problem>> + Send + 'static,
    {
        let outcome = self.once(app, asker, body, work).await?;
        Ok(app.answer(prefer, outcome).await)
    }
}

/// What the sealed answer is bound to, beside its purpose.
fn context(principal: &str, key: &str) -> String {
    format!("{}:{principal}:{key}", principal.len())
}

async fn finish(app: &App, principal: &str, key: &str, result: Result<Outcome, Problem>) -> Result<Outcome, Problem> {
    let mut tx = app.domain.db.begin().await?;
    match &result {
        Ok(outcome) => {
            let plain = zeroize::Zeroizing::new(serde_json::to_vec(outcome).map_err(|e| Problem::internal(&e))?);
            let sealed = app.domain.vault.seal_blob(Purpose::IdempotentAnswer, &context(principal, key), &plain)?;
            idempotency::finish(&mut tx, principal, key, &sealed, clock::now_micros()).await?;
        }
        Err(_) => idempotency::release(&mut tx, principal, key).await?,
    }
    tx.commit().await?;
    result
}

fn open(app: &App, principal: &str, key: &str, sealed: &[u8]) -> Result<Outcome, Problem> {
    let plain = app.domain.vault.open_blob(Purpose::IdempotentAnswer, &context(principal, key), sealed)?;
    serde_json::from_slice(&plain).map_err(|error| Problem::internal(&error))
}
