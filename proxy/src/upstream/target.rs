//! From an origin to an address that may be connected to.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use clawgate_shared::egress::{PrivateUpstreams, Verdict};
use clawgate_shared::origin::Origin;
use http::HeaderValue;
use pingora_core::upstreams::peer::HttpPeer;

use super::client::Failure;

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
    peer: ArcSwapOption<(Instant, Arc<HttpPeer>)>,
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
        let target = Arc::new(Target { origin: origin.clone(), host, peer: ArcSwapOption::empty() });
        let mut map = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MAX_TARGETS {
            map.clear();
        }
        Ok(map.entry(origin.clone()).or_insert(target).clone())
    }

    /// The peer to connect to: resolved, checked, cached for 30 s.
    ///
    /// # Errors
    /// The name does not resolve, or only to addresses that are not allowed.
    pub async fn peer(&self, target: &Target) -> Result<Arc<HttpPeer>, Failure> {
        if let Some(cached) = target.peer.load().as_deref()
            && cached.0.elapsed() < RESOLVE_FOR
        {
            return Ok(cached.1.clone());
        }
        let address = self.resolve(&target.origin).await?;
        let mut peer = HttpPeer::new(address, target.origin.tls, target.origin.host.clone());
        peer.options.connection_timeout = Some(self.connect_timeout);
        peer.options.total_connection_timeout = Some(self.connect_timeout * 2);
        let peer = Arc::new(peer);
        target.peer.store(Some(Arc::new((Instant::now(), peer.clone()))));
        Ok(peer)
    }

    async fn resolve(&self, origin: &Origin) -> Result<SocketAddr, Failure> {
        let literal = origin.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let addresses: Vec<SocketAddr> = if let Ok(ip) = literal {
            vec![SocketAddr::new(ip, origin.port)]
        } else {
            let lookup = tokio::net::lookup_host((origin.host.as_str(), origin.port));
            match tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await {
                Ok(Ok(found)) => found.collect(),
                Ok(Err(error)) => return Err(Failure::connect(format!("name does not resolve: {error}"))),
                Err(_) => return Err(Failure::connect("name server did not answer".to_owned())),
            }
        };
        let mut denial = None;
        for address in addresses {
            match self.private.connect_verdict(origin, address.ip()) {
                Verdict::Allowed => return Ok(address),
                Verdict::Denied(why) => denial = Some(why),
            }
        }
        Err(denial.map_or_else(
            || Failure::connect("name has no address".to_owned()),
            |why| Failure::denied(&format!("the address {why}")),
        ))
    }
}
