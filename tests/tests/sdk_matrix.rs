//! The official SDKs, unmodified but for base URL and key: what they make of
//! answers through the gateway equals what they make of the vendor's own: plain,
//! streamed, with tools, refused and given up in mid-stream.
//!
//! What must differ is listed with its reason where the scenarios are, in
//! `tests/sdk/matrix` and `tests/sdk/node/matrix` (`differs`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use clawgate_tests::config::{node, python, root};
use clawgate_tests::mock::{assert_only_credential, sha256_hex};
use clawgate_tests::process::Spec;
use clawgate_tests::stack::{Bot, Stack};
use clawgate_tests::wait::until_good;
use serde_json::{Value, json};

const SECRET: &str = "sk-provider-key-of-the-sdk-scenarios";
/// What the SDKs present when nothing stands between them and the vendor.
const OWN_KEY: &str = "sk-own-key-of-the-sdk-scenarios";
/// Vendors and their roots at the mock.
const VENDORS: [(&str, &str); 6] = [
    ("openai", "/v1"),
    ("anthropic", "/v1"),
    ("google", "/v1beta"),
    ("cohere", ""),
    ("mistral", "/mistral/v1"),
    ("ollama", ""),
];
/// SDKs, and the class of their error at a 429.
const SDKS: [(&str, &str); 17] = [
    ("python_openai", "openai.RateLimitError"),
    ("python_anthropic", "anthropic.RateLimitError"),
    ("python_google", "google.genai.errors.ClientError"),
    ("python_cohere", "cohere.errors.too_many_requests_error.TooManyRequestsError"),
    ("python_mistral", "mistralai.client.errors.sdkerror.SDKError"),
    ("python_ollama", "ollama._types.ResponseError"),
    ("python_langchain_openai", "langchain_openai"),
    ("python_langchain_anthropic", "langchain_anthropic"),
    ("python_litellm_openai", "litellm.exceptions.RateLimitError"),
    ("python_litellm_anthropic", "litellm.exceptions.RateLimitError"),
    ("python_litellm_gemini", "litellm.exceptions.RateLimitError"),
    ("node_openai", "RateLimitError"),
    ("node_anthropic", "RateLimitError"),
    ("node_google", "ApiError"),
    ("node_vercel_openai", "APICallError"),
    ("node_vercel_anthropic", "APICallError"),
    ("node_vercel_google", "APICallError"),
];
/// Fewest scenarios of all SDKs together.
const SCENARIOS: usize = 180;
/// Longest a vendor may go on after an SDK gave up.
const HANG_UP: f64 = 2.0;

/// A name, an interpreter, its script and the SDKs it loads.
type Program = (&'static str, PathBuf, PathBuf, Vec<&'static str>);

/// Programs that run beside each other.
fn programs() -> Option<[Program; 3]> {
    let (python, node) = (python()?, node()?);
    let script = root().join("tests/sdk/matrix/main.py");
    let vendors = vec!["openai", "anthropic", "google", "cohere", "mistral", "ollama"];
    Some([
        ("vendors", python.clone(), script.clone(), vendors),
        ("frameworks", python, script, vec!["langchain", "litellm"]),
        ("node", node, root().join("tests/sdk/node/matrix/main.mjs"), vec![]),
    ])
}

/// By side, the base URL of each SDK as its documentation has it.
fn sides(stack: &Stack) -> Value {
    let (mock, gateway) = (stack.mock.url(""), format!("http://{}/v1", stack.data()));
    json!({
        "direct": {
            "openai": format!("{mock}/v1"),
            "anthropic": mock,
            "vercel_anthropic": format!("{mock}/v1"),
            "google": mock,
            "google_beta": format!("{mock}/v1beta"),
            "cohere": mock,
            "mistral": format!("{mock}/mistral"),
            "ollama": mock,
        },
        "through": {
            "openai": format!("{gateway}/openai"),
            "anthropic": format!("{gateway}/anthropic"),
            "vercel_anthropic": format!("{gateway}/anthropic"),
            "google": format!("{gateway}/google"),
            "google_beta": format!("{gateway}/google/v1beta"),
            "cohere": format!("{gateway}/cohere"),
            "mistral": format!("{gateway}/mistral"),
            "ollama": format!("{gateway}/ollama"),
        },
    })
}

/// Runs everything; the lines by side and scenario.
fn run(stack: &Stack, bot: &Bot, programs: [(&'static str, PathBuf, PathBuf, Vec<&'static str>); 3]) -> Lines {
    let keys = json!({ "direct": OWN_KEY, "through": bot.token }).to_string();
    let outputs = std::thread::scope(|scope| {
        let start = |(name, program, script, sdks): (&str, PathBuf, PathBuf, Vec<&str>)| {
            let task = json!({ "mock": stack.mock.url(""), "sides": sides(stack), "sdks": sdks }).to_string();
            let script = script.display().to_string();
            let spec = Spec::new(name, program, stack.folder.path(), &[&script, &task]);
            let spec = spec.env("MATRIX_KEYS", &keys).env("PYTHONDONTWRITEBYTECODE", "");
            scope.spawn(move || spec.run().success())
        };
        let running = programs.map(start);
        running.map(|thread| thread.join().expect("ran"))
    });
    let mut lines = Lines::new();
    for line in outputs.iter().flat_map(|output| output.lines()).filter(|line| line.starts_with('{')) {
        let line: Value = serde_json::from_str(line).expect("one JSON object per line");
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        assert!(line["failed"].is_null(), "{} {}: {}", line["side"], line["name"], line["failed"]);
        lines.entry(text("name")).or_default().insert(text("side"), line.clone());
    }
    lines
}

type Lines = BTreeMap<String, BTreeMap<String, Value>>;

/// Every SDK did everything, and got what its scenario is about.
fn assert_complete(lines: &Lines) {
    assert!(lines.len() >= SCENARIOS, "only {} scenarios", lines.len());
    for (sdk, class) in SDKS {
        let of_sdk: BTreeSet<&str> = lines.keys().filter_map(|name| name.strip_prefix(sdk)).collect();
        for end in ["_stream", "_tools", "_stream_tools", "_error_400", "_error_404", "_error_429", "_cancel"] {
            assert!(of_sdk.iter().any(|name| name.ends_with(end)), "{sdk} has no {end}: {of_sdk:?}");
        }
        let told = &lines[&format!("{sdk}_error_429")]["through"]["dump"]["class"];
        assert!(told.as_str().is_some_and(|told| told.contains(class)), "{sdk}: {told}, expected {class}");
    }
    for (name, sides) in lines {
        let dump = sides["direct"]["dump"].to_string();
        let about = if name.ends_with("_tools") { "get_weather" } else { "" };
        assert!(dump.len() > 2 && dump.contains(about) && dump != "\"no error\"", "{name}: {dump}");
    }
}

/// What was used is what the vendor's ledger says, request by request.
fn assert_usage(stack: &Stack, bot: &Bot, entries: &[&Value]) {
    let rows = stack.rest().usage_rows(&bot.hostname, entries.len());
    assert_eq!(rows.len(), entries.len(), "{rows:#?}");
    let told = |value: &Value, names: [&str; 3]| names.map(|name| value[name].to_string());
    let mut used: Vec<_> = rows
        .iter()
        .filter(|row| row["outcome"] == "ok" && row["output_tokens"].as_u64().is_some_and(|n| n > 0))
        .map(|row| told(row, ["model", "input_tokens", "output_tokens"]))
        .collect();
    let mut billed: Vec<_> = entries
        .iter()
        .filter(|entry| entry["ended"] == "complete" && entry["billed_output"].as_u64().is_some_and(|n| n > 0))
        .map(|entry| told(entry, ["model", "billed_input", "billed_output"]))
        .collect();
    used.sort();
    billed.sort();
    assert_eq!(used, billed);
}

/// The vendor saw the hang-up soon, and a usage row says who ended it.
fn assert_cancelled(stack: &Stack, bot: &Bot, lines: &Lines, entries: &[&Value]) {
    let path = format!("/usage/logs?bot={}&outcome=client_disconnect", bot.hostname);
    let cut: Vec<&String> = lines.keys().filter(|name| name.ends_with("_cancel")).collect();
    let rows = until_good(
        "a row for every stream that was given up",
        Duration::from_secs(30),
        || stack.rest().all(&path),
        |rows| rows.len() >= cut.len(),
    );
    for name in cut {
        let seconds = lines[name]["through"]["seconds"].as_f64();
        assert!(seconds.is_some_and(|seconds| seconds <= HANG_UP), "{name}: the vendor went on for {seconds:?}");
        let id = format!("through-{name}");
        let entry = entries.iter().find(|entry| entry["request_id"] == id.as_str());
        assert!(entry.is_some_and(|entry| entry["ended"] == "client_gone"), "{name}: {entry:?}");
        let rows = rows.iter().filter(|row| row["client_request_id"] == id.as_str());
        assert_eq!(rows.count(), 1, "rows of {name}");
    }
}

#[test]
fn every_sdk_gets_the_same_objects_with_and_without_the_gateway() {
    let Some(programs) = programs() else { return };
    let stack = Stack::start();
    for (vendor, path) in VENDORS {
        stack.key(vendor, SECRET, &stack.mock.url(path), &[], json!({}));
    }
    let bot = stack.bot("sdk", json!({}));
    let lines = run(&stack, &bot, programs);

    let mut different = Vec::new();
    for (name, sides) in &lines {
        assert_eq!(sides.len(), 2, "{name} ran on one side");
        if sides["direct"]["dump"] != sides["through"]["dump"] {
            different.push(format!("{name}\n  {}\n  {}", sides["direct"]["dump"], sides["through"]["dump"]));
        }
    }
    assert!(different.is_empty(), "{} scenarios differ:\n{}", different.len(), different.join("\n"));
    assert_complete(&lines);

    let entries = stack.mock.entries();
    let own = sha256_hex(OWN_KEY);
    let through: Vec<&Value> =
        entries.iter().filter(|entry| entry["credentials"][0]["sha256"] != own.as_str()).collect();
    // A key for Ollama itself presents nothing.
    let (open, keyed): (Vec<&Value>, Vec<&Value>) =
        through.iter().partition(|entry| entry["dialect"].as_str().is_some_and(|name| name.starts_with("ollama")));
    assert!(!open.is_empty() && open.iter().all(|entry| entry["credentials"] == json!([])), "{open:#?}");
    assert_only_credential(&keyed.into_iter().cloned().collect::<Vec<_>>(), SECRET);
    assert!(!stack.mock.ledger_text().contains(&bot.token), "the bot token reached the vendor");
    assert_cancelled(&stack, &bot, &lines, &through);
    assert_usage(&stack, &bot, &through);
    println!("{} scenarios of {} SDKs, {} requests through the gateway", lines.len(), SDKS.len(), through.len());
}
