//! The durable log of usage records.
//!
//! ```text
//! <dir>/epoch                      last epoch number, +1 at every start
//! <dir>/epochs/<epoch>/lock        held (flock) by the writer or its successor
//!                      0003-00000000000000000512.seg   shard 3 from position 512
//!                      0003-00000000000000000512.seg.tail   its end, until that is synced
//!                      0003.cursor                     acknowledged below this
//! ```
//!
//! Invariant: within one (epoch, shard) positions start at 0 and have no hole;
//! a position that cannot be read back is delivered as `LostRange`, so damage
//! is seen and never stops the log. A record is whole or absent: a failed write
//! leaves nothing behind. Only records that were synced are given out.
//! Deliberately absent: knowledge of what a record means, the network, and any
//! system call outside `disk`: on a disk in memory the same code is driven call
//! by call, without a thread, for tests and simulations.

pub mod disk;
mod epoch;
mod flusher;
mod format;
mod log;
mod mapped;
pub mod memory_disk;
mod reader;
mod recover;
mod shard;
mod tail;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clawgate_shared::proto::node::{EpochEnd, UsageRecord, usage_record};
use prost::Message as _;
use tokio::sync::Notify;

use super::record::{OpenRecord, SettleRecord};
use disk::{Clock, Disk, RealClock, RealDisk};
use epoch::EpochDir;
use flusher::{Flusher, sync_all};
pub use format::MAX_RECORD;
pub use log::{Batch, ShardLog};
use shard::{Shard, ShardContext};

/// How a spool is laid out and how much it may take.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// Logs that are appended to side by side; a few threads share one well.
    pub shards: u32,
    /// Bytes of records on disk over all epochs, without the half of a
    /// megabyte that each shard may have in reserve; less when the disk has less
    /// left. Opens and refusals are refused a little earlier, so that exchanges
    /// that have begun can still settle.
    pub limit_bytes: u64,
    /// A new file is begun after so many bytes.
    pub segment_bytes: u64,
}

impl Default for SpoolOptions {
    /// 1 GiB in segments of 16 MiB, one shard per available core.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { shards: u32::try_from(cores).unwrap_or(1), limit_bytes: 1 << 30, segment_bytes: 16 << 20 }
    }
}

/// Most shards of one epoch.
const MAX_SHARDS: u32 = 256;
/// The part of the limit that only settles may use is an eighth of it, and not
/// more than this: room for 64 thousand exchanges in flight.
const MAX_RESERVE: u64 = 64 << 20;
/// What an open may take; one with long names takes more.
const USUAL_OPEN: u64 = 1024;
/// A spool that was full has room again when this part of it is free.
const ROOM_AGAIN: u64 = 64;
/// Segments are never smaller.
const MIN_SEGMENT: u64 = 4096;

/// Why the spool did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The byte limit is reached; nothing was written.
    #[error("the usage spool is full")]
    Full,
    /// After [`Spool::close`].
    #[error("the usage spool is closed")]
    Closed,
    /// The system refused; nothing was written.
    #[error("usage spool: {action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Files written by a newer release; they are left alone.
    #[error("usage spool epoch {epoch} has format version {version}, newer than this release")]
    NewerFormat {
        /// Its directory.
        epoch: u64,
        /// In the file.
        version: u32,
    },
    /// The control plane expects a position that was never written: another
    /// process has used this epoch.
    #[error("the control plane expects position {expected}, the log ends at {end}")]
    Ahead {
        /// In the control plane's answer.
        expected: u64,
        /// First position that is not written.
        end: u64,
    },
}

impl SpoolError {
    fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}

/// Which shard took an exchange's OPEN; its SETTLE goes there too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct SpoolTicket {
    shard: u32,
}

/// The state of the spool, for metrics and the node's status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolStats {
    /// Records that the control plane has not acknowledged.
    pub records: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Age of the oldest record that is not acknowledged, in milliseconds.
    pub oldest_millis: u64,
    /// Positions delivered as lost since the start.
    pub lost: u64,
    /// Failed syncs since the start.
    pub sync_failures: u64,
    /// Records that were not written because the disk failed or was full, since
    /// the start.
    pub write_failures: u64,
}

/// What all shards of a spool share.
#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    root: PathBuf,
    limit_bytes: u64,
    /// What the spool has and what the disk has left, when it was last looked.
    room: AtomicU64,
    /// The last write failed.
    failing: AtomicBool,
    /// The last open or refusal found no room.
    full: AtomicBool,
    write_failures: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    sync_failures: AtomicU64,
    /// Set by appends, cleared by the flusher.
    dirty: AtomicBool,
    /// Rung by the flusher when there is something new to ship.
    synced: Notify,
}

impl Shared {
    fn new(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, root: &Path, limit_bytes: u64) -> Self {
        Self {
            disk,
            clock,
            root: root.to_owned(),
            limit_bytes,
            room: AtomicU64::new(u64::MAX),
            failing: AtomicBool::new(false),
            full: AtomicBool::new(false),
            write_failures: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            sync_failures: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
            synced: Notify::new(),
        }
    }

    /// Looks how much the disk has left.
    fn measure(&self) {
        match self.disk.free(&self.root) {
            Ok(free) => {
                self.room.store(self.bytes.load(Ordering::Relaxed).saturating_add(free), Ordering::Relaxed);
            }
            Err(error) => tracing::debug!(%error, "the disk does not say how much is free"),
        }
    }

    /// Bytes that all epochs may have: what was configured, or what the disk
    /// has, so that a full disk is met as a full spool is, with a reserve for
    /// what has begun.
    fn limit(&self) -> u64 {
        self.limit_bytes.min(self.room.load(Ordering::Relaxed))
    }

    /// What opens and refusals may fill; once they did, some must come free before
    /// there is room again, so that nobody is told now this and now that: disks
    /// count in blocks, and records are smaller.
    fn budget_of_opens(&self) -> u64 {
        let limit = self.limit();
        let budget = limit - (limit / 8).min(MAX_RESERVE);
        if self.full.load(Ordering::Relaxed) { budget - budget / ROOM_AGAIN } else { budget }
    }

    fn note_open(&self, result: &Result<(), SpoolError>) {
        let full = matches!(result, Err(SpoolError::Full));
        if full != self.full.load(Ordering::Relaxed) {
            self.full.store(full, Ordering::Relaxed);
        }
    }

    /// Half full: space is worth more than a few system calls.
    fn is_tight(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.limit() / 2
    }

    fn note_write(&self, done: bool) {
        if !done {
            self.failing.store(true, Ordering::Relaxed);
            self.write_failures.fetch_add(1, Ordering::Relaxed);
        } else if self.failing.load(Ordering::Relaxed) {
            self.failing.store(false, Ordering::Relaxed);
        }
    }
}

/// The spool of one process: its own epoch and those it took over.
#[derive(Debug)]
pub struct Spool {
    root: PathBuf,
    options: SpoolOptions,
    shared: Arc<Shared>,
    shards: Arc<[Arc<Shard>]>,
    own: Mutex<Option<EpochDir>>,
    epoch: u64,
    adopted: Mutex<Vec<recover::Adopted>>,
    /// How often an epoch could not be taken over.
    not_adopted: Mutex<BTreeMap<u64, u32>>,
    /// Absent when whoever drives the spool syncs it.
    flusher: Option<Flusher>,
    /// Without a flusher shards take turns, whichever threads there are.
    turn: AtomicUsize,
}

static NEXT_SLOT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Each thread keeps to one shard, so that workers do not meet.
    static SLOT: Cell<Option<usize>> = const { Cell::new(None) };
}

impl Spool {
    /// Begins a new epoch in `dir`, and starts the thread that syncs. Epochs of
    /// dead processes are left for [`Spool::adopt`].
    ///
    /// # Errors
    /// The directory cannot be made, locked or written.
    pub fn open(dir: &Path, options: SpoolOptions) -> Result<Self, SpoolError> {
        let mut spool = Self::open_on(Arc::new(RealDisk), Arc::new(RealClock::default()), dir, options)?;
        let flusher = Flusher::start(&spool.shards, &spool.shared).map_err(SpoolError::io("start the flusher"))?;
        spool.flusher = Some(flusher);
        Ok(spool)
    }

    /// The same on any disk and clock, without a thread: nothing is synced, and
    /// so nothing is given out, before [`Spool::sync`] is called, and exchanges
    /// go to the shards in turn. With the same calls on the same disk it does
    /// the same.
    ///
    /// # Errors
    /// As [`Spool::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        options: SpoolOptions,
    ) -> Result<Self, SpoolError> {
        let mut options = options;
        options.shards = options.shards.clamp(1, MAX_SHARDS);
        let shared = Arc::new(Shared::new(disk, clock, dir, options.limit_bytes));
        let own = EpochDir::create(&shared, dir)?;
        shared.measure();
        let share = shared.limit() / (4 * u64::from(options.shards));
        options.segment_bytes = options.segment_bytes.min(share).max(MIN_SEGMENT);
        let epoch = own.number();
        let shards = (0..options.shards)
            .map(|index| {
                let context = ShardContext {
                    dir: own.path().to_owned(),
                    epoch,
                    index,
                    segment_bytes: options.segment_bytes,
                    shared: shared.clone(),
                };
                Shard::create(context).map(Arc::new)
            })
            .collect::<Result<Arc<[_]>, _>>()?;
        own.sync(&*shared.disk)?;
        Ok(Self {
            root: dir.to_owned(),
            options,
            shared,
            shards,
            own: Mutex::new(Some(own)),
            epoch,
            adopted: Mutex::new(Vec::new()),
            not_adopted: Mutex::default(),
            flusher: None,
            turn: AtomicUsize::new(0),
        })
    }

    /// The number of this process's own epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Records that an exchange begins or, with the ticket of its first OPEN, what
    /// it holds from now on in place of what that said. When this returns, the
    /// record survives the death of this process. A copy to the page cache, no
    /// disk wait.
    ///
    /// # Errors
    /// [`SpoolError::Full`] before the limit, [`SpoolError::Closed`], or the
    /// system's refusal. Nothing was written then, and nothing may be sent
    /// upstream that the first OPEN does not cover.
    pub fn append_open(&self, first: Option<SpoolTicket>, record: &OpenRecord<'_>) -> Result<SpoolTicket, SpoolError> {
        let (index, shard) = match first {
            Some(SpoolTicket { shard }) => (shard, self.shard(shard)?),
            None => self.own_shard(),
        };
        self.append_if_room(shard, |out| record.encode(out))?;
        Ok(SpoolTicket { shard: index })
    }

    /// Records how an exchange ended. May use the reserve.
    ///
    /// # Errors
    /// As [`Self::append_open`]; the exchange will count as `indeterminate`.
    pub fn append_settle(&self, ticket: SpoolTicket, record: &SettleRecord<'_>) -> Result<(), SpoolError> {
        let shard = self.shard(ticket.shard)?;
        shard.append(self.options.limit_bytes, |out| record.encode(out))?;
        self.wake();
        Ok(())
    }

    /// Records a refusal: a settle without an open. Never uses the reserve.
    ///
    /// # Errors
    /// As [`Self::append_open`]; the refusal is then not counted.
    pub fn append_refusal(&self, record: &SettleRecord<'_>) -> Result<(), SpoolError> {
        let (_, shard) = self.own_shard();
        self.append_if_room(shard, |out| record.encode(out))
    }

    fn append_if_room(&self, shard: &Shard, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), SpoolError> {
        let result = shard.append(self.shared.budget_of_opens(), encode);
        self.shared.note_open(&result);
        result?;
        self.wake();
        Ok(())
    }

    /// Whether an open would be refused now, because there is no room or because
    /// the disk fails; for readiness.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let failing = self.shared.failing.load(Ordering::Relaxed);
        let bytes = self.shared.bytes.load(Ordering::Relaxed);
        failing || bytes.saturating_add(USUAL_OPEN) > self.shared.budget_of_opens()
    }

    /// Takes over the epochs of processes that are gone. Blocks on the disk;
    /// idempotent; call it at start and now and then: what cannot be read after
    /// some tries counts as damaged. Returns how many.
    ///
    /// # Errors
    /// The first epoch that could not be taken over; the others were.
    pub fn adopt(&self) -> Result<usize, SpoolError> {
        let (found, result) = recover::adopt_all(&self.root, &self.options, &self.shared, &mut lock(&self.not_adopted));
        let count = found.len();
        lock(&self.adopted).extend(found);
        result.map(|()| count)
    }

    /// Every shard with records to ship, own and taken over, oldest epoch
    /// first.
    #[must_use]
    pub fn pending(&self) -> Vec<ShardLog> {
        let mut logs = Vec::new();
        for epoch in lock(&self.adopted).iter() {
            logs.extend(epoch.logs().filter(ShardLog::is_pending));
        }
        let own = self.shards.iter().map(|shard| ShardLog::own(self.epoch, shard));
        logs.extend(own.filter(ShardLog::is_pending));
        logs
    }

    /// Removes the epochs that were taken over and are wholly acknowledged, and
    /// the own one once it is closed.
    ///
    /// # Errors
    /// A directory could not be removed; it is tried again.
    pub fn reap(&self) -> Result<(), SpoolError> {
        let mut result = Ok(());
        lock(&self.adopted).retain(|epoch| match epoch.remove_if_done() {
            Ok(done) => !done,
            Err(error) => {
                result = Err(error);
                true
            }
        });
        let mut own = lock(&self.own);
        if self.shards.iter().all(|shard| shard.is_ended_and_acked())
            && let Some(dir) = own.as_ref()
        {
            dir.remove(&*self.shared.disk)?;
            self.shards.iter().for_each(|shard| shard.forget());
            *own = None;
        }
        result
    }

    /// Ends the own epoch: nothing is appended any more, everything is synced.
    /// What is not shipped before the process ends is left to a successor.
    /// Blocks on the disk; idempotent.
    pub fn close(&self) {
        for shard in self.shards.iter() {
            if let Err(error) = shard.close(&end_record(false, count(&self.shards))) {
                tracing::warn!(%error, shard = shard.index(), "the end of a usage shard was not written");
            }
        }
        self.sync();
    }

    /// Completes when appended records were synced since the last call.
    pub async fn wait_synced(&self) {
        self.shared.synced.notified().await;
    }

    /// Syncs what was appended so far. Blocks on the disk.
    pub fn sync(&self) {
        sync_all(&self.shards, &self.shared);
    }

    /// The state now.
    #[must_use]
    pub fn stats(&self) -> SpoolStats {
        let mut stats = SpoolStats {
            bytes: self.shared.bytes.load(Ordering::Relaxed),
            lost: self.shared.lost.load(Ordering::Relaxed),
            sync_failures: self.shared.sync_failures.load(Ordering::Relaxed),
            write_failures: self.shared.write_failures.load(Ordering::Relaxed),
            ..SpoolStats::default()
        };
        let mut oldest = Duration::ZERO;
        let mut add = |shard: &Shard| {
            let (records, age) = shard.backlog();
            stats.records += records;
            oldest = oldest.max(age);
        };
        self.shards.iter().for_each(|shard| add(shard));
        lock(&self.adopted).iter().flat_map(recover::Adopted::shards).for_each(add);
        stats.oldest_millis = u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX);
        stats
    }

    fn wake(&self) {
        if let Some(flusher) = &self.flusher {
            flusher.wake();
        }
    }

    fn shard(&self, index: u32) -> Result<&Shard, SpoolError> {
        self.shards.get(index as usize).map(|shard| &**shard).ok_or(SpoolError::Closed)
    }

    fn own_shard(&self) -> (u32, &Shard) {
        let slot = if self.flusher.is_none() {
            self.turn.fetch_add(1, Ordering::Relaxed)
        } else {
            SLOT.get().unwrap_or_else(|| {
                let slot = NEXT_SLOT.fetch_add(1, Ordering::Relaxed);
                SLOT.set(Some(slot));
                slot
            })
        };
        let index = slot % self.shards.len();
        (u32::try_from(index).unwrap_or(0), &self.shards[index])
    }
}

/// The encoded record that ends one of an epoch's shards.
fn end_record(abandoned: bool, shards: u32) -> Vec<u8> {
    UsageRecord { kind: Some(usage_record::Kind::End(EpochEnd { abandoned, shards })) }.encode_to_vec()
}

/// How many shards an epoch has.
fn count<T>(shards: &[T]) -> u32 {
    u32::try_from(shards.len()).unwrap_or(u32::MAX)
}

/// A poisoned lock is taken all the same: every critical section leaves its
/// data whole before it can fail.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
