//! What a node counts locally, and what outlives the configuration that named
//! it.
//!
//! Invariant: what is taken is never more than what there is, however many take
//! at once, and a thing is found by id: a new snapshot neither restarts a count
//! nor forgets what is held.
//! Deliberately absent: the network, and waiting; where more comes from is the
//! business of `quota`.

mod bucket;
mod gate;
mod learned;
mod pressure;
mod rule;
mod slice;
mod slices;
mod slots;
mod window;

pub use bucket::Bucket;
pub use gate::{Allowance, Gate, Gates, Stay};
pub use learned::{Learned, Usual};
pub use pressure::{Level, Pressure};
pub use rule::{Metric, Outage, QuotaRule};
pub use slice::{Claim, Granted, Hold, Shortage, Slice};
pub use slices::Slices;
pub use slots::{Slot, Slots};
pub use window::{Standing, Window};
