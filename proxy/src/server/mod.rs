//! The listeners: the only place that knows how bytes of a bot arrive.
//!
//! Invariant: every read and write of a client's connection has a deadline of
//! ours, every connection is counted against a cap, and an idle connection
//! holds no request buffer.
//! Deliberately absent: what a request means. That is `exchange`.

mod admin;
mod descriptors;
mod downstream;
mod front;
mod gateway;
mod handover;
mod http2;
mod service;

pub use admin::{Admin, BeforeScrape, Readiness};
pub use descriptors::raise_descriptor_limit;
pub use front::{Front, SourcePolicy};
pub use gateway::Gateway;
pub use handover::{Handover, HandoverError, receive_listeners};
pub use service::{BindError, Bound, Listener, TlsFiles, bind};
