//! Many clients at one quota, and what the vendor's ledger says of it.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{Connection, Request};

/// How long a flood may take before it counts as hanging.
const LIMIT: Duration = Duration::from_secs(120);
/// What a client waits before it asks again, as SDKs do at first.
const AGAIN: Duration = Duration::from_millis(50);

/// What came of a flood.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answers with status 200.
    pub served: AtomicU64,
    /// Refusals with `quota_pending`.
    pub pending: AtomicU64,
    /// Requests without an answer.
    pub unanswered: AtomicU64,
    /// The code that ended each client, and its message.
    pub ended: Mutex<Vec<(String, String)>>,
}

/// Sends `request` from `clients` clients at once to the addresses in turn,
/// each again and again until it is refused for good.
///
/// # Panics
/// A client gets an answer that is none of 200 and a quota's refusals, or the
/// flood does not end.
pub fn flood(addresses: &[SocketAddr], clients: usize, request: &Request) -> Tally {
    flood_while(addresses, clients, request, || {})
}

/// The same while `meanwhile` runs, which may kill what listens there: a client
/// that gets no answer asks again.
///
/// # Panics
/// As [`flood`].
pub fn flood_while(addresses: &[SocketAddr], clients: usize, request: &Request, meanwhile: impl FnOnce()) -> Tally {
    let tally = Tally::default();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..clients {
            let (tally, address) = (&tally, addresses[number % addresses.len()]);
            scope.spawn(move || client(tally, address, request, began));
        }
        meanwhile();
    });
    tally
}

fn client(tally: &Tally, address: SocketAddr, request: &Request, began: Instant) {
    let mut kept: Option<Connection> = None;
    loop {
        assert!(began.elapsed() < LIMIT, "the flood does not end: {tally:?}");
        let asked = kept.take().map_or_else(|| Connection::open(address), Ok).and_then(|mut connection| {
            let answer = connection.call(request)?;
            Ok((connection, answer))
        });
        let Ok((connection, answer)) = asked else {
            tally.unanswered.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(AGAIN);
            continue;
        };
        match (answer.status(), answer.code().as_str()) {
            (200, _) => {
                tally.served.fetch_add(1, Ordering::Relaxed);
            }
            (429, "quota_pending") => {
                assert_eq!(answer.head.header("x-should-retry"), Some("true"), "{}", answer.text());
                tally.pending.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(AGAIN);
            }
            (429 | 402, code @ ("quota_exceeded" | "quota_reservation_too_large" | "budget_exceeded")) => {
                assert_eq!(answer.head.header("x-should-retry"), Some("false"), "{}", answer.text());
                tally.ended.lock().expect("lock").push((code.to_owned(), answer.text()));
                return;
            }
            (503, "not_configured") => std::thread::sleep(AGAIN),
            (status, _) => panic!("{status}: {}", answer.text()),
        }
        if answer.cut.is_none() && answer.head.header("connection") != Some("close") {
            kept = Some(connection);
        }
    }
}

/// What the vendor's ledger says of some requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Billed {
    /// Requests.
    pub requests: u64,
    /// Tokens, both ways.
    pub tokens: u64,
    /// The most that were in flight at once while more than a fifth of `limit`
    /// was not yet billed.
    pub peak: u64,
}

/// Adds up the ledger's `end` lines.
#[must_use]
pub fn billed(entries: &[Value], limit: u64) -> Billed {
    let number = |entry: &Value, name: &str| entry[name].as_u64().unwrap_or(0);
    let tokens = |entry: &Value| number(entry, "billed_input") + number(entry, "billed_output");
    // (when, ends before begins, in flight, tokens)
    let mut events: Vec<(u64, bool, u64)> = Vec::new();
    for entry in entries {
        events.push((number(entry, "start_us"), true, 0));
        events.push((number(entry, "end_us"), false, tokens(entry)));
    }
    events.sort_unstable();
    let mut sum = Billed { requests: entries.len() as u64, ..Billed::default() };
    let mut inflight = 0_u64;
    for (_, begins, spent) in events {
        inflight = if begins { inflight + 1 } else { inflight - 1 };
        sum.tokens += spent;
        if sum.tokens * 5 < limit * 4 {
            sum.peak = sum.peak.max(inflight);
        }
    }
    sum
}
