//! The control plane: the truth about tenants, bots, provider keys and usage,
//! and everything that changes it.
//!
//! Invariant: reads go `http -> store`, writes go `http -> domain -> store`;
//! what nodes hold follows from committed rows alone.
//! Deliberately absent: anything on a bot's request path.

pub mod app;
pub mod config;
pub mod domain;
pub mod fleet;
pub mod grpc;
pub mod http;
pub mod ingest;
pub mod jobs;
pub mod prices;
pub mod quota;
pub mod runtime;
pub mod snapshot;
pub mod store;
pub mod vault;
