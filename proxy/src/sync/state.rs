//! How the node stands with the control plane, for readiness, metrics and the
//! age check of every exchange: reads are single atomic loads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use clawgate_shared::proto::node::Version;
use tokio::sync::watch;

/// Shared by the client, which writes it, and everyone who wants to know.
#[derive(Debug)]
pub struct SyncState {
    connected: AtomicBool,
    last_contact: AtomicI64,
    nacks: AtomicU64,
    version: ArcSwapOption<Version>,
    changes: watch::Sender<u64>,
}

impl Default for SyncState {
    fn default() -> Self {
        Self {
            connected: AtomicBool::new(false),
            last_contact: AtomicI64::new(0),
            nacks: AtomicU64::new(0),
            version: ArcSwapOption::empty(),
            changes: watch::channel(0).0,
        }
    }
}

impl SyncState {
    /// Whether the stream is open.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// When the control plane was last heard of, in unix microseconds; 0:
    /// never. Survives restarts. Goes up every few seconds while connected.
    #[must_use]
    pub fn last_contact_micros(&self) -> i64 {
        self.last_contact.load(Ordering::Acquire)
    }

    /// The version that is served; `None` when there is none.
    #[must_use]
    pub fn version(&self) -> Option<Arc<Version>> {
        self.version.load_full()
    }

    /// Refused updates since the process started.
    #[must_use]
    pub fn nacks(&self) -> u64 {
        self.nacks.load(Ordering::Relaxed)
    }

    /// Seconds during which the configuration may have changed unseen: 0 while
    /// connected; `None` when the control plane was never heard of.
    #[must_use]
    pub fn config_age_seconds(&self, now_micros: i64) -> Option<u64> {
        if self.connected() {
            return Some(0);
        }
        let last = self.last_contact_micros();
        (last > 0).then(|| u64::try_from(now_micros.saturating_sub(last) / 1_000_000).unwrap_or(0))
    }

    /// Changes its value whenever connection or version do.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Release);
        self.changed();
    }

    pub(super) fn set_contact(&self, micros: i64) {
        self.last_contact.fetch_max(micros, Ordering::AcqRel);
    }

    pub(super) fn set_version(&self, version: Version) {
        self.version.store(Some(Arc::new(version)));
        self.changed();
    }

    pub(super) fn count_nack(&self) {
        self.nacks.fetch_add(1, Ordering::Relaxed);
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_counts_from_the_last_contact_and_only_when_cut_off() {
        let state = SyncState::default();
        assert_eq!(state.config_age_seconds(10_000_000), None);
        state.set_contact(4_000_000);
        assert_eq!(state.config_age_seconds(10_000_000), Some(6));
        state.set_contact(1_000_000);
        assert_eq!(state.config_age_seconds(3_000_000), Some(0), "a clock that went back is no age");
        state.set_connected(true);
        assert_eq!(state.config_age_seconds(10_000_000), Some(0));
    }
}
