//! Where every provider key stands with its vendor, as far as this node knows.
//!
//! Invariant: only what speaks of the key changes its state: a rate limit cools
//! one model of it and for a bounded time, a limit that is used up lets other keys
//! go first, a refused credential makes it suspect until a probe decides, an
//! empty account exhausts it. Whatever a request
//! brings upon itself (403, another 4xx, 5xx, a broken connection) changes
//! nothing, so that no bot can take a key from others. State lives beside the
//! snapshots, and goes on in the next process; a key with another secret or base starts afresh.
//! Deliberately absent: clocks (time is an argument), sockets, and sending the
//! probes that are asked for here (`upstream`).

mod machine;
mod pauses;
mod registry;
mod signal;
mod wait;

pub use machine::{Admits, Machine, Standing, Verdict};
pub use registry::{Health, Healths, News, REMEMBERED, Report};
pub use signal::{PEEK, Signal, wants_body};
