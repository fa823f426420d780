//! What hostile clients send, and what stands behind the gateway while they do.
//!
//! Invariant: everything here writes and reads raw bytes; no library repairs
//! what a test means to break.

pub mod authority;
pub mod backends;
pub mod faulty;
pub mod frames;
pub mod huge;
pub mod payloads;
pub mod sink;
pub mod tls;
pub mod usage;
