//! What a kind of bot needs in its container.
//!
//! Invariant: what goes in points the bot's clients at the bots' listener with
//! the bot's own token, and holds no other secret of ours than that and the
//! token of the bot's own door.
//! Deliberately absent: engines, sockets, and provider keys.

mod generic;

use std::net::SocketAddr;

use zeroize::Zeroizing;

use super::spec::RunSpec;
use crate::store::bots::BotRow;
use crate::store::types::Adapter;

pub use generic::PLACEHOLDERS;

/// What is known when a container is made.
pub struct Inside<'a> {
    /// Whose.
    pub bot: &'a BotRow,
    /// As its owner says.
    pub run: &'a RunSpec,
    /// The bots' listener, as seen from inside.
    pub listener: SocketAddr,
    /// The bot token that goes in.
    pub token: &'a str,
    /// What opens the bot's own door.
    pub gateway_token: &'a str,
}

/// What goes into a container.
pub struct Rendered {
    /// Instead of the image's own; empty: that one.
    pub command: Vec<String>,
    /// Name and value; values may be secret.
    pub env: Vec<(String, Zeroizing<String>)>,
    /// Path, content, permission bits.
    pub files: Vec<(String, Zeroizing<String>, u32)>,
}

impl std::fmt::Debug for Rendered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rendered").field("command", &self.command).finish_non_exhaustive()
    }
}

/// Renders what goes in; `None` for a kind that we do not run.
#[must_use]
pub fn render(inside: &Inside<'_>) -> Option<Rendered> {
    match inside.bot.adapter {
        Adapter::Generic => Some(generic::render(inside)),
        Adapter::Openclaw | Adapter::External => None,
    }
}

/// Whether we run bots of this kind.
#[must_use]
pub const fn is_run(adapter: Adapter) -> bool {
    matches!(adapter, Adapter::Generic)
}
