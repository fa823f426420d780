//! Sums up hours that are over into days, and events by session.

use std::time::Duration;

use crate::store::usage_query::HOUR;
use crate::store::usage_rollup::{self, Fold};
use crate::store::{Db, StoreError, usage_sessions};

/// How long after its end an hour is folded. What comes later is added to both.
const AFTER: i64 = HOUR / 12;

/// Between two such parts, so that ingest has its turn.
const PAUSE: Duration = Duration::from_millis(20);
/// So many dims are folded at a time; writers wait for them, some hundredths of
/// a second.
const DIMS: i64 = 2000;

/// So many events of each tenant are summed up by session at a time, likewise.
const EVENTS: i64 = 10_000;

/// Sums up by session what began before the last minutes, in several transactions.
///
/// # Errors
/// As the database answers; what was summed up before that stays so.
pub async fn sessions(db: &Db, now: i64) -> Result<(), StoreError> {
    loop {
        let mut tx = db.begin().await?;
        let more = usage_sessions::sum_some(&mut tx, now.saturating_sub(AFTER), EVENTS).await?;
        tx.commit().await?;
        if !more {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Folds every hour that is over, in several transactions; how many hours.
///
/// # Errors
/// As the database answers; what was folded before that stays so.
pub async fn run(db: &Db, now: i64) -> Result<u64, StoreError> {
    let mut hours = 0;
    loop {
        let mut tx = db.begin().await?;
        let folded = usage_rollup::fold_some(&mut tx, now.saturating_sub(AFTER), DIMS).await?;
        tx.commit().await?;
        match folded {
            Fold::Over => return Ok(hours),
            Fold::Part => {}
            Fold::Whole(micros) => hours += micros.unsigned_abs() / HOUR.unsigned_abs(),
        }
    }
}
