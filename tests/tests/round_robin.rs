//! Exact rotation over the keys that carry the tags a bot requires.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use clawgate_tests::http::Response;
use clawgate_tests::mock::sha256_hex;
use clawgate_tests::stack::{Bot, Stack, chat_request};
use clawgate_tests::storm;
use serde_json::{Value, json};

const CONNECTIONS: usize = 64;
const REQUESTS: usize = 3000;

/// Sends `count` requests over 64 kept connections; `at_half` runs once, when
/// half of them are under way.
fn storm(address: SocketAddr, bot: &Bot, count: usize, at_half: impl FnOnce()) {
    let look = |answer: &Response| assert_eq!(answer.status(), 200, "{}", answer.text());
    storm::storm(address, CONNECTIONS, &chat_request(&bot.token), count, look, at_half);
}

fn per_key(entries: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in entries {
        let hash = entry["credentials"][0]["sha256"].as_str().unwrap_or_default();
        *counts.entry(hash.to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn two_tagged_keys_share_exactly_and_a_new_one_takes_its_part() {
    let stack = Stack::start();
    let base = stack.mock.url("/v1");
    stack.key("openai", "sk-first", &base, &["a"], json!({}));
    stack.key("openai", "sk-second", &base, &["a", "b"], json!({}));
    stack.key("openai", "sk-third", &base, &["b"], json!({}));
    let bot = stack.bot("tagged", json!({ "tags": ["a"] }));

    storm(stack.data(), &bot, REQUESTS, || {});
    let entries = stack.mock.entries();
    let counts = per_key(&entries);
    let of = |counts: &BTreeMap<String, usize>, key: &str| counts.get(&sha256_hex(key)).copied().unwrap_or(0);
    for key in ["sk-first", "sk-second"] {
        let count = of(&counts, key);
        assert!(count.abs_diff(REQUESTS / 2) <= 1, "{key}: {count} of {counts:?}");
    }
    assert_eq!(of(&counts, "sk-third"), 0, "{counts:?}");

    // A key that is added in mid-run: the write returns when the node has it.
    let seen_before_new = AtomicUsize::new(0);
    storm(stack.data(), &bot, REQUESTS, || {
        stack.key("openai", "sk-fourth", &base, &["a"], json!({}));
        seen_before_new.store(stack.mock.requests(), Ordering::Relaxed);
    });
    let entries = stack.mock.entries();
    assert_eq!(entries.len(), 2 * REQUESTS);
    let counts = per_key(&entries[REQUESTS..]);
    let (old, new) = (of(&counts, "sk-first"), of(&counts, "sk-fourth"));
    // After the write at least what was not yet under way is shared by three.
    let after = (2 * REQUESTS).saturating_sub(seen_before_new.load(Ordering::Relaxed) + CONNECTIONS);
    let share = after / 3;
    assert!(new + 2 >= share && new <= REQUESTS / 6 + CONNECTIONS, "new {new}, share {share}, {counts:?}");
    assert!(old.abs_diff(of(&counts, "sk-second")) <= 2, "{counts:?}");
    assert_eq!(of(&counts, "sk-third"), 0, "{counts:?}");
}
