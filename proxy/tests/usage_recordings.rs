//! Every recorded answer, whole and cut in pieces, against the usage that stands
//! in its description.

#![allow(clippy::expect_used, clippy::panic, reason = "a test")]

use std::path::{Path, PathBuf};

use clawgate_proxy::wire::strip::UsageStripper;
use clawgate_proxy::wire::tokens::{Counter, Vocabulary};
use clawgate_proxy::wire::usage::{Meter, Report, read_body};
use clawgate_shared::dialect::Protocol;
use serde_json::Value;

/// Where the recordings are; `None`, said aloud, when they are not there.
fn recordings() -> Option<PathBuf> {
    #[allow(clippy::disallowed_methods, reason = "a test finds its data")]
    let given = |name| std::env::var(name).ok();
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/recordings");
    let path = given("CLAWGATE_RECORDINGS").map_or(default, PathBuf::from);
    if path.join("INDEX.tsv").is_file() {
        return Some(path);
    }
    assert!(given("CI").is_none(), "no recordings at {}", path.display());
    eprintln!("SKIPPED: no recordings at {}", path.display());
    None
}

struct Case {
    name: String,
    vendor: String,
    protocol: Protocol,
    meta: Value,
    body: Vec<u8>,
}

/// The protocol of the route that a recording was made on.
fn protocol(name: &str, endpoint: &str) -> Protocol {
    match name {
        "openai-chat" => Protocol::OpenAiChat,
        "openai-completions" => Protocol::OpenAiCompletions,
        "openai-responses" => Protocol::OpenAiResponses,
        "openai-embeddings" => Protocol::OpenAiEmbeddings,
        "anthropic-messages" => Protocol::AnthropicMessages,
        "openai-audio" => Protocol::OpenAiAudio,
        "openai-images" => Protocol::OpenAiImages,
        "anthropic-complete" => Protocol::AnthropicComplete,
        "anthropic-count" | "gemini-count" => Protocol::PromptCount,
        "gemini" => Protocol::Gemini,
        "gemini-embed" => Protocol::GeminiEmbed,
        "gemini-interactions" => Protocol::GeminiInteractions,
        "cohere-v1" | "cohere-v2" | "voyage" | "rerank-openai" if endpoint.ends_with("/rerank") => Protocol::Rerank,
        "cohere-v1" | "cohere-v2" if endpoint.ends_with("/embed") => Protocol::CohereEmbed,
        "cohere-v1" | "cohere-v2" => Protocol::Cohere,
        "voyage" => Protocol::OpenAiEmbeddings,
        "ollama-chat" | "ollama-generate" => Protocol::Ollama,
        "ollama-embed" => Protocol::OllamaEmbed,
        "dashscope" => Protocol::DashScope,
        "bedrock-converse" => Protocol::BedrockConverse,
        "bedrock-invoke" => Protocol::BedrockInvoke,
        other => panic!("a recording of an unknown protocol {other}"),
    }
}

fn cases() -> Vec<Case> {
    let Some(root) = recordings() else { return Vec::new() };
    let mut list = Vec::new();
    for vendor in std::fs::read_dir(&root).expect("readable").flatten().filter(|entry| entry.path().is_dir()) {
        for case in std::fs::read_dir(vendor.path()).expect("readable").flatten() {
            let meta: Value =
                serde_json::from_slice(&std::fs::read(case.path().join("meta.json")).expect("meta")).expect("json");
            let text = |field: &str| meta[field].as_str().unwrap_or_default();
            let protocol = protocol(text("protocol"), text("endpoint"));
            list.push(Case {
                name: meta["id"].to_string(),
                vendor: meta["vendor"].as_str().unwrap_or_default().to_owned(),
                protocol,
                body: std::fs::read(case.path().join("response.body")).expect("body"),
                meta,
            });
        }
    }
    let listed = std::fs::read_to_string(root.join("INDEX.tsv")).expect("an index").lines().skip(1).count();
    assert_eq!(list.len(), listed, "the index lists what is there");
    list
}

/// A small generator, so that a failure repeats.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (below as u64)).unwrap_or_default()
    }
}

/// The body in random pieces of at most `most` bytes.
fn pieces<'a>(body: &'a [u8], most: usize, dice: &mut Dice) -> Vec<&'a [u8]> {
    let mut list = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((1 + dice.roll(most)).min(rest.len()));
        list.push(piece);
        rest = after;
    }
    list
}

fn metered(case: &Case, pieces: &[&[u8]]) -> Report {
    let mut meter = Meter::new(case.protocol, &case.vendor);
    pieces.iter().for_each(|piece| meter.push(piece));
    meter.finish()
}

fn check(case: &Case, report: &Report) -> Vec<String> {
    let expected = &case.meta["expected"];
    let usage = &report.usage;
    let mut wrong = Vec::new();
    for (field, found) in [
        ("input_tokens", usage.input),
        ("output_tokens", usage.output),
        ("cached_input_tokens", usage.cached_input),
        ("cache_write_tokens", usage.cache_write),
        ("reasoning_tokens", usage.reasoning),
    ] {
        if expected[field] != Value::from(found) {
            wrong.push(format!("{} {field}: {found:?}, expected {}", case.name, expected[field]));
        }
    }
    if expected["model"].is_string() && expected["model"].as_str() != usage.model.as_deref() {
        wrong.push(format!("{} model: {:?}, expected {}", case.name, usage.model, expected["model"]));
    }
    if expected["has_usage"] != usage.has_counts() {
        wrong.push(format!("{} has_usage: expected {}", case.name, expected["has_usage"]));
    }
    wrong
}

#[test]
fn every_recording_is_read_as_described() {
    let cases = cases();
    let wrong: Vec<_> =
        cases.iter().flat_map(|case| check(case, &read_body(case.protocol, &case.vendor, &case.body))).collect();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn no_split_changes_a_report() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for case in cases() {
        let whole = read_body(case.protocol, &case.vendor, &case.body);
        for most in [1, 7, 100, 1500, 20_000] {
            let pieces = pieces(&case.body, most, &mut dice);
            assert_eq!(metered(&case, &pieces), whole, "{} in pieces of up to {most}", case.name);
        }
    }
}

/// The most that stands around the text of an answer, in tokens.
const FRAME: u64 = 4;

/// OpenAI's own streams: the tokens of their text, counted here, against what
/// the vendor says. Reasoning that is not shown and names of tools are not in the
/// text; several choices at once are not one text.
#[test]
fn tokens_of_recorded_streams_are_counted_as_their_vendor_does() {
    let mut counter = Counter::default();
    let mut streams = 0;
    for case in cases().iter().filter(|case| case.meta["framing"] == "sse") {
        let expected = &case.meta["expected"];
        let model = expected["model"].as_str().unwrap_or_default();
        let hidden = expected["reasoning_tokens"].as_u64().unwrap_or(0) > 0;
        let plain = !["tools", "choice"].iter().any(|word| case.name.contains(word));
        let own = matches!(case.vendor.as_str(), "openai" | "azure-openai") && model.starts_with("gpt-");
        let (Some(tokens), true) = (expected["output_tokens"].as_u64(), own) else { continue };
        let vocabulary = Vocabulary::of(case.protocol, model);
        let (Some(vocabulary), false, true) = (vocabulary, hidden || tokens == 0, plain) else { continue };
        let report = read_body(case.protocol, &case.vendor, &case.body);
        let sample = report.sample.expect("kept in this dialect");
        let counted = sample.tokens(&mut counter, vocabulary, report.text);
        // Vendors count the end of the text too, newer models what frames it.
        let framed = tokens.checked_sub(counted).is_some_and(|frame| frame <= FRAME + tokens / 10);
        assert!(framed, "{}: {counted}, the vendor says {tokens}", case.name);
        streams += 1;
    }
    assert!(streams >= 5 || recordings().is_none(), "only {streams} streams");
}

/// Answers that went wrong say so, answers that ended well are ends.
#[test]
fn ends_and_errors_are_seen() {
    let mut wrong = Vec::new();
    for case in cases() {
        let report = read_body(case.protocol, &case.vendor, &case.body);
        let text = case.name.as_str();
        if text.contains("truncated") && report.terminal && !text.contains("in-usage") {
            wrong.push(format!("{text}: cut short, yet an end"));
        }
        if (text.contains("midstream-error") || text.contains("http200-error")) && report.error.is_none() {
            wrong.push(format!("{text}: an error not seen"));
        }
        let fine = case.meta["status"] == 200 && case.meta["expected"]["has_usage"] == true;
        if fine
            && !text.contains("error")
            && !text.contains("truncated")
            && (!report.terminal || report.error.is_some())
        {
            wrong.push(format!("{text}: terminal {}, error {:?}", report.terminal, report.error));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Cuts an event stream at blank lines, the slow and obvious way.
fn events(body: &str) -> Vec<&str> {
    let mut list = Vec::new();
    let mut rest = body;
    while let Some(end) = ["\r\n\r\n", "\n\n"].iter().filter_map(|end| Some(rest.find(end)? + end.len())).min() {
        let (event, after) = rest.split_at(end);
        list.push(event);
        rest = after;
    }
    list.push(rest);
    list
}

fn is_usage_event(event: &str) -> bool {
    let data = event.lines().filter_map(|line| line.strip_prefix("data:")).collect::<Vec<_>>().join("\n");
    serde_json::from_str::<Value>(&data)
        .is_ok_and(|value| value["choices"].as_array().is_some_and(Vec::is_empty) && value["usage"].is_object())
}

#[test]
fn what_the_client_gets_is_the_recording_less_our_usage_event() {
    let mut dice = Dice(0xdead_beef_cafe_f00d);
    let mut removed = 0;
    for case in cases().iter().filter(|case| case.meta["framing"] == "sse") {
        let Ok(text) = std::str::from_utf8(&case.body) else { continue };
        let kept: String = events(text).into_iter().filter(|event| !is_usage_event(event)).collect();
        removed += usize::from(kept.len() < text.len());
        for most in [1, 13, 400, usize::MAX >> 1] {
            let mut stripper = UsageStripper::new();
            let mut out = Vec::new();
            for piece in pieces(&case.body, most, &mut dice) {
                stripper.push(bytes::Bytes::copy_from_slice(piece), &mut out);
            }
            stripper.finish(&mut out);
            assert!(out.concat() == kept.as_bytes(), "{} in pieces of up to {most}", case.name);
        }
    }
    assert!(removed > 20 || recordings().is_none(), "only {removed} streams had a usage event");
}
