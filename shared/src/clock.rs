//! The only place that reads a wall clock or names an instant.
//!
//! Wall time is unix microseconds as `i64` everywhere (database, wire, spool);
//! durations on the hot path come from `Instant`.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix microseconds now. A clock before 1970 reads as 0.
#[must_use]
#[allow(clippy::disallowed_methods)] // this is the place that may
pub fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_micros()).ok()).unwrap_or(0)
}

/// Microseconds since the machine started, time asleep included: no setting of
/// the wall clock moves it. 0 where the system does not tell.
#[must_use]
pub fn boot_micros() -> i64 {
    use nix::time::{ClockId, clock_gettime};
    let Ok(time) = clock_gettime(ClockId::CLOCK_BOOTTIME) else { return 0 };
    time.tv_sec().saturating_mul(1_000_000).saturating_add(time.tv_nsec() / 1000)
}

/// RFC 3339 in UTC with microseconds, for REST answers.
#[must_use]
pub fn rfc3339(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_| String::new(), |t| format!("{t:.6}"))
}

/// Unix microseconds of an RFC 3339 text.
///
/// # Errors
/// The text is not an RFC 3339 timestamp.
pub fn parse_rfc3339(text: &str) -> Result<i64, jiff::Error> {
    text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_microsecond)
}

/// Unix microseconds of an HTTP date (`Sun, 06 Nov 1994 08:49:37 GMT`).
///
/// # Errors
/// The text is no such date.
pub fn parse_http_date(text: &str) -> Result<i64, jiff::Error> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).map(jiff::Timestamp::as_microsecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_round_trips() {
        let text = rfc3339(1_700_000_000_123_456);
        assert_eq!(text, "2023-11-14T22:13:20.123456Z");
        assert_eq!(parse_rfc3339(&text).ok(), Some(1_700_000_000_123_456));
        assert!(parse_rfc3339("yesterday").is_err());
        assert_eq!(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").ok(), Some(784_111_777_000_000));
        assert!(parse_http_date("120").is_err());
    }
}
