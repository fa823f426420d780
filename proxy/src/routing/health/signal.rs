//! What a vendor's answer says about the key it was asked with. Pure.

use clawgate_shared::catalogue::KeyError;
use http::HeaderMap;
use serde_json::Value;

use super::wait::{LONGEST, USUAL, used_up, wait};

/// So much of an error's body is looked at.
pub const PEEK: usize = 16 << 10;

/// What an answer says about its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The vendor takes it.
    Good,
    /// The vendor takes it, and says that it will not take another request for so
    /// many microseconds.
    UsedUp(i64),
    /// Nothing: the request may be at fault, or the vendor.
    Nothing,
    /// A limit is met; worth another try after so many microseconds.
    Limited(i64),
    /// The vendor does not know it.
    Refused,
    /// Its account has no credit.
    Spent,
}

/// Whether the body of an answer with this status may say more than it.
#[must_use]
pub const fn wants_body(status: u16) -> bool {
    matches!(status, 400 | 402 | 429)
}

impl Signal {
    /// Reads an answer; `body` is what is known of it, at most [`PEEK`] bytes;
    /// `now` is wall time, asked for only where a vendor speaks of times.
    #[must_use]
    pub fn read(status: u16, headers: &HeaderMap, body: &[u8], now: impl FnOnce() -> i64) -> Self {
        let error = if wants_body(status) { error_of(body) } else { None };
        let error = error.as_ref();
        match status {
            200..=299 => used_up(headers, now).map_or(Self::Good, Self::UsedUp),
            401 => Self::Refused,
            // Google's word for a credential that it does not know.
            400 if error.is_some_and(|error| has_reason(error, "API_KEY_INVALID")) => Self::Refused,
            // This request alone asks for more than the account has: another may fit.
            402 if error.is_some_and(|error| message(error).contains("can only afford")) => Self::Nothing,
            402 => Self::Spent,
            429 => match error {
                Some(error) => limited(headers, error, now()),
                None => Self::Limited(wait(headers, None, now())),
            },
            _ => Self::Nothing,
        }
    }
}

/// An error that came with status 200: as with its own status, but nobody says for
/// how long.
impl From<KeyError> for Signal {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Limited => Self::Limited(USUAL),
            KeyError::UsedUp => Self::Limited(LONGEST),
            KeyError::Refused => Self::Refused,
            KeyError::Spent => Self::Spent,
        }
    }
}

/// A 429: the rate, the credit, or only this request's size.
fn limited(headers: &HeaderMap, error: &Value, now: i64) -> Signal {
    let word = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or("");
    for word in [word("code"), word("type")] {
        match word {
            // OpenAI, Moonshot, Zhipu.
            "insufficient_quota" | "exceeded_current_quota_error" | "1113" => return Signal::Spent,
            // Zhipu: what a day, a week or a plan allows is used up.
            "1304" | "1308" | "1309" | "1310" => return Signal::Limited(LONGEST),
            _ => {}
        }
    }
    // More than the limit in one request: whoever asks for less is served.
    if message(error).starts_with("Request too large") {
        return Signal::Nothing;
    }
    Signal::Limited(wait(headers, Some(error), now))
}

/// The error object of any dialect; Google streams wrap it in an array.
fn error_of(body: &[u8]) -> Option<Value> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let mut value = match value {
        Value::Array(list) => list.into_iter().next()?,
        other => other,
    };
    match value.get_mut("error") {
        Some(error @ Value::Object(_)) => Some(error.take()),
        _ => Some(value),
    }
}

fn message(error: &Value) -> &str {
    error.get("message").and_then(Value::as_str).unwrap_or("")
}

fn has_reason(error: &Value, wanted: &str) -> bool {
    let details = error.get("details").and_then(Value::as_array);
    details.is_some_and(|list| list.iter().any(|detail| detail.get("reason").and_then(Value::as_str) == Some(wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_say_of_a_key_what_they_say() {
        for (status, body, wanted) in [
            (200, "", Signal::Good),
            (101, "", Signal::Nothing),
            (302, "", Signal::Nothing),
            (401, "", Signal::Refused),
            (400, r#"{"error":{"details":[{"reason":"API_KEY_INVALID"}]}}"#, Signal::Refused),
            (400, r#"[{"error":{"details":[{"reason":"API_KEY_INVALID"}]}}]"#, Signal::Refused),
            // A client's own words, quoted by the vendor.
            (400, r#"{"error":{"message":"invalid value \"API_KEY_INVALID\""}}"#, Signal::Nothing),
            (400, r#"{"error":{"code":"content_policy_violation"}}"#, Signal::Nothing),
            (402, "", Signal::Spent),
            (402, r#"{"error":{"code":402,"message":"You can only afford 10"}}"#, Signal::Nothing),
            (403, "", Signal::Nothing),
            (404, "", Signal::Nothing),
            (408, "", Signal::Nothing),
            (429, "slow down", Signal::Limited(USUAL)),
            (429, r#"{"error":{"code":"rate_limit_exceeded"}}"#, Signal::Limited(USUAL)),
            (429, r#"{"error":{"type":"insufficient_quota"}}"#, Signal::Spent),
            (429, r#"{"error":{"code":"1113","message":"balance"}}"#, Signal::Spent),
            (429, r#"{"error":{"code":"1308"}}"#, Signal::Limited(LONGEST)),
            (429, r#"{"error":{"message":"Request too large for m"}}"#, Signal::Nothing),
            (429, r#"{"message":"slow","data":null}"#, Signal::Limited(USUAL)),
            (429, r#"{"error":{"details":[{"retryDelay":"7s"}]}}"#, Signal::Limited(7_000_000)),
            (500, "", Signal::Nothing),
            (503, r#"{"error":{"type":"insufficient_quota"}}"#, Signal::Nothing),
        ] {
            assert_eq!(Signal::read(status, &HeaderMap::new(), body.as_bytes(), || 0), wanted, "{status} {body}");
        }
    }
}
