//! Who asks for a window and who is short of it, as this process has seen
//! lately. Losing it costs fairness for some seconds, nothing else.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::quota_windows::WindowKey;

/// For how long, in microseconds, a node counts as one that uses a window.
const ACTIVE: i64 = 30 * 1_000_000;
/// For how long, in microseconds, a shortage is told to others.
const SHORTAGE: i64 = 5 * 1_000_000;
/// Windows that are remembered; beyond, no new one is.
const MAX_WINDOWS: usize = 200_000;
/// Nodes that are remembered of a window.
const MAX_NODES: usize = 256;

/// The memory; share it.
#[derive(Debug, Default)]
pub struct Desk {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    windows: HashMap<WindowKey, Vec<Seen>>,
    /// Windows that somebody is short of, and since when at least.
    short: HashMap<WindowKey, i64>,
    swept_at: i64,
}

/// One node at one window.
#[derive(Debug)]
struct Seen {
    node_id: String,
    at: i64,
    short: i64,
    short_at: i64,
}

impl Desk {
    /// Notes that a node asks for a window or holds some of it, and says how
    /// many others do. `remember` is false for a node that does neither.
    pub fn others(&self, key: &WindowKey, node_id: &str, remember: bool, now: i64) -> i64 {
        let mut inner = self.lock();
        inner.sweep(now);
        let others = inner.windows.get(key).map_or(0, |seen| {
            seen.iter().filter(|seen| seen.node_id != node_id && now.saturating_sub(seen.at) <= ACTIVE).count()
        });
        if remember && let Some(seen) = inner.entry(key, node_id) {
            seen.at = now;
        }
        i64::try_from(others).unwrap_or(i64::MAX)
    }

    /// Notes how much a node is short of; 0: it is not.
    pub fn short(&self, key: &WindowKey, node_id: &str, amount: i64, now: i64) {
        let mut inner = self.lock();
        let Some(seen) = inner.entry(key, node_id) else { return };
        seen.short = amount;
        seen.short_at = now;
        if amount > 0 {
            inner.short.insert(key.clone(), now);
        }
    }

    /// Windows that others are short of, at most `most`.
    pub fn recalls(&self, node_id: &str, most: usize, now: i64) -> Vec<WindowKey> {
        let mut inner = self.lock();
        inner.short.retain(|_, at| now.saturating_sub(*at) <= SHORTAGE);
        let wanted = inner.short.keys().filter(|key| inner.recall(key, node_id, now) > 0);
        wanted.take(most).cloned().collect()
    }

    /// How much the others are short of.
    pub fn recall(&self, key: &WindowKey, node_id: &str, now: i64) -> i64 {
        self.lock().recall(key, node_id, now)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that can panic runs under this lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn recall(&self, key: &WindowKey, node_id: &str, now: i64) -> i64 {
        let Some(seen) = self.windows.get(key) else { return 0 };
        seen.iter()
            .filter(|seen| seen.node_id != node_id && now.saturating_sub(seen.short_at) <= SHORTAGE)
            .fold(0, |sum: i64, seen| sum.saturating_add(seen.short))
    }

    fn entry(&mut self, key: &WindowKey, node_id: &str) -> Option<&mut Seen> {
        if !self.windows.contains_key(key) {
            if self.windows.len() >= MAX_WINDOWS {
                return None;
            }
            self.windows.insert(key.clone(), Vec::new());
        }
        let seen = self.windows.get_mut(key)?;
        match seen.iter().position(|seen| seen.node_id == node_id) {
            Some(at) => seen.get_mut(at),
            None if seen.len() >= MAX_NODES => None,
            None => {
                seen.push(Seen { node_id: node_id.to_owned(), at: 0, short: 0, short_at: 0 });
                seen.last_mut()
            }
        }
    }

    fn sweep(&mut self, now: i64) {
        if now.saturating_sub(self.swept_at) < ACTIVE {
            return;
        }
        self.swept_at = now;
        self.windows.retain(|_, seen| {
            seen.retain(|seen| now.saturating_sub(seen.at) <= ACTIVE);
            !seen.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn key(id: &str) -> WindowKey {
        WindowKey { quota_id: id.into(), start: 0 }
    }

    #[test]
    fn others_count_while_they_are_about() {
        let desk = Desk::default();
        let start = 1000 * SECOND;
        assert_eq!(desk.others(&key("a"), "n1", true, start), 0);
        assert_eq!(desk.others(&key("a"), "n2", true, start + SECOND), 1);
        assert_eq!(desk.others(&key("b"), "n2", true, start + SECOND), 0);
        assert_eq!(desk.others(&key("a"), "n3", false, start + 2 * SECOND), 2);
        assert_eq!(desk.others(&key("a"), "n1", true, start + 20 * SECOND), 1, "n3 was not remembered");
        assert_eq!(desk.others(&key("a"), "n1", true, start + 40 * SECOND), 0);
    }

    #[test]
    fn a_shortage_is_told_to_the_others_until_it_is_met_or_old() {
        let desk = Desk::default();
        let start = 1000 * SECOND;
        desk.others(&key("a"), "n1", true, start);
        desk.short(&key("a"), "n1", 70, start);
        assert_eq!(desk.recall(&key("a"), "n1", start), 0, "not to itself");
        assert_eq!((desk.recalls("n2", 9, start), desk.recalls("n1", 9, start)), (vec![key("a")], Vec::new()));
        assert_eq!(desk.recalls("n2", 0, start), Vec::new());
        assert_eq!(desk.recall(&key("a"), "n2", start + 5 * SECOND), 70);
        assert_eq!(desk.recall(&key("a"), "n2", start + 6 * SECOND), 0);
        desk.short(&key("a"), "n1", 70, start + 7 * SECOND);
        desk.short(&key("a"), "n1", 0, start + 8 * SECOND);
        assert_eq!(desk.recall(&key("a"), "n2", start + 8 * SECOND), 0);
        assert_eq!(desk.recalls("n2", 9, start + 8 * SECOND), Vec::new());
    }
}
