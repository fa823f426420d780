//! What a model's tokens cost, as data and exact integers.
//!
//! Invariant: a price is read from decimal text and computed with integers; the
//! one rounding is at the end of [`cost`], half a micro-dollar up. What has no
//! price has no cost, which is something else than a cost of zero.
//! Deliberately absent: where prices are kept and which one is in effect when
//! (the control plane's business); currencies; what is not billed by token or
//! request (images, seconds, searches).

mod book;
pub mod builtin;
mod cost;
pub mod litellm;
mod name;
mod price;
mod rate;
mod sources;
mod text;

pub use book::{Book, Entry};
pub use cost::{Spent, cost, cost_at_most};
pub use name::candidates;
pub use price::{Band, Component, Price, Rates, ServiceTier};
pub use rate::{Rate, RateError};
pub use sources::{Source, Sources};
pub use text::FieldFault;
