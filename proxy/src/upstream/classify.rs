//! What an attempt's result means for the exchange. Pure.

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

/// Classifies a vendor's status, as its signal has it
/// ([`Signal::counts_as`](crate::routing::Signal::counts_as)). What it means for
/// the key is not decided here.
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
    }
}
