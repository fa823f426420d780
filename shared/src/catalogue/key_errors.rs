//! What vendors' codes of errors say of the key, where an answer with status 200
//! holds them: the same as the status that such an error has elsewhere.

use super::Vendor;

/// What an error says of the key that a request was sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// A rate is met, as with 429.
    Limited,
    /// What a day or a plan allows is used up.
    UsedUp,
    /// The vendor does not know it, as with 401.
    Refused,
    /// Its account has no credit, as with 402.
    Spent,
}

use KeyError::{Limited, Refused, Spent, UsedUp};

/// Words that mean one thing whoever says them, and statuses as codes.
const COMMON: &[(&str, KeyError)] = &[
    ("rate_limit_exceeded", Limited),
    ("insufficient_quota", Spent),
    ("invalid_api_key", Refused),
    // Anthropic.
    ("rate_limit_error", Limited),
    ("authentication_error", Refused),
    // Google.
    ("RESOURCE_EXHAUSTED", Limited),
    ("UNAUTHENTICATED", Refused),
    // Moonshot.
    ("rate_limit_reached_error", Limited),
    ("exceeded_current_quota_error", Spent),
    // DashScope's own API, in an event of a stream.
    ("Throttling", Limited),
    ("Throttling.RateQuota", Limited),
    ("Throttling.BurstRate", Limited),
    ("Throttling.AllocationQuota", Limited),
    ("InvalidApiKey", Refused),
    ("Arrearage", Spent),
    // Hunyuan's own API, in `Response.Error`.
    ("LimitExceeded", Limited),
    ("RequestLimitExceeded", Limited),
    ("AuthFailure.InvalidSecretId", Refused),
    ("AuthFailure.SecretIdNotFound", Refused),
    ("FailedOperation.ResourcePackExhausted", Spent),
    ("FailedOperation.FreeResourcePackExhausted", Spent),
    ("FailedOperation.ServiceStopArrears", Spent),
    ("401", Refused),
    ("402", Spent),
    ("429", Limited),
];

/// MiniMax, in `base_resp`.
pub(super) const MINIMAX: &[(&str, KeyError)] =
    &[("1002", Limited), ("1039", Limited), ("2056", UsedUp), ("1004", Refused), ("2049", Refused), ("1008", Spent)];

/// Zhipu's business codes.
pub(super) const ZHIPU: &[(&str, KeyError)] = &[
    ("1302", Limited),
    ("1303", Limited),
    ("1305", Limited),
    ("1304", UsedUp),
    ("1308", UsedUp),
    ("1309", UsedUp),
    ("1310", UsedUp),
    ("1113", Spent),
];

impl Vendor {
    /// What an error of this vendor says of the key; `None`: nothing.
    #[must_use]
    pub fn key_error(&self, code: &str) -> Option<KeyError> {
        let known = self.key_errors.iter().chain(COMMON).find(|(word, _)| *word == code);
        known.map(|(_, error)| *error)
    }
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;

    #[test]
    fn codes_are_their_vendors_own() {
        for (vendor, code, wanted) in [
            ("minimax", "1002", Some(Limited)),
            ("minimax", "1008", Some(Spent)),
            ("minimax", "1027", None),
            ("zhipu", "1002", None),
            ("zhipu", "1308", Some(UsedUp)),
            ("dashscope", "Throttling.RateQuota", Some(Limited)),
            ("custom", "AuthFailure.SecretIdNotFound", Some(Refused)),
            ("openai", "1008", None),
            ("openai", "insufficient_quota", Some(Spent)),
            ("anthropic", "overloaded_error", None),
            ("openrouter", "429", Some(Limited)),
            ("openrouter", "502", None),
            ("openrouter", "403", None),
        ] {
            assert_eq!(find(vendor).and_then(|known| known.key_error(code)), wanted, "{vendor} {code}");
        }
    }
}
