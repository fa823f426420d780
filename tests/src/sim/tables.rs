//! The database: the statements of `control/src/store` on tables in memory.
//! What each does in SQL is proven by the store's contract; a transaction is a
//! copy that replaces the tables or is dropped.

use std::collections::BTreeMap;
use std::rc::Rc;

use clawgate_control::store::quota_leases::{Holder, LeaseRow};
use clawgate_control::store::quota_windows::{WindowChange, WindowGrant, WindowKey, WindowRow};
use clawgate_control::store::quotas::QuotaRow;
use clawgate_control::store::revisions::Revision;
use clawgate_control::store::usage_ingest::{Cursor, EventRow, OpenRow, Shard};
use clawgate_control::store::usage_rollup::{RollupKey, RollupSums};
use clawgate_shared::mutant::{self, Mutant};

/// Node, epoch, shard.
pub type Log = (String, i64, i64);
/// Window, node, epoch.
pub type LeaseKey = (WindowKey, String, i64);

/// One event as it is kept.
#[derive(Clone, Debug)]
pub struct Event {
    /// Of which log it came.
    pub log: Log,
    /// With what it charges.
    pub row: EventRow,
}

/// Everything that is committed, or will be.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// `quota_windows`
    pub windows: Rc<BTreeMap<WindowKey, WindowRow>>,
    /// `quota_leases`
    pub leases: Rc<BTreeMap<LeaseKey, LeaseRow>>,
    /// `ingest_cursors`
    pub cursors: Rc<BTreeMap<Log, CursorRow>>,
    /// `usage_open`
    pub opens: Rc<BTreeMap<String, (Log, Rc<OpenRow>)>>,
    /// `usage_events`
    pub events: Rc<BTreeMap<String, Rc<Event>>>,
    /// `usage_rollup_hour`
    pub rollup: Rc<BTreeMap<RollupKey, RollupSums>>,
    /// `quotas`
    pub quotas: Rc<Vec<QuotaRow>>,
    /// `config_revision`
    pub revision: Revision,
    /// What `quota::learning` has noted.
    pub learning: Option<String>,
}

fn log_of(shard: Shard<'_>) -> Log {
    (shard.node_id.to_owned(), shard.epoch, shard.shard)
}

fn fresh(key: &WindowKey, end: i64) -> WindowRow {
    WindowRow { key: key.clone(), end, extra: 0, settled: 0, outstanding: 0, warned_at: 0, exhausted_at: 0 }
}

/// A row of `ingest_cursors`.
#[derive(Clone, Debug)]
pub struct CursorRow {
    /// What is read and written back.
    pub cursor: Cursor,
    /// Records that are lost.
    pub lost: i64,
    /// When it was locked last.
    pub updated_at: i64,
}

impl Tables {
    /// `quota_windows::get`
    #[must_use]
    pub fn windows(&self, keys: &[WindowKey]) -> Vec<WindowRow> {
        keys.iter().filter_map(|key| self.windows.get(key).cloned()).collect()
    }

    fn window(&mut self, key: &WindowKey, end: i64) -> &mut WindowRow {
        Rc::make_mut(&mut self.windows).entry(key.clone()).or_insert_with(|| fresh(key, end))
    }

    /// `quota_windows::settle`
    pub fn settle_windows(&mut self, changes: &[WindowChange]) -> Vec<WindowRow> {
        let settle = |change: &WindowChange| {
            let row = self.window(&change.key, change.end);
            row.settled += change.amount;
            row.clone()
        };
        changes.iter().map(settle).collect()
    }

    /// `quota_windows::shift`
    pub fn shift(&mut self, changes: &[WindowChange]) {
        for change in changes {
            self.window(&change.key, change.end).outstanding += change.amount;
        }
    }

    /// `quota_windows::grant`
    pub fn grant(&mut self, grants: &[WindowGrant]) -> Vec<WindowRow> {
        let mut had_room = Vec::new();
        for grant in grants {
            let row = self.window(&grant.key, 0);
            let fits = row.settled + row.outstanding + grant.amount <= grant.limit + row.extra;
            if fits || mutant::is(Mutant::GrantWithoutCondition) {
                row.outstanding += grant.amount;
                had_room.push(row.clone());
            }
        }
        had_room
    }

    /// `quota_windows::extend`
    pub fn extend(&mut self, change: &WindowChange) {
        self.window(&change.key, change.end).extra += change.amount;
    }

    /// `quota_leases::get`
    #[must_use]
    pub fn leases(&self, holder: Holder<'_>, keys: &[WindowKey]) -> Vec<LeaseRow> {
        let key = |key: &WindowKey| (key.clone(), holder.node_id.to_owned(), holder.epoch);
        keys.iter().filter_map(|window| self.leases.get(&key(window)).cloned()).collect()
    }

    /// `quota_leases::settle`
    pub fn settle_leases(&mut self, holder: Holder<'_>, amounts: &[(WindowKey, i64)]) -> Vec<LeaseRow> {
        let leases = Rc::make_mut(&mut self.leases);
        let settle = |(key, amount): &(WindowKey, i64)| {
            let row = leases.entry((key.clone(), holder.node_id.to_owned(), holder.epoch));
            let row = row.or_insert_with(|| LeaseRow::none(key.clone(), holder));
            row.settled += amount;
            row.clone()
        };
        amounts.iter().map(settle).collect()
    }

    /// `quota_leases::write`
    pub fn write_leases(&mut self, rows: &[LeaseRow]) {
        let leases = Rc::make_mut(&mut self.leases);
        for row in rows {
            let known = leases.entry((row.key.clone(), row.node_id.clone(), row.epoch)).or_insert_with(|| row.clone());
            *known = LeaseRow { settled: known.settled, ..row.clone() };
        }
    }

    /// `quota_leases::of`
    #[must_use]
    pub fn leases_of(&self, holder: Holder<'_>) -> Vec<LeaseRow> {
        let of = |row: &&LeaseRow| row.node_id == holder.node_id && row.epoch == holder.epoch;
        self.leases.values().filter(of).cloned().collect()
    }

    /// `quota_leases::expired`
    #[must_use]
    pub fn expired(&self, now: i64) -> Vec<LeaseRow> {
        let is = |row: &&LeaseRow| row.expires_at > 0 && row.expires_at <= now;
        self.leases.values().filter(is).cloned().collect()
    }

    /// `quota_leases::delete`
    pub fn delete_leases(&mut self, rows: &[LeaseRow]) {
        let leases = Rc::make_mut(&mut self.leases);
        for row in rows {
            leases.remove(&(row.key.clone(), row.node_id.clone(), row.epoch));
        }
    }

    /// `quota_leases::shards`
    #[must_use]
    pub fn shards(&self, holder: Holder<'_>) -> (u64, u64) {
        let of = self.cursors.iter().filter(|((node, epoch, _), _)| node == holder.node_id && *epoch == holder.epoch);
        of.fold((0, 0), |(known, ended), (_, row)| (known + 1, ended + u64::from(!row.cursor.ended.is_empty())))
    }

    /// `usage_ingest::lock_cursor`
    pub fn lock_cursor(&mut self, shard: Shard<'_>, instance_id: &str, now: i64) -> Cursor {
        let cursor = || Cursor { next_position: 0, ended: String::new(), instance_id: instance_id.to_owned() };
        let none = || CursorRow { cursor: cursor(), lost: 0, updated_at: now };
        let row = Rc::make_mut(&mut self.cursors).entry(log_of(shard)).or_insert_with(none);
        row.updated_at = now;
        row.cursor.clone()
    }

    /// `usage_ingest::move_cursor`
    pub fn move_cursor(&mut self, shard: Shard<'_>, cursor: &Cursor, lost: i64) {
        if let Some(row) = Rc::make_mut(&mut self.cursors).get_mut(&log_of(shard)) {
            row.cursor = cursor.clone();
            row.lost += lost;
        }
    }

    /// `usage_ingest::newest_epoch`
    #[must_use]
    pub fn newest_epoch(&self, node_id: &str, instance_id: &str) -> Option<i64> {
        let of = |((node, _, _), row): &(&Log, &CursorRow)| node == node_id && row.cursor.instance_id == instance_id;
        self.cursors.iter().filter(of).map(|((_, epoch, _), _)| *epoch).max()
    }

    /// `usage_ingest::last_other`
    #[must_use]
    pub fn last_other(&self, shard: Shard<'_>) -> Option<String> {
        let same = |((node, epoch, index), _): &(&Log, &CursorRow)| {
            node == shard.node_id && *epoch == shard.epoch && *index != shard.shard
        };
        let last = self.cursors.iter().filter(same).max_by_key(|(_, row)| row.updated_at);
        last.map(|(_, row)| row.cursor.instance_id.clone())
    }

    /// `usage_ingest::insert_opens`
    pub fn insert_opens(&mut self, shard: Shard<'_>, rows: Vec<OpenRow>) {
        for row in rows {
            let known = self.opens.get(&row.exchange_id);
            let newer = |(log, known): &(Log, Rc<OpenRow>)| *log == log_of(shard) && known.position < row.position;
            if known.is_none_or(newer) {
                Rc::make_mut(&mut self.opens).insert(row.exchange_id.clone(), (log_of(shard), Rc::new(row)));
            }
        }
    }

    /// `usage_ingest::delete_opens`
    pub fn delete_opens<'a>(&mut self, ids: impl IntoIterator<Item = &'a str>) {
        for id in ids {
            if self.opens.contains_key(id) {
                Rc::make_mut(&mut self.opens).remove(id);
            }
        }
    }

    /// `usage_ingest::lone_opens`
    #[must_use]
    pub fn lone_opens(&self, shard: Shard<'_>) -> Vec<OpenRow> {
        let log = log_of(shard);
        let mut rows: Vec<&OpenRow> = self.opens.values().filter(|(of, _)| *of == log).map(|(_, row)| &**row).collect();
        rows.sort_by_key(|row| row.position);
        rows.into_iter().cloned().collect()
    }

    /// `usage_events::insert`: which of them were new.
    pub fn insert_events(&mut self, shard: Shard<'_>, rows: &[EventRow]) -> Vec<bool> {
        let events = Rc::make_mut(&mut self.events);
        let insert = |row: &EventRow| {
            let new = !events.contains_key(&row.open.exchange_id);
            if new {
                let event = Event { log: log_of(shard), row: row.clone() };
                events.insert(row.open.exchange_id.clone(), Rc::new(event));
            }
            new
        };
        rows.iter().map(insert).collect()
    }

    /// `usage_rollup::add`
    pub fn add_rollup(&mut self, sums: &[(RollupKey, RollupSums)]) {
        let rollup = Rc::make_mut(&mut self.rollup);
        for (key, sum) in sums {
            rollup.entry(*key).or_default().add(sum);
        }
    }
}
