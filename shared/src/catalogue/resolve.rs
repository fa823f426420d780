//! From a path to a route: the one place that decides what reaches a vendor.
//!
//! Invariant: the upstream path is `base path + "/" + the client's bytes`, and
//! no reading of those bytes (decoded once or twice, dot segments collapsed,
//! path parameters cut) leads out of the base.

use std::borrow::Cow;

use super::routes::{Match, matches};
use super::{Account, Root, RootTarget, Route, RouteClass, Vendor};
use crate::dialect::{Dialect, Protocol};
use crate::origin::BaseUrl;

/// Segments a path may have; more is refused as unsafe.
const MAX_SEGMENTS: usize = 64;

/// A path that may be called.
#[derive(Clone, Debug)]
pub struct Resolved<'a> {
    /// The root that matched; `None`: the base URL itself.
    pub root: Option<&'a Root>,
    /// What was matched.
    pub route: &'a Route,
    /// The model the path names (`models/{m}:generateContent`,
    /// `deployments/{m}/…`), decoded.
    pub model: Option<String>,
    /// The vendor's own dialect; see [`Self::dialect`].
    vendor_dialect: Dialect,
    /// Slashes the client wrote before the path.
    lead: &'a str,
    /// The client's bytes below the root.
    remaining: &'a str,
}

/// Why a path is not called. None carries the path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Nothing follows the vendor.
    #[error("the path names no route")]
    Empty,
    /// Dot segments, encoded separators, control characters, double encoding.
    #[error("the path holds a dot segment or an encoding that could stand for one")]
    Unsafe,
    /// On no list: `path_denied`.
    #[error("the route is not one of the vendor's inference routes")]
    NotListed,
    /// Listed as never forwarded: `path_denied`.
    #[error("the route administers the vendor account and is never forwarded")]
    Forbidden,
    /// The route exists, the method does not.
    #[error("the route does not take this method")]
    Method {
        /// For the `allow` header.
        allowed: Vec<&'static str>,
    },
}

impl Resolved<'_> {
    /// The path to send upstream, without the query: the base's path, then the
    /// client's bytes as they came.
    #[must_use]
    pub fn upstream_path(&self, base: &BaseUrl) -> String {
        let mut path = String::with_capacity(base.path.len() + 1 + self.lead.len() + self.remaining.len());
        path.push_str(&base.path);
        path.push('/');
        path.push_str(self.lead);
        path.push_str(self.remaining);
        path
    }

    /// The route as usage rows name it: the path below the root, with the
    /// slashes the client wrote in front of it left out.
    #[must_use]
    pub const fn endpoint(&self) -> &str {
        self.remaining
    }

    /// What a request with this method does to things that stay in the vendor
    /// account; `None`: nothing that the route tells.
    #[must_use]
    pub fn account(&self, method: &str) -> Option<Account> {
        let RouteClass::AccountResource(touch) = self.route.class else { return None };
        // They were safe when the route was found.
        let segments = safe_segments(self.remaining).unwrap_or_default();
        Some(touch.of(method, &segments))
    }

    /// `rest`, from which this was resolved, with another model in the path.
    /// `None`: the path names none.
    #[must_use]
    pub fn with_model(&self, rest: &str, model: &str) -> Option<String> {
        let mut parts = self.route.pattern.split('/').filter(|part| !part.is_empty()).enumerate();
        let (at, verb) = parts.find_map(|(at, part)| Some((at, part.strip_prefix("{m}")?)))?;
        // What is left below the root ends `rest`.
        let mut start = rest.len().checked_sub(self.remaining.len())?;
        let mut segments = self.remaining.split('/').filter_map(|segment| {
            let place = start..start + segment.len();
            start = place.end + 1;
            (!segment.is_empty()).then_some(place)
        });
        let old = segments.nth(at)?;
        let mut path = rest.get(..old.start)?.to_owned();
        for byte in model.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte) {
                path.push(char::from(byte));
            } else {
                path.push_str(&format!("%{byte:02X}"));
            }
        }
        path.push_str(verb);
        path.push_str(rest.get(old.end..)?);
        Some(path)
    }

    /// Whether the path itself asks for a stream
    /// (`models/{m}:streamGenerateContent`, `model/{m}/converse-stream`).
    #[must_use]
    pub fn streams_by_path(&self) -> bool {
        [":streamGenerateContent", "/converse-stream", "/invoke-with-response-stream"]
            .iter()
            .any(|end| self.route.pattern.ends_with(end))
    }

    /// Whose error shape a caller of this route expects.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self.route.protocol {
            Protocol::AnthropicMessages | Protocol::AnthropicComplete => Dialect::Anthropic,
            Protocol::PromptCount if self.route.pattern.starts_with("messages/") => Dialect::Anthropic,
            Protocol::Gemini | Protocol::GeminiEmbed | Protocol::GeminiInteractions | Protocol::GeminiLive => {
                Dialect::Gemini
            }
            Protocol::OpenAiChat
            | Protocol::OpenAiCompletions
            | Protocol::OpenAiResponses
            | Protocol::OpenAiRealtime
            | Protocol::OpenAiEmbeddings
            | Protocol::OpenAiAudio
            | Protocol::OpenAiImages => Dialect::OpenAi,
            _ => self.vendor_dialect,
        }
    }
}

/// Finds the route for what follows `/v1/{vendor}/`: `rest` as the client wrote
/// it, without the query; `method` in upper case.
///
/// # Errors
/// See [`ResolveError`].
pub fn resolve<'a>(vendor: &'a Vendor, method: &str, rest: &'a str) -> Result<Resolved<'a>, ResolveError> {
    let all = safe_segments(rest)?;
    if all.is_empty() {
        return Err(ResolveError::Empty);
    }
    let below = rest.trim_start_matches('/');
    let (lead, _) = rest.split_at(rest.len() - below.len());
    let (root, remaining) = match longest_root(vendor, below) {
        Some((root, remaining)) => (Some(root), remaining),
        None => (None, below),
    };
    let segments = if root.is_some() { safe_segments(remaining)? } else { all };
    let (route, model) = pick(vendor, method, &segments)?;
    let model = model.map(str::to_owned);
    Ok(Resolved { root, route, model, vendor_dialect: vendor.dialect, lead, remaining })
}

/// The base URL for a request with a key: the key's own, else the vendor's,
/// moved to the root's path. `None` when neither has one, or the vendor's does
/// not parse.
///
/// A key's base URL stands for the vendor's documented one. For a root with a
/// path of its own the documented ending (`/v1`) is taken off first, so a key
/// at `http://host/prefix/v1` serves `http://host/prefix/v1alpha`.
#[must_use]
pub fn base_for_key(vendor: &Vendor, key_base_url: Option<&BaseUrl>, root: Option<&Root>) -> Option<BaseUrl> {
    let own = vendor.base_url.as_deref().and_then(|url| BaseUrl::parse(url).ok());
    let mut base = match (key_base_url, &own) {
        (Some(url), _) => url.clone(),
        (None, Some(url)) => url.clone(),
        (None, None) => return None,
    };
    if let Some(RootTarget::Path(path)) = root.map(|root| &root.target) {
        let documented = own.as_ref().map(|url| url.path.as_str());
        let others = vendor.roots.iter().filter_map(|root| match &root.target {
            RootTarget::Path(path) => Some(path.as_ref()),
            RootTarget::Base => None,
        });
        let kept = documented
            .into_iter()
            .chain(others)
            .filter(|suffix| suffix.starts_with('/'))
            .filter_map(|suffix| base.path.strip_suffix(suffix))
            .min_by_key(|kept| kept.len())
            .unwrap_or(&base.path);
        base.path = format!("{kept}{path}");
    }
    Some(base)
}

/// The root with the longest prefix of a path, and what follows it.
pub(super) fn longest_root<'a>(vendor: &'a Vendor, below: &'a str) -> Option<(&'a Root, &'a str)> {
    vendor
        .roots
        .iter()
        .filter_map(|root| {
            let after = below.strip_prefix(root.prefix.as_ref())?.strip_prefix('/')?;
            // A root with nothing below may be a route (`GET models`).
            after.bytes().any(|byte| byte != b'/').then_some((root, after))
        })
        .max_by_key(|(root, _)| root.prefix.len())
}

/// First the prohibitions, then the first pattern that takes the method.
fn pick<'a, 's>(
    vendor: &'a Vendor,
    method: &str,
    segments: &'s [Cow<'_, str>],
) -> Result<(&'a Route, Option<&'s str>), ResolveError> {
    let takes = |route: &Route| route.methods.is_empty() || route.methods.contains(&method);
    let (mut found, mut others) = (None, Vec::new());
    for route in vendor.routes.iter() {
        let Match::Yes(model) = matches(&route.pattern, segments) else { continue };
        if route.class == RouteClass::Forbidden {
            return Err(ResolveError::Forbidden);
        }
        if takes(route) {
            found = found.or(Some((route, model)));
        } else {
            others.push(route);
        }
    }
    found.ok_or_else(|| {
        let allowed: Vec<_> = others.iter().flat_map(|route| route.methods.iter().copied()).collect();
        if allowed.is_empty() { ResolveError::NotListed } else { ResolveError::Method { allowed } }
    })
}

/// The decoded, non-empty segments of a path, once it is sure that no segment
/// can be read as a way up or out.
fn safe_segments(path: &str) -> Result<Vec<Cow<'_, str>>, ResolveError> {
    let mut segments = Vec::with_capacity(8);
    for raw in path.split('/') {
        if raw.is_empty() {
            continue;
        }
        let decoded = decode(raw).ok_or(ResolveError::Unsafe)?;
        if !is_plain(raw, true) || !is_plain(&decoded, true) || is_dots(&decoded) || segments.len() == MAX_SEGMENTS {
            return Err(ResolveError::Unsafe);
        }
        if decoded.contains('%') {
            // What a second decoder would make of it must be harmless too; a
            // lone percent sign that is no escape is.
            let mut twice = decoded.clone().into_owned();
            for _ in 0..3 {
                twice = decode_lossy(&twice);
                if !is_plain(&twice, false) || is_dots(&twice) {
                    return Err(ResolveError::Unsafe);
                }
            }
        }
        segments.push(decoded);
    }
    Ok(segments)
}

/// No separator, no control character, nothing that ends a path. A segment
/// decoded several times may hold `#`, `?` and spaces: they end nothing there.
fn is_plain(segment: &str, strict: bool) -> bool {
    segment.bytes().all(|byte| match byte {
        b'/' | b'\\' | 0..0x20 | 0x7f => false,
        b'?' | b'#' => !strict,
        _ => true,
    })
}

/// `.` or `..`, with or without path parameters behind (`..;x`) or blanks
/// around, which some servers drop.
fn is_dots(segment: &str) -> bool {
    let name = segment.split(';').next().unwrap_or_default().trim();
    !name.is_empty() && name.bytes().all(|byte| byte == b'.')
}

/// Percent-decodes strictly: a malformed escape or bytes that are no UTF-8
/// (overlong dots among them) give `None`.
fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            bytes.push(escape(after)?);
            rest = after.get(2..)?;
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn decode_lossy(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        match escape(after).filter(|_| byte == b'%') {
            Some(decoded) => {
                bytes.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn escape(after: &[u8]) -> Option<u8> {
    let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests;
