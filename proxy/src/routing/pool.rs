//! The keys that may serve one bot at one vendor.

use std::sync::Arc;

use super::health::Admits;
use super::key::Key;
use super::pick::Turn;
use super::strategy::{Indices, Strategy};

/// Compiled per bot and vendor. Empty pools are kept, with the reason.
#[derive(Debug)]
pub struct Pool {
    /// Those that match, ordered by id.
    pub keys: Vec<Arc<Key>>,
    /// Whether any of them has a quota of its own.
    pub any_quotas: bool,
    /// Whether the tenant has any enabled key for the vendor at all.
    pub any_configured: bool,
    /// The bot's turn counter at this vendor.
    pub turn: Arc<Turn>,
    /// The bot's choice.
    pub strategy: Strategy,
}

/// What an exchange wants of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Narrow the choice and never widen it.
    pub tags: &'a [String],
    /// As the client named it; empty: none.
    pub model: &'a str,
    /// Bot and conversation, for `sticky`.
    pub conversation: [&'a str; 2],
    /// `sticky`, whatever the bot's choice: what is made stays with the key.
    pub stays: bool,
    /// Monotonic microseconds.
    pub now: i64,
}

/// No key may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoneLeft {
    /// Microseconds until the first that cools may be; `None`: none cools.
    pub cooling: Option<i64>,
}

/// Candidates in the order in which they are to be tried.
#[derive(Debug)]
pub struct Ordered<'a> {
    keys: &'a [Arc<Key>],
    order: Order,
    given: usize,
}

#[derive(Debug)]
enum Order {
    /// All of them, from this one on.
    Ring(usize),
    List(Indices),
}

impl Pool {
    /// The order when nothing has to be looked at: round robin over keys that
    /// are all well. Neither allocates nor locks.
    #[must_use]
    pub fn quick(&self) -> Option<Ordered<'_>> {
        let quick = self.strategy == Strategy::RoundRobin && self.keys.iter().all(|key| key.health.is_calm());
        quick.then(|| Ordered { keys: &self.keys, order: Order::Ring(self.turn.next(self.keys.len())), given: 0 })
    }

    /// Whether any key may be tried now; takes no turn.
    #[must_use]
    pub fn any_usable(&self, ask: &Ask<'_>) -> bool {
        let usable = |key: &Arc<Key>| !matches!(key.health.admits(ask.model, ask.now), Admits::No | Admits::Cooling(_));
        self.keys.iter().any(|key| key.carries(ask.tags) && usable(key))
    }

    /// The order for one exchange: one key on trial if one is due, then those
    /// that are well as the strategy has them, then those of whose limits nothing
    /// is left, then those under suspicion.
    ///
    /// # Errors
    /// None may be tried now.
    pub fn ordered(&self, ask: &Ask<'_>) -> Result<Ordered<'_>, NoneLeft> {
        let (mut usable, mut resting) = (Indices::new(), Indices::new());
        let (mut suspects, mut list) = (Indices::new(), Indices::new());
        let mut cooling: Option<i64> = None;
        let carrying = self.keys.iter().enumerate().filter(|(_, key)| key.carries(ask.tags));
        for (at, key) in carrying {
            let admits = key.health.admits(ask.model, ask.now);
            let due = matches!(admits, Admits::Trial | Admits::Last { due: true });
            if due && list.is_empty() && key.health.claim_trial(ask.now) {
                list.push(at);
                continue;
            }
            match admits {
                Admits::Yes => usable.push(at),
                Admits::Resting => resting.push(at),
                Admits::Last { .. } => suspects.push(at),
                Admits::Cooling(left) => cooling = Some(cooling.map_or(left, |other| other.min(left))),
                Admits::Trial | Admits::No => {}
            }
        }
        let strategy = if ask.stays { &Strategy::Sticky } else { &self.strategy };
        // An exchange takes one turn, among those that it tries first.
        let first = if usable.is_empty() { &mut resting } else { &mut usable };
        strategy.arrange(first, &self.keys, &self.turn, ask.conversation);
        list.extend(usable);
        list.extend(resting);
        list.extend(suspects);
        if list.is_empty() {
            return Err(NoneLeft { cooling });
        }
        Ok(Ordered { keys: &self.keys, order: Order::List(list), given: 0 })
    }

    /// One key and no other. `None`: it is not among these, or lacks a tag.
    ///
    /// # Errors
    /// It may not be tried now.
    #[must_use]
    pub fn only(&self, id: &str, ask: &Ask<'_>) -> Option<Result<Ordered<'_>, NoneLeft>> {
        let (at, key) =
            self.keys.iter().enumerate().find(|(_, key)| *key.id == *id).filter(|(_, key)| key.carries(ask.tags))?;
        let cooling = match key.health.admits(ask.model, ask.now) {
            Admits::Cooling(left) => Some(left),
            Admits::No => None,
            Admits::Trial if !key.health.claim_trial(ask.now) => None,
            Admits::Yes | Admits::Resting | Admits::Last { .. } | Admits::Trial => {
                return Some(Ok(Ordered {
                    keys: &self.keys,
                    order: Order::List(Indices::from_slice(&[at])),
                    given: 0,
                }));
            }
        };
        Some(Err(NoneLeft { cooling }))
    }
}

impl<'a> Iterator for Ordered<'a> {
    type Item = &'a Arc<Key>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = match &self.order {
            Order::Ring(_) if self.given >= self.keys.len() => return None,
            Order::Ring(start) => (start + self.given).checked_rem(self.keys.len())?,
            Order::List(list) => *list.get(self.given)?,
        };
        self.given += 1;
        self.keys.get(at)
    }
}

/// The tags of an `x-clawgate-tag` header: comma separated, blanks trimmed.
#[must_use]
pub fn required_tags(header: &str) -> Vec<String> {
    header.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{Signal, Turns, Verdict};

    const SECOND: i64 = 1_000_000;

    fn pool(keys: &[(&str, &[&str])]) -> Pool {
        let keys: Vec<_> = keys.iter().map(|(id, tags)| Arc::new(Key::sample(id, tags))).collect();
        let turn = Turns::default().of(&"b".into(), &"v".into());
        Pool { keys, any_quotas: false, any_configured: true, turn, strategy: Strategy::RoundRobin }
    }

    fn ids(pool: &Pool, tags: &[String], now: i64) -> Result<Vec<String>, NoneLeft> {
        let ask = Ask { tags, model: "m", conversation: ["b", ""], stays: false, now };
        Ok(pool.ordered(&ask)?.map(|key| key.id.to_string()).collect())
    }

    fn sorted(pool: &Pool, tags: &[String], now: i64) -> Vec<String> {
        let mut ids = ids(pool, tags, now).expect("some are left");
        ids.sort();
        ids
    }

    #[test]
    fn every_candidate_comes_once_and_the_first_rotates() {
        let pool = pool(&[("k1", &[]), ("k2", &[]), ("k3", &[])]);
        let mut firsts: Vec<_> =
            (0..3).map(|_| pool.quick().and_then(|mut order| order.next()).map(|key| key.id.to_string())).collect();
        firsts.sort();
        assert_eq!(firsts, [Some("k1".into()), Some("k2".into()), Some("k3".into())]);
        assert_eq!(pool.quick().expect("all are well").count(), 3);
        assert_eq!(sorted(&pool, &[], 0).len(), 3);
    }

    #[test]
    fn extra_tags_narrow() {
        let pool = pool(&[("k1", &["a"]), ("k2", &["a", "b"]), ("k3", &["b"])]);
        assert_eq!(sorted(&pool, &required_tags(" a , b"), 0), ["k2"]);
        assert_eq!(sorted(&pool, &required_tags("b"), 0), ["k2", "k3"]);
        assert_eq!(ids(&pool, &required_tags("c"), 0), Err(NoneLeft { cooling: None }));
    }

    #[test]
    fn what_rests_goes_after_the_others_and_in_turn_when_all_do() {
        let pool = pool(&[("k1", &[]), ("k2", &[]), ("k3", &[]), ("k4", &[])]);
        let _ = pool.keys[0].health.hear(Signal::UsedUp(30), "m", 0, 0);
        let _ = pool.keys[3].health.hear(Signal::Refused, "m", 0, 0);
        assert!(pool.quick().is_none());
        for _ in 0..4 {
            let order = ids(&pool, &[], 1).expect("some are left");
            assert_eq!(order[2..], ["k1", "k4"], "{order:?}");
        }
        let _ = pool.keys[1].health.hear(Signal::UsedUp(30), "m", 0, 0);
        let _ = pool.keys[2].health.hear(Signal::UsedUp(30), "m", 0, 0);
        let mut firsts: Vec<_> = (0..3).map(|_| ids(&pool, &[], 1).expect("all may be tried")[0].clone()).collect();
        firsts.sort();
        assert_eq!(firsts, ["k1", "k2", "k3"], "nothing is refused for it");
        let ask = Ask { tags: &[], model: "m", conversation: ["b", ""], stays: false, now: 1 };
        assert!(pool.any_usable(&ask));
        assert_eq!(sorted(&pool, &[], 30), ["k1", "k2", "k3", "k4"]);
    }

    #[test]
    fn a_named_key_is_the_only_one_and_what_is_made_stays_with_one() {
        let pool = pool(&[("k1", &[]), ("k2", &["a"]), ("k3", &[])]);
        let ask = |tags, stays| Ask { tags, model: "m", conversation: ["b", ""], stays, now: SECOND };
        let tag = ["a".to_owned()];
        let only = |id: &str| {
            pool.only(id, &ask(&[], false)).map(|order| order.map(|keys| keys.map(|key| key.id.to_string()).collect()))
        };
        for id in ["k1", "k2", "k2"] {
            assert_eq!(only(id), Some(Ok(vec![id.to_owned()])));
        }
        assert_eq!(only("k4"), None);
        assert!(pool.only("k1", &ask(&tag, false)).is_none());
        let _ = pool.keys[0].health.hear(Signal::Limited(30 * SECOND), "m", 0, 0);
        assert_eq!(only("k1"), Some(Err(NoneLeft { cooling: Some(29 * SECOND) })));
        let _ = pool.keys[1].health.hear(Signal::Spent, "m", 1, 1);
        assert_eq!(only("k2"), Some(Err(NoneLeft { cooling: None })));
        let firsts = |_| pool.ordered(&ask(&[], true)).ok().and_then(|mut keys| keys.next()).map(|key| key.id.clone());
        let firsts: Vec<_> = (0..9).map(firsts).collect();
        assert!(firsts.iter().all(|first| *first == firsts[0]));
    }

    #[test]
    fn what_cools_is_left_out_and_the_first_to_come_back_is_known() {
        let pool = pool(&[("k1", &[]), ("k2", &[]), ("k3", &[])]);
        for (key, wait) in pool.keys.iter().zip([30, 20]) {
            let _ = key.health.hear(Signal::Limited(wait * SECOND), "m", 0, 0);
        }
        assert!(pool.quick().is_none());
        assert_eq!(sorted(&pool, &[], SECOND), ["k3"]);
        let tagged = ["x".to_owned()];
        let ask = |tags, now| Ask { tags, model: "m", conversation: ["bot", ""], stays: false, now };
        assert!(pool.any_usable(&ask(&[], SECOND)) && !pool.any_usable(&ask(&tagged, SECOND)));
        let _ = pool.keys[2].health.hear(Signal::Limited(40 * SECOND), "m", 0, 0);
        assert!(!pool.any_usable(&ask(&[], SECOND)));
        assert_eq!(ids(&pool, &[], SECOND), Err(NoneLeft { cooling: Some(19 * SECOND) }));
        assert!(pool.any_usable(&ask(&[], 31 * SECOND)));
        assert_eq!(sorted(&pool, &[], 31 * SECOND), ["k1", "k2"]);
        assert_eq!(sorted(&pool, &[], 41 * SECOND).len(), 3);
        assert!(pool.quick().is_some());
    }

    #[test]
    fn suspects_come_last_invalid_ones_not_at_all_and_one_trial_first() {
        let pool = pool(&[("k1", &[]), ("k2", &[]), ("k3", &[]), ("k4", &[])]);
        let _ = pool.keys[0].health.hear(Signal::Refused, "m", 1, 1);
        let _ = pool.keys[1].health.hear(Signal::Refused, "m", 1, 1);
        let _ = pool.keys[1].health.probed(Verdict::Refused, 2);
        let _ = pool.keys[2].health.hear(Signal::Spent, "m", 1, 1);
        assert_eq!(ids(&pool, &[], 3), Ok(vec!["k4".to_owned(), "k1".to_owned()]));
        let _ = pool.keys[3].health.hear(Signal::Spent, "m", 1, 1);
        assert_eq!(ids(&pool, &[], 3), Ok(vec!["k1".to_owned()]), "a suspect is better than nothing");
        let later = 31 * SECOND;
        assert_eq!(ids(&pool, &[], later), Ok(vec!["k1".to_owned()]), "its trial");
        assert_eq!(ids(&pool, &[], later), Ok(vec!["k3".to_owned(), "k1".to_owned()]));
        assert_eq!(ids(&pool, &[], later), Ok(vec!["k4".to_owned(), "k1".to_owned()]));
        assert_eq!(ids(&pool, &[], later), Ok(vec!["k1".to_owned()]));
        let _ = pool.keys[0].health.probed(Verdict::Refused, later);
        assert_eq!(ids(&pool, &[], later), Err(NoneLeft { cooling: None }));
    }
}
