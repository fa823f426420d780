//! The reconciler between committed rows and what nodes are told.
//!
//! It wakes by signal after a config write and by a short period, which finds
//! what another process of the control plane wrote. It is idempotent: the same
//! rows give the same version.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clawgate_shared::clock;
use tokio::sync::{Notify, watch};

use super::assemble::{AssembleError, Extra, assemble};
use super::history::{History, Published};
use super::validate::{Problem, validate};
use crate::store::revisions::{self, Revision};
use crate::store::{Db, StoreError};
use crate::vault::Vault;

/// How often the revision is looked at without a signal.
const PERIOD: Duration = Duration::from_secs(1);
/// What a poisoned snapshot says.
const POISON: &str = "CLAWGATE_TEST_POISON is on";

/// What [`Publisher::publish`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nodes hold, or are being told, what the rows say.
    Current,
    /// A new version goes out.
    Published,
    /// The rows make no valid content; nodes keep the last good one.
    Refused(Vec<Problem>),
}

/// Shared by the nodes' streams and by everything that writes configuration.
pub struct Publisher {
    db: Db,
    vault: Arc<Vault>,
    max_config_age: Duration,
    poison: AtomicBool,
    wake: Notify,
    history: Mutex<History>,
    current: watch::Sender<Option<Arc<Published>>>,
    refused: Mutex<Option<(Revision, bool)>>,
}

impl Publisher {
    /// Publishes nothing yet.
    #[must_use]
    pub fn new(db: Db, vault: Arc<Vault>, max_config_age: Duration, poison: bool) -> Self {
        Self {
            db,
            vault,
            max_config_age,
            poison: AtomicBool::new(poison),
            wake: Notify::new(),
            history: Mutex::default(),
            current: watch::Sender::new(None),
            refused: Mutex::default(),
        }
    }

    /// A config write was committed.
    pub fn changed(&self) {
        self.wake.notify_one();
    }

    /// Test hook: from now on every snapshot asks to be refused, or no longer.
    pub fn set_poison(&self, on: bool) {
        self.poison.store(on, Ordering::Release);
        self.changed();
    }

    /// Follows the current content; `None` before the first.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Published>>> {
        self.current.subscribe()
    }

    /// A recent content by its hash.
    #[must_use]
    pub fn find(&self, hash: &str) -> Option<Arc<Published>> {
        lock(&self.history).find(hash).cloned()
    }

    /// Runs until `stop` is true.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(PERIOD) => {}
                changed = stop.changed() => if changed.is_err() { return },
            }
            if let Err(error) = self.publish().await {
                tracing::warn!(%error, "configuration could not be read; nodes keep what they have");
            }
        }
    }

    /// Brings what is published in line with the rows.
    ///
    /// # Errors
    /// The rows could not be read; what was published stays.
    pub async fn publish(&self) -> Result<Outcome, AssembleError> {
        let poison = self.poison.load(Ordering::Acquire);
        if self.is_current(poison).await? {
            return Ok(Outcome::Current);
        }
        let reason = if poison { POISON } else { "" };
        let extra = Extra { max_config_age: self.max_config_age, poison: reason.to_owned() };
        let mut tx = self.db.snapshot().await?;
        let assembled = assemble(&mut tx, &self.vault, &extra, clock::now_micros()).await?;
        tx.commit().await?;
        let problems = validate(&assembled.content);
        if !problems.is_empty() {
            let revision = assembled.revision;
            *lock(&self.refused) = Some((revision, poison));
            let reasons: Vec<String> = problems.iter().map(ToString::to_string).collect();
            tracing::error!(revision = revision.revision, ?reasons, "configuration is not published");
            return Ok(Outcome::Refused(problems));
        }
        *lock(&self.refused) = None;
        let published = Arc::new(Published::new(assembled));
        let mut history = lock(&self.history);
        if history.current().is_some_and(|current| current.version == published.version) {
            return Ok(Outcome::Current);
        }
        history.push(Arc::clone(&published));
        drop(history);
        let version = &published.version;
        tracing::info!(revision = version.revision, hash = version.hash, "configuration published");
        self.current.send_replace(Some(published));
        Ok(Outcome::Published)
    }

    /// Whether the revision was dealt with already.
    async fn is_current(&self, poison: bool) -> Result<bool, StoreError> {
        let revision = revisions::current(&mut *self.db.read().await?).await?;
        if *lock(&self.refused) == Some((revision, poison)) {
            return Ok(true);
        }
        let current = self.current.borrow();
        let Some(current) = current.as_ref() else { return Ok(false) };
        let told = Revision { generation: current.version.generation, revision: current.version.revision };
        Ok(told == revision && poison == current.poisoned())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
