//! How fast a client must send and take. Pure: time is told.

use std::time::Duration;

/// Bytes per second under which a client that is asked for more is cut off.
pub(super) const MIN_RATE: u64 = 512;
/// Of an answer, what a connection's kernel buffer takes beyond the client's
/// window. A writer is woken when half of it is free.
pub(super) const UNSENT: u32 = 16 << 10;
/// Bytes of an answer written at once. One of these may take as long as
/// [`write_limit`] says, so a larger one would let a client that has stopped
/// reading stay longer.
pub(super) const WRITE_PIECE: usize = 12 << 10;
/// What a client may take less than [`MIN_RATE`] asks of it, in bytes: it is seen
/// in lumps as large as the kernel's buffer.
const CREDIT: u64 = 24 << 10;
/// Bytes per second a request body must come with on average.
const MIN_BODY_RATE: u64 = 1024;
/// How long it may take whatever its rate.
const BODY_PATIENCE: Duration = Duration::from_secs(15);

/// The longest a write of so many bytes may wait: what the slowest client that is
/// served needs for it and for what the kernel holds before it.
pub(super) const fn write_limit(bytes: usize) -> Duration {
    Duration::from_secs((bytes as u64).saturating_add(UNSENT as u64) / MIN_RATE)
}

/// Whether a body of which `bytes` have come after `took` comes too slowly.
pub(super) const fn body_is_slow(bytes: u64, took: Duration) -> bool {
    took.as_secs() > BODY_PATIENCE.as_secs() && bytes < took.as_secs().saturating_mul(MIN_BODY_RATE)
}

/// How fast a client takes an answer, seen by the time for which writes waited
/// for it. A slow vendor costs it nothing.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Bytes that it is behind [`MIN_RATE`]; never ahead.
    behind: u64,
}

impl Pace {
    /// A write of `bytes` went at once.
    pub(super) const fn flowed(&mut self, bytes: u64) {
        self.behind = self.behind.saturating_sub(bytes);
    }

    /// A write of `bytes` had to wait so long. False: the client is too slow.
    pub(super) fn waited(&mut self, bytes: u64, took: Duration) -> bool {
        let due = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).saturating_mul(MIN_RATE) / 1000;
        self.behind = self.behind.saturating_add(due);
        let keeps_up = self.behind <= CREDIT.saturating_add(bytes);
        self.flowed(bytes);
        keeps_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_reader_of_a_kilobyte_a_second_stays_and_one_of_a_hundred_bytes_goes() {
        let mut steady = Pace::default();
        assert!((0..600).all(|_| steady.waited(1024, secs(1))));
        let mut slow = Pace::default();
        let stayed = (0..600).take_while(|_| slow.waited(100, secs(1))).count();
        assert_eq!(stayed, 59);
    }

    #[test]
    fn one_whose_bytes_are_seen_in_lumps_stays() {
        // 20 KiB go from the kernel's buffer before a write is woken.
        let mut lumpy = Pace::default();
        for _ in 0..100 {
            assert!(lumpy.waited(WRITE_PIECE as u64, secs(32)));
            lumpy.flowed(8 << 10);
        }
    }

    #[test]
    fn what_flows_before_the_first_wait_is_no_credit() {
        let mut pace = Pace::default();
        pace.flowed(1 << 30);
        assert!(pace.waited(1, secs(48)));
        assert!(!pace.waited(1, secs(1)));
        pace.flowed(1 << 20);
        assert!(pace.waited(1, secs(48)), "it has caught up");
    }

    #[test]
    fn limits_of_writes_and_bodies() {
        assert_eq!((write_limit(1), write_limit(WRITE_PIECE)), (secs(32), secs(56)));
        assert!(!body_is_slow(0, secs(15)) && body_is_slow(16 * 1024 - 1, secs(16)));
        assert!(!body_is_slow(16 * 1024, secs(16)) && body_is_slow(1024, secs(100)));
    }
}
