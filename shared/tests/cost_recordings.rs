//! What every recorded exchange costs, against a second computation in another
//! language (`tests/oracle/cost.py`), to the micro-dollar.

#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "a test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use clawgate_shared::pricing::{Book, Entry, ServiceTier, Spent, candidates, cost, litellm};
use clawgate_shared::usage::Usage;
use serde_json::Value;

/// Recordings whose vendor bills something that usage in its normal form does
/// not tell; each with what it is. Their cost by the normal form is the lower
/// one of the oracle's two.
const TOLD_BY_THE_VENDOR_ONLY: &[(&str, &str)] = &[
    (
        "anthropic/messages-json-reasoning-cachewrite-claude-sonnet-4-6-2",
        "1425 tokens were written to the cache for an hour, at 6 instead of 3.75 per million",
    ),
    (
        "anthropic/messages-json-tools-cachewrite-claude-sonnet-4-6",
        "1931 of 2338 tokens were written to the cache for an hour",
    ),
    ("openai/chat-json-gpt-4o-audio-preview-2025-06-03", "2 of 21 prompt tokens are audio, at 40 instead of 2.5"),
    (
        "openai/chat-json-gpt-4o-mini-audio-preview-2024-12-17",
        "12 of 18 generated tokens are audio, at 20 instead of 0.6",
    ),
];

/// Where something is; `None`, said aloud, when it is not there.
fn place(variable: &str, default: &str, file: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join(default);
    let path = std::env::var_os(variable).map_or(default, PathBuf::from);
    if path.join(file).is_file() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "no {file} at {}", path.display());
    eprintln!("SKIPPED: no {file} at {}", path.display());
    None
}

/// Id -> the oracle's two costs; none when there is no Python.
fn oracle(prices: &Path, recordings: &Path) -> Option<BTreeMap<String, [Option<i64>; 2]>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle/cost.py");
    let output = Command::new("python3").arg(script).arg(prices).arg(recordings).output();
    let Ok(output) = output else {
        assert!(std::env::var_os("CI").is_none(), "no python3");
        eprintln!("SKIPPED: no python3");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let line = |line: &str| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [id, _vendor, _name, usual, told] = columns[..] else { panic!("{line}") };
        (id.to_owned(), [usual.parse().ok(), told.parse().ok()])
    };
    Some(text.lines().map(line).collect())
}

fn book(file: &Path) -> Book {
    let prices = litellm::parse(&std::fs::read(file).expect("readable")).expect("a price file");
    let mut book = Book::default();
    for listed in prices.models {
        let price = listed.price.into();
        book.add(listed.vendor, &listed.model, Entry { from: 0, until: 1, reference: "".into(), price });
    }
    book
}

struct Case {
    id: String,
    vendor: String,
    model: String,
    usual: Spent,
    told: Spent,
}

fn case(meta: &Value) -> Option<Case> {
    let expected = &meta["expected"];
    let count = |name: &str| expected[name].as_u64();
    let usage = Usage {
        input: count("input_tokens"),
        cached_input: count("cached_input_tokens"),
        cache_write: count("cache_write_tokens"),
        output: count("output_tokens"),
        reasoning: count("reasoning_tokens"),
        ..Usage::default()
    };
    let usual = Spent::of(&usage)?;
    let (vendor, raw) = (meta["vendor"].as_str()?, &meta["raw_usage"]);
    let mut told = usual;
    told.cache_write_1h = raw["cache_creation"]["ephemeral_1h_input_tokens"].as_u64().unwrap_or(0);
    if vendor != "mistral" {
        told.input_audio = raw["prompt_tokens_details"]["audio_tokens"].as_u64().unwrap_or(0);
        told.output_audio = raw["completion_tokens_details"]["audio_tokens"].as_u64().unwrap_or(0);
    }
    let model = expected["model"].as_str().or_else(|| meta["request"]["model"].as_str()).unwrap_or_default();
    Some(Case { id: meta["id"].as_str()?.to_owned(), vendor: vendor.to_owned(), model: model.to_owned(), usual, told })
}

fn cases(recordings: &Path) -> Vec<Case> {
    let index = std::fs::read_to_string(recordings.join("INDEX.tsv")).expect("an index");
    let ids = index.lines().skip(1).filter_map(|line| line.split('\t').next());
    ids.filter_map(|id| {
        let meta = std::fs::read(recordings.join(id).join("meta.json")).expect("a description");
        case(&serde_json::from_slice(&meta).expect("JSON"))
    })
    .collect()
}

#[test]
fn every_recording_costs_what_the_oracle_says() {
    let Some(prices) = place("CLAWGATE_PRICES", "../../shared/prices", "model_prices.json") else { return };
    let Some(recordings) = place("CLAWGATE_RECORDINGS", "../../shared/recordings", "INDEX.tsv") else { return };
    let file = prices.join("model_prices.json");
    let Some(mut oracle) = oracle(&file, &recordings) else { return };
    let book = book(&file);
    let (mut wrong, mut compared, mut special) = (Vec::new(), 0, Vec::new());
    for case in cases(&recordings) {
        let names = candidates(&case.vendor, &case.model);
        let found = book
            .find(&case.vendor, &names, 0)
            .map(|entry| [case.usual, case.told].map(|spent| cost(&spent, &entry.price, ServiceTier::Standard)));
        let wanted = oracle.remove(&case.id);
        if found != wanted {
            wrong.push(format!("{} {}: {found:?}, the oracle says {wanted:?}", case.id, case.model));
        }
        if let Some([usual, told]) = found {
            compared += usize::from(usual.is_some());
            if usual != told {
                assert!(usual < told, "{}", case.id);
                special.push(case.id);
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(oracle.is_empty(), "only the oracle knows {oracle:?}");
    assert!(compared > 240, "only {compared} recordings have a price");
    let explained: Vec<&str> = TOLD_BY_THE_VENDOR_ONLY.iter().map(|(id, _)| *id).collect();
    assert_eq!(special, explained, "differences between both costs are explained one by one");
}
