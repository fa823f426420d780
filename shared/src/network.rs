//! A block of addresses, as `address/prefix`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::egress::in_net;

/// One block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The text is not `address/prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an address, a slash and a prefix length, for example 10.231.0.16/28")]
pub struct NetworkError;

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.split_once('/').ok_or(NetworkError)?;
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let digits = !prefix.is_empty() && prefix.len() <= 3 && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|prefix| digits && *prefix <= widest).ok_or(NetworkError)?;
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Network {
    /// Whether an address is in it; an IPv4 address in an IPv6 coat is an IPv4
    /// address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        in_net(address.to_canonical(), self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_its_own_and_nothing_else() {
        for (block, address, inside) in [
            ("10.231.0.16/28", "10.231.0.16", true),
            ("10.231.0.16/28", "10.231.0.31", true),
            ("10.231.0.16/28", "10.231.0.32", false),
            ("10.231.0.16/28", "::ffff:10.231.0.18", true),
            ("10.231.0.16/28", "fd00::1", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("fd00::/8", "fd12::1", true),
            ("10.0.0.1/32", "10.0.0.2", false),
        ] {
            let block: Network = block.parse().expect("a block");
            assert_eq!(block.contains(address.parse().expect("an address")), inside, "{block} {address}");
        }
        for text in ["", "10.0.0.1", "10.0.0.1/33", "10.0.0.1/+8", "10.0.0.1/", "x/8", "fd00::/129"] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError), "{text}");
        }
    }
}
