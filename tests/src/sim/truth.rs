//! What really happened, seen from above: every exchange, what the vendor
//! billed, and what the rules of the house excuse.

use std::collections::BTreeMap;

use clawgate_control::store::quota_windows::WindowKey;

use super::Broken;

/// Whether a record is on its node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was never written.
    No,
    /// It was.
    Yes,
    /// It was, and the power went before it was synced.
    Perhaps,
}

/// What is held, or charged, of one window.
#[derive(Clone, Debug)]
pub struct Line {
    /// Which.
    pub key: WindowKey,
    /// Whether the quota counts requests, and not tokens.
    pub requests: bool,
    /// Before it was sent.
    pub held: i64,
}

/// One exchange that holds something.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Index of its machine.
    pub machine: usize,
    /// Of its spool.
    pub epoch: u64,
    /// What it held.
    pub lines: Vec<Line>,
    /// What the vendor bills, in tokens; never more than was held.
    pub billed: i64,
    /// The vendor has seen it.
    pub sent: bool,
    /// Its OPEN.
    pub open: Kept,
    /// Its SETTLE.
    pub settle: Kept,
    /// What the SETTLE says, in tokens; `None`: nobody knew.
    pub reported: Option<i64>,
    /// The control plane had it and was put back to a time before that.
    pub forgotten: bool,
}

impl Exchange {
    /// What a SETTLE charges to a line.
    #[must_use]
    pub fn charge(&self, line: &Line) -> i64 {
        if line.requests { 1 } else { self.reported.unwrap_or(line.held) }
    }

    /// What may be used of a line, by what is known now.
    #[must_use]
    pub fn exposure(&self, line: &Line) -> i64 {
        if self.settle == Kept::No { line.held } else { self.charge(line) }
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Truth {
    /// By id.
    pub exchanges: BTreeMap<String, Exchange>,
    /// What vendors have been sent of each window: held, or charged.
    spent: BTreeMap<WindowKey, i64>,
    /// The highest limit that a quota had.
    pub limits: BTreeMap<String, i64>,
    /// The most that was granted on top of a window.
    pub extra: BTreeMap<WindowKey, i64>,
    /// By how much vendors may bill beyond a limit, and why is said where it is added.
    beyond: BTreeMap<WindowKey, i64>,
    /// By how much the books may pass a limit besides that.
    books: BTreeMap<WindowKey, i64>,
    /// Records may have been lost, so that some are delivered as lost.
    pub losses: bool,
}

impl Truth {
    fn limit(&self, key: &WindowKey) -> i64 {
        let of = |map: &BTreeMap<WindowKey, i64>| map.get(key).copied().unwrap_or(0);
        self.limits.get(&key.quota_id).copied().unwrap_or(0) + of(&self.extra) + of(&self.beyond)
    }

    /// What the books of a window may say at most.
    #[must_use]
    pub fn most_in_books(&self, key: &WindowKey) -> i64 {
        self.limit(key) + self.books.get(key).copied().unwrap_or(0)
    }

    /// A quota has this limit from now on.
    pub fn raise(&mut self, quota_id: &str, limit: u64) {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let known = self.limits.entry(quota_id.to_owned()).or_default();
        *known = limit.max(*known);
    }

    /// Vendors and books may go so far beyond the limit of a window.
    pub fn allow(&mut self, key: &WindowKey, amount: i64) {
        if amount > 0 {
            *self.beyond.entry(key.clone()).or_default() += amount;
        }
    }

    /// The books may.
    pub fn allow_books(&mut self, key: &WindowKey, amount: i64) {
        if amount > 0 {
            *self.books.entry(key.clone()).or_default() += amount;
        }
    }

    /// The vendor is sent an exchange.
    ///
    /// # Errors
    /// More than the limit may be used now.
    pub fn sent(&mut self, id: &str) -> Result<(), Broken> {
        let Some(exchange) = self.exchanges.get_mut(id).filter(|exchange| !exchange.sent) else { return Ok(()) };
        exchange.sent = true;
        for line in exchange.lines.clone() {
            *self.spent.entry(line.key.clone()).or_default() += line.held;
            let (spent, limit) = (self.spent.get(&line.key).copied().unwrap_or(0), self.limit(&line.key));
            if spent > limit {
                let what = format!("{id}: vendors were sent {spent} of {:?}, the limit is {limit}", line.key);
                return Err(Broken::new("a limit holds at the vendor", what));
            }
        }
        Ok(())
    }

    /// An exchange ends; `written`: its SETTLE is in the spool.
    pub fn ended(&mut self, id: &str, reported: Option<i64>, written: bool) {
        let Some(exchange) = self.exchanges.get_mut(id) else { return };
        exchange.reported = reported;
        if written {
            exchange.settle = Kept::Yes;
        }
        let exchange = exchange.clone();
        for line in &exchange.lines {
            let freed = line.held - exchange.charge(line);
            *self.spent.entry(line.key.clone()).or_default() -= freed;
            if !written {
                // The node goes by what it knows, the books by what was held.
                self.allow_books(&line.key, freed);
            }
        }
    }

    /// The power went before a record was synced.
    pub fn unsynced(&mut self, id: &str, settle: bool) {
        self.losses = true;
        let Some(exchange) = self.exchanges.get_mut(id) else { return };
        let before = exchange.clone();
        if settle {
            exchange.settle = Kept::Perhaps;
        } else {
            exchange.open = Kept::Perhaps;
        }
        for line in &before.lines {
            if settle {
                // The books count what was held.
                self.allow_books(&line.key, line.held - before.charge(line));
            } else {
                // Nobody knows of it any more, and the lease of a dead epoch is
                // free again.
                self.allow(&line.key, before.exposure(line));
            }
        }
    }

    /// What an epoch has sent of a window and the books do not know.
    pub fn undelivered(&self, machine: usize, epoch: u64, key: &WindowKey, known: impl Fn(&str) -> bool) -> i64 {
        let of = |(id, exchange): &(&String, &Exchange)| {
            let begun = exchange.sent || exchange.open != Kept::No;
            exchange.machine == machine && exchange.epoch == epoch && begun && !known(id)
        };
        let line = |(_, exchange): (&String, &Exchange)| {
            exchange.lines.iter().filter(|line| line.key == *key).map(|line| exchange.exposure(line)).sum::<i64>()
        };
        self.exchanges.iter().filter(of).map(line).sum()
    }
}
