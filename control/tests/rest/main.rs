//! The REST API against a control plane in this process, one story per file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod bots;
mod common;
mod containers;
mod errors;
mod explain;
mod idempotency;
mod keys;
mod limits;
mod lists;
mod nodes;
mod prices;
mod quotas;
mod schema;
mod secrets;
mod start;
mod tenancy;
mod usage;
mod verify;
