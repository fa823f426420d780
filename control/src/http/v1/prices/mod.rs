//! Prices: what is in effect, what is set by hand, price files.
//!
//! Invariant: a rate is decimal text in and out; no JSON number becomes money.
//! Deliberately absent: which price counts (`crate::prices`) and what may be
//! set (`domain`).

pub mod handlers;
pub mod views;
