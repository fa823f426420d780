//! The node's side of the channel to the control plane: who it is, what it
//! holds, and keeping that current.
//!
//! Invariant: a node serves the last configuration that it could activate. An
//! update is taken whole or refused whole with reasons; losing the control
//! plane changes nothing but the age of what is held. Secrets are only ever
//! held sealed here.
//! Deliberately absent: what a configuration means (`snapshot`), and usage
//! (`metering`), which shares only the channel.

pub mod channel;
pub mod client;
pub mod enroll;
pub mod identity;
pub mod keys;
pub mod session;
pub mod state;
#[cfg(test)]
mod tests;

pub use channel::{ControlChannel, ControlTarget, TargetError};
pub use client::{KeyStatesSink, PeersSink, StatusSource, SyncClient, SyncParts};
pub use enroll::EnrollError;
pub use identity::{Identity, IdentityCell, IdentityError, TlsIdentity};
pub use keys::KeyMemory;
pub use session::{Activate, Outcome, Session};
pub use state::SyncState;
