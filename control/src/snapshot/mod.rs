//! What nodes must know, from rows to their acknowledgement.
//!
//! Invariant: a content follows from the committed rows of one revision alone,
//! is validated before any node sees it, and is never changed afterwards; a
//! content that does not validate leaves the last good one in place.
//! Deliberately absent: sockets (`grpc`), secrets in clear (`vault`).

pub mod assemble;
#[cfg(test)]
pub(crate) mod fixture;
pub mod history;
pub mod publisher;
pub mod rollout;
pub mod session;
pub mod validate;
