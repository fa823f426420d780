//! The configuration as one immutable value.
//!
//! Invariant: a snapshot is complete when it becomes visible and never changes
//! afterwards; an exchange loads it once. Building one is total: bad input
//! gives reasons, never a panic, and the old snapshot stays.
//! Deliberately absent: health, counters and buckets (they live beside it, by
//! id) and everything that does IO except `cache` and `trial`.

pub mod cache;
mod compile;
mod handle;
mod model;
mod states;
mod trial;

pub use compile::{Inputs, compile, quota_rule};
pub use handle::Handle;
pub use model::{Bot, BotState, Snapshot, Tenant, TokenEntry};
pub use states::Hints;
pub use trial::Trials;
