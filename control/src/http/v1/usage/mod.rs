//! Usage: sums, trends, breakdowns and single exchanges.
//!
//! Invariant: a day is a day of the tenant's calendar; sums over whole hours
//! come from the rollups, everything else from the events.

pub mod export;
pub mod handlers;
pub mod logs;
pub mod overview;
pub mod sums;
pub mod views;
pub mod window;
