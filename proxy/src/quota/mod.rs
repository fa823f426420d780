//! What a request holds of quotas before it is sent, and where that comes from.
//!
//! Invariant: a request is dispatched only while everything it may cost is held
//! from leases of every quota that covers it, and what it holds ends exactly
//! once: charged at what was used, or given back when nothing was sent. Nothing
//! on a request's path asks the network.
//! Deliberately absent: calendars (windows come from the control plane) and
//! answers to clients.

mod admission;
mod bound;
mod permit;
mod renewer;
pub mod trade;

pub use admission::{Verdict, judge};
pub use bound::{Bound, Demand};
pub use permit::{Line, Permit, Spent};
pub use renewer::{ChannelSource, Renewer};
