//! Seeded bugs: each one is a line of the real code that does its work wrongly
//! while the bug is on. The simulation in `tests` turns them on one at a time
//! and must notice every one.
//!
//! Only under the feature `mutants`, which the tests enable; without it
//! [`is`] is a constant `false` and nothing of this is left in a program.

#[cfg(feature = "mutants")]
use std::cell::Cell;

/// One seeded bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Ingest counts a batch from its beginning, whatever its cursor says.
    CursorCheckSkipped,
    /// Ingest answers before it commits.
    AckBeforeCommit,
    /// A node uses a lease after it may no longer.
    LeaseUsedAfterExpiry,
    /// A hold that was settled is given back once more when it is dropped.
    DoubleSettleOnDrop,
    /// What was sent is given back when its permit is dropped.
    VoidAfterDispatch,
    /// Any process may write any epoch.
    ZombieEpochAccepted,
    /// Leases are granted whatever is left.
    GrantWithoutCondition,
    /// What a node says it returned replaces what is known, also when it is less.
    ReturnedNotMonotone,
    /// The OPEN is written after the request was sent.
    OpenAfterDispatch,
    /// A torn tail is taken for a record.
    TornTailTrusted,
    /// The end of an epoch leaves its leases.
    EpochEndForgetsLeases,
    /// An exchange is charged to the window in which it ends.
    WindowOfSettle,
    /// A node takes a configuration that is older than what it serves.
    OlderSnapshotTaken,
    /// An exchange whose end nobody saw charges nothing.
    IndeterminateFree,
    /// The shipper takes a batch for taken, wherever the control plane says it is.
    AnswerIgnored,
    /// A lease whose time has passed is taken back, and the node is not told.
    ExpiryNotTold,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::CursorCheckSkipped,
        Self::AckBeforeCommit,
        Self::LeaseUsedAfterExpiry,
        Self::DoubleSettleOnDrop,
        Self::VoidAfterDispatch,
        Self::ZombieEpochAccepted,
        Self::GrantWithoutCondition,
        Self::ReturnedNotMonotone,
        Self::OpenAfterDispatch,
        Self::TornTailTrusted,
        Self::EpochEndForgetsLeases,
        Self::WindowOfSettle,
        Self::OlderSnapshotTaken,
        Self::IndeterminateFree,
        Self::AnswerIgnored,
        Self::ExpiryNotTold,
    ];
}

#[cfg(feature = "mutants")]
thread_local! {
    static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Turns one bug on, or all off, in this thread.
#[cfg(feature = "mutants")]
pub fn activate(mutant: Option<Mutant>) {
    ACTIVE.set(mutant);
}

/// Whether this bug is on.
#[cfg(feature = "mutants")]
#[inline]
#[must_use]
pub fn is(mutant: Mutant) -> bool {
    ACTIVE.get() == Some(mutant)
}

/// Whether this bug is on: never.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn is(_: Mutant) -> bool {
    false
}
