//! The load generator.
//!
//! Invariant: every request that was started is finished or counted as failed
//! before a measurement ends, so that a target's own counters can be compared
//! with ours. Requests of the warm-up are sent and counted apart.
//! Deliberately absent: TLS, HTTP/2, redirects, cookies.

mod connection;
mod generate;
mod measurement;
mod scenario;
mod target;

pub(crate) use connection::{Connection, Exchange};
pub(crate) use generate::{Pace, Plan, drive};
pub(crate) use measurement::Measurement;
pub(crate) use scenario::Scenario;
pub(crate) use target::Target;
