//! Who may connect to a listener, asked before a byte is read.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::listeners::ConnectionFilter;

use crate::limits::{Level, Pressure};
use crate::telemetry::{Metrics, NotAdmitted};

/// How often the accept loop looks whether there is memory again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Which source addresses a listener accepts.
#[derive(Clone, Debug)]
pub enum SourcePolicy {
    /// Everybody.
    Any,
    /// Only addresses inside this IPv4 or IPv6 network.
    Within {
        /// Network address.
        network: IpAddr,
        /// Prefix length in bits.
        prefix: u8,
    },
}

impl SourcePolicy {
    /// Whether `source` may connect.
    #[must_use]
    pub fn accepts(&self, source: IpAddr) -> bool {
        let Self::Within { network, prefix } = self else { return true };
        let source = source.to_canonical();
        match (network, source) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let shift = 32_u32.saturating_sub(u32::from(*prefix));
                let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
                (net.to_bits() & mask) == (ip.to_bits() & mask)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let shift = 128_u32.saturating_sub(u32::from(*prefix));
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                (net.to_bits() & mask) == (ip.to_bits() & mask)
            }
            _ => false,
        }
    }
}

/// The policy as the accept loop asks it. What it refuses is closed before TLS,
/// before a byte is read and without a byte of answer. While memory is almost
/// used up it does not answer, and so the loop accepts nobody: connections wait
/// in the kernel.
#[derive(Debug)]
pub(super) struct SourceGate {
    policy: SourcePolicy,
    metrics: Arc<Metrics>,
    pressure: Arc<Pressure>,
}

impl SourceGate {
    pub(super) const fn new(policy: SourcePolicy, metrics: Arc<Metrics>, pressure: Arc<Pressure>) -> Self {
        Self { policy, metrics, pressure }
    }
}

#[async_trait]
impl ConnectionFilter for SourceGate {
    async fn should_accept(&self, source: Option<&SocketAddr>) -> bool {
        while self.pressure.level() >= Level::Stop {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let accepted = match &self.policy {
            SourcePolicy::Any => true,
            within @ SourcePolicy::Within { .. } => source.is_some_and(|address| within.accepts(address.ip())),
        };
        if !accepted {
            self.metrics.not_admitted(NotAdmitted::Source);
        }
        accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_accepts_only_its_own() {
        let pool = SourcePolicy::Within { network: "10.231.0.0".parse().expect("ip"), prefix: 16 };
        for (source, accepted) in [
            ("10.231.0.1", true),
            ("10.231.255.255", true),
            ("::ffff:10.231.3.4", true),
            ("10.232.0.1", false),
            ("127.0.0.1", false),
            ("::1", false),
        ] {
            assert_eq!(pool.accepts(source.parse().expect("ip")), accepted, "{source}");
        }
        assert!(SourcePolicy::Any.accepts("8.8.8.8".parse().expect("ip")));
        let all = SourcePolicy::Within { network: "0.0.0.0".parse().expect("ip"), prefix: 0 };
        assert!(all.accepts("8.8.8.8".parse().expect("ip")));
    }
}
