//! A bad key or a busy vendor is not the bot's problem, what is wrong with a key
//! is seen and passes by itself, and no bot can take a key from others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clawgate_tests::config::verify;
use clawgate_tests::http::{Request, Response, call};
use clawgate_tests::mock::sha256_hex;
use clawgate_tests::stack::{Bot, Service, Stack, chat_body, chat_request, enroll};
use clawgate_tests::storm;
use clawgate_tests::wait::until_good;
use serde_json::{Value, json};

/// Between two probes of a key.
const INTERVAL: Duration = Duration::from_secs(3);
/// How long a limited key asks to be left alone; shorter than that.
const RETRY_AFTER: &str = "retry-after: 2";
const CONNECTIONS: usize = 8;
const BODY: usize = 200 << 10;

fn stack() -> Stack {
    Stack::start_with(|_, node| probing(node))
}

fn probing(node: &mut Service) {
    let interval = INTERVAL.as_millis().to_string();
    node.spec.environment.push(("CLAWGATE_KEY_PROBE_INTERVAL_MS".to_owned(), interval));
}

/// Five keys, one of them good; their ids by name.
fn five_keys(stack: &Stack) -> BTreeMap<&'static str, String> {
    let base = stack.mock.url("/v1");
    ["limited", "refused", "broken", "resetting", "good"]
        .map(|name| (name, stack.key("openai", &secret(name), &base, &[], json!({}))))
        .into()
}

fn secret(name: &str) -> String {
    format!("sk-{name}")
}

fn rule(stack: &Stack, name: &str, knobs: Value) {
    let rule = json!({ "credential": sha256_hex(&secret(name)), "knobs": knobs });
    let answer = call(stack.mock.address, &Request::post("/__mock/rules", &rule));
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

fn heal(stack: &Stack) {
    assert_eq!(call(stack.mock.address, &Request::new("DELETE", "/__mock/rules")).status(), 200);
}

/// The status of every key, by id.
fn health(stack: &Stack) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    stack.rest().all("/provider-keys/health").iter().map(|key| (text(&key["id"]), text(&key["status"]))).collect()
}

fn large(bot: &Bot) -> Request {
    let mut body = chat_body(false);
    body["messages"][0]["content"] = json!("x".repeat(BODY));
    Request::post("/v1/openai/chat/completions", &body).bearer(&bot.token)
}

/// Sends `count` requests over kept connections and looks at every answer.
fn storm(address: SocketAddr, request: &Request, count: usize, look: impl Fn(&Response) + Sync) {
    storm::storm(address, CONNECTIONS, request, count, look, || {});
}

fn served(answer: &Response) {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(answer.cut.is_none(), "{:?}", answer.cut);
}

fn refusal(answer: &Response, reason: &str, retry: &str) {
    assert_eq!((answer.status(), answer.code().as_str()), (503, "no_key_available"), "{}", answer.text());
    assert!(answer.text().contains(reason), "{}", answer.text());
    assert_eq!(answer.head.header("x-should-retry"), Some(retry), "{:?}", answer.head);
}

#[test]
fn four_of_five_keys_fail_and_no_client_notices() {
    let stack = stack();
    let keys = five_keys(&stack);
    let bot = stack.bot("worker", json!({}));
    rule(&stack, "limited", json!({ "status": 429, "header": RETRY_AFTER }));
    rule(&stack, "refused", json!({ "status": 401 }));
    rule(&stack, "broken", json!({ "status": 500 }));
    rule(&stack, "resetting", json!({ "fault": "reset@head" }));

    let count = if verify() { 10_000 } else { 400 };
    storm(stack.data(), &large(&bot), count, served);
    let want = |bad: bool| {
        let status = |name: &str| match name {
            "limited" if bad => "cooling",
            "refused" if bad => "invalid",
            _ => "active",
        };
        keys.iter().map(|(name, id)| (id.clone(), status(name).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let look = || {
        // The limited key cools only while somebody asks for it.
        served(&stack.chat(&bot));
        health(&stack)
    };
    until_good("keys in the right states", Duration::from_secs(20), look, |seen| *seen == want(true));
    let metrics = call(stack.node.address("admin"), &Request::new("GET", "/metrics")).text();
    for line in [
        r#"clawgate_key_state{vendor="openai",state="invalid"} 1"#,
        r#"clawgate_key_state{vendor="openai",state="active"} 3"#,
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }

    heal(&stack);
    let healed = Instant::now();
    until_good("recovery", Duration::from_secs(20), look, |seen| *seen == want(false));
    let took = healed.elapsed();
    assert!(took <= INTERVAL + Duration::from_secs(1), "one probe interval is {INTERVAL:?}, it took {took:?}");
    let before = stack.mock.entries().len();
    storm(stack.data(), &chat_request(&bot.token), 50, served);
    let entries = stack.mock.entries();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in &entries[before..] {
        *counts.entry(entry["credentials"][0]["sha256"].as_str().unwrap_or_default()).or_default() += 1;
    }
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [10; 5], "all five in turn again");
}

#[test]
fn a_hostile_bot_takes_no_key_from_others() {
    let stack = stack();
    let base = stack.mock.url("/v1");
    for name in ["first", "second", "third"] {
        stack.key("openai", &secret(name), &base, &[], json!({}));
    }
    let (hostile, neighbour) = (stack.bot("hostile", json!({})), stack.bot("neighbour", json!({})));
    let count = if verify() { 10_000 } else { 150 };
    let over = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                storm(stack.data(), &chat_request(&neighbour.token), 40, |answer| {
                    asked.fetch_add(1, Ordering::Relaxed);
                    served(answer);
                    // Nothing is left out on its account: the first key serves.
                    assert_eq!(answer.head.header("x-clawgate-attempts"), Some("1"), "{:?}", answer.head);
                });
            }
        });
        for (status, code) in
            [("403", "model_not_found"), ("400", ""), ("500", ""), ("400", "content_policy_violation")]
        {
            let mut request = chat_request(&hostile.token).header("x-mock-status", status);
            if !code.is_empty() {
                request = request.header("x-mock-error-code", code);
            }
            storm(stack.data(), &request, count, |answer| {
                assert!(answer.status() >= 400, "{}", answer.text());
            });
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(asked.load(Ordering::Relaxed) > 0);
    let seen = health(&stack);
    assert!(seen.len() == 3 && seen.values().all(|status| status == "active"), "{seen:?}");
}

#[test]
fn a_limit_that_is_used_up_lets_others_go_first_and_refuses_nobody() {
    let stack = stack();
    let base = stack.mock.url("/v1");
    let keys = ["first", "second"].map(|name| stack.key("openai", &secret(name), &base, &[], json!({})));
    let bot = stack.bot("worker", json!({}));
    let counts = |requests: usize| {
        let mut counts = [0; 2];
        for _ in 0..requests {
            let answer = stack.chat(&bot);
            served(&answer);
            assert_eq!(answer.head.header("x-clawgate-attempts"), Some("1"), "{:?}", answer.head);
            let key = answer.head.header("x-clawgate-key");
            counts[keys.iter().position(|id| Some(id.as_str()) == key).expect("one of the two")] += 1;
        }
        counts
    };
    let used_up = json!({ "header": ["x-ratelimit-remaining-tokens: 0", "x-ratelimit-reset-tokens: 1m0s"] });
    rule(&stack, "first", used_up.clone());
    assert_eq!(counts(2), [1, 1], "it was not known before");
    assert_eq!(counts(10), [0, 10]);
    let mut other = chat_body(false);
    other["model"] = json!("gpt-4o");
    let other = Request::post("/v1/openai/chat/completions", &other).bearer(&bot.token);
    let used: BTreeSet<_> = (0..2)
        .map(|_| call(stack.data(), &other).head.header("x-clawgate-key").unwrap_or_default().to_owned())
        .collect();
    assert_eq!(used.len(), 2, "only one model of it waits");

    rule(&stack, "second", used_up);
    assert_eq!(counts(11), [5, 6], "the second one is used until it says so too, then both in turn");
    assert!(health(&stack).values().all(|status| status == "active"), "{:?}", health(&stack));
    // The vendor takes another request of one all the same: it is well again.
    heal(&stack);
    let counts = counts(4);
    assert!(counts == [4, 0] || counts == [0, 4], "{counts:?}");
}

#[test]
fn an_error_that_says_200_counts_as_what_it_is() {
    let stack = stack();
    let base = stack.mock.url("/v1");
    let [first, second] = ["first", "second"].map(|name| stack.key("minimax", &secret(name), &base, &[], json!({})));
    let streamer = stack.key("openai", &secret("streamer"), &base, &[], json!({}));
    let bot = stack.bot("worker", json!({}));
    let ask =
        || call(stack.data(), &Request::post("/v1/minimax/chat/completions", &chat_body(false)).bearer(&bot.token));
    let status = |id: &str, wanted: &str| {
        until_good(wanted, Duration::from_secs(10), || health(&stack), |seen| seen[id] == wanted);
    };
    // In a small body: nobody notices, and the key is left alone.
    rule(&stack, "first", json!({ "body": r#"{"base_resp":{"status_code":1002,"status_msg":"rate limit"}}"# }));
    for _ in 0..4 {
        let answer = ask();
        served(&answer);
        assert!(answer.json()["choices"].is_array(), "{}", answer.text());
    }
    status(&first, "cooling");
    // The last word of a vendor is relayed as it is.
    let spent = r#"{"choices":null,"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}"#;
    rule(&stack, "second", json!({ "body": spent }));
    let answer = ask();
    assert_eq!((answer.status(), answer.text().as_str()), (200, spent));
    status(&second, "exhausted");

    // In a stream: the client has it already, but the next one is not sent there.
    let event = "event: error\ndata: {\"error\":{\"code\":\"insufficient_quota\",\"message\":\"none\"}}";
    rule(&stack, "streamer", json!({ "body": event }));
    let stream = Request::post("/v1/openai/chat/completions", &chat_body(true)).bearer(&bot.token);
    assert_eq!(call(stack.data(), &stream).text(), event);
    status(&streamer, "exhausted");
    refusal(&stack.chat(&bot), "all_invalid", "false");
    heal(&stack);
    until_good("credit", INTERVAL * 3, || stack.chat(&bot).status(), |status| *status == 200);
    status(&streamer, "active");
}

#[test]
fn a_pool_with_nothing_left_says_why_and_comes_back() {
    let stack = stack();
    let id = stack.key("openai", &secret("only"), &stack.mock.url("/v1"), &[], json!({}));
    let bot = stack.bot("worker", json!({}));
    let status = |wanted: &str| {
        until_good(wanted, Duration::from_secs(10), || health(&stack), |seen| seen[&id] == wanted);
    };
    // A limit concerns one model, and the vendor's own word of it goes through.
    rule(&stack, "only", json!({ "status": 429, "header": RETRY_AFTER }));
    assert_eq!(stack.chat(&bot).status(), 429);
    heal(&stack);
    let cooling = stack.chat(&bot);
    refusal(&cooling, "all_cooling", "true");
    let wait: u64 = cooling.head.header("retry-after").and_then(|text| text.parse().ok()).expect("a retry-after");
    assert!((1..=2).contains(&wait), "{wait}");
    let mut other = chat_body(false);
    other["model"] = json!("gpt-4o");
    let other = Request::post("/v1/openai/chat/completions", &other).bearer(&bot.token);
    served(&call(stack.data(), &other));
    until_good("the limit's end", Duration::from_secs(10), || stack.chat(&bot).status(), |status| *status == 200);

    // An empty account: one request per interval tries it.
    rule(&stack, "only", json!({ "status": 429, "error_code": "insufficient_quota" }));
    assert_eq!(stack.chat(&bot).status(), 429);
    refusal(&stack.chat(&bot), "all_invalid", "false");
    status("exhausted");
    heal(&stack);
    until_good("credit", INTERVAL * 3, || stack.chat(&bot).status(), |status| *status == 200);
    status("active");

    // A key that its vendor does not know: a probe finds out, and finds it again.
    rule(&stack, "only", json!({ "status": 401 }));
    refusal(&stack.chat(&bot), "all_invalid", "false");
    status("invalid");
    let requests = stack.mock.requests();
    refusal(&stack.chat(&bot), "all_invalid", "false");
    assert!(stack.mock.requests() <= requests + 1, "the vendor is asked by probes only");
    let key = stack.rest().get(&format!("/provider-keys/{id}"));
    assert_eq!(key["status"], "invalid", "{key}");
    // Another secret starts afresh.
    stack.rest().post(&format!("/provider-keys/{id}/rotate"), &json!({ "secret": "sk-another" }));
    served(&stack.chat(&bot));
    status("active");
}

#[test]
fn what_a_node_knows_of_keys_outlives_it() {
    let mut stack = stack();
    let base = stack.mock.url("/v1");
    let keys = [("openai", "refused"), ("groq", "limited"), ("mistral", "spent")]
        .map(|(vendor, name)| stack.key(vendor, &secret(name), &base, &[], json!({})));
    let bot = stack.bot("worker", json!({}));
    rule(&stack, "refused", json!({ "status": 401 }));
    rule(&stack, "limited", json!({ "status": 429, "header": "retry-after: 300" }));
    rule(&stack, "spent", json!({ "status": 402 }));
    let ask = |stack: &Stack, vendor: &str| {
        let request = Request::post(&format!("/v1/{vendor}/chat/completions"), &chat_body(false));
        call(stack.data(), &request.bearer(&bot.token))
    };
    for vendor in ["openai", "groq", "mistral"] {
        assert!(ask(&stack, vendor).status() >= 400);
    }
    let wanted = ["invalid", "cooling", "exhausted"];
    let known = |stack: &Stack| {
        let seen = health(stack);
        keys.each_ref().map(|id| seen.get(id).cloned().unwrap_or_default()) == wanted
    };
    until_good("all three to be known", Duration::from_secs(10), || known(&stack), |known| *known);
    // A moment later it is on disk, whatever becomes of the process.
    let file = stack.node.data.join("node/config/keys");
    let written = || std::fs::metadata(&file).and_then(|file| file.modified()).ok();
    let rested = || written().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > Duration::from_secs(1));
    until_good("it to be kept", Duration::from_secs(10), rested, |rested| *rested);
    stack.node.kill();
    heal(&stack);
    rule(&stack, "refused", json!({ "status": 401 }));
    let before = stack.mock.entries().len();
    stack.node.start();
    stack.wait_node_ready();
    refusal(&ask(&stack, "openai"), "all_invalid", "false");
    refusal(&ask(&stack, "groq"), "all_cooling", "true");
    until_good("the control plane to know", Duration::from_secs(10), || known(&stack), |known| *known);
    let entries = stack.mock.entries();
    let asked: Vec<_> = entries[before..].iter().map(|entry| entry["path"].as_str().unwrap_or_default()).collect();
    assert!(asked.iter().all(|path| path.ends_with("/models")), "only probes ask: {asked:?}");
    // And it passes by itself as it would have.
    heal(&stack);
    for vendor in ["openai", "mistral"] {
        until_good("recovery", INTERVAL * 3, || ask(&stack, vendor).status(), |status| *status == 200);
    }
}

#[test]
fn what_one_node_finds_the_others_learn() {
    let stack = stack();
    let mut second = Service::node("second", stack.folder.path());
    second.spec.set("--private-upstreams", "127.0.0.0/8:*");
    probing(&mut second);
    enroll(&stack.control, &mut second);
    second.start();
    stack.wait_ready(&second);
    stack.key("openai", &secret("only"), &stack.mock.url("/v1"), &[], json!({}));
    let bot = stack.bot("worker", json!({}));
    rule(&stack, "only", json!({ "status": 401 }));
    refusal(&stack.chat(&bot), "all_invalid", "false");
    let metrics = || call(second.address("admin"), &Request::new("GET", "/metrics")).text();
    let line = r#"clawgate_key_state{vendor="openai",state="invalid"} 1"#;
    until_good("the other node to know", Duration::from_secs(10), metrics, |text| text.contains(line));
    let before = stack.mock.requests();
    refusal(&call(second.address("data"), &chat_request(&bot.token)), "all_invalid", "false");
    assert!(stack.mock.requests() <= before + 2, "no request of a bot was needed");
    // One that comes later and knows nothing is told with its first configuration.
    let mut third = Service::node("third", stack.folder.path());
    third.spec.set("--private-upstreams", "127.0.0.0/8:*");
    probing(&mut third);
    enroll(&stack.control, &mut third);
    third.start();
    stack.wait_ready(&third);
    let metrics = || call(third.address("admin"), &Request::new("GET", "/metrics")).text();
    until_good("the new node to know", Duration::from_secs(10), metrics, |text| text.contains(line));
    heal(&stack);
    let both = || [stack.data(), second.address("data")].map(|node| call(node, &chat_request(&bot.token)).status());
    until_good("both nodes to serve again", INTERVAL * 3, both, |statuses| *statuses == [200, 200]);
}
