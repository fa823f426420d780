//! Errors in each vendor's shape. The 401 quotes the credential, as some
//! vendors do: a gateway must not pass it on.

use serde_json::json;

use super::Dialect;
use crate::answer::{Answer, Bill};

/// The answer to a body that is not a request.
pub(super) fn bad_request(dialect: Dialect, cause: &str) -> Answer {
    shaped(dialect, 400, None, &format!("the request body could not be read: {cause}"))
}

/// An error that a knob asked for.
pub(super) fn answer(dialect: Dialect, status: u16, code: Option<&str>, credential: &str) -> Answer {
    let message = match status {
        401 | 403 => format!("Incorrect API key provided: {credential}. This key was refused by the mock vendor."),
        429 => "Rate limit reached at the mock vendor.".to_owned(),
        _ => format!("The mock vendor was told to answer {status}."),
    };
    shaped(dialect, status, code, &message)
}

/// An error body of the dialect.
pub(super) fn shaped(dialect: Dialect, status: u16, code: Option<&str>, message: &str) -> Answer {
    let body = match dialect {
        Dialect::OpenAi => {
            let (kind, usual) = match status {
                400 | 422 => ("invalid_request_error", None),
                401 => ("invalid_request_error", Some("invalid_api_key")),
                402 => ("insufficient_quota", Some("insufficient_quota")),
                404 => ("invalid_request_error", Some("model_not_found")),
                429 => ("requests", Some("rate_limit_exceeded")),
                _ => ("server_error", None),
            };
            let kind = if code == Some("insufficient_quota") { "insufficient_quota" } else { kind };
            json!({"error": {"message": message, "type": kind, "param": null, "code": code.or(usual)}})
        }
        Dialect::Anthropic => {
            let kind = match status {
                401 => "authentication_error",
                402 => "billing_error",
                403 => "permission_error",
                404 => "not_found_error",
                413 => "request_too_large",
                429 => "rate_limit_error",
                529 => "overloaded_error",
                400..=499 => "invalid_request_error",
                _ => "api_error",
            };
            let error = json!({"type": code.unwrap_or(kind), "message": message});
            json!({"type": "error", "error": error, "request_id": "req_mock"})
        }
        Dialect::Gemini => {
            let name = match status {
                400 | 422 => "INVALID_ARGUMENT",
                401 => "UNAUTHENTICATED",
                403 => "PERMISSION_DENIED",
                404 => "NOT_FOUND",
                429 => "RESOURCE_EXHAUSTED",
                503 => "UNAVAILABLE",
                _ => "INTERNAL",
            };
            let details: Vec<_> = code
                .map(|reason| {
                    json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"})
                })
                .into_iter()
                .collect();
            json!({"error": {"code": status, "message": message, "status": name, "details": details}})
        }
        Dialect::Mistral if status == 401 => json!({"detail": message}),
        Dialect::Mistral => {
            let kind = if status == 429 { "rate_limited" } else { "invalid_request_error" };
            json!({"object": "error", "message": message, "type": kind, "param": null, "code": code})
        }
        Dialect::Ollama => json!({"error": message}),
        Dialect::Cohere => json!({"id": "00000000-0000-4000-8000-000000000000", "message": message}),
    };
    Answer::json(status, &body, Bill::default())
}
