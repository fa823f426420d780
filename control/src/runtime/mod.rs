//! Bots that we run: what is wanted of their containers, compared with what
//! runners see, again and again.
//!
//! Invariant: what is decided about a bot follows from its row and from what
//! its runner told, never from what was done before; only the process that
//! holds a runner's stream gives it orders, one at a time for each bot, but for
//! a kill. A container is a bot's only if it carries this installation's mark.
//! Deliberately absent: engines and sockets (the runner has them), REST, and
//! provider keys: none ever reaches a container.

pub mod adapters;
mod heard;
pub mod links;
pub mod live;
pub mod observe;
pub mod orders;
pub mod orphans;
pub mod place;
pub mod plan;
mod reconcile;
pub mod spec;
pub mod subnet;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clawgate_shared::id;
use tokio::sync::Notify;

use crate::config::ContainerConfig;
use crate::store::bots::BotRow;
use crate::store::{Db, StoreError, settings};
use crate::vault::Vault;
use links::Links;
use live::Live;
use orders::{Failure, Verb};
use plan::Policy;
use subnet::BotPool;

pub use reconcile::{SHORT, wanted};

/// Where the installation's own id is kept.
const INSTALLATION: &str = "runtime.installation";
/// How long a kill may take.
const KILL: Duration = Duration::from_secs(10);

/// Everything about bots that we run; share it in an [`Arc`].
pub struct Runtime {
    db: Db,
    vault: Arc<Vault>,
    pool: BotPool,
    policy: Policy,
    pull_timeout: Duration,
    installation: String,
    /// Connected runners.
    pub links: Links,
    /// What just happened.
    pub live: Live,
    busy: Mutex<HashSet<String>>,
    wake: Notify,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("installation", &self.installation).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Takes up or makes the mark that this installation's containers carry.
    ///
    /// # Errors
    /// As the database answers.
    pub async fn open(db: Db, vault: Arc<Vault>, config: ContainerConfig) -> Result<Arc<Self>, StoreError> {
        let mut tx = db.begin().await?;
        settings::insert(&mut tx, INSTALLATION, &id::new(id::Kind::Installation)).await?;
        let installation = settings::get(&mut tx, INSTALLATION).await?.unwrap_or_default();
        tx.commit().await?;
        let start_timeout = i64::try_from(config.start_timeout.as_micros()).unwrap_or(i64::MAX);
        Ok(Arc::new(Self {
            db,
            vault,
            pool: config.pool,
            policy: Policy { start_timeout, ..Policy::default() },
            pull_timeout: config.pull_timeout,
            installation,
            links: Links::default(),
            live: Live::default(),
            busy: Mutex::default(),
            wake: Notify::new(),
        }))
    }

    /// The mark.
    #[must_use]
    pub fn installation(&self) -> &str {
        &self.installation
    }

    /// Where the networks of bots come from.
    #[must_use]
    pub const fn pool(&self) -> BotPool {
        self.pool
    }

    /// Something changed: everything is looked at soon.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Ends a bot's container at once, past whatever is under way.
    ///
    /// # Errors
    /// See [`Failure`]; it is ended anyway as soon as it can be, because that is
    /// what is wanted of it.
    pub async fn kill(&self, bot: &BotRow) -> Result<(), Failure> {
        let Some(container) = bot.container.as_deref() else { return Ok(()) };
        let Some(runner_id) = container.runner_id.as_deref() else { return Ok(()) };
        let outcome = self.links.order(runner_id, (&bot.id, container.generation), Verb::Kill, KILL).await?;
        if outcome.tells {
            self.links.learn(runner_id, &bot.id, outcome.cell);
        }
        self.wake();
        Ok(())
    }

    /// The last lines that a bot wrote.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn logs(&self, bot: &BotRow, lines: u32) -> Result<String, Failure> {
        let runner = bot
            .container
            .as_deref()
            .and_then(|container| container.runner_id.as_deref().map(|runner| (runner, container.generation)));
        let Some((runner_id, generation)) = runner else { return Ok(String::new()) };
        let outcome = self.links.order(runner_id, (&bot.id, generation), Verb::Logs { lines }, SHORT).await?;
        Ok(outcome.text.to_string())
    }

    /// Takes the one place of a bot's orders; false: it is taken.
    fn begin(&self, bot_id: &str) -> bool {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(bot_id.to_owned())
    }

    fn end(&self, bot_id: &str) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(bot_id);
    }

    fn is_busy(&self, bot_id: &str) -> bool {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).contains(bot_id)
    }
}
