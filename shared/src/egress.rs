//! Which addresses a provider key may lead to.
//!
//! Invariant: link-local and metadata addresses and our own listeners are never
//! allowed, whatever the operator lists; private addresses and plain HTTP are
//! allowed only where the operator listed them. The control plane asks when a
//! base URL is written, the proxy asks again for the address it connects to,
//! because a name may resolve to anything.
//! Deliberately absent: resolving names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::origin::Origin;

/// Most entries a list may have.
const MAX_RULES: usize = 256;

/// Private or plain-HTTP destinations that the operator allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrivateUpstreams {
    rules: Vec<Rule>,
    own: Vec<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    target: Target,
    /// `None`: any port.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Net { address: IpAddr, prefix: u8 },
    Host(String),
}

/// Whether a connection may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may not.
    Denied(Denial),
}

impl Verdict {
    /// Whether it is [`Verdict::Allowed`].
    #[must_use]
    pub const fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed)
    }
}

/// Why a connection may not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Link-local, a cloud's metadata service, multicast or unspecified: never.
    #[error("is a link-local, metadata, multicast or unspecified address, which is never allowed")]
    Never,
    /// One of our own listeners: never.
    #[error("is a listener of this gateway itself, which is never allowed")]
    OwnListener,
    /// Loopback, private or otherwise not public, and not listed.
    #[error("is a private address that is not in the operator's private upstreams")]
    Private,
    /// `http://` to a destination that is not listed.
    #[error("is plain http to a destination that is not in the operator's private upstreams")]
    PlainHttp,
}

/// Why a list cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamListError {
    /// Neither `host:port` nor `CIDR:port`.
    #[error("{0:?} is not HOST:PORT or CIDR:PORT (the port may be *)")]
    Syntax(String),
    /// A network so wide that listing it means "everything".
    #[error("{0:?} is too wide: at least /8 for IPv4, /7 for IPv6")]
    TooWide(String),
    /// An address that may never be reached.
    #[error("{0:?} holds link-local or metadata addresses, which are never allowed")]
    Never(String),
    /// Over 256 entries.
    #[error("more than {MAX_RULES} entries")]
    TooMany,
}

impl PrivateUpstreams {
    /// Nothing private, no plain HTTP.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Loopback at any port: the default under `clawgate up`.
    #[must_use]
    pub fn loopback() -> Self {
        let any_port = |address, prefix| Rule { target: Target::Net { address, prefix }, port: None };
        Self {
            rules: vec![
                any_port(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
                any_port(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
            ],
            own: Vec::new(),
        }
    }

    /// Reads a list separated by commas: `host:port`, `address:port`,
    /// `CIDR:port`, `[v6]:port`; `*` for any port; `none` or nothing for none.
    ///
    /// # Errors
    /// The first entry that cannot be read or may not be listed.
    pub fn parse(text: &str) -> Result<Self, UpstreamListError> {
        let entries: Vec<&str> = text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
        if entries == ["none"] {
            return Ok(Self::none());
        }
        if entries.len() > MAX_RULES {
            return Err(UpstreamListError::TooMany);
        }
        let rules = entries.into_iter().map(parse_rule).collect::<Result<_, _>>()?;
        Ok(Self { rules, own: Vec::new() })
    }

    /// Also forbids these listeners of ours.
    #[must_use]
    pub fn forbidding(mut self, listeners: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.own.extend(listeners);
        self
    }

    /// Whether `ip:port`, reached under the name `host`, is an address we may
    /// connect to with TLS.
    #[must_use]
    pub fn verdict(&self, ip: IpAddr, port: u16, host: &str) -> Verdict {
        let ip = canonical(ip);
        match class_of(ip) {
            Class::Never => Verdict::Denied(Denial::Never),
            _ if self.is_own(ip, port) => Verdict::Denied(Denial::OwnListener),
            Class::Private if !self.lists(Some(ip), port, host) => Verdict::Denied(Denial::Private),
            Class::Private | Class::Public => Verdict::Allowed,
        }
    }

    /// The whole question at connect time: `origin`, whose name resolved to `ip`.
    #[must_use]
    pub fn connect_verdict(&self, origin: &Origin, ip: IpAddr) -> Verdict {
        let verdict = self.verdict(ip, origin.port, &origin.host);
        if verdict.is_allowed() && !origin.tls && !self.lists(Some(canonical(ip)), origin.port, &origin.host) {
            return Verdict::Denied(Denial::PlainHttp);
        }
        verdict
    }

    /// The first of an origin's addresses that may be connected to.
    ///
    /// # Errors
    /// Why the last one may not; `None`: there are none.
    pub fn choose(
        &self,
        origin: &Origin,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<SocketAddr, Option<Denial>> {
        let mut denial = None;
        for address in addresses {
            match self.connect_verdict(origin, address.ip()) {
                Verdict::Allowed => return Ok(address),
                Verdict::Denied(why) => denial = Some(why),
            }
        }
        Err(denial)
    }

    /// What can be said of an origin before any name is resolved; the proxy
    /// asks [`Self::connect_verdict`] later.
    #[must_use]
    pub fn origin_verdict(&self, origin: &Origin) -> Verdict {
        if let Some(ip) = literal(&origin.host) {
            return self.connect_verdict(origin, ip);
        }
        if is_metadata_name(&origin.host) {
            return Verdict::Denied(Denial::Never);
        }
        if !origin.tls && !self.lists(None, origin.port, &origin.host) {
            return Verdict::Denied(Denial::PlainHttp);
        }
        Verdict::Allowed
    }

    fn lists(&self, ip: Option<IpAddr>, port: u16, host: &str) -> bool {
        self.rules.iter().any(|rule| {
            rule.port.is_none_or(|wanted| wanted == port)
                && match &rule.target {
                    Target::Host(name) => name.eq_ignore_ascii_case(host),
                    Target::Net { address, prefix } => ip.is_some_and(|ip| in_net(ip, *address, *prefix)),
                }
        })
    }

    fn is_own(&self, ip: IpAddr, port: u16) -> bool {
        self.own.iter().any(|own| {
            let listener = canonical(own.ip());
            // A listener on every address is ours on every private one.
            own.port() == port && (listener == ip || (listener.is_unspecified() && class_of(ip) == Class::Private))
        })
    }
}

fn parse_rule(entry: &str) -> Result<Rule, UpstreamListError> {
    let syntax = || UpstreamListError::Syntax(entry.to_owned());
    let (target, port) = entry.rsplit_once(':').ok_or_else(syntax)?;
    let port = match port {
        "*" => None,
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(syntax)?)
        }
        _ => return Err(syntax()),
    };
    let bare: String = target.chars().filter(|c| !matches!(c, '[' | ']')).collect();
    // An IPv6 address without brackets cannot be told from its port.
    if bare.contains(':') && !target.starts_with('[') {
        return Err(syntax());
    }
    let (address, prefix) = match bare.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| syntax())?)),
        None => (bare.as_str(), None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        let name = prefix.is_none() && !bare.is_empty() && bare.len() <= 253 && !target.starts_with('[');
        let plain = bare.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if !name || !plain || is_metadata_name(&bare) {
            return Err(syntax());
        }
        return Ok(Rule { target: Target::Host(bare.to_ascii_lowercase()), port });
    };
    let widest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.unwrap_or(widest);
    if prefix > widest {
        return Err(syntax());
    }
    if prefix < if address.is_ipv4() { 8 } else { 7 } {
        return Err(UpstreamListError::TooWide(entry.to_owned()));
    }
    if class_of(canonical(address)) == Class::Never {
        return Err(UpstreamListError::Never(entry.to_owned()));
    }
    Ok(Rule { target: Target::Net { address, prefix }, port })
}

/// Names under which clouds serve credentials to whoever asks.
fn is_metadata_name(host: &str) -> bool {
    ["metadata.google.internal", "metadata.goog", "instance-data"].iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// The address that a host is without any resolver; `localhost` is loopback.
fn literal(host: &str) -> Option<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost") {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Public,
    Private,
    Never,
}

/// An IPv4 address in IPv6 clothes counts as what it is: mapped (`::ffff:`),
/// compatible (`::a.b.c.d`) and NAT64 (`64:ff9b::`).
fn canonical(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    let [a, b, c, d, e, f, high, low] = v6.segments();
    let embeds =
        (a, b, c, d, e, f) == (0x64, 0xff9b, 0, 0, 0, 0) || ((a, b, c, d, e, f) == (0, 0, 0, 0, 0, 0) && high != 0);
    if !embeds {
        return ip;
    }
    let [[w, x], [y, z]] = [high.to_be_bytes(), low.to_be_bytes()];
    IpAddr::V4(Ipv4Addr::new(w, x, y, z))
}

fn class_of(ip: IpAddr) -> Class {
    const NEVER: [(IpAddr, u8); 12] = [
        v4(0, 0, 0, 0, 8),
        v4(169, 254, 0, 0, 16),
        v4(100, 100, 100, 200, 32),
        v4(168, 63, 129, 16, 32),
        v4(192, 0, 0, 192, 32),
        v4(224, 0, 0, 0, 4),
        v4(255, 255, 255, 255, 32),
        v6(0xfe80, 0, 10),
        v6(0xff00, 0, 8),
        (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), 128),
        (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)), 128),
        (IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)), 128),
    ];
    const PRIVATE: [(IpAddr, u8); 16] = [
        v4(127, 0, 0, 0, 8),
        v4(10, 0, 0, 0, 8),
        v4(172, 16, 0, 0, 12),
        v4(192, 168, 0, 0, 16),
        v4(100, 64, 0, 0, 10),
        v4(192, 0, 0, 0, 24),
        v4(192, 0, 2, 0, 24),
        v4(192, 88, 99, 0, 24),
        v4(198, 18, 0, 0, 15),
        v4(198, 51, 100, 0, 24),
        v4(203, 0, 113, 0, 24),
        v4(240, 0, 0, 0, 4),
        v6(0x2001, 0, 23),
        v6(0x2001, 0xdb8, 32),
        v6(0x2002, 0, 16),
        v6(0x3fff, 0, 20),
    ];
    /// All of IPv6 that is given out for the public; loopback, private networks
    /// and what nobody has been given yet lie outside.
    const GLOBAL: (IpAddr, u8) = v6(0x2000, 0, 3);
    let within = |nets: &[(IpAddr, u8)]| nets.iter().any(|(address, prefix)| in_net(ip, *address, *prefix));
    if within(&NEVER) || ip.is_unspecified() {
        Class::Never
    } else if within(&PRIVATE) || (ip.is_ipv6() && !within(&[GLOBAL])) {
        Class::Private
    } else {
        Class::Public
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> (IpAddr, u8) {
    (IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix)
}

const fn v6(first: u16, second: u16, prefix: u8) -> (IpAddr, u8) {
    (IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0)), prefix)
}

pub(crate) fn in_net(ip: IpAddr, address: IpAddr, prefix: u8) -> bool {
    let prefix = u32::from(prefix);
    match (ip, address) {
        (IpAddr::V4(ip), IpAddr::V4(net)) => {
            let shift = 32_u32.saturating_sub(prefix);
            ip.to_bits().checked_shr(shift) == net.to_bits().checked_shr(shift)
        }
        (IpAddr::V6(ip), IpAddr::V6(net)) => {
            let shift = 128_u32.saturating_sub(prefix);
            ip.to_bits().checked_shr(shift) == net.to_bits().checked_shr(shift)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::BaseUrl;

    fn origin(url: &str) -> Origin {
        BaseUrl::parse(url).expect(url).origin
    }

    #[test]
    fn never_means_never() {
        let all =
            PrivateUpstreams::parse("10.0.0.0/8:*, 100.64.0.0/10:*, [fc00::]/7:*, 192.0.0.0/24:*").expect("valid");
        for ip in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "::a9fe:a9fe",
            "fe80::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "255.255.255.255",
        ] {
            let verdict = all.verdict(ip.parse().expect(ip), 443, "x");
            assert_eq!(verdict, Verdict::Denied(Denial::Never), "{ip}");
        }
    }

    #[test]
    fn private_needs_the_list_and_public_does_not() {
        let none = PrivateUpstreams::none();
        for ip in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "240.0.0.1",
            "::1",
            "fd12::1",
            "2002:7f00:1::",
            "2001:0:1::",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "192.0.0.8",
        ] {
            assert_eq!(none.verdict(ip.parse().expect(ip), 443, "x"), Verdict::Denied(Denial::Private), "{ip}");
        }
        for ip in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert_eq!(none.verdict(ip.parse().expect(ip), 443, "x"), Verdict::Allowed, "{ip}");
        }
    }

    #[test]
    fn what_nobody_has_been_given_is_not_public() {
        let none = PrivateUpstreams::none();
        for ip in [
            "::5",
            "::ffff",
            "64:ff9b:1::1",
            "100::1",
            "1fff::1",
            "2001:2::1",
            "2001:1ff::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "fec0::1",
        ] {
            assert_eq!(none.verdict(ip.parse().expect(ip), 443, "x"), Verdict::Denied(Denial::Private), "{ip}");
        }
        for ip in ["2001:200::1", "2003::1", "2a00:1450::1", "3fff:1000::1"] {
            assert_eq!(none.verdict(ip.parse().expect(ip), 443, "x"), Verdict::Allowed, "{ip}");
        }
    }

    #[test]
    fn entries_allow_what_they_name_and_no_more() {
        let list =
            PrivateUpstreams::parse("127.0.0.0/8:*, 10.0.0.5:11434, ollama:80, [fd00::]/8:443,[::1]:9").expect("valid");
        for (ip, port, host, allowed) in [
            ("127.9.9.9", 1, "x", true),
            ("10.0.0.5", 11434, "x", true),
            ("10.0.0.5", 11435, "x", false),
            ("10.0.0.6", 11434, "x", false),
            ("172.17.0.2", 80, "Ollama", true),
            ("172.17.0.2", 81, "ollama", false),
            ("fd12::1", 443, "x", true),
            ("fd12::1", 80, "x", false),
            ("::1", 9, "x", true),
            ("::ffff:127.0.0.1", 9, "x", true),
        ] {
            assert_eq!(list.verdict(ip.parse().expect(ip), port, host).is_allowed(), allowed, "{ip}:{port} {host}");
        }
    }

    #[test]
    fn plain_http_needs_the_list() {
        let list = PrivateUpstreams::parse("127.0.0.0/8:*,box.lan:8000").expect("valid");
        for (url, verdict) in [
            ("https://api.openai.com/v1", Verdict::Allowed),
            ("http://api.openai.com/v1", Verdict::Denied(Denial::PlainHttp)),
            ("http://1.1.1.1", Verdict::Denied(Denial::PlainHttp)),
            ("http://127.0.0.1:9001/x", Verdict::Allowed),
            ("http://localhost:9001", Verdict::Allowed),
            ("http://[::1]:9001", Verdict::Denied(Denial::Private)),
            ("http://box.lan:8000", Verdict::Allowed),
            ("http://box.lan:8001", Verdict::Denied(Denial::PlainHttp)),
            ("https://192.168.0.1", Verdict::Denied(Denial::Private)),
            ("https://169.254.169.254", Verdict::Denied(Denial::Never)),
            ("https://metadata.google.internal", Verdict::Denied(Denial::Never)),
        ] {
            assert_eq!(list.origin_verdict(&origin(url)), verdict, "{url}");
        }
        let public = "1.1.1.1".parse().expect("address");
        assert_eq!(list.connect_verdict(&origin("http://box.lan:8000"), public), Verdict::Allowed);
        assert_eq!(list.connect_verdict(&origin("http://a.example"), public), Verdict::Denied(Denial::PlainHttp));
    }

    #[test]
    fn our_own_listeners_are_never_an_upstream() {
        let own = ["127.0.0.1:8081".parse().expect("address"), "0.0.0.0:8084".parse().expect("address")];
        let list = PrivateUpstreams::loopback().forbidding(own);
        assert_eq!(list.origin_verdict(&origin("http://localhost:8081")), Verdict::Denied(Denial::OwnListener));
        assert_eq!(list.origin_verdict(&origin("http://127.0.0.2:8084")), Verdict::Denied(Denial::OwnListener));
        assert_eq!(list.origin_verdict(&origin("http://127.0.0.1:8082")), Verdict::Allowed);
    }

    #[test]
    fn unreadable_lists_are_refused() {
        use UpstreamListError as E;
        for (text, wide) in [
            ("0.0.0.0/0:*", true),
            ("[::]/0:443", true),
            ("10.0.0.0/7:1", true),
            ("x", false),
            ("host:0", false),
            ("host:port", false),
            ("10.0.0.0/33:1", false),
            ("fd00::1:80", false),
            ("a b:80", false),
            (":80", false),
            ("metadata.google.internal:80", false),
        ] {
            let error = PrivateUpstreams::parse(text).expect_err(text);
            assert_eq!(matches!(error, E::TooWide(_)), wide, "{text}: {error:?}");
        }
        assert!(matches!(PrivateUpstreams::parse("169.254.0.0/16:*"), Err(E::Never(_))));
        assert_eq!(PrivateUpstreams::parse("none"), Ok(PrivateUpstreams::none()));
        assert_eq!(PrivateUpstreams::parse(""), Ok(PrivateUpstreams::none()));
    }
}
