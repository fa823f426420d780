//! What events cost the quotas that cover them, in the transaction that adds
//! the events.
//!
//! Settling never fails for want of room: what passes a limit is recorded and
//! shows as overrun.

use std::collections::{BTreeMap, HashMap};

use clawgate_shared::id;
use clawgate_shared::mutant::{self, Mutant};

use crate::quota::book::{Book, Quota};
use crate::quota::window::Window;
use crate::quota::{Books, end};
use crate::store::quota_leases::{self as leases, Holder, LeaseRow};
use crate::store::quota_windows::{self as windows, NoticeRow, WindowChange, WindowKey, WindowRow};
use crate::store::types::{QuotaMetric, QuotaWindow};
use crate::store::usage_ingest::{EventRow, Shard};
use crate::store::{StoreError, Tx};

/// What a batch charges to one window.
struct Sum<'a> {
    quota: &'a Quota,
    window: Window,
    settled: i64,
    /// Of it, against the lease of the shard's epoch.
    leased: i64,
}

impl Sum<'_> {
    fn key(&self) -> WindowKey {
        WindowKey { quota_id: self.quota.id.clone(), start: self.window.start }
    }
}

/// The sums of a batch, in the order of windows.
#[derive(Default)]
pub struct Sums<'a> {
    all: BTreeMap<(&'a str, i64), Sum<'a>>,
    /// The window found last, by tenant and kind: neighbours share it.
    last: HashMap<(&'a str, QuotaWindow), Window>,
}

/// Charges new events; `new` in any order, each once.
///
/// # Errors
/// As the database answers.
pub async fn charge(
    tx: &mut Tx,
    books: &Books,
    shard: Shard<'_>,
    new: &[&EventRow],
    now: i64,
) -> Result<(), StoreError> {
    if new.is_empty() {
        return Ok(());
    }
    let book = books.held(tx).await?;
    let sums = Sums::of(&book, new);
    if sums.all.is_empty() {
        return Ok(());
    }
    let rows = windows::settle(tx, &sums.changes()).await?;
    let (holder, leased) = (Holder { node_id: shard.node_id, epoch: shard.epoch }, sums.leased());
    let settled = leases::settle(tx, holder, &leased).await?;
    windows::shift(tx, &no_longer_outstanding(leased, settled)).await?;
    for row in &rows {
        if let Some(sum) = sums.all.get(&(row.key.quota_id.as_str(), row.key.start)) {
            warn(tx, sum.quota, row, now).await?;
        }
    }
    Ok(())
}

/// What a lease has settled is no longer outstanding, as far as it was. From
/// what was settled, and the leases as they are after that. Pure.
#[must_use]
pub fn no_longer_outstanding(leased: Vec<(WindowKey, i64)>, rows: Vec<LeaseRow>) -> Vec<WindowChange> {
    let mut found: HashMap<WindowKey, (i64, i64)> = HashMap::new();
    for row in rows {
        let left = row.granted - row.returned - row.settled;
        found.insert(row.key, (left, left.max(0)));
    }
    let shift = |(key, amount): (WindowKey, i64)| {
        let (left, rest) = found.get(&key).copied().unwrap_or_default();
        let amount = rest - left.saturating_add(amount).max(0);
        (amount != 0).then_some(WindowChange { end: key.start, key, amount })
    };
    leased.into_iter().filter_map(shift).collect()
}

/// Notes a window that has reached its warning share or its limit, once each.
async fn warn(tx: &mut Tx, quota: &Quota, row: &WindowRow, now: i64) -> Result<(), StoreError> {
    let limit = quota.limit.saturating_add(row.extra);
    let share = i128::from(limit) * i128::from(quota.warn_pct);
    let warned = row.warned_at == 0 && i128::from(row.settled) * 100 >= share;
    let exhausted = row.exhausted_at == 0 && row.settled >= limit;
    for exhausted in [warned.then_some(false), exhausted.then_some(true)].into_iter().flatten() {
        let notice = NoticeRow {
            id: id::new(id::Kind::Quota),
            key: row.key.clone(),
            exhausted,
            used: row.settled,
            limit,
            at: now,
        };
        if windows::note(tx, &notice).await? {
            let scope = format!("{}:{}", quota.scope.as_str(), quota.scope_id);
            let told = if exhausted { "a quota is used up" } else { "a quota has reached its warning share" };
            tracing::warn!(quota = quota.id, scope, used = row.settled, limit, "{told}");
        }
    }
    Ok(())
}

/// A shard has ended. When it was the last one of its epoch, the epoch's leases
/// end. To be called after its cursor was written.
///
/// # Errors
/// As the database answers.
pub async fn shard_ended(tx: &mut Tx, shard: Shard<'_>, shards: u32) -> Result<(), StoreError> {
    let holder = Holder { node_id: shard.node_id, epoch: shard.epoch };
    leases::lock_node(tx, shard.node_id).await?;
    let (_, ended) = leases::shards(tx, holder).await?;
    if was_last(ended, shards) { end::epoch(tx, holder).await } else { Ok(()) }
}

/// Whether an epoch is over: so many of its shards have ended. Pure.
#[must_use]
pub fn was_last(ended: u64, shards: u32) -> bool {
    ended >= u64::from(shards.max(1)) && !mutant::is(Mutant::EpochEndForgetsLeases)
}

impl<'a> Sums<'a> {
    /// What new events charge. Pure.
    #[must_use]
    pub fn of(book: &'a Book, new: &[&EventRow]) -> Self {
        let mut sums = Self::default();
        for event in new {
            sums.add(book, event);
        }
        sums
    }

    /// What is added to windows.
    #[must_use]
    pub fn changes(&self) -> Vec<WindowChange> {
        let change = |sum: &Sum<'_>| WindowChange { key: sum.key(), end: sum.window.end, amount: sum.settled };
        self.all.values().map(change).collect()
    }

    /// What is settled of leases.
    #[must_use]
    pub fn leased(&self) -> Vec<(WindowKey, i64)> {
        self.all.values().filter(|sum| sum.leased > 0).map(|sum| (sum.key(), sum.leased)).collect()
    }

    fn add(&mut self, book: &'a Book, event: &EventRow) {
        let open = &event.open;
        let Some(tenant) = book.tenant(&open.tenant_id) else { return };
        for charge in &event.charges {
            let quota = book.get(&charge.quota_id).filter(|quota| quota.tenant_id == open.tenant_id);
            if let Some(quota) = quota {
                self.put(quota, quota.window_from(charge.window_start), charge.amount, charge.amount);
            }
        }
        for quota in tenant.on(&open.bot_id, &open.project_id, &open.provider_key_id) {
            let listed = event.charges.iter().any(|charge| charge.quota_id == quota.id);
            if listed || !quota.covers(&open.model) {
                continue;
            }
            let amount = cost(event, quota.metric);
            if amount > 0 {
                let window = self.window(quota, open.created_at);
                self.put(quota, window, amount, 0);
            }
        }
    }

    fn put(&mut self, quota: &'a Quota, window: Window, settled: i64, leased: i64) {
        if settled > 0 {
            let none = Sum { quota, window, settled: 0, leased: 0 };
            let sum = self.all.entry((&quota.id, window.start)).or_insert(none);
            sum.settled = sum.settled.saturating_add(settled);
            sum.leased = sum.leased.saturating_add(leased);
        }
    }

    fn window(&mut self, quota: &'a Quota, at: i64) -> Window {
        let last = self.last.entry((&quota.tenant_id, quota.window)).or_insert_with(|| quota.window_at(at));
        if !last.contains(at) {
            *last = quota.window_at(at);
        }
        *last
    }
}

/// What an event costs a quota that it does not list. A count that the vendor
/// did not report costs nothing.
fn cost(event: &EventRow, metric: QuotaMetric) -> i64 {
    if event.outcome == "refused" {
        return 0;
    }
    let count = match metric {
        QuotaMetric::TotalTokens => event.total_tokens,
        QuotaMetric::InputTokens => event.input_tokens,
        QuotaMetric::OutputTokens => event.output_tokens,
        QuotaMetric::Requests => Some(1),
        QuotaMetric::CostMicros => event.cost_micros,
    };
    count.unwrap_or(0)
}
