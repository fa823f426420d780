//! Which price is in effect, for whom and when.
//!
//! Invariant: a table is a value: loaded whole from committed rows, swapped
//! whole, and asked without the database. Sources count in one order: the
//! tenant's own, the platform's own, the imported file, the built-in list; the
//! first that knows the model counts (see docs/prices.md).
//! Deliberately absent: changing prices (`domain`), and computing costs again
//! when a price changes: an event keeps the cost it was given.

mod handle;
mod table;

pub use clawgate_shared::pricing::Source;
pub use handle::{Prices, watch_for_changes};
pub use table::Table;
