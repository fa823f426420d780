//! Where the keys of a snapshot stand: for metrics, for the control plane, and
//! what the control plane says of them.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use clawgate_shared::proto::node as wire;

use super::model::Snapshot;
use crate::routing::{News, Standing};

/// Most keys that are told of in one report.
const MAX_REPORTED: usize = 1000;

impl Snapshot {
    /// How many keys there are per vendor and state; `now` is monotonic.
    #[must_use]
    pub fn key_counts(&self, now: i64) -> BTreeMap<(&str, &'static str), i64> {
        let mut counts = BTreeMap::new();
        for key in &self.keys {
            let state = match key.health.report(now) {
                None => "active",
                Some(report) if report.standing == Standing::Active => "cooling",
                Some(report) => report.standing.as_str(),
            };
            *counts.entry((&*key.vendor, state)).or_default() += 1;
        }
        counts
    }

    /// Keys that are not simply active; `now` is monotonic, `wall` the same
    /// moment in unix microseconds.
    #[must_use]
    pub fn key_states(&self, now: i64, wall: i64) -> Vec<wire::KeyState> {
        let reports = self.keys.iter().filter_map(|key| Some((key, key.health.report(now)?)));
        let states = reports.map(|(key, report)| wire::KeyState {
            key_id: key.id.to_string(),
            secret_version: key.secret_version,
            state: report.standing.as_str().to_owned(),
            cooling: report
                .cooling
                .into_iter()
                .map(|(model, until)| wire::Cooling {
                    model,
                    until_micros: wall.saturating_add(until.saturating_sub(now)),
                })
                .collect(),
        });
        states.take(MAX_REPORTED).collect()
    }

    /// Takes what other nodes found; see [`Hints`].
    pub fn told(&self, hints: &[Hint], now: i64) -> News {
        let mut any = false;
        for (id, secret_version, standing) in hints {
            let known = self.keys.iter().filter(|key| *key.id == **id && key.secret_version == *secret_version);
            known.for_each(|key| any |= key.health.told(*standing, now).0);
        }
        News(any)
    }
}

/// A key, its secret's version, and how another node found it.
pub type Hint = (String, u64, Standing);

/// What was said last of other nodes' keys: only what is new in it is taken. Two
/// nodes that hear of each other would keep a key exhausted otherwise.
#[derive(Debug, Default)]
pub struct Hints(Mutex<HashSet<Hint>>);

impl Hints {
    /// What `said` has that was not in it before.
    #[must_use]
    pub fn fresh(&self, said: &[wire::KeyState]) -> Vec<Hint> {
        let standing = |word: &str| {
            [Standing::Invalid, Standing::Exhausted].into_iter().find(|standing| standing.as_str() == word)
        };
        let now: HashSet<Hint> = said
            .iter()
            .take(MAX_REPORTED)
            .filter_map(|state| Some((state.key_id.clone(), state.secret_version, standing(&state.state)?)))
            .collect();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = now.difference(&last).cloned().collect();
        *last = now;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::routing::{Key, Signal};

    fn said(id: &str, state: &str) -> wire::KeyState {
        wire::KeyState { key_id: id.into(), secret_version: 1, state: state.into(), cooling: vec![] }
    }

    #[test]
    fn states_are_counted_and_told() {
        let keys: Vec<_> = ["k1", "k2", "k3"].map(|id| Arc::new(Key::sample(id, &[]))).into();
        let snapshot = Snapshot { keys, ..Snapshot::default() };
        let _ = snapshot.keys[0].health.hear(Signal::Limited(50), "m", 0, 0);
        let _ = snapshot.keys[1].health.hear(Signal::Spent, "m", 0, 0);
        let counts = snapshot.key_counts(10);
        let wanted = [(("openai", "active"), 1), (("openai", "cooling"), 1), (("openai", "exhausted"), 1)];
        assert_eq!(counts, BTreeMap::from(wanted));
        let states = snapshot.key_states(10, 1000);
        assert_eq!(states.len(), 2);
        assert_eq!(states[0].cooling, [wire::Cooling { model: "m".into(), until_micros: 1040 }]);
        assert_eq!((states[0].state.as_str(), states[1].state.as_str()), ("active", "exhausted"));
    }

    #[test]
    fn only_what_is_new_is_a_hint() {
        let hints = Hints::default();
        let first = hints.fresh(&[said("k1", "exhausted"), said("k2", "suspect"), said("k3", "nonsense")]);
        assert_eq!(first, [("k1".to_owned(), 1, Standing::Exhausted)]);
        assert!(hints.fresh(&[said("k1", "exhausted")]).is_empty());
        let snapshot = Snapshot { keys: vec![Arc::new(Key::sample("k1", &[]))], ..Snapshot::default() };
        assert_eq!(snapshot.told(&first, 5), News(true));
        assert_eq!(snapshot.told(&first, 6), News(false));
        assert!(hints.fresh(&[]).is_empty());
        assert_eq!(hints.fresh(&[said("k1", "invalid")]).len(), 1);
    }
}
