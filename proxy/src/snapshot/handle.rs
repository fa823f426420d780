//! The current snapshot, swapped hot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use super::model::Snapshot;

/// Shared by everything that reads configuration.
#[derive(Debug, Default)]
pub struct Handle {
    current: ArcSwapOption<Snapshot>,
    swaps: AtomicU64,
}

impl Handle {
    /// The snapshot now; `None` until the first one came.
    #[must_use]
    pub fn load(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// Makes `snapshot` the current one for every exchange that begins now.
    pub fn swap(&self, snapshot: Arc<Snapshot>) {
        self.current.store(Some(snapshot));
        self.swaps.fetch_add(1, Ordering::Release);
    }

    /// How often it was swapped: a cheap way to notice that something changed.
    #[must_use]
    pub fn swaps(&self) -> u64 {
        self.swaps.load(Ordering::Acquire)
    }
}
