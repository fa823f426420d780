//! Rates and places of bots, tenants and provider keys, with real processes:
//! refused in the caller's own words, served again when it was said, given back
//! when nobody uses them, changed in place, shared by nodes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clawgate_tests::config::{python, root};
use clawgate_tests::http::{Connection, Request, Response, call};
use clawgate_tests::process::Spec;
use clawgate_tests::stack::{Bot, Service, Stack, chat_body, chat_request, enroll};
use clawgate_tests::wait::{until, until_good};
use serde_json::{Value, json};

const SECRET: &str = "sk-limits-provider-key";
const PATIENCE: Duration = Duration::from_secs(20);

fn limits(stack: &Stack, bot: &Bot, limits: &Value) {
    stack.rest().put(&format!("/bots/{}/limits", bot.hostname), limits);
}

fn limited(stack: &Stack, hostname: &str, with: &Value) -> Bot {
    let bot = stack.bot(hostname, json!({}));
    limits(stack, &bot, with);
    bot
}

fn number(answer: &Response, header: &str) -> u64 {
    let value = answer.head.header(header).unwrap_or_else(|| panic!("no {header} in {:?}", answer.head));
    value.parse().unwrap_or_else(|_| panic!("{header}: {value}"))
}

fn refused(answer: &Response, code: &str) -> u64 {
    assert_eq!((answer.status(), answer.code().as_str()), (429, code), "{}", answer.text());
    assert_eq!(answer.head.header("x-should-retry"), Some("true"), "{:?}", answer.head);
    let wait = number(answer, "retry-after");
    assert!((1..=30).contains(&wait), "{wait}");
    wait
}

/// What the refusal says is how long it takes.
fn wait_as_told(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

/// Sends until it is refused; how many were served, how long it took, and the
/// refusal.
fn exhaust(address: SocketAddr, request: &Request) -> (u64, Duration, Response) {
    let mut connection = Connection::open(address).expect("connected");
    let began = Instant::now();
    for served in 0..200 {
        let answer = connection.call(request).expect("answered");
        if answer.status() != 200 {
            return (served, began.elapsed(), answer);
        }
    }
    panic!("200 requests and no limit");
}

/// A stream that goes on for a minute; its head has come.
fn slow_stream(address: SocketAddr, bot: &Bot) -> (Connection, String) {
    let request = Request::post("/v1/openai/chat/completions", &chat_body(true))
        .bearer(&bot.token)
        .header("x-mock-tps", "10")
        .header("x-mock-tokens", "600");
    let mut connection = Connection::open(address).expect("connected");
    connection.send(&request).expect("sent");
    let head = connection.head("POST").expect("head");
    assert_eq!(head.status, 200, "{head:?}");
    assert!(connection.piece().expect("a piece").is_some());
    let key = head.header("x-clawgate-key").unwrap_or_default().to_owned();
    (connection, key)
}

#[test]
fn one_request_too_many_is_refused_and_served_when_it_was_said() {
    let stack = Stack::start();
    let _free = stack.ordinary(SECRET, "free");
    let bot = limited(&stack, "hasty", &json!({ "requests_per_minute": 30 }));
    let answer = stack.chat(&bot);
    assert_eq!(number(&answer, "x-ratelimit-limit-requests"), 30);
    assert_eq!(number(&answer, "x-ratelimit-remaining-requests"), 29);
    let reset = answer.head.header("x-ratelimit-reset-requests").unwrap_or_default().to_owned();
    assert!(reset == "2s" || reset.ends_with("ms"), "{reset}");
    assert_eq!(answer.head.header("x-ratelimit-limit-tokens"), None, "there is no such limit");

    let (served, took, answer) = exhaust(stack.data(), &chat_request(&bot.token));
    assert!((29..=30 + took.as_secs() / 2 + 1).contains(&served), "{served} in {took:?}");
    let wait = refused(&answer, "rate_limited");
    assert!(wait <= 2 && answer.text().contains("30 requests per minute"), "{}", answer.text());
    assert_eq!(number(&answer, "x-ratelimit-remaining-requests"), 0);
    wait_as_told(wait);
    assert_eq!(stack.chat(&bot).status(), 200);
    // Nobody else is slowed down, and the vendor saw only what was served.
    let free = stack.rest().post("/bots/free/tokens", &json!({}))["token"].as_str().expect("token").to_owned();
    let answer = call(stack.data(), &chat_request(&free));
    assert_eq!((answer.status(), answer.head.header("x-ratelimit-limit-requests")), (200, None));
    assert_eq!(stack.mock.entries().len() as u64, served + 3);
    let rows = stack.rest().usage_rows("hasty", usize::try_from(served).expect("few") + 3);
    assert!(rows.iter().any(|row| row["error_code"] == "rate_limited" && row["outcome"] == "refused"), "{rows:#?}");
}

#[test]
fn every_dialect_has_its_own_words() {
    let stack = Stack::start();
    let _free = stack.ordinary(SECRET, "free");
    let hello = json!([{ "role": "user", "content": "Say hello." }]);
    let anthropic = json!({ "model": "claude-sonnet-4-5", "max_tokens": 20, "messages": hello });
    let google = json!({ "contents": [{ "role": "user", "parts": [{ "text": "Say hello." }] }] });
    for (name, target, body) in [
        ("anthropic", "/v1/anthropic/v1/messages", &anthropic),
        ("gemini", "/v1/google/v1beta/models/gemini-2.0-flash:generateContent", &google),
    ] {
        let bot = limited(&stack, name, &json!({ "requests_per_minute": 1, "tokens_per_minute": 100_000 }));
        let request = Request::post(target, body).bearer(&bot.token);
        let answer = call(stack.data(), &request);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let ours = |name: &&(String, String)| name.0.contains("ratelimit");
        let found: Vec<_> = answer.head.headers.iter().filter(ours).collect();
        if name == "gemini" {
            assert!(found.is_empty(), "{found:?}");
        } else {
            assert_eq!(number(&answer, "anthropic-ratelimit-requests-limit"), 1);
            assert_eq!(number(&answer, "anthropic-ratelimit-requests-remaining"), 0);
            assert_eq!(number(&answer, "anthropic-ratelimit-tokens-limit"), 100_000);
            let reset = answer.head.header("anthropic-ratelimit-requests-reset").unwrap_or_default();
            assert!(reset.len() == 20 && reset.ends_with('Z'), "{reset}");
            assert_eq!(found.len(), 6, "{found:?}");
        }
        let again = call(stack.data(), &request);
        assert_eq!(again.head.header("retry-after"), Some("30"), "a minute is too long to sleep: {:?}", again.head);
        let error = &again.json()["error"];
        match name {
            "anthropic" => {
                assert_eq!((&error["type"], &error["code"]), (&json!("rate_limit_error"), &json!("rate_limited")))
            }
            _ => assert_eq!(
                (&error["status"], &error["details"][0]["reason"]),
                (&json!("RESOURCE_EXHAUSTED"), &json!("rate_limited"))
            ),
        }
    }
}

#[test]
fn places_are_given_back_when_a_client_goes_and_a_tenant_has_its_own() {
    let stack = Stack::start();
    let other = stack.ordinary(SECRET, "other");
    let bot = limited(&stack, "busy", &json!({ "max_concurrency": 2 }));
    let first = slow_stream(stack.data(), &bot);
    let second = slow_stream(stack.data(), &bot);
    assert_eq!(refused(&stack.chat(&bot), "concurrency_limited"), 1);
    assert_eq!(stack.chat(&other).status(), 200);
    drop(first);
    until_good("a place", PATIENCE, || stack.chat(&bot).status(), |status| *status == 200);
    // Changed under load: the stream that runs counts, and goes on.
    limits(&stack, &bot, &json!({ "max_concurrency": 1 }));
    refused(&stack.chat(&bot), "concurrency_limited");
    limits(&stack, &bot, &json!({}));
    assert_eq!(stack.chat(&bot).status(), 200);

    stack.rest().put("/tenants/default/limits", &json!({ "max_concurrency": 1 }));
    let third = slow_stream(stack.data(), &other);
    let answer = stack.chat(&bot);
    refused(&answer, "concurrency_limited");
    assert!(answer.text().contains("tenant"), "{}", answer.text());
    drop(third);
    until_good("the tenant's place", PATIENCE, || stack.chat(&bot).status(), |status| *status == 200);
    let (mut connection, _) = second;
    assert!(connection.piece().expect("it goes on").is_some());
    // One after another on new connections, each with the only place there is.
    for _ in 0..50 {
        assert_eq!(stack.chat(&bot).status(), 200);
    }
}

#[test]
fn tokens_beyond_the_rate_are_a_debt() {
    let stack = Stack::start();
    let _free = stack.ordinary(SECRET, "free");
    let bot = limited(&stack, "wordy", &json!({ "tokens_per_minute": 6000 }));
    let mut connection = Connection::open(stack.data()).expect("connected");
    let large = chat_request(&bot.token).header("x-mock-input-tokens", "5000").header("x-mock-tokens", "1100");
    let answer = connection.call(&large).expect("answered");
    assert_eq!((answer.status(), number(&answer, "x-ratelimit-limit-tokens")), (200, 6000), "{}", answer.text());
    assert!((5900..6000).contains(&number(&answer, "x-ratelimit-remaining-tokens")), "{:?}", answer.head);
    assert_eq!(answer.head.header("x-ratelimit-limit-requests"), None);
    // 100 too many, and some for the next prompt, at 100 a second.
    let answer = connection.call(&chat_request(&bot.token)).expect("answered");
    let wait = refused(&answer, "rate_limited");
    assert!(wait <= 2 && answer.text().contains("6000 tokens per minute"), "{}", answer.text());
    wait_as_told(wait);
    assert_eq!(connection.call(&chat_request(&bot.token)).expect("answered").status(), 200);
    assert_eq!(stack.mock.entries().len(), 2);
}

#[test]
fn full_keys_are_passed_over() {
    let stack = Stack::start();
    let base = stack.mock.url("/v1");
    let keys: Vec<String> = ["sk-one", "sk-two"]
        .iter()
        .map(|secret| stack.key("openai", secret, &base, &[], json!({ "max_concurrency": 1 })))
        .collect();
    let bot = stack.bot("worker", json!({}));
    let (first, one) = slow_stream(stack.data(), &bot);
    // Whose turn it is or not: only the other one has a place.
    let other = keys.iter().find(|key| **key != one).expect("two keys").clone();
    for _ in 0..4 {
        let answer = stack.chat(&bot);
        assert_eq!(
            (answer.status(), answer.head.header("x-clawgate-key")),
            (200, Some(other.as_str())),
            "{}",
            answer.text()
        );
    }
    let (second, two) = slow_stream(stack.data(), &bot);
    assert_eq!(two, other);
    let answer = stack.chat(&bot);
    refused(&answer, "concurrency_limited");
    assert!(answer.text().contains("provider keys"), "{}", answer.text());
    drop(first);
    let key = until("the first key's place", PATIENCE, || {
        let answer = stack.chat(&bot);
        (answer.status() == 200).then(|| answer.head.header("x-clawgate-key").unwrap_or_default().to_owned())
    });
    assert_eq!(key, one);
    drop(second);
}

#[test]
fn a_changed_rate_keeps_what_was_used() {
    let stack = Stack::start();
    let _free = stack.ordinary(SECRET, "free");
    let bot = limited(&stack, "edited", &json!({ "requests_per_minute": 20 }));
    for _ in 0..15 {
        assert_eq!(stack.chat(&bot).status(), 200);
    }
    limits(&stack, &bot, &json!({ "requests_per_minute": 40, "max_concurrency": 9 }));
    let answer = stack.chat(&bot);
    assert_eq!(number(&answer, "x-ratelimit-limit-requests"), 40);
    // 16 are used; a few may have come back since.
    let remaining = number(&answer, "x-ratelimit-remaining-requests");
    assert!((24..30).contains(&remaining), "{remaining}");
    limits(&stack, &bot, &json!({ "requests_per_minute": 5 }));
    refused(&stack.chat(&bot), "rate_limited");
    limits(&stack, &bot, &json!({}));
    assert_eq!(stack.chat(&bot).head.header("x-ratelimit-limit-requests"), None);
}

#[test]
fn two_nodes_share_a_limit() {
    let stack = Stack::start();
    let _free = stack.ordinary(SECRET, "free");
    let probe = limited(&stack, "probe", &json!({ "requests_per_minute": 1000 }));
    assert_eq!(number(&stack.chat(&probe), "x-ratelimit-remaining-requests"), 999);
    let mut second = Service::node("second", stack.folder.path());
    second.spec.set("--private-upstreams", "127.0.0.0/8:*");
    enroll(&stack.control, &mut second);
    second.start();
    stack.wait_ready(&second);
    let remaining = |address| number(&call(address, &chat_request(&probe.token)), "x-ratelimit-remaining-requests");
    for address in [stack.data(), second.address("data")] {
        until_good("a half", PATIENCE, || remaining(address), |remaining| *remaining < 500);
    }

    let bot = limited(&stack, "shared", &json!({ "requests_per_minute": 21, "max_concurrency": 2 }));
    for address in [stack.data(), second.address("data")] {
        let stream = slow_stream(address, &bot);
        refused(&call(address, &chat_request(&bot.token)), "concurrency_limited");
        drop(stream);
        until_good(
            "the place",
            PATIENCE,
            || call(address, &chat_request(&bot.token)).code(),
            |code| code != "concurrency_limited",
        );
        let (served, took, answer) = exhaust(address, &chat_request(&bot.token));
        refused(&answer, "rate_limited");
        // 11 each; the stream and the wait took some, and some came back.
        assert!(served <= 11 + took.as_secs() / 5 + 1, "{served} in {took:?}");
    }
    second.terminate();
    until_good("the whole again", PATIENCE, || remaining(stack.data()), |remaining| *remaining > 500);
}

#[test]
fn official_clients_wait_and_are_served() {
    let Some(python) = python() else { return };
    let stack = Stack::start();
    let bot = stack.ordinary(SECRET, "sdk");
    limits(&stack, &bot, &json!({ "requests_per_minute": 30 }));
    let script = root().join("tests/sdk/limits.py").display().to_string();
    let urls = ["/v1/openai", "/v1/anthropic"].map(|path| format!("http://{}{path}", stack.data()));
    let spec = Spec::new("limits", python, stack.folder.path(), &["-W", "ignore", &script, &urls[0], &urls[1]]);
    let output = spec.env("LIMITS_KEY", &bot.token).run().success();
    let lines: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2, "{output}");
    for line in lines {
        assert_eq!(line["code"], "rate_limited", "{line}");
        let (wait, took) = (line["retry_after"].as_u64().unwrap_or(99), line["seconds"].as_f64().unwrap_or(99.0));
        assert!((1..=2).contains(&wait) && took < 10.0, "{line}");
    }
    let rows = stack.rest().usage_rows("sdk", 30);
    assert!(rows.iter().any(|row| row["error_code"] == "rate_limited"), "{rows:#?}");
}
