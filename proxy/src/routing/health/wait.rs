//! For how long a vendor wants to be left alone. Pure.

use clawgate_shared::clock;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

const SECOND: i64 = 1_000_000;
/// When the vendor says nothing of time.
pub const USUAL: i64 = 5 * SECOND;
/// A vendor that says "now" would only be asked the same again.
pub const SHORTEST: i64 = SECOND;
/// Limits that last longer (a day's, say) are tried again so often.
pub const LONGEST: i64 = 600 * SECOND;

/// Microseconds until a limit that was met is worth another try; `now` is wall
/// time, for what the vendor gives as a date. Looks at `retry-after-ms`,
/// `retry-after`, Google's `RetryInfo`, then at the reset headers.
#[must_use]
pub fn wait(headers: &HeaderMap, error: Option<&Value>, now: i64) -> i64 {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let told = text("retry-after-ms")
        .and_then(|millis| Some(micros(number(millis)? / 1000.0)))
        .filter(|wait| *wait > 0)
        .or_else(|| text("retry-after").and_then(|value| duration(value, now)))
        .or_else(|| error.and_then(retry_info))
        .or_else(|| resets(headers, now));
    told.unwrap_or(USUAL).clamp(SHORTEST, LONGEST)
}

/// The `retryDelay` of a `google.rpc.RetryInfo`.
fn retry_info(error: &Value) -> Option<i64> {
    let details = error.get("details")?.as_array()?;
    let delay = details.iter().find_map(|detail| detail.get("retryDelay"))?.as_str()?;
    duration(delay, 0)
}

/// The reset of the limits that are used up: the last of them; when no header
/// says which they are, the first.
fn resets(headers: &HeaderMap, now: i64) -> Option<i64> {
    let (mut used_up, mut any) = (None::<i64>, None::<i64>);
    for (name, value) in headers {
        let Some(remaining) = remaining_of(name.as_str()) else { continue };
        let Some(wait) = value.to_str().ok().and_then(|text| duration(text, now)) else { continue };
        let left = headers.get(remaining).and_then(|value| value.to_str().ok()).and_then(number);
        if left.is_some_and(|left| left <= 0.0) {
            used_up = Some(used_up.map_or(wait, |other| other.max(wait)));
        }
        any = Some(any.map_or(wait, |other| other.min(wait)));
    }
    used_up.or(any)
}

/// Microseconds until a limit of requests or tokens is reset of which an answer
/// says that nothing is left: the last of them. `None`: of none, or nobody says
/// when. Looks at names alone where no limit is spoken of, and at the clock only
/// where one is used up.
#[must_use]
pub fn used_up(headers: &HeaderMap, now: impl FnOnce() -> i64) -> Option<i64> {
    let limits = headers.iter().filter_map(|(name, value)| Some((Limit::of(name.as_str())?, value)));
    let mut empty = limits.filter(|(_, left)| is_nothing(left)).map(|(limit, _)| limit).peekable();
    empty.peek()?;
    let now = now();
    let wait = empty
        // Where nothing is allowed nothing is limited: the account has no such limit.
        .filter(|limit| !limit.find(headers, "limit").is_some_and(is_nothing))
        .filter_map(|limit| duration(limit.find(headers, "reset")?.to_str().ok()?, now))
        .max()?;
    (wait > 0).then(|| wait.min(LONGEST))
}

/// A limit by the part of its headers' names that they have in common.
#[derive(Clone, Copy)]
enum Limit<'n> {
    /// `x-ratelimit-remaining-requests` and its like; OpenRouter's has no part.
    Usual(&'n str),
    /// `anthropic-ratelimit-requests-remaining`.
    Anthropic(&'n str),
}

impl<'n> Limit<'n> {
    /// The limit that a header of this name says the rest of.
    fn of(name: &'n str) -> Option<Self> {
        // Others are those of images, of sounds, or of a month.
        let counts = |part: &str| part.contains("request") || part.contains("token");
        if let Some(part) = name.strip_prefix("x-ratelimit-remaining") {
            return (part.is_empty() || counts(part)).then_some(Self::Usual(part));
        }
        let part = name.strip_prefix("anthropic-ratelimit-")?.strip_suffix("-remaining")?;
        counts(part).then_some(Self::Anthropic(part))
    }

    /// What another header says of the same limit.
    fn find<'h>(self, headers: &'h HeaderMap, what: &str) -> Option<&'h HeaderValue> {
        let same = |name: &str| match self {
            Self::Usual(part) => {
                name.strip_prefix("x-ratelimit-").and_then(|rest| rest.strip_prefix(what)) == Some(part)
            }
            Self::Anthropic(part) => {
                let rest = name.strip_prefix("anthropic-ratelimit-").and_then(|rest| rest.strip_prefix(part));
                rest.and_then(|rest| rest.strip_prefix('-')) == Some(what)
            }
        };
        headers.iter().find(|(name, _)| same(name.as_str())).map(|(_, value)| value)
    }
}

/// Zero or less.
fn is_nothing(value: &HeaderValue) -> bool {
    let may_be = matches!(value.as_bytes().first(), Some(b'0' | b'-'));
    may_be && value.to_str().ok().and_then(|text| text.trim().parse::<f64>().ok()).is_some_and(|left| left <= 0.0)
}

/// The header that says what is left of the limit whose reset `name` tells.
fn remaining_of(name: &str) -> Option<String> {
    if let Some(limit) = name.strip_prefix("x-ratelimit-reset") {
        return Some(format!("x-ratelimit-remaining{limit}"));
    }
    let limit = name.strip_prefix("anthropic-ratelimit-")?.strip_suffix("-reset")?;
    Some(format!("anthropic-ratelimit-{limit}-remaining"))
}

/// Microseconds from now: seconds, `6m0s`, unix time in seconds or
/// milliseconds, RFC 3339, or an HTTP date. What is past is 0.
fn duration(text: &str, now: i64) -> Option<i64> {
    let text = text.trim();
    let from_now = |at: i64| at.saturating_sub(now).max(0);
    if let Some(number) = number(text) {
        return Some(if number >= 1e12 {
            from_now(micros(number / 1000.0))
        } else if number >= 1e9 {
            from_now(micros(number))
        } else {
            micros(number)
        });
    }
    go_duration(text)
        .or_else(|| clock::parse_rfc3339(text).ok().map(from_now))
        .or_else(|| clock::parse_http_date(text).ok().map(from_now))
}

/// `1h2m3s`, `6m0s`, `1.5s`, `120ms`, `34s`.
fn go_duration(text: &str) -> Option<i64> {
    let (mut rest, mut sum) = (text, 0_i64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (amount, behind) = rest.split_at(digits);
        let length = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, next) = behind.split_at(length);
        let seconds = match unit {
            "d" => 86_400.0,
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum = sum.saturating_add(micros(number(amount)? * seconds));
        rest = next;
    }
    Some(sum)
}

/// Finite and not negative.
fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)
}

/// Rounded up; a float beyond `i64` becomes its largest.
fn micros(seconds: f64) -> i64 {
    (seconds * 1e6).ceil() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::HeaderName;
    use proptest::prelude::*;
    use serde_json::json;

    /// 2026-01-02T03:04:05Z
    const NOW: i64 = 1_767_323_045_000_000;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).expect("plain");
        list.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    #[test]
    fn every_vendors_words_for_a_wait() {
        let millis = 1000;
        for (list, wanted) in [
            (&[("retry-after", "7")][..], 7 * SECOND),
            (&[("retry-after", "1.5")], 1500 * millis),
            (&[("retry-after-ms", "2500"), ("retry-after", "9")], 2500 * millis),
            // Azure says both, and 0 in the finer one.
            (&[("retry-after-ms", "0"), ("retry-after", "2")], 2 * SECOND),
            (&[("retry-after", "Fri, 02 Jan 2026 03:04:35 GMT")], 30 * SECOND),
            (&[("x-ratelimit-reset-requests", "6m0s")], 360 * SECOND),
            (&[("x-ratelimit-reset-tokens", "1h2m3.5s")], LONGEST),
            (&[("x-ratelimit-reset-tokens", "4500ms")], 4500 * millis),
            // OpenRouter: unix milliseconds; others: unix seconds, or seconds.
            (&[("x-ratelimit-reset", "1767323055000")], 10 * SECOND),
            (&[("x-ratelimit-reset", "1767323065")], 20 * SECOND),
            (&[("x-ratelimit-reset", "12")], 12 * SECOND),
            (&[("anthropic-ratelimit-tokens-reset", "2026-01-02T03:04:45Z")], 40 * SECOND),
            // What is used up counts, and of that the last.
            (
                &[
                    ("x-ratelimit-remaining-requests", "99"),
                    ("x-ratelimit-reset-requests", "2s"),
                    ("x-ratelimit-remaining-tokens", "0"),
                    ("x-ratelimit-reset-tokens", "30s"),
                ],
                30 * SECOND,
            ),
            (
                &[
                    ("anthropic-ratelimit-requests-remaining", "0"),
                    ("anthropic-ratelimit-requests-reset", "2026-01-02T03:04:25Z"),
                    ("anthropic-ratelimit-tokens-remaining", "12"),
                    ("anthropic-ratelimit-tokens-reset", "2026-01-02T03:05:05Z"),
                ],
                20 * SECOND,
            ),
            // Nobody says which: the first.
            (&[("x-ratelimit-reset-requests", "20s"), ("x-ratelimit-reset-tokens", "8s")], 8 * SECOND),
            // What cannot be read, what is past, and what is beyond bounds.
            (&[("retry-after", "soon")], USUAL),
            (&[("retry-after", "-3")], USUAL),
            (&[("retry-after", "inf")], USUAL),
            (&[("retry-after", "0")], SHORTEST),
            (&[("retry-after", "Fri, 02 Jan 2026 01:00:00 GMT")], SHORTEST),
            (&[("retry-after", "86400")], LONGEST),
            (&[("retry-after", "1e300")], LONGEST),
            (&[], USUAL),
        ] {
            assert_eq!(wait(&headers(list), None, NOW), wanted, "{list:?}");
        }
    }

    #[test]
    fn a_good_answer_tells_which_limit_is_used_up() {
        for (list, wanted) in [
            (&[("content-type", "application/json"), ("retry-after", "9")][..], None),
            (&[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "6m0s")], Some(360 * SECOND)),
            (&[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "8ms")], Some(8000)),
            (&[("x-ratelimit-remaining-tokens", "-3"), ("x-ratelimit-reset-tokens", "2s")], Some(2 * SECOND)),
            (&[("x-ratelimit-remaining-tokens", "0.0"), ("x-ratelimit-reset-tokens", "2.5")], Some(2_500_000)),
            // Something is left, or nobody says until when not.
            (&[("x-ratelimit-remaining-requests", "1"), ("x-ratelimit-reset-requests", "6m0s")], None),
            (&[("x-ratelimit-remaining-requests", "0.5"), ("x-ratelimit-reset-requests", "6m0s")], None),
            (&[("x-ratelimit-remaining-requests", "0")], None),
            (&[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "soon")], None),
            (&[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-tokens", "9s")], None),
            // The reset is that of the limit which is used up; of several the last.
            (
                &[
                    ("x-ratelimit-remaining-requests", "0"),
                    ("x-ratelimit-reset-requests", "2s"),
                    ("x-ratelimit-remaining-tokens", "50"),
                    ("x-ratelimit-reset-tokens", "30s"),
                    ("x-ratelimit-remaining-project-tokens", "0"),
                    ("x-ratelimit-reset-project-tokens", "7s"),
                ],
                Some(7 * SECOND),
            ),
            (&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1767323055000")], Some(10 * SECOND)),
            (
                &[
                    ("anthropic-ratelimit-requests-remaining", "0"),
                    ("anthropic-ratelimit-requests-reset", "2026-01-02T03:04:25Z"),
                    ("anthropic-ratelimit-input-tokens-remaining", "0"),
                    ("anthropic-ratelimit-input-tokens-reset", "2026-01-02T03:04:45Z"),
                ],
                Some(40 * SECOND),
            ),
            // Past, beyond bounds, of something else, and no limit at all.
            (
                &[
                    ("anthropic-ratelimit-tokens-remaining", "0"),
                    ("anthropic-ratelimit-tokens-reset", "2026-01-02T03:00:00Z"),
                ],
                None,
            ),
            (&[("x-ratelimit-remaining-requests-day", "0"), ("x-ratelimit-reset-requests-day", "9h")], Some(LONGEST)),
            (&[("x-ratelimit-remaining-input-images", "0"), ("x-ratelimit-reset-input-images", "9s")], None),
            (
                &[
                    ("x-ratelimit-limit-tokens", "0"),
                    ("x-ratelimit-remaining-tokens", "0"),
                    ("x-ratelimit-reset-tokens", "9s"),
                ],
                None,
            ),
        ] {
            assert_eq!(used_up(&headers(list), || NOW), wanted, "{list:?}");
        }
        let plain =
            headers(&[("date", "x"), ("x-ratelimit-remaining-tokens", "5"), ("x-ratelimit-reset-tokens", "1s")]);
        assert_eq!(used_up(&plain, || panic!("the clock is not needed")), None);
    }

    #[test]
    fn googles_delay_stands_in_the_body() {
        let error = json!({"details": [{"@type": "a"}, {"@type": "google.rpc.RetryInfo", "retryDelay": "34.07s"}]});
        assert_eq!(wait(&HeaderMap::new(), Some(&error), NOW), 34_070_000);
        let odd = json!({"details": [{"retryDelay": 34}]});
        assert_eq!(wait(&HeaderMap::new(), Some(&odd), NOW), USUAL);
    }

    proptest! {
        #[test]
        fn no_text_leads_beyond_the_bounds(text in "[ -~]{0,40}", now in any::<i64>()) {
            let list = headers(&[("retry-after", &text), ("x-ratelimit-reset", &text), ("retry-after-ms", &text)]);
            prop_assert!((SHORTEST..=LONGEST).contains(&wait(&list, None, now)));
            let list = headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &text)]);
            prop_assert!(used_up(&list, || now).is_none_or(|wait| (1..=LONGEST).contains(&wait)));
        }
    }
}
