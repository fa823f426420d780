//! Exact round robin: one counter per bot and vendor, kept across snapshots,
//! so that a configuration change neither restarts nor skews the turn.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A counter that hands out turns.
#[derive(Debug, Default)]
pub struct Turn(AtomicUsize);

impl Turn {
    /// The next turn, as an index below `len` (0 when `len` is 0).
    #[must_use]
    pub fn next(&self, len: usize) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed).checked_rem(len).unwrap_or(0)
    }
}

/// All counters by (bot, vendor). Asked only while a snapshot is compiled.
#[derive(Debug, Default)]
pub struct Turns(Mutex<TurnMap>);

/// (bot, vendor) -> counter
type TurnMap = HashMap<(Arc<str>, Arc<str>), Arc<Turn>>;

impl Turns {
    /// The counter of one bot at one vendor: the same one for as long as any
    /// snapshot uses it. Bots start at different keys, so that a thousand
    /// quiet bots do not all begin with the first.
    #[must_use]
    pub fn of(&self, bot_id: &Arc<str>, vendor: &Arc<str>) -> Arc<Turn> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = map.entry((bot_id.clone(), vendor.clone()));
        entry.or_insert_with(|| Arc::new(Turn(AtomicUsize::new(start_of(bot_id))))).clone()
    }

    /// Forgets counters that no snapshot uses any more.
    pub fn forget_unused(&self) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.retain(|_, turn| Arc::strong_count(turn) > 1);
    }
}

/// FNV-1a of the id: any spread will do.
fn start_of(bot_id: &str) -> usize {
    let hash =
        bot_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    usize::try_from(hash & 0xffff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_exact_and_survive_a_new_snapshot() {
        let turns = Turns::default();
        let (bot, vendor): (Arc<str>, Arc<str>) = ("bot_1".into(), "openai".into());
        let mut seen = [0_usize; 2];
        let first = turns.of(&bot, &vendor);
        (0..1501).for_each(|_| seen[first.next(2)] += 1);
        let again = turns.of(&bot, &vendor);
        (0..1499).for_each(|_| seen[again.next(2)] += 1);
        assert_eq!(seen, [1500, 1500]);
        assert_eq!(first.next(0), 0);
        drop((first, again));
        turns.forget_unused();
        assert!(turns.0.lock().expect("lock").is_empty());
    }
}
