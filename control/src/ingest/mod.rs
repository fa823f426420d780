//! Usage records into events, rollups, charges of quotas and cursors.
//!
//! Invariant: a batch takes effect in one transaction or not at all, and each
//! position of a shard takes effect once, however often it is sent. The answer
//! is given after the commit.
//! Deliberately absent: the wire (`grpc`), finding prices (`prices`), lending quotas
//! (`quota`).

pub mod accept;
pub mod charges;
pub mod decode;
pub mod fence;
pub mod plan;
pub mod rollup;

#[cfg(test)]
mod tests;

pub use accept::{Accepted, Batch, IngestError, accept, add_events};
