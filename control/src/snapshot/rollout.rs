//! Who holds what: every connected node process, what it acked or refused, and
//! the nodes that were here a short while ago.
//!
//! A node id can have two processes for a moment (an upgrade), so sessions are
//! counted, not ids: a rollout is over when each of them has answered.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clawgate_shared::clock;
use clawgate_shared::proto::node::{KeyState, NodeStatus, Version};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a node that went away still counts as `disconnected`.
pub const RECENT: Duration = Duration::from_secs(15 * 60);
/// Longest nack reason that is kept, in bytes.
const MAX_REASON: usize = 2048;

/// How far one revision has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolloutCounts {
    /// Connected, and serves this revision or a later one.
    pub acked: u32,
    /// Connected, and refused this revision or a later one.
    pub nacked: u32,
    /// Connected, no answer yet.
    pub pending: u32,
    /// Seen in the last 15 minutes, not connected now.
    pub disconnected: u32,
}

impl RolloutCounts {
    /// Whether every node known of late serves the revision.
    #[must_use]
    pub const fn complete(&self) -> bool {
        self.nacked == 0 && self.pending == 0 && self.disconnected == 0
    }
}

impl fmt::Display for RolloutCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked, nacked, pending, disconnected } = self;
        write!(f, "acked={acked} nacked={nacked} pending={pending} disconnected={disconnected}")
    }
}

/// Names one Subscribe stream; never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(u64);

/// What is known of one node process while it is connected, and for
/// [`RECENT`] afterwards.
#[derive(Clone, Debug)]
pub struct NodeLive {
    /// `node_…`
    pub node_id: String,
    /// Random per process.
    pub instance_id: String,
    /// The node's software version.
    pub software: String,
    /// Whether its stream is open.
    pub connected: bool,
    /// What it serves.
    pub acked: Option<Version>,
    /// What it refused last, unless it acked something since.
    pub nacked: Option<Version>,
    /// Why, in its own words.
    pub nack_reason: Option<String>,
    /// When it acked or refused last, unix microseconds.
    pub answered_at: i64,
    /// Unix microseconds.
    pub last_seen: i64,
    /// As last reported.
    pub status: NodeStatus,
}

#[derive(Default)]
struct Inner {
    next_session: u64,
    sessions: BTreeMap<SessionId, NodeLive>,
    /// Nodes seen by an earlier process of the control plane.
    remembered: BTreeMap<String, i64>,
    /// Nodes that were revoked while their stream was open.
    revoked: BTreeSet<String>,
}

/// The registry. All methods are quick and never block on IO.
pub struct Rollout {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { inner: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Rollout {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that can panic runs under this lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Nodes from the database, so that a restart of the control plane does
    /// not forget who is missing: ids with the time they were last seen.
    pub fn remember(&self, nodes: impl IntoIterator<Item = (String, i64)>) {
        self.lock().remembered.extend(nodes);
    }

    /// A node's stream has opened. An older stream of the same process is
    /// taken for dead: a process has one.
    pub fn connect(&self, node_id: &str, instance_id: &str, software: &str, have: Option<Version>) -> SessionId {
        let mut inner = self.lock();
        inner.next_session += 1;
        let id = SessionId(inner.next_session);
        inner.sessions.retain(|_, old| {
            let same_process = old.node_id == node_id && old.instance_id == instance_id;
            let gone = old.node_id == node_id && !old.connected;
            !(same_process || gone)
        });
        inner.remembered.remove(node_id);
        inner.sessions.insert(
            id,
            NodeLive {
                node_id: node_id.to_owned(),
                instance_id: instance_id.to_owned(),
                software: software.to_owned(),
                connected: true,
                acked: have,
                nacked: None,
                nack_reason: None,
                answered_at: clock::now_micros(),
                last_seen: clock::now_micros(),
                status: NodeStatus::default(),
            },
        );
        drop(inner);
        self.notify();
        id
    }

    /// The node was revoked: nobody waits for it or misses it from now on.
    pub fn forget(&self, node_id: &str) {
        let mut inner = self.lock();
        inner.remembered.remove(node_id);
        inner.sessions.retain(|_, node| node.connected || node.node_id != node_id);
        if inner.sessions.values().any(|node| node.node_id == node_id) {
            inner.revoked.insert(node_id.to_owned());
        }
        drop(inner);
        self.notify();
    }

    /// The stream has closed.
    pub fn disconnect(&self, session: SessionId) {
        let mut inner = self.lock();
        let gone = inner.sessions.get(&session).filter(|node| inner.revoked.contains(&node.node_id));
        if let Some(node_id) = gone.map(|node| node.node_id.clone()) {
            inner.sessions.remove(&session);
            if !inner.sessions.values().any(|node| node.node_id == node_id) {
                inner.revoked.remove(&node_id);
            }
        }
        if let Some(node) = inner.sessions.get_mut(&session) {
            node.connected = false;
            node.last_seen = clock::now_micros();
        }
        let horizon = clock::now_micros() - micros(RECENT);
        inner.sessions.retain(|_, node| node.connected || node.last_seen >= horizon);
        drop(inner);
        self.notify();
    }

    /// The node serves `version` now.
    pub fn ack(&self, session: SessionId, version: Version) {
        self.update(session, |node| {
            node.acked = Some(version);
            node.answered_at = clock::now_micros();
            node.nacked = None;
            node.nack_reason = None;
        });
        self.notify();
    }

    /// The node refused `version` and keeps what it had.
    pub fn nack(&self, session: SessionId, version: Version, reasons: &[String]) {
        self.update(session, |node| {
            node.nacked = Some(version);
            node.answered_at = clock::now_micros();
            node.nack_reason = Some(bounded(&reasons.join("; ")));
        });
        self.notify();
    }

    /// The node's report. Wakes others when it found other keys bad than before.
    pub fn report(&self, session: SessionId, status: NodeStatus) {
        let mut other_keys = false;
        self.update(session, |node| {
            other_keys = bad_keys(&status).ne(bad_keys(&node.status));
            node.status = status;
        });
        if other_keys {
            self.notify();
        }
    }

    /// What connected nodes say of provider keys.
    #[must_use]
    pub fn key_states(&self) -> Vec<KeyState> {
        let inner = self.lock();
        let connected = inner.sessions.values().filter(|node| node.connected);
        connected.flat_map(|node| node.status.keys.iter().cloned()).collect()
    }

    /// Keys that other nodes than this one found invalid or exhausted, by id.
    #[must_use]
    pub fn bad_keys_elsewhere(&self, node_id: &str) -> Vec<KeyState> {
        let inner = self.lock();
        let others = inner.sessions.values().filter(|node| node.connected && node.node_id != node_id);
        let found: BTreeSet<(&str, u64, &str)> = others
            .flat_map(|node| bad_keys(&node.status))
            .map(|key| (key.key_id.as_str(), key.secret_version, key.state.as_str()))
            .collect();
        let state = |(id, secret_version, state): (&str, u64, &str)| KeyState {
            key_id: id.to_owned(),
            secret_version,
            state: state.to_owned(),
            cooling: Vec::new(),
        };
        found.into_iter().map(state).collect()
    }

    fn update(&self, session: SessionId, change: impl FnOnce(&mut NodeLive)) {
        if let Some(node) = self.lock().sessions.get_mut(&session) {
            node.last_seen = clock::now_micros();
            change(node);
        }
    }

    /// Whether this process of this node has its stream open.
    #[must_use]
    pub fn is_connected(&self, node_id: &str, instance_id: &str) -> bool {
        self.lock()
            .sessions
            .values()
            .any(|node| node.connected && node.node_id == node_id && node.instance_id == instance_id)
    }

    /// How many nodes have a stream open; two processes of one node are one.
    #[must_use]
    pub fn connected_nodes(&self) -> u32 {
        let inner = self.lock();
        let connected = inner.sessions.values().filter(|node| node.connected && !inner.revoked.contains(&node.node_id));
        let ids: BTreeSet<&str> = connected.map(|node| node.node_id.as_str()).collect();
        u32::try_from(ids.len()).unwrap_or(u32::MAX)
    }

    /// Every process known of late, in the order they connected.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeLive> {
        self.lock().sessions.values().cloned().collect()
    }

    /// Where `revision` stands now.
    #[must_use]
    pub fn counts(&self, revision: u64) -> RolloutCounts {
        let inner = self.lock();
        let mut counts = RolloutCounts::default();
        let mut connected = BTreeSet::new();
        let known = |node: &&NodeLive| !inner.revoked.contains(&node.node_id);
        for node in inner.sessions.values().filter(known).filter(|node| node.connected) {
            connected.insert(node.node_id.as_str());
            let reached = |version: &Option<Version>| version.as_ref().is_some_and(|v| v.revision >= revision);
            if reached(&node.acked) {
                counts.acked += 1;
            } else if reached(&node.nacked) {
                counts.nacked += 1;
            } else {
                counts.pending += 1;
            }
        }
        let horizon = clock::now_micros() - micros(RECENT);
        let seen = inner.sessions.values().filter(known).map(|node| (node.node_id.as_str(), node.last_seen));
        let remembered = inner.remembered.iter().map(|(id, at)| (id.as_str(), *at));
        let absent: BTreeSet<&str> = seen
            .chain(remembered)
            .filter(|(id, at)| *at >= horizon && !connected.contains(id))
            .map(|(id, _)| id)
            .collect();
        counts.disconnected = u32::try_from(absent.len()).unwrap_or(u32::MAX);
        counts
    }

    /// Returns as soon as every connected node has answered for this or a later
    /// revision, at the latest after `wait`.
    pub async fn wait(&self, revision: u64, wait: Duration) -> RolloutCounts {
        let mut changed = self.changed.subscribe();
        let deadline = Instant::now() + wait;
        loop {
            let counts = self.counts(revision);
            if counts.pending == 0 {
                return counts;
            }
            match tokio::time::timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return self.counts(revision),
            }
        }
    }

    /// Wakes whenever [`Self::counts`] may have changed: for the live stream
    /// and for the task that writes states to the database.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

fn bad_keys(status: &NodeStatus) -> impl Iterator<Item = &KeyState> {
    status.keys.iter().filter(|key| matches!(key.state.as_str(), "invalid" | "exhausted"))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn bounded(text: &str) -> String {
    let mut end = text.len().min(MAX_REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn version(revision: u64) -> Version {
        Version { generation: 1, revision, hash: format!("h{revision}") }
    }

    #[tokio::test]
    async fn a_wait_ends_when_every_connected_node_has_answered() {
        let rollout = Arc::new(Rollout::default());
        assert!(rollout.wait(5, Duration::from_secs(30)).await.complete(), "no node: nothing to wait for");
        let a = rollout.connect("node_a", "1", "0.1.0", None);
        let b = rollout.connect("node_b", "1", "0.1.0", Some(version(4)));
        let waiting = tokio::spawn({
            let rollout = Arc::clone(&rollout);
            async move { rollout.wait(5, Duration::from_secs(30)).await }
        });
        rollout.ack(a, version(6));
        assert_eq!(rollout.counts(5), RolloutCounts { acked: 1, pending: 1, ..RolloutCounts::default() });
        rollout.nack(b, version(5), &["poisoned".into()]);
        let counts = waiting.await.expect("no panic");
        assert_eq!(counts.to_string(), "acked=1 nacked=1 pending=0 disconnected=0");
        rollout.ack(b, version(7));
        assert!(rollout.counts(7).pending == 1 && rollout.counts(6).complete());
    }

    #[tokio::test]
    async fn a_wait_ends_at_its_time_and_when_the_silent_node_goes_away() {
        let rollout = Rollout::default();
        let a = rollout.connect("node_a", "1", "0.1.0", None);
        assert_eq!(rollout.wait(1, Duration::from_millis(50)).await.pending, 1);
        rollout.disconnect(a);
        let counts = rollout.wait(1, Duration::from_secs(30)).await;
        assert_eq!((counts.pending, counts.disconnected), (0, 1));
    }

    #[test]
    fn nodes_of_an_earlier_process_count_as_disconnected_until_they_return() {
        let rollout = Rollout::default();
        let old = clock::now_micros() - micros(RECENT) - 1;
        rollout.remember([("node_a".into(), clock::now_micros()), ("node_old".into(), old)]);
        assert_eq!(rollout.counts(1).disconnected, 1);
        rollout.connect("node_a", "1", "0.1.0", None);
        assert_eq!((rollout.counts(1).disconnected, rollout.counts(1).pending), (0, 1));
    }

    #[test]
    fn a_revoked_node_is_neither_waited_for_nor_missed() {
        let rollout = Rollout::default();
        let open = rollout.connect("node_a", "1", "0.1.0", None);
        let closed = rollout.connect("node_b", "1", "0.1.0", None);
        rollout.disconnect(closed);
        assert_eq!((rollout.counts(1).pending, rollout.counts(1).disconnected), (1, 1));
        rollout.forget("node_a");
        rollout.forget("node_b");
        assert_eq!(rollout.counts(1), RolloutCounts::default());
        rollout.disconnect(open);
        assert_eq!((rollout.counts(1), rollout.nodes().len()), (RolloutCounts::default(), 0));
    }

    #[test]
    fn a_key_that_one_node_found_bad_is_told_to_the_others() {
        let rollout = Rollout::default();
        let a = rollout.connect("node_a", "1", "0.1.0", None);
        rollout.connect("node_b", "1", "0.1.0", None);
        let mut changed = rollout.subscribe();
        let key = |state: &str| KeyState {
            key_id: "key_1".into(),
            secret_version: 1,
            state: state.into(),
            cooling: Vec::new(),
        };
        let status = |keys: Vec<KeyState>| NodeStatus { keys, ..NodeStatus::default() };
        let mut wakes = |keys: Vec<KeyState>| {
            changed.mark_unchanged();
            rollout.report(a, status(keys));
            changed.has_changed().expect("open")
        };
        assert!(!wakes(vec![key("suspect")]), "that is a node's own business");
        assert!(wakes(vec![key("invalid")]));
        assert!(!wakes(vec![key("invalid")]));
        assert_eq!(rollout.bad_keys_elsewhere("node_b"), [key("invalid")]);
        assert!(rollout.bad_keys_elsewhere("node_a").is_empty());
        assert_eq!(rollout.key_states(), [key("invalid")]);
        rollout.disconnect(a);
        assert!(rollout.key_states().is_empty());
    }

    #[test]
    fn two_processes_of_one_node_are_counted_apart_and_a_reconnect_replaces() {
        let rollout = Rollout::default();
        let old = rollout.connect("node_a", "old", "0.1.0", None);
        rollout.connect("node_a", "new", "0.1.0", None);
        assert_eq!(rollout.counts(1).pending, 2);
        rollout.connect("node_a", "new", "0.1.0", Some(version(1)));
        rollout.disconnect(old);
        assert_eq!(rollout.counts(1), RolloutCounts { acked: 1, ..RolloutCounts::default() });
        assert_eq!(rollout.connected_nodes(), 1);
        rollout.connect("node_b", "1", "0.1.0", None);
        assert_eq!(rollout.connected_nodes(), 2);
        assert!(rollout.is_connected("node_a", "new") && !rollout.is_connected("node_a", "old"));
    }
}
