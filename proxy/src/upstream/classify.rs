//! What an attempt's result means for the exchange. Pure.

use crate::routing::Signal;

/// What to do with an answer's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The bot gets it, whatever it is.
    Relay,
    /// Another key may do better; if there is none, the bot gets this answer.
    Failover(&'static str),
    /// Another key may do better; if there is none, the bot gets a refusal of
    /// ours, because the body may quote the key.
    FailoverHidden(&'static str),
    /// One other key is tried, then the bot gets `upstream_forbidden`.
    Forbidden,
}

/// Classifies an answer by its status and by what it says of its key. What that
/// means for the key is not decided here.
#[must_use]
pub const fn answer(code: u16, signal: Signal) -> Verdict {
    match (signal, code) {
        // Google's way to refuse a key does not quote it, nor does who says 200 to
        // it: the last one is relayed.
        (Signal::Refused, 200 | 400) => Verdict::Failover("unauthorized"),
        (Signal::Limited(_), 200) => Verdict::Failover("rate_limited"),
        (Signal::Spent, _) => Verdict::Failover("exhausted"),
        _ => status(code),
    }
}

/// Classifies a vendor's status alone.
#[must_use]
pub const fn status(status: u16) -> Verdict {
    match status {
        401 => Verdict::FailoverHidden("unauthorized"),
        402 => Verdict::Failover("exhausted"),
        403 => Verdict::Forbidden,
        408 => Verdict::Failover("request_timeout"),
        429 => Verdict::Failover("rate_limited"),
        500..=599 => Verdict::Failover("server_error"),
        _ => Verdict::Relay,
    }
}

/// Most attempts of one exchange besides those that ended in 429.
pub const MAX_ATTEMPTS: usize = 5;
/// Most attempts that ended in a server error or without an answer.
pub const MAX_FAILURES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_their_verdicts() {
        for (code, verdict) in [
            (200, Verdict::Relay),
            (400, Verdict::Relay),
            (404, Verdict::Relay),
            (422, Verdict::Relay),
            (401, Verdict::FailoverHidden("unauthorized")),
            (403, Verdict::Forbidden),
            (429, Verdict::Failover("rate_limited")),
            (503, Verdict::Failover("server_error")),
            (529, Verdict::Failover("server_error")),
        ] {
            assert_eq!(status(code), verdict, "{code}");
        }
        assert_eq!(answer(400, Signal::Refused), Verdict::Failover("unauthorized"));
        assert_eq!(answer(200, Signal::Refused), Verdict::Failover("unauthorized"));
        assert_eq!(answer(200, Signal::Limited(1)), Verdict::Failover("rate_limited"));
        assert_eq!(answer(200, Signal::UsedUp(1)), Verdict::Relay);
        assert_eq!(answer(401, Signal::Refused), Verdict::FailoverHidden("unauthorized"));
        assert_eq!(answer(429, Signal::Spent), Verdict::Failover("exhausted"));
        assert_eq!(answer(400, Signal::Nothing), Verdict::Relay);
    }
}
