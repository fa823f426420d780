//! One batch of a shard: what is sent, and what its answer means. Without the
//! network; `shipper` has that.

use clawgate_shared::mutant::{self, Mutant};

use super::fold::fold;
use super::spool::{Batch, ShardLog, SpoolError};

/// The records that are to be sent next, at most so many and so many bytes;
/// empty when there are none. Blocks on the disk.
///
/// # Errors
/// As [`ShardLog::read`].
pub fn next(log: &ShardLog, max_records: usize, max_bytes: usize) -> Result<Batch, SpoolError> {
    let mut batch = log.read(max_records, max_bytes)?;
    fold(&mut batch.records);
    Ok(batch)
}

/// The control plane has everything below `next`, after it was sent the
/// positions `first` up to `end`. Says whether that got any further. Blocks on
/// the disk.
///
/// # Errors
/// As [`ShardLog::acknowledge`].
pub fn answered(log: &ShardLog, (first, end): (u64, u64), next: u64) -> Result<bool, SpoolError> {
    log.acknowledge(if mutant::is(Mutant::AnswerIgnored) { end } else { next })?;
    Ok(next != first)
}
