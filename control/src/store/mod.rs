//! The database: one SQL text on SQLite and PostgreSQL.
//!
//! Invariant: `sqlx` is used in this folder only, every statement is a constant
//! with `$n` placeholders that both engines take, and a value read from a row
//! is a typed value or a [`StoreError`]. What differs between the engines is in
//! `dialect.rs` and in `migrations/`.
//! Deliberately absent: rules, permissions, audit decisions (`domain`), secrets
//! in clear (`vault`), and repository traits: a function takes a connection.

pub mod account_ids;
pub mod api_tokens;
pub mod audit;
pub mod bot_events;
pub mod bot_tokens;
pub mod bots;
pub mod containers;
pub mod db;
mod dialect;
pub mod enroll;
pub mod error;
mod fetch;
pub mod idempotency;
pub mod migrate;
pub mod nodes;
pub mod page;
pub mod pki;
pub mod prices;
pub mod projects;
pub mod provider_keys;
pub mod quota_leases;
pub mod quota_usage;
pub mod quota_windows;
pub mod quotas;
pub mod resource_quotas;
pub mod revisions;
pub mod row;
pub mod runners;
pub mod settings;
pub mod tenants;
pub mod tombstones;
pub mod types;
mod usage_convert;
pub mod usage_dims;
pub mod usage_events;
pub mod usage_ingest;
pub mod usage_log;
pub mod usage_partitions;
pub mod usage_proof;
pub mod usage_query;
pub mod usage_retention;
pub mod usage_rollup;
pub mod usage_sessions;
pub mod vendors;

pub use db::{Conn, Db, Engine, ReadConn, Tx};
pub use error::{Constraint, StoreError};
