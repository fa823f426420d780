//! What is still missing before the control plane can do its work.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::store::Db;

/// How long the database may take to answer a probe.
const PROBE: Duration = Duration::from_secs(2);

/// Filled while starting, then watched.
#[derive(Debug, Default)]
pub struct Readiness {
    starting: Mutex<BTreeSet<&'static str>>,
    db: OnceLock<Db>,
}

impl Readiness {
    /// Everything in `parts` is pending.
    #[must_use]
    pub fn new(parts: &[&'static str]) -> Self {
        Self { starting: Mutex::new(parts.iter().copied().collect()), db: OnceLock::new() }
    }

    /// One part is there.
    pub fn done(&self, part: &'static str) {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// From now on the database is probed.
    pub fn watch(&self, db: Db) {
        let _ = self.db.set(db);
    }

    /// What is pending; empty when ready.
    pub async fn pending(&self) -> Vec<&'static str> {
        let mut pending: Vec<&'static str> =
            self.starting.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        if let Some(db) = self.db.get()
            && !matches!(tokio::time::timeout(PROBE, db.ping()).await, Ok(Ok(())))
        {
            pending.push("database");
        }
        pending
    }
}
