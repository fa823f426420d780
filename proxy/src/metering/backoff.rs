//! How long to wait before the next try of something that failed: full jitter,
//! so that nodes that lost the same control plane do not come back together.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(15);
/// Keeps a run of small random numbers from becoming a busy loop.
const SHORTEST: Duration = Duration::from_millis(20);

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// After a failure: a random time below 0.2 s, 0.4 s, … 15 s.
    pub fn next_delay(&mut self) -> Duration {
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // Without random bytes there is no jitter; waiting long is safe.
        let share = getrandom::u32().map_or(1.0, |n| f64::from(n) / f64::from(u32::MAX));
        ceiling.mul_f64(share).max(SHORTEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_a_limit_and_differ() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..200).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] <= FIRST);
        assert!(delays.iter().all(|delay| (SHORTEST..=LONGEST).contains(delay)));
        assert!(delays.iter().any(|delay| *delay > LONGEST / 2));
        assert!(delays.windows(2).any(|pair| pair[0] != pair[1]));
        backoff.reset();
        assert!(backoff.next_delay() <= FIRST);
    }
}
