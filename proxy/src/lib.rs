//! The data plane: one node between bots and vendors.
//!
//! Modules in reading order; a module imports only `clawgate_shared` and
//! modules above it. What each holds is in its own first lines; how a request
//! runs through them is in `exchange`.

pub mod wire;

pub mod limits;

pub mod routing;
pub mod telemetry;

pub mod snapshot;

pub mod upstream;

pub mod quota;

pub mod accounts;

pub mod metering;

pub mod sync;

pub mod exchange;

pub mod server;

pub mod config;

pub mod app;
