//! One quota in one calendar window: what this node may still use of it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use clawgate_shared::mutant::{self, Mutant};

/// What the control plane said last about the whole window, all nodes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The limit, grants included.
    pub limit: u64,
    /// Charged for good.
    pub settled: u64,
    /// Leased to nodes and not settled.
    pub outstanding: u64,
    /// When it was said: microseconds of the boot clock.
    pub at: i64,
}

impl Standing {
    /// What nobody has used for good.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.settled)
    }
}

/// The slice of one window. Amounts are in the quota's unit; times are
/// microseconds of the boot clock, so that a wall clock that jumps opens no
/// window early. In the order in which a request touches it.
#[derive(Debug)]
#[repr(C)]
pub struct Window {
    ends: AtomicI64,
    usable_until: AtomicI64,
    /// Granted − returned − used − held. Below zero after a vendor billed more
    /// than was held.
    free: AtomicI64,
    used: AtomicU64,
    start_micros: i64,
    granted: AtomicU64,
    returned: AtomicU64,
    limit: AtomicU64,
    settled: AtomicU64,
    outstanding: AtomicU64,
    said_at: AtomicI64,
}

impl Window {
    /// A window of which this node has nothing yet.
    #[must_use]
    pub const fn new(start_micros: i64, ends: i64) -> Self {
        Self {
            start_micros,
            ends: AtomicI64::new(ends),
            usable_until: AtomicI64::new(i64::MIN),
            free: AtomicI64::new(0),
            used: AtomicU64::new(0),
            granted: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            outstanding: AtomicU64::new(0),
            said_at: AtomicI64::new(i64::MIN),
        }
    }

    /// The name of the window: its start in unix microseconds, as the control
    /// plane said.
    #[must_use]
    pub const fn start_micros(&self) -> i64 {
        self.start_micros
    }

    /// Whether a request that arrives now belongs to a later window.
    #[must_use]
    pub fn is_over(&self, now: i64) -> bool {
        now >= self.ends.load(Ordering::Relaxed)
    }

    /// When it is over; `i64::MAX`: never.
    #[must_use]
    pub fn ends(&self) -> i64 {
        self.ends.load(Ordering::Relaxed)
    }

    /// Whether the lease may be used.
    #[must_use]
    pub fn is_usable(&self, now: i64) -> bool {
        now < self.usable_until.load(Ordering::Relaxed) || mutant::is(Mutant::LeaseUsedAfterExpiry)
    }

    /// Takes `amount` if there is so much; it must be settled later.
    #[must_use]
    pub fn hold(&self, amount: u64, now: i64) -> bool {
        if !self.is_usable(now) {
            return false;
        }
        let wanted = signed(amount);
        let take = |free: i64| (free >= wanted).then(|| free - wanted);
        self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    /// Gives back what was held and charges what was used.
    pub fn settle(&self, held: u64, used: u64) {
        self.used.fetch_add(used, Ordering::Relaxed);
        self.free.fetch_add(signed(held).saturating_sub(signed(used)), Ordering::AcqRel);
    }

    /// What can be held now.
    #[must_use]
    pub fn free(&self) -> u64 {
        unsigned(self.free.load(Ordering::Acquire))
    }

    /// Charged by ended exchanges of this node.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// All that was ever granted to this node.
    #[must_use]
    pub fn granted(&self) -> u64 {
        self.granted.load(Ordering::Relaxed)
    }

    /// All that this node ever gave back.
    #[must_use]
    pub fn returned(&self) -> u64 {
        self.returned.load(Ordering::Relaxed)
    }

    /// Held by running exchanges, as far as the parts were read at one moment.
    #[must_use]
    pub fn held(&self) -> u64 {
        let has = signed(self.granted().saturating_sub(self.returned()));
        unsigned(has.saturating_sub(signed(self.used())).saturating_sub(self.free.load(Ordering::Acquire)))
    }

    /// What the control plane said last.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            limit: self.limit.load(Ordering::Relaxed),
            settled: self.settled.load(Ordering::Relaxed),
            outstanding: self.outstanding.load(Ordering::Relaxed),
            at: self.said_at.load(Ordering::Relaxed),
        }
    }

    /// Takes back at most `most` of what is free, to give it to others.
    pub(super) fn give_back(&self, most: u64) {
        let most = signed(most);
        let take = |free: i64| (free > 0).then(|| free - free.min(most));
        if let Ok(before) = self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, take) {
            self.returned.fetch_add(unsigned(before.min(most)), Ordering::Relaxed);
        }
    }

    /// The control plane's word: cumulative `granted` and `returned`, and how
    /// long it holds. More `returned` than was given back from here has been
    /// taken back, because nothing was heard of this node for too long.
    pub(super) fn renew(&self, granted: u64, returned: u64, ends: i64, usable_until: i64, standing: Standing) {
        let before = self.returned.fetch_max(returned, Ordering::Relaxed);
        self.free.fetch_sub(signed(returned.saturating_sub(before)), Ordering::AcqRel);
        let before = self.granted.fetch_max(granted, Ordering::Relaxed);
        self.free.fetch_add(signed(granted.saturating_sub(before)), Ordering::AcqRel);
        self.ends.store(ends, Ordering::Relaxed);
        self.usable_until.fetch_max(usable_until, Ordering::Relaxed);
        self.limit.store(standing.limit, Ordering::Relaxed);
        self.settled.store(standing.settled, Ordering::Relaxed);
        self.outstanding.store(standing.outstanding, Ordering::Relaxed);
        self.said_at.store(standing.at, Ordering::Relaxed);
    }
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

fn unsigned(amount: i64) -> u64 {
    u64::try_from(amount).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(granted: u64) -> Window {
        let window = Window::new(0, 1000);
        window.renew(granted, 0, 1000, 500, Standing { limit: granted, at: 0, ..Standing::default() });
        window
    }

    #[test]
    fn no_more_is_held_than_was_granted() {
        let window = window(100);
        assert!(window.hold(60, 0) && !window.hold(41, 0) && window.hold(40, 0));
        assert_eq!((window.free(), window.held(), window.used()), (0, 100, 0));
        window.settle(60, 10);
        assert_eq!((window.free(), window.held(), window.used()), (50, 40, 10));
        window.settle(40, 0);
        assert_eq!((window.free(), window.held(), window.used()), (90, 0, 10));
        window.give_back(80);
        assert_eq!((window.free(), window.returned(), window.held()), (10, 80, 0));
    }

    #[test]
    fn a_vendor_that_bills_more_than_was_held_stops_what_follows() {
        let window = window(100);
        assert!(window.hold(10, 0));
        window.settle(10, 150);
        assert!(!window.hold(1, 0));
        window.give_back(10);
        assert_eq!((window.free(), window.returned()), (0, 0));
        window.renew(160, 0, 1000, 500, Standing::default());
        assert_eq!(window.free(), 10);
    }

    #[test]
    fn what_was_taken_back_meanwhile_is_not_used_any_more() {
        let window = window(100);
        assert!(window.hold(30, 0));
        window.renew(100, 70, 1000, 500, Standing::default());
        assert_eq!((window.free(), window.returned(), window.held()), (0, 70, 30));
        window.settle(30, 10);
        assert_eq!((window.free(), window.held()), (20, 0));
        window.renew(100, 100, 1000, 500, Standing::default());
        assert!(!window.hold(1, 0), "even what was held");
    }

    #[test]
    fn a_lease_that_is_too_old_gives_nothing() {
        let window = window(100);
        assert!(window.hold(1, 499) && !window.hold(1, 500));
        assert!(!window.is_over(999) && window.is_over(1000));
        window.renew(100, 0, 1000, 400, Standing::default());
        assert!(window.hold(1, 499), "an older answer shortens nothing");
    }

    proptest! {
        #[test]
        fn the_parts_always_add_up(steps in proptest::collection::vec((0_u8..4, 0_u64..200, 0_u64..300), 0..64)) {
            let window = window(0);
            let (mut held, mut used, mut returned, mut granted) = (Vec::new(), 0, 0, 0);
            for (kind, a, b) in steps {
                match kind {
                    0 => {
                        granted += a;
                        window.renew(granted, 0, 1000, 500, Standing::default());
                    }
                    1 => {
                        let free = granted as i64 - (returned + used + held.iter().sum::<u64>()) as i64;
                        prop_assert_eq!(window.hold(a, 0), free >= a as i64);
                        if free >= a as i64 { held.push(a); }
                    }
                    2 => if let Some(amount) = held.pop() {
                        window.settle(amount, b);
                        used += b;
                    },
                    _ => {
                        let free = granted as i64 - (returned + used + held.iter().sum::<u64>()) as i64;
                        window.give_back(a);
                        returned += (free.max(0) as u64).min(a);
                    }
                }
                prop_assert_eq!((window.used(), window.returned()), (used, returned));
                let free = granted as i64 - (returned + used + held.iter().sum::<u64>()) as i64;
                prop_assert_eq!(window.free(), free.max(0) as u64);
                prop_assert_eq!(window.held(), held.iter().sum::<u64>());
            }
        }
    }
}
