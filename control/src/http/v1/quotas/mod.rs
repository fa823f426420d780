//! Quotas of bots, projects, tenants and provider keys: the same three
//! operations on each.
//!
//! Invariant: who may see a thing may see its quotas.
//! Deliberately absent: rules (`domain`), windows and amounts (`quota`).

pub mod handlers;
pub mod views;
