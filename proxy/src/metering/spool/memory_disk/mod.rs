//! A disk in memory that fails on purpose, and the clock that goes with it.
//!
//! Invariant: what happens depends on the seed and on the order of the calls,
//! and on nothing else. What was not synced is gone after a power cut, per file
//! and per name; the death of a process loses nothing but its locks.
//! Deliberately absent: permissions, links, and threads that wait for each
//! other. A sync that failed may be repeated with success here, which Linux
//! does not promise.

mod faults;
mod file;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::disk::{Clock, Disk, DiskFile, DiskLock, OpenMode};
use super::lock;
pub use faults::{DiskError, Operation};
use faults::{Faults, Random};
use file::{Data, Handle};
pub use tree::Survival;
use tree::Tree;

/// Unix time at which every such disk begins, in seconds.
const BEGIN: i64 = 1_700_000_000;

/// The disk as one process sees it. Clones are the same process.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    world: Arc<Mutex<World>>,
    process: u64,
}

#[derive(Debug)]
struct World {
    tree: Tree,
    faults: Faults,
    random: Random,
    /// Bytes of all files together; more is `ENOSPC`.
    capacity: Option<u64>,
    monotonic: Duration,
    unix_micros: i64,
    last_process: u64,
    dead: BTreeSet<u64>,
    /// Which process holds the lock of that name.
    locks: BTreeMap<PathBuf, (u64, u64)>,
    last_lock: u64,
}

impl World {
    /// Whether `process` may do this now.
    fn enter(&mut self, process: u64, operation: Operation) -> io::Result<()> {
        if self.dead.contains(&process) {
            return Err(io::Error::other("this process is dead"));
        }
        self.faults.pass(operation, &mut self.random)
    }

    fn end_process(&mut self, process: u64) {
        self.dead.insert(process);
        self.locks.retain(|_, (owner, _)| *owner != process);
    }
}

impl MemoryDisk {
    /// An empty disk with one process.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let world = World {
            tree: Tree::default(),
            faults: Faults::default(),
            random: Random::new(seed),
            capacity: None,
            monotonic: Duration::ZERO,
            unix_micros: BEGIN * 1_000_000,
            last_process: 0,
            dead: BTreeSet::new(),
            locks: BTreeMap::new(),
            last_lock: 0,
        };
        Self { world: Arc::new(Mutex::new(world)), process: 0 }
    }

    /// The same disk as another process sees it.
    #[must_use]
    pub fn process(&self) -> Self {
        let mut world = lock(&self.world);
        world.last_process += 1;
        Self { world: self.world.clone(), process: world.last_process }
    }

    /// This process dies: its locks are free, its open files fail, and all it
    /// wrote is there.
    pub fn kill(&self) {
        lock(&self.world).end_process(self.process);
    }

    /// All processes die, and what was not synced is lost.
    pub fn power_cut(&self, survival: Survival) {
        let world = &mut *lock(&self.world);
        for process in 0..=world.last_process {
            world.end_process(process);
        }
        world.tree.power_cut(survival, &mut world.random);
    }

    /// The next `times` operations of that kind fail, after `skip` that do not.
    pub fn fail(&self, operation: Operation, error: DiskError, skip: u32, times: u32) {
        lock(&self.world).faults.plan(operation, error, skip, times);
    }

    /// Every operation of that kind fails with this probability, in millionths.
    pub fn fail_sometimes(&self, operation: Operation, error: DiskError, per_million: u32) {
        lock(&self.world).faults.chance(operation, error, per_million);
    }

    /// The next write puts down at most so many bytes and fails all the same.
    pub fn tear_next_write(&self, bytes: usize, error: DiskError) {
        lock(&self.world).faults.tear(bytes, error);
    }

    /// Reads return fewer bytes than they could.
    pub fn short_reads(&self, on: bool) {
        lock(&self.world).faults.short_reads = on;
    }

    /// Nothing fails any more, and reads are whole.
    pub fn heal(&self) {
        lock(&self.world).faults = Faults::default();
    }

    /// Bytes of all files together; a write beyond them is cut and fails.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        lock(&self.world).capacity = bytes;
    }

    /// Time goes on.
    pub fn advance(&self, by: Duration) {
        let mut world = lock(&self.world);
        world.monotonic += by;
        world.unix_micros = world.unix_micros.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX));
    }

    /// All files, in the order of their names.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        lock(&self.world).tree.files().into_iter().map(|(path, _)| path).collect()
    }

    /// What is in a file; nothing fails here.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let file = lock(&self.world).tree.file(path).ok()?;
        Some(lock(&file).bytes().to_vec())
    }

    /// Puts a file there behind everybody's back, durable at once.
    ///
    /// # Errors
    /// Its directory is not there.
    pub fn plant(&self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        lock(&self.world).tree.plant(path, bytes)
    }

    /// A copy on which nothing fails and nothing is locked.
    #[must_use]
    pub fn copy(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        {
            let (from, mut to) = (lock(&self.world), lock(&copy.world));
            to.tree = from.tree.copy();
            (to.monotonic, to.unix_micros) = (from.monotonic, from.unix_micros);
        }
        copy
    }

    fn enter(&self, operation: Operation) -> io::Result<std::sync::MutexGuard<'_, World>> {
        let mut world = lock(&self.world);
        world.enter(self.process, operation)?;
        Ok(world)
    }
}

impl Clock for MemoryDisk {
    fn monotonic(&self) -> Duration {
        lock(&self.world).monotonic
    }

    fn unix_micros(&self) -> i64 {
        lock(&self.world).unix_micros
    }
}

impl Disk for MemoryDisk {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.enter(Operation::MakeDir)?.tree.make_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.enter(Operation::List)?.tree.list(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let data = self.enter(Operation::Open)?.tree.open(path, mode)?;
        Ok(Arc::new(Handle { disk: self.clone(), data }))
    }

    fn exists(&self, path: &Path) -> bool {
        lock(&self.world).tree.exists(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.enter(Operation::Remove)?.tree.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.enter(Operation::Remove)?.tree.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.enter(Operation::Rename)?;
        world.tree.rename(from, to)?;
        // A lock is on the file, whatever its directory is called.
        let moved: Vec<PathBuf> = world.locks.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            if let (Some(held), Ok(rest)) = (world.locks.remove(&path), path.strip_prefix(from)) {
                world.locks.insert(to.join(rest), held);
            }
        }
        Ok(())
    }

    fn free(&self, _: &Path) -> io::Result<u64> {
        let world = lock(&self.world);
        Ok(world.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(world.tree.used())))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.enter(Operation::SyncDir)?.tree.sync_dir(path)
    }

    fn lock(&self, path: &Path, wait: bool) -> io::Result<Option<Box<dyn DiskLock>>> {
        loop {
            let mut world = self.enter(Operation::Lock)?;
            world.tree.open(path, OpenMode::OrNew)?;
            if !world.locks.contains_key(path) {
                world.last_lock += 1;
                let number = world.last_lock;
                world.locks.insert(path.to_owned(), (self.process, number));
                return Ok(Some(Box::new(Held { disk: self.clone(), number })));
            }
            if !wait {
                return Ok(None);
            }
            drop(world);
            std::thread::yield_now();
        }
    }
}

/// A lock; it knows its number and not its name, which may change.
#[derive(Debug)]
struct Held {
    disk: MemoryDisk,
    number: u64,
}

impl DiskLock for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.disk.world).locks.retain(|_, (_, number)| *number != self.number);
    }
}

impl Handle {
    fn data(&self) -> std::sync::MutexGuard<'_, Data> {
        lock(&self.data)
    }
}

#[cfg(test)]
mod tests;
