//! Bots whose answers are read on when their clients have gone, and the three
//! caps of a node on that: time, tokens, and how many at once.

use std::time::{Duration, Instant};

use clawgate_tests::http::{Connection, Request};
use clawgate_tests::stack::{Bot, Stack, chat_body};
use clawgate_tests::wait::until;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

fn start(name: &'static str, value: &'static str) -> (Stack, Bot) {
    let stack = Stack::start_with(|_, node| node.spec.environment.push((name.to_owned(), value.to_owned())));
    stack.key("openai", "sk-drains", &stack.mock.url("/v1"), &[], json!({}));
    let bot = stack.bot("worker", json!({ "on_disconnect": "drain" }));
    (stack, bot)
}

/// A stream that has begun.
fn begun(stack: &Stack, bot: &Bot, per_second: u64, tokens: u64) -> Connection {
    let mut connection = Connection::open(stack.data()).expect("connected");
    let request = Request::post("/v1/openai/chat/completions", &chat_body(true))
        .bearer(&bot.token)
        .header("x-mock-tps", &per_second.to_string())
        .header("x-mock-tokens", &tokens.to_string());
    connection.send(&request).expect("sent");
    assert_eq!(connection.head("POST").expect("head").status, 200);
    assert!(connection.piece().expect("a piece").is_some());
    connection
}

fn wait_for_the_vendor(stack: &Stack) {
    until("the vendor to be let go", PATIENCE, || (stack.mock.inflight() == 0).then_some(()));
}

fn output(row: &Value) -> u64 {
    assert_eq!(row["outcome"], "client_disconnect", "{row}");
    row["output_tokens"].as_u64().unwrap_or_else(|| panic!("no output in {row}"))
}

#[test]
fn a_drain_ends_when_its_time_is_over() {
    let (stack, bot) = start("CLAWGATE_DRAIN_SECS", "1");
    drop(begun(&stack, &bot, 20, 2000));
    let gone = Instant::now();
    wait_for_the_vendor(&stack);
    assert!(gone.elapsed() > Duration::from_millis(800), "it was read on: {:?}", gone.elapsed());
    let row = &stack.rest().usage_rows("worker", 1)[0];
    assert_eq!(row["usage_source"], "estimated", "{row}");
    assert!((10..200).contains(&output(row)), "{row}");
}

#[test]
fn a_drain_ends_when_it_has_read_its_tokens() {
    let (stack, bot) = start("CLAWGATE_DRAIN_TOKENS", "100");
    drop(begun(&stack, &bot, 100, 5000));
    wait_for_the_vendor(&stack);
    let row = &stack.rest().usage_rows("worker", 1)[0];
    assert_eq!(row["usage_source"], "estimated", "{row}");
    // The cap goes by the size of the text, the row by its tokens.
    assert!((50..200).contains(&output(row)), "{row}");
}

#[test]
fn beyond_so_many_drains_at_once_answers_are_cancelled() {
    let (stack, bot) = start("CLAWGATE_MAX_DRAINS", "2");
    let streams: Vec<Connection> = (0..5).map(|_| begun(&stack, &bot, 40, 160)).collect();
    drop(streams);
    until("all but two to be let go", PATIENCE, || (stack.mock.inflight() == 2).then_some(()));
    let rows = stack.rest().usage_rows("worker", 5);
    let whole = rows.iter().filter(|row| output(row) == 160 && row["usage_source"] == "upstream").count();
    let cut = rows.iter().filter(|row| output(row) < 160 && row["usage_source"] == "estimated").count();
    assert_eq!((whole, cut), (2, 3), "{rows:#?}");
    // Their places are free again.
    drop(begun(&stack, &bot, 100, 60));
    let rows = stack.rest().usage_rows("worker", 6);
    assert_eq!(rows.iter().filter(|row| output(row) == 60).count(), 1, "{rows:#?}");
}

#[test]
fn a_drain_ends_when_its_bot_is_suspended() {
    let (stack, bot) = start("CLAWGATE_DRAIN_SECS", "600");
    let connection = begun(&stack, &bot, 10, 6000);
    drop(connection);
    stack.rest().post("/bots/worker/suspend", &json!({}));
    let suspended = Instant::now();
    wait_for_the_vendor(&stack);
    assert!(suspended.elapsed() < Duration::from_secs(5), "after {:?}", suspended.elapsed());
    let row = &stack.rest().usage_rows("worker", 1)[0];
    assert!(output(row) < 200, "{row}");
}
