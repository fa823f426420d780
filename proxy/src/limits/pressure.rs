//! How near this process is to the end of its memory, in four steps.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Per cent of the limit from which new requests are refused.
const SHED_AT: u64 = 85;
/// From which connections are closed after their answer.
const CLOSE_AT: u64 = 92;
/// From which no connection is accepted.
const STOP_AT: u64 = 95;

/// What memory allows. Each step does what those before it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    Calm,
    /// No new request.
    Shed,
    /// No second request on a connection.
    Close,
    /// No new connection.
    Stop,
}

impl Level {
    /// The step of `used` bytes of `limit`. No limit: calm.
    #[must_use]
    pub const fn of(used: u64, limit: u64) -> Self {
        if limit == 0 {
            return Self::Calm;
        }
        // In hundredths of the limit, so that nothing overflows.
        match used.saturating_mul(100) / limit {
            0..SHED_AT => Self::Calm,
            SHED_AT..CLOSE_AT => Self::Shed,
            CLOSE_AT..STOP_AT => Self::Close,
            _ => Self::Stop,
        }
    }
}

/// What was last found of this process's memory; shared by everybody who asks.
#[derive(Debug, Default)]
pub struct Pressure {
    level: AtomicU8,
    used: AtomicU64,
    limit: AtomicU64,
}

impl Pressure {
    /// The step now.
    #[must_use]
    pub fn level(&self) -> Level {
        match self.level.load(Ordering::Relaxed) {
            0 => Level::Calm,
            1 => Level::Shed,
            2 => Level::Close,
            _ => Level::Stop,
        }
    }

    /// Bytes used and the limit, as last found.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.used.load(Ordering::Relaxed), self.limit.load(Ordering::Relaxed))
    }

    /// Takes what was found. Says from which step to which, when it changed.
    pub fn found(&self, used: u64, limit: u64) -> Option<(Level, Level)> {
        self.used.store(used, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
        let (before, now) = (self.level(), Level::of(used, limit));
        self.level.store(now as u8, Ordering::Relaxed);
        (before != now).then_some((before, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_where_they_are_said_to_be() {
        for (used, level) in [
            (0, Level::Calm),
            (849, Level::Calm),
            (850, Level::Shed),
            (919, Level::Shed),
            (920, Level::Close),
            (949, Level::Close),
            (950, Level::Stop),
            (2000, Level::Stop),
            (u64::MAX, Level::Stop),
        ] {
            assert_eq!(Level::of(used, 1000), level, "{used}");
        }
        assert_eq!(Level::of(5, 0), Level::Calm);
    }

    #[test]
    fn changes_are_told_once() {
        let pressure = Pressure::default();
        assert_eq!(pressure.found(10, 100), None);
        assert_eq!(pressure.found(93, 100), Some((Level::Calm, Level::Close)));
        assert_eq!((pressure.found(94, 100), pressure.level()), (None, Level::Close));
        assert_eq!(pressure.found(86, 100), Some((Level::Close, Level::Shed)));
        assert_eq!(pressure.bytes(), (86, 100));
    }
}
