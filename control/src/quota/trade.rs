//! One call of a node: what it has and wants, and what it has from now on.
//!
//! Windows that nothing changes in are only read. The others are locked in
//! order first, and their leases read after that, so that what is decided here
//! is still so when it is written; the grant itself is conditional all the
//! same.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use clawgate_shared::mutant::{self, Mutant};

use super::book::{Book, Quota};
use super::desk::Desk;
use super::grant::{self, Ask};
use super::window::Window;
use super::{HOLD, Quotas};
pub use crate::store::quota_leases::Holder;
use crate::store::quota_leases::{self as leases, LeaseRow};
use crate::store::quota_windows::{self as windows, MAX_EXTRA, WindowChange, WindowGrant, WindowKey, WindowRow};
use crate::store::{Db, StoreError};

/// Most claims in one call.
pub const MAX_CLAIMS: usize = 4096;
/// Most leases in one answer that were not named and are recalled.
const MAX_RECALLS: usize = 256;
/// Larger amounts are cut to this; it keeps sums far from overflow.
pub const MAX_AMOUNT: i64 = 1_000_000_000_000_000_000;
/// A lease is not written again for its time alone more often than this, in
/// microseconds; it is held so much longer.
const REFRESH: i64 = 60 * 1_000_000;

/// What a node says about one window; see the node protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// `quo_…`
    pub quota_id: String,
    /// 0: the one that is now.
    pub window_start: i64,
    /// The one after that.
    pub next: bool,
    /// Cumulative, as the node knows it.
    pub granted: i64,
    /// Cumulative.
    pub returned: i64,
    /// On top of what it has.
    pub want: i64,
    /// Less is of no use.
    pub least: i64,
}

impl Claim {
    /// Of the window after the named one the node knows nothing yet; what it has
    /// of the named one is not said of that.
    fn meant(&self) -> Self {
        if self.next { Self { granted: 0, returned: 0, ..self.clone() } } else { self.clone() }
    }
}

/// What the node has; see the node protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `quo_…`
    pub quota_id: String,
    /// Which window.
    pub window: Window,
    /// Cumulative.
    pub granted: i64,
    /// Cumulative.
    pub returned: i64,
    /// With what was granted on top.
    pub limit: i64,
    /// Of the whole window.
    pub settled: i64,
    /// Of the whole window.
    pub outstanding: i64,
    /// What other nodes are short of.
    pub recall: i64,
    /// Nothing is to be enforced.
    pub gone: bool,
}

/// Why a call is not answered.
#[derive(Debug, thiserror::Error)]
pub enum TradeError {
    /// Every known shard of the epoch has ended.
    #[error("this epoch has ended")]
    Ended,
    /// An admin removed this node.
    #[error("this node was revoked")]
    Revoked,
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(&'static str),
    /// See [`StoreError`]; calling again may help.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A claim on a quota that there is.
struct Target<'a> {
    quota: &'a Quota,
    key: WindowKey,
    window: Window,
    /// Whether it may be granted from: it is the current or the next one.
    open: bool,
}

/// What one call has read and decided, by window.
#[derive(Default)]
struct Desktop {
    windows: HashMap<WindowKey, WindowRow>,
    leases: HashMap<WindowKey, LeaseRow>,
    /// What returning and adopting does to what is outstanding.
    shifts: BTreeMap<WindowKey, WindowChange>,
    grants: BTreeMap<WindowKey, WindowGrant>,
    /// Leases to be written.
    written: BTreeSet<WindowKey>,
}

/// Answers the claims of one node, each in its place; after them, other leases
/// of its that are recalled.
///
/// # Errors
/// See [`TradeError`]; nothing is changed then.
pub async fn trade(
    db: &Db,
    quotas: &Quotas,
    holder: Holder<'_>,
    claims: &[Claim],
    now: i64,
) -> Result<Vec<Answer>, TradeError> {
    if claims.len() > MAX_CLAIMS {
        return Err(TradeError::Invalid("too many claims"));
    }
    let mut tx = db.begin().await?;
    if is_over(leases::shards(&mut tx, holder).await?) {
        return Err(TradeError::Ended);
    }
    let book = quotas.books.now(&mut tx).await?;
    let unnamed = leases::get(&mut tx, holder, &unnamed(&book, &quotas.desk, holder, claims, now)).await?;
    let mut call = Call::new(&book, quotas, holder, (claims, unnamed), now);
    let keys = call.keys();
    call.read(windows::get(&mut tx, &keys).await?, leases::get(&mut tx, holder, &keys).await?);
    let changing = call.changing();
    if !changing.is_empty() {
        let keys: Vec<WindowKey> = changing.iter().map(|change| change.key.clone()).collect();
        let locked = windows::settle(&mut tx, &changing).await?;
        let (shifts, grants) = call.decide(locked, leases::get(&mut tx, holder, &keys).await?, &keys);
        windows::shift(&mut tx, &shifts).await?;
        let had_room = windows::grant(&mut tx, &grants).await?;
        leases::write(&mut tx, &call.written(&had_room)).await?;
        tx.commit().await?;
    }
    Ok(call.answers())
}

/// Whether an epoch is over: so many of its shards are known, so many of them
/// have ended. Pure; so for all below.
#[must_use]
pub const fn is_over((known, ended): (u64, u64)) -> bool {
    known > 0 && known == ended
}

/// Windows that others are short of, or whose limit was lowered, and that the
/// node does not name; in order.
#[must_use]
pub fn unnamed(book: &Book, desk: &Desk, holder: Holder<'_>, claims: &[Claim], now: i64) -> Vec<WindowKey> {
    let mut keys = desk.recalls(holder.node_id, MAX_RECALLS, now);
    let lowered = book.lowered(now);
    keys.extend(lowered.map(|quota| WindowKey { quota_id: quota.id.clone(), start: quota.window_at(now).start }));
    if keys.is_empty() {
        return keys;
    }
    let named: HashSet<&str> = claims.iter().map(|claim| claim.quota_id.as_str()).collect();
    keys.retain(|key| !named.contains(key.quota_id.as_str()));
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// One call on its way to an answer: rows in, changes out. What is between is
/// done by [`trade`] with the database.
pub struct Call<'a> {
    quotas: &'a Quotas,
    holder: Holder<'a>,
    now: i64,
    claims: Vec<Claim>,
    targets: Vec<Option<Target<'a>>>,
    desktop: Desktop,
}

impl<'a> Call<'a> {
    /// What the node claims, and the leases it has of windows that it does not
    /// name and others are short of: as if it had named them, because the answer
    /// tells it of them.
    #[must_use]
    pub fn new(
        book: &'a Book,
        quotas: &'a Quotas,
        holder: Holder<'a>,
        (claims, unnamed): (&[Claim], Vec<LeaseRow>),
        now: i64,
    ) -> Self {
        let claim = |lease: LeaseRow| Claim {
            quota_id: lease.key.quota_id,
            window_start: lease.key.start,
            granted: lease.granted,
            returned: lease.returned,
            ..Claim::default()
        };
        let recalled = unnamed.into_iter().filter(|lease| lease.rest() > 0).map(claim);
        let claims: Vec<Claim> = claims.iter().map(Claim::meant).chain(recalled).collect();
        let targets = claims.iter().map(|claim| target(book, claim, now)).collect();
        Self { quotas, holder, now, claims, targets, desktop: Desktop::default() }
    }

    /// The windows it is about, in order: they are to be read.
    #[must_use]
    pub fn keys(&self) -> Vec<WindowKey> {
        let keys: BTreeSet<WindowKey> = self.targets.iter().flatten().map(|target| target.key.clone()).collect();
        keys.into_iter().collect()
    }

    /// Takes what was read.
    pub fn read(&mut self, windows: Vec<WindowRow>, leases: Vec<LeaseRow>) {
        self.desktop.read(windows, leases);
    }

    /// The windows in which something changes, in order: they are to be locked.
    #[must_use]
    pub fn changing(&self) -> Vec<WindowChange> {
        self.desktop.changing(&self.claims, &self.targets, self.now)
    }

    /// Decides, by what was read of `keys` after they were locked: what shifts,
    /// whatever the limit, and then what is granted if there is room for it.
    #[must_use]
    pub fn decide(
        &mut self,
        windows: Vec<WindowRow>,
        leases: Vec<LeaseRow>,
        keys: &[WindowKey],
    ) -> (Vec<WindowChange>, Vec<WindowGrant>) {
        let Self { quotas, holder, now, claims, targets, desktop } = self;
        desktop.leases.retain(|key, _| keys.binary_search(key).is_err());
        desktop.read(windows, leases);
        for (claim, target) in claims.iter().zip(targets) {
            if let Some(target) = target.as_ref().filter(|target| keys.binary_search(&target.key).is_ok()) {
                desktop.decide(quotas, *holder, claim, target, *now);
            }
        }
        let shifts = desktop.shifts.values().filter(|change| change.amount != 0).cloned().collect();
        (shifts, desktop.grants.values().cloned().collect())
    }

    /// The leases to be written, once it is known which windows had room.
    #[must_use]
    pub fn written(&mut self, had_room: &[WindowRow]) -> Vec<LeaseRow> {
        self.desktop.written(had_room)
    }

    /// What the node has from now on, each claim's in its place.
    #[must_use]
    pub fn answers(&self) -> Vec<Answer> {
        let answer = |(claim, target): (&Claim, &Option<Target<'_>>)| match target {
            Some(target) => self.desktop.answer(&self.quotas.desk, self.holder, claim, target, self.now),
            None => gone(claim),
        };
        self.claims.iter().zip(&self.targets).map(answer).collect()
    }
}

fn target<'a>(book: &'a Book, claim: &Claim, now: i64) -> Option<Target<'a>> {
    let quota = book.get(&claim.quota_id).filter(|quota| quota.blocks)?;
    let current = quota.window_at(now);
    let named = if claim.window_start == 0 { current } else { quota.window_from(claim.window_start) };
    let window = if claim.next { quota.window_after(named) } else { named };
    let open = [current.start, quota.window_after(current).start].contains(&window.start);
    let key = WindowKey { quota_id: quota.id.clone(), start: window.start };
    Some(Target { quota, key, window, open })
}

fn gone(claim: &Claim) -> Answer {
    Answer {
        quota_id: claim.quota_id.clone(),
        window: Window { start: claim.window_start, end: 0 },
        granted: 0,
        returned: 0,
        limit: 0,
        settled: 0,
        outstanding: 0,
        recall: 0,
        gone: true,
    }
}

impl Desktop {
    fn read(&mut self, windows: Vec<WindowRow>, leases: Vec<LeaseRow>) {
        self.windows.extend(windows.into_iter().map(|row| (row.key.clone(), row)));
        self.leases.extend(leases.into_iter().map(|row| (row.key.clone(), row)));
    }

    /// The windows in which something changes, in order.
    fn changing(&self, claims: &[Claim], targets: &[Option<Target<'_>>], now: i64) -> Vec<WindowChange> {
        let mut changing = BTreeMap::new();
        for (claim, target) in claims.iter().zip(targets) {
            let Some(target) = target else { continue };
            let lease = self.leases.get(&target.key);
            let (granted, returned) = lease.map_or((0, 0), |lease| (lease.granted, lease.returned));
            let ages = lease.is_some_and(|lease| lease.rest() > 0 && lease.expires_at < now.saturating_add(HOLD));
            if claim.granted > granted || claim.returned > returned || ages || (claim.want > 0 && target.open) {
                let change = WindowChange { key: target.key.clone(), end: target.window.end, amount: 0 };
                changing.insert(target.key.clone(), change);
            }
        }
        changing.into_values().collect()
    }

    fn decide(&mut self, quotas: &Quotas, holder: Holder<'_>, claim: &Claim, target: &Target<'_>, now: i64) {
        let key = &target.key;
        let Some(window) = self.windows.get_mut(key) else { return };
        let lease = self.leases.entry(key.clone()).or_insert_with(|| LeaseRow::none(key.clone(), holder));
        let before = lease.rest();
        // What the node can name was granted, whatever the database remembers.
        lease.granted = lease.granted.max(claim.granted.min(MAX_EXTRA));
        let known = if mutant::is(Mutant::ReturnedNotMonotone) { 0 } else { lease.returned };
        lease.returned = known.max(claim.returned.min(lease.granted));
        let moved = lease.rest() - before;
        if moved != 0 {
            window.outstanding += moved;
            let change = WindowChange { key: key.clone(), end: target.window.end, amount: 0 };
            self.shifts.entry(key.clone()).or_insert(change).amount += moved;
        }
        // What was granted in an answer that got lost is part of what is wanted.
        let unseen = (lease.granted - lease.returned).saturating_sub(claim.granted - claim.returned).max(0);
        let (want, least) = (claim.want.saturating_sub(unseen), claim.least.saturating_sub(unseen).max(1));
        let others = quotas.desk.others(key, holder.node_id, claim.want > 0 || lease.rest() > 0, now);
        if target.open && want > 0 {
            let elsewhere = window.outstanding > lease.rest();
            let free = target.quota.limit.saturating_add(window.extra) - window.settled - window.outstanding;
            let free = if mutant::is(Mutant::GrantWithoutCondition) { target.quota.limit } else { free };
            let remaining = if now < quotas.learning_until { free / 2 } else { free };
            let size = grant::size(Ask { want, least, remaining, others: others.max(i64::from(elsewhere)) });
            // What the lease is overdrawn by is settled: it comes on top, else the
            // node would pay it off in slices and be refused what is left until then.
            let owed = (lease.returned + lease.settled - lease.granted).max(0);
            if size > 0 && lease.granted <= MAX_EXTRA - size - owed {
                lease.granted += size + owed;
                window.outstanding += size;
                let none = WindowGrant { key: key.clone(), amount: 0, limit: target.quota.limit };
                self.grants.entry(key.clone()).or_insert(none).amount += size;
            }
            let short = if size == 0 && elsewhere { want.max(least).saturating_sub(free.max(0)) } else { 0 };
            quotas.desk.short(key, holder.node_id, short, now);
        } else if claim.want > 0 {
            quotas.desk.short(key, holder.node_id, 0, now);
        }
        lease.expires_at = if lease.rest() > 0 { now.saturating_add(HOLD + REFRESH) } else { 0 };
        self.written.insert(key.clone());
    }

    fn written(&mut self, had_room: &[WindowRow]) -> Vec<LeaseRow> {
        if had_room.len() != self.grants.len() {
            // The locks rule this out; a grant that the ledger refuses is none.
            let room: BTreeSet<&WindowKey> = had_room.iter().map(|row| &row.key).collect();
            for refused in self.grants.values().filter(|grant| !room.contains(&grant.key)) {
                if let Some(lease) = self.leases.get_mut(&refused.key) {
                    lease.granted -= refused.amount;
                }
                if let Some(window) = self.windows.get_mut(&refused.key) {
                    window.outstanding -= refused.amount;
                }
            }
        }
        self.written.iter().filter_map(|key| self.leases.get(key).cloned()).collect()
    }

    fn answer(&self, desk: &Desk, holder: Holder<'_>, claim: &Claim, target: &Target<'_>, now: i64) -> Answer {
        let lease = self.leases.get(&target.key);
        let window = self.windows.get(&target.key);
        let rest = lease.map_or(0, LeaseRow::rest);
        if !self.written.contains(&target.key) && rest > 0 {
            desk.others(&target.key, holder.node_id, true, now);
        }
        let limit = target.quota.limit.saturating_add(window.map_or(0, |row| row.extra));
        let (settled, outstanding) = window.map_or((0, 0), |row| (row.settled, row.outstanding));
        // Leased before the limit was lowered.
        let excess = settled.saturating_add(outstanding).saturating_sub(limit).clamp(0, outstanding.max(0));
        let short = desk.recall(&target.key, holder.node_id, now);
        let end = window.map_or(target.window.end, |row| row.end);
        Answer {
            quota_id: claim.quota_id.clone(),
            // One that is neither the current nor the next is over, whenever it
            // was to end: the tenant's time zone was changed.
            window: Window { start: target.key.start, end: if target.open { end } else { end.min(now) } },
            granted: lease.map_or(0, |lease| lease.granted),
            returned: lease.map_or(0, |lease| lease.returned),
            limit,
            settled,
            outstanding,
            recall: if rest > 0 { short.max(excess) } else { 0 },
            gone: false,
        }
    }
}
