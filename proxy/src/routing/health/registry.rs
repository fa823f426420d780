//! The states of all keys, shared by everybody who tries them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::machine::{Admits, Machine, Standing, Verdict};
use super::signal::Signal;
use crate::limits::Slots;

/// Between two probes of one key.
const INTERVAL: Duration = Duration::from_secs(30);
/// Most keys that a later process is told of.
pub const REMEMBERED: usize = 1000;

/// One key's state. While all is well, whoever asks reads one flag and takes no
/// lock.
#[derive(Debug)]
pub struct Health {
    /// Not simply active: what exactly is under the lock.
    troubled: AtomicBool,
    machine: Mutex<Machine>,
    /// Requests that are served with it.
    pub slots: Arc<Slots>,
}

/// Whether a key's standing changed, or another model cools: somebody may want
/// to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct News(pub bool);

/// What is told of a key that some requests are kept from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Apart from limits.
    pub standing: Standing,
    /// Models that cool, each with its end on the clock that is used here.
    pub cooling: Vec<(String, i64)>,
}

impl Health {
    fn new(interval: i64) -> Self {
        Self { troubled: AtomicBool::new(false), machine: Mutex::new(Machine::new(interval)), slots: Arc::default() }
    }

    /// Whether it is active and nothing cools or rests.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        !self.troubled.load(Ordering::Relaxed)
    }

    /// Whether a request for `model` may try it.
    #[must_use]
    pub fn admits(&self, model: &str, now: i64) -> Admits {
        if self.is_calm() { Admits::Yes } else { self.change(now, |machine| machine.admits(model, now)) }
    }

    /// See [`Machine::claim_trial`].
    #[must_use]
    pub fn claim_trial(&self, now: i64) -> bool {
        !self.is_calm() && self.change(now, |machine| machine.claim_trial(now))
    }

    /// See [`Machine::hear`].
    pub fn hear(&self, signal: Signal, model: &str, sent: i64, now: i64) -> News {
        if signal == Signal::Nothing || (signal == Signal::Good && self.is_calm()) {
            return News(false);
        }
        News(self.change(now, |machine| machine.hear(signal, model, sent, now)))
    }

    /// See [`Machine::told`].
    pub fn told(&self, standing: Standing, now: i64) -> News {
        News(self.change(now, |machine| machine.told(standing, now)))
    }

    /// See [`Machine::claim_probe`].
    #[must_use]
    pub fn claim_probe(&self, now: i64) -> bool {
        !self.is_calm() && self.change(now, |machine| machine.claim_probe(now))
    }

    /// See [`Machine::probed`].
    pub fn probed(&self, verdict: Verdict, now: i64) -> News {
        News(self.change(now, |machine| machine.probed(verdict, now)))
    }

    /// What there is to tell; `None`: it is active for every model.
    #[must_use]
    pub fn report(&self, now: i64) -> Option<Report> {
        if self.is_calm() {
            return None;
        }
        self.change(now, |machine| {
            let cooling = machine.cooling().map(|(model, until)| (model.to_owned(), until)).collect();
            (!machine.is_well()).then(|| Report { standing: machine.standing(), cooling })
        })
    }

    fn change<T>(&self, now: i64, act: impl FnOnce(&mut Machine) -> T) -> T {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        machine.expire(now);
        let result = act(&mut machine);
        self.troubled.store(!machine.is_calm(), Ordering::Relaxed);
        result
    }
}

/// All states of this node.
#[derive(Debug)]
pub struct Healths {
    map: Mutex<HashMap<Box<str>, Arc<Health>>>,
    /// What an earlier process knew of keys that no snapshot has named yet.
    recalled: Mutex<HashMap<Box<str>, Report>>,
    interval: i64,
}

impl Default for Healths {
    fn default() -> Self {
        Self::new(INTERVAL)
    }
}

impl Healths {
    /// `interval`: between two probes of one key.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        let interval = i64::try_from(interval.as_micros()).unwrap_or(i64::MAX);
        Self { map: Mutex::default(), recalled: Mutex::default(), interval }
    }

    /// The state of one key as it is configured: `stamp` names it with its secret
    /// and where it leads to. The same one for as long as any snapshot uses it; a
    /// new one begins with what was recalled of it. Asked only while a snapshot is
    /// compiled.
    #[must_use]
    pub fn of(&self, stamp: &str, now: i64) -> Arc<Health> {
        let mut map = self.map();
        if let Some(known) = map.get(stamp) {
            return known.clone();
        }
        let health = Arc::new(Health::new(self.interval));
        if let Some(report) = self.recalled().remove(stamp) {
            health.change(now, |machine| machine.recall(&report, now));
        }
        map.insert(stamp.into(), health.clone());
        health
    }

    /// Takes what an earlier process knew, by the stamps of keys, before the first
    /// snapshot is compiled.
    pub fn recall(&self, known: impl IntoIterator<Item = (String, Report)>) {
        self.recalled().extend(known.into_iter().map(|(stamp, report)| (stamp.into(), report)));
    }

    /// What is worth knowing for a later process, by the stamps of keys; at most
    /// [`REMEMBERED`] of them.
    #[must_use]
    pub fn remember(&self, now: i64) -> BTreeMap<String, Report> {
        let map = self.map();
        let reports = map.iter().filter_map(|(stamp, health)| Some((stamp, health.report(now)?)));
        let reports = reports.map(|(stamp, report)| (stamp.to_string(), report));
        let mut known: BTreeMap<_, _> = reports.take(REMEMBERED).collect();
        let room = REMEMBERED.saturating_sub(known.len());
        known.extend(self.recalled().iter().take(room).map(|(stamp, report)| (stamp.to_string(), report.clone())));
        known
    }

    /// Forgets states that no snapshot uses any more.
    pub fn forget_unused(&self) {
        self.map().retain(|_, health| Arc::strong_count(health) > 1);
    }

    fn recalled(&self) -> MutexGuard<'_, HashMap<Box<str>, Report>> {
        self.recalled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn map(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Health>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_outlives_snapshots_and_another_secret_starts_afresh() {
        let healths = Healths::default();
        let first = healths.of("key_1 1", 0);
        assert_eq!(first.hear(Signal::Refused, "m", 1, 1), News(true));
        assert!(!healths.of("key_1 1", 0).is_calm());
        assert!(healths.of("key_1 2", 0).is_calm());
        healths.forget_unused();
        assert_eq!(healths.map().len(), 1);
    }

    #[test]
    fn a_later_process_takes_up_what_was_known_of_the_same_key() {
        let healths = Healths::default();
        let (bad, limited) = (healths.of("key_1 1", 0), healths.of("key_2 1", 0));
        let _well = healths.of("key_3 1", 0);
        assert!(bad.hear(Signal::Spent, "m", 1, 1).0 && limited.hear(Signal::Limited(50), "m", 1, 1).0);
        let known = healths.remember(2);
        assert_eq!(known.keys().collect::<Vec<_>>(), ["key_1 1", "key_2 1"]);

        let later = Healths::default();
        later.recall(known.clone());
        assert_eq!(later.remember(3), known, "also if it ends before it has a configuration");
        assert_eq!(later.of("key_1 1", 3).admits("m", 3), Admits::No);
        assert_eq!(later.of("key_2 1", 3).admits("m", 3), Admits::Cooling(48));
        assert!(later.of("key_1 2", 3).is_calm(), "another secret starts afresh");
        assert_eq!(later.remember(3), known);
    }

    #[test]
    fn the_flag_follows_the_state() {
        let health = Healths::default().of("key_1", 0);
        assert_eq!((health.report(0), health.hear(Signal::Limited(50), "m", 0, 0)), (None, News(true)));
        let report = health.report(10).expect("cools");
        assert_eq!((report.standing, report.cooling), (Standing::Active, vec![("m".to_owned(), 50)]));
        assert!(!health.is_calm());
        assert_eq!(health.admits("m", 60), Admits::Yes);
        assert!(health.is_calm(), "looked at after its time");
    }
}
