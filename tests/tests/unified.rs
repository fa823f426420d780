//! One address for all vendors: a model's name finds its vendor, a chain goes on
//! where one has nothing left, and a node says itself what a bot may use.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use clawgate_tests::http::{Request, Response, call};
use clawgate_tests::mock::sha256_hex;
use clawgate_tests::stack::{Bot, Stack};
use clawgate_tests::wait::until_good;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);

/// A provider key at the mock, named after its vendor.
fn secret(vendor: &str) -> String {
    format!("sk-unified-{vendor}")
}

/// Keys at the mock for all vendors of these tests but `elsewhere`.
fn stack() -> Stack {
    let stack = Stack::start();
    for (vendor, root) in
        [("openai", "/v1"), ("anthropic", "/v1"), ("groq", "/openai/v1"), ("deepseek", ""), ("google", "/v1beta")]
    {
        stack.key(vendor, &secret(vendor), &stack.mock.url(root), &[], json!({}));
    }
    stack
}

/// Where nobody listens.
fn dead_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// A small request of a unified route; `model` is put in as text, so that its
/// bytes are known.
fn body(route: &str, model: &str) -> String {
    let what = match route {
        "embeddings" => r#""input":"Say hello.""#,
        "responses" => r#""input":"Say hello.","max_output_tokens":50"#,
        _ => r#""max_tokens":50,"messages":[{"role":"user","content":"Say  \"hello\"."}]"#,
    };
    format!(r#"{{ "x-own":[1, 2.50] ,"model" : "{model}",{what}}}"#)
}

fn post(stack: &Stack, bot: &Bot, path: &str, body: &str) -> Response {
    let request = Request::new("POST", path).header("content-type", "application/json").bearer(&bot.token);
    call(stack.data(), &request.body(body.as_bytes().to_vec()))
}

fn get(stack: &Stack, bot: &Bot, path: &str) -> Response {
    call(stack.data(), &Request::new("GET", path).bearer(&bot.token))
}

/// The last request of the ledger: path, and which vendor's key it had.
fn last(stack: &Stack) -> (String, Value) {
    let entries = stack.mock.entries();
    let entry = entries.last().unwrap_or_else(|| panic!("nothing was sent")).clone();
    (entry["path"].as_str().unwrap_or_default().to_owned(), entry)
}

fn assert_sent(stack: &Stack, vendor: &str, path: &str, body: &str) {
    let (found, entry) = last(stack);
    assert_eq!(found, path, "{entry}");
    assert_eq!(entry["credentials"][0]["sha256"], sha256_hex(&secret(vendor)), "{vendor}: {entry}");
    assert_eq!(entry["body_sha256"], sha256_hex(body), "not these bytes: {body}");
    let names = entry["headers"].as_array().cloned().unwrap_or_default();
    assert!(!names.iter().any(|name| name[0].as_str().is_some_and(|n| n.starts_with("x-clawrouter"))), "{entry}");
}

fn refused(answer: &Response, status: u16, code: &str, word: &str) {
    assert_eq!((answer.status(), answer.code().as_str()), (status, code), "{}", answer.text());
    assert!(answer.text().contains(word), "no {word:?} in {}", answer.text());
}

/// The rows of a bot, the newest first.
fn newest(stack: &Stack, bot: &Bot, count: usize) -> Value {
    let rows = stack.rest().usage_rows(&bot.hostname, count);
    assert_eq!(rows.len(), count, "{rows:#?}");
    rows.into_iter().max_by_key(|row| row["id"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

#[test]
fn a_models_name_finds_its_vendor_and_every_other_byte_is_the_clients() {
    let stack = stack();
    let aliases = json!({ "fast": "groq/llama-3.1-8b", "tiny": "gpt-4o-mini", "writer": "anthropic/claude-sonnet-4-5",
        "vectors": "text-embedding-3-small", "thinker": "deepseek/deepseek-reasoner" });
    let bot = stack.bot("worker", json!({ "model_aliases": aliases }));
    for (route, asked, vendor, model, path) in [
        ("chat/completions", "openai/gpt-4o-mini", "openai", "gpt-4o-mini", "/v1/chat/completions"),
        ("chat/completions", "gpt-4o-mini", "openai", "gpt-4o-mini", "/v1/chat/completions"),
        ("chat/completions", "tiny", "openai", "gpt-4o-mini", "/v1/chat/completions"),
        ("chat/completions", "fast", "groq", "llama-3.1-8b", "/openai/v1/chat/completions"),
        ("chat/completions", "groq/openai/gpt-oss-20b", "groq", "openai/gpt-oss-20b", "/openai/v1/chat/completions"),
        ("chat/completions", "meta-llama/llama-4", "openai", "meta-llama/llama-4", "/v1/chat/completions"),
        (
            "chat/completions",
            "google/gemini-2.5-flash",
            "google",
            "gemini-2.5-flash",
            "/v1beta/openai/chat/completions",
        ),
        ("responses", "openai/gpt-4o-mini", "openai", "gpt-4o-mini", "/v1/responses"),
        ("responses", "tiny", "openai", "gpt-4o-mini", "/v1/responses"),
        ("embeddings", "vectors", "openai", "text-embedding-3-small", "/v1/embeddings"),
        ("embeddings", "openai/text-embedding-3-small", "openai", "text-embedding-3-small", "/v1/embeddings"),
        ("messages", "claude-sonnet-4-5", "anthropic", "claude-sonnet-4-5", "/v1/messages"),
        ("messages", "writer", "anthropic", "claude-sonnet-4-5", "/v1/messages"),
        ("messages", "thinker", "deepseek", "deepseek-reasoner", "/anthropic/v1/messages"),
        (
            "messages/count_tokens",
            "anthropic/claude-sonnet-4-5",
            "anthropic",
            "claude-sonnet-4-5",
            "/v1/messages/count_tokens",
        ),
    ] {
        let root = if route == "responses" { "/api/v1" } else { "/v1" };
        let answer = post(&stack, &bot, &format!("{root}/{route}"), &body(route, asked));
        assert_eq!(answer.status(), 200, "{route} {asked}: {}", answer.text());
        assert_sent(&stack, vendor, path, &body(route, model));
    }
    let last = newest(&stack, &bot, 15);
    assert_eq!((&last["vendor"], &last["endpoint"]), (&json!("anthropic"), &json!("messages/count_tokens")), "{last}");
    let rows = stack.rest().usage_rows("worker", 15);
    let named = |model: &str| rows.iter().filter(|row| row["model"] == model).count();
    assert_eq!((named("gpt-4o-mini"), named("llama-3.1-8b"), named("fast")), (5, 1, 0), "the model as served");
    let tokens = |row: &&Value| row["total_tokens"].as_u64().is_some_and(|tokens| tokens > 0);
    assert_eq!(rows.iter().filter(tokens).count(), 15, "all are metered: {rows:#?}");

    names_on_a_vendors_own_route(&stack, &bot);
    names_that_lead_nowhere(&stack, &bot);
}

fn names_on_a_vendors_own_route(stack: &Stack, bot: &Bot) {
    let route = "chat/completions";
    for (path, asked, vendor, model, seen) in [
        ("/v1/openai/chat/completions", "tiny", "openai", "gpt-4o-mini", "/v1/chat/completions"),
        ("/v1/groq/chat/completions", "fast", "groq", "llama-3.1-8b", "/openai/v1/chat/completions"),
        (
            "/v1/groq/chat/completions",
            "openai/gpt-oss-20b",
            "groq",
            "openai/gpt-oss-20b",
            "/openai/v1/chat/completions",
        ),
        ("/v1/native/openai/v1/chat/completions", "gpt-4o", "openai", "gpt-4o", "/v1/chat/completions"),
    ] {
        let request = Request::new("POST", path).header("content-type", "application/json").bearer(&bot.token);
        let request = request.header("x-clawrouter-agent-id", "scribe").header("x-clawrouter-session-id", "s-1");
        let answer = call(stack.data(), &request.body(body(route, asked).into_bytes()));
        assert_eq!(answer.status(), 200, "{path} {asked}: {}", answer.text());
        assert_sent(stack, vendor, seen, &body(route, model));
    }
    let row = newest(stack, bot, 19);
    assert_eq!((&row["agent_id"], &row["session_id"]), (&json!("scribe"), &json!("s-1")), "{row}");
    let elsewhere = post(stack, bot, "/v1/openai/chat/completions", &body(route, "fast"));
    refused(&elsewhere, 400, "bad_request", "groq");
    // In the path, where Gemini has it.
    let other = stack.bot("other", json!({ "model_aliases": { "quick": "google/gemini-2.5-flash" } }));
    let contents = r#"{"contents":[{"role":"user","parts":[{"text":"Say hello."}]}]}"#;
    let answer = post(stack, &other, "/v1/google/v1beta/models/quick:generateContent", contents);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_sent(stack, "google", "/v1beta/models/gemini-2.5-flash:generateContent", contents);
}

fn names_that_lead_nowhere(stack: &Stack, bot: &Bot) {
    let before = stack.mock.requests();
    let messages = post(stack, bot, "/v1/messages", &body("messages", "openai/gpt-4o"));
    refused(&messages, 404, "route_unknown", "vendor openai has no route messages");
    assert_eq!(messages.json()["type"], "error", "in the dialect of the route: {}", messages.text());
    refused(&post(stack, bot, "/v1/responses", r#"{"input":"x"}"#), 400, "model_missing", "model");
    refused(&post(stack, bot, "/v1/chat/completions", r#"{"model":7}"#), 400, "bad_request", "string");
    refused(&get(stack, bot, "/v1/chat/completions"), 405, "method_not_allowed", "POST");
    refused(&get(stack, bot, "/v1/audio/voices"), 404, "route_unknown", "nothing");
    let limited = stack.bot(
        "limited",
        json!({ "allowed_models": ["gpt-4o-mini", "anthropic/*"], "allowed_vendors": ["openai", "anthropic"],
            "model_aliases": { "big": "gpt-4o", "small": "gpt-4o-mini" } }),
    );
    let chat = |model: &str| post(stack, &limited, "/v1/chat/completions", &body("chat/completions", model));
    refused(&chat("groq/llama-3.1-8b"), 403, "vendor_not_allowed", "groq");
    refused(&chat("openai/gpt-4o"), 403, "model_not_allowed", "gpt-4o");
    refused(&chat("big"), 403, "model_not_allowed", "gpt-4o");
    assert_eq!(stack.mock.requests(), before, "nothing was sent");
    assert_eq!(chat("small").status(), 200);
    let allowed = post(stack, &limited, "/v1/messages", &body("messages", "claude-sonnet-4-5"));
    assert_eq!(allowed.status(), 200, "{}", allowed.text());
    let rows = stack.rest().usage_rows("limited", 5);
    assert_eq!(rows.iter().filter(|row| row["outcome"] == "refused").count(), 3, "{rows:#?}");
}

#[test]
fn streams_are_the_vendors_bytes() {
    let stack = stack();
    let bot = stack.bot("worker", json!({ "model_aliases": { "fast": "groq/llama-3.1-8b" } }));
    for (route, asked, model, path) in [
        ("chat/completions", "fast", "llama-3.1-8b", "/openai/v1/chat/completions"),
        ("responses", "openai/gpt-4o-mini", "gpt-4o-mini", "/v1/responses"),
        ("messages", "anthropic/claude-sonnet-4-5", "claude-sonnet-4-5", "/v1/messages"),
    ] {
        // Asked for, so that nothing has to be put in and taken out again.
        let asks = if route == "chat/completions" { r#""stream_options":{"include_usage":true},"# } else { "" };
        let streamed = |model: &str| body(route, model).replacen("{ ", &format!(r#"{{"stream":true,{asks} "#), 1);
        let direct = Request::new("POST", path).header("content-type", "application/json").bearer("x");
        let direct = call(stack.mock.address, &direct.body(streamed(model).into_bytes()));
        let through = post(&stack, &bot, &format!("/v1/{route}"), &streamed(asked));
        assert_eq!((through.status(), through.text()), (200, direct.text()), "{route}");
        assert!(through.text().contains("data: "), "{route}");
    }
    let rows = stack.rest().usage_rows("worker", 3);
    assert!(rows.iter().all(|row| row["usage_source"] == "upstream" && row["stream"] == true), "{rows:#?}");
}

fn rule(stack: &Stack, vendor: &str, knobs: Value) {
    let rule = json!({ "credential": sha256_hex(&secret(vendor)), "knobs": knobs });
    let answer = call(stack.mock.address, &Request::post("/__mock/rules", &rule));
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

fn heal(stack: &Stack) {
    assert_eq!(call(stack.mock.address, &Request::new("DELETE", "/__mock/rules")).status(), 200);
}

#[test]
fn a_chain_goes_on_where_one_has_nothing_left() {
    let stack = stack();
    let dead = format!("http://{}", dead_address());
    stack.key("mistral", &secret("mistral"), &dead, &[], json!({}));
    let fallbacks = json!({
        "gpt-4o": ["groq/llama-3.1-8b", "deepseek/deepseek-chat"],
        "dead": ["groq/llama-3.1-8b"],
        "together/llama": ["gpt-4o-mini"],
        "claude-sonnet-4-5": ["openai/gpt-4o", "deepseek/deepseek-chat"],
        "all-dead": ["mistral/other", "together/nothing"],
    });
    let aliases = json!({ "dead": "mistral/mistral-large", "all-dead": "mistral/mistral-small" });
    let quotas = json!([{ "metric": "total_tokens", "window": "day", "limit": 1_000_000 },
        { "metric": "requests", "window": "day", "limit": 1000, "model": "gpt-4o*" }]);
    let bot = stack.bot("worker", json!({ "fallbacks": fallbacks, "model_aliases": aliases, "quotas": quotas }));
    let chat = |model: &str| post(&stack, &bot, "/v1/chat/completions", &body("chat/completions", model));
    let mut count = 0;
    let mut served = |answer: &Response, vendor: &str, model: &str, tried: &[u16]| {
        assert_eq!(answer.status(), 200, "{}", answer.text());
        count += 1;
        let row = newest(&stack, &bot, count);
        assert_eq!((&row["vendor"], &row["model"]), (&json!(vendor), &json!(model)), "{row}");
        let statuses: Vec<u64> = row["tried"]
            .as_array()
            .iter()
            .flat_map(|all| all.iter())
            .filter_map(|one| one["status"].as_u64())
            .collect();
        assert_eq!(statuses, tried.iter().map(|status| u64::from(*status)).collect::<Vec<_>>(), "{row}");
        assert_eq!(row["outcome"], "ok", "{row}");
    };

    served(&chat("openai/gpt-4o"), "openai", "gpt-4o", &[200]);
    served(&chat("dead"), "groq", "llama-3.1-8b", &[0, 200]);
    rule(&stack, "openai", json!({ "status": 500 }));
    served(&chat("openai/gpt-4o"), "groq", "llama-3.1-8b", &[500, 200]);
    assert_sent(&stack, "groq", "/openai/v1/chat/completions", &body("chat/completions", "llama-3.1-8b"));
    rule(&stack, "groq", json!({ "status": 429, "header": "retry-after: 30" }));
    served(&chat("gpt-4o"), "deepseek", "deepseek-chat", &[500, 429, 200]);
    // The key that cools is not asked again.
    served(&chat("gpt-4o"), "deepseek", "deepseek-chat", &[500, 200]);
    // On a vendor's own route too, and in a stream.
    let on_route = body("chat/completions", "gpt-4o").replacen("{ ", r#"{"stream":true, "#, 1);
    served(&post(&stack, &bot, "/v1/openai/chat/completions", &on_route), "deepseek", "deepseek-chat", &[500, 200]);
    heal(&stack);
    // An address where nobody is, a vendor without a key, a model of another dialect.
    rule(&stack, "anthropic", json!({ "status": 529 }));
    let messages = post(&stack, &bot, "/v1/messages", &body("messages", "claude-sonnet-4-5"));
    served(&messages, "deepseek", "deepseek-chat", &[529, 200]);
    heal(&stack);
    served(&chat("together/llama"), "openai", "gpt-4o-mini", &[200]);

    what_ends_a_chain(&stack, &bot, &chat);
    what_was_charged(&stack, &bot);
}

fn what_ends_a_chain(stack: &Stack, bot: &Bot, chat: &dyn Fn(&str) -> Response) {
    // What the request is to blame for is final, and so is a ban.
    for (status, code) in [(400, None), (403, Some("upstream_forbidden"))] {
        rule(stack, "openai", json!({ "status": status }));
        let answer = chat("gpt-4o");
        assert_eq!(answer.status(), status, "{}", answer.text());
        assert!(code.is_none_or(|code| answer.code() == code), "{}", answer.text());
        heal(stack);
    }
    // The last one's own words go through.
    for vendor in ["openai", "deepseek"] {
        rule(stack, vendor, json!({ "status": 503 }));
    }
    let answer = chat("gpt-4o");
    assert_eq!(answer.status(), 503, "{}", answer.text());
    assert_eq!(answer.head.header("x-clawgate-attempts"), Some("2"), "groq cools: {:?}", answer.head);
    heal(stack);
    // Nobody is there at all: the one that was asked is told of.
    refused(&chat("all-dead"), 502, "upstream_connect", "mistral");
    let row = newest(stack, bot, 12);
    assert_eq!((&row["vendor"], &row["model"]), (&json!("mistral"), &json!("other")), "{row}");
}

/// Each exchange was charged for what answered, once.
fn what_was_charged(stack: &Stack, bot: &Bot) {
    let entries = stack.mock.entries();
    let good = entries.iter().filter(|entry| entry["status"] == 200 && entry["method"] == "POST");
    let count = |entry: &Value, name: &str| entry[name].as_u64().unwrap_or_default();
    let tokens: u64 = good.map(|entry| count(entry, "billed_input") + count(entry, "billed_output")).sum();
    let quotas = || stack.rest().get(&format!("/bots/{}/quotas", bot.hostname));
    let used = |quotas: &Value, at: usize| quotas["data"][at]["used"].as_u64().unwrap_or_default();
    let seen = until_good("the quotas to be settled", PATIENCE, quotas, |quotas| used(quotas, 0) == tokens);
    assert!(used(&seen, 1) >= 2, "{seen}");
}

#[test]
fn a_node_says_itself_what_a_bot_may_use() {
    let stack = stack();
    let bot = stack.bot(
        "worker",
        json!({ "allowed_vendors": ["openai", "anthropic", "google"], "allowed_models": ["gpt-4o-mini", "openai/in-house", "anthropic/*", "google/*"],
            "model_aliases": { "fast": "gpt-4o-mini", "gone": "groq/llama-3.1-8b" },
            "quotas": [{ "metric": "cost_micros", "window": "month", "limit": 5_000_000 }] }),
    );
    let models = get(&stack, &bot, "/v1/models").json();
    assert_eq!(models["object"], "list");
    let ids: Vec<&str> = models["data"].as_array().into_iter().flatten().filter_map(|one| one["id"].as_str()).collect();
    for id in ["fast", "openai/gpt-4o-mini", "openai/in-house", "anthropic/claude-sonnet-4-5"] {
        assert!(ids.contains(&id), "{id} is missing in {ids:?}");
    }
    for id in ["gone", "openai/gpt-4o", "groq/llama-3.1-8b-instant", "gpt-4o-mini"] {
        assert!(!ids.contains(&id), "{id} in {ids:?}");
    }
    let one = get(&stack, &bot, "/v1/models/openai%2Fgpt-4o-mini").json();
    assert_eq!((&one["id"], &one["owned_by"]), (&json!("openai/gpt-4o-mini"), &json!("openai")));
    assert_eq!(get(&stack, &bot, "/v1/models/gpt-4o-mini").json()["id"], "openai/gpt-4o-mini");
    refused(&get(&stack, &bot, "/v1/models/gpt-5"), 404, "route_unknown", "gpt-5");
    let theirs =
        Request::new("GET", "/v1/models").header("x-api-key", &bot.token).header("anthropic-version", "2023-06-01");
    let theirs = call(stack.data(), &theirs).json();
    assert_eq!((&theirs["has_more"], &theirs["data"][0]["type"]), (&json!(false), &json!("model")), "{theirs}");
    assert_eq!(get(&stack, &bot, "/v1/openai/models").status(), 200, "the vendor's own list is the vendor's");
    let asked = stack.mock.requests();

    let catalog = get(&stack, &bot, "/v1/catalog").json();
    assert_eq!(catalog["version"], "clawrouter.client-catalog.v1");
    let providers = catalog["providers"].as_array().cloned().unwrap_or_default();
    let known: Vec<&str> = providers.iter().filter_map(|provider| provider["id"].as_str()).collect();
    assert_eq!(known, ["anthropic", "google", "openai"]);
    let openai = &providers[2];
    assert_eq!((&openai["openaiCompatible"], &openai["nativeBaseUrl"]), (&json!(true), &json!("/v1/native/openai")));
    let mini = openai["models"].as_array().into_iter().flatten().find(|model| model["id"] == "openai/gpt-4o-mini");
    let mini = mini.unwrap_or_else(|| panic!("not there: {openai}"));
    assert_eq!(
        (&mini["upstream"], &mini["capabilities"]),
        (&json!("gpt-4o-mini"), &json!(["llm.responses", "llm.chat"]))
    );
    assert_eq!(mini["pricing"]["inputMicrosPerMillion"], 150_000, "{mini}");
    let claude = &providers[0]["routes"];
    assert!(claude.to_string().contains(r#""path":"/v1/messages","requestFormat":"anthropic.messages""#), "{claude}");

    what_is_said_of_the_bot(&stack, &bot);
    assert_eq!(stack.mock.requests(), asked + 1, "one chat, and no vendor was asked for anything else");
    let rows = stack.rest().usage_rows("worker", 3);
    assert_eq!(rows.len(), 3, "a vendor's list, one refusal and one chat: {rows:#?}");
}

fn what_is_said_of_the_bot(stack: &Stack, bot: &Bot) {
    let before = get(stack, bot, "/v1/usage").json();
    assert_eq!((&before["budget"]["configured"], &before["budget"]["limitMicros"]), (&json!(true), &json!(5_000_000)));
    assert_eq!(post(stack, bot, "/v1/chat/completions", &body("chat/completions", "fast")).status(), 200);
    let usage = || get(stack, bot, "/v1/usage").json();
    let money = |usage: &Value, name: &str| usage["budget"][name].as_u64().unwrap_or_default();
    let usage = until_good("the money to be spent", PATIENCE, usage, |usage| money(usage, "spentMicros") > 0);
    assert_eq!(money(&usage, "remainingMicros") + money(&usage, "spentMicros"), 5_000_000, "{usage}");
    assert!(usage["budget"]["windowKey"].as_str().is_some_and(|key| key.starts_with("bot/month/20")), "{usage}");
    let me = get(stack, bot, "/v1/me").json();
    assert_eq!((&me["authenticated"], &me["name"]), (&json!(true), &json!("worker")), "{me}");
    let inspected = get(stack, bot, "/v1/key/inspect");
    assert_eq!(inspected.json()["providers"], json!(["anthropic", "google", "openai"]));
    assert!(!inspected.text().contains(&bot.token), "a token is not repeated");
    refused(&get(stack, bot, "/v1/pool"), 404, "pool_status_hidden", "pool_status_hidden");
    let health = call(stack.data(), &Request::new("GET", "/v1/health"));
    assert_eq!((health.status(), health.json()["ok"].clone()), (200, json!(true)));
    let head = call(stack.data(), &Request::new("HEAD", "/v1/health"));
    assert_eq!((head.status(), head.body.len()), (200, 0));
    refused(&call(stack.data(), &Request::new("GET", "/v1/models")), 401, "bot_token_missing", "token");
    let none = stack.bot("free", json!({}));
    assert_eq!(get(stack, &none, "/v1/usage").json()["budget"]["configured"], false);
}
