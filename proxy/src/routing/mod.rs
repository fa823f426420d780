//! Which provider keys may serve a bot, and which of them is next.
//!
//! Invariant: a key is a candidate only if it belongs to the bot's tenant, to
//! no project or to the bot's, to the vendor asked for, and carries every tag
//! the bot requires. There is no fallback to other keys. A key that is invalid,
//! exhausted or cooling is left out, whoever asks.
//! Deliberately absent: connections, probes, anything that waits.

pub mod health;
mod key;
pub mod names;
mod pick;
mod pool;
mod strategy;
mod weights;

pub use clawgate_shared::glob::Glob;
pub use health::{Health, Healths, News, Report, Signal, Standing, Verdict};
pub use key::{Credential, Key, Probe};
pub use names::{Names, Place, Reading};
pub use pick::Turns;
pub use pool::{Ask, NoneLeft, Ordered, Pool, required_tags};
pub use strategy::Strategy;
