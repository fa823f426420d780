//! Whether the bot of an exchange may still be served.

use std::sync::Arc;
use std::time::Duration;

use clawgate_shared::clock;
use tokio::time::{Instant, Interval, interval_at};

use super::authenticate::Presented;
use super::reject::Refusal;
use crate::snapshot::{Bot, BotState, Handle};
use crate::wire::error::Code;

/// How often a wait looks.
const EVERY: Duration = Duration::from_secs(1);

/// Notices that a bot was suspended or deleted, or its token taken away, while
/// its answer streams.
#[derive(Debug)]
pub struct Watch<'a> {
    snapshots: &'a Handle,
    bot: Arc<Bot>,
    token: Presented,
    /// How often the configuration had changed when it was last looked at.
    seen: u64,
    tick: Interval,
}

impl<'a> Watch<'a> {
    /// Watches `bot`, admitted with `token` under the configuration that `seen`
    /// counts.
    pub fn new(snapshots: &'a Handle, bot: Arc<Bot>, token: Presented, seen: u64) -> Self {
        Self { snapshots, bot, token, seen, tick: interval_at(Instant::now() + EVERY, EVERY) }
    }

    /// Whether the bot may no longer call: gone, disabled, suspended, or without
    /// the token it called with. A token that merely ran out ends nothing that it
    /// began. Looks only when the configuration has changed.
    pub fn revoked(&mut self) -> bool {
        let swaps = self.snapshots.swaps();
        if swaps == self.seen {
            return false;
        }
        self.seen = swaps;
        let Some(now) = self.snapshots.load() else { return false };
        let bot = match now.tokens.get(&self.token.hash) {
            Some(entry) => {
                self.token.expires_at_micros = entry.expires_at_micros;
                Some(&entry.bot)
            }
            None => {
                let expires = self.token.expires_at_micros;
                if expires == 0 || expires > clock::now_micros() {
                    return true;
                }
                now.tokens.values().map(|entry| &entry.bot).find(|bot| bot.id == self.bot.id)
            }
        };
        bot.is_none_or(|bot| bot.state != BotState::Enabled || bot.tenant.suspended)
    }

    /// Completes when the bot may no longer call. Dropping it loses nothing.
    pub async fn ended(&mut self) {
        while !self.revoked() {
            self.tick.tick().await;
        }
    }
}

/// What the client is told then.
pub fn refusal() -> Refusal {
    let text = "this bot was suspended or deleted, or its token taken away, while it was being served";
    Refusal::new(Code::BotSuspended, text)
}
