//! A canary provider key and bot token are searched for everywhere a secret
//! could leak to: logs at trace level, database, spool, last known good,
//! metrics, error bodies, process arguments and environments.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use clawgate_tests::http::{Request, call};
use clawgate_tests::stack::{Stack, chat_body, chat_request};
use clawgate_tests::wait::until;
use serde_json::json;

const CANARY: &str = "sk-canary-9f1c7e5a3b2d4c6e8f0a1b2c3d4e5f60";

/// A secret in every form it might be written in.
struct Needles(Vec<(String, Vec<u8>)>);

impl Needles {
    fn of(name: &str, secret: &str) -> Self {
        let bytes = secret.as_bytes();
        let hex = bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let mut forms = vec![("plain".to_owned(), bytes.to_vec())];
        forms.push(("hex".to_owned(), hex.to_uppercase().into_bytes()));
        forms.push(("hex".to_owned(), hex.into_bytes()));
        for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            forms.push(("base64".to_owned(), engine.encode(bytes).into_bytes()));
        }
        // Most of a secret is as good as all of it.
        forms.push(("its second half".to_owned(), bytes[bytes.len() / 2..].to_vec()));
        Self(forms.into_iter().map(|(form, bytes)| (format!("{name} ({form})"), bytes)).collect())
    }

    fn search(&self, place: &str, haystack: &[u8], found: &mut Vec<String>) {
        for (name, needle) in &self.0 {
            if let Some(at) = haystack.windows(needle.len()).position(|window| window == needle) {
                let from = at.saturating_sub(160);
                let around = String::from_utf8_lossy(&haystack[from..haystack.len().min(at + 8)]).into_owned();
                found.push(format!("{name} in {place}, after {around:?}"));
            }
        }
    }
}

fn files_below(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, into);
        } else if path.is_file() {
            into.push(path);
        }
    }
}

/// Everything that can go wrong with a secret in hand; returns what the
/// gateway answered.
fn exercise(stack: &Stack, token: &str, half_wrong: &str) -> Vec<(String, Vec<u8>)> {
    let chat = |token: &str| chat_request(token);
    let mut answers = Vec::new();
    let mut keep = |name: &str, request: Request| {
        let answer = call(stack.data(), &request);
        let head = format!("{:?}\n", answer.head.headers);
        answers.push((format!("the answer to {name}"), [head.into_bytes(), answer.body].concat()));
    };
    keep("a chat", chat(token));
    keep("a stream", Request { body: chat_body(true).to_string().into_bytes(), ..chat(token) });
    for status in ["400", "401", "403", "404", "429", "500", "503"] {
        keep(&format!("an upstream {status}"), chat(token).header("x-mock-status", status));
    }
    for fault in ["reset@0", "garbage@head", "close@40", "bad_chunk@40", "reset@head"] {
        let streamed = Request { body: chat_body(true).to_string().into_bytes(), ..chat(token) };
        keep(&format!("a fault {fault}"), streamed.header("x-mock-fault", fault));
    }
    keep("a wrong token", chat(half_wrong));
    keep("two tokens", chat(token).header("x-api-key", half_wrong));
    let mut by_query = chat("x");
    by_query.headers.retain(|(name, _)| name != "authorization");
    by_query.target = format!("/v1/openai/chat/completions?key={token}");
    keep("a token in the query", by_query.clone());
    by_query.target = format!("/v1/nosuchvendor/chat?key={token}");
    keep("an unknown vendor", by_query);
    keep("a denied path", Request::new("GET", "/v1/openai/organization/api_keys").bearer(token));
    keep("a token in the path", Request::new("GET", &format!("/v1/openai/{token}")).bearer(token));
    keep("no JSON", chat(token).body(b"{nope".to_vec()));
    answers
}

fn rest_answers(stack: &Stack, key: &str) -> Vec<(String, Vec<u8>)> {
    let rest = stack.rest();
    let paths = [
        "/provider-keys".to_owned(),
        format!("/provider-keys/{key}"),
        "/provider-keys/health".to_owned(),
        "/bots".to_owned(),
        "/bots/canary".to_owned(),
        "/bots/canary/tokens".to_owned(),
        "/usage/logs?limit=200".to_owned(),
        "/audit".to_owned(),
        "/nodes".to_owned(),
    ];
    let get = |path: &String| (format!("GET {path}"), rest.call(Request::new("GET", path)).body);
    let mut answers: Vec<_> = paths.iter().map(get).collect();
    for body in [
        json!({ "vendor": "openai", "label": "x", "secret": CANARY, "base_url": "http://10.1.2.3:1" }),
        json!({ "vendor": "nosuch", "label": "x", "secret": CANARY }),
        json!({ "vendor": "openai", "label": 7, "secret": CANARY }),
        json!({ "vendor": "openai", "label": "x", "secret": { "nested": CANARY } }),
    ] {
        let answer = rest.call(Request::post("/provider-keys", &body));
        assert!(answer.status() >= 400, "{}", answer.text());
        answers.push(("a refused provider key".to_owned(), answer.body));
    }
    answers
}

#[test]
fn no_secret_is_found_anywhere() {
    let mut stack = Stack::start_with(|control, node| {
        for service in [control, node] {
            for name in ["CLAWGATE_LOG", "RUST_LOG"] {
                service.spec.environment.push((name.to_owned(), "trace".to_owned()));
            }
        }
    });
    let bot = stack.ordinary(CANARY, "canary");
    let key = stack.key("openai", CANARY, &stack.mock.url("/v1"), &["second"], json!({}));
    let wrong = format!("{}x", &bot.token[..bot.token.len() - 1]);
    let mut places = exercise(&stack, &bot.token, &wrong);
    places.extend(rest_answers(&stack, &key));
    let rotated = stack.rest().post("/bots/canary/token", &json!({ "overlap_seconds": 600 }));
    let second_token = rotated["token"].as_str().expect("the rotated token").to_owned();
    places.extend(exercise(&stack, &second_token, &wrong));
    for (name, address) in
        [("the node's metrics", stack.node.address("admin")), ("the control plane's", stack.control.address("admin"))]
    {
        places.push((name.to_owned(), call(address, &Request::new("GET", "/metrics")).body));
    }
    for pid in [stack.node.process().id(), stack.control.process().id()] {
        for part in ["cmdline", "environ"] {
            let path = format!("/proc/{pid}/{part}");
            places.push((path.clone(), std::fs::read(&path).expect("a process")));
        }
    }
    let last = stack.chat(&bot);
    let last = last.head.header("x-clawgate-request-id").expect("an id").to_owned();
    let log = until("the last access line", Duration::from_secs(10), || {
        Some(stack.node.process().log()).filter(|log| log.contains(&last))
    });
    assert!(log.contains("TRACE") || log.contains("DEBUG") || log.contains("\"level\""), "no trace log: {log}");
    // Killed, not stopped: what lies on disk is what a thief would find.
    stack.node.kill();
    stack.control.kill();
    let mut files = Vec::new();
    files_below(stack.folder.path(), &mut files);
    let names: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
    assert!(names.iter().any(|n| n.contains("clawgate.db")), "{names:?}");
    for file in files {
        places.push((file.display().to_string(), std::fs::read(&file).unwrap_or_default()));
    }

    let mut found = Vec::new();
    for needles in [
        Needles::of("the provider key", CANARY),
        Needles::of("the bot token", &bot.token),
        Needles::of("the rotated bot token", &second_token),
    ] {
        for (place, haystack) in &places {
            needles.search(place, haystack, &mut found);
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    assert!(places.len() > 40, "only {} places were searched", places.len());
}

#[test]
fn the_search_finds_what_is_there() {
    let needles = Needles::of("x", "secret-of-the-canary");
    let mut found = Vec::new();
    needles.search("plain", b"a secret-of-the-canary b", &mut found);
    needles.search("base64", b"c2VjcmV0LW9mLXRoZS1jYW5hcnk", &mut found);
    assert!(found.len() >= 3, "{found:?}");
    needles.search("clean", b"nothing", &mut found);
    assert!(!found.iter().any(|f| f.contains("clean")));
}
