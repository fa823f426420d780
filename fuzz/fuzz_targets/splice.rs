//! A body with a member put in is JSON, and the same but for that member.

#![no_main]

use bytes::Bytes;
use clawgate_fuzz::wire::peek::{Peek, peek};
use clawgate_fuzz::wire::splice::{LimitField, Splice, apply, include_usage, model, output_limit, pieces};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const TOKENS: u64 = 4711;
const MODEL: &str = "gpt-\"4\"\\\u{1}";

fuzz_target!(|body: &[u8]| {
    let Ok(found) = peek(body) else { return };
    let Ok(before) = serde_json::from_slice::<Value>(body) else { return };
    let body = Bytes::copy_from_slice(body);

    let usage = include_usage(&found);
    let mut wanted = before.clone();
    if usage.is_some() {
        if !wanted["stream_options"].is_object() {
            wanted["stream_options"] = json!({});
        }
        wanted["stream_options"]["include_usage"] = json!(true);
    }
    check(&body, &found, usage.clone(), wanted);

    let top = [
        (LimitField::MaxTokens, "max_tokens"),
        (LimitField::MaxCompletionTokens, "max_completion_tokens"),
        (LimitField::MaxOutputTokens, "max_output_tokens"),
    ];
    for (field, name) in top {
        let limit = output_limit(&found, field, TOKENS);
        let mut wanted = before.clone();
        if limit.is_some() {
            wanted[name] = json!(TOKENS);
        }
        check(&body, &found, limit, wanted);
    }
    check_gemini(&body, &found, &before);

    let renamed = model(&found, MODEL);
    let mut wanted = before.clone();
    if renamed.is_some() {
        wanted["model"] = json!(MODEL);
    }
    check(&body, &found, renamed.clone(), wanted);

    // All at once, as a request gets them.
    let all: Vec<Splice> = usage.into_iter().chain(renamed).collect();
    let spliced = apply(&body, &all);
    assert_eq!(pieces(&body, &all).concat(), spliced);
    assert!(serde_json::from_slice::<Value>(&spliced).is_ok(), "not JSON any more");
});

/// The member may stand under either spelling of its two names.
fn check_gemini(body: &Bytes, found: &Peek, before: &Value) {
    let limit = output_limit(found, LimitField::Gemini, TOKENS);
    let changed = limit.clone().map(|limit| apply(body, &[limit]));
    let Some(changed) = changed else { return };
    let after: Value = serde_json::from_slice(&changed).expect("JSON after the splice");
    if found.repeated.is_some() {
        return;
    }
    let spellings = ["generationConfig", "generation_config"];
    let set = spellings
        .iter()
        .filter_map(|name| after.get(name))
        .any(|config| config["maxOutputTokens"] == TOKENS || config["max_output_tokens"] == TOKENS);
    assert!(set, "the limit is not there: {after}");
    let without = |value: &Value| {
        let mut value = value.clone();
        for name in spellings {
            if let Some(config) = value.get_mut(name).and_then(Value::as_object_mut) {
                config.remove("maxOutputTokens");
                config.remove("max_output_tokens");
            }
        }
        let top = value.as_object_mut().expect("an object");
        top.retain(|name, inner| !spellings.contains(&name.as_str()) || *inner != json!({}));
        value
    };
    if spellings.iter().all(|name| before.get(name).is_none_or(Value::is_object)) {
        assert_eq!(without(&after), without(before));
    }
}

fn check(body: &Bytes, found: &Peek, splice: Option<Splice>, wanted: Value) {
    let splices: Vec<Splice> = splice.into_iter().collect();
    let spliced = apply(body, &splices);
    let after: Value = serde_json::from_slice(&spliced).expect("JSON after the splice");
    // Where a name stands twice, which of the two counts is the vendor's secret.
    if found.repeated.is_none() {
        assert_eq!(after, wanted);
        // And it does not stand twice now.
        assert_eq!(peek(&spliced).expect("can be read again").repeated, None);
    }
    if splices.is_empty() {
        assert_eq!(&spliced, body);
    }
}
