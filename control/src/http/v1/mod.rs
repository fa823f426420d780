//! Version 1 of the REST API, one folder or file per resource.
//!
//! Invariant: request and answer shapes live here and nowhere deeper; a change
//! that breaks a client is a new version.
//! Deliberately absent: URLs (`router.rs`) and rules (`domain`).

pub mod api_tokens;
pub mod audit;
pub mod auth;
pub mod bots;
pub mod diagnostics;
pub mod limits;
pub mod live;
pub mod nodes;
pub mod prices;
pub mod projects;
pub mod provider_keys;
pub mod quotas;
pub mod resource_quota;
pub mod runners;
pub mod tenants;
pub mod usage;
pub mod vendors;

use crate::http::problem::{FieldProblem, Problem};

/// An optional RFC 3339 time of a request body.
///
/// # Errors
/// 422 naming the field.
fn instant(field: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    clawgate_shared::clock::parse_rfc3339(text).map(Some).map_err(|_| {
        let problem =
            FieldProblem::new(field, "format").saying("must be an RFC 3339 time, for example 2030-01-31T00:00:00Z");
        Problem::invalid(vec![problem])
    })
}
