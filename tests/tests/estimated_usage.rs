//! Answers whose vendor never says what they cost: counted beside the exchange,
//! recorded once, and not lost when the node stops.

use std::time::Duration;

use clawgate_tests::http::{Connection, Request, call};
use clawgate_tests::stack::{Bot, Stack, chat_body};
use clawgate_tests::wait::until_good;
use nix::sys::signal::Signal;
use serde_json::Value;

/// A vendor that says nothing of usage.
fn silent(bot: &Bot, stream: bool, tokens: u64) -> Request {
    Request::post("/v1/openai/chat/completions", &chat_body(stream))
        .bearer(&bot.token)
        .header("x-mock-usage", "missing")
        .header("x-mock-tokens", &tokens.to_string())
}

/// Each row's tokens are estimated and within a tenth of what the vendor sent.
fn check(rows: &[Value], tokens: u64) {
    for row in rows {
        assert_eq!(row["usage_source"], "estimated", "{row}");
        let output = row["output_tokens"].as_u64().unwrap_or(0);
        assert!(output.abs_diff(tokens) * 10 <= tokens, "{output} of {tokens}: {row}");
        assert!(row["input_tokens"].as_u64().is_some_and(|input| (5..20).contains(&input)), "{row}");
    }
}

/// Sends `asked` streams, one after the other.
fn send(stack: &Stack, bot: &Bot, asked: usize, tokens: u64) {
    let mut connection = Connection::open(stack.data()).expect("connected");
    for _ in 0..asked {
        assert_eq!(connection.call(&silent(bot, true, tokens)).expect("an answer").status(), 200);
    }
}

/// The rows of all of them, each there once.
fn rows(stack: &Stack, asked: usize) -> Vec<Value> {
    let read = || stack.rest().all("/usage/logs?bot=worker");
    let rows = until_good("all rows", Duration::from_secs(30), read, |rows| rows.len() >= asked);
    assert_eq!(rows.len(), asked, "{rows:#?}");
    rows
}

#[test]
fn what_no_vendor_reported_is_counted_within_a_tenth() {
    let mut stack = Stack::start();
    let bot = stack.ordinary("sk-silent", "worker");
    let plain = stack.bot("plain", serde_json::json!({}));
    for _ in 0..20 {
        assert_eq!(stack.chat(&plain).status(), 200);
    }
    let before = stack.node.process().resident_kib();
    for stream in [true, false] {
        assert_eq!(call(stack.data(), &silent(&bot, stream, 300)).status(), 200);
    }
    check(&stack.rest().usage_rows("worker", 2), 300);
    let grown = stack.node.process().resident_kib().saturating_sub(before);
    eprintln!("the node had {before} KiB, and {grown} more after it had counted");
    assert!(grown < 20 * 1024, "counting took {grown} KiB");
    // Longer than what is kept of it.
    let bot = stack.bot("novelist", serde_json::json!({}));
    assert_eq!(call(stack.data(), &silent(&bot, true, 20_000)).status(), 200);
    check(&stack.rest().usage_rows("novelist", 1), 20_000);
}

#[test]
fn a_node_that_stops_first_settles_what_still_waits_to_be_counted() {
    let mut stack = Stack::start();
    let bot = stack.ordinary("sk-silent", "worker");
    let asked = 120;
    send(&stack, &bot, asked, 200);
    stack.node.process().signal(Signal::SIGTERM);
    let (status, took) = stack.node.process().wait();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(3), "took {took:?}");
    // What was not shipped any more is on disk.
    stack.node.start();
    let rows = rows(&stack, asked);
    assert!(rows.iter().all(|row| row["outcome"] == "ok" && row["usage_source"] == "estimated"), "{rows:#?}");
}

#[test]
fn a_node_that_is_killed_meanwhile_leaves_every_exchange_in_one_row() {
    let mut stack = Stack::start();
    let bot = stack.ordinary("sk-silent", "worker");
    let asked = 60;
    send(&stack, &bot, asked, 400);
    stack.node.kill();
    stack.node.start();
    let rows = rows(&stack, asked);
    let ends = |outcome: &str| rows.iter().filter(|row| row["outcome"] == outcome).count();
    assert_eq!(ends("ok") + ends("indeterminate"), asked, "{rows:#?}");
}
