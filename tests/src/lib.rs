//! The harness: real processes on port 0 in directories of their own, and the
//! clients that talk to them.
//!
//! Invariant: nothing here calls into the planes but [`sim`], which is made of
//! them. A scenario sees what an administrator, a bot and a vendor see, plus
//! files and process tables.
//! Deliberately absent: sleeping for a fixed time. [`wait::until`] polls a
//! condition against a deadline.

pub mod architecture;
pub mod chaos;
pub mod collector;
pub mod compose;
pub mod config;
pub mod edge;
pub mod engine;
pub mod fake_clock;
pub mod flood;
pub mod hang_up;
pub mod http;
pub mod ledger;
pub mod mock;
pub mod own_network;
pub mod postgres;
pub mod process;
pub mod recordings;
pub mod rest;
pub mod rootfs;
pub mod sim;
pub mod stack;
pub mod storm;
pub mod up;
pub mod wait;
pub mod websocket;
