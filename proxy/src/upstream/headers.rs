//! Which headers cross the gateway, in both directions. Pure.
//!
//! Requests: a deny list (credentials, hop-by-hop, our own and other gateways'
//! control headers) and everything else passes, because SDKs rely on headers
//! nobody can list. Responses: the vendor's view of *our* account is removed.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::routing::{Credential, Key, Probe};
use clawgate_shared::catalogue::Vendor;
use smallvec::SmallVec;

/// Where a vendor's own request id is shown.
const UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-upstream-request-id");

/// Where it stands in the vendor's answer.
static REQUEST_IDS: [HeaderName; 2] = [HeaderName::from_static("x-request-id"), HeaderName::from_static("request-id")];

/// How OpenAI's SDK for browsers hands a key over, in lower case.
const KEY_SUBPROTOCOL: &[u8] = b"openai-insecure-api-key.";

/// Turns the bot's headers into the vendor's: strips, then adds exactly one
/// credential, the host and the vendor's default headers.
pub fn for_vendor(headers: &mut HeaderMap, vendor: &Vendor, key: &Key, host: &HeaderValue, body_len: Option<usize>) {
    strip(headers, denied_request);
    strip_key_subprotocols(headers);
    headers.insert(header::HOST, host.clone());
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(len) = body_len {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    }
    present(headers, &vendor.default_headers, key);
}

/// The headers of a probe: nobody's but ours.
pub fn for_probe(probe: &Probe, key: &Key, host: &HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, host.clone());
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    present(&mut headers, &probe.headers, key);
    headers
}

/// The one credential, and what the vendor demands beside it.
fn present(headers: &mut HeaderMap, defaults: &[(&'static str, &'static str)], key: &Key) {
    for (name, value) in defaults {
        headers.entry(*name).or_insert(HeaderValue::from_static(value));
    }
    if let Some(organization) = &key.organization {
        headers.insert(HeaderName::from_static("openai-organization"), organization.clone());
    }
    if let Credential::Header(name, value) = &key.credential {
        headers.insert(name.clone(), value.clone());
    }
}

/// Turns the vendor's headers into the bot's.
pub fn for_bot(headers: &mut HeaderMap) {
    let id = headers.remove(&REQUEST_IDS[0]).or_else(|| headers.remove(&REQUEST_IDS[1]));
    strip(headers, denied_response);
    if let Some(id) = id {
        headers.insert(UPSTREAM_REQUEST_ID, id);
    }
}

/// Removes what `denied` names and what a `Connection` header nominates.
fn strip(headers: &mut HeaderMap, denied: fn(&str) -> bool) {
    let mut gone: SmallVec<[HeaderName; 8]> = headers.keys().filter(|name| denied(name.as_str())).cloned().collect();
    for value in headers.get_all(header::CONNECTION) {
        let nominated = value.to_str().unwrap_or("").split(',').map(str::trim);
        gone.extend(nominated.filter_map(|name| HeaderName::try_from(name).ok()));
    }
    for name in gone {
        headers.remove(name);
    }
}

/// Takes entries that carry a key out of the WebSocket subprotocols, also where
/// no WebSocket is asked for.
fn strip_key_subprotocols(headers: &mut HeaderMap) {
    let carries = |value: &HeaderValue| {
        value.as_bytes().to_ascii_lowercase().windows(KEY_SUBPROTOCOL.len()).any(|part| part == KEY_SUBPROTOCOL)
    };
    if !headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().any(carries) {
        return;
    }
    let header::Entry::Occupied(entry) = headers.entry(header::SEC_WEBSOCKET_PROTOCOL) else { return };
    let (_, values) = entry.remove_entry_mult();
    let entries: Vec<String> = values
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .flat_map(|value| value.split(',').map(|entry| entry.trim().to_owned()).collect::<Vec<_>>())
        .filter(|entry| !entry.to_ascii_lowercase().as_bytes().starts_with(KEY_SUBPROTOCOL) && !entry.is_empty())
        .collect();
    if let Some(kept) = HeaderValue::from_str(&entries.join(", ")).ok().filter(|value| !value.is_empty()) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, kept);
    }
}

fn hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Underscores count as hyphens: some vendors' servers read them so.
fn denied_request(name: &str) -> bool {
    if name.contains('_') { denied_plain(&name.replace('_', "-")) } else { denied_plain(name) }
}

fn denied_plain(name: &str) -> bool {
    hop_by_hop(name)
        || matches!(
            name,
            "host"
                | "content-length"
                | "accept-encoding"
                | "expect"
                | "authorization"
                | "proxy-authorization"
                | "x-authorization"
                | "x-auth-token"
                | "x-access-token"
                | "x-api-token"
                | "x-goog-iam-authorization-token"
                | "x-api-key"
                | "api-key"
                | "x-goog-api-key"
                | "x-goog-user-project"
                | "ocp-apim-subscription-key"
                | "cookie"
                | "cookie2"
                | "openai-organization"
                | "openai-project"
                | "anthropic-workspace-id"
                | "forwarded"
                | "x-real-ip"
                | "via"
        )
        || ["x-amz-", "x-forwarded-", "x-clawgate-", "x-clawrouter-", "x-portkey-", "x-litellm-"]
            .iter()
            .any(|p| name.starts_with(p))
}

fn denied_response(name: &str) -> bool {
    hop_by_hop(name)
        || matches!(
            name,
            "set-cookie"
                | "set-cookie2"
                | "www-authenticate"
                | "proxy-authentication-info"
                | "authentication-info"
                | "reporting-endpoints"
                | "x-powered-by"
                | "openai-organization"
                | "openai-project"
                | "anthropic-organization-id"
                | "cf-ray"
                | "cf-cache-status"
                | "server"
                | "via"
                | "alt-svc"
                | "strict-transport-security"
                | "nel"
                | "report-to"
        )
        || ["x-ratelimit-", "x-rate-limit-", "ratelimit", "anthropic-ratelimit-", "x-clawgate-"]
            .iter()
            .any(|p| name.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clawgate_shared::catalogue::{self, AuthForm};

    fn key(form: &AuthForm) -> Key {
        Key { credential: Credential::new(form, b"sk-real").expect("plain"), ..Key::sample("key_1", &[]) }
    }

    #[test]
    fn every_credential_carrier_goes_and_one_credential_comes() {
        let carriers = [
            "authorization",
            "proxy-authorization",
            "x-api-key",
            "api-key",
            "x-goog-api-key",
            "x-goog-user-project",
            "ocp-apim-subscription-key",
            "cookie",
            "openai-organization",
            "openai-project",
            "anthropic-workspace-id",
            "x-amz-security-token",
            "x-forwarded-for",
            "x-clawgate-tag",
            "x-clawrouter-parent-agent-id",
            "x-portkey-custom-host",
            "x-litellm-api-key",
        ];
        for (vendor, form, name, value) in [
            ("openai", AuthForm::Bearer, "authorization", "Bearer sk-real"),
            ("anthropic", AuthForm::XApiKey, "x-api-key", "sk-real"),
            ("google", AuthForm::XGoogApiKey, "x-goog-api-key", "sk-real"),
        ] {
            let mut headers = HeaderMap::new();
            for carrier in carriers {
                headers.append(HeaderName::from_static(carrier), HeaderValue::from_static("cgb_canary"));
            }
            headers.insert("anthropic-beta", HeaderValue::from_static("x"));
            let vendor = catalogue::find(vendor).expect("built in");
            for_vendor(&mut headers, vendor, &key(&form), &HeaderValue::from_static("h"), Some(3));
            assert!(headers.iter().all(|(_, v)| v != "cgb_canary"), "{headers:?}");
            let sent: Vec<_> = headers.iter().filter(|(_, v)| v.as_bytes().ends_with(b"sk-real")).collect();
            assert_eq!(sent.len(), 1);
            assert_eq!(headers.get(name).map(HeaderValue::as_bytes), Some(value.as_bytes()));
            assert_eq!(headers.get("anthropic-beta").map(HeaderValue::as_bytes), Some(b"x".as_slice()));
            assert_eq!(headers.get("accept-encoding").map(HeaderValue::as_bytes), Some(b"identity".as_slice()));
        }
    }

    #[test]
    fn a_connection_header_cannot_take_our_credential_away() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("close, authorization, x-secret-hop"));
        headers.insert("x-secret-hop", HeaderValue::from_static("1"));
        let vendor = catalogue::find("openai").expect("built in");
        for_vendor(&mut headers, vendor, &key(&AuthForm::Bearer), &HeaderValue::from_static("h"), None);
        assert!(headers.get("x-secret-hop").is_none());
        assert!(headers.get("authorization").is_some());
    }

    #[test]
    fn the_vendors_view_of_our_account_is_removed() {
        let mut headers = HeaderMap::new();
        for name in ["set-cookie", "openai-organization", "x-ratelimit-limit-tokens", "server", "x-clawgate-key"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("leak"));
        }
        headers.insert("x-request-id", HeaderValue::from_static("up-1"));
        headers.insert("openai-processing-ms", HeaderValue::from_static("12"));
        for_bot(&mut headers);
        assert!(headers.iter().all(|(_, v)| v != "leak"), "{headers:?}");
        assert_eq!(headers.get("x-upstream-request-id").map(HeaderValue::as_bytes), Some(b"up-1".as_slice()));
        assert!(headers.get("x-request-id").is_none());
        assert!(headers.get("openai-processing-ms").is_some());
    }
}
