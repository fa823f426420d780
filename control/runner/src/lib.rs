//! The runner: the only holder of a container engine's socket.
//!
//! Invariant: it touches only what carries the mark of the installation that
//! its control plane told it, looks right before each touch, and makes cells
//! of one hardened form only: what a [`spec::CellSpec`] cannot express cannot
//! be asked for. An engine that is away is a state with a reason.
//! Deliberately absent: what ought to run, and restarts (the control plane
//! decides); simulated containers; provider keys, which never come here.

pub mod app;
pub mod cell;
pub mod engine;
pub mod link;
pub mod observe;
pub mod problem;
pub mod spec;
pub mod verbs;
