//! The listeners: the only place that knows how bytes of a bot arrive.
//!
//! Invariant: every read and write of a client's connection has a deadline of
//! ours, every connection is counted against a cap from before its first byte,
//! an idle connection holds no request buffer, and a head that could be read in
//! two ways is refused before it is parsed.
//! Deliberately absent: what a request means. That is `exchange`.

mod admin;
mod connections;
mod descriptors;
mod downstream;
mod front;
mod gateway;
mod handover;
mod http2;
mod memory;
mod pace;
mod service;
mod sources;
mod tls;

pub use admin::{Admin, BeforeScrape, Readiness};
pub use descriptors::raise_descriptor_limit;
pub use front::Front;
pub use gateway::Gateway;
pub use handover::{Handover, HandoverError, receive_listeners};
pub use memory::watch_memory;
pub use service::{BindError, Bound, Listener, bind};
pub use sources::SourcePolicy;
pub use tls::TlsFiles;
