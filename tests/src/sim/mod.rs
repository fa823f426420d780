//! Deterministic simulation: a control plane, three nodes, a network, disks and
//! clocks under one seed, and the real code that decides between them.
//!
//! Invariant: what happens depends on the seed and on nothing else. Whatever
//! decides here is the planes' own code: leases, permits, records, the spool on
//! a disk in memory, batches, the fence, plans, charges, trades, windows,
//! configuration sessions. Only what carries it is made up: messages, tables
//! instead of SQL, when things happen. `docs/simulation.md` says what must hold.
//! Deliberately absent: threads, sockets, real time.

mod check;
mod control;
mod ingest;
mod network;
mod node;
mod plan;
mod request;
mod rng;
mod ship;
mod tables;
mod truth;
mod world;

pub mod runner;

use std::fmt;

use clawgate_shared::mutant::{self, Mutant};

pub use world::Tally;

/// Something that must hold does not.
#[derive(Clone, Debug)]
pub struct Broken {
    /// What must hold.
    pub invariant: &'static str,
    /// Why it does not.
    pub what: String,
}

impl Broken {
    fn new(invariant: &'static str, what: String) -> Self {
        Self { invariant, what }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" does not hold: {}", self.invariant, self.what)
    }
}

/// One seed from its beginning until everything is at rest.
///
/// # Errors
/// What did not hold.
pub fn run(seed: u64, bug: Option<Mutant>) -> Result<Tally, Broken> {
    with(bug, || world::World::new(seed, false).run().0)
}

/// The same with every step in words.
pub fn trace(seed: u64, bug: Option<Mutant>) -> (Result<Tally, Broken>, Vec<String>) {
    with(bug, || world::World::new(seed, true).run())
}

fn with<T>(bug: Option<Mutant>, run: impl FnOnce() -> T) -> T {
    mutant::activate(bug);
    let result = run();
    mutant::activate(None);
    result
}

/// The id that a process says is its own.
fn instance(process: network::ProcessId) -> String {
    format!("process-{process}")
}
