//! Which provider keys may serve a bot, and which of them is next.
//!
//! Invariant: a key is a candidate only if it belongs to the bot's tenant, to
//! no project or to the bot's, to the vendor asked for, and carries every tag
//! the bot requires. There is no fallback to other keys.
//! Deliberately absent: connections, health probes, anything that waits.

mod key;
mod pick;
mod pool;

pub use clawgate_shared::glob::Glob;
pub use key::{Credential, Key};
pub use pick::Turns;
pub use pool::{Ordered, Pool, required_tags};
