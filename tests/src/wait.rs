//! Waiting on conditions.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const PERIOD: Duration = Duration::from_millis(10);

/// Polls until `condition` yields a value.
///
/// # Panics
/// It has not by the deadline; `what` says what was waited for.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {:?} in vain: {what}", start.elapsed());
        std::thread::sleep(PERIOD);
    }
}

/// Polls until `sample` satisfies `good`; on failure shows the last sample.
///
/// # Panics
/// No sample was good by the deadline.
pub fn until_good<T: std::fmt::Debug>(
    what: &str,
    limit: Duration,
    mut sample: impl FnMut() -> T,
    good: impl Fn(&T) -> bool,
) -> T {
    let start = Instant::now();
    loop {
        let value = sample();
        if good(&value) {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {:?} in vain: {what}; saw {value:#?}", start.elapsed());
        std::thread::sleep(PERIOD);
    }
}
