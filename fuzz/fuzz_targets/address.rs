//! Address policy: an address that may be connected to is in no denied network, as
//! an independent check has it; base URLs that are taken name one host.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clawgate_fuzz::egress::PrivateUpstreams;
use clawgate_fuzz::origin::{BaseUrl, Origin};
use libfuzzer_sys::fuzz_target;

/// Never, whatever an operator lists.
fn never(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            a == 0
                || (a == 169 && b == 254)
                || (224..240).contains(&a)
                || ["255.255.255.255", "100.100.100.200", "168.63.129.16", "192.0.0.192"]
                    .contains(&v4.to_string().as_str())
        }
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => never(IpAddr::V4(v4)),
            None => {
                let text = v6.to_string();
                text == "::"
                    || v6.segments()[0] & 0xffc0 == 0xfe80
                    || v6.octets()[0] == 0xff
                    || ["fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"].contains(&text.as_str())
            }
        },
    }
}

/// The IPv4 address that an IPv6 address stands for.
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = u128::from(v6);
    let low = Ipv4Addr::from((bits & 0xffff_ffff) as u32);
    let prefix = bits >> 32;
    let nat64 = 0x0064_ff9b_u128 << 64;
    let compatible = prefix == 0 && bits > 0xffff;
    (prefix == 0xffff || prefix == nat64 || compatible).then_some(low)
}

/// Reachable by anybody on the internet.
fn public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(never(ip)
                || v4.is_private()
                || v4.is_loopback()
                || v4.is_documentation()
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (b & 0xfe) == 18)
                || (a == 192 && b == 0 && c == 0)
                || (a == 192 && b == 88 && c == 99))
        }
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => public(IpAddr::V4(v4)),
            None => {
                let [a, b, ..] = v6.segments();
                let special = (a == 0x2001 && (b < 0x200 || b == 0xdb8)) || a == 0x2002 || (a == 0x3fff && b < 0x1000);
                a & 0xe000 == 0x2000 && !special
            }
        },
    }
}

fn bytes<const N: usize>(data: &mut &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for slot in &mut out {
        if let Some((first, rest)) = data.split_first() {
            (*slot, *data) = (*first, rest);
        }
    }
    out
}

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    let [shape, tls] = bytes(&mut rest);
    let port = u16::from_be_bytes(bytes(&mut rest));
    let raw: [u8; 16] = bytes(&mut rest);
    let v4 = Ipv4Addr::new(raw[0], raw[1], raw[2], raw[3]);
    let clothes = [0, 0xffff, 0x0064_ff9b_u128 << 64];
    let ip = match shape % 6 {
        0 | 1 => IpAddr::V4(v4),
        2..=4 => {
            let prefix = clothes[usize::from(shape % 6) - 2];
            IpAddr::V6(Ipv6Addr::from(prefix << 32 | u128::from(u32::from(v4))))
        }
        _ => IpAddr::V6(Ipv6Addr::from(raw)),
    };
    let text = std::str::from_utf8(rest).unwrap_or_default();
    let (list, url) = text.split_once('\n').unwrap_or(("", text));
    let own = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 114, 7)), 8443);

    let closed = PrivateUpstreams::none().forbidding([own]);
    let origin = Origin { tls: tls & 1 == 1, host: "vendor.example".to_owned(), port };
    if closed.connect_verdict(&origin, ip).is_allowed() {
        assert!(public(ip), "{ip} was allowed");
        assert!(origin.tls, "plain http was allowed");
        assert!(SocketAddr::new(ip, port) != own);
    }
    if let Ok(listed) = PrivateUpstreams::parse(list) {
        let listed = listed.forbidding([own]);
        let allowed = listed.connect_verdict(&origin, ip).is_allowed();
        assert!(!(allowed && never(ip)), "{ip} was allowed by {list:?}");
        assert!(!(allowed && SocketAddr::new(ip, port) == own), "our own listener by {list:?}");
        assert!(!(allowed && list.trim().is_empty() && !public(ip)));
    }
    base_url(url, &closed);
});

/// A base URL that is taken is read by others as it was read here.
fn base_url(text: &str, closed: &PrivateUpstreams) {
    let Ok(base) = BaseUrl::parse(text) else { return };
    let again = BaseUrl::parse(&base.to_string()).expect("its own text is one");
    assert_eq!(again, base);
    let host = &base.origin.host;
    assert!(!host.is_empty() && base.origin.port != 0);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
    assert!(host.bytes().all(plain) && *host == host.to_ascii_lowercase(), "{host:?}");
    assert!(base.path.is_empty() || base.path.starts_with('/'));
    assert!(!base.path.split('/').any(|segment| segment == ".."));
    if let Some(ip) = base.origin.literal()
        && closed.origin_verdict(&base.origin).is_allowed()
    {
        assert!(public(ip) && base.origin.tls, "{text:?} was allowed");
    }
}
