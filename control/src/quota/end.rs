//! What ends a lease besides its node: its time has passed, or its epoch is
//! over.

use std::collections::BTreeSet;

use crate::store::quota_leases::{self as leases, Holder, LeaseRow};
use crate::store::quota_windows::{self as windows, WindowChange, WindowKey};
use crate::store::{Conn, Db, StoreError};

/// Leases that are dealt with in one transaction, or one round of it.
const BATCH: i64 = 500;

/// Takes back what is left of leases whose time has passed: as if their nodes
/// had returned it, which is what those are told when they come back. How many
/// leases.
///
/// # Errors
/// As the database answers; what was done before stays.
pub async fn expire(db: &Db, now: i64) -> Result<usize, StoreError> {
    let mut count = 0;
    loop {
        let mut tx = db.begin().await?;
        let found = leases::expired(&mut tx, now, BATCH).await?;
        if found.is_empty() {
            return Ok(count);
        }
        lock(&mut tx, &found).await?;
        let mut rows = leases::again(&mut tx, &found).await?;
        rows.retain(|row| row.expires_at > 0 && row.expires_at <= now);
        release(&mut tx, &rows).await?;
        for row in &mut rows {
            row.returned = row.returned.saturating_add(row.rest());
            row.expires_at = 0;
        }
        rows.sort_by(|a, b| a.key.cmp(&b.key));
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
        lock(conn, &found).await?;
        let rows = leases::again(conn, &found).await?;
        release(conn, &rows).await?;
        leases::delete(conn, &found).await?;
    }
}

/// Locks the windows of leases, in order.
async fn lock(conn: &mut Conn, rows: &[LeaseRow]) -> Result<(), StoreError> {
    let keys: BTreeSet<&WindowKey> = rows.iter().map(|row| &row.key).collect();
    // A window that is gone comes back as one that is over, to be purged.
    let change = |key: &WindowKey| WindowChange { key: key.clone(), end: key.start.saturating_add(1), amount: 0 };
    let changes: Vec<WindowChange> = keys.into_iter().map(change).collect();
    windows::settle(conn, &changes).await.map(drop)
}

/// Takes what leases make outstanding off their windows, which are locked.
async fn release(conn: &mut Conn, rows: &[LeaseRow]) -> Result<(), StoreError> {
    let mut changes: Vec<WindowChange> = Vec::new();
    let mut live: Vec<&LeaseRow> = rows.iter().filter(|row| row.rest() > 0).collect();
    live.sort_by(|a, b| a.key.cmp(&b.key));
    for row in live {
        match changes.last_mut() {
            Some(last) if last.key == row.key => last.amount -= row.rest(),
            _ => changes.push(WindowChange { key: row.key.clone(), end: row.key.start, amount: -row.rest() }),
        }
    }
    windows::shift(conn, &changes).await
}
