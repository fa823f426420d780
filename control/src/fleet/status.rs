//! Writes what nodes reported to their rows: soon after it changed in kind
//! (served or refused version, process), otherwise every 15 seconds.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::view::newest;
use crate::snapshot::rollout::{NodeLive, Rollout};
use crate::store::nodes::{self, NodeState, StoredVersion};
use crate::store::row::to_int;
use crate::store::{Db, StoreError};

/// How often changes are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// How often numbers alone are written.
const WRITE: Duration = Duration::from_secs(15);

/// Runs until `stop` is true, and writes once more then.
pub(super) async fn run(db: &Db, rollout: &Rollout, mut stop: watch::Receiver<bool>) {
    let mut written: HashMap<String, (NodeState, Instant)> = HashMap::new();
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = *stop.borrow();
        if let Err(error) = write(db, rollout, &mut written, last).await {
            tracing::warn!(%error, "node states were not written");
        }
        if last {
            return;
        }
        tokio::select! {
            _ = tick.tick() => {}
            changed = stop.changed() => if changed.is_err() { return },
        }
    }
}

async fn write(
    db: &Db,
    rollout: &Rollout,
    written: &mut HashMap<String, (NodeState, Instant)>,
    all: bool,
) -> Result<(), StoreError> {
    let now = Instant::now();
    let due: Vec<(String, NodeState)> = newest(rollout.nodes())
        .into_iter()
        .map(|(id, node)| (id, state(&node)))
        .filter(|(id, state)| match written.get(id) {
            None => true,
            Some((old, _)) if old == state => false,
            Some((old, at)) => all || now.duration_since(*at) >= WRITE || kind(old) != kind(state),
        })
        .collect();
    if due.is_empty() {
        return Ok(());
    }
    let mut tx = db.begin().await?;
    for (id, state) in &due {
        nodes::save_state(&mut tx, id, state).await?;
    }
    tx.commit().await?;
    written.extend(due.into_iter().map(|(id, state)| (id, (state, now))));
    Ok(())
}

type StateKind<'a> = (&'a Option<StoredVersion>, &'a Option<StoredVersion>, &'a str, &'a str);

/// What is worth a write of its own.
fn kind(state: &NodeState) -> StateKind<'_> {
    (&state.acked, &state.nacked, &state.instance_id, &state.software_version)
}

fn state(node: &NodeLive) -> NodeState {
    let stored = |version: &Option<clawgate_shared::proto::node::Version>, at: i64| {
        version.as_ref().map(|version| StoredVersion {
            generation: to_int(version.generation),
            revision: to_int(version.revision),
            hash: version.hash.clone(),
            at,
        })
    };
    NodeState {
        software_version: node.software.clone(),
        instance_id: node.instance_id.clone(),
        last_seen_at: Some(node.last_seen),
        acked: stored(&node.acked, node.answered_at),
        nacked: stored(&node.nacked, node.answered_at),
        nack_reason: node.nack_reason.clone(),
        spool_records: to_int(node.status.spool_records),
        spool_bytes: to_int(node.status.spool_bytes),
        spool_oldest_millis: to_int(node.status.spool_oldest_millis),
        inflight: to_int(node.status.inflight),
        requests_total: to_int(node.status.requests_total),
    }
}
