//! Scheme, host and port: what a provider key is bound to, and what may be
//! connected to.

use std::fmt;

/// `scheme://host:port`, the port always written. Host in lower case; an IPv6
/// literal keeps its brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// TLS or not.
    pub tls: bool,
    /// Name or literal address.
    pub host: String,
    /// 1–65535.
    pub port: u16,
}

/// A base URL: an origin and a path prefix without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// Where requests go.
    pub origin: Origin,
    /// Empty, or starts with `/`; never ends with one.
    pub path: String,
}

/// Why a base URL is refused. The text names the rule, not the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// Neither `http://` nor `https://`.
    #[error("must start with https:// or http://")]
    Scheme,
    /// `user:password@`.
    #[error("must not contain user information")]
    UserInfo,
    /// Empty or with characters no host name has.
    #[error("has no valid host")]
    Host,
    /// Not 1–65535.
    #[error("has no valid port")]
    Port,
    /// `?` or `#`.
    #[error("must not contain a query or a fragment")]
    Query,
    /// Control characters, spaces, backslashes, dot segments.
    #[error("has a path that is not plain")]
    Path,
    /// Over 2,048 bytes.
    #[error("is longer than 2,048 bytes")]
    Length,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", if self.tls { "https" } else { "http" }, self.host, self.port)
    }
}

impl Origin {
    /// The address that the host is without any resolver.
    #[must_use]
    pub fn literal(&self) -> Option<std::net::IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// `host` or `host:port` as a `Host` header wants it: the scheme's default
    /// port is left out.
    #[must_use]
    pub fn authority(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        if self.port == default { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.origin.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.origin.authority(), self.path)
    }
}

impl BaseUrl {
    /// Parses strictly: what a lenient parser would mend is refused, so that
    /// the checks and the connection speak of the same host.
    ///
    /// # Errors
    /// See [`BaseUrlError`].
    pub fn parse(text: &str) -> Result<Self, BaseUrlError> {
        if text.len() > 2048 {
            return Err(BaseUrlError::Length);
        }
        let (tls, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (true, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (false, rest)
        } else {
            return Err(BaseUrlError::Scheme);
        };
        if rest.contains(['?', '#']) {
            return Err(BaseUrlError::Query);
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains('@') {
            return Err(BaseUrlError::UserInfo);
        }
        let (host, port) = split_authority(authority, if tls { 443 } else { 80 })?;
        let path = path.trim_end_matches('/');
        let plain = path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'%')
            && !path.split('/').any(|segment| segment == "." || segment == "..");
        if !plain {
            return Err(BaseUrlError::Path);
        }
        Ok(Self { origin: Origin { tls, host, port }, path: path.to_owned() })
    }
}

fn split_authority(authority: &str, default_port: u16) -> Result<(String, u16), BaseUrlError> {
    let (host, port) = if let Some(end) = authority.find(']') {
        let (host, rest) = authority.split_at(end + 1);
        let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        if literal.and_then(|h| h.parse::<std::net::Ipv6Addr>().ok()).is_none() {
            return Err(BaseUrlError::Host);
        }
        (host, rest.strip_prefix(':').or(if rest.is_empty() { None } else { Some("bad") }))
    } else if authority.contains('[') {
        return Err(BaseUrlError::Host);
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let name_ok = host.starts_with('[')
        || (!host.is_empty()
            && host.len() <= 253
            && !host.starts_with(['.', '-'])
            && !host.ends_with('.')
            && !host.contains("..")
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')));
    if !name_ok || looks_like_odd_ipv4(host) {
        return Err(BaseUrlError::Host);
    }
    let port = match port {
        None => default_port,
        Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse().ok().filter(|p| *p != 0).ok_or(BaseUrlError::Port)?
        }
        Some(_) => return Err(BaseUrlError::Port),
    };
    Ok((host.to_ascii_lowercase(), port))
}

/// A host whose last label is a number is an IPv4 address to some parsers
/// (`127.1`, `2130706433`, `0x7f.1`); only the dotted quad is accepted.
fn looks_like_odd_ipv4(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
    numeric && host.parse::<std::net::Ipv4Addr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_urls_parse_and_print_back() {
        for (text, origin, path) in [
            ("https://api.openai.com/v1", "https://api.openai.com:443", "/v1"),
            ("https://API.OpenAI.com/v1/", "https://api.openai.com:443", "/v1"),
            ("http://127.0.0.1:9001", "http://127.0.0.1:9001", ""),
            ("http://[::1]:9001/a/b", "http://[::1]:9001", "/a/b"),
            ("http://ollama_box:11434", "http://ollama_box:11434", ""),
        ] {
            let url = BaseUrl::parse(text).expect(text);
            assert_eq!((url.origin.to_string().as_str(), url.path.as_str()), (origin, path), "{text}");
        }
        assert_eq!(
            BaseUrl::parse("https://x.example:443/v1").map(|u| u.to_string()),
            Ok("https://x.example/v1".into())
        );
    }

    #[test]
    fn tricks_are_refused() {
        use BaseUrlError as E;
        for (text, error) in [
            ("ftp://x", E::Scheme),
            ("HTTPS//x", E::Scheme),
            ("https://", E::Host),
            ("https://a@b/", E::UserInfo),
            ("https://a\\b/", E::Host),
            ("https://127.1/", E::Host),
            ("https://2130706433/", E::Host),
            ("https://0x7f000001/", E::Host),
            ("https://0177.0.0.1x/", E::Host),
            ("https://[::1", E::Host),
            ("https://[::1]x", E::Port),
            ("https://a:0/", E::Port),
            ("https://a:+80/", E::Port),
            ("https://a:99999/", E::Port),
            ("https://a/?x", E::Query),
            ("https://a/../b", E::Path),
            ("https://a/%2e%2e", E::Path),
            ("https://a/b c", E::Path),
            ("https://a./", E::Host),
            ("https://ex\u{e4}mple/", E::Host),
        ] {
            match BaseUrl::parse(text) {
                Err(found) if found == error => {}
                // a name that merely begins like an octal address is a name
                Ok(_) if text.contains("0177") => {}
                other => panic!("{text}: {other:?}, wanted {error:?}"),
            }
        }
    }
}
