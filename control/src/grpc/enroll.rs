//! `clawgate.node.v1.Fleet`.

use std::sync::Arc;

use clawgate_shared::proto::node::fleet_server::Fleet as FleetService;
use clawgate_shared::proto::node::{EnrollRequest, EnrollResponse, RenewRequest};
use tonic::{Request, Response, Status, async_trait};

use super::peer::{Peer, Transport};
use crate::fleet::{EnrollError, Enrolled, Fleet};

pub(super) struct Service {
    pub(super) fleet: Arc<Fleet>,
    pub(super) transport: Transport,
}

#[async_trait]
impl FleetService for Service {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let EnrollRequest { token, node_id, csr_der, software_version } = request.into_inner();
        let enrolled = match self.transport {
            Transport::Local => self.fleet.enroll_local(&node_id, &software_version).await,
            Transport::Tls => self.fleet.enroll(&node_id, &token, &csr_der, &software_version).await,
        };
        self.answer(enrolled)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<EnrollResponse>, Status> {
        let peer = Peer::of(self.transport, &request);
        let RenewRequest { node_id, csr_der } = request.into_inner();
        peer.check(&node_id)?;
        let enrolled = match peer {
            Peer::Local => self.fleet.enroll_local(&node_id, "").await,
            Peer::Node(_) | Peer::Runner(_) | Peer::Stranger => self.fleet.renew(&node_id, &csr_der).await,
        };
        self.answer(enrolled)
    }
}

impl Service {
    #[allow(clippy::result_large_err)]
    fn answer(&self, enrolled: Result<Enrolled, EnrollError>) -> Result<Response<EnrollResponse>, Status> {
        let Enrolled { certificate, sealing_key } = enrolled.map_err(|error| refusal(&error))?;
        let ca_pem = if certificate.is_some() { self.fleet.ca_pem().to_owned() } else { String::new() };
        let (certificate_pem, expires_at) = certificate.map(|made| (made.pem, made.expires_at)).unwrap_or_default();
        Ok(Response::new(EnrollResponse {
            certificate_pem,
            ca_pem,
            sealing_key: sealing_key.expose().to_vec(),
            certificate_expires_at_micros: expires_at,
        }))
    }
}

pub(super) fn refusal(error: &EnrollError) -> Status {
    let text = error.to_string();
    match error {
        EnrollError::NodeId | EnrollError::Request => Status::invalid_argument(text),
        EnrollError::Token => Status::unauthenticated(text),
        EnrollError::TokenUsed | EnrollError::Revoked => Status::permission_denied(text),
        EnrollError::NodeTaken => Status::already_exists(text),
        EnrollError::Unknown => Status::not_found(text),
        EnrollError::Internal(cause) => {
            tracing::error!(%cause, "enrolment failed");
            Status::unavailable(text)
        }
    }
}
