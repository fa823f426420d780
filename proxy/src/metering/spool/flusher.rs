//! The thread that syncs: sleeps until something was appended, waits a moment
//! for company, syncs every shard that has something new, tells the shipper.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Shared;
use super::shard::Shard;

/// How long appends are gathered for one sync at least: what a power failure
/// can take. The death of this process takes nothing.
const GATHER: Duration = Duration::from_millis(5);
/// On a disk that is slow to sync they are gathered so many times as long as
/// the last sync took, so that the disk and the processor are left to traffic.
const GATHER_PER_SYNC: u32 = 24;
/// And never longer than this.
const MAX_GATHER: Duration = Duration::from_millis(50);
/// It looks so often even when nobody woke it.
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Flusher {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(super) fn start(shards: &Arc<[Arc<Shard>]>, shared: &Arc<Shared>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (on_shards, on_shared, on_stop) = (shards.clone(), shared.clone(), stop.clone());
        let run = move || {
            let mut gather = GATHER;
            while !on_stop.load(Ordering::Acquire) {
                if on_shared.dirty.load(Ordering::Acquire) {
                    thread::sleep(gather);
                    // Cleared before the shards are looked at: what comes
                    // later sets it again.
                    on_shared.dirty.swap(false, Ordering::AcqRel);
                    let began = Instant::now();
                    sync_all(&on_shards, &on_shared);
                    gather = (began.elapsed() * GATHER_PER_SYNC).clamp(GATHER, MAX_GATHER);
                } else {
                    thread::park_timeout(PERIOD);
                    on_shared.dirty.store(true, Ordering::Release);
                }
            }
        };
        let thread = thread::Builder::new().name("spool-sync".to_owned()).spawn(run)?;
        Ok(Self { shared: shared.clone(), stop, thread: Some(thread) })
    }

    /// After an append. Wakes the thread only when it may be asleep.
    pub(super) fn wake(&self) {
        if !self.shared.dirty.swap(true, Ordering::AcqRel)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the usage spool's sync thread panicked");
            }
        }
    }
}

pub(super) fn sync_all(shards: &[Arc<Shard>], shared: &Shared) {
    shared.measure();
    if shared.failing.load(Ordering::Relaxed) && shards.iter().all(|shard| shard.probe()) {
        // Nobody else would find out: a node that is not ready gets no requests.
        shared.failing.store(false, Ordering::Relaxed);
    }
    // All of them, not only up to the first with something new.
    let news = shards.iter().filter(|shard| shard.sync()).count();
    if news > 0 {
        shared.synced.notify_one();
    }
}
