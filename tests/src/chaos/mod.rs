//! Faults on purpose, between real processes: a network that misbehaves
//! ([`proxy`]), processes that stand still or die ([`process`]), and load at a
//! steady pace that shows who felt it ([`load`]).
//!
//! Invariant: what went wrong is read from the mock vendor's ledger and from
//! answers, never from what a plane says of itself. A fault ends when its guard
//! is dropped, also when the test panics.
//! Deliberately absent: packet filters and anything else that outlives the test
//! or touches the machine's network.

pub mod load;
pub mod process;
pub mod proxy;

pub use load::{Load, Sample, Source};
pub use process::{Frozen, kill_under_load};
pub use proxy::{FaultProxy, Faults};
