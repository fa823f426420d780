//! `on_exceed: cut`: an answer that turns out longer than what its bot has left
//! ends with the dialect's own error, and what went through stays charged.

use std::time::Duration;

use clawgate_tests::http::{Request, Response, call};
use clawgate_tests::stack::{Bot, Stack};
use clawgate_tests::wait::until_good;
use serde_json::{Value, json};

const LIMIT: u64 = 3000;
/// As long as an answer that nobody cuts off would be.
const LONG: u64 = 20_000;
/// Enough of them to know what requests usually use.
const USUAL: u64 = 25;

fn request(path: &str, body: &Value, bot: &Bot, tokens: u64) -> Request {
    Request::post(path, body).bearer(&bot.token).header("x-mock-tokens", &tokens.to_string())
}

fn estimated() -> Value {
    json!({ "metric": "output_tokens", "window": "day", "limit": LIMIT, "mode": "estimate", "on_exceed": "cut" })
}

/// A bot that has made small requests so far.
fn usual(stack: &Stack, hostname: &str, path: &str, body: &Value, quotas: &[Value]) -> Bot {
    let bot = stack.bot(hostname, json!({}));
    stack.rest().put(&format!("/bots/{hostname}/quotas"), &json!(quotas));
    for _ in 0..USUAL {
        let answer = call(stack.data(), &request(path, body, &bot, 10));
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    bot
}

/// The last event of a stream.
fn last_event(answer: &Response) -> Value {
    let text = answer.text();
    let data = text.trim_end().rsplit_once("data: ").map_or("", |(_, data)| data);
    serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"))
}

/// `bodies`: of a short answer, of a long stream.
fn cut(stack: &Stack, hostname: &str, paths: [&str; 2], bodies: [&Value; 2], code: &str) {
    let bot = usual(stack, hostname, paths[0], bodies[0], &[estimated()]);
    let long = request(paths[1], bodies[1], &bot, LONG).header("x-mock-tps", "1000");
    let answer = call(stack.data(), &long);
    assert_eq!((answer.status(), &answer.cut), (200, &None), "{hostname}: ends like any other answer");
    let error = last_event(&answer);
    assert_eq!(error.pointer(code).and_then(Value::as_str), Some("quota_exceeded"), "{hostname}: {error}");
    let rows = stack.rest().usage_rows(&bot.hostname, usize::try_from(USUAL).expect("few") + 1);
    let row = rows.iter().find(|row| row["outcome"] == "interrupted").expect("a row of the long one");
    assert_eq!((&row["usage_source"], &row["error_code"]), (&json!("estimated"), &json!("quota_exceeded")), "{row}");
    let output = row["output_tokens"].as_u64().expect("estimated");
    assert!(output < LONG / 2 && output > LIMIT / 2, "{hostname}: {output}");
    let wanted = Some(output + 10 * USUAL);
    let used = || stack.rest().get(&format!("/bots/{hostname}/quotas"))["data"][0]["used"].as_u64();
    until_good("everything charged", Duration::from_secs(20), used, |used| *used == wanted);
    let entries = stack.mock.entries();
    let sent = entries.last().and_then(|entry| entry["sent_output"].as_u64()).expect("in the ledger");
    eprintln!("{hostname}: counted {output}, the vendor sent {sent}");
    // Where to cut goes by the size of the text, which is rough; what is charged
    // is counted.
    assert!(used() <= Some(LIMIT) && used() > Some(LIMIT * 6 / 10), "{hostname}: {:?}", used());
}

#[test]
fn an_answer_is_cut_off_where_its_quota_ends() {
    let stack = Stack::start();
    let _ordinary = stack.ordinary("sk-cut-provider-key", "ordinary");
    let said = json!([{ "role": "user", "content": "Go on." }]);
    let short = json!({ "model": "gpt-4o-mini", "max_tokens": 16, "messages": said });
    let long = json!({ "model": "gpt-4o-mini", "stream": true, "messages": said });
    cut(&stack, "openai", ["/v1/openai/chat/completions"; 2], [&short, &long], "/code");
    let short = json!({ "model": "claude-sonnet-4-5", "max_tokens": 16, "messages": said });
    let long = json!({ "model": "claude-sonnet-4-5", "max_tokens": 64_000, "stream": true, "messages": said });
    cut(&stack, "anthropic", ["/v1/anthropic/v1/messages"; 2], [&short, &long], "/error/code");
    let said = json!([{ "role": "user", "parts": [{ "text": "Go on." }] }]);
    let short = json!({ "contents": said, "generationConfig": { "maxOutputTokens": 16 } });
    let long = json!({ "contents": said });
    let model = "/v1/google/v1beta/models/gemini-2.5-flash";
    let paths = [format!("{model}:generateContent"), format!("{model}:streamGenerateContent?alt=sse")];
    cut(&stack, "google", [&paths[0], &paths[1]], [&short, &long], "/error/details/0/reason");
}

/// What is estimated grows with the answer; what is strict has held all of it.
#[test]
fn an_answer_within_its_bound_is_not_cut_off_by_a_quota_that_holds_all_of_it() {
    let stack = Stack::start();
    let _ordinary = stack.ordinary("sk-cut-provider-key", "ordinary");
    let path = "/v1/openai/chat/completions";
    let body = |most: u64, stream: bool| {
        json!({
            "model": "gpt-4o-mini", "max_tokens": most, "stream": stream,
            "messages": [{ "role": "user", "content": "Go on." }],
        })
    };
    // When the long one holds its 500, 100 are left.
    let limit = 10 * USUAL + 600;
    let strict = json!({ "metric": "output_tokens", "window": "month", "limit": limit, "on_exceed": "cut" });
    let bot = usual(&stack, "both", path, &body(16, false), &[estimated(), strict]);
    let answer = call(stack.data(), &request(path, &body(500, true), &bot, 450));
    assert_eq!((answer.status(), &answer.cut), (200, &None));
    assert!(answer.text().trim_end().ends_with("[DONE]"), "{}", answer.text());
}
