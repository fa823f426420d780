//! Many seeds on all cores, and what to say of one that fails.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clawgate_shared::mutant::Mutant;

use super::{Broken, Tally, run, trace};

/// Last steps of a failed seed that are printed when it was one of many.
pub const SHOWN: usize = 400;

/// What a range of seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The lowest seed that failed, and what did not hold.
    pub failed: Option<(u64, String)>,
    /// Seeds that ran.
    pub seeds: u64,
    /// Sums over them.
    pub tally: Tally,
    /// How long it took.
    pub took: Duration,
}

/// Runs seeds `from..to` on all cores. Stops soon after the first that fails.
#[must_use]
pub fn seeds(from: u64, to: u64, bug: Option<Mutant>) -> Outcome {
    let began = Instant::now();
    let (next, first) = (AtomicU64::new(from), AtomicU64::new(to));
    let total = Mutex::new(Outcome::default());
    let work = || {
        let (mut seeds, mut tally) = (0, Tally::default());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            // Lower seeds than one that failed still run: the lowest is told.
            if seed >= first.load(Ordering::Relaxed) {
                break;
            }
            seeds += 1;
            match run(seed, bug) {
                Ok(one) => {
                    tally.admitted += one.admitted;
                    tally.counted += one.counted;
                    tally.indeterminate += one.indeterminate;
                }
                Err(broken) => {
                    first.fetch_min(seed, Ordering::Relaxed);
                    note(&total, seed, &broken);
                }
            }
        }
        let mut total = total.lock().expect("no thread panics with it");
        total.seeds += seeds;
        total.tally.admitted += tally.admitted;
        total.tally.counted += tally.counted;
        total.tally.indeterminate += tally.indeterminate;
    };
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    Outcome { took: began.elapsed(), ..total.into_inner().expect("no thread panics with it") }
}

fn note(total: &Mutex<Outcome>, seed: u64, broken: &Broken) {
    let mut total = total.lock().expect("no thread panics with it");
    if total.failed.as_ref().is_none_or(|(known, _)| seed < *known) {
        total.failed = Some((seed, broken.to_string()));
    }
}

/// Everything about one seed: at most so many of its last steps, and how to see
/// them again.
#[must_use]
pub fn story(seed: u64, bug: Option<Mutant>, last: usize) -> String {
    let (result, steps) = trace(seed, bug);
    let skipped = steps.len().saturating_sub(last);
    let end = match result {
        Ok(tally) => format!("holds: {tally:?}"),
        Err(broken) => broken.to_string(),
    };
    let again = format!(
        "CLAWGATE_SIM_SEED={seed} cargo test --release --workspace --test simulation nothing_breaks -- --nocapture"
    );
    format!("{}\nseed {seed}: {end}\nagain: {again}\n", steps[skipped..].join("\n"))
}
