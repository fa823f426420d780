//! What an exchange used, made durable and delivered.
//!
//! Invariant: once `Spool::append_open` has returned, the exchange shows up in
//! the control plane exactly once, whichever process dies when: as its SETTLE,
//! or as `indeterminate`. Positions are gap-free per (node, epoch, shard).
//! Deliberately absent: prices, quotas and rollups (the control plane's), and
//! any queue in memory: the shipper reads the same files a successor would.

pub mod backoff;
mod fold;
pub mod record;
pub mod shipment;
pub mod shipper;
#[cfg(test)]
mod shipper_tests;
pub mod spool;

pub use backoff::Backoff;
pub use record::{AttemptRecord, ChargeRecord, OpenRecord, SettleRecord};
pub use shipper::{Shipper, ShipperHandle};
pub use spool::{Spool, SpoolError, SpoolOptions, SpoolStats, SpoolTicket};
