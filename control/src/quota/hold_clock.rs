//! The time that leases run out by: the wall clock, less what it was set forward
//! lately.
//!
//! A lease's end is written down by the wall clock, and its node keeps to its own
//! boot clock. When the wall clock here is set forward by an hour, leases look
//! over that their nodes still use: what is left of them would be granted twice.
//! For one hold time after such a step, time is told as if it had not been. A
//! clock that is set back only makes leases last longer.

use std::collections::VecDeque;

use super::HOLD;

/// Less is not a step: the clocks are read one after the other, and run a little
/// differently, in microseconds.
const STEP: i64 = 2_000_000;
/// Steps that are remembered; more within one hold time are put together.
const MAX_STEPS: usize = 64;

/// One process's view of it. Pure: both clocks are handed in.
#[derive(Clone, Debug)]
pub struct HoldClock {
    wall: i64,
    boot: i64,
    /// When, by the boot clock, and how far forward.
    steps: VecDeque<(i64, i64)>,
}

impl HoldClock {
    /// Begins at these readings, unix microseconds and microseconds of the boot
    /// clock.
    #[must_use]
    pub const fn new(wall: i64, boot: i64) -> Self {
        Self { wall, boot, steps: VecDeque::new() }
    }

    /// Unix microseconds to compare ends of leases with. To be called every few
    /// seconds or minutes: a step counts from when it is seen.
    pub fn now(&mut self, wall: i64, boot: i64) -> i64 {
        let ahead = wall.saturating_sub(self.wall).saturating_sub(boot.saturating_sub(self.boot));
        (self.wall, self.boot) = (wall, boot);
        if ahead > STEP {
            let full = self.steps.len() >= MAX_STEPS;
            match self.steps.back_mut().filter(|_| full) {
                Some(last) => *last = (boot, last.1.saturating_add(ahead)),
                None => self.steps.push_back((boot, ahead)),
            }
        }
        self.steps.retain(|(at, _)| boot.saturating_sub(*at) <= HOLD);
        self.steps.iter().fold(wall, |wall, (_, ahead)| wall.saturating_sub(*ahead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const HOUR: i64 = 3600 * SECOND;
    const START: i64 = 1_790_000_000 * SECOND;

    #[test]
    fn a_clock_set_forward_ends_no_lease_that_its_node_still_uses() {
        let mut clock = HoldClock::new(START, 0);
        let ends = START + HOLD;
        assert_eq!(clock.now(START + 60 * SECOND, 60 * SECOND), START + 60 * SECOND);
        let seen = clock.now(START + HOUR + 120 * SECOND, 120 * SECOND);
        assert!(seen < ends && seen == START + 120 * SECOND);
        // One hold time later every lease of before has been named again or is
        // over.
        let late = 120 * SECOND + HOLD;
        assert!(clock.now(START + HOUR + late, late) >= ends);
        let later = late + SECOND;
        assert_eq!(clock.now(START + HOUR + later, later), START + HOUR + later);
    }

    #[test]
    fn a_clock_set_back_or_slewed_is_followed() {
        let mut clock = HoldClock::new(START, 0);
        assert_eq!(clock.now(START - HOUR, SECOND), START - HOUR);
        assert_eq!(clock.now(START - HOUR + 61 * SECOND, 61 * SECOND), START - HOUR + 61 * SECOND);
        let slewed = START - HOUR + 122 * SECOND;
        assert_eq!(clock.now(slewed, 121 * SECOND), slewed);
    }

    #[test]
    fn many_steps_add_up_and_take_no_more_room() {
        let mut clock = HoldClock::new(START, 0);
        for step in 1..=1000 {
            assert_eq!(clock.now(START + step * (10 * SECOND), step * 1000), START + step * 1000);
        }
        assert!(clock.steps.len() <= MAX_STEPS);
    }
}
