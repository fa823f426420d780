//! Quotas: which windows they have, what nodes are lent of them, and what ends
//! a loan.
//!
//! Invariant: by granting, what is settled and what is outstanding of a window
//! never pass its limit; only settling may, and adopting what a node can prove
//! by naming it. Windows are computed here and nowhere else. The ledger is in
//! the database; what is kept in memory only makes slices fairer.
//! Deliberately absent: settling (`ingest::charges`), writing quotas (`domain`),
//! the wire (`grpc`), and deciding on requests: nodes do that.

pub mod book;
pub mod desk;
pub mod end;
pub mod grant;
pub mod hold_clock;
pub mod learning;
pub mod state;
pub mod trade;
pub mod window;

#[cfg(test)]
mod tests;

pub use book::{Book, Books};
pub use trade::{Answer, Claim, Holder, TradeError};

use desk::Desk;

/// For how long, in microseconds, a lease stays charged after the call that
/// named it last; at least.
pub const HOLD: i64 = 15 * 60 * 1_000_000;
/// For how long, in milliseconds, a node may use its leases after a call: less
/// than [`HOLD`] by a margin for clocks and for what is under way.
pub const USABLE_MILLIS: u64 = 13 * 60 * 1000;

/// What one process knows about quotas; share it.
#[derive(Debug)]
pub struct Quotas {
    /// Which quotas there are.
    pub books: Books,
    /// Who asks for what.
    pub desk: Desk,
    /// Until when grants are cautious, unix microseconds.
    pub learning_until: i64,
}
