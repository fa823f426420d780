//! Nodes as people see them: what is stored, overlaid by what is live.

use std::collections::HashMap;

use clawgate_shared::proto::node::Version;

use crate::snapshot::rollout::NodeLive;
use crate::store::nodes::{NodeRow, StoredVersion};

/// One node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    /// `node_…`
    pub id: String,
    /// For people; empty: none given.
    pub name: String,
    /// The node's software version.
    pub version: String,
    /// What it serves, as `generation-revision-hash` with 12 digits of the
    /// hash, the form of `x-clawgate-config`.
    pub acked_version: Option<String>,
    /// The revision in it.
    pub acked_revision: Option<u64>,
    /// What it refused last, unless it took something since.
    pub nacked_version: Option<String>,
    /// Why, in its own words.
    pub nack_reason: Option<String>,
    /// Whether a process of it has its stream open.
    pub connected: bool,
    /// Unix microseconds.
    pub last_seen: Option<i64>,
    /// Usage records it has not delivered.
    pub spool_backlog: u64,
    /// Their size.
    pub spool_bytes: u64,
    /// Age of the oldest of them.
    pub spool_oldest_seconds: f64,
    /// Exchanges under way.
    pub inflight: u64,
    /// Since its process started.
    pub requests_total: u64,
    /// Unix microseconds; `None` over the Unix socket.
    pub certificate_expires_at: Option<i64>,
    /// Unix microseconds.
    pub created_at: i64,
}

/// The short form of a version.
#[must_use]
pub(crate) fn short(version: &Version) -> String {
    let hash = version.hash.get(..12).unwrap_or(&version.hash);
    format!("{}-{}-{hash}", version.generation, version.revision)
}

pub(super) fn merge(rows: Vec<NodeRow>, live: Vec<NodeLive>) -> Vec<NodeView> {
    let live = newest(live);
    rows.into_iter()
        .map(|row| {
            let mut view = stored(&row);
            if let Some(node) = live.get(row.id.as_str()) {
                overlay(&mut view, node);
            }
            view
        })
        .collect()
}

/// Per node the process that counts: a connected one, and of those the one
/// that connected last.
pub(super) fn newest(live: Vec<NodeLive>) -> HashMap<String, NodeLive> {
    let mut newest: HashMap<String, NodeLive> = HashMap::new();
    for node in live {
        let better = newest.get(&node.node_id).is_none_or(|old| node.connected || !old.connected);
        if better {
            newest.insert(node.node_id.clone(), node);
        }
    }
    newest
}

fn stored(row: &NodeRow) -> NodeView {
    let version = |stored: &StoredVersion| Version {
        generation: unsigned(stored.generation),
        revision: unsigned(stored.revision),
        hash: stored.hash.clone(),
    };
    let state = &row.state;
    let (acked, nacked) = (state.acked.as_ref().map(version), state.nacked.as_ref().map(version));
    NodeView {
        id: row.id.clone(),
        name: row.name.clone(),
        version: state.software_version.clone(),
        acked_version: acked.as_ref().map(short),
        acked_revision: acked.map(|version| version.revision),
        nacked_version: nacked.as_ref().map(short),
        nack_reason: state.nack_reason.clone(),
        connected: false,
        last_seen: state.last_seen_at,
        spool_backlog: unsigned(state.spool_records),
        spool_bytes: unsigned(state.spool_bytes),
        spool_oldest_seconds: seconds(unsigned(state.spool_oldest_millis)),
        inflight: 0,
        requests_total: unsigned(state.requests_total),
        certificate_expires_at: row.certificate_expires_at,
        created_at: row.created_at,
    }
}

fn overlay(view: &mut NodeView, node: &NodeLive) {
    view.version.clone_from(&node.software);
    view.acked_version = node.acked.as_ref().map(short);
    view.acked_revision = node.acked.as_ref().map(|version| version.revision);
    view.nacked_version = node.nacked.as_ref().map(short);
    view.nack_reason.clone_from(&node.nack_reason);
    view.connected = node.connected;
    view.last_seen = Some(node.last_seen);
    view.spool_backlog = node.status.spool_records;
    view.spool_bytes = node.status.spool_bytes;
    view.spool_oldest_seconds = seconds(node.status.spool_oldest_millis);
    view.inflight = if node.connected { node.status.inflight } else { 0 };
    view.requests_total = node.status.requests_total;
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn seconds(millis: u64) -> f64 {
    std::time::Duration::from_millis(millis).as_secs_f64()
}
