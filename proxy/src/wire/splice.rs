//! Changing a body by replacing ranges of it; every other byte stays the
//! client's.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::peek::{Limit, Peek, Slot, StreamOptions};

/// One replacement; an empty range is an insertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// What goes away.
    pub range: Range<usize>,
    /// What comes in its place.
    pub with: Cow<'static, [u8]>,
}

/// The body with the splices done, as slices of it and of the insertions:
/// nothing is copied. Splices may come in any order; one that overlaps its
/// predecessor or lies outside the body is not done.
#[must_use]
pub fn pieces(body: &Bytes, splices: &[Splice]) -> Vec<Bytes> {
    let mut ordered: Vec<&Splice> = splices.iter().collect();
    ordered.sort_by_key(|splice| (splice.range.start, splice.range.end));
    let mut list = Vec::with_capacity(2 * ordered.len() + 1);
    let mut at = 0;
    for Splice { range, with } in ordered {
        if range.start < at || range.end < range.start || range.end > body.len() {
            continue;
        }
        list.push(body.slice(at..range.start));
        list.push(match with {
            Cow::Borrowed(text) => Bytes::from_static(text),
            Cow::Owned(text) => Bytes::copy_from_slice(text),
        });
        at = range.end;
    }
    list.push(body.slice(at..));
    list.retain(|piece| !piece.is_empty());
    list
}

/// The body with the splices done, in one piece. Without splices it is the
/// body itself, not a copy.
#[must_use]
pub fn apply(body: &Bytes, splices: &[Splice]) -> Bytes {
    if splices.is_empty() {
        return body.clone();
    }
    let pieces = pieces(body, splices);
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
    whole.freeze()
}

/// What makes the vendor report usage in the stream; `None` when the client
/// asked already, or `stream_options` is nothing a vendor accepts.
#[must_use]
pub fn include_usage(peek: &Peek) -> Option<Splice> {
    match &peek.stream_options {
        StreamOptions::Absent => Some(member(peek.root, r#""stream_options":{"include_usage":true}"#.to_owned())),
        StreamOptions::Null(range) => {
            Some(Splice { range: range.clone(), with: Cow::Borrowed(br#"{"include_usage":true}"#) })
        }
        StreamOptions::Object { slot, include_usage: None } => {
            Some(member(*slot, r#""include_usage":true"#.to_owned()))
        }
        StreamOptions::Object { include_usage: Some((Some(true), _)), .. } | StreamOptions::Other => None,
        StreamOptions::Object { include_usage: Some((_, range)), .. } => {
            Some(Splice { range: range.clone(), with: Cow::Borrowed(b"true") })
        }
    }
}

/// Which member limits the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitField {
    /// `max_tokens`
    MaxTokens,
    /// `max_completion_tokens`
    MaxCompletionTokens,
    /// `max_output_tokens`
    MaxOutputTokens,
    /// `generationConfig.maxOutputTokens`
    Gemini,
}

/// What sets an output limit the client left open. A null the client wrote is
/// replaced, so that no name stands twice. `None` when the client has a limit.
#[must_use]
pub fn output_limit(peek: &Peek, field: LimitField, tokens: u64) -> Option<Splice> {
    let limits = &peek.limits;
    let heeded = match field {
        LimitField::MaxTokens | LimitField::MaxCompletionTokens => [&limits.max_tokens, &limits.max_completion_tokens],
        LimitField::MaxOutputTokens => [&limits.max_output_tokens; 2],
        LimitField::Gemini => [&limits.gemini; 2],
    };
    if heeded.into_iter().flatten().any(|limit| limit.tokens.is_some()) {
        return None;
    }
    let (given, name) = match field {
        LimitField::MaxTokens => (&peek.limits.max_tokens, "max_tokens"),
        LimitField::MaxCompletionTokens => (&peek.limits.max_completion_tokens, "max_completion_tokens"),
        LimitField::MaxOutputTokens => (&peek.limits.max_output_tokens, "max_output_tokens"),
        LimitField::Gemini => (&peek.limits.gemini, "maxOutputTokens"),
    };
    if let Some(Limit { range, .. }) = given {
        return Some(Splice { range: range.clone(), with: Cow::Owned(tokens.to_string().into_bytes()) });
    }
    Some(match (field, peek.generation_config, &peek.no_config) {
        (LimitField::Gemini, Some(slot), _) => member(slot, format!(r#""{name}":{tokens}"#)),
        // A second one might not be the one that counts.
        (LimitField::Gemini, None, Some(range)) => {
            let with = Cow::Owned(format!(r#"{{"{name}":{tokens}}}"#).into_bytes());
            Splice { range: range.clone(), with }
        }
        (LimitField::Gemini, None, None) => member(peek.root, format!(r#""generationConfig":{{"{name}":{tokens}}}"#)),
        _ => member(peek.root, format!(r#""{name}":{tokens}"#)),
    })
}

/// What takes the vendor off a qualified model name (`openai/gpt-4o`).
#[must_use]
pub fn model(peek: &Peek, name: &str) -> Option<Splice> {
    let range = peek.model.as_ref()?.range.clone();
    Some(Splice { range, with: Cow::Owned(serde_json::Value::from(name).to_string().into_bytes()) })
}

/// A member put behind the opening brace.
fn member(slot: Slot, mut text: String) -> Splice {
    if !slot.empty {
        text.push(',');
    }
    Splice { range: slot.at..slot.at, with: Cow::Owned(text.into_bytes()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::peek::peek;
    use super::*;

    fn asked(body: &str) -> String {
        let found = peek(body.as_bytes()).expect("json");
        let splices: Vec<_> = include_usage(&found).into_iter().collect();
        let done = apply(&Bytes::copy_from_slice(body.as_bytes()), &splices);
        String::from_utf8(done.to_vec()).expect("text")
    }

    #[test]
    fn every_shape_of_stream_options() {
        for (body, want) in [
            (r#"{ "a":1}"#, r#"{"stream_options":{"include_usage":true}, "a":1}"#),
            (r"{}", r#"{"stream_options":{"include_usage":true}}"#),
            (r#"{"stream_options": null ,"a":1}"#, r#"{"stream_options": {"include_usage":true} ,"a":1}"#),
            (r#"{"stream_options":{ }}"#, r#"{"stream_options":{"include_usage":true }}"#),
            (r#"{"stream_options":{"x":[1]}}"#, r#"{"stream_options":{"include_usage":true,"x":[1]}}"#),
            (r#"{"stream_options":{"include_usage": false}}"#, r#"{"stream_options":{"include_usage": true}}"#),
            (
                r#"{"stream_options":{"include_usage":null,"x":1}}"#,
                r#"{"stream_options":{"include_usage":true,"x":1}}"#,
            ),
            (r#"{"stream_options":{"include_usage":true}}"#, r#"{"stream_options":{"include_usage":true}}"#),
            (r#"{"stream_options":7}"#, r#"{"stream_options":7}"#),
            (
                r#"{"stream_options":{"include_usage":true},"stream_options":{}}"#,
                r#"{"stream_options":{"include_usage":true},"stream_options":{"include_usage":true}}"#,
            ),
            (
                r#"{"m":{"stream_options":{}},"t":"\"stream_options\":{}"}"#,
                r#"{"stream_options":{"include_usage":true},"m":{"stream_options":{}},"t":"\"stream_options\":{}"}"#,
            ),
        ] {
            assert_eq!(asked(body), want, "{body}");
        }
    }

    #[test]
    fn a_limit_is_set_where_there_is_none() {
        let limited = |body: &str, field| {
            let found = peek(body.as_bytes()).expect("json");
            let splices: Vec<_> = output_limit(&found, field, 9).into_iter().collect();
            String::from_utf8(apply(&Bytes::copy_from_slice(body.as_bytes()), &splices).to_vec()).expect("text")
        };
        for (body, field, want) in [
            (r#"{"a":1}"#, LimitField::MaxTokens, r#"{"max_tokens":9,"a":1}"#),
            (r#"{"max_tokens":null}"#, LimitField::MaxTokens, r#"{"max_tokens":9}"#),
            (r#"{"max_tokens":5}"#, LimitField::MaxCompletionTokens, r#"{"max_tokens":5}"#),
            (r#"{"a":1}"#, LimitField::Gemini, r#"{"generationConfig":{"maxOutputTokens":9},"a":1}"#),
            (
                r#"{"generationConfig":null,"a":1}"#,
                LimitField::Gemini,
                r#"{"generationConfig":{"maxOutputTokens":9},"a":1}"#,
            ),
            (
                r#"{"a":1,"generation_config":"low"}"#,
                LimitField::Gemini,
                r#"{"a":1,"generation_config":{"maxOutputTokens":9}}"#,
            ),
            (r#"{"generationConfig":{}}"#, LimitField::Gemini, r#"{"generationConfig":{"maxOutputTokens":9}}"#),
            (
                r#"{"generationConfig":{"topP":1}}"#,
                LimitField::Gemini,
                r#"{"generationConfig":{"maxOutputTokens":9,"topP":1}}"#,
            ),
        ] {
            assert_eq!(limited(body, field), want, "{body}");
        }
    }

    #[test]
    fn a_model_is_renamed_in_place() {
        let body = Bytes::from_static(br#"{"model" : "openai/gpt-4o","x":"openai/gpt-4o"}"#);
        let found = peek(&body).expect("json");
        let done = apply(&body, &[model(&found, "gpt-4o").expect("a model")]);
        assert_eq!(done, &br#"{"model" : "gpt-4o","x":"openai/gpt-4o"}"#[..]);
    }

    #[test]
    fn splices_that_do_not_fit_are_not_done() {
        let body = Bytes::from_static(b"0123456789");
        let at = |range: Range<usize>| Splice { range, with: Cow::Borrowed(b"x") };
        assert_eq!(apply(&body, &[at(8..9), at(2..4), at(3..5), at(9..11)]), &b"01x4567x9"[..]);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("stream_options|include_usage|model|[a-z]{1,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn only_include_usage_changes(
            members in prop::collection::hash_map("stream_options|include_usage|[a-z]{1,4}", any_json(), 0..5),
            options in prop::option::of(prop::collection::hash_map("include_usage|[a-z]{1,4}", any_json(), 0..3)),
            pretty in any::<bool>(),
        ) {
            let mut before = Value::Object(members.into_iter().collect());
            if let Some(options) = options {
                before["stream_options"] = Value::Object(options.into_iter().collect());
            }
            let text = if pretty { serde_json::to_string_pretty(&before) } else { serde_json::to_string(&before) }.expect("json");
            let done = asked(&text);
            let after: Value = serde_json::from_str(&done).expect("still json");
            match before.get("stream_options") {
                Some(options) if !options.is_object() && !options.is_null() => prop_assert_eq!(&done, &text),
                _ => {
                    prop_assert_eq!(&after["stream_options"]["include_usage"], &Value::Bool(true));
                    let mut wanted = before.clone();
                    if !wanted["stream_options"].is_object() {
                        wanted["stream_options"] = Value::Object(serde_json::Map::new());
                    }
                    wanted["stream_options"]["include_usage"] = Value::Bool(true);
                    prop_assert_eq!(&after, &wanted);
                }
            }
        }

        #[test]
        fn other_bytes_stay(body in prop::collection::vec(any::<u8>(), 0..64), from in 0_usize..64, len in 0_usize..64) {
            let body = Bytes::from(body);
            let range = from.min(body.len())..(from + len).min(body.len());
            let done = apply(&body, &[Splice { range: range.clone(), with: Cow::Borrowed(b"new") }]);
            prop_assert_eq!(&done[..range.start], &body[..range.start]);
            prop_assert_eq!(&done[range.start + 3..], &body[range.end..]);
        }
    }
}
