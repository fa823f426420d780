//! Refusals in the caller's dialect.
//!
//! The list of codes is closed: everything a bot can be told is here, and what
//! follows from a code (status, retry advice, the dialects' own words) is
//! decided here and nowhere else.

use clawgate_shared::dialect::Dialect;
use serde_json::{Value, json};

/// Why no key could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyReason {
    /// The tenant has no key of the vendor.
    NoneConfigured,
    /// None carries the tags the bot requires.
    NoMatchingTags,
    /// The vendor refused all of them.
    AllInvalid,
    /// All wait for their limits to reset.
    AllCooling,
}

impl KeyReason {
    /// As in the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoneConfigured => "none_configured",
            Self::NoMatchingTags => "no_matching_tags",
            Self::AllInvalid => "all_invalid",
            Self::AllCooling => "all_cooling",
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident => $status:literal $text:literal,)+) => {
        /// A stable code and all that follows from it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)+
            /// No usable key; why is in the body.
            NoKeyAvailable(KeyReason),
        }

        impl Code {
            /// Every code; `NoKeyAvailable` once for each reason.
            pub const ALL: &'static [Self] = &[
                $(Self::$name,)+
                Self::NoKeyAvailable(KeyReason::NoneConfigured),
                Self::NoKeyAvailable(KeyReason::NoMatchingTags),
                Self::NoKeyAvailable(KeyReason::AllInvalid),
                Self::NoKeyAvailable(KeyReason::AllCooling),
            ];

            /// As in the contract, in metrics and in usage rows.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                    Self::NoKeyAvailable(_) => "no_key_available",
                }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)+
                    Self::NoKeyAvailable(_) => 503,
                }
            }
        }
    };
}

codes! {
    /// The request is malformed.
    BadRequest => 400 "bad_request",
    /// The route needs a model and the request names none.
    ModelMissing => 400 "model_missing",
    /// Two different bot tokens in one request.
    ConflictingCredentials => 400 "conflicting_credentials",
    /// `x-clawgate-tag` names a tag the bot may not use.
    TagNotAllowed => 400 "tag_not_allowed",
    /// No bot token.
    BotTokenMissing => 401 "bot_token_missing",
    /// No bot has this token.
    BotTokenInvalid => 401 "bot_token_invalid",
    /// The token's time is over.
    BotTokenExpired => 401 "bot_token_expired",
    /// A money quota is used up.
    BudgetExceeded => 402 "budget_exceeded",
    /// A money quota applies and the model has no price.
    ModelUnpriced => 402 "model_unpriced",
    /// The bot is stopped.
    BotDisabled => 403 "bot_disabled",
    /// The bot is suspended.
    BotSuspended => 403 "bot_suspended",
    /// The tenant is suspended.
    TenantSuspended => 403 "tenant_suspended",
    /// The bot may not use this model.
    ModelNotAllowed => 403 "model_not_allowed",
    /// The bot may not use this vendor.
    VendorNotAllowed => 403 "vendor_not_allowed",
    /// The route is not one of the vendor's inference routes.
    PathDenied => 403 "path_denied",
    /// The token may not be used from this network.
    TokenNetworkMismatch => 403 "token_network_mismatch",
    /// The vendor forbids it with every key tried.
    UpstreamForbidden => 403 "upstream_forbidden",
    /// No vendor of that name.
    VendorUnknown => 404 "vendor_unknown",
    /// Nothing is served at this path.
    RouteUnknown => 404 "route_unknown",
    /// The route does not take this method.
    MethodNotAllowed => 405 "method_not_allowed",
    /// The request did not arrive in time.
    RequestTimeout => 408 "request_timeout",
    /// The body is over the limit.
    RequestTooLarge => 413 "request_too_large",
    /// The path and query are over the limit.
    UriTooLong => 414 "uri_too_long",
    /// Requests come too fast.
    RateLimited => 429 "rate_limited",
    /// Too many requests at once.
    ConcurrencyLimited => 429 "concurrency_limited",
    /// Tokens are reserved by others or on their way.
    QuotaPending => 429 "quota_pending",
    /// A quota is used up.
    QuotaExceeded => 429 "quota_exceeded",
    /// The request's bound is more than what is left.
    QuotaReservationTooLarge => 429 "quota_reservation_too_large",
    /// The header fields are over the limit.
    HeadersTooLarge => 431 "headers_too_large",
    /// The vendor could not be reached.
    UpstreamConnect => 502 "upstream_connect",
    /// The vendor's certificate or handshake failed.
    UpstreamTls => 502 "upstream_tls",
    /// The vendor's answer is no HTTP, or broke off.
    UpstreamProtocol => 502 "upstream_protocol",
    /// This node has no configuration yet.
    NotConfigured => 503 "not_configured",
    /// This node's configuration is older than it may be.
    ConfigTooOld => 503 "config_too_old",
    /// The quota cannot be checked and must be.
    QuotaUnavailable => 503 "quota_unavailable",
    /// Usage could not be recorded, so nothing is forwarded.
    SpoolFull => 503 "spool_full",
    /// Too much is going on.
    Overloaded => 503 "overloaded",
    /// This node is going away.
    ShuttingDown => 503 "shutting_down",
    /// The vendor did not answer in time.
    UpstreamTimeout => 504 "upstream_timeout",
}

impl Code {
    /// What `x-should-retry` says; `None`: the header is left out.
    #[must_use]
    pub const fn should_retry(self) -> Option<bool> {
        match self {
            Self::RateLimited
            | Self::ConcurrencyLimited
            | Self::QuotaPending
            | Self::Overloaded
            | Self::ShuttingDown
            | Self::NoKeyAvailable(KeyReason::AllCooling) => Some(true),
            Self::BudgetExceeded
            | Self::ModelUnpriced
            | Self::QuotaExceeded
            | Self::QuotaReservationTooLarge
            | Self::NoKeyAvailable(_) => Some(false),
            _ => None,
        }
    }

    /// Seconds for `retry-after` when nothing better is known; `None`: waiting
    /// does not help.
    #[must_use]
    pub const fn retry_after(self) -> Option<u32> {
        match self {
            Self::RateLimited
            | Self::ConcurrencyLimited
            | Self::QuotaPending
            | Self::Overloaded
            | Self::ShuttingDown => Some(1),
            Self::NotConfigured | Self::QuotaUnavailable => Some(2),
            Self::SpoolFull | Self::ConfigTooOld | Self::NoKeyAvailable(KeyReason::AllCooling) => Some(5),
            _ => None,
        }
    }

    /// `error.type` for OpenAI's clients.
    #[must_use]
    pub const fn openai_type(self) -> &'static str {
        match self {
            Self::BudgetExceeded | Self::ModelUnpriced | Self::QuotaExceeded | Self::QuotaReservationTooLarge => {
                "insufficient_quota"
            }
            _ => match self.status() {
                401 => "authentication_error",
                403 => "permission_error",
                429 => "rate_limit_error",
                500.. => "server_error",
                _ => "invalid_request_error",
            },
        }
    }

    /// `error.type` for Anthropic's clients.
    #[must_use]
    pub const fn anthropic_type(self) -> &'static str {
        match self {
            Self::Overloaded | Self::ShuttingDown | Self::NoKeyAvailable(KeyReason::AllCooling) => "overloaded_error",
            Self::UpstreamTimeout => "timeout_error",
            _ => match self.status() {
                401 => "authentication_error",
                402 => "billing_error",
                403 => "permission_error",
                404 => "not_found_error",
                413 => "request_too_large",
                429 => "rate_limit_error",
                500.. => "api_error",
                _ => "invalid_request_error",
            },
        }
    }

    /// `error.status` for Google's clients.
    #[must_use]
    pub const fn gemini_status(self) -> &'static str {
        match self.status() {
            401 => "UNAUTHENTICATED",
            402 => "FAILED_PRECONDITION",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            408 | 504 => "DEADLINE_EXCEEDED",
            429 => "RESOURCE_EXHAUSTED",
            500.. => "UNAVAILABLE",
            _ => "INVALID_ARGUMENT",
        }
    }

    /// Why no key could be used, for the bodies.
    #[must_use]
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::NoKeyAvailable(reason) => Some(reason.as_str()),
            _ => None,
        }
    }
}

/// A refusal, ready to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The HTTP status.
    pub status: u16,
    /// For `content-type`.
    pub content_type: &'static str,
    /// JSON.
    pub body: Vec<u8>,
}

/// Writes a refusal in a dialect. `message` is public text that names the
/// repair.
#[must_use]
pub fn render(dialect: Dialect, code: Code, message: &str, request_id: &str) -> Rendered {
    let body = body(dialect, code, message, request_id);
    Rendered { status: code.status(), content_type: "application/json", body: body.to_string().into_bytes() }
}

/// The event that ends a stream which failed midway. Blank lines come first, so
/// that an event cut short does not swallow it; between events they mean
/// nothing.
///
/// For OpenAI's clients it is at once what `chat/completions` sends (`error`)
/// and what `responses` sends (`type`, `code`, `message`).
#[must_use]
pub fn stream_error(dialect: Dialect, code: Code, message: &str, request_id: &str) -> Vec<u8> {
    let mut body = body(dialect, code, message, request_id);
    if let (Dialect::OpenAi, Value::Object(members)) = (dialect, &mut body) {
        members.insert("type".to_owned(), "error".into());
        members.insert("code".to_owned(), code.as_str().into());
        members.insert("message".to_owned(), message.into());
        members.insert("param".to_owned(), Value::Null);
    }
    let name = if dialect == Dialect::Gemini { "" } else { "event: error\n" };
    format!("\n\n{name}data: {body}\n\n").into_bytes()
}

/// The same within a WebSocket; `None`: the dialect says it in the close frame
/// alone.
#[must_use]
pub fn session_error(dialect: Dialect, code: Code, message: &str, request_id: &str) -> Option<Vec<u8>> {
    if dialect != Dialect::OpenAi {
        return None;
    }
    let mut body = body(dialect, code, message, request_id);
    if let Value::Object(members) = &mut body {
        members.insert("type".to_owned(), "error".into());
        members.insert("event_id".to_owned(), format!("event_{request_id}").into());
    }
    Some(body.to_string().into_bytes())
}

fn body(dialect: Dialect, code: Code, message: &str, request_id: &str) -> Value {
    let mut whole = match dialect {
        Dialect::OpenAi => json!({"error": {
            "message": message,
            "type": code.openai_type(),
            "param": null,
            "code": code.as_str(),
            "request_id": request_id,
        }}),
        Dialect::Anthropic => json!({
            "type": "error",
            "error": {"type": code.anthropic_type(), "message": message, "code": code.as_str()},
            "request_id": request_id,
        }),
        Dialect::Gemini => json!({"error": {
            "code": code.status(),
            "message": message,
            "status": code.gemini_status(),
            "details": [{
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": code.as_str(),
                "domain": "clawgate",
                "metadata": {"code": code.as_str(), "request_id": request_id},
            }],
        }}),
    };
    if let Some(reason) = code.reason() {
        let place = match dialect {
            Dialect::Gemini => whole.pointer_mut("/error/details/0/metadata"),
            _ => whole.get_mut("error"),
        };
        if let Some(Value::Object(members)) = place {
            members.insert("reason".to_owned(), reason.into());
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const DIALECTS: [Dialect; 3] = [Dialect::OpenAi, Dialect::Anthropic, Dialect::Gemini];

    #[test]
    fn every_code_of_the_contract_with_its_status() {
        let table = "400 bad_request model_missing conflicting_credentials tag_not_allowed
            401 bot_token_missing bot_token_invalid bot_token_expired
            402 budget_exceeded model_unpriced
            403 bot_disabled bot_suspended tenant_suspended model_not_allowed vendor_not_allowed path_denied
            403 token_network_mismatch upstream_forbidden
            404 vendor_unknown route_unknown
            405 method_not_allowed
            408 request_timeout
            413 request_too_large
            414 uri_too_long
            431 headers_too_large
            429 rate_limited concurrency_limited quota_pending quota_exceeded quota_reservation_too_large
            502 upstream_connect upstream_tls upstream_protocol
            504 upstream_timeout
            503 no_key_available not_configured config_too_old quota_unavailable spool_full overloaded shutting_down";
        let mut wanted = HashSet::new();
        for line in table.lines() {
            let mut words = line.split_whitespace();
            let status: u16 = words.next().expect("a status").parse().expect("a number");
            wanted.extend(words.map(|code| (status, code)));
        }
        let found: HashSet<_> = Code::ALL.iter().map(|code| (code.status(), code.as_str())).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn bodies_have_the_dialects_shape() {
        for code in Code::ALL.iter().copied() {
            for dialect in DIALECTS {
                let rendered = render(dialect, code, "say \"why\"", "req_1");
                let body: Value = serde_json::from_slice(&rendered.body).expect("json");
                assert_eq!(rendered.status, code.status());
                assert_eq!(body["error"]["message"], "say \"why\"");
                let stable = match dialect {
                    Dialect::OpenAi | Dialect::Anthropic => body["error"]["code"].clone(),
                    Dialect::Gemini => {
                        assert_eq!(body["error"]["code"], code.status());
                        body["error"]["details"][0]["reason"].clone()
                    }
                };
                assert_eq!(stable, code.as_str());
                if let Some(reason) = code.reason() {
                    assert!(body.to_string().contains(&format!("\"reason\":\"{reason}\"")));
                }
            }
        }
        let body: Value =
            serde_json::from_slice(&render(Dialect::Anthropic, Code::PathDenied, "m", "r").body).expect("json");
        assert_eq!(
            body,
            json!({"type":"error","error":{"type":"permission_error","message":"m","code":"path_denied"},"request_id":"r"})
        );
    }

    #[test]
    fn retry_advice() {
        for passing in [Code::QuotaPending, Code::RateLimited, Code::ConcurrencyLimited] {
            assert_eq!(passing.should_retry(), Some(true));
        }
        assert_eq!(Code::QuotaExceeded.should_retry(), Some(false));
        assert_eq!(Code::NoKeyAvailable(KeyReason::AllInvalid).should_retry(), Some(false));
        assert_ne!(Code::NoKeyAvailable(KeyReason::AllCooling).should_retry(), Some(false));
        assert_eq!(Code::BadRequest.should_retry(), None);
        for code in Code::ALL {
            assert!(code.retry_after().is_none_or(|seconds| seconds <= 30));
            assert!(code.should_retry() != Some(false) || code.retry_after().is_none(), "{code:?}");
        }
    }

    #[test]
    fn stream_errors_are_one_whole_event() {
        for dialect in DIALECTS {
            let event = String::from_utf8(stream_error(dialect, Code::UpstreamTimeout, "m", "r")).expect("text");
            let (lines, data) = event.trim().rsplit_once("data: ").expect("data");
            assert_eq!(lines, if dialect == Dialect::Gemini { "" } else { "event: error\n" });
            assert!(event.starts_with("\n\n") && event.ends_with("}\n\n"));
            let data: Value = serde_json::from_str(data).expect("json");
            assert_eq!(data["error"]["message"], "m");
            assert_eq!(data["type"], if dialect == Dialect::Gemini { Value::Null } else { "error".into() });
        }
    }
}
