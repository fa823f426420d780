//! What this node knows of ids. Pure: time comes in.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Ids whose maker is remembered; the oldest goes first, and can be asked for
/// again.
pub const MAX_KNOWN: usize = 65_536;
/// Ids that are remembered to be nobody's.
const MAX_NOBODY: usize = 4096;
/// For so long such a word counts, in microseconds: another node may be about to
/// tell.
const NOBODY_FOR: i64 = 1_000_000;
/// After so long the control plane is asked again, which keeps it from forgetting
/// what is used; microseconds.
const OLD_AFTER: i64 = 12 * 3600 * 1_000_000;

/// Who made something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker {
    /// `bot_…`
    pub bot: Arc<str>,
    /// `key_…`
    pub key: Arc<str>,
}

/// What is known of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Who made it.
    Known(Maker),
    /// The same, and it is time to ask again.
    Old(Maker),
    /// The control plane knew of none just now.
    Nobody,
    /// Nothing.
    Unknown,
}

/// A bounded memory.
#[derive(Debug, Default)]
pub struct Known {
    makers: HashMap<Arc<str>, (Maker, i64)>,
    /// In the order in which they came.
    order: VecDeque<Arc<str>>,
    nobody: HashMap<Arc<str>, i64>,
}

impl Known {
    /// This node saw it being made. Whoever was known first stays: no vendor gives
    /// an id twice.
    pub fn made(&mut self, tenant: &str, vendor: &str, id: &str, maker: &Maker, now: i64) {
        let name = name(tenant, vendor, id);
        self.nobody.remove(&name);
        if !self.makers.contains_key(&name) {
            self.put(name, maker.clone(), now);
        }
    }

    /// The control plane's word.
    pub fn heard(&mut self, tenant: &str, vendor: &str, id: &str, maker: Option<&Maker>, now: i64) {
        let name = name(tenant, vendor, id);
        match (maker, self.makers.get_mut(&name)) {
            (Some(maker), Some(place)) => *place = (maker.clone(), now),
            (Some(maker), None) => self.put(name, maker.clone(), now),
            // It may not have heard yet of what was made here.
            (None, Some(_)) => {}
            (None, None) => {
                if self.nobody.len() >= MAX_NOBODY {
                    self.nobody.clear();
                }
                self.nobody.insert(name, now);
            }
        }
    }

    /// What is known at `now`.
    #[must_use]
    pub fn look(&self, tenant: &str, vendor: &str, id: &str, now: i64) -> Look {
        let name = name(tenant, vendor, id);
        if let Some((maker, since)) = self.makers.get(&name) {
            let old = now.saturating_sub(*since) >= OLD_AFTER;
            return if old { Look::Old(maker.clone()) } else { Look::Known(maker.clone()) };
        }
        let fresh = |since: &i64| now.saturating_sub(*since) < NOBODY_FOR;
        if self.nobody.get(&name).is_some_and(fresh) { Look::Nobody } else { Look::Unknown }
    }

    fn put(&mut self, name: Arc<str>, maker: Maker, now: i64) {
        if self.makers.len() >= MAX_KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.makers.remove(&oldest);
        }
        self.order.push_back(name.clone());
        self.makers.insert(name, (maker, now));
    }
}

/// No part of it holds a zero but an id that is nobody's.
fn name(tenant: &str, vendor: &str, id: &str) -> Arc<str> {
    format!("{tenant}\0{vendor}\0{id}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maker(bot: &str) -> Maker {
        Maker::new(bot, "key_1")
    }

    #[test]
    fn the_first_maker_stays_and_the_control_plane_has_the_last_word() {
        let mut known = Known::default();
        let look = |known: &Known, now| known.look("t", "v", "x", now);
        assert_eq!(look(&known, 0), Look::Unknown);
        known.heard("t", "v", "x", None, 0);
        assert_eq!(look(&known, NOBODY_FOR - 1), Look::Nobody);
        assert_eq!(look(&known, NOBODY_FOR), Look::Unknown);
        known.made("t", "v", "x", &maker("a"), 5);
        known.made("t", "v", "x", &maker("b"), 6);
        known.heard("t", "v", "x", None, 7);
        assert_eq!(look(&known, 7), Look::Known(maker("a")));
        assert_eq!(look(&known, 5 + OLD_AFTER), Look::Old(maker("a")));
        known.heard("t", "v", "x", Some(&maker("c")), 5 + OLD_AFTER);
        assert_eq!(look(&known, 5 + OLD_AFTER), Look::Known(maker("c")));
        assert_eq!(known.look("t", "w", "x", 7), Look::Unknown);
    }

    #[test]
    fn both_memories_are_bounded() {
        let mut known = Known::default();
        for number in 0..MAX_KNOWN + 9 {
            known.made("t", "v", &number.to_string(), &maker("a"), 0);
            known.heard("t", "v", &format!("x{number}"), None, 0);
        }
        assert_eq!((known.makers.len(), known.order.len()), (MAX_KNOWN, MAX_KNOWN));
        assert!(known.nobody.len() <= MAX_NOBODY);
        assert_eq!(known.look("t", "v", "8", 0), Look::Unknown);
        assert_eq!(known.look("t", "v", "9", 0), Look::Known(maker("a")));
    }
}
