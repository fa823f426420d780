//! What the official SDKs, with the retries they make by default, do at a limit:
//! what does not pass for days they are told at once, and what passes soon they
//! wait for and are served.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clawgate_tests::config::{node, python, root};
use clawgate_tests::hang_up::metric;
use clawgate_tests::mock::sha256_hex;
use clawgate_tests::process::Spec;
use clawgate_tests::stack::{Service, Stack, enroll};
use clawgate_tests::wait::until_good;
use serde_json::{Map, Value, json};

const CASES: [&str; 5] = ["exhausted", "never", "rate", "shed", "overloaded"];

/// One language's SDKs, with bots and a provider key of their own.
struct Language {
    name: &'static str,
    program: PathBuf,
    script: &'static str,
    sdks: &'static [&'static str],
    /// A node that serves one request at a time.
    small: Service,
}

impl Language {
    fn secret(&self) -> String {
        format!("sk-retries-provider-key-{}", self.name)
    }

    /// Keys, bots and their limits; the bots' tokens by case and SDK.
    fn prepare(&self, stack: &Stack) -> Value {
        for (vendor, path) in [("openai", "/v1"), ("anthropic", "/v1"), ("google", "/v1beta")] {
            stack.key(vendor, &self.secret(), &stack.mock.url(path), &[self.name], json!({}));
        }
        let mut tokens = Map::new();
        for case in CASES {
            let mut of_case = Map::new();
            for sdk in self.sdks.iter().copied().chain(["holder"]) {
                let hostname = self.bot(case, sdk);
                let bot = stack.bot(&hostname, json!({ "tags": [self.name] }));
                of_case.insert(sdk.to_owned(), json!(bot.token));
                if sdk != "holder" {
                    limit(stack, case, &hostname);
                }
            }
            tokens.insert(case.to_owned(), Value::Object(of_case));
        }
        Value::Object(tokens)
    }

    fn bot(&self, case: &str, sdk: &str) -> String {
        format!("{}-{case}-{}", self.name, sdk.replace('_', "-"))
    }

    fn run(&self, stack: &Stack, tokens: &Value) -> Vec<Value> {
        let url = |case| {
            let service = if case == "shed" { &self.small } else { &stack.node };
            json!(format!("http://{}", service.address("data")))
        };
        let gateways: Map<String, Value> = CASES.iter().map(|case| ((*case).to_owned(), url(*case))).collect();
        let task =
            json!({ "gateways": gateways, "mock": stack.mock.url(""), "credential": sha256_hex(&self.secret()) });
        let script = root().join(self.script).display().to_string();
        let spec = Spec::new(self.name, self.program.clone(), stack.folder.path(), &[&script, &task.to_string()]);
        let output = spec.env("RETRIES_TOKENS", &tokens.to_string()).run().success();
        println!("{output}");
        output.lines().map(|line| serde_json::from_str(line).expect("one JSON object per line")).collect()
    }
}

fn limit(stack: &Stack, case: &str, hostname: &str) {
    let quota = |window: &str| json!([{ "metric": "total_tokens", "window": window, "limit": 1 }]);
    match case {
        // Of a month: in days. Of all time: never.
        "exhausted" => _ = stack.rest().put(&format!("/bots/{hostname}/quotas"), &quota("month")),
        "never" => _ = stack.rest().put(&format!("/bots/{hostname}/quotas"), &quota("total")),
        // Three nodes share it: at each, one comes back every two seconds.
        "rate" => _ = stack.rest().put(&format!("/bots/{hostname}/limits"), &json!({ "requests_per_minute": 90 })),
        _ => {}
    }
}

fn small_node(stack: &Stack, name: &'static str, folder: &Path) -> Service {
    let mut small = Service::node(name, folder);
    small.spec.set("--private-upstreams", "127.0.0.0/8:*");
    small.spec = small.spec.clone().env("CLAWGATE_MAX_INFLIGHT", "1");
    enroll(&stack.control, &mut small);
    small.start();
    stack.wait_ready(&small);
    small
}

/// How often the bot was told a code, or served.
fn told(stack: &Stack, bot: &str, code: &str) -> usize {
    let of = |row: &&Value| if code.is_empty() { row["outcome"] == "ok" } else { row["error_code"] == code };
    stack.rest().all(&format!("/usage/logs?bot={bot}")).iter().filter(of).count()
}

fn check(stack: &Stack, bot: &str, line: &Value) {
    let case = line["case"].as_str().unwrap_or_default();
    let seconds = line["seconds"].as_f64().unwrap_or(f64::MAX);
    let rows = |code: &str, wanted: usize| {
        let count = || told(stack, bot, code);
        until_good(&format!("{wanted} rows {code:?} of {bot}"), Duration::from_secs(20), count, |n| *n >= wanted)
    };
    if matches!(case, "exhausted" | "never") {
        assert_eq!((&line["served"], &line["code"]), (&json!(false), &json!("quota_exceeded")), "{line}");
        assert!(seconds <= 1.0, "it waited: {line}");
        assert_eq!(rows("quota_exceeded", 1), 1, "it tried again: {line}");
        return;
    }
    assert_eq!(line["served"], true, "{line}");
    assert!(seconds < 12.0, "{line}");
    match case {
        "rate" => assert!(rows("rate_limited", 1) >= 1, "{line}"),
        "overloaded" => {
            assert_eq!(rows("", 1), 1, "{line}");
            let all = stack.rest().all(&format!("/usage/logs?bot={bot}"));
            let failed = all.iter().filter(|row| row["outcome"] == "upstream_error").count();
            assert_eq!((failed, all.len()), (1, 2), "the vendor's error went through, once: {all:#?}");
        }
        _ => {}
    }
}

#[test]
fn sdks_give_up_at_once_where_waiting_is_vain_and_are_served_where_it_is_not() {
    let (Some(python), Some(node)) = (python(), node()) else { return };
    let stack = Stack::start();
    let languages = [
        ("python", python, "tests/sdk/retries.py", &["openai", "anthropic", "google", "langchain"][..]),
        ("node", node, "tests/sdk/node/retries.mjs", &["openai_node", "anthropic_node"][..]),
    ]
    .map(|(name, program, script, sdks)| {
        let small =
            small_node(&stack, if name == "python" { "small-python" } else { "small-node" }, stack.folder.path());
        Language { name, program, script, sdks, small }
    });
    let tokens = languages.each_ref().map(|language| language.prepare(&stack));
    let lines: Vec<Vec<Value>> = std::thread::scope(|scope| {
        let stack = &stack;
        let running: Vec<_> =
            languages.iter().zip(&tokens).map(|(l, tokens)| scope.spawn(move || l.run(stack, tokens))).collect();
        running.into_iter().map(|thread| thread.join().expect("ran")).collect()
    });
    for (language, lines) in languages.iter().zip(&lines) {
        assert_eq!(lines.len(), language.sdks.len() * CASES.len(), "{lines:#?}");
        for line in lines {
            let (case, sdk) = (line["case"].as_str().unwrap_or_default(), line["name"].as_str().unwrap_or_default());
            check(&stack, &language.bot(case, sdk), line);
        }
        let text = clawgate_tests::http::call(
            language.small.address("admin"),
            &clawgate_tests::http::Request::new("GET", "/metrics"),
        )
        .text();
        let shed = text.lines().any(|line| line.starts_with("clawgate_refusals_total{code=\"overloaded\"}"));
        assert!(shed && metric(&language.small, "clawgate_inflight") == 0, "nobody was refused: {text}");
    }
}
