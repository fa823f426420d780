//! `clawgate.node.v1.UsageIngest`.

use std::sync::Arc;

use clawgate_shared::proto::node::usage_ingest_server::UsageIngest;
use clawgate_shared::proto::node::{ShipReply, ShipRequest};
use tonic::{Request, Response, Status, async_trait};

use super::peer::{Peer, Transport};
use crate::fleet::Fleet;
use crate::ingest::{Batch, IngestError};
use crate::store::StoreError;

pub(super) struct Service {
    pub(super) fleet: Arc<Fleet>,
    pub(super) transport: Transport,
}

#[async_trait]
impl UsageIngest for Service {
    async fn ship(&self, request: Request<ShipRequest>) -> Result<Response<ShipReply>, Status> {
        let peer = Peer::of(self.transport, &request);
        let request = request.into_inner();
        peer.check(&request.node_id)?;
        let accepted =
            self.fleet.ingest(Batch::from(&request)).await.map_err(|error| refusal(&request.node_id, &error))?;
        Ok(Response::new(ShipReply { next_position: accepted.next_position }))
    }
}

fn refusal(node: &str, error: &IngestError) -> Status {
    match error {
        IngestError::Fenced => Status::failed_precondition(error.to_string()),
        IngestError::Revoked => Status::permission_denied(error.to_string()),
        IngestError::Invalid(_) => Status::invalid_argument(error.to_string()),
        IngestError::Store(StoreError::Busy) => Status::unavailable("the database is busy"),
        IngestError::Store(cause) => {
            tracing::error!(node, %cause, "usage was not taken");
            Status::unavailable("usage cannot be stored now")
        }
    }
}
