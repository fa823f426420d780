//! Who may write a shard. Pure.
//!
//! An epoch has one writer at a time: the process that began it, or, once that
//! one is gone, a successor that holds its lock. Two processes that both think
//! they own an epoch (a copied data directory) must never both be counted.

use clawgate_shared::mutant::{self, Mutant};

/// What is known when another process than the last one writes to a shard.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The epoch that is written to.
    pub epoch: i64,
    /// Whether the last writer has its stream open.
    pub writer_connected: bool,
    /// Whether the claimant has its stream open.
    pub claimant_connected: bool,
    /// The newest epoch that the claimant is the last writer of.
    pub claimant_epoch: Option<i64>,
}

/// Whether the claimant takes the shard over.
#[must_use]
pub fn may_take_over(claim: Claim) -> bool {
    if claim.writer_connected && !mutant::is(Mutant::ZombieEpochAccepted) {
        return false;
    }
    claim.claimant_connected || claim.claimant_epoch.is_some_and(|own| own > claim.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_takes_over_only_from_the_dead() {
        let claim = Claim { epoch: 4, writer_connected: false, claimant_connected: false, claimant_epoch: None };
        for (claim, allowed) in [
            (Claim { claimant_connected: true, ..claim }, true),
            (Claim { claimant_epoch: Some(5), ..claim }, true),
            (Claim { claimant_epoch: Some(4), ..claim }, false),
            (Claim { claimant_epoch: Some(3), ..claim }, false),
            (claim, false),
            (Claim { writer_connected: true, claimant_connected: true, claimant_epoch: Some(5), ..claim }, false),
        ] {
            assert_eq!(may_take_over(claim), allowed, "{claim:?}");
        }
    }
}
