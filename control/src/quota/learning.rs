//! After a database was restored from a backup, nodes hold leases that it does
//! not know. For one hold time only half of what remains is granted at a time,
//! while nodes name what they hold and it is adopted. Of leases that it does know
//! it has forgotten when they were named last: none is taken back in that time.

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
    let (until, note) = decide(known.as_deref(), generation, now);
    if let Some(note) = note {
        settings::set(&mut tx, NAME, &note).await?;
        tx.commit().await?;
    }
    Ok(until)
}

/// From what was noted at an earlier start: until when grants are cautious, and
/// what is to be noted now, if anything. Pure.
#[must_use]
pub fn decide(known: Option<&str>, generation: u64, now: i64) -> (i64, Option<String>) {
    let parsed = known.and_then(|text| {
        let (generation, until) = text.split_once(' ')?;
        Some((generation.parse::<u64>().ok()?, until.parse::<i64>().ok()?))
    });
    let until = match parsed {
        Some((served, until)) if served == generation => return (until, None),
        Some(_) => now.saturating_add(HOLD),
        None => 0,
    };
    (until, Some(format!("{generation} {until}")))
}
