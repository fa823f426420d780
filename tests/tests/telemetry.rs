//! Dashboards and alert rules name only what the two planes report, and the
//! rules fire when they should.

use std::collections::{BTreeMap, BTreeSet};

use clawgate_tests::config::{installed, missing, root};
use clawgate_tests::http::{Request, call};
use clawgate_tests::process::Spec;
use clawgate_tests::stack::{Stack, chat_body, chat_request};
use serde_json::{Value, json};

const ALERTS: &str = "deploy/prometheus/alerts.yml";
const DASHBOARD: &str = "deploy/grafana/clawgate.json";
/// Put there by who scrapes, and by histograms.
const ADDED: [&str; 3] = ["instance", "job", "le"];

/// Names of series with the names of their labels, of a scrape.
type Series = BTreeMap<String, BTreeSet<String>>;

fn is_name(byte: char) -> bool {
    byte.is_ascii_alphanumeric() || byte == '_'
}

/// Every `clawgate_…` of a text, with the labels that are matched behind it, as
/// long as no label's value has a brace or a comma.
fn named(text: &str) -> Series {
    let mut series = Series::new();
    for (at, _) in text.match_indices("clawgate_") {
        let rest = &text[at..];
        let end = rest.find(|byte| !is_name(byte)).unwrap_or(rest.len());
        let labels = series.entry(rest[..end].to_owned()).or_default();
        let Some(matchers) = rest[end..].strip_prefix('{').and_then(|rest| rest.split('}').next()) else { continue };
        for matcher in matchers.split(',').map(str::trim).filter(|matcher| !matcher.is_empty()) {
            let end = matcher.find(|byte| !is_name(byte)).expect("a label is compared");
            labels.insert(matcher[..end].to_owned());
        }
    }
    series
}

/// What both planes report once everything has happened that they count.
fn reported() -> (Series, String) {
    let stack = Stack::start();
    let bot = stack.ordinary("sk-telemetry", "counted");
    let _key = stack.key("groq", "sk-telemetry-nowhere", "http://127.0.0.1:1/v1", &[], json!({}));
    assert_eq!(stack.chat(&bot).status(), 200);
    assert_eq!(call(stack.data(), &chat_request("cgb_wrong")).status(), 401);
    let nowhere = Request::post("/v1/groq/chat/completions", &chat_body(false)).bearer(&bot.token);
    assert_eq!(call(stack.data(), &nowhere).status(), 502);
    let _rows = stack.rest().usage_rows("counted", 2);
    let scrape = |address| call(address, &Request::new("GET", "/metrics")).text();
    let text = scrape(stack.node.address("admin")) + &scrape(stack.control.address("admin"));
    (named(&text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")), text)
}

/// The expressions of a dashboard.
fn expressions(value: &Value, found: &mut String) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_str() {
                    Some(text) if name == "expr" || name == "query" => *found += &format!("{text}\n"),
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// The labels that an expression sums by.
fn summed_by(text: &str) -> BTreeSet<String> {
    let lists = text.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    lists.flat_map(|list| list.split(',')).map(|label| label.trim().to_owned()).collect()
}

#[test]
fn dashboards_and_alerts_name_what_is_reported() {
    let (reported, _) = reported();
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut dashboard = String::new();
    expressions(&serde_json::from_str(&read(DASHBOARD)).expect("JSON"), &mut dashboard);
    let alerts: String = read(ALERTS).lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let everywhere: BTreeSet<&String> = reported.values().flatten().collect();
    for (place, text) in [(DASHBOARD, &dashboard), (ALERTS, &alerts)] {
        let wanted = named(text);
        assert!(wanted.len() >= 12, "{place}: {wanted:?}");
        for (name, labels) in wanted {
            let has = reported.get(&name).unwrap_or_else(|| panic!("{place}: {name} is not reported: {reported:#?}"));
            let unknown = labels.iter().find(|label| !has.contains(*label) && !ADDED.contains(&label.as_str()));
            assert_eq!(unknown, None, "{place}: no such label of {name}");
        }
        for label in summed_by(text) {
            assert!(ADDED.contains(&label.as_str()) || everywhere.contains(&label), "{place}: no label {label}");
        }
    }
}

#[test]
fn the_names_of_the_contract_are_reported() {
    let (reported, text) = reported();
    assert!(text.contains("clawgate_bots{status=\"external\"} 1"), "{text}");
    assert!(text.contains("clawgate_bots{status=\"suspended\"} 0"), "{text}");
    for name in [
        "requests_total",
        "request_duration_seconds_bucket",
        "overhead_seconds_bucket",
        "ttft_seconds_bucket",
        "tokens_total",
        "inflight",
        "refusals_total",
        "upstream_errors_total",
        "lease_remaining",
        "spool_bytes",
        "spool_records",
        "spool_oldest_seconds",
        "config_version",
        "config_age_seconds",
        "config_nacks_total",
        "ingest_events_total",
        "bots",
        "build_info",
    ] {
        assert!(reported.contains_key(&format!("clawgate_{name}")), "{name}: {text}");
    }
}

#[test]
fn the_alert_rules_are_valid_and_fire_when_they_should() {
    let Some(promtool) = installed("promtool") else { return missing("promtool (package prometheus)") };
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["alerts.yml", "alerts.test.yml"] {
        let from = root().join("deploy/prometheus").join(file);
        std::fs::copy(from, folder.path().join(file)).expect("copies");
    }
    let run = |arguments: &[&str]| Spec::new("promtool", promtool.clone(), folder.path(), arguments).run().success();
    let checked = run(&["check", "rules", "alerts.yml"]);
    assert!(checked.contains("rules found"), "{checked}");
    let _ = run(&["test", "rules", "alerts.test.yml"]);
}
