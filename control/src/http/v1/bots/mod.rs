//! Bots and their tokens.
//!
//! Invariant: a token's text is in the one answer that mints it and nowhere else.
//! Deliberately absent: what is done with containers (`runtime`): `start` and
//! `stop` say what is wanted, and only `kill` does not wait for its turn.

pub mod explain;
pub mod history;
pub mod lifecycle;
pub mod read;
pub mod requests;
pub mod tokens;
pub mod views;
pub mod write;

use serde::Deserialize;
use utoipa::IntoParams;

use self::views::BotView;
use crate::http::outcome::Outcome;
use crate::http::problem::Problem;
use crate::http::state::App;
use crate::store::bots::BotRow;

/// Which bots.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct BotsQuery {
    /// Rows, 1 to 200; 50 unless given.
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    after: Option<String>,
    /// Only of this project.
    project_id: Option<String>,
    /// Only of this owner, as in a bot's `owner`.
    owner: Option<String>,
}

/// A bot as it is now.
fn current(app: &App, row: BotRow) -> Result<Outcome, Problem> {
    let version = row.version;
    Outcome::current(&BotView::new(row, &app.public_url, None), version)
}
