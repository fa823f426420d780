//! Proves that rollups equal the sum of their events, and days that of their hours.

use clawgate_shared::clock;

use crate::ingest::rollup::{HOUR, hour_of};
use crate::store::usage_proof::{self, Mismatch};
use crate::store::{Db, StoreError};

/// Most mismatches that are reported.
const MAX_REPORTED: i64 = 100;

/// Rollup rows from the hour of `from` on that differ from what they are the sum
/// of; none is what must come back. All sides are read at one moment.
///
/// # Errors
/// As the database answers.
pub async fn run(db: &Db, from: i64) -> Result<Vec<Mismatch>, StoreError> {
    let end = hour_of(clock::now_micros()).saturating_add(2 * HOUR);
    let mut tx = db.snapshot().await?;
    let found = usage_proof::mismatches(&mut tx, hour_of(from.max(0)), end, MAX_REPORTED).await?;
    tx.commit().await?;
    for row in &found {
        tracing::error!(?row, "a usage rollup is not the sum of its events");
    }
    Ok(found)
}
