//! Quotas as people see them: with what is used of their current window.

use std::collections::HashMap;

use jiff::tz::TimeZone;

use super::window::{self, Window};
use crate::store::quota_windows::{self, WindowKey, WindowRow};
use crate::store::quotas::QuotaRow;
use crate::store::{Conn, StoreError};

/// A quota and its current window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaState {
    /// As configured.
    pub quota: QuotaRow,
    /// The window that is now.
    pub window: Window,
    /// Granted on top of the limit.
    pub extra: i64,
    /// Settled.
    pub used: i64,
    /// Leased to nodes and not settled.
    pub reserved: i64,
}

impl QuotaState {
    /// By how much settled use passes the limit and what was granted on top.
    #[must_use]
    pub fn overrun(&self) -> i64 {
        let limit = i64::try_from(self.quota.spec.limit).unwrap_or(i64::MAX);
        self.used.saturating_sub(limit.saturating_add(self.extra)).max(0)
    }
}

/// The state of quotas of one tenant.
///
/// # Errors
/// As the database answers.
pub async fn of(
    conn: &mut Conn,
    rows: Vec<QuotaRow>,
    zone: &TimeZone,
    now: i64,
) -> Result<Vec<QuotaState>, StoreError> {
    let current = |row: &QuotaRow| window::containing(row.spec.window, now, zone);
    let keys: Vec<WindowKey> =
        rows.iter().map(|row| WindowKey { quota_id: row.id.clone(), start: current(row).start }).collect();
    let found = quota_windows::get(conn, &keys).await?;
    let mut found: HashMap<String, WindowRow> = found.into_iter().map(|row| (row.key.quota_id.clone(), row)).collect();
    let state = |quota: QuotaRow| {
        let (window, ledger) = (current(&quota), found.remove(&quota.id));
        let (extra, used, reserved) = ledger.map_or((0, 0, 0), |row| (row.extra, row.settled, row.outstanding));
        QuotaState { quota, window, extra, used, reserved }
    };
    Ok(rows.into_iter().map(state).collect())
}
