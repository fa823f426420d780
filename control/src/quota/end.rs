//! What ends a lease besides its node: its time has passed, or its epoch is
//! over.

use std::collections::BTreeSet;

use clawgate_shared::mutant::{self, Mutant};

use crate::store::quota_leases::{self as leases, Holder, LeaseRow};
use crate::store::quota_windows::{self as windows, WindowChange, WindowKey};
use crate::store::{Conn, Db, StoreError};

/// Leases that are dealt with in one transaction, or one round of it.
const BATCH: i64 = 500;

/// Takes back what is left of leases whose time has passed: as if their nodes
/// had returned it, which is what those are told when they come back. None before
/// `learning_until` (see [`super::learning`]). How many leases.
///
/// # Errors
/// As the database answers; what was done before stays.
pub async fn expire(db: &Db, learning_until: i64, now: i64) -> Result<usize, StoreError> {
    if !knows_times(learning_until, now) {
        return Ok(0);
    }
    let mut count = 0;
    loop {
        let mut tx = db.begin().await?;
        let found = leases::expired(&mut tx, now, BATCH).await?;
        if found.is_empty() {
            return Ok(count);
        }
        windows::settle(&mut tx, &locks(&found)).await?;
        let (changes, rows) = taken_back(leases::again(&mut tx, &found).await?, now);
        windows::shift(&mut tx, &changes).await?;
        leases::write(&mut tx, &rows).await?;
        tx.commit().await?;
        count += rows.len();
    }
}

/// Ends every lease of an epoch: nothing of it will be charged or claimed any
/// more.
///
/// # Errors
/// As the database answers.
pub async fn epoch(conn: &mut Conn, holder: Holder<'_>) -> Result<(), StoreError> {
    loop {
        let found = leases::of(conn, holder, BATCH).await?;
        if found.is_empty() {
            return Ok(());
        }
        windows::settle(conn, &locks(&found)).await?;
        let rows = leases::again(conn, &found).await?;
        windows::shift(conn, &released(&rows)).await?;
        leases::delete(conn, &found).await?;
    }
}

/// Whether the times of leases are what their nodes go by: a restored database
/// has forgotten when they were named last. Pure; so for all below.
#[must_use]
pub const fn knows_times(learning_until: i64, now: i64) -> bool {
    now >= learning_until
}

/// What locks the windows of leases, in order.
#[must_use]
pub fn locks(rows: &[LeaseRow]) -> Vec<WindowChange> {
    let keys: BTreeSet<&WindowKey> = rows.iter().map(|row| &row.key).collect();
    // A window that is gone comes back as one that is over, to be purged.
    let change = |key: &WindowKey| WindowChange { key: key.clone(), end: key.start.saturating_add(1), amount: 0 };
    keys.into_iter().map(change).collect()
}

/// What is to be done with those of `rows` whose time has passed: their windows'
/// changes, and the rows as they are from now on.
#[must_use]
pub fn taken_back(mut rows: Vec<LeaseRow>, now: i64) -> (Vec<WindowChange>, Vec<LeaseRow>) {
    rows.retain(|row| row.expires_at > 0 && row.expires_at <= now);
    let changes = released(&rows);
    for row in &mut rows {
        if !mutant::is(Mutant::ExpiryNotTold) {
            row.returned = row.returned.saturating_add(row.rest());
        }
        row.expires_at = 0;
    }
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    (changes, rows)
}

/// What leases make outstanding, taken off their windows, which are locked.
#[must_use]
pub fn released(rows: &[LeaseRow]) -> Vec<WindowChange> {
    let mut changes: Vec<WindowChange> = Vec::new();
    let mut live: Vec<&LeaseRow> = rows.iter().filter(|row| row.rest() > 0).collect();
    live.sort_by(|a, b| a.key.cmp(&b.key));
    for row in live {
        match changes.last_mut() {
            Some(last) if last.key == row.key => last.amount -= row.rest(),
            _ => changes.push(WindowChange { key: row.key.clone(), end: row.key.start, amount: -row.rest() }),
        }
    }
    changes
}
