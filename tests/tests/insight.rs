//! What can be seen of a decision, before and after it was made: explanations
//! say what the node does, and spans say what it did, without anything secret.

use std::time::Duration;

use clawgate_tests::collector::{Collector, Span};
use clawgate_tests::http::{Request, call};
use clawgate_tests::stack::{Bot, Stack, chat_request};
use clawgate_tests::wait::until_good;
use serde_json::{Value, json};

const SECRET: &str = "sk-insight-provider-key";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn traced(stack: &Stack, collector: &Collector, count: usize) -> Vec<Span> {
    let what = format!("{count} spans; {}", stack.node.address("admin"));
    until_good(&what, Duration::from_secs(10), || collector.spans(), |spans| spans.len() >= count)
}

fn named(spans: &[Span], kind: i32, code: i64) -> Vec<&Span> {
    let status = |span: &&Span| span.kind == kind && span.get("http.response.status_code") == code;
    spans.iter().filter(status).collect()
}

/// Attributes of the exchange that went to `key`, also against its usage row.
fn says_all_that_is_known(exchange: &Span, key: &str, stack: &Stack) {
    assert_eq!((exchange.trace_id.as_str(), exchange.parent.as_str()), (TRACE, PARENT));
    assert_eq!((exchange.name.as_str(), exchange.failed), ("chat gpt-4o-mini", false));
    for (name, value) in [
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.provider.name", json!("openai")),
        ("gen_ai.request.model", json!("gpt-4o-mini")),
        ("gen_ai.conversation.id", json!("talk-7")),
        ("http.request.method", json!("POST")),
        ("url.path", json!("/v1/openai/chat/completions")),
        ("clawgate.bot", json!("traced")),
        ("clawgate.key.id", json!(key)),
        ("clawgate.attempts", json!(2)),
        ("clawgate.outcome", json!("ok")),
        ("clawgate.client_request_id", json!("client-one")),
    ] {
        assert_eq!(exchange.get(name), value, "{name}: {exchange:#?}");
    }
    let rows = stack.rest().usage_rows("traced", 2);
    let row = rows.iter().find(|row| row["client_request_id"] == "client-one").expect("its row");
    for (name, column) in [
        ("gen_ai.usage.input_tokens", "input_tokens"),
        ("gen_ai.usage.output_tokens", "output_tokens"),
        ("clawgate.request_id", "request_id"),
        ("gen_ai.response.model", "model"),
    ] {
        assert_eq!(exchange.get(name), row[column], "{name}");
    }
}

#[test]
fn an_exchange_is_a_span_and_so_is_each_attempt() {
    let collector = Collector::start();
    let address = collector.address;
    let mut stack = Stack::start_with(|_, node| {
        node.spec = node.spec.clone().env("CLAWGATE_OTLP_ENDPOINT", &format!("http://{address}"));
        node.spec.set("--access-log", "access.jsonl");
    });
    let base = stack.mock.url("/v1");
    // Both are tried, whoever's turn it is: one answers with an error.
    let bot = stack.bot("traced", json!({ "key_strategy": "priority" }));
    let bad = stack.key("openai", SECRET, "http://127.0.0.1:1/v1", &[], json!({ "priority": 9 }));
    let good = stack.key("openai", &format!("{SECRET}-2"), &base, &[], json!({}));
    let parented = chat_request(&bot.token)
        .header("traceparent", &format!("00-{TRACE}-{PARENT}-01"))
        .header("x-request-id", "client-one")
        .header("x-clawgate-session", "talk-7");
    assert_eq!(call(stack.data(), &parented).status(), 200);
    // Not sampled by its caller, and one that nobody decided about.
    let unsampled = chat_request(&bot.token).header("traceparent", &format!("00-{TRACE}-{PARENT}-00"));
    assert_eq!(call(stack.data(), &unsampled).status(), 200);
    assert_eq!(call(stack.data(), &chat_request("cgb_insight_canary")).status(), 401);

    let spans = traced(&stack, &collector, 4);
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let [exchange] = named(&spans, 2, 200)[..] else { panic!("{spans:#?}") };
    says_all_that_is_known(exchange, &good, &stack);
    let attempts: Vec<&Span> = spans.iter().filter(|span| span.kind == 3).collect();
    assert_eq!(attempts.len(), 2);
    for attempt in &attempts {
        assert_eq!((attempt.trace_id.as_str(), &attempt.parent), (TRACE, &exchange.span_id));
        assert!(attempt.time.0 >= exchange.time.0 && attempt.time.1 <= exchange.time.1 + 1_000_000, "{attempt:#?}");
        assert_eq!(attempt.get("server.address"), "127.0.0.1");
    }
    let failed = attempts.iter().find(|attempt| attempt.failed).expect("one failed");
    assert_eq!((failed.get("clawgate.key.id"), failed.get("error.type")), (json!(bad), json!("connect")));

    let [refused] = named(&spans, 2, 401)[..] else { panic!("{spans:#?}") };
    assert!(refused.trace_id != TRACE && refused.parent.is_empty() && refused.failed);
    assert_eq!(refused.get("error.type"), "bot_token_invalid");

    let text = collector.text();
    for secret in [SECRET, bot.token.as_str(), "cgb_insight_canary", "Say hello"] {
        assert!(!text.contains(secret), "{secret} is in a span");
    }
    // What has not been sent yet is sent at the end.
    assert_eq!(stack.chat(&bot).status(), 200);
    stack.node.terminate();
    assert_eq!(traced_after(&collector, 6).len(), 7, "two attempts and an exchange more");
    let access = std::fs::read_to_string(stack.folder.path().join("access.jsonl")).expect("access lines");
    let lines: Vec<Value> = access.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of_trace = lines.iter().filter(|line| line["trace_id"] == TRACE).count();
    assert_eq!(of_trace, 2, "{access}");
}

fn traced_after(collector: &Collector, more_than: usize) -> Vec<Span> {
    until_good("the last spans", Duration::from_secs(5), || collector.spans(), |spans| spans.len() > more_than)
}

#[test]
fn without_a_collector_requests_are_served_all_the_same() {
    let stack = Stack::start_with(|_, node| {
        node.spec = node.spec.clone().env("CLAWGATE_OTLP_ENDPOINT", "http://127.0.0.1:1");
    });
    let bot = stack.ordinary(SECRET, "untraced");
    for _ in 0..20 {
        assert_eq!(stack.chat(&bot).status(), 200);
    }
    let dropped = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("clawgate_spans_dropped_total"))?;
        line.rsplit(' ').next()?.parse::<u64>().ok()
    };
    let scrape = || call(stack.node.address("admin"), &Request::new("GET", "/metrics")).text();
    until_good("dropped spans", Duration::from_secs(20), scrape, |text| dropped(text) == Some(40));
}

struct Case {
    bot: Bot,
    vendor: &'static str,
    model: &'static str,
    would: (u16, &'static str),
}

#[test]
fn an_explanation_says_what_the_node_does() {
    let stack = Stack::start();
    let base = stack.mock.url("/v1");
    let tagged = stack.key("openai", SECRET, &base, &["fast"], json!({}));
    let plain = stack.key("openai", &format!("{SECRET}-2"), &base, &[], json!({}));
    stack.key("groq", &format!("{SECRET}-3"), &base, &["slow"], json!({}));
    let used = json!([{ "metric": "requests", "window": "day", "limit": 1 }]);
    let case = |bot: Bot, vendor, model, status, code| Case { bot, vendor, model, would: (status, code) };
    let cases = [
        case(stack.bot("free", json!({})), "openai", "gpt-4o-mini", 200, ""),
        case(stack.bot("tagged", json!({ "tags": ["fast"] })), "openai", "gpt-4o-mini", 200, ""),
        case(stack.bot("lost", json!({ "tags": ["fast"] })), "groq", "gpt-4o-mini", 503, "no_key_available"),
        case(stack.bot("keyless", json!({})), "mistral", "mistral-small", 503, "no_key_available"),
        case(
            stack.bot("narrow", json!({ "allowed_models": ["gpt-5*"] })),
            "openai",
            "gpt-4o-mini",
            403,
            "model_not_allowed",
        ),
        case(
            stack.bot("local", json!({ "allowed_vendors": ["groq"] })),
            "openai",
            "gpt-4o-mini",
            403,
            "vendor_not_allowed",
        ),
        case(stack.bot("off", json!({})), "openai", "gpt-4o-mini", 403, "bot_disabled"),
        case(stack.bot("nowhere", json!({})), "nobody", "x", 404, "vendor_unknown"),
        case(stack.bot("spent", json!({ "quotas": used })), "openai", "gpt-4o-mini", 429, "quota_exceeded"),
    ];
    stack.rest().patch("/bots/off", &json!({ "enabled": false }));
    let spent = cases.last().expect("the last");
    assert_eq!(call(stack.data(), &chat_request(&spent.bot.token)).status(), 200);
    let explain = |case: &Case| {
        let body = json!({ "vendor": case.vendor, "model": case.model });
        stack.rest().post(&format!("/bots/{}/explain", case.bot.hostname), &body)
    };
    until_good("the quota's use", Duration::from_secs(10), || explain(spent), |found| found["would"] == "refuse");
    for case in &cases {
        let Case { bot, vendor, model, would: (status, code) } = case;
        let name = &bot.hostname;
        let found = explain(case);
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": "Say hello." }] });
        let answer =
            call(stack.data(), &Request::post(&format!("/v1/{vendor}/chat/completions"), &body).bearer(&bot.token));
        assert_eq!((answer.status(), answer.code().as_str()), (*status, *code), "{name}: {}", answer.text());
        let said = found["code"].as_str().unwrap_or_default();
        assert_eq!((found["would"] == "send", said), (*status == 200, *code), "{name}: {found:#}");
        if *code == "no_key_available" {
            assert!(answer.text().contains(found["reason"].as_str().expect("a reason")), "{name}: {found:#}");
        }
        if let Some(key) = answer.head.header("x-clawgate-key") {
            let ids: Vec<&str> =
                found["candidates"].as_array().expect("a list").iter().filter_map(|key| key["id"].as_str()).collect();
            assert!(ids.contains(&key), "{name}: {key} is none of {ids:?}");
        }
    }
    let found = explain(&cases[1]);
    assert_eq!(
        (&found["candidates"][0]["id"], &found["left_out"][0]["id"]),
        (&json!(tagged), &json!(plain)),
        "{found:#}"
    );
    assert_eq!(found["left_out"][0]["reason"], "missing_tags");
    assert_eq!(found["candidates"][0]["url"], format!("{base}/chat/completions"));
    assert!(!found.to_string().contains(SECRET));
}
