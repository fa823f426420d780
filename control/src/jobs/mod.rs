//! Background work of the control plane.
//!
//! Invariant: a job takes no input but the database, is idempotent, and may be
//! run by several processes at once; a job that fails is tried again at its
//! next time and stops nothing.
//! Deliberately absent: work that is done when something happens (publishing,
//! ingest); that lives where it happens.

pub mod fold;
pub mod purge;
pub mod reconcile;
pub mod retention;

use std::time::Duration;

use clawgate_shared::clock;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::quota;
use crate::store::{Db, Engine, StoreError};

/// How often leftovers are cleared away.
const PURGE: Duration = Duration::from_secs(10 * 60);
/// How often rollups are checked against their events.
const RECONCILE: Duration = Duration::from_secs(60 * 60);
/// How often leases are looked through for those whose time has passed.
const LEASES: Duration = Duration::from_secs(10);
/// How often days that are over are folded, and old events deleted.
const KEEP: Duration = Duration::from_secs(15 * 60);
/// The first runs wait until the process has started.
const FIRST: Duration = Duration::from_secs(60);
/// How far back rollups are checked, in hours.
const RECONCILE_HOURS: i64 = 26;

/// Runs every job at its times until `stop` is true; `retention_days` as in
/// [`retention::run`].
pub async fn run(db: Db, retention_days: u32, mut stop: watch::Receiver<bool>) {
    let every = |period| {
        let mut timer = tokio::time::interval_at(tokio::time::Instant::now() + FIRST, period);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        timer
    };
    let (mut purge, mut reconcile, mut leases) = (every(PURGE), every(RECONCILE), every(LEASES));
    let (mut fold, mut keep) = (every(KEEP), every(KEEP));
    if db.engine() == Engine::Postgres {
        // A process that was away for months must not wait for its month.
        report("retention", retention::run(&db, 0, clock::now_micros()).await);
    }
    while !*stop.borrow() {
        tokio::select! {
            _ = purge.tick() => report("purge", purge::run(&db, clock::now_micros()).await),
            _ = leases.tick() => report("leases", quota::end::expire(&db, clock::now_micros()).await),
            _ = reconcile.tick() => {
                let from = clock::now_micros() - RECONCILE_HOURS * crate::ingest::rollup::HOUR;
                report("reconcile", reconcile::run(&db, from).await);
            }
            _ = fold.tick() => report("fold", fold::run(&db, clock::now_micros()).await),
            _ = keep.tick() => report("retention", retention::run(&db, retention_days, clock::now_micros()).await),
            changed = stop.changed() => if changed.is_err() { return },
        }
    }
}

fn report<T: std::fmt::Debug>(job: &'static str, outcome: Result<T, StoreError>) {
    match outcome {
        Ok(done) => tracing::debug!(job, ?done, "job done"),
        Err(error) => tracing::warn!(job, %error, "job failed; it is tried again at its next time"),
    }
}
