//! The way to a vendor: which address, which headers, which bytes.
//!
//! Invariant: a request leaves with exactly one credential, the chosen key's,
//! and only for the origin that key was sealed for; an address outside the
//! egress policy is never connected to, whatever a name resolves to.
//! A probe is such a request too, and the only one that is ours.
//! Deliberately absent: choosing a key (routing) and deciding what a failure
//! means for the exchange beyond [`classify`].

pub mod classify;
mod client;
mod headers;
mod idle;
mod probe;
mod stream;
mod target;
mod uri;

pub use client::{Answer, Client, Failure, FailureKind, Outgoing, Timeouts};
pub use headers::{for_bot, for_vendor};
pub use probe::{KeyNews, Prober};
pub use target::{Egress, Target};
pub use uri::target_uri;
