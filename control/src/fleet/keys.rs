//! Where provider keys stand, as nodes found them. Nothing of it is stored: a
//! node that reconnects says it again.

use std::collections::HashMap;

use clawgate_shared::proto::node::KeyState;

use crate::store::provider_keys::ProviderKeyRow;
use crate::store::types::KeyStatus;

/// A model that cools, and until when in unix microseconds.
pub type Cooling = (String, i64);

/// One key, as the nodes that know its present secret found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyLive {
    /// The worst that any of them says, apart from limits.
    worst: Option<KeyStatus>,
    /// On at least one node, with the latest end, by name.
    cooling: Vec<Cooling>,
}

/// Keys that some connected node does not hold for simply active.
#[derive(Clone, Debug, Default)]
pub struct KeyStates(HashMap<(String, u64), KeyLive>);

impl KeyStates {
    /// Puts together what nodes report; what cooled before `now` does no longer.
    #[must_use]
    pub fn merge(reports: impl IntoIterator<Item = KeyState>, now: i64) -> Self {
        let mut keys: HashMap<(String, u64), KeyLive> = HashMap::new();
        for report in reports {
            let live = keys.entry((report.key_id, report.secret_version)).or_default();
            let said = [KeyStatus::Suspect, KeyStatus::Exhausted, KeyStatus::Invalid]
                .into_iter()
                .find(|status| status.as_str() == report.state);
            if badness(said) > badness(live.worst) {
                live.worst = said;
            }
            for cooling in report.cooling.into_iter().filter(|cooling| cooling.until_micros > now) {
                match live.cooling.iter_mut().find(|(model, _)| *model == cooling.model) {
                    Some((_, until)) => *until = cooling.until_micros.max(*until),
                    None => live.cooling.push((cooling.model, cooling.until_micros)),
                }
            }
            live.cooling.sort();
        }
        Self(keys)
    }

    /// How a key with this secret stands; `None`: no node says anything.
    fn of(&self, id: &str, secret_version: u64) -> Option<(KeyStatus, &'static str, &[Cooling])> {
        let live = self.0.get(&(id.to_owned(), secret_version))?;
        let (status, reason) = match live.worst {
            Some(KeyStatus::Suspect) => (KeyStatus::Suspect, "the vendor refused it; it is being asked about"),
            Some(KeyStatus::Invalid) => (KeyStatus::Invalid, "the vendor does not know the key"),
            Some(KeyStatus::Exhausted) => (KeyStatus::Exhausted, "the account has no credit"),
            _ if !live.cooling.is_empty() => (KeyStatus::Cooling, "a limit of the vendor waits to reset"),
            _ => return None,
        };
        Some((status, reason, &live.cooling))
    }

    /// A key with its status as it is now; what is stored of it stands when no
    /// node says anything. Beside it the models that cool, each with its end.
    #[must_use]
    pub fn overlay(&self, mut row: ProviderKeyRow) -> (ProviderKeyRow, Vec<Cooling>) {
        let Some((status, reason, cooling)) = self.of(&row.id, row.secret_version) else { return (row, Vec::new()) };
        row.status = status;
        reason.clone_into(&mut row.status_reason);
        (row, cooling.to_vec())
    }
}

const fn badness(status: Option<KeyStatus>) -> u8 {
    match status {
        Some(KeyStatus::Suspect) => 1,
        Some(KeyStatus::Exhausted) => 2,
        Some(KeyStatus::Invalid) => 3,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use clawgate_shared::proto::node;

    use super::*;

    fn report(state: &str, secret_version: u64, cooling: &[(&str, i64)]) -> KeyState {
        let cooling =
            cooling.iter().map(|(model, at)| node::Cooling { model: (*model).into(), until_micros: *at }).collect();
        KeyState { key_id: "key_1".into(), secret_version, state: state.into(), cooling }
    }

    #[test]
    fn the_worst_of_what_nodes_say_of_the_present_secret_counts() {
        for (reports, wanted) in [
            (vec![], None),
            (vec![report("active", 2, &[("m", 5)])], Some(KeyStatus::Cooling)),
            (vec![report("active", 2, &[("m", 4)])], None),
            (vec![report("suspect", 2, &[]), report("active", 2, &[("m", 5)])], Some(KeyStatus::Suspect)),
            (vec![report("invalid", 2, &[]), report("exhausted", 2, &[])], Some(KeyStatus::Invalid)),
            (vec![report("exhausted", 2, &[]), report("suspect", 2, &[])], Some(KeyStatus::Exhausted)),
            (vec![report("invalid", 1, &[])], None),
            (vec![report("luck", 2, &[])], None),
        ] {
            let states = KeyStates::merge(reports.clone(), 4);
            assert_eq!(states.of("key_1", 2).map(|(status, ..)| status), wanted, "{reports:?}");
        }
        let two = [report("active", 2, &[("b", 5), ("a", 9)]), report("active", 2, &[("b", 7)])];
        let two = KeyStates::merge(two, 0);
        let (_, _, cooling) = two.of("key_1", 2).expect("it cools");
        assert_eq!(cooling, [("a".to_owned(), 9), ("b".to_owned(), 7)]);
    }
}
