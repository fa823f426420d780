//! Who is calling, as the transport proves it.

use tonic::{Request, Status};

use crate::fleet::ca::node_of_certificate;

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
                .and_then(|chain| chain.first().and_then(|leaf| node_of_certificate(leaf)))
                .map_or(Self::Stranger, Self::Node),
        }
    }

    /// Refuses a caller that is not the node it claims to be.
    // A status is what a handler returns; boxing it would help nobody.
    #[allow(clippy::result_large_err)]
    pub(super) fn check(&self, claimed: &str) -> Result<(), Status> {
        match self {
            Self::Local => Ok(()),
            Self::Node(proved) if proved == claimed => Ok(()),
            Self::Node(_) => Err(Status::permission_denied("the certificate belongs to another node")),
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
    }
}
