//! What fails when. Pure.

use std::collections::BTreeMap;
use std::io;

use nix::errno::Errno;

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Making a directory.
    MakeDir,
    /// Listing a directory.
    List,
    /// Opening or making a file.
    Open,
    /// Removing a file or a directory.
    Remove,
    /// Renaming.
    Rename,
    /// Reading from a file, its length and time too.
    Read,
    /// Writing to a file.
    Write,
    /// Cutting a file.
    SetLen,
    /// Making a file durable.
    Sync,
    /// Making names durable.
    SyncDir,
    /// Taking a lock.
    Lock,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// `EIO`.
    Io,
    /// `ENOSPC`.
    NoSpace,
}

impl DiskError {
    pub(super) fn error(self) -> io::Error {
        let number = match self {
            Self::Io => Errno::EIO,
            Self::NoSpace => Errno::ENOSPC,
        };
        io::Error::from_raw_os_error(number as i32)
    }
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    planned: Vec<Planned>,
    chances: BTreeMap<Operation, (DiskError, u32)>,
    tear: Option<(usize, DiskError)>,
    pub(super) short_reads: bool,
}

#[derive(Debug)]
struct Planned {
    operation: Operation,
    error: DiskError,
    skip: u32,
    times: u32,
}

impl Faults {
    pub(super) fn plan(&mut self, operation: Operation, error: DiskError, skip: u32, times: u32) {
        self.planned.push(Planned { operation, error, skip, times });
    }

    pub(super) fn chance(&mut self, operation: Operation, error: DiskError, per_million: u32) {
        self.chances.insert(operation, (error, per_million));
    }

    pub(super) fn tear(&mut self, bytes: usize, error: DiskError) {
        self.tear = Some((bytes, error));
    }

    pub(super) fn take_tear(&mut self) -> Option<(usize, DiskError)> {
        self.tear.take()
    }

    pub(super) fn pass(&mut self, operation: Operation, random: &mut Random) -> io::Result<()> {
        self.planned.retain(|plan| plan.times > 0);
        if let Some(plan) = self.planned.iter_mut().find(|plan| plan.operation == operation) {
            if plan.skip > 0 {
                plan.skip -= 1;
            } else {
                plan.times = if plan.times == u32::MAX { u32::MAX } else { plan.times - 1 };
                return Err(plan.error.error());
            }
        }
        match self.chances.get(&operation) {
            Some((error, per_million)) if random.below(1_000_000) < u64::from(*per_million) => Err(error.error()),
            _ => Ok(()),
        }
    }
}

/// A small generator (xorshift); the same numbers for the same seed.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        // Spread, so that neighbouring seeds have nothing in common; never 0.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`; 0 when that is 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The high bits are the better ones.
        (self.0 >> 11).checked_rem(limit).unwrap_or(0)
    }

    pub(super) fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}
