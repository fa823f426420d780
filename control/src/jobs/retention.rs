//! Keeps the months that events go into ahead of time, and deletes events that
//! are older than they are to be kept. Sums stay, but for those by session.

use std::time::Duration;

use crate::store::usage_query::DAY;
use crate::store::{Db, Engine, StoreError, usage_partitions, usage_retention, usage_sessions};

/// Rows of one deletion.
const ROWS: i64 = 2000;
/// Dims whose days by session are deleted at a time.
const DIMS: i64 = 200;
/// Between two deletions, so that ingest has its turn.
const PAUSE: Duration = Duration::from_millis(20);

/// What one run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Months that were added, `yyyymm`.
    pub added: Vec<i64>,
    /// Months that were dropped.
    pub dropped: Vec<i64>,
    /// Events that were deleted one by one.
    pub deleted: u64,
}

/// One run; `days` 0: events are kept for ever.
///
/// On SQLite every event that is older goes. On PostgreSQL a month goes when
/// all of it is older; one by one only what came into no month.
///
/// # Errors
/// As the database answers; what was done before stays done.
pub async fn run(db: &Db, days: u32, now: i64) -> Result<Kept, StoreError> {
    let mut kept = Kept::default();
    if db.engine() == Engine::Postgres {
        kept.added = usage_partitions::ensure(db, now).await?;
    }
    if days == 0 {
        return Ok(kept);
    }
    let cutoff = now.saturating_sub(i64::from(days).saturating_mul(DAY));
    // First it is said that they may be gone; then they go.
    let mut tx = db.begin().await?;
    usage_retention::set_events_from(&mut tx, cutoff).await?;
    tx.commit().await?;
    if db.engine() == Engine::Postgres {
        kept.dropped = usage_partitions::drop_before(db, cutoff).await?;
    }
    let tenants = usage_retention::tenants(&mut *db.read().await?).await?;
    for tenant in tenants {
        loop {
            let mut tx = db.begin().await?;
            let deleted = usage_retention::delete(&mut tx, tenant, cutoff, ROWS).await?;
            tx.commit().await?;
            kept.deleted += deleted;
            if i64::try_from(deleted).is_ok_and(|deleted| deleted < ROWS) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    let mut after = Some(0);
    while let Some(dims) = after {
        let mut tx = db.begin().await?;
        after = usage_sessions::delete(&mut tx, cutoff - cutoff.rem_euclid(DAY), dims, DIMS).await?;
        tx.commit().await?;
    }
    Ok(kept)
}
