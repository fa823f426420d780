//! `Prefer: wait=N` and what a write answers about its way to the nodes.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderName, HeaderValue};

use super::problem::Problem;
use crate::fleet::RolloutCounts;

/// How long a write waits unless told otherwise.
const DEFAULT_WAIT: Duration = Duration::from_secs(2);
/// The longest wait that may be asked for.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// What the client prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefer {
    /// Zero: do not wait.
    pub wait: Duration,
    /// Whether `respond-async` was asked for and is what we do.
    pub respond_async: bool,
}

impl Prefer {
    /// Reads every `Prefer` header (RFC 7240); unknown preferences are ignored,
    /// as the RFC wants.
    fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut prefer = Self { wait: DEFAULT_WAIT, respond_async: false };
        for part in values.flat_map(|value| value.split([',', ';'])) {
            let part = part.trim();
            if part.eq_ignore_ascii_case("respond-async") {
                prefer.respond_async = true;
            } else if let Some((name, secs)) = part.split_once('=')
                && name.trim().eq_ignore_ascii_case("wait")
                && let Ok(secs) = secs.trim().trim_matches('"').parse::<u32>()
            {
                prefer.wait = Duration::from_secs(secs.into()).min(MAX_WAIT);
            }
        }
        if prefer.respond_async {
            prefer.wait = Duration::ZERO;
        }
        prefer
    }

    /// Puts the outcome on the answer.
    pub fn announce(self, response: &mut Response, counts: RolloutCounts) {
        if let Ok(value) = HeaderValue::from_str(&counts.to_string()) {
            response.headers_mut().insert(HeaderName::from_static("x-clawgate-rollout"), value);
        }
        let applied = if self.respond_async {
            Some("respond-async")
        } else if counts.complete() {
            Some("wait")
        } else {
            None
        };
        if let Some(applied) = applied {
            response
                .headers_mut()
                .insert(HeaderName::from_static("preference-applied"), HeaderValue::from_static(applied));
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Prefer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Ok(Self::parse(parts.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_read_as_the_rfc_says() {
        for (values, wait, respond_async) in [
            (vec![], 2, false),
            (vec!["wait=10"], 10, false),
            (vec!["wait=99"], 30, false),
            (vec!["wait=0"], 0, false),
            (vec!["return=minimal, wait=\"5\""], 5, false),
            (vec!["Respond-Async"], 0, true),
            (vec!["respond-async", "wait=10"], 0, true),
            (vec!["wait=soon"], 2, false),
        ] {
            let prefer = Prefer::parse(values.iter().copied());
            assert_eq!((prefer.wait.as_secs(), prefer.respond_async), (wait, respond_async), "{values:?}");
        }
    }

    #[test]
    fn wait_is_applied_only_when_every_node_has_it() {
        let prefer = Prefer { wait: DEFAULT_WAIT, respond_async: false };
        for (counts, applied) in [
            (RolloutCounts { acked: 2, ..RolloutCounts::default() }, true),
            (RolloutCounts { acked: 2, pending: 1, ..RolloutCounts::default() }, false),
            (RolloutCounts { nacked: 1, ..RolloutCounts::default() }, false),
            (RolloutCounts { disconnected: 1, ..RolloutCounts::default() }, false),
        ] {
            let mut response = Response::default();
            prefer.announce(&mut response, counts);
            assert_eq!(response.headers().contains_key("preference-applied"), applied, "{counts:?}");
        }
    }
}
