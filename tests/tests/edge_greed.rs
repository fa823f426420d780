//! Clients that take more than their share: of time, of memory, of connections.
//! Each scenario measures, so they run one after the other.

#[path = "edge_greed/caps.rs"]
mod caps;
#[path = "edge_greed/memory.rs"]
mod memory;
#[path = "edge_greed/overload.rs"]
mod overload;
#[path = "edge_greed/slow.rs"]
mod slow;

use std::sync::{Mutex, MutexGuard, PoisonError};

static TURN: Mutex<()> = Mutex::new(());

/// Nobody else measures while this is held.
fn alone() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
