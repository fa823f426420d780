//! A target: a name, an address and a path in front.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// Where requests go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// How reports call it.
    pub(crate) name: String,
    /// Resolved once.
    pub(crate) address: SocketAddr,
    /// For the `host` header.
    pub(crate) host: String,
    /// Without a slash at the end.
    pub(crate) base: String,
}

impl Target {
    /// A target on this machine.
    pub(crate) fn local(name: &str, address: SocketAddr, base: &str) -> Self {
        Self { name: name.to_owned(), address, host: address.to_string(), base: base.to_owned() }
    }
}

impl FromStr for Target {
    type Err = String;

    /// `name=http://host:port/base`
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, url) = text.split_once('=').ok_or("expected name=URL")?;
        let rest = url.strip_prefix("http://").ok_or("only http:// URLs can be measured")?;
        let (host, base) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if name.is_empty() || host.is_empty() {
            return Err("expected name=http://host:port/base".to_owned());
        }
        let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let address = with_port.to_socket_addrs().map_err(|cause| format!("{host}: {cause}"))?.next();
        Ok(Self {
            name: name.to_owned(),
            address: address.ok_or_else(|| format!("{host} has no address"))?,
            host: host.to_owned(),
            base: base.trim_end_matches('/').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_parse() {
        let target: Target = "gate=http://127.0.0.1:8080/v1/openai/".parse().unwrap();
        assert_eq!((target.name.as_str(), target.base.as_str()), ("gate", "/v1/openai"));
        assert_eq!(target.address, "127.0.0.1:8080".parse().unwrap());
        for bad in ["http://x", "a=https://x", "=http://x:1", "a=http://"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
