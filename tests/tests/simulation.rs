//! The deterministic simulation (`docs/simulation.md`): no seed breaks what must
//! hold, and every seeded bug is found.

use clawgate_shared::mutant::Mutant;
use clawgate_tests::config;
use clawgate_tests::sim::{run, runner};

/// Half the time of a seed goes by in the allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds in which every seeded bug must be found.
const ENOUGH: u64 = 10_000;

#[test]
fn nothing_breaks_whatever_the_seed() {
    if let Some(seed) = config::sim_seed() {
        let story = runner::story(seed, None, usize::MAX);
        eprintln!("{story}");
        run(seed, None).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        return;
    }
    let from = config::sim_from();
    let outcome = runner::seeds(from, from + config::sim_seeds(), None);
    let rate = outcome.seeds as f64 / outcome.took.as_secs_f64();
    eprintln!("{} seeds in {:.1?}, {rate:.0} per second, {:?}", outcome.seeds, outcome.took, outcome.tally);
    if let Some((seed, what)) = outcome.failed {
        panic!("{}seed {seed}: {what}", runner::story(seed, None, runner::SHOWN));
    }
    assert!(outcome.tally.counted > outcome.seeds, "next to nothing was counted: {:?}", outcome.tally);
}

#[test]
fn every_seeded_bug_is_found() {
    let missed: Vec<Mutant> = Mutant::ALL
        .into_iter()
        .filter(|bug| {
            let outcome = runner::seeds(0, ENOUGH, Some(*bug));
            eprintln!("{bug:?}: {:?} in {:.1?}", outcome.failed, outcome.took);
            outcome.failed.is_none()
        })
        .collect();
    assert!(missed.is_empty(), "not found within {ENOUGH} seeds: {missed:?}");
}

#[test]
fn a_seed_does_the_same_again() {
    for seed in 0..40 {
        let (one, other) = (runner::story(seed, None, usize::MAX), runner::story(seed, None, usize::MAX));
        assert!(one == other, "seed {seed}:\n{one}\n--- and again ---\n{other}");
    }
}
