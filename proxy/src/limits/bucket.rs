//! A rate per minute on one atomic: the time at which everything taken so far
//! will have flowed back ("theoretical arrival time").

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// One minute: the size of every bucket, in nanoseconds. Finer than the clock,
/// so that rounding costs nothing at millions of tokens per minute.
const MINUTE: i64 = 60_000_000_000;

/// At most `per_minute` units at once, and as many in each minute after.
///
/// Times are microseconds of the boot clock. Amounts are units of the limit.
#[derive(Debug, Default)]
pub struct Bucket {
    /// 0: no limit, nothing is counted.
    per_minute: AtomicU64,
    /// In nanoseconds.
    full_at: AtomicI64,
}

impl Bucket {
    /// The limit; 0: none.
    #[must_use]
    pub fn per_minute(&self) -> u64 {
        self.per_minute.load(Ordering::Relaxed)
    }

    /// Changes the limit; what was used stays used, in units.
    pub fn set(&self, per_minute: u64, now: i64) {
        let before = self.per_minute.swap(per_minute, Ordering::Relaxed);
        if before == per_minute || before == 0 || per_minute == 0 {
            return;
        }
        let now = nanos(now);
        self.change(|full_at| {
            let used = i128::from(full_at.saturating_sub(now).max(0)) * i128::from(before) / i128::from(per_minute);
            now.saturating_add(i64::try_from(used).unwrap_or(i64::MAX))
        });
    }

    /// Takes `n`, or says in how many microseconds it would fit. More than the
    /// whole bucket fits when the bucket is full, and leaves a debt.
    ///
    /// # Errors
    /// There is not so much now.
    pub fn try_take(&self, n: u64, now: i64) -> Result<(), i64> {
        let per_minute = self.per_minute();
        if per_minute == 0 {
            return Ok(());
        }
        let (now, cost) = (nanos(now), cost(n, per_minute));
        let room = MINUTE.saturating_sub(cost.min(MINUTE));
        let take = |full_at: i64| {
            let full_at = full_at.max(now);
            (full_at.saturating_sub(now) <= room).then(|| full_at.saturating_add(cost))
        };
        let taken = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(drop).map_err(|full_at| (full_at.saturating_sub(now).saturating_sub(room)).saturating_add(999) / 1000)
    }

    /// Takes `n`, whether there is so much or not: a debt delays what follows.
    pub fn charge(&self, n: u64, now: i64) {
        let per_minute = self.per_minute();
        if per_minute > 0 && n > 0 {
            let (now, cost) = (nanos(now), cost(n, per_minute));
            self.change(|full_at| full_at.max(now).saturating_add(cost));
        }
    }

    /// Gives back `n` that were taken at `taken_at`. What has flowed back by
    /// itself since then is not given twice.
    pub fn give_back(&self, n: u64, taken_at: i64, now: i64) {
        let per_minute = self.per_minute();
        if per_minute > 0 && n > 0 {
            let left = cost(n, per_minute).saturating_sub(nanos(now.saturating_sub(taken_at))).max(0);
            self.change(|full_at| full_at.saturating_sub(left));
        }
    }

    /// What could be taken now, in whole units.
    #[must_use]
    pub fn remaining(&self, now: i64) -> u64 {
        let free = MINUTE.saturating_sub(self.used(now)).max(0);
        let units = i128::from(free) * i128::from(self.per_minute()) / i128::from(MINUTE);
        u64::try_from(units).unwrap_or(0)
    }

    /// In how many microseconds everything will have flowed back.
    #[must_use]
    pub fn resets_in(&self, now: i64) -> i64 {
        self.used(now).saturating_add(999) / 1000
    }

    fn used(&self, now: i64) -> i64 {
        self.full_at.load(Ordering::Relaxed).saturating_sub(nanos(now)).max(0)
    }

    fn change(&self, with: impl Fn(i64) -> i64) {
        // It always yields a value, so the result is always Ok.
        let _ = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| Some(with(full_at)));
    }
}

/// How long `n` take to flow back. Rounded down, by less than a nanosecond, so
/// that a whole minute's worth always fits at once.
fn cost(n: u64, per_minute: u64) -> i64 {
    let cost = u128::from(n) * u128::from(MINUTE.unsigned_abs()) / u128::from(per_minute.max(1));
    i64::try_from(cost).unwrap_or(i64::MAX)
}

const fn nanos(micros: i64) -> i64 {
    micros.saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn bucket(per_minute: u64) -> Bucket {
        let bucket = Bucket::default();
        bucket.set(per_minute, 0);
        bucket
    }

    #[test]
    fn a_minutes_worth_at_once_then_one_at_a_time() {
        let bucket = bucket(60);
        assert_eq!(bucket.remaining(0), 60);
        (0..60).for_each(|_| assert!(bucket.try_take(1, 0).is_ok()));
        assert_eq!((bucket.try_take(1, 0), bucket.remaining(0)), (Err(SECOND), 0));
        assert_eq!(bucket.try_take(1, SECOND / 4), Err(SECOND * 3 / 4));
        assert!(bucket.try_take(1, SECOND).is_ok() && bucket.try_take(1, SECOND).is_err());
        assert_eq!((bucket.resets_in(SECOND), bucket.remaining(31 * SECOND)), (60 * SECOND, 30));
    }

    #[test]
    fn remaining_is_whole_also_where_a_minute_does_not_divide() {
        for limit in [1, 7, 11, 999, 1_000_003] {
            let bucket = bucket(limit);
            for taken in 1..=limit.min(1000) {
                assert!(bucket.try_take(1, 0).is_ok());
                assert_eq!(bucket.remaining(0), limit - taken, "{taken} of {limit}");
            }
        }
    }

    #[test]
    fn a_debt_delays_what_follows() {
        let bucket = bucket(600);
        assert!(bucket.try_take(100, 0).is_ok());
        bucket.charge(1100, 0);
        assert_eq!((bucket.remaining(0), bucket.resets_in(0)), (0, 120 * SECOND));
        // 600 too many, and one for itself.
        assert_eq!(bucket.try_take(1, 0), Err(60 * SECOND + SECOND / 10));
        assert!(bucket.try_take(1, 61 * SECOND).is_ok());
    }

    #[test]
    fn more_than_the_bucket_holds_waits_for_a_full_one() {
        let bucket = bucket(60);
        assert!(bucket.try_take(90, 0).is_ok());
        assert_eq!(bucket.try_take(90, 0), Err(90 * SECOND));
        assert!(bucket.try_take(90, 90 * SECOND).is_ok());
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_but_time_is_not_given_twice() {
        let bucket = bucket(60);
        (0..60).for_each(|_| assert!(bucket.try_take(1, 0).is_ok()));
        bucket.give_back(1, 0, 0);
        assert!(bucket.try_take(1, 0).is_ok() && bucket.try_take(1, 0).is_err());
        // A minute later all of it is there again; the old ones are no bonus.
        (0..60).for_each(|_| assert!(bucket.try_take(1, 60 * SECOND).is_ok()));
        bucket.give_back(60, 0, 60 * SECOND);
        assert!(bucket.try_take(1, 60 * SECOND).is_err());
    }

    #[test]
    fn another_limit_keeps_what_was_used() {
        let bucket = bucket(10);
        (0..10).for_each(|_| assert!(bucket.try_take(1, 0).is_ok()));
        bucket.set(20, 0);
        assert_eq!(bucket.remaining(0), 10);
        bucket.set(5, 0);
        assert_eq!((bucket.remaining(0), bucket.try_take(1, 0)), (0, Err(72 * SECOND)));
        bucket.set(0, 0);
        assert!(bucket.try_take(1_000_000, 0).is_ok());
    }

    #[test]
    fn threads_together_take_no_more_than_there_is() {
        let (bucket, taken) = (bucket(1000), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        if bucket.try_take(1, 0).is_ok() {
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 1000);
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_rate_in_any_interval(
            limit in 1_u64..5_000,
            steps in proptest::collection::vec((0_i64..5 * SECOND, 1_u64..200, any::<bool>()), 1..120),
        ) {
            let bucket = bucket(limit);
            let (mut now, mut taken) = (0, Vec::new());
            for (pause, n, back) in steps {
                now += pause;
                let n = n.min(limit);
                match bucket.try_take(n, now) {
                    // Some are refused later and given back: they do not count.
                    Ok(()) if back => bucket.give_back(n, now, now),
                    Ok(()) => taken.push((now, n)),
                    Err(wait) => {
                        prop_assert!(wait > 0);
                        // It fits when it was said to, and not before.
                        prop_assert!(bucket.try_take(n, now + wait - 1).is_err());
                        now += wait;
                        prop_assert!(bucket.try_take(n, now).is_ok());
                        taken.push((now, n));
                    }
                }
            }
            for (at, (from, _)) in taken.iter().enumerate() {
                let mut sum = 0_u64;
                for (to, n) in &taken[at..] {
                    sum += n;
                    let minutes = (to - from) as f64 / (60 * SECOND) as f64;
                    // Each is rounded by less than a nanosecond.
                    let most = limit as f64 * (1.0 + minutes) + 1e-3;
                    prop_assert!(sum as f64 <= most, "{sum} in {minutes} minutes of {limit}");
                }
            }
        }
    }
}
