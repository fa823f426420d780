//! What only tests may do, mounted only when `CLAWGATE_TEST_POISON` is on.
//! Deliberately absent from the document: no client may rely on it.

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use http::StatusCode;
use serde::Deserialize;

use super::auth::Who;
use super::body::StrictJson;
use super::problem::Problem;
use super::state::App;
use crate::domain::Permission;

/// Whether snapshots ask to be refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Poison {
    poison: bool,
}

/// `POST /api/v1/test/poison`
pub fn router() -> Router<App> {
    Router::new().route("/api/v1/test/poison", post(poison))
}

async fn poison(
    State(app): State<App>,
    who: Who,
    StrictJson { value, .. }: StrictJson<Poison>,
) -> Result<StatusCode, Problem> {
    who.caller.principal.require_platform(Permission::NodeWrite)?;
    app.fleet.set_poison(value.poison);
    Ok(StatusCode::NO_CONTENT)
}
