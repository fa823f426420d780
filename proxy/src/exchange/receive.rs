//! The head of a request: limits, then where it wants to go.

use std::net::IpAddr;

use clawgate_shared::catalogue::{self, UnifiedRoute};
use clawgate_shared::dialect::Dialect;
use clawgate_shared::token::masked;
use http::{HeaderMap, Method};

use super::local::Page;
use super::ports::Head;
use super::reject::Refusal;
use crate::wire::error::Code;

/// Bytes of all header names and values together.
pub const MAX_HEADER_BYTES: usize = 32 << 10;
/// Number of header lines.
pub const MAX_HEADERS: usize = 100;
/// Bytes of path and query.
pub const MAX_URI: usize = 8 << 10;

/// Query parameters that carry credentials somewhere; none is forwarded.
const CREDENTIAL_PARAMETERS: [&str; 5] = ["key", "api_key", "apikey", "access_token", "token"];

/// A request that may be looked at.
#[derive(Debug)]
pub struct Received {
    /// Any; the route decides.
    pub method: Method,
    /// As received.
    pub headers: HeaderMap,
    /// The other end of the connection, where it has an address.
    pub source: Option<IpAddr>,
    /// What its path says.
    pub wanted: Wanted,
    /// The query without credential parameters, otherwise byte for byte.
    pub query: Option<String>,
    /// The first `key=` of the query, percent-decoded.
    pub query_token: Option<String>,
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// To a vendor: `{vendor}/{rest}`, and the same behind `native/`.
    Vendor {
        /// As written.
        vendor: String,
        /// What follows it, byte for byte.
        rest: String,
    },
    /// To whichever vendor the model's name says.
    Unified(UnifiedRoute),
    /// To what this node answers itself.
    Local(Page),
}

/// What follows `/v1/` or `/api/v1/`.
fn below(path: &str) -> Option<&str> {
    path.strip_prefix("/api").unwrap_or(path).strip_prefix("/v1/")
}

/// The dialect a caller expects in a refusal, before anything is known for sure.
pub fn likely_dialect(path: &str, headers: &HeaderMap) -> Dialect {
    let below = below(path).unwrap_or("");
    if let Some(route) = UnifiedRoute::of_path(below) {
        return route.dialect();
    }
    if Page::of_path(below).is_some() {
        return if headers.contains_key("anthropic-version") { Dialect::Anthropic } else { Dialect::OpenAi };
    }
    let native = below.strip_prefix("native/").unwrap_or(below);
    let slug = native.split('/').next().unwrap_or("");
    catalogue::find(slug).map_or(Dialect::OpenAi, |vendor| vendor.dialect)
}

/// Checks limits and reads the path.
///
/// # Errors
/// Over a limit, or no such path.
pub fn receive(head: Head) -> Result<Received, Refusal> {
    let uri_len = head.uri.path().len() + head.uri.query().map_or(0, str::len);
    if uri_len > MAX_URI {
        return Err(Refusal::new(Code::UriTooLong, format!("the path and query are longer than {MAX_URI} bytes")));
    }
    let bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > MAX_HEADER_BYTES || head.headers.len() > MAX_HEADERS {
        let text = format!("the headers are more than {MAX_HEADERS} or larger than {MAX_HEADER_BYTES} bytes");
        return Err(Refusal::new(Code::HeadersTooLarge, text));
    }
    let path = head.uri.path();
    let wanted = below(path).and_then(wanted).ok_or_else(|| unknown_route(path))?;
    let (query, query_token) = split_query(head.uri.query());
    Ok(Received { wanted, query, query_token, method: head.method, headers: head.headers, source: head.source })
}

fn wanted(below: &str) -> Option<Wanted> {
    if let Some(route) = UnifiedRoute::of_path(below) {
        return Some(Wanted::Unified(route));
    }
    if let Some(page) = Page::of_path(below) {
        return Some(Wanted::Local(page));
    }
    let (vendor, rest) = below.strip_prefix("native/").unwrap_or(below).split_once('/')?;
    let plain = !vendor.is_empty() && vendor.len() <= 64;
    plain.then(|| Wanted::Vendor { vendor: vendor.to_owned(), rest: rest.to_owned() })
}

impl Received {
    /// Every value of a query parameter, decoded.
    pub fn query_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        let pairs = self.query.as_deref().unwrap_or("").split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(move |(found, _)| percent_decode(found) == name).map(|(_, value)| percent_decode(value))
    }
}

/// There is nothing at this path.
pub fn unknown_route(path: &str) -> Refusal {
    let shown: String = masked(path).chars().take(100).collect();
    Refusal::new(
        Code::RouteUnknown,
        format!(
            "there is nothing at {shown:?}; requests go to /v1/{{vendor}}/{{path}}, for example /v1/openai/chat/completions, \
             or to a unified route such as /v1/chat/completions"
        ),
    )
}

/// Takes credential parameters out; everything else keeps its bytes and order.
fn split_query(query: Option<&str>) -> (Option<String>, Option<String>) {
    let Some(query) = query else { return (None, None) };
    // Decoded: a vendor reads `%6Bey` as `key`.
    let name_of = |pair: &str| percent_decode(pair.split_once('=').map_or(pair, |(name, _)| name)).to_ascii_lowercase();
    let is_credential = |pair: &&str| CREDENTIAL_PARAMETERS.contains(&name_of(pair).as_str());
    let token = query
        .split('&')
        .find(|pair| name_of(pair) == "key")
        .and_then(|pair| pair.split_once('='))
        .map(|(_, value)| percent_decode(value));
    if !query.split('&').any(|pair| is_credential(&pair)) {
        return (Some(query.to_owned()), token);
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_credential(pair)).collect();
    ((!kept.is_empty()).then(|| kept.join("&")), token)
}

pub(super) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match escape.filter(|_| byte == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str) -> Head {
        Head { method: Method::POST, uri: uri.parse().expect("uri"), headers: HeaderMap::new(), source: None }
    }

    #[test]
    fn paths_split_byte_for_byte() {
        for (uri, vendor, rest) in [
            ("/v1/openai/chat/completions", "openai", "chat/completions"),
            ("/api/v1/openai/v1/models", "openai", "v1/models"),
            ("/v1/google/v1beta/models/m:generateContent?alt=sse", "google", "v1beta/models/m:generateContent"),
            ("/v1/custom//a//b", "custom", "/a//b"),
            ("/v1/native/openai/v1/responses", "openai", "v1/responses"),
            ("/api/v1/native/anthropic/v1/messages", "anthropic", "v1/messages"),
            ("/v1/chat/completions/", "chat", "completions/"),
        ] {
            let received = receive(head(uri)).expect(uri);
            let (vendor, rest) = (vendor.to_owned(), rest.to_owned());
            assert_eq!(received.wanted, Wanted::Vendor { vendor, rest }, "{uri}");
        }
        for uri in ["/", "/v1", "/v1/openai", "/v2/openai/x", "/v1//x", "/apiv1/openai/x", "/v1/native/openai"] {
            assert_eq!(receive(head(uri)).expect_err(uri).code, Code::RouteUnknown, "{uri}");
        }
    }

    #[test]
    fn first_segments_of_ours_are_no_vendors() {
        for (uri, wanted) in [
            ("/v1/chat/completions", Wanted::Unified(UnifiedRoute::ChatCompletions)),
            ("/api/v1/responses?x=1", Wanted::Unified(UnifiedRoute::Responses)),
            ("/v1/embeddings", Wanted::Unified(UnifiedRoute::Embeddings)),
            ("/v1/messages?beta=true", Wanted::Unified(UnifiedRoute::Messages)),
            ("/v1/messages/count_tokens", Wanted::Unified(UnifiedRoute::CountTokens)),
            ("/v1/models", Wanted::Local(Page::Models)),
            ("/v1/models/openai/gpt%2D4o", Wanted::Local(Page::Model("openai/gpt-4o".to_owned()))),
            ("/v1/key/inspect", Wanted::Local(Page::Inspect)),
            ("/api/v1/usage", Wanted::Local(Page::Usage)),
        ] {
            let reserved = uri.trim_start_matches("/api").trim_start_matches("/v1/");
            let first = reserved.split(['/', '?']).next().unwrap_or("");
            assert!(catalogue::RESERVED_SLUGS.contains(&first), "{first}");
            assert_eq!(receive(head(uri)).expect(uri).wanted, wanted, "{uri}");
        }
    }

    #[test]
    fn refusals_speak_the_dialect_that_is_likely() {
        let mut anthropic = HeaderMap::new();
        anthropic.insert("anthropic-version", http::HeaderValue::from_static("2023-06-01"));
        for (path, headers, dialect) in [
            ("/v1/messages", HeaderMap::new(), Dialect::Anthropic),
            ("/v1/chat/completions", anthropic.clone(), Dialect::OpenAi),
            ("/v1/models", HeaderMap::new(), Dialect::OpenAi),
            ("/v1/models", anthropic, Dialect::Anthropic),
            ("/v1/google/models", HeaderMap::new(), Dialect::Gemini),
            ("/v1/native/anthropic/v1/messages", HeaderMap::new(), Dialect::Anthropic),
            ("/nothing", HeaderMap::new(), Dialect::OpenAi),
        ] {
            assert_eq!(likely_dialect(path, &headers), dialect, "{path}");
        }
    }

    #[test]
    fn credential_parameters_leave_the_query() {
        for (query, kept, token) in [
            ("alt=sse", Some("alt=sse"), None),
            ("key=cgb_x&alt=sse", Some("alt=sse"), Some("cgb_x")),
            ("alt=sse&KEY=a%2Bb", Some("alt=sse"), Some("a+b")),
            ("%6Bey=cgb_x&alt=sse&access%5Ftoken=1", Some("alt=sse"), Some("cgb_x")),
            ("token=1&access_token=2&apikey=3&api_key=4&key=5", None, Some("5")),
            ("monkey=1&&x", Some("monkey=1&&x"), None),
        ] {
            let (found, found_token) = split_query(Some(query));
            assert_eq!((found.as_deref(), found_token.as_deref()), (kept, token), "{query}");
        }
    }

    #[test]
    fn limits_are_kept() {
        let long = format!("/v1/openai/{}", "a".repeat(MAX_URI));
        assert_eq!(receive(head(&long)).expect_err("long").code, Code::UriTooLong);
        let mut big = head("/v1/openai/x");
        big.headers.insert("x-big", http::HeaderValue::from_bytes(&[b'a'; MAX_HEADER_BYTES]).expect("value"));
        assert_eq!(receive(big).expect_err("big").code, Code::HeadersTooLarge);
    }
}
