//! Sums up the hours of days that are over.

use crate::store::usage_query::HOUR;
use crate::store::usage_rollup::{self, Fold};
use crate::store::{Db, StoreError};

/// How long after its end a day is folded. What comes later is added to both.
const AFTER: i64 = HOUR;

/// So many dims are folded at a time; writers wait for them, some hundredths of
/// a second.
const DIMS: i64 = 2000;

/// Folds every day that is over, each in several transactions; how many.
///
/// # Errors
/// As the database answers; what was folded before that stays so.
pub async fn run(db: &Db, now: i64) -> Result<u64, StoreError> {
    let mut days = 0;
    loop {
        let mut tx = db.begin().await?;
        let folded = usage_rollup::fold_some(&mut tx, now.saturating_sub(AFTER), DIMS).await?;
        tx.commit().await?;
        match folded {
            Fold::Over => return Ok(days),
            Fold::Part => {}
            Fold::Day => days += 1,
        }
    }
}
