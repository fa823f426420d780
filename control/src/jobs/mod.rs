//! Background work of the control plane.
//!
//! Invariant: a job takes no input but the database and settings, is idempotent, and may be
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
use tokio::time::{Interval, MissedTickBehavior};

use crate::quota::{self, hold_clock::HoldClock};
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
/// [`retention::run`], `learning_until` as in [`quota::learning`].
pub async fn run(db: Db, retention_days: u32, learning_until: i64, stop: watch::Receiver<bool>) {
    // What may take minutes is beside the rest, and ends in the middle: each of
    // its transactions is whole in itself.
    let mut stopped = stop.clone();
    let long = async {
        tokio::select! {
            () = keeping(&db, retention_days) => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    };
    tokio::join!(short(&db, learning_until, stop), long);
}

fn every(period: Duration) -> Interval {
    let mut timer = tokio::time::interval_at(tokio::time::Instant::now() + FIRST, period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

async fn short(db: &Db, learning_until: i64, mut stop: watch::Receiver<bool>) {
    let (mut purge, mut reconcile, mut leases) = (every(PURGE), every(RECONCILE), every(LEASES));
    let mut hold_clock = HoldClock::new(clock::now_micros(), clock::boot_micros());
    while !*stop.borrow() {
        tokio::select! {
            _ = purge.tick() => report("purge", purge::run(db, clock::now_micros()).await),
            _ = leases.tick() => {
                let now = hold_clock.now(clock::now_micros(), clock::boot_micros());
                report("leases", quota::end::expire(db, learning_until, now).await);
            }
            _ = reconcile.tick() => {
                let from = clock::now_micros() - RECONCILE_HOURS * crate::ingest::rollup::HOUR;
                report("reconcile", reconcile::run(db, from).await);
            }
            changed = stop.changed() => if changed.is_err() { return },
        }
    }
}

async fn keeping(db: &Db, retention_days: u32) {
    if db.engine() == Engine::Postgres {
        // After months of absence the running month must not wait for its turn.
        report("retention", retention::run(db, 0, clock::now_micros()).await);
    }
    let mut keep = every(KEEP);
    loop {
        keep.tick().await;
        report("fold", fold::run(db, clock::now_micros()).await);
        report("sessions", fold::sessions(db, clock::now_micros()).await);
        report("retention", retention::run(db, retention_days, clock::now_micros()).await);
    }
}

fn report<T: std::fmt::Debug>(job: &'static str, outcome: Result<T, StoreError>) {
    match outcome {
        Ok(done) => tracing::debug!(job, ?done, "job done"),
        Err(error) => tracing::warn!(job, %error, "job failed; it is tried again at its next time"),
    }
}
