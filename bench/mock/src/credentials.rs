//! Finding credentials in a request, wherever a client or a gateway put them.

use std::borrow::Cow;

use crate::http::Head;
use crate::ledger::{Credential, sha256_hex};

/// Headers whose value is a credential.
const HEADERS: [&str; 10] = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "cookie",
    "ocp-apim-subscription-key",
    "x-auth-token",
    "x-amz-security-token",
    "sec-websocket-protocol",
];
/// Query parameters whose value is a credential.
const PARAMETERS: [&str; 4] = ["key", "api_key", "apikey", "access_token"];

/// A request target taken apart, nothing decoded.
pub(crate) struct Target<'a> {
    pub(crate) path: &'a str,
    query: &'a str,
}

impl<'a> Target<'a> {
    /// Splits at the first `?`; an absolute form loses scheme and host.
    pub(crate) fn parse(target: &'a str) -> Self {
        let (full, query) = target.split_once('?').unwrap_or((target, ""));
        let path = match full.split_once("://") {
            Some((scheme, rest)) if !scheme.contains('/') => {
                rest.find('/').map_or("/", |at| rest.get(at..).unwrap_or("/"))
            }
            _ => full,
        };
        Self { path, query }
    }

    /// Names and values as sent.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// The query as received, with the values of credential parameters
    /// replaced by their hash.
    pub(crate) fn query_without_credentials(&self) -> String {
        let pairs: Vec<Cow<'_, str>> = self
            .query
            .split('&')
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) if is_parameter(name) => {
                    format!("{name}=sha256:{}", sha256_hex(decode(value).as_bytes())).into()
                }
                _ => pair.into(),
            })
            .collect();
        pairs.join("&")
    }
}

fn is_parameter(name: &str) -> bool {
    PARAMETERS.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether the value of this header must not be written down.
pub(crate) fn is_credential_header(name: &str) -> bool {
    HEADERS.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The credential without its scheme word.
fn bare(value: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(value);
    let scheme = text.split_once(' ').map(|(scheme, _)| scheme.len());
    match scheme {
        Some(length) if matches!(text.get(..length), Some("Bearer" | "bearer" | "Basic" | "basic")) => {
            Cow::Owned(text.get(length..).unwrap_or_default().trim().to_owned())
        }
        _ => text,
    }
}

/// Every credential with the place it arrived in.
pub(crate) fn find(head: &Head<'_>, target: &Target<'_>) -> Vec<Credential> {
    let headers = head.headers.iter().filter(|header| is_credential_header(header.name)).map(|header| Credential {
        carrier: format!("header:{}", header.name.to_ascii_lowercase()),
        sha256: sha256_hex(bare(header.value).as_bytes()),
    });
    let parameters = target.parameters().filter(|(name, _)| is_parameter(name)).map(|(name, value)| Credential {
        carrier: format!("query:{name}"),
        sha256: sha256_hex(decode(value).as_bytes()),
    });
    headers.chain(parameters).collect()
}

/// The first credential in clear, for a vendor rude enough to quote it.
pub(crate) fn first(head: &Head<'_>, target: &Target<'_>) -> String {
    let header = head.headers.iter().find(|header| is_credential_header(header.name));
    header.map(|header| bare(header.value).into_owned()).unwrap_or_else(|| {
        target
            .parameters()
            .find(|(name, _)| is_parameter(name))
            .map(|(_, value)| decode(value).into_owned())
            .unwrap_or_default()
    })
}

/// Percent-decoding; what is not an escape stays.
pub(crate) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let escaped = escaped.filter(|_| *byte == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok());
        bytes.push(escaped.unwrap_or(if *byte == b'+' { b' ' } else { *byte }));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_everywhere_and_never_written() {
        let headers = [
            httparse::Header { name: "Authorization", value: b"Bearer sk-1" },
            httparse::Header { name: "X-Api-Key", value: b"sk-2" },
        ];
        let head = Head { method: "GET", target: "", headers: &headers };
        let target = Target::parse("/v1/models?key=a%2Bb&alt=sse");
        let found = find(&head, &target);
        let expected = [("header:authorization", "sk-1"), ("header:x-api-key", "sk-2"), ("query:key", "a+b")];
        for (credential, (carrier, clear)) in found.iter().zip(expected) {
            assert_eq!((credential.carrier.as_str(), &credential.sha256), (carrier, &sha256_hex(clear.as_bytes())));
        }
        assert_eq!(found.len(), 3);
        assert_eq!(target.query_without_credentials(), format!("key=sha256:{}&alt=sse", sha256_hex(b"a+b")));
        assert_eq!(first(&head, &target), "sk-1");
    }

    #[test]
    fn decoding_leaves_broken_escapes() {
        assert_eq!(decode("a%20b+c%zz%4"), "a b c%zz%4");
    }

    #[test]
    fn absolute_targets_lose_their_host() {
        assert_eq!(Target::parse("http://h:1/v1/x?y").path, "/v1/x");
        assert_eq!(Target::parse("/v1/a://b").path, "/v1/a://b");
    }
}
