//! What one exchange holds, and its one end.

use std::sync::Arc;

use clawgate_shared::mutant::{self, Mutant};
use clawgate_shared::usage::Usage;
use smallvec::SmallVec;

use crate::limits::{Hold, Metric, QuotaRule};

/// Quotas of one exchange without a trip to the allocator.
const USUAL: usize = 4;

/// What an exchange holds of all quotas that cover it. Dropped before it was
/// sent, everything goes back; dropped after, everything stays charged.
#[derive(Debug, Default)]
#[must_use]
pub struct Permit {
    entries: SmallVec<[Entry; USUAL]>,
    sent: bool,
}

#[derive(Debug)]
struct Entry {
    rule: Arc<QuotaRule>,
    held: Hold,
}

/// What an exchange turned out to use.
#[derive(Clone, Copy, Debug)]
pub struct Spent<'a> {
    /// As reported or estimated.
    pub usage: &'a Usage,
    /// In micro-USD.
    pub cost_micros: Option<u64>,
    /// Requests that reached a vendor and count: 0 or 1.
    pub requests: u64,
    /// The vendor is known to bill nothing that it did not report: it refused, or
    /// never got the request.
    pub nothing_else: bool,
}

impl Spent<'_> {
    /// In a metric's unit; `None`: nobody knows.
    fn amount(&self, metric: Metric) -> Option<u64> {
        let known = match metric {
            Metric::TotalTokens => self.usage.total_or_sum(),
            Metric::InputTokens => self.usage.input,
            Metric::OutputTokens => self.usage.output,
            Metric::CostMicros => self.cost_micros,
            Metric::Requests => return Some(self.requests),
        };
        known.or(self.nothing_else.then_some(0))
    }
}

/// One line of a usage record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// `quo_…`
    pub quota_id: &'a str,
    /// Which window.
    pub window_start_micros: i64,
    /// In the quota's unit.
    pub amount: u64,
}

impl Permit {
    /// Adds what is held under a rule.
    pub fn add(&mut self, rule: Arc<QuotaRule>, held: Hold) {
        self.entries.push(Entry { rule, held });
    }

    /// Holds `amount` under a rule, if its slice has so much now.
    #[must_use]
    pub fn take(&mut self, rule: &Arc<QuotaRule>, amount: u64, now: i64) -> bool {
        let held = rule.slice.hold(amount, now);
        let took = held.is_some();
        if let Some(held) = held {
            self.add(rule.clone(), held);
        }
        took
    }

    /// A vendor may have seen the request: it counts from here on.
    pub const fn sent(&mut self) {
        self.sent = true;
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The largest number of tokens that any quota holds, for usage rows.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        let of_tokens = |entry: &&Entry| {
            matches!(entry.rule.metric, Metric::TotalTokens | Metric::InputTokens | Metric::OutputTokens)
        };
        self.entries.iter().filter(of_tokens).map(|entry| entry.held.amount()).max().unwrap_or(0)
    }

    /// What is held, for the OPEN record.
    pub fn held(&self) -> impl Iterator<Item = Line<'_>> {
        self.entries.iter().map(|entry| entry.line(entry.held.amount()))
    }

    /// What will be charged, for the SETTLE record.
    pub fn charges<'a>(&'a self, spent: &'a Spent<'_>) -> impl Iterator<Item = Line<'a>> {
        self.entries.iter().map(move |entry| entry.line(entry.charge(spent)))
    }

    /// The end: charges what was used. Nothing was sent, nothing is charged.
    pub fn settle(mut self, spent: &Spent<'_>) {
        for entry in std::mem::take(&mut self.entries) {
            let charge = if self.sent { entry.charge(spent) } else { 0 };
            entry.held.settle(charge);
        }
    }

    /// Whether an answer may have to be cut off.
    #[must_use]
    pub fn cuts(&self) -> bool {
        self.entries.iter().any(|entry| entry.rule.cut)
    }

    /// What is held of each quota that cuts answers off.
    pub fn cutting(&mut self) -> impl Iterator<Item = (&Arc<QuotaRule>, &mut Hold)> {
        let counts = |entry: &&mut Entry| {
            entry.rule.cut && matches!(entry.rule.metric, Metric::TotalTokens | Metric::OutputTokens)
        };
        self.entries.iter_mut().filter(counts).map(|entry| (&entry.rule, &mut entry.held))
    }
}

impl Entry {
    fn line(&self, amount: u64) -> Line<'_> {
        Line { quota_id: self.held.quota_id(), window_start_micros: self.held.window_start_micros(), amount }
    }

    /// What nobody knows stays charged as it was held.
    fn charge(&self, spent: &Spent<'_>) -> u64 {
        spent.amount(self.rule.metric).unwrap_or(self.held.amount())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.sent && !mutant::is(Mutant::VoidAfterDispatch) {
            for entry in std::mem::take(&mut self.entries) {
                let amount = entry.held.amount();
                entry.held.settle(amount);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Granted, Outage, Slices};

    fn rule(slices: &Slices, id: &str, metric: Metric) -> Arc<QuotaRule> {
        let granted = Granted { ends: i64::MAX, granted: 1000, usable_until: i64::MAX, ..Granted::default() };
        let slice = slices.of(id);
        slice.renew(&granted, 0);
        Arc::new(QuotaRule {
            slice,
            scope: "bot".into(),
            window: "day".into(),
            metric,
            limit: 1000,
            models: None,
            strict: true,
            cut: true,
            outage: Outage::Deny,
        })
    }

    fn permit(rules: &[Arc<QuotaRule>]) -> Permit {
        let mut permit = Permit::default();
        for rule in rules {
            permit.add(rule.clone(), rule.slice.hold(100, 0).expect("fits"));
        }
        permit
    }

    fn state(rule: &QuotaRule) -> (u64, u64, u64) {
        let window = rule.slice.window(0).expect("named");
        (window.free(), window.used(), window.held())
    }

    fn usage(input: Option<u64>, output: Option<u64>) -> Usage {
        Usage { input, output, ..Usage::default() }
    }

    #[test]
    fn every_metric_is_charged_its_part() {
        let slices = Slices::default();
        let metrics =
            [Metric::TotalTokens, Metric::InputTokens, Metric::OutputTokens, Metric::Requests, Metric::CostMicros];
        let rules: Vec<_> = metrics.iter().map(|m| rule(&slices, m.as_str(), *m)).collect();
        let mut held = permit(&rules);
        held.sent();
        let used = usage(Some(30), Some(12));
        let spent = Spent { usage: &used, cost_micros: Some(77), requests: 1, nothing_else: false };
        let lines: Vec<u64> = held.charges(&spent).map(|line| line.amount).collect();
        assert_eq!(lines, [42, 30, 12, 1, 77]);
        assert_eq!((held.tokens(), held.held().count()), (100, 5));
        held.settle(&spent);
        for (rule, used) in rules.iter().zip([42, 30, 12, 1, 77]) {
            assert_eq!(state(rule), (1000 - used, used, 0), "{:?}", rule.metric);
        }
    }

    #[test]
    fn what_nobody_knows_stays_charged_as_held() {
        let slices = Slices::default();
        let rules = [rule(&slices, "a", Metric::TotalTokens), rule(&slices, "b", Metric::Requests)];
        for (nothing_else, charged) in [(false, 100), (true, 0)] {
            let before = state(&rules[0]).1;
            let mut held = permit(&rules);
            held.sent();
            let used = usage(None, None);
            held.settle(&Spent { usage: &used, cost_micros: None, requests: 1, nothing_else });
            assert_eq!(state(&rules[0]).1 - before, charged);
        }
        assert_eq!(state(&rules[1]), (998, 2, 0));
    }

    #[test]
    fn a_permit_that_is_dropped_ends_once() {
        let slices = Slices::default();
        let rules = [rule(&slices, "a", Metric::TotalTokens)];
        drop(permit(&rules));
        assert_eq!(state(&rules[0]), (1000, 0, 0), "nothing was sent");
        let mut held = permit(&rules);
        held.sent();
        drop(held);
        assert_eq!(state(&rules[0]), (900, 100, 0), "a vendor may have seen it");
        let used = usage(Some(5), None);
        permit(&rules).settle(&Spent { usage: &used, cost_micros: None, requests: 1, nothing_else: false });
        assert_eq!(state(&rules[0]), (900, 100, 0), "not sent, not charged");
    }

    #[test]
    fn an_answer_may_grow_as_far_as_there_is_something_left() {
        let slices = Slices::default();
        let rules = [rule(&slices, "a", Metric::TotalTokens)];
        let mut held = permit(&rules);
        let mut grow = |more| held.cutting().all(|(_, held)| held.extend(more, 0));
        assert!(grow(900) && !grow(1));
        assert_eq!(held.tokens(), 1000);
    }
}
