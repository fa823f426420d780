//! The main job: an admin adds a provider key and a bot; the bot's request goes
//! through; the vendor sees the provider key; the tokens show up.

use std::time::{Duration, Instant};

use clawgate_tests::http::{Connection, Request, call};
use clawgate_tests::mock::assert_only_credential;
use clawgate_tests::stack::{Stack, chat_body, chat_request};
use clawgate_tests::wait::until_good;
use serde_json::json;

const SECRET: &str = "sk-main-job-provider-key";

#[test]
fn a_request_goes_through_and_its_tokens_show_up() {
    let stack = Stack::start();
    let bot = stack.ordinary(SECRET, "worker");

    let answer = stack.chat(&bot);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    for header in ["x-clawgate-request-id", "x-clawgate-key", "x-clawgate-attempts", "x-clawgate-config"] {
        assert!(answer.head.header(header).is_some(), "no {header} in {:?}", answer.head);
    }
    let entries = stack.mock.entries();
    assert_eq!(entries.len(), 1, "{entries:#?}");
    assert_only_credential(&entries, SECRET);

    let rows = stack.rest().usage_rows("worker", 1);
    let (row, entry) = (&rows[0], &entries[0]);
    assert_eq!(row["id"].as_str(), answer.head.header("x-clawgate-request-id"), "{row}");
    for (column, ledger) in [("input_tokens", "billed_input"), ("output_tokens", "billed_output")] {
        assert_eq!(row[column], entry[ledger], "{column}: {row} {entry}");
    }
    for (column, want) in [
        ("usage_source", json!("upstream")),
        ("outcome", json!("ok")),
        ("status_code", json!(200)),
        ("vendor", json!("openai")),
        ("stream", json!(false)),
        ("bot", json!("worker")),
    ] {
        assert_eq!(row[column], want, "{column} in {row}");
    }
    assert_eq!(row["provider_key_id"].as_str(), answer.head.header("x-clawgate-key"), "{row}");
}

#[test]
fn bytes_are_the_vendors_and_arrive_as_they_are_sent() {
    let stack = Stack::start();
    let bot = stack.ordinary(SECRET, "worker");
    let body = chat_body(true);

    // The same request to the mock and through the gateway.
    let asked = json!({ "stream_options": { "include_usage": true } });
    let mut with_usage = body.clone();
    with_usage["stream_options"] = asked["stream_options"].clone();
    let direct = call(stack.mock.address, &Request::post("/v1/chat/completions", &with_usage).bearer("x"));
    let through = call(stack.data(), &Request::post("/v1/openai/chat/completions", &with_usage).bearer(&bot.token));
    assert_eq!(through.text(), direct.text());
    assert_eq!(through.head.header("content-type"), direct.head.header("content-type"));

    // Slowly: the first piece is here long before the last one.
    let slow = Request::post("/v1/openai/chat/completions", &body)
        .bearer(&bot.token)
        .header("x-mock-tps", "20")
        .header("x-mock-tokens", "20");
    let start = Instant::now();
    let mut connection = Connection::open(stack.data()).expect("connected");
    connection.send(&slow).expect("sent");
    assert_eq!(connection.head("POST").expect("head").status, 200);
    assert!(connection.piece().expect("a piece").is_some());
    let first = start.elapsed();
    let mut rest = Vec::new();
    while let Some(piece) = connection.piece().expect("a piece") {
        rest.extend(piece);
    }
    let whole = start.elapsed();
    assert!(first * 2 < whole, "first piece after {first:?} of {whole:?}");
    let text = String::from_utf8_lossy(&rest).into_owned();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(!text.contains("\"usage\":{"), "the injected usage frame reached the client: {text}");

    let rows = stack.rest().usage_rows("worker", 2);
    assert!(rows.iter().all(|row| row["stream"] == true && row["usage_source"] == "upstream"), "{rows:#?}");
}

#[test]
fn statistics_equal_the_sum_of_the_rows() {
    let stack = Stack::start();
    let bot = stack.ordinary(SECRET, "worker");
    for _ in 0..20 {
        assert_eq!(stack.chat(&bot).status(), 200);
    }
    let refused = call(stack.data(), &chat_request(&bot.token).header("x-clawgate-tag", "no-such-tag"));
    assert_eq!(refused.status(), 503, "{}", refused.text());
    let rest = stack.rest();
    let rows = rest.usage_rows("worker", 21);
    let sum = |column: &str| rows.iter().filter_map(|row| row[column].as_u64()).sum::<u64>();
    let stats = until_good(
        "statistics of 21 requests",
        Duration::from_secs(10),
        || rest.get("/bots/worker/usage/stats?period=day"),
        |stats| stats["requestCount"] == 21,
    );
    assert_eq!(stats["requestTokens"], sum("input_tokens"), "{stats}");
    assert_eq!(stats["responseTokens"], sum("output_tokens"), "{stats}");
    assert_eq!(stats["totalTokens"], sum("total_tokens"), "{stats}");
    assert_eq!(stats["errorCount"], 1, "{stats}");
    let billed: u64 = stack.mock.entries().iter().filter_map(|e| e["billed_output"].as_u64()).sum();
    assert_eq!(stats["responseTokens"], billed);

    let breakdown = rest.get("/bots/worker/usage/breakdown?groupBy=vendor");
    assert_eq!(breakdown["groups"][0]["key"], "openai", "{breakdown}");
    let trend = rest.get("/bots/worker/usage/trend?granularity=day");
    let points = trend["dataPoints"].as_array().cloned().unwrap_or_default();
    let count: u64 = points.iter().filter_map(|p| p["requestCount"].as_u64()).sum();
    assert_eq!(count, 21, "{trend}");
}

#[test]
fn every_carrier_of_the_bot_token_works_and_none_reaches_the_vendor() {
    let stack = Stack::start();
    let bot = stack.ordinary(SECRET, "worker");
    let base = Request::post("/v1/openai/chat/completions", &chat_body(false));
    for carrier in ["x-api-key", "x-goog-api-key", "api-key"] {
        let answer = call(stack.data(), &base.clone().header(carrier, &bot.token));
        assert_eq!(answer.status(), 200, "{carrier}: {}", answer.text());
    }
    let mut by_query = base.clone();
    by_query.target = format!("{}?key={}&api-version=7", base.target, bot.token);
    assert_eq!(call(stack.data(), &by_query).status(), 200);
    let extra = base
        .bearer(&bot.token)
        .header("x-api-key", &bot.token)
        .header("cookie", "session=secret-cookie")
        .header("openai-organization", "org-of-the-client")
        .header("x-forwarded-for", "203.0.113.9")
        .header("proxy-authorization", "Basic secret-proxy-credential")
        .header("x-stainless-lang", "python");
    assert_eq!(call(stack.data(), &extra).status(), 200);

    let entries = stack.mock.entries();
    assert_eq!(entries.len(), 5);
    assert_only_credential(&entries, SECRET);
    let ledger = stack.mock.ledger_text();
    for never in [bot.token.as_str(), "secret-cookie", "org-of-the-client", "203.0.113.9", "secret-proxy-credential"] {
        assert!(!ledger.contains(never), "{never} reached the vendor: {ledger}");
    }
    assert!(ledger.contains("api-version=7") && ledger.contains("x-stainless-lang"), "{ledger}");

    let conflict = call(stack.data(), &chat_request(&bot.token).header("x-api-key", "another"));
    assert_eq!((conflict.status(), conflict.code().as_str()), (400, "conflicting_credentials"));
}
