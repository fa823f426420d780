//! A vendor that has the request and has said nothing yet: it is paid for one
//! answer at most, and whoever waits for it may be sent away at any time.

use std::time::{Duration, Instant};

use clawgate_tests::http::{Connection, call};
use clawgate_tests::stack::{Stack, chat_request};
use clawgate_tests::wait::until;
use serde_json::json;

#[test]
fn one_that_answers_too_late_is_the_only_one_asked() {
    let stack = Stack::start_with(|_, node| {
        node.spec.environment.push(("CLAWGATE_UPSTREAM_HEAD_TIMEOUT_MS".to_owned(), "1000".to_owned()));
    });
    let bot = stack.ordinary("sk-one", "worker");
    stack.key("openai", "sk-two", &stack.mock.url("/v1"), &[], json!({}));
    let answer = call(stack.data(), &chat_request(&bot.token).header("x-mock-fault", "stall@head"));
    assert_eq!((answer.status(), answer.code().as_str()), (504, "upstream_timeout"), "{}", answer.text());
    assert_eq!(answer.head.header("x-clawgate-attempts"), Some("1"));
    assert_eq!(stack.mock.entries().len(), 1, "a second vendor key was used for the same answer");
    assert_eq!(stack.chat(&bot).status(), 200);
}

#[test]
fn a_suspended_bot_does_not_wait_on() {
    let stack = Stack::start();
    let bot = stack.ordinary("sk-one", "worker");
    let mut connection = Connection::open(stack.data()).expect("connected");
    connection.send(&chat_request(&bot.token).header("x-mock-fault", "stall@head")).expect("sent");
    until("the vendor to have it", Duration::from_secs(10), || (stack.mock.inflight() == 1).then_some(()));
    let start = Instant::now();
    stack.rest().post("/bots/worker/suspend", &json!({}));
    let answer = connection.response("POST").expect("an answer");
    assert!(start.elapsed() < Duration::from_secs(5), "after {:?}", start.elapsed());
    assert_eq!((answer.status(), answer.code().as_str()), (403, "bot_suspended"), "{}", answer.text());
    let row = &stack.rest().usage_rows("worker", 1)[0];
    assert_eq!((&row["outcome"], &row["error_code"]), (&json!("failed"), &json!("bot_suspended")), "{row}");
}

#[test]
fn what_a_drained_bot_left_behind_is_counted() {
    let stack = Stack::start();
    stack.key("openai", "sk-one", &stack.mock.url("/v1"), &[], json!({}));
    for (policy, tokens) in [("drain", json!(30)), ("cancel", json!(null))] {
        let bot = stack.bot(policy, json!({ "on_disconnect": policy }));
        let mut connection = Connection::open(stack.data()).expect("connected");
        let slow = chat_request(&bot.token).header("x-mock-ttft-ms", "1500").header("x-mock-tokens", "30");
        connection.send(&slow).expect("sent");
        until("the vendor to have it", Duration::from_secs(10), || (stack.mock.inflight() == 1).then_some(()));
        drop(connection);
        let row = &stack.rest().usage_rows(policy, 1)[0];
        assert_eq!((&row["outcome"], &row["output_tokens"]), (&json!("client_disconnect"), &tokens), "{row}");
        until("the vendor to be done", Duration::from_secs(10), || (stack.mock.inflight() == 0).then_some(()));
    }
}
