//! Who is calling, as the transport proves it.

use tonic::{Request, Status};

use crate::fleet::ca::{node_of_certificate, runner_of_certificate};

/// How a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// Over the Unix socket, which only this machine's operator can open.
    Local,
    /// Over TLS.
    Tls,
}

/// Who a caller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process of this machine; it says itself which node it is.
    Local,
    /// The node that its certificate names.
    Node(String),
    /// The runner that its certificate names.
    Runner(String),
    /// Over TLS without a certificate of ours.
    Stranger,
}

impl Peer {
    /// The caller of `request`. The certificate was verified in the handshake.
    pub(super) fn of<T>(transport: Transport, request: &Request<T>) -> Self {
        match transport {
            Transport::Local => Self::Local,
            Transport::Tls => request
                .peer_certs()
                .and_then(|chain| {
                    let leaf = chain.first()?;
                    let node = node_of_certificate(leaf).map(Self::Node);
                    node.or_else(|| runner_of_certificate(leaf).map(Self::Runner))
                })
                .unwrap_or(Self::Stranger),
        }
    }

    /// Refuses a caller that is not the node it claims to be.
    // A status is what a handler returns; boxing it would help nobody.
    #[allow(clippy::result_large_err)]
    pub(super) fn check(&self, claimed: &str) -> Result<(), Status> {
        match self {
            Self::Local => Ok(()),
            Self::Node(proved) if proved == claimed => Ok(()),
            Self::Node(_) | Self::Runner(_) => {
                Err(Status::permission_denied("the certificate belongs to another node"))
            }
            Self::Stranger => Err(Status::unauthenticated("a client certificate is required; enrol first")),
        }
    }

    /// Refuses a caller that is not the runner it claims to be.
    #[allow(clippy::result_large_err)]
    pub(super) fn check_runner(&self, claimed: &str) -> Result<(), Status> {
        match self {
            Self::Local => Ok(()),
            Self::Runner(proved) if proved == claimed => Ok(()),
            Self::Node(_) | Self::Runner(_) => {
                Err(Status::permission_denied("the certificate belongs to another runner"))
            }
            Self::Stranger => Err(Status::unauthenticated("a client certificate is required; enrol first")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_speaks_for_its_own_node_only() {
        use tonic::Code;
        let code = |peer: Peer| peer.check("node_1").err().map(|status| status.code());
        assert_eq!(code(Peer::Local), None);
        assert_eq!(code(Peer::Node("node_1".into())), None);
        assert_eq!(code(Peer::Node("node_2".into())), Some(Code::PermissionDenied));
        assert_eq!(code(Peer::Stranger), Some(Code::Unauthenticated));
        assert_eq!(code(Peer::Runner("node_1".into())), Some(Code::PermissionDenied));
        let runner = |peer: Peer| peer.check_runner("run_1").err().map(|status| status.code());
        assert_eq!(runner(Peer::Local), None);
        assert_eq!(runner(Peer::Runner("run_1".into())), None);
        assert_eq!(runner(Peer::Runner("run_2".into())), Some(Code::PermissionDenied));
        assert_eq!(runner(Peer::Node("run_1".into())), Some(Code::PermissionDenied));
        assert_eq!(runner(Peer::Stranger), Some(Code::Unauthenticated));
    }
}
