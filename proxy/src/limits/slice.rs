//! What this node may use of one quota: the window that is now, the one that
//! follows, and those whose exchanges still run.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use clawgate_shared::mutant::{self, Mutant};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::window::{Standing, Window};

/// A slice that nobody used for so long is given back, in microseconds.
const IDLE: i64 = 60_000_000;
/// The next window is asked for so long before this one ends, at most.
const AHEAD: i64 = 30_000_000;
/// A lease is named again when it was not for so long, though nothing changed.
const REFRESH: i64 = 120_000_000;
/// A shortage is the first one after so long without, in microseconds: as long
/// as it takes an idle slice to be given back. So no quota is called for ahead of
/// the others more than once in that time, beside the first call for it.
const PRESSED: i64 = IDLE;
/// A window that is over is remembered for so long: where the control plane's
/// clock is behind, or is set back, it names the window once more, and what was
/// used of it is still used.
const LINGER: i64 = 300_000_000;
/// What is kept in stock, in seconds of what was last taken per second. It is
/// filled up when half of it is gone, and that half is how long admission goes
/// on while the control plane does not answer. Others that are short call it
/// back.
const STOCK_SECONDS: u64 = 45;
/// And never more than one part in so many of what is left of the window.
const STOCK_SHARE: u64 = 4;
/// The same in requests of the last one's size.
const STOCK_REQUESTS: u64 = 4;

/// One quota on this node. In the order in which a request touches it: with many
/// bots each line of it is a trip to memory.
#[derive(Debug)]
#[repr(C)]
pub struct Slice {
    current: ArcSwapOption<Window>,
    /// The last amount held or asked for, and when.
    typical: AtomicU64,
    touched: AtomicI64,
    /// All that was ever held.
    taken: AtomicU64,
    /// Of those that wait.
    wanted: AtomicU64,
    id: Arc<str>,
    gone: AtomicBool,
    /// The smallest amount that was not to be had since the last claim.
    least: AtomicU64,
    others: Mutex<Others>,
    /// When it was last short after a while without.
    pressed: AtomicI64,
    /// Let through in this outage.
    allowed: AtomicU64,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Others {
    next: Option<Arc<Window>>,
    past: Vec<Arc<Window>>,
    told: Told,
}

/// What the last claim said.
#[derive(Debug, Default)]
struct Told {
    at: i64,
    taken: u64,
    returned: u64,
    /// To be named again, though nothing has changed here.
    again: bool,
}

/// What a node says and asks of one window; see the node protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The quota.
    pub quota_id: Arc<str>,
    /// 0: the window that is now.
    pub window_start_micros: i64,
    /// The window after that one.
    pub next: bool,
    /// Cumulative.
    pub granted: u64,
    /// Cumulative.
    pub returned: u64,
    /// Charged.
    pub used: u64,
    /// Hold.
    pub held: u64,
    /// On top of what there is.
    pub want: u64,
    /// Less is of no use.
    pub least: u64,
}

/// What a node has of one window from now on; times by the boot clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// Names the window.
    pub window_start_micros: i64,
    /// When it is over; `i64::MAX`: never.
    pub ends: i64,
    /// It was asked for as the next one.
    pub next: bool,
    /// Cumulative.
    pub granted: u64,
    /// Cumulative.
    pub returned: u64,
    /// How long it may be used.
    pub usable_until: i64,
    /// Of all nodes together.
    pub standing: Standing,
    /// Others are short of so much.
    pub recall: u64,
}

/// An amount of one window, given back when dropped.
#[derive(Debug)]
#[must_use]
pub struct Hold {
    slice: Arc<Slice>,
    window: Arc<Window>,
    amount: u64,
}

impl Hold {
    /// Which quota.
    #[must_use]
    pub fn quota_id(&self) -> &str {
        &self.slice.id
    }

    /// Which window; its name stays when the window is over.
    #[must_use]
    pub fn window_start_micros(&self) -> i64 {
        if mutant::is(Mutant::WindowOfSettle) {
            return self.slice.current.load().as_ref().unwrap_or(&self.window).start_micros();
        }
        self.window.start_micros()
    }

    /// How much.
    #[must_use]
    pub const fn amount(&self) -> u64 {
        self.amount
    }

    /// Takes more of the same window, if there is more.
    #[must_use]
    pub fn extend(&mut self, more: u64, now: i64) -> bool {
        let held = self.window.hold(more, now);
        if held {
            self.amount = self.amount.saturating_add(more);
            // What answers grow by is part of what is kept in stock, which is not
            // idle meanwhile.
            self.slice.taken.fetch_add(more, Ordering::Relaxed);
            self.slice.touched.store(now, Ordering::Relaxed);
        }
        held
    }

    /// Charges what was used, and gives the rest back.
    pub fn settle(mut self, used: u64) {
        self.end(used);
    }

    fn end(&mut self, used: u64) {
        let amount =
            if mutant::is(Mutant::DoubleSettleOnDrop) { self.amount } else { std::mem::take(&mut self.amount) };
        self.window.settle(amount, used);
        self.slice.tell();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.end(0);
        }
    }
}

/// Somebody waits for an amount; ends with the value.
#[derive(Debug)]
#[must_use]
pub struct Shortage<'a> {
    slice: &'a Slice,
    amount: u64,
}

impl Shortage<'_> {
    /// Completes when something has come back or come in since it was called.
    pub fn changed(&self) -> Notified<'_> {
        self.slice.changed.notified()
    }
}

impl Drop for Shortage<'_> {
    fn drop(&mut self) {
        self.slice.wanted.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

impl Slice {
    pub(super) fn new(id: Arc<str>) -> Self {
        Self {
            id,
            current: ArcSwapOption::empty(),
            others: Mutex::default(),
            pressed: AtomicI64::new(i64::MIN),
            wanted: AtomicU64::new(0),
            least: AtomicU64::new(u64::MAX),
            taken: AtomicU64::new(0),
            typical: AtomicU64::new(0),
            touched: AtomicI64::new(i64::MIN),
            gone: AtomicBool::new(false),
            allowed: AtomicU64::new(0),
            changed: Notify::new(),
        }
    }

    /// `quo_…`
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The control plane says that there is no such quota.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// The window that is now, if the control plane has named it.
    #[must_use]
    pub fn window(&self, now: i64) -> Option<Arc<Window>> {
        if let Some(window) = self.current.load().as_ref().filter(|window| !window.is_over(now)) {
            return Some(window.clone());
        }
        self.advance(&mut self.others(), now);
        self.current.load_full().filter(|window| !window.is_over(now))
    }

    /// Takes `amount` from the window that is now.
    #[must_use]
    pub fn hold(self: &Arc<Self>, amount: u64, now: i64) -> Option<Hold> {
        self.typical.store(amount, Ordering::Relaxed);
        self.touched.store(now, Ordering::Relaxed);
        let window = self.window(now)?;
        if !window.hold(amount, now) {
            return None;
        }
        self.taken.fetch_add(amount, Ordering::Relaxed);
        Some(Hold { slice: self.clone(), window, amount })
    }

    /// Says that `amount` was not to be had, and that somebody waits for it.
    pub fn short(&self, amount: u64) -> Shortage<'_> {
        self.least.fetch_min(amount, Ordering::Relaxed);
        self.wanted.fetch_add(amount, Ordering::Relaxed);
        Shortage { slice: self, amount }
    }

    /// Whether it has not been short for a while: then who waits need not stand
    /// behind those that are short all the time.
    #[must_use]
    pub fn first_shortage(&self, now: i64) -> bool {
        let last = self.pressed.load(Ordering::Relaxed);
        let first = now.saturating_sub(last) >= PRESSED;
        first && self.pressed.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether somebody waits for what only the control plane can give.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.least.load(Ordering::Relaxed) != u64::MAX
    }

    /// Whether anything is leased here, the control plane's books may count on.
    #[must_use]
    pub fn has_lease(&self) -> bool {
        let others = self.others();
        let mut windows = self.current.load_full().into_iter().chain(others.next.iter().chain(&others.past).cloned());
        windows.any(|window| has_lease(&window))
    }

    /// Whether anything was used of a window that is not over.
    #[must_use]
    pub fn is_used(&self, now: i64) -> bool {
        self.current.load().as_ref().is_some_and(|window| window.used() > 0 && !window.is_over(now))
    }

    /// What is to be said and asked about this quota now. Gives back what is
    /// idle. Empty when nothing has changed that matters.
    pub fn claims(&self, now: i64, out: &mut Vec<Claim>) {
        let mut others = self.others();
        self.advance(&mut others, now);
        // What is left of a window that is over serves nobody: told once, so that
        // the books are clean early; the end of its hold time does the rest.
        others.past.retain(|window| {
            let before = window.returned();
            window.give_back(u64::MAX);
            if window.returned() > before {
                out.push(self.claim(window, 0, 0));
            }
            has_lease(window) || now.saturating_sub(window.ends()) < LINGER
        });
        let current = self.current.load_full();
        let least = self.least.swap(u64::MAX, Ordering::Relaxed);
        if self.is_gone() && least == u64::MAX {
            return;
        }
        let short = least != u64::MAX;
        let idle = now.saturating_sub(self.touched.load(Ordering::Relaxed)) > IDLE;
        let stock = if idle { 0 } else { self.stock(&others.told, now) };
        let Some(window) = current else {
            if short {
                let want = self.wanted.load(Ordering::Relaxed).max(least).saturating_add(stock);
                out.push(self.cold(want, least));
                let taken = self.taken.load(Ordering::Relaxed);
                others.told = Told { at: now, taken, ..Told::default() };
            }
            return;
        };
        // What is idle goes back, and what is too little for those who wait when
        // no more will come: together with others' rests it may be enough.
        let useless = short && window.free() < least && window.standing().remaining() < least;
        if idle || useless {
            window.give_back(u64::MAX);
        }
        let free = window.free();
        let wanted = self.wanted.load(Ordering::Relaxed).max(if short { least } else { 0 });
        let low = !idle && free < stock / 2;
        let want = if short || low { wanted.saturating_add(stock).saturating_sub(free) } else { 0 };
        let returned = window.returned() != others.told.returned;
        let stale = has_lease(&window) && (others.told.again || now.saturating_sub(others.told.at) > REFRESH);
        if want > 0 || short || returned || stale {
            let typical = self.typical.load(Ordering::Relaxed).max(1);
            out.push(self.claim(&window, want, if short { least } else { typical }));
            let taken = self.taken.load(Ordering::Relaxed);
            others.told = Told { at: now, taken, returned: window.returned(), again: false };
        }
        if !idle && others.next.is_none() && window.ends().saturating_sub(now) < AHEAD {
            out.push(Claim { next: true, want: stock, least: 1, ..self.claim(&window, 0, 0) });
        }
    }

    /// Lets `amount` through without a lease, as long as this outage has not let
    /// through more than `most` by that.
    #[must_use]
    pub fn allow(&self, amount: u64, most: u64) -> bool {
        let add = |before: u64| before.checked_add(amount).filter(|sum| *sum <= most);
        self.allowed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// Takes the control plane's word about one window.
    pub fn renew(&self, granted: &Granted, now: i64) {
        self.gone.store(false, Ordering::Relaxed);
        self.allowed.store(0, Ordering::Relaxed);
        let mut others = self.others();
        let window = self.place(&mut others, granted, now);
        window.renew(granted.granted, granted.returned, granted.ends, granted.usable_until, granted.standing);
        if granted.recall > 0 {
            // What those who wait here can use stays: else two nodes would pass
            // the last of it to and fro.
            let usable = window.free() >= self.typical.load(Ordering::Relaxed);
            let kept = if usable { self.wanted.load(Ordering::Relaxed) } else { 0 };
            window.give_back(granted.recall.min(window.free().saturating_sub(kept)));
        }
        drop(others);
        self.tell();
    }

    /// The last claim may not have arrived: what it gave back is said again.
    pub(super) fn unsaid(&self) {
        self.others().told.returned = u64::MAX;
    }

    /// The control plane's clock was set: where the window ends is asked again.
    pub(super) fn name_again(&self) {
        self.others().told.again = true;
    }

    /// The control plane knows no such quota.
    pub fn forget(&self) {
        // Windows stay as long as they last, with what was used: it may come to be
        // enforced again.
        self.gone.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// The window an answer is about; an unknown one is made.
    fn place(&self, others: &mut Others, granted: &Granted, now: i64) -> Arc<Window> {
        self.advance(others, now);
        let start = granted.window_start_micros;
        let current = self.current.load_full();
        let known = current.iter().chain(&others.next).chain(&others.past).find(|w| w.start_micros() == start);
        if let Some(window) = known.cloned() {
            if current.is_none() && granted.ends > now {
                others.past.retain(|past| !Arc::ptr_eq(past, &window));
                self.current.store(Some(window.clone()));
            }
            return window;
        }
        let window = Arc::new(Window::new(start, granted.ends));
        if current.is_some() && granted.next {
            others.past.extend(others.next.replace(window.clone()));
        } else if current.as_ref().is_some_and(|current| start < current.start_micros()) {
            others.past.push(window.clone());
        } else {
            others.past.extend(current);
            self.current.store(Some(window.clone()));
        }
        window
    }

    /// Moves on to the next window when the current one is over.
    fn advance(&self, others: &mut Others, now: i64) {
        let current = self.current.load_full();
        if !current.as_ref().is_some_and(|window| window.is_over(now)) {
            return;
        }
        others.past.extend(current);
        others.told.returned = 0;
        self.current.store(others.next.take());
    }

    fn stock(&self, told: &Told, now: i64) -> u64 {
        let taken = self.taken.load(Ordering::Relaxed).saturating_sub(told.taken);
        let millis = u64::try_from(now.saturating_sub(told.at) / 1000).unwrap_or(0);
        // A burst is no rate: it counts as what a whole second took.
        let per_second = |least: u64| taken.saturating_mul(1000) / millis.max(least);
        let typical = self.typical.load(Ordering::Relaxed);
        // Where little is left of a window, what is in stock here is what others
        // are short of.
        let most = self.current.load().as_ref().map_or(0, |window| window.standing().remaining() / STOCK_SHARE);
        let lasting = per_second(1000).saturating_mul(STOCK_SECONDS).min(most);
        lasting.max(per_second(100).saturating_mul(2)).max(typical.saturating_mul(STOCK_REQUESTS))
    }

    fn claim(&self, window: &Window, want: u64, least: u64) -> Claim {
        Claim {
            quota_id: self.id.clone(),
            window_start_micros: window.start_micros(),
            next: false,
            granted: window.granted(),
            returned: window.returned(),
            used: window.used(),
            held: window.held(),
            want,
            least,
        }
    }

    fn cold(&self, want: u64, least: u64) -> Claim {
        Claim {
            quota_id: self.id.clone(),
            window_start_micros: 0,
            next: false,
            granted: 0,
            returned: 0,
            used: 0,
            held: 0,
            want,
            least,
        }
    }

    fn tell(&self) {
        if self.wanted.load(Ordering::Relaxed) > 0 {
            self.changed.notify_waiters();
        }
    }

    fn others(&self) -> MutexGuard<'_, Others> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_lease(window: &Window) -> bool {
    window.free() > 0 || window.held() > 0
}

#[cfg(test)]
#[path = "slice_tests.rs"]
mod tests;
