//! The database: one SQL text on SQLite and PostgreSQL.
//!
//! Invariant: `sqlx` is used in this folder only, every statement is a constant
//! with `$n` placeholders that both engines take, and a value read from a row
//! is a typed value or a [`StoreError`]. What differs between the engines is in
//! `dialect.rs` and in `migrations/`.
//! Deliberately absent: rules, permissions, audit decisions (`domain`), secrets
//! in clear (`vault`), and repository traits: a function takes a connection.

pub mod db;
mod dialect;
pub mod error;
pub mod migrate;
pub mod row;

pub use db::{Db, Engine, ReadConn, Tx};
pub use error::{Constraint, StoreError};
