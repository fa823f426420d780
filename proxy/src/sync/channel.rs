//! Where the control plane is and the channel to it. One channel serves config
//! sync and usage; it connects by itself and again after every loss.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::identity::TlsIdentity;
use crate::quota::ChannelSource;

/// The name in the control plane's certificate, whatever its address is.
const SERVER_NAME: &str = "clawgate-control";
/// Keepalive: a control plane that is silent (stopped, cut off) is noticed
/// after twice this time at most.
const KEEPALIVE: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(5);

/// The address of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlTarget {
    /// `unix:/path`: the right to open the socket is the credential.
    Unix(PathBuf),
    /// `https://host:port`, mutual TLS.
    Tls(String),
}

/// Why there is no such target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither of the two forms.
    #[error("the control plane's address is `unix:/path` or `https://host:port`, not {0:?}")]
    Form(String),
    /// The library refuses the address or the certificates.
    #[error("no channel to {target}: {reason}")]
    Refused {
        /// The address.
        target: String,
        /// What is wrong; no secret.
        reason: String,
    },
}

impl FromStr for ControlTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let form = || TargetError::Form(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(form()) };
        }
        let rest = text.strip_prefix("https://").ok_or_else(form)?;
        let authority: http::uri::Authority = rest.trim_end_matches('/').parse().map_err(|_| form())?;
        if authority.port_u16().is_none() || authority.as_str().contains('@') {
            return Err(form());
        }
        Ok(Self::Tls(authority.to_string()))
    }
}

impl std::fmt::Display for ControlTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tls(authority) => write!(f, "https://{authority}"),
        }
    }
}

impl ControlTarget {
    /// A channel that connects when it is used. `ca_pem`: the only certificate
    /// authority that is believed; `identity`: who we are, unless we are about
    /// to enrol.
    pub(super) fn channel(&self, ca_pem: &str, identity: Option<&TlsIdentity>) -> Result<Channel, TargetError> {
        let refused = |error: tonic::transport::Error| TargetError::Refused {
            target: self.to_string(),
            reason: source_text(&error),
        };
        let endpoint = Endpoint::from_shared(self.to_string()).map_err(refused)?;
        let endpoint = match self {
            Self::Unix(_) => endpoint,
            Self::Tls(_) => {
                let mut tls =
                    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca_pem)).domain_name(SERVER_NAME);
                if let Some(own) = identity {
                    let pair = tonic::transport::Identity::from_pem(&own.certificate_pem, own.key_pem.as_bytes());
                    tls = tls.identity(pair);
                }
                endpoint.tls_config(tls).map_err(refused)?
            }
        };
        Ok(endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .connect_lazy())
    }
}

/// The innermost cause: the outer ones say only "transport error".
pub(super) fn source_text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// The current channel, replaced when the certificate is.
#[derive(Debug)]
pub struct ControlChannel {
    target: ControlTarget,
    current: ArcSwapOption<Channel>,
}

impl ControlChannel {
    /// No channel yet.
    #[must_use]
    pub fn new(target: ControlTarget) -> Arc<Self> {
        Arc::new(Self { target, current: ArcSwapOption::empty() })
    }

    /// Where it leads.
    #[must_use]
    pub fn target(&self) -> &ControlTarget {
        &self.target
    }

    /// Channels from now on use this identity; must run within a tokio runtime.
    ///
    /// # Errors
    /// The certificates are not usable, or TLS is wanted and there are none.
    pub fn connect(&self, tls: Option<&TlsIdentity>) -> Result<(), TargetError> {
        let channel = match (&self.target, tls) {
            (ControlTarget::Unix(_), _) => self.target.channel("", None)?,
            (ControlTarget::Tls(_), Some(own)) => self.target.channel(&own.ca_pem, Some(own))?,
            (ControlTarget::Tls(_), None) => {
                let reason = "this node has no certificate".to_owned();
                return Err(TargetError::Refused { target: self.target.to_string(), reason });
            }
        };
        self.current.store(Some(Arc::new(channel)));
        Ok(())
    }

    /// The channel; `None` before [`Self::connect`].
    #[must_use]
    pub fn get(&self) -> Option<Channel> {
        self.current.load().as_deref().cloned()
    }

    /// For the shipper.
    #[must_use]
    pub fn source(self: &Arc<Self>) -> ChannelSource {
        let this = self.clone();
        Arc::new(move || this.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_unix_or_https_with_a_port() {
        for (text, wanted) in [
            ("unix:/run/c.sock", Some("unix:/run/c.sock")),
            ("unix:///run/c.sock", Some("unix:/run/c.sock")),
            ("https://control:8082", Some("https://control:8082")),
            ("https://[::1]:8082/", Some("https://[::1]:8082")),
            ("unix:relative", None),
            ("http://control:8082", None),
            ("https://control", None),
            ("https://user@control:1", None),
            ("https://control:8082/path", None),
            ("", None),
        ] {
            let parsed = text.parse::<ControlTarget>().ok().map(|target| target.to_string());
            assert_eq!(parsed.as_deref(), wanted, "{text}");
        }
    }
}
