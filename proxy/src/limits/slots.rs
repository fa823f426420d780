//! How many may be at work at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Places against a limit that may change while they are taken.
#[derive(Debug, Default)]
pub struct Slots {
    taken: AtomicU32,
    /// 0: no limit.
    limit: AtomicU32,
}

/// One place; given back when dropped.
#[derive(Debug)]
#[must_use]
pub struct Slot(Arc<Slots>);

impl Slots {
    /// Changes the limit; 0: none. Who has a place keeps it.
    pub fn set(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// A place, if one is free. Places are counted without a limit too, so that
    /// one that is set later holds at once.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Option<Slot> {
        let limit = match self.limit.load(Ordering::Relaxed) {
            0 => u32::MAX,
            limit => limit,
        };
        let take = |taken: u32| (taken < limit).then(|| taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok().map(|_| Slot(self.clone()))
    }

    /// Places that are taken.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_and_the_limit_moves() {
        let slots = Arc::new(Slots::default());
        let unlimited = slots.take().expect("no limit");
        slots.set(2);
        let second = slots.take().expect("one is free");
        assert!(slots.take().is_none());
        slots.set(3);
        let third = slots.take().expect("one more");
        slots.set(1);
        drop((second, third));
        assert!(slots.take().is_none() && slots.taken() == 1);
        drop(unlimited);
        assert!(slots.take().is_some() && slots.taken() == 0);
    }

    #[test]
    fn threads_together_have_no_more_than_there_are() {
        let slots = Arc::new(Slots::default());
        slots.set(3);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let slot = slots.take();
                        assert!(slots.taken() <= 3);
                        drop(slot);
                    }
                });
            }
        });
        assert_eq!(slots.taken(), 0);
    }
}
