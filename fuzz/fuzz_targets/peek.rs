//! A request body: what is read from it is what a JSON parser reads from it.

#![no_main]

use clawgate_fuzz::wire::peek::{PeekError, StreamOptions, peek};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    let valid = std::str::from_utf8(body).is_ok() && serde_json::from_slice::<IgnoredAny>(body).is_ok();
    let object = body.trim_ascii_start().first() == Some(&b'{');
    let found = match peek(body) {
        Ok(found) => found,
        Err(PeekError::NotJson(at)) => {
            assert!(at <= body.len());
            // Surrogates without their partner pass where a value is skipped.
            assert!(!valid || body.windows(2).any(|pair| pair == b"\\u"), "valid JSON was refused at {at}");
            return;
        }
        Err(PeekError::NotObject) => {
            assert!(valid && !object);
            return;
        }
        Err(PeekError::TooDeep(at)) => {
            assert!(at <= body.len());
            let opened = body.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
            assert!(opened > 100, "only {opened} brackets");
            return;
        }
        Err(PeekError::ModelTooLong) => {
            assert!(valid && body.len() > 512);
            return;
        }
    };
    assert!(valid && object, "what is no JSON object was accepted");
    if let Some(model) = &found.model {
        let token: String = serde_json::from_slice(&body[model.range.clone()]).expect("a string token");
        assert_eq!(token, model.name);
    }
    // The last of several members of one name counts, as in this parser.
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return };
    assert_eq!(found.model.as_ref().map(|model| model.name.as_str()), value["model"].as_str());
    assert_eq!(found.stream, value["stream"].as_bool());
    assert_eq!(found.stream_options.asks(), value["stream_options"]["include_usage"] == true);
    assert_eq!(found.background, value["background"] == true);
    let absent = value.get("stream_options").is_none();
    assert_eq!(found.stream_options == StreamOptions::Absent, absent);
    let limits = [
        (&found.limits.max_tokens, "max_tokens"),
        (&found.limits.max_completion_tokens, "max_completion_tokens"),
        (&found.limits.max_output_tokens, "max_output_tokens"),
    ];
    for (limit, name) in limits {
        assert_eq!(limit.is_some(), value.get(name).is_some(), "{name}");
        if let (Some(limit), Some(tokens)) = (limit, value[name].as_u64()) {
            assert_eq!(limit.tokens, Some(tokens), "{name}");
            assert_eq!(body[limit.range.clone()], *tokens.to_string().as_bytes());
        }
    }
    assert_eq!(found.root.empty, value.as_object().is_some_and(serde_json::Map::is_empty));
    assert_eq!(body.get(found.root.at - 1), Some(&b'{'));
});
