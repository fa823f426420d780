//! After a database was restored from a backup, nodes hold leases that it does
//! not know. For one hold time only half of what remains is granted at a time,
//! while nodes name what they hold and it is adopted.

use super::HOLD;
use crate::store::{Db, StoreError, revisions, settings};

/// The generation that was served last, and until when grants are cautious.
const NAME: &str = "quotas.learning";

/// Until when grants are cautious, unix microseconds; called once at start. A
/// generation that was not served before begins such a time; a plain restart
/// does not, because the ledger has every lease.
///
/// # Errors
/// As the database answers.
pub async fn begin(db: &Db, now: i64) -> Result<i64, StoreError> {
    let mut tx = db.begin().await?;
    let generation = revisions::current(&mut tx).await?.generation;
    let known = settings::get(&mut tx, NAME).await?;
    let parsed = known.as_deref().and_then(|text| {
        let (generation, until) = text.split_once(' ')?;
        Some((generation.parse::<u64>().ok()?, until.parse::<i64>().ok()?))
    });
    let until = match parsed {
        Some((served, until)) if served == generation => return Ok(until),
        Some(_) => now.saturating_add(HOLD),
        None => 0,
    };
    settings::set(&mut tx, NAME, &format!("{generation} {until}")).await?;
    tx.commit().await?;
    Ok(until)
}
