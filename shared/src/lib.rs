//! The vocabulary both planes speak.
//!
//! Invariant: nothing here does IO beyond reading a clock or the system's
//! random source, and nothing here knows a database, a socket or a session.
//! Deliberately absent: configuration, logging, anything only one plane needs.

pub mod catalogue;
pub mod clock;
pub mod content;
pub mod dialect;
pub mod egress;
pub mod glob;
pub mod id;
pub mod mutant;
pub mod network;
pub mod origin;
pub mod pricing;
pub mod proto;
pub mod seal;
pub mod token;
pub mod usage;
