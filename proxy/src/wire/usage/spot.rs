//! Cheap looks at raw bytes that decide whether a text is worth reading.
//!
//! A quoted name cannot occur inside a JSON string unescaped, so finding
//! `"usage"` means a member or a string value of that very text.

use std::sync::LazyLock;

use memchr::memmem::{Finder, FinderRev};

use super::super::json::Scanner;
use super::super::sse::Event;

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage"));
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"error\""));
static BASE_RESP: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"base_resp\""));
static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finish_reason\""));
static FINISH_CAMEL: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finishReason\""));

/// Whether `usage` occurs as the beginning of a quoted word at all.
pub(in super::super) fn mentions(text: &[u8]) -> bool {
    USAGE.find(text).is_some()
}

/// Whether a text has a `usage` or `usageMetadata` member that is not null.
pub(in super::super) fn reports(text: &[u8]) -> bool {
    any_value(text, &USAGE, |value| !value.starts_with(b"null"))
}

/// Whether an event says something a meter wants: usage, an error, or an end
/// that its name tells.
pub(super) fn speaks(event: &Event<'_>) -> bool {
    reports(event.data)
        || any_value(event.data, &ERROR, |value| !value.starts_with(b"null"))
        || matches!(event.name, b"error" | b"response.completed" | b"response.incomplete" | b"response.failed")
}

/// Whether a chunk carries MiniMax's own verdict.
pub(super) fn verdict(data: &[u8]) -> bool {
    BASE_RESP.find(data).is_some()
}

/// `[DONE]`, `message_stop`.
pub(super) fn end_marker(event: &Event<'_>) -> bool {
    event.data.trim_ascii() == b"[DONE]"
        || event.name == b"message_stop"
        || (event.data.len() < 64 && memchr::memmem::find(event.data, b"\"message_stop\"").is_some())
}

/// Whether a chunk gives a reason for finishing; empty is none. `camel`: as
/// Google spells it.
pub(super) fn finish_reason(data: &[u8], camel: bool) -> bool {
    let given = |value: &[u8]| value.starts_with(b"\"") && !value.starts_with(b"\"\"");
    any_value(data, if camel { &FINISH_CAMEL } else { &FINISH }, given)
}

/// The events that end a stream of Responses or pictures, told by the beginning
/// of one.
pub(super) fn oversize_end(head: &[u8]) -> bool {
    let names: [&[u8]; 5] = [
        b"response.completed",
        b"response.incomplete",
        b"response.failed",
        b"image_generation.completed",
        b"image_edit.completed",
    ];
    names.into_iter().any(|name| memchr::memmem::find(head, name).is_some())
}

/// The last object that is the value of `name` (quotes included) in a text whose
/// beginning is missing.
pub(super) fn last_object<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    last_value(text, name, |first| first == b'{')
}

/// The same of an object or a number.
pub(super) fn last_report<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    last_value(text, name, |first| first == b'{' || first.is_ascii_digit())
}

fn last_value<'a>(text: &'a [u8], name: &[u8], wanted: impl Fn(u8) -> bool) -> Option<&'a [u8]> {
    let finder = FinderRev::new(name);
    let mut before = text;
    while let Some(at) = finder.rfind(before) {
        let value = value_behind(text.get(at + name.len()..).unwrap_or_default());
        if let Some(value) = value.filter(|value| value.first().is_some_and(|first| wanted(*first)))
            && let Ok(range) = Scanner::lenient(value).skip()
        {
            return value.get(range);
        }
        before = text.get(..at).unwrap_or_default();
    }
    None
}

fn any_value(text: &[u8], finder: &Finder<'_>, wanted: impl Fn(&[u8]) -> bool) -> bool {
    let mut rest = text;
    while let Some(at) = finder.find(rest) {
        rest = rest.get(at + finder.needle().len()..).unwrap_or_default();
        // `"usage` may go on to `Metadata`.
        let named = rest.strip_prefix(b"Metadata\"").or_else(|| rest.strip_prefix(b"\""));
        let behind = if finder.needle().ends_with(b"\"") { Some(rest) } else { named };
        if behind.and_then(value_behind).is_some_and(&wanted) {
            return true;
        }
    }
    false
}

/// What follows a colon.
fn value_behind(text: &[u8]) -> Option<&[u8]> {
    Some(text.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_spotted_where_it_is_a_value() {
        for (text, want) in [
            (r#"{"usage":{"a":1}}"#, true),
            (r#"{"usage" : {"a":1}}"#, true),
            (r#"{"usageMetadata":{"a":1}}"#, true),
            (r#"{"usage":null}"#, false),
            (r#"{"usage":null,"x":{"usage":{}}}"#, true),
            (r#"{"content":"\"usage\":{\"a\":1}"}"#, false),
            (r#"["usage"]"#, false),
            ("", false),
        ] {
            assert_eq!(reports(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn finish_reasons() {
        assert!(finish_reason(br#"{"finish_reason": "stop"}"#, false));
        assert!(finish_reason(br#"{"finishReason":"STOP"}"#, true));
        assert!(!finish_reason(br#"{"finish_reason":null}"#, false));
        assert!(!finish_reason(br#"{"finish_reason":""}"#, false));
    }

    #[test]
    fn the_last_whole_object_of_a_tail() {
        let text = br#"ge":{"a":0},"usage":{"a":1}},{"usage":{"a":{"b":2}},"z":1},"usage":null,"usage":{"a":"#;
        assert_eq!(last_object(text, b"\"usage\""), Some(&br#"{"a":{"b":2}}"#[..]));
        assert_eq!(last_object(b"nothing", b"\"usage\""), None);
    }
}
