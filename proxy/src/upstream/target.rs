//! From an origin to an address that may be connected to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use clawgate_shared::egress::PrivateUpstreams;
use clawgate_shared::origin::Origin;
use http::HeaderValue;
use pingora_core::upstreams::peer::HttpPeer;

use super::client::Failure;
use super::idle::Idle;

/// The kernel's buffer for an answer, in bytes; it takes twice that with its own
/// needs. Left to itself it grows to megabytes that a vendor has sent and no client
/// has asked for yet. Still 2.5 MB/s over a path of 100 ms.
const RECEIVE: usize = 256 << 10;
/// How long a resolved name is used.
const RESOLVE_FOR: Duration = Duration::from_secs(30);
/// How long a name server may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Origins remembered at most; more than any real configuration has.
const MAX_TARGETS: usize = 4096;

/// The egress policy of this node, applied to resolved addresses.
#[derive(Debug)]
pub struct Egress {
    private: PrivateUpstreams,
    targets: RwLock<HashMap<Origin, Arc<Target>>>,
    connect_timeout: Duration,
}

/// One origin and the address it stands for now.
#[derive(Debug)]
pub struct Target {
    origin: Origin,
    /// For the `Host` header.
    pub host: HeaderValue,
    resolved: ArcSwapOption<(Instant, Arc<Address>)>,
}

/// What an origin resolved to, and the connections to it.
#[derive(Debug)]
pub(super) struct Address {
    address: SocketAddr,
    pub(super) peer: HttpPeer,
    pub(super) idle: Idle,
}

impl Egress {
    /// `private` says what besides public addresses may be reached; it must
    /// forbid this node's own listeners.
    #[must_use]
    pub fn new(private: PrivateUpstreams, connect_timeout: Duration) -> Self {
        Self { private, targets: RwLock::default(), connect_timeout }
    }

    /// The target of an origin, made at its first use.
    ///
    /// # Errors
    /// The host cannot be a header value.
    pub fn target(&self, origin: &Origin) -> Result<Arc<Target>, Failure> {
        if let Some(found) = self.targets.read().unwrap_or_else(PoisonError::into_inner).get(origin) {
            return Ok(found.clone());
        }
        let host =
            HeaderValue::from_str(&origin.authority()).map_err(|_| Failure::denied("host is no header value"))?;
        let target = Arc::new(Target { origin: origin.clone(), host, resolved: ArcSwapOption::empty() });
        let mut map = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MAX_TARGETS {
            map.clear();
        }
        Ok(map.entry(origin.clone()).or_insert(target).clone())
    }

    /// The address to connect to: resolved, checked, cached for 30 s. While a
    /// name stands for the same address its connections are kept.
    ///
    /// # Errors
    /// The name does not resolve, or only to addresses that are not allowed.
    pub(super) async fn address(&self, target: &Target) -> Result<Arc<Address>, Failure> {
        let cached = target.resolved.load();
        if let Some((at, found)) = cached.as_deref()
            && at.elapsed() < RESOLVE_FOR
        {
            return Ok(found.clone());
        }
        let address = self.resolve(&target.origin).await?;
        let same = cached.as_deref().filter(|(_, before)| before.address == address);
        let found = same.map_or_else(|| Arc::new(self.connectable(&target.origin, address)), |(_, same)| same.clone());
        target.resolved.store(Some(Arc::new((Instant::now(), found.clone()))));
        Ok(found)
    }

    fn connectable(&self, origin: &Origin, address: SocketAddr) -> Address {
        let mut peer = HttpPeer::new(address, origin.tls, origin.host.clone());
        peer.options.connection_timeout = Some(self.connect_timeout);
        peer.options.total_connection_timeout = Some(self.connect_timeout * 2);
        peer.options.tcp_recv_buf = Some(RECEIVE);
        Address { address, peer, idle: Idle::default() }
    }

    /// Closes connections that have waited too long or are dead.
    pub(super) fn sweep(&self) {
        let targets: Vec<Arc<Target>> =
            self.targets.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for target in targets {
            if let Some((_, address)) = target.resolved.load().as_deref() {
                address.idle.sweep();
            }
        }
    }

    async fn resolve(&self, origin: &Origin) -> Result<SocketAddr, Failure> {
        let addresses: Vec<SocketAddr> = if let Some(ip) = origin.literal() {
            vec![SocketAddr::new(ip, origin.port)]
        } else {
            let lookup = tokio::net::lookup_host((origin.host.as_str(), origin.port));
            match tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await {
                Ok(Ok(found)) => found.collect(),
                Ok(Err(error)) => return Err(Failure::connect(format!("name does not resolve: {error}"))),
                Err(_) => return Err(Failure::connect("name server did not answer".to_owned())),
            }
        };
        self.allowed(origin, addresses)
    }

    /// The one of a name's addresses that will be connected to: what is checked
    /// here and what is connected to are the same value, whatever the name
    /// stands for a moment later.
    fn allowed(&self, origin: &Origin, addresses: Vec<SocketAddr>) -> Result<SocketAddr, Failure> {
        self.private.choose(origin, addresses).map_err(|denial| {
            denial.map_or_else(
                || Failure::connect("name has no address".to_owned()),
                |why| Failure::denied(&format!("the address {why}")),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clawgate_shared::origin::BaseUrl;
    use pingora_core::upstreams::peer::Peer as _;

    #[test]
    fn a_name_that_changes_its_mind_never_leads_inside() {
        let egress = Egress::new(PrivateUpstreams::none(), Duration::from_secs(1));
        let origin = BaseUrl::parse("https://flips.example/v1").expect("a URL").origin;
        let public = "93.184.216.34:443";
        let inside = ["127.0.0.1:443", "169.254.169.254:443", "10.0.0.1:443", "[::1]:443", "[::ffff:127.0.0.1]:443"];
        let (mut reached, mut denied) = (0, 0);
        for number in 0..1000_usize {
            let other = inside[number % inside.len()];
            let said: Vec<&str> = match number % 3 {
                0 => vec![public],
                1 => vec![other],
                _ => vec![other, public],
            };
            let addresses = said.iter().map(|text| text.parse().expect("an address")).collect();
            match egress.allowed(&origin, addresses) {
                Ok(address) => {
                    let peer = egress.connectable(&origin, address).peer;
                    assert_eq!(peer.address().as_inet().map(ToString::to_string).as_deref(), Some(public));
                    reached += 1;
                }
                Err(_) => denied += 1,
            }
        }
        assert_eq!((reached, denied), (667, 333));
    }
}
