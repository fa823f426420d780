//! Provider keys.
//!
//! Invariant: their secrets come in and never go out.
//! Deliberately absent: asking a vendor whether a key works.

pub mod read;
pub mod requests;
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

fn outcome(created: bool, row: ProviderKeyRow, revision: Option<u64>) -> Result<Outcome, Problem> {
    let (version, at) = (row.version, format!("/api/v1/provider-keys/{}", row.id));
    let view = ProviderKeyView::from(row);
    let outcome = if created { Outcome::created(&view)?.at(at) } else { Outcome::changed(&view)? };
    Ok(outcome.version(version).revision(revision))
}
