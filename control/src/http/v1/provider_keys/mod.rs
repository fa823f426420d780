//! Provider keys.
//!
//! Invariant: their secrets come in and never go out.
//! Deliberately absent: which key serves a request (the data plane's choice).

pub mod read;
pub mod requests;
pub mod verify;
pub mod views;
pub mod write;

use serde::Deserialize;
use utoipa::IntoParams;

use self::views::ProviderKeyView;
use crate::http::outcome::Outcome;
use crate::http::problem::Problem;
use crate::store::provider_keys::ProviderKeyRow;

/// Which keys.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct KeysQuery {
    /// Rows, 1 to 200; 50 unless given.
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    after: Option<String>,
    /// Only for this vendor.
    vendor: Option<String>,
    /// Only those bound to this project.
    project_id: Option<String>,
}

fn current(row: ProviderKeyRow) -> Result<Outcome, Problem> {
    let version = row.version;
    Outcome::current(&ProviderKeyView::from(row), version)
}

fn created(row: ProviderKeyRow) -> Result<Outcome, Problem> {
    let at = format!("/api/v1/provider-keys/{}", row.id);
    Ok(current(row)?.created_at(at))
}
