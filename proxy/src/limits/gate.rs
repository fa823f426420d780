//! The limits of one bot, tenant or provider key on this node, and what an
//! exchange has of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clawgate_shared::clock;

use super::bucket::Bucket;
use super::slots::{Slot, Slots};

/// Limits as configured, for all nodes together; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Requests in a minute.
    pub requests_per_minute: u64,
    /// Tokens in a minute.
    pub tokens_per_minute: u64,
    /// Requests at one time.
    pub max_concurrency: u32,
}

impl Allowance {
    /// Whether there is no limit at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// One node's part, rounded up: a limit of 1 is 1 everywhere.
    fn part(self, nodes: u32) -> Self {
        let nodes = nodes.max(1);
        Self {
            requests_per_minute: self.requests_per_minute.div_ceil(nodes.into()),
            tokens_per_minute: self.tokens_per_minute.div_ceil(nodes.into()),
            max_concurrency: self.max_concurrency.div_ceil(nodes),
        }
    }
}

/// One thing's limits and what is used of them.
#[derive(Debug, Default)]
pub struct Gate {
    configured: Mutex<Allowance>,
    /// Requests per minute.
    pub requests: Bucket,
    /// Tokens per minute.
    pub tokens: Bucket,
    /// At one time.
    pub slots: Arc<Slots>,
}

impl Gate {
    /// As configured, for all nodes together.
    #[must_use]
    pub fn configured(&self) -> Allowance {
        *self.configured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, allowance: Allowance, nodes: u32, now: i64) {
        *self.configured.lock().unwrap_or_else(PoisonError::into_inner) = allowance;
        let part = allowance.part(nodes);
        self.requests.set(part.requests_per_minute, now);
        self.tokens.set(part.tokens_per_minute, now);
        self.slots.set(part.max_concurrency);
    }
}

/// All gates of this node, by the id of what they belong to.
#[derive(Debug, Default)]
pub struct Gates {
    map: Mutex<HashMap<Arc<str>, Arc<Gate>>>,
    /// How many nodes share every limit; 0: only this one is known.
    nodes: AtomicU32,
}

impl Gates {
    /// The gate of a thing: the same one for as long as any snapshot or exchange
    /// has it. A new one lets everything through until [`Self::set`]. Asked only
    /// while a snapshot is compiled.
    #[must_use]
    pub fn of(&self, id: &str) -> Arc<Gate> {
        let mut map = self.map();
        if let Some(known) = map.get(id) {
            return known.clone();
        }
        map.entry(id.into()).or_default().clone()
    }

    /// Changes the limits of a gate in place; what was used stays used.
    pub fn set(&self, gate: &Gate, allowance: Allowance, now: i64) {
        let _one_at_a_time = self.map();
        gate.set(allowance, self.nodes.load(Ordering::Relaxed), now);
    }

    /// So many nodes share every limit from now on.
    pub fn share(&self, nodes: u32, now: i64) {
        let map = self.map();
        if self.nodes.swap(nodes, Ordering::Relaxed) != nodes {
            map.values().for_each(|gate| gate.set(gate.configured(), nodes, now));
        }
    }

    /// Forgets gates that nobody has.
    pub fn forget_unused(&self) {
        self.map().retain(|_, gate| Arc::strong_count(gate) > 1 || gate.slots.taken() > 0);
    }

    fn map(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Gate>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one exchange has of one gate. Dropped before the request was sent, all
/// of it goes back; after, only the place.
#[derive(Debug)]
#[must_use]
pub struct Stay {
    gate: Arc<Gate>,
    slot: Option<Slot>,
    /// Taken of a rate, with the time when.
    requests: (u64, i64),
    tokens: (u64, i64),
    sent: bool,
}

impl Stay {
    /// Takes a place; `None`: all are taken.
    pub fn enter(gate: &Arc<Gate>) -> Option<Self> {
        let slot = gate.slots.take()?;
        Some(Self { gate: gate.clone(), slot: Some(slot), requests: (0, 0), tokens: (0, 0), sent: false })
    }

    /// Of what has its place elsewhere.
    pub fn within(gate: &Arc<Gate>) -> Self {
        Self { gate: gate.clone(), slot: None, requests: (0, 0), tokens: (0, 0), sent: false }
    }

    /// Counts the request.
    ///
    /// # Errors
    /// Not now; in how many microseconds.
    pub fn request(&mut self, now: i64) -> Result<(), i64> {
        self.gate.requests.try_take(1, now)?;
        self.requests = (1, now);
        Ok(())
    }

    /// Counts what the prompt is taken to be.
    ///
    /// # Errors
    /// Not now; in how many microseconds.
    pub fn tokens(&mut self, tokens: u64, now: i64) -> Result<(), i64> {
        self.gate.tokens.try_take(tokens, now)?;
        self.tokens = (tokens, now);
        Ok(())
    }

    /// A vendor may have seen the request: it counts from here on.
    pub const fn sent(&mut self) {
        self.sent = true;
    }

    /// The work is done: gives the place back.
    pub fn leave(&mut self) {
        self.slot = None;
    }

    /// Corrects what was taken for tokens to what they were; `None`: nobody
    /// knows, so that it stays. More than there is becomes a debt.
    pub fn settle(&mut self, used: Option<u64>, now: i64) {
        let (taken, at) = self.tokens;
        let Some(used) = used.filter(|_| self.sent) else { return };
        self.tokens = (used, at);
        self.gate.tokens.charge(used.saturating_sub(taken), now);
        self.gate.tokens.give_back(taken.saturating_sub(used), at, now);
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        if self.sent || (self.requests.0 == 0 && self.tokens.0 == 0) {
            return;
        }
        let now = clock::boot_micros();
        for (bucket, (n, at)) in [(&self.gate.requests, self.requests), (&self.gate.tokens, self.tokens)] {
            bucket.give_back(n, at, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowance(requests_per_minute: u64, tokens_per_minute: u64, max_concurrency: u32) -> Allowance {
        Allowance { requests_per_minute, tokens_per_minute, max_concurrency }
    }

    fn gate(allowance: Allowance) -> (Gates, Arc<Gate>) {
        let gates = Gates::default();
        let gate = gates.of("bot_1");
        gates.set(&gate, allowance, 0);
        (gates, gate)
    }

    #[test]
    fn a_gate_is_found_again_and_nodes_share_it() {
        let (gates, gate) = gate(allowance(10, 0, 3));
        assert!(Arc::ptr_eq(&gate, &gates.of("bot_1")));
        (0..4).for_each(|_| assert!(gate.requests.try_take(1, 0).is_ok()));
        gates.share(2, 0);
        assert_eq!((gate.requests.per_minute(), gate.requests.remaining(0)), (5, 1));
        assert_eq!(gate.configured(), allowance(10, 0, 3));
        let held: Vec<_> = (0..2).map(|_| Stay::enter(&gate).expect("two of three")).collect();
        assert!(Stay::enter(&gate).is_none());
        gates.share(100, 0);
        assert_eq!(gate.requests.per_minute(), 1);
        drop(held);
        assert!(Stay::enter(&gate).is_some(), "one is always left");
        gates.share(0, 0);
        assert_eq!((gate.requests.per_minute(), gate.tokens.per_minute()), (10, 0));
        drop(gate);
        gates.forget_unused();
        assert!(gates.map().is_empty());
    }

    #[test]
    fn a_refused_request_gives_everything_back() {
        let (_gates, gate) = gate(allowance(10, 100, 1));
        let now = clock::boot_micros();
        let mut stay = Stay::enter(&gate).expect("free");
        assert!(stay.request(now).is_ok() && stay.tokens(60, now).is_ok());
        assert_eq!((gate.requests.remaining(now), gate.tokens.remaining(now)), (9, 40));
        drop(stay);
        // What had flowed back by then was not given twice, so not a moment earlier.
        let now = clock::boot_micros();
        assert_eq!((gate.requests.remaining(now), gate.tokens.remaining(now)), (10, 100));
        assert_eq!(gate.slots.taken(), 0);
    }

    #[test]
    fn tokens_are_corrected_to_what_they_were() {
        for (used, remaining) in [(Some(90), 10), (Some(10), 90), (Some(0), 100), (None, 40), (Some(500), 0)] {
            let (_gates, gate) = gate(allowance(10, 100, 1));
            let mut stay = Stay::enter(&gate).expect("free");
            assert!(stay.request(0).is_ok() && stay.tokens(60, 0).is_ok());
            stay.sent();
            stay.leave();
            assert_eq!(gate.slots.taken(), 0);
            stay.settle(used, 0);
            drop(stay);
            assert_eq!((gate.requests.remaining(0), gate.tokens.remaining(0)), (9, remaining), "{used:?}");
        }
    }
}
