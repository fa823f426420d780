//! Sums up the hours of days that are over.

use crate::store::usage_query::HOUR;
use crate::store::{Db, StoreError, usage_rollup};

/// How long after its end a day is folded. What comes later is added to both.
const AFTER: i64 = HOUR;

/// Folds every day that is over, each in a transaction of its own; how many.
///
/// # Errors
/// As the database answers; days before that stay folded.
pub async fn run(db: &Db, now: i64) -> Result<u64, StoreError> {
    let mut days = 0;
    loop {
        let mut tx = db.begin().await?;
        let folded = usage_rollup::fold_next(&mut tx, now.saturating_sub(AFTER)).await?;
        tx.commit().await?;
        if !folded {
            return Ok(days);
        }
        days += 1;
    }
}
