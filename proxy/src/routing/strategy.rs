//! In which order the keys of a pool are tried. Pure but for the counters it is
//! given.

use std::cmp::Reverse;
use std::sync::Arc;

use smallvec::SmallVec;

use super::key::Key;
use super::pick::Turn;
use super::weights::schedule;

/// Indices into a pool's keys; on the stack for pools of a usual size.
pub type Indices = SmallVec<[usize; 16]>;

/// How a bot wants its keys chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Exactly in turn.
    #[default]
    RoundRobin,
    /// In turn by weight: which key has each turn.
    Weighted(Box<[u32]>),
    /// The highest priority there is; in turn among equals.
    Priority,
    /// The key with the fewest requests on this node.
    LeastUsed,
    /// One conversation stays with one key, on every node.
    Sticky,
}

impl Strategy {
    /// By its word, for a pool of `keys`. `None`: not one of the five; empty
    /// counts as `round_robin`.
    #[must_use]
    pub fn parse(word: &str, keys: &[Arc<Key>]) -> Option<Self> {
        Some(match word {
            "" | "round_robin" => Self::RoundRobin,
            "weighted" => Self::Weighted(schedule(&keys.iter().map(|key| key.weight).collect::<Vec<_>>())),
            "priority" => Self::Priority,
            "least_used" => Self::LeastUsed,
            "sticky" => Self::Sticky,
            _ => return None,
        })
    }

    /// Puts `usable` (ascending indices into `keys`) in order.
    pub fn arrange(&self, usable: &mut Indices, keys: &[Arc<Key>], turn: &Turn, conversation: [&str; 2]) {
        let count = usable.len();
        match self {
            Self::RoundRobin => usable.rotate_left(turn.next(count)),
            Self::Weighted(turns) => {
                let start = turn.next(turns.len());
                let from_here = turns.iter().cycle().skip(start).take(turns.len());
                let first = from_here.filter_map(|at| usable.binary_search(&(*at as usize)).ok()).next();
                usable.rotate_left(first.unwrap_or(0));
            }
            Self::Priority => {
                let priority = |at: usize| keys.get(at).map_or(i32::MIN, |key| key.priority);
                usable.sort_by_key(|at| Reverse(priority(*at)));
                let highest = usable.first().map(|at| priority(*at));
                let equals = usable.iter().take_while(|at| Some(priority(**at)) == highest).count();
                if let Some(equals) = usable.get_mut(..equals) {
                    let count = equals.len();
                    equals.rotate_left(turn.next(count));
                }
            }
            Self::LeastUsed => {
                usable.rotate_left(turn.next(count));
                // Read once: they change while they are sorted.
                let load = |at: usize| keys.get(at).and_then(|key| key.slots.as_ref()).map_or(0, |slots| slots.taken());
                let mut loads: SmallVec<[(u32, usize); 16]> = usable.iter().map(|at| (load(*at), *at)).collect();
                loads.sort_by_key(|(load, _)| *load);
                usable.clear();
                usable.extend(loads.into_iter().map(|(_, at)| at));
            }
            Self::Sticky => {
                let score = |at: usize| keys.get(at).map_or(0, |key| rendezvous(conversation, &key.id));
                usable.sort_unstable_by_key(|at| Reverse(score(*at)));
            }
        }
    }
}

/// How much a key attracts a conversation; the same on every node.
fn rendezvous([bot, conversation]: [&str; 2], key: &str) -> u64 {
    let bytes = [bot, conversation, key].into_iter().flat_map(|text| text.bytes().chain([0]));
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // FNV alone leaves keys that differ in their last byte close together.
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Slots;

    fn keys(count: usize) -> Vec<Arc<Key>> {
        (0..count).map(|number| Arc::new(Key::sample(&format!("key_{number}"), &[]))).collect()
    }

    /// The first choices of `turns` exchanges among `usable`.
    fn firsts(strategy: &Strategy, keys: &[Arc<Key>], usable: &[usize], turns: usize) -> Vec<usize> {
        let turn = Turn::default();
        let mut counts = vec![0; keys.len()];
        for _ in 0..turns {
            let mut order = Indices::from_slice(usable);
            strategy.arrange(&mut order, keys, &turn, ["bot", "c"]);
            let mut sorted = order.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, usable, "every key once");
            counts[order[0]] += 1;
        }
        counts
    }

    #[test]
    fn turns_are_exact_among_those_that_are_usable() {
        let keys = keys(4);
        assert_eq!(firsts(&Strategy::RoundRobin, &keys, &[0, 1, 2, 3], 400), [100, 100, 100, 100]);
        assert_eq!(firsts(&Strategy::RoundRobin, &keys, &[0, 2, 3], 300), [100, 0, 100, 100]);
    }

    #[test]
    fn weights_share_and_the_rest_takes_over() {
        let mut keys = keys(3);
        for (key, weight) in keys.iter_mut().zip([6, 3, 1]) {
            Arc::get_mut(key).expect("one owner").weight = weight;
        }
        let strategy = Strategy::parse("weighted", &keys).expect("known");
        assert_eq!(firsts(&strategy, &keys, &[0, 1, 2], 1000), [600, 300, 100]);
        let rest = firsts(&strategy, &keys, &[1, 2], 1000);
        assert!(rest[0] == 0 && rest[1] > rest[2] && rest[2] >= 100, "{rest:?}");
    }

    #[test]
    fn the_highest_priority_goes_first_and_equals_in_turn() {
        let mut keys = keys(4);
        for (key, priority) in keys.iter_mut().zip([0, 5, 5, -1]) {
            Arc::get_mut(key).expect("one owner").priority = priority;
        }
        assert_eq!(firsts(&Strategy::Priority, &keys, &[0, 1, 2, 3], 100), [0, 50, 50, 0]);
        assert_eq!(firsts(&Strategy::Priority, &keys, &[0, 3], 100), [100, 0, 0, 0]);
    }

    #[test]
    fn the_least_used_goes_first_and_idle_ones_in_turn() {
        let mut keys = keys(3);
        let slots: Vec<Arc<Slots>> = (0..3).map(|_| Arc::default()).collect();
        for (key, slots) in keys.iter_mut().zip(&slots) {
            Arc::get_mut(key).expect("one owner").slots = Some(slots.clone());
        }
        assert_eq!(firsts(&Strategy::LeastUsed, &keys, &[0, 1, 2], 300), [100, 100, 100]);
        let _busy = (slots[0].take(), slots[1].take());
        assert_eq!(firsts(&Strategy::LeastUsed, &keys, &[0, 1, 2], 10), [0, 0, 10]);
    }

    #[test]
    fn a_conversation_stays_and_moves_only_when_its_key_is_gone() {
        let keys = keys(5);
        let turn = Turn::default();
        let order = |usable: &[usize], conversation: &str| {
            let mut order = Indices::from_slice(usable);
            Strategy::Sticky.arrange(&mut order, &keys, &turn, ["bot", conversation]);
            order.to_vec()
        };
        let mut counts = [0; 5];
        for number in 0..1000 {
            let conversation = format!("s{number}");
            let all = order(&[0, 1, 2, 3, 4], &conversation);
            assert_eq!(all, order(&[0, 1, 2, 3, 4], &conversation));
            counts[all[0]] += 1;
            let rest: Vec<usize> = (0..5).filter(|at| *at != all[0]).collect();
            assert_eq!(order(&rest, &conversation)[0], all[1], "spills to the second");
            let others: Vec<usize> = (0..5).filter(|at| *at != all[4]).collect();
            assert_eq!(order(&others, &conversation)[0], all[0], "another's absence moves nothing");
        }
        assert!(counts.iter().all(|count| (120..=280).contains(count)), "{counts:?}");
    }
}
