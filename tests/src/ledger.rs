//! The join of the mock vendor's ledger and the usage log: the proof that
//! nothing was lost and nothing counted twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::stack::{Bot, Stack};
use crate::wait::until_good;

/// What came of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Requests in the ledger.
    pub ledger: usize,
    /// Usage events.
    pub events: usize,
    /// Of them, with the vendor's answer whole.
    pub settled: usize,
    /// Whose end nobody saw.
    pub indeterminate: u64,
    /// Indeterminate events of requests that never got to the vendor.
    pub strays: u64,
    /// Tokens the vendor billed, both ways.
    pub tokens: u64,
}

/// Waits until every node has shipped what it has, and every request of the
/// ledger whose id begins with `prefix` is an event of `bot`; then checks that
/// none is there twice, that tokens are the ledger's, and that the rollups are
/// the sum of the events. At most `caught` requests may be without an end: those
/// in flight at kills of a node.
///
/// # Panics
/// Something is lost, there twice, or different.
pub fn join(stack: &Stack, bot: &Bot, prefix: &str, caught: u64) -> Joined {
    let entries = stack.mock.entries();
    let mut ledger: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut joined = Joined::default();
    for entry in &entries {
        let id = entry["request_id"].as_str().unwrap_or_default();
        if id.starts_with(prefix) {
            joined.tokens += entry["billed_input"].as_u64().unwrap_or(0) + entry["billed_output"].as_u64().unwrap_or(0);
            assert!(ledger.insert(id, entry).is_none(), "the vendor saw a request twice: {entry}");
        }
    }
    joined.ledger = ledger.len();
    let rows = settled_rows(stack, bot, &ledger);
    joined.events = rows.len();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for row in &rows {
        let id = row["client_request_id"].as_str().unwrap_or_default();
        assert!(seen.insert(id), "two events for {id}");
        joined.indeterminate += u64::from(row["outcome"] == "indeterminate");
        let Some(entry) = ledger.get(id) else {
            if row["outcome"] == "refused" {
                continue;
            }
            assert_eq!(row["outcome"], "indeterminate", "an event that the vendor knows nothing of: {row}");
            joined.strays += 1;
            continue;
        };
        joined.settled += usize::from(row["outcome"] == "ok");
        let exact = row["input_tokens"] == entry["billed_input"] && row["output_tokens"] == entry["billed_output"];
        if row["outcome"] == "ok" && !exact {
            wrong.push(format!("{row} for {entry}"));
        }
    }
    println!("{}: {joined:?}", bot.hostname);
    assert!(wrong.is_empty(), "{} events with other tokens than the ledger: {:#?}", wrong.len(), &wrong[..1]);
    assert!(joined.strays <= caught, "{joined:?}, {caught} were in flight");
    assert!(joined.indeterminate <= caught, "{joined:?}, {caught} were in flight");
    rollups_equal_events(stack, bot, &rows);
    joined
}

/// All usage rows of `bot` once everything of the ledger is among them.
fn settled_rows(stack: &Stack, bot: &Bot, ledger: &BTreeMap<&str, &Value>) -> Vec<Value> {
    let rest = stack.rest();
    until_good(
        "an empty spool",
        Duration::from_secs(120),
        || rest.get("/nodes"),
        |nodes| nodes["data"].as_array().is_some_and(|n| n.iter().all(|n| n["spool_backlog"] == 0)),
    );
    // The list is long; the sum says when it is worth reading.
    until_good(
        &format!("{} events of {}", ledger.len(), bot.hostname),
        Duration::from_secs(60),
        || rest.get(&format!("/bots/{}/usage/stats?period=month", bot.hostname))["requestCount"].as_u64(),
        |count| count.is_some_and(|count| count >= ledger.len() as u64),
    );
    until_good(
        "every request of the ledger to have its event",
        Duration::from_secs(60),
        || rest.all(&format!("/usage/logs?bot={}", bot.hostname)),
        |rows| {
            let seen: BTreeSet<&str> = rows.iter().filter_map(|r| r["client_request_id"].as_str()).collect();
            ledger.keys().all(|id| seen.contains(id))
        },
    )
}

fn rollups_equal_events(stack: &Stack, bot: &Bot, rows: &[Value]) {
    let sum = |column: &str| rows.iter().filter_map(|row| row[column].as_u64()).sum::<u64>();
    let stats = stack.rest().get(&format!("/bots/{}/usage/stats?period=month", bot.hostname));
    assert_eq!(stats["requestCount"], rows.len(), "{stats}");
    assert_eq!(stats["requestTokens"], sum("input_tokens"), "{stats}");
    assert_eq!(stats["responseTokens"], sum("output_tokens"), "{stats}");
}
