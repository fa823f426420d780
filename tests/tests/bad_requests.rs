//! Bad input from bots: a clear refusal with a stable code in the caller's
//! dialect, nothing sent to the vendor, and the next good request succeeds.

use clawgate_tests::http::{Connection, Request, Response, call};
use clawgate_tests::stack::{Bot, Stack, chat_request};
use serde_json::{Value, json};

struct Bench {
    stack: Stack,
    bot: Bot,
    good: usize,
}

impl Bench {
    fn new() -> Self {
        let stack = Stack::start_with(|_, node| {
            node.spec.environment.push(("CLAWGATE_MAX_BODY_BYTES".to_owned(), "1048576".to_owned()));
        });
        let bot = stack.ordinary("sk-bad-requests", "worker");
        Self { stack, bot, good: 0 }
    }

    fn chat(&self) -> Request {
        chat_request(&self.bot.token)
    }

    /// The refusal, its code, and that the next good request succeeds.
    fn refuses(&mut self, what: &str, request: &Request, status: u16, code: &str) -> Response {
        let answer = call(self.stack.data(), request);
        let seen = (answer.status(), answer.code());
        assert_eq!(seen, (status, code.to_owned()), "{what}: {:?} {}", answer.head, answer.text());
        self.still_serves(what);
        answer
    }

    fn still_serves(&mut self, what: &str) {
        let answer = self.stack.chat(&self.bot);
        assert_eq!(answer.status(), 200, "after {what}: {}", answer.text());
        self.good += 1;
    }

    /// Nothing but the good requests reached the vendor.
    fn nothing_reached_the_vendor(&self) {
        assert_eq!(self.stack.mock.entries().len(), self.good);
    }
}

fn with_body(request: Request, body: &Value) -> Request {
    request.body(body.to_string().into_bytes())
}

#[test]
fn tokens_and_vendors() {
    let mut bench = Bench::new();
    let chat = bench.chat();
    let unknown = Request { target: "/v1/nosuchvendor/chat/completions".to_owned(), ..chat.clone() };
    bench.refuses("an unknown vendor", &unknown, 404, "vendor_unknown");
    let nowhere = Request::new("GET", "/nowhere").bearer(&bench.bot.token);
    bench.refuses("an unknown route", &nowhere, 404, "route_unknown");
    let denied = Request::new("POST", "/v1/openai/organization/api_keys").bearer(&bench.bot.token);
    bench.refuses("an administrative route", &denied, 403, "path_denied");
    let dots = Request { target: "/v1/openai/chat/..%2f..%2fadmin".to_owned(), ..chat.clone() };
    bench.refuses("a path that climbs", &dots, 400, "bad_request");
    let target = "/v1/openai/embeddings".to_owned();
    let method = Request { method: "DELETE".to_owned(), target, body: Vec::new(), ..chat.clone() };
    bench.refuses("a wrong method", &method, 405, "method_not_allowed");

    let anonymous = Request { headers: vec![("content-type".to_owned(), "application/json".to_owned())], ..chat };
    let missing = bench.refuses("no token", &anonymous, 401, "bot_token_missing");
    assert_eq!(missing.json()["error"]["type"], "authentication_error", "{}", missing.text());
    let foreign = anonymous.clone().bearer("sk-some-provider-key-pasted-by-mistake");
    bench.refuses("a foreign token", &foreign, 401, "bot_token_invalid");
    let mut mistyped = bench.bot.token.clone();
    let last = if mistyped.ends_with('A') { "B" } else { "A" };
    mistyped.replace_range(mistyped.len() - 1.., last);
    bench.refuses("a mistyped token", &anonymous.clone().bearer(&mistyped), 401, "bot_token_invalid");
    let two = anonymous.bearer(&bench.bot.token).header("x-api-key", "another");
    bench.refuses("two tokens", &two, 400, "conflicting_credentials");
    bench.nothing_reached_the_vendor();
}

#[test]
fn bodies() {
    let mut bench = Bench::new();
    let chat = bench.chat();
    bench.refuses("no JSON", &chat.clone().body(b"{\"model\": nope".to_vec()), 400, "bad_request");
    bench.refuses("an empty body", &chat.clone().body(Vec::new()), 400, "bad_request");
    bench.refuses("not an object", &with_body(chat.clone(), &json!([1, 2])), 400, "bad_request");
    bench.refuses("binary", &chat.clone().body(vec![0xff; 64]), 400, "bad_request");
    bench.refuses("no model", &with_body(chat.clone(), &json!({ "messages": [] })), 400, "model_missing");
    let wrong_model = with_body(chat.clone(), &json!({ "model": 7, "messages": [] }));
    let named = bench.refuses("a model that is a number", &wrong_model, 400, "bad_request");
    assert!(named.text().contains("model"), "{}", named.text());
    let twice = br#"{"model":"gpt-4o-mini","messages":[],"model":"o3"}"#.to_vec();
    let named = bench.refuses("a model that stands twice", &chat.clone().body(twice), 400, "bad_request");
    assert!(named.text().contains("model"), "{}", named.text());
    let wrong_stream = with_body(chat.clone(), &json!({ "model": "m", "stream": "yes", "messages": [] }));
    // Not a field we need: the vendor says what it thinks of it, in its words.
    let theirs = call(bench.stack.data(), &wrong_stream);
    assert_eq!((theirs.status(), theirs.head.header("x-clawgate-attempts")), (400, Some("1")), "{}", theirs.text());
    bench.good += 1;
    bench.still_serves("a stream that is a text");
    let deep = format!("{{\"model\":\"m\",\"messages\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    bench.refuses("a deeply nested body", &chat.clone().body(deep.into_bytes()), 400, "bad_request");
    let large = json!({ "model": "m", "messages": [{ "role": "user", "content": "x".repeat(1_100_000) }] });
    bench.refuses("a body over the limit", &with_body(chat, &large), 413, "request_too_large");
    bench.nothing_reached_the_vendor();
}

#[test]
fn heads() {
    let mut bench = Bench::new();
    let chat = bench.chat();
    let long = chat.clone().header("x-long", &"x".repeat(80_000));
    bench.refuses("a header over the limit", &long, 431, "headers_too_large");
    let many = (0..400).fold(chat.clone(), |r, n| r.header(&format!("x-many-{n}"), "1"));
    bench.refuses("too many headers", &many, 431, "headers_too_large");
    let uri = Request { target: format!("/v1/openai/chat/completions?q={}", "x".repeat(16_000)), ..chat };
    bench.refuses("a long address", &uri, 414, "uri_too_long");

    // What is not HTTP gets an answer or an end, never silence.
    for raw in ["GARBAGE\r\n\r\n", "POST /v1/openai/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5x\r\n\r\n"]
    {
        let mut connection = Connection::open(bench.stack.data()).expect("connected");
        connection.send_raw(raw.as_bytes()).expect("sent");
        if let Ok(answer) = connection.response("POST") {
            assert!(answer.status() >= 400, "{raw:?}: {}", answer.text());
        }
        bench.still_serves("what is not HTTP");
    }
    // Two framings at once are a smuggling attempt.
    let smuggled = format!(
        "POST /v1/openai/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 4\r\n\
         transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\n\r\n",
        bench.bot.token
    );
    let mut connection = Connection::open(bench.stack.data()).expect("connected");
    connection.send_raw(smuggled.as_bytes()).expect("sent");
    if let Ok(answer) = connection.response("POST") {
        assert!(answer.status() >= 400, "{}", answer.text());
    }
    bench.still_serves("two framings");
    bench.nothing_reached_the_vendor();
}

#[test]
fn policy() {
    let mut bench = Bench::new();
    let rest = bench.stack.rest();
    let only = bench.stack.bot(
        "narrow",
        json!({ "allowed_vendors": ["openai"], "allowed_models": ["gpt-4o*"], "tags": ["nobody-has-it"] }),
    );
    let chat = chat_request(&only.token);
    let other_model = with_body(chat.clone(), &json!({ "model": "o3", "messages": [] }));
    bench.refuses("a model that is not allowed", &other_model, 403, "model_not_allowed");
    let other_vendor = Request { target: "/v1/groq/chat/completions".to_owned(), ..chat.clone() };
    bench.refuses("a vendor that is not allowed", &other_vendor, 403, "vendor_not_allowed");
    let no_key = bench.refuses("tags without a key", &chat, 503, "no_key_available");
    assert!(no_key.text().contains("no_matching_tags"), "{}", no_key.text());
    let unconfigured = Request { target: "/v1/groq/chat/completions".to_owned(), ..bench.chat() };
    let none = bench.refuses("a vendor without a key", &unconfigured, 503, "no_key_available");
    assert!(none.text().contains("none_configured"), "{}", none.text());

    rest.post("/bots/narrow/suspend", &json!({}));
    bench.refuses("a suspended bot", &chat, 403, "bot_suspended");
    let stored = Request::new("GET", "/v1/openai/files").bearer(&bench.bot.token);
    bench.refuses("an account resource without permission", &stored, 403, "path_denied");
    bench.nothing_reached_the_vendor();
    let rows = rest.usage_rows("narrow", 4);
    assert!(rows.iter().all(|r| r["outcome"] == "refused" && !r["error_code"].is_null()), "{rows:#?}");
}

#[test]
fn refusals_speak_the_dialect_of_the_route() {
    let mut bench = Bench::new();
    let token = bench.bot.token.clone();
    let anthropic = Request::post("/v1/anthropic/v1/messages", &json!({ "messages": [] })).bearer(&token);
    let answer = call(bench.stack.data(), &anthropic);
    assert_eq!(answer.status(), 400, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["type"], "error", "{body}");
    assert_eq!(body["error"]["type"], "invalid_request_error", "{body}");
    assert!(body["error"]["message"].as_str().is_some_and(|m| m.contains("model")), "{body}");

    let gemini = Request::post("/v1/google/v1beta/models/gemini-2.5-flash:generateContent", &json!({}));
    let answer = call(bench.stack.data(), &gemini.header("x-goog-api-key", "nobody"));
    assert_eq!(answer.status(), 401, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["error"]["code"], 401, "{body}");
    assert_eq!(body["error"]["status"], "UNAUTHENTICATED", "{body}");
    bench.still_serves("foreign dialects");
    bench.nothing_reached_the_vendor();
}
