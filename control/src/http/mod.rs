//! REST: what admins, scripts and the console speak to.
//!
//! Invariant: a handler parses its request into types, calls the store (reads)
//! or the domain (writes) and shapes the answer; it decides nothing. Every URL
//! is in `router.rs`; every text for people is in `messages.rs`.
//! Deliberately absent: SQL, permission rules, sessions of people.

pub mod admin;
pub mod api;
pub mod auth;
pub mod body;
pub mod edit;
mod errors;
pub mod etag;
pub mod idempotency;
pub mod layers;
pub mod messages;
pub mod openapi;
pub mod outcome;
pub mod page;
mod pages;
pub mod problem;
pub mod rollout;
pub mod router;
pub mod serve;
pub mod state;
mod test_hooks;
pub mod v1;
