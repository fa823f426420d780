//! A shard as the shipper sees it: something to read from and to acknowledge.

use std::sync::Arc;

use super::shard::Shard;
use super::{SpoolError, end_record};

/// Records with consecutive positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Position of the first record.
    pub first_position: u64,
    /// Encoded `UsageRecord`s.
    pub records: Vec<Vec<u8>>,
}

impl Batch {
    /// The position behind the last record.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        self.first_position + self.records.len() as u64
    }
}

/// The log of one (epoch, shard), own or taken over.
#[derive(Clone, Debug)]
pub struct ShardLog {
    epoch: u64,
    /// Shards of the epoch, when it was taken over.
    adopted: Option<u32>,
    shard: Arc<Shard>,
}

impl ShardLog {
    pub(super) fn own(epoch: u64, shard: &Arc<Shard>) -> Self {
        Self { epoch, adopted: None, shard: shard.clone() }
    }

    pub(super) fn adopted(epoch: u64, shard: &Arc<Shard>, shards: u32) -> Self {
        Self { adopted: Some(shards), ..Self::own(epoch, shard) }
    }

    /// Its epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Its number within the epoch.
    #[must_use]
    pub fn shard(&self) -> u32 {
        self.shard.index()
    }

    /// Whether something can be read.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.shard.is_pending()
    }

    /// The next records that are not acknowledged. Blocks on the disk.
    ///
    /// # Errors
    /// The files cannot be read at all; damage is no error.
    pub fn read(&self, max_records: usize, max_bytes: usize) -> Result<Batch, SpoolError> {
        self.shard.read(max_records, max_bytes)
    }

    /// The control plane expects `position` next. May go back as well as
    /// forward. Frees disk space; blocks on the disk.
    ///
    /// # Errors
    /// [`SpoolError::Ahead`] when that lies beyond the end of a log that is
    /// still written.
    pub fn acknowledge(&self, position: u64) -> Result<(), SpoolError> {
        match (self.shard.ack(position), self.adopted) {
            (Err(SpoolError::Ahead { expected, .. }), Some(shards)) => {
                self.shard.end_at(expected, &end_record(true, shards))
            }
            (result, _) => result,
        }
    }
}
