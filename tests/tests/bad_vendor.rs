//! A vendor that resets, stalls, talks garbage, breaks its framing, or refuses:
//! the bot gets a clear error, never a hang; failover works before the first
//! byte and never after it; what was used is counted.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use clawgate_tests::http::{Request, Response, call};
use clawgate_tests::mock::sha256_hex;
use clawgate_tests::stack::{Bot, Stack, chat_body, chat_request};
use clawgate_tests::wait::until_good;
use serde_json::{Value, json};

/// Short deadlines, so that a stall is over soon.
fn stack() -> Stack {
    Stack::start_with(|_, node| {
        for (name, value) in [("HEAD", "1500"), ("IDLE", "1500"), ("CONNECT", "1000")] {
            let name = format!("CLAWGATE_UPSTREAM_{name}_TIMEOUT_MS");
            node.spec.environment.push((name, value.to_owned()));
        }
    })
}

fn fault(bot: &Bot, stream: bool, fault: &str) -> Request {
    Request { body: chat_body(stream).to_string().into_bytes(), ..chat_request(&bot.token) }
        .header("x-mock-fault", fault)
        .header("x-mock-tokens", "30")
}

fn good(stack: &Stack, bot: &Bot, after: &str) {
    // A key may rest for a moment after a fault; it comes back by itself.
    until_good(&format!("service after {after}"), Duration::from_secs(40), || stack.chat(bot).status(), |s| *s == 200);
}

#[test]
fn before_the_first_byte_the_bot_gets_an_error_of_ours() {
    let stack = stack();
    let bot = stack.ordinary("sk-faulty", "worker");
    for (name, status, codes) in [
        ("reset@head", 502, &["upstream_connect", "upstream_protocol"][..]),
        ("close@head", 502, &["upstream_connect", "upstream_protocol"]),
        ("garbage@head", 502, &["upstream_protocol"]),
        ("stall@head", 504, &["upstream_timeout"]),
    ] {
        let start = Instant::now();
        let answer = call(stack.data(), &fault(&bot, false, name));
        assert_eq!(answer.status(), status, "{name}: {}", answer.text());
        assert!(codes.contains(&answer.code().as_str()), "{name}: {}", answer.text());
        assert!(start.elapsed() < Duration::from_secs(10), "{name} took {:?}", start.elapsed());
        good(&stack, &bot, name);
    }
}

#[test]
fn in_mid_stream_the_bot_sees_an_error_event_or_a_broken_end() {
    let stack = stack();
    let bot = stack.ordinary("sk-faulty", "worker");
    for name in ["reset@600", "close@600", "stall@600", "garbage@600", "bad_chunk@600"] {
        let start = Instant::now();
        let answer = call(stack.data(), &fault(&bot, true, name));
        assert_eq!(answer.status(), 200, "{name}: {}", answer.text());
        assert!(start.elapsed() < Duration::from_secs(10), "{name} took {:?}", start.elapsed());
        let text = answer.text();
        assert!(!text.contains("[DONE]"), "{name} looks complete: {text}");
        let told = text.contains("\"error\"") || answer.cut.is_some();
        assert!(told, "{name}: neither an error event nor a broken end: {text}");
        good(&stack, &bot, name);
    }
    let rest = stack.rest();
    let streams = || rest.all("/usage/logs?bot=worker").into_iter().filter(|row| row["stream"] == true);
    let broken: Vec<_> = until_good(
        "a row for each stream",
        Duration::from_secs(30),
        || streams().collect(),
        |rows: &Vec<_>| rows.len() == 5,
    );
    assert!(broken.iter().all(|r| r["outcome"] == "interrupted" || r["outcome"] == "upstream_error"), "{broken:#?}");
    assert!(broken.iter().all(|r| r["usage_source"] != "upstream"), "{broken:#?}");
}

#[test]
fn a_whole_answer_that_breaks_off_is_not_passed_as_whole() {
    let stack = stack();
    let bot = stack.ordinary("sk-faulty", "worker");
    for name in ["reset@100", "close@100", "stall@100"] {
        let answer = call(stack.data(), &fault(&bot, false, name));
        let refused = answer.status() >= 500;
        assert!(refused || answer.cut.is_some(), "{name}: {:?} {}", answer.head, answer.text());
        good(&stack, &bot, name);
    }
    // Unasked compression passes as it is.
    let zipped = call(stack.data(), &fault(&bot, false, "gzip"));
    assert_eq!(zipped.status(), 200);
    assert_eq!(zipped.head.header("content-encoding"), Some("gzip"), "{:?}", zipped.head);
    assert!(zipped.body.starts_with(&[0x1f, 0x8b]));
    let unread = |row: &Value| row["status_code"] == 200 && row["usage_source"] == "estimated";
    until_good(
        "an estimate for what cannot be read",
        Duration::from_secs(30),
        || stack.rest().all("/usage/logs?bot=worker"),
        |rows| rows.iter().any(|row| row["outcome"] == "ok" && unread(row)),
    );
    good(&stack, &bot, "gzip");
}

#[test]
fn nobody_listens() {
    let stack = stack();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number");
    let bot = stack.bot("worker", json!({}));
    stack.key("openai", "sk-nowhere", &format!("http://{free}/v1"), &[], json!({}));
    let answer = stack.chat(&bot);
    assert_eq!((answer.status(), answer.code().as_str()), (502, "upstream_connect"), "{}", answer.text());
    stack.key("openai", "sk-somewhere", &stack.mock.url("/v1"), &[], json!({}));
    for _ in 0..10 {
        assert_eq!(stack.chat(&bot).status(), 200, "the dead key is passed over");
    }
}

fn rule(stack: &Stack, key: &str, knobs: serde_json::Value) {
    let rule = json!({ "credential": sha256_hex(key), "knobs": knobs });
    let answer = call(stack.mock.address, &Request::post("/__mock/rules", &rule));
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

fn attempts(answer: &Response) -> &str {
    answer.head.header("x-clawgate-attempts").unwrap_or_default()
}

#[test]
fn a_key_that_fails_is_passed_over_and_nothing_is_sent_twice_after_a_success() {
    for status in ["401", "402", "429", "500", "503", "529"] {
        let stack = stack();
        let base = stack.mock.url("/v1");
        let bot = stack.bot("worker", json!({}));
        stack.key("openai", "sk-bad", &base, &[], json!({}));
        stack.key("openai", "sk-good", &base, &[], json!({}));
        rule(&stack, "sk-bad", json!({ "status": status }));
        let mut failed_over = 0;
        for _ in 0..6 {
            let answer = stack.chat(&bot);
            assert_eq!(answer.status(), 200, "{status}: {}", answer.text());
            failed_over += usize::from(attempts(&answer) == "2");
        }
        assert!(failed_over >= 1, "{status}: nothing failed over");
        let rows = stack.rest().usage_rows("worker", 6);
        let tried = rows.iter().find(|r| r["tried"].as_array().is_some_and(|t| t.len() == 2));
        assert!(tried.is_some(), "{status}: {rows:#?}");
        let good = sha256_hex("sk-good");
        let served = stack.mock.entries();
        let served = served.iter().filter(|e| e["credentials"][0]["sha256"] == *good && e["status"] == 200);
        assert_eq!(served.count(), 6, "{status}");
    }
}

#[test]
fn a_vendors_401_and_403_never_reach_the_bot_and_other_errors_do() {
    let stack = stack();
    let bot = stack.ordinary("sk-quoted-by-the-vendor", "worker");
    for (status, codes) in [("403", &["upstream_forbidden"][..]), ("401", &["no_key_available", "upstream_forbidden"])]
    {
        let answer = call(stack.data(), &chat_request(&bot.token).header("x-mock-status", status));
        assert!(codes.contains(&answer.code().as_str()), "{status}: {} {}", answer.status(), answer.text());
        assert!(!answer.text().contains("sk-quoted"), "{}", answer.text());
        good(&stack, &bot, status);
    }
    for status in [400, 404, 422] {
        let request = chat_request(&bot.token).header("x-mock-status", &status.to_string());
        let answer = call(stack.data(), &request);
        let direct = Request::post("/v1/chat/completions", &chat_body(false)).bearer("x");
        let direct = call(stack.mock.address, &direct.header("x-mock-status", &status.to_string()));
        assert_eq!((answer.status(), answer.text()), (status, direct.text()));
        good(&stack, &bot, &status.to_string());
    }
}
