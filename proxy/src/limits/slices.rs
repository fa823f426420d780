//! All slices of this node, by quota.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::slice::{Claim, Granted, Slice};

/// An outage is one from here on, in microseconds.
const OUTAGE: i64 = 1_000_000;
/// A control plane's clock that has moved so far against the clock here from one
/// answer to the next was set, in microseconds; answers take two seconds at most.
const STEP: i64 = 4_000_000;
/// A failure says nothing for longer, in microseconds.
const LATELY: i64 = 5_000_000;

/// Quotas that are not enforced, and remembered for what was used of them.
const MAX_UNNAMED: usize = 10_000;

/// The slices, and word for who fetches more.
#[derive(Debug, Default)]
pub struct Slices {
    map: Mutex<HashMap<Arc<str>, Arc<Slice>>>,
    urgent: Notify,
    /// Somebody waits for a quota of which this node has nothing yet.
    cold: AtomicBool,
    /// Since when calls to the control plane fail, by the boot clock; 0: the
    /// last one did not.
    failing_since: AtomicI64,
    /// When the last call failed that did.
    failed_at: AtomicI64,
    /// How far the control plane's wall clock is ahead of the boot clock here; 0:
    /// not known yet.
    ahead: AtomicI64,
}

impl Slices {
    /// The slice of a quota: the same one for as long as any snapshot names it
    /// or anything of it is held. Asked only while a snapshot is compiled.
    #[must_use]
    pub fn of(&self, quota_id: &str) -> Arc<Slice> {
        let mut map = self.map();
        if let Some(known) = map.get(quota_id) {
            return known.clone();
        }
        let id: Arc<str> = quota_id.into();
        map.entry(id.clone()).or_insert_with(|| Arc::new(Slice::new(id))).clone()
    }

    /// Forgets quotas that no snapshot names, of which nothing is leased and
    /// nothing was used in a window that is not over: should it be enforced
    /// again, what this process used then is still used.
    pub fn forget_unused(&self, now: i64) {
        let mut kept = 0;
        self.map().retain(|_, slice| {
            if Arc::strong_count(slice) > 1 || (slice.has_lease() && !slice.is_gone()) {
                return true;
            }
            let used = slice.is_used(now);
            kept += usize::from(used);
            used && kept <= MAX_UNNAMED
        });
    }

    /// What is to be said of all of them, `most` claims at most; the rest is
    /// said the next time.
    #[must_use]
    pub fn claims(&self, now: i64, most: usize) -> Vec<Claim> {
        let slices: Vec<Arc<Slice>> = self.map().values().cloned().collect();
        let mut out = Vec::new();
        // Those that wait go first.
        let (short, calm): (Vec<_>, Vec<_>) = slices.into_iter().partition(|slice| slice.is_short());
        for slice in short.into_iter().chain(calm) {
            if out.len() >= most {
                break;
            }
            slice.claims(now, &mut out);
        }
        out
    }

    /// Whether anything is leased: then the control plane is asked even when
    /// there is nothing to say, because others may be short.
    #[must_use]
    pub fn any_lease(&self) -> bool {
        self.map().values().any(|slice| slice.has_lease() && !slice.is_gone())
    }

    /// The control plane's word about one quota.
    pub fn renew(&self, quota_id: &str, granted: &Granted, now: i64) {
        let slice = self.map().get(quota_id).cloned();
        if let Some(slice) = slice {
            slice.renew(granted, now);
        }
    }

    /// The control plane knows no such quota.
    pub fn forget(&self, quota_id: &str) {
        let slice = self.map().get(quota_id).cloned();
        if let Some(slice) = slice {
            slice.forget();
        }
    }

    /// Asks for a call to the control plane soon; `cold`: this node has nothing
    /// yet of what is wanted, or has not been short of it lately.
    pub fn wake(&self, cold: bool) {
        if cold {
            self.cold.store(true, Ordering::Relaxed);
        }
        self.urgent.notify_one();
    }

    /// Completes when somebody asked for a call; says whether for something cold.
    pub async fn woken(&self) -> bool {
        self.urgent.notified().await;
        self.cold.swap(false, Ordering::Relaxed)
    }

    /// Claims that may not have arrived.
    pub fn unsaid(&self, claims: &[Claim]) {
        let map = self.map();
        claims.iter().filter_map(|claim| map.get(&claim.quota_id)).for_each(|slice| slice.unsaid());
    }

    /// Notes the control plane's wall clock, as it was said in the answer to a call
    /// made at `asked`. When it was set since the last answer, windows may end
    /// earlier or later than was said: every lease is named in the next call.
    pub fn control_time(&self, micros: i64, asked: i64) {
        let ahead = micros.saturating_sub(asked);
        let before = self.ahead.swap(ahead, Ordering::Relaxed);
        if before != 0 && ahead.saturating_sub(before).saturating_abs() > STEP {
            tracing::warn!(micros = ahead.saturating_sub(before), "the control plane's clock was set");
            self.map().values().for_each(|slice| slice.name_again());
        }
    }

    /// Notes how a call to the control plane ended.
    pub fn called(&self, answered: bool, now: i64) {
        if answered {
            self.failing_since.store(0, Ordering::Relaxed);
        } else {
            self.failed_at.store(now, Ordering::Relaxed);
            let _ = self.failing_since.compare_exchange(0, now.max(1), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether the control plane has been away for a while, and was still lately.
    #[must_use]
    pub fn is_outage(&self, now: i64) -> bool {
        let since = self.failing_since.load(Ordering::Relaxed);
        let late = now.saturating_sub(self.failed_at.load(Ordering::Relaxed)) <= LATELY;
        since != 0 && now.saturating_sub(since) >= OUTAGE && late
    }

    /// What is left in all windows that are now, for the gauge.
    #[must_use]
    pub fn remaining(&self, now: i64) -> u64 {
        let slices: Vec<Arc<Slice>> = self.map().values().cloned().collect();
        slices.iter().filter_map(|slice| slice.window(now)).fold(0, |sum, window| sum.saturating_add(window.free()))
    }

    fn map(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Slice>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_found_again_until_nobody_names_it() {
        let slices = Slices::default();
        let first = slices.of("quo_1");
        assert!(Arc::ptr_eq(&first, &slices.of("quo_1")));
        slices.renew("quo_1", &Granted { granted: 5, ends: i64::MAX, usable_until: 9, ..Granted::default() }, 0);
        assert!(slices.any_lease() && slices.remaining(0) == 5);
        drop(first);
        slices.forget_unused(0);
        assert_eq!(slices.map().len(), 1, "what is leased is given back first");
        slices.forget("quo_1");
        slices.forget_unused(0);
        assert!(slices.map().is_empty() && !slices.any_lease());
    }

    #[test]
    fn what_was_used_is_known_while_its_window_lasts() {
        let slices = Slices::default();
        let first = slices.of("quo_1");
        first.renew(&Granted { granted: 5, ends: 100, usable_until: 9, ..Granted::default() }, 0);
        first.hold(4, 0).expect("fits").settle(4);
        drop(first);
        slices.forget("quo_1");
        slices.forget_unused(99);
        assert_eq!(slices.of("quo_1").window(50).map(|window| window.used()), Some(4), "it may be enforced again");
        slices.forget_unused(100);
        assert!(slices.map().is_empty());
    }

    #[test]
    fn an_outage_begins_with_the_first_failure_and_ends_with_an_answer() {
        let slices = Slices::default();
        assert!(!slices.is_outage(i64::MAX));
        slices.called(false, 10);
        slices.called(false, OUTAGE);
        assert!(!slices.is_outage(OUTAGE) && slices.is_outage(OUTAGE + 10));
        assert!(!slices.is_outage(OUTAGE + LATELY + 1), "nobody has asked since");
        slices.called(true, OUTAGE + 20);
        assert!(!slices.is_outage(i64::MAX));
    }

    #[test]
    fn a_control_plane_whose_clock_is_set_is_asked_where_windows_end() {
        let (slices, day) = (Slices::default(), 86_400_000_000);
        let slice = slices.of("quo_1");
        let granted = Granted { granted: 50, ends: day, usable_until: day, ..Granted::default() };
        slices.renew("quo_1", &granted, 0);
        let _held = slice.hold(5, 0).expect("fits");
        let named = |at| slices.claims(at, 10).len();
        slices.control_time(1 << 50, 1);
        while named(2) > 0 {}
        slices.control_time((1 << 50) + 1_000_000, 1_000_001);
        assert_eq!(named(1_000_002), 0, "a clock that runs");
        slices.control_time((1 << 50) + 3_600_000_000, 2_000_001);
        assert_eq!((named(2_000_002), named(2_000_003)), (1, 0), "once");
        slices.control_time(1 << 50, 3_000_001);
        assert_eq!(named(3_000_002), 1, "and back");
    }

    #[test]
    fn who_waits_is_named_first_and_no_call_grows_without_limit() {
        let slices = Slices::default();
        let all: Vec<_> = (0..100).map(|n| slices.of(&format!("quo_{n}"))).collect();
        for slice in &all {
            slices.renew(slice.id(), &Granted { granted: 5, ends: i64::MAX, usable_until: 9, ..Granted::default() }, 0);
        }
        let waits = all[77].short(10);
        let claims = slices.claims(1 << 40, 10);
        assert_eq!((claims.len(), &*claims[0].quota_id), (10, "quo_77"));
        drop(waits);
    }
}
