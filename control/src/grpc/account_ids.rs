//! `clawgate.node.v1.AccountIds`.

use std::sync::Arc;

use clawgate_shared::catalogue::{MAX_ACCOUNT_ID, MAX_ACCOUNT_IDS};
use clawgate_shared::proto::node::account_ids_server::AccountIds;
use clawgate_shared::proto::node::{FindIdsReply, FindIdsRequest, IdMaker};
use tonic::{Request, Response, Status, async_trait};

use super::peer::{Peer, Transport};
use crate::fleet::Fleet;
use crate::store::StoreError;
use crate::store::account_ids::Place;

/// Longest tenant id or slug of a question, in bytes.
const MAX_TEXT: usize = 256;

pub(super) struct Service {
    pub(super) fleet: Arc<Fleet>,
    pub(super) transport: Transport,
}

#[async_trait]
impl AccountIds for Service {
    async fn find(&self, request: Request<FindIdsRequest>) -> Result<Response<FindIdsReply>, Status> {
        let peer = Peer::of(self.transport, &request);
        let FindIdsRequest { node_id, tenant_id, vendor, ids } = request.into_inner();
        peer.check(&node_id)?;
        if ids.len() > MAX_ACCOUNT_IDS || tenant_id.len() > MAX_TEXT || vendor.len() > MAX_TEXT {
            return Err(Status::invalid_argument("too many ids, or too long a text"));
        }
        // A client may name what it likes.
        let asked = |id: &&String| id.len() <= MAX_ACCOUNT_ID && !id.contains('\0');
        let some: Vec<String> = ids.iter().filter(asked).cloned().collect();
        let place = Place { tenant_id: &tenant_id, vendor: &vendor };
        let found = self.fleet.find_makers(&node_id, place, &some).await.map_err(|error| refusal(&node_id, &error))?;
        let Some(found) = found else { return Err(Status::permission_denied("this node was revoked")) };
        let mut found = found.into_iter();
        let maker = |id: &String| {
            let maker = if asked(&id) { found.next().flatten() } else { None };
            maker.map_or_else(IdMaker::default, |maker| IdMaker {
                bot_id: maker.bot_id,
                provider_key_id: maker.provider_key_id,
            })
        };
        Ok(Response::new(FindIdsReply { makers: ids.iter().map(maker).collect() }))
    }
}

fn refusal(node: &str, error: &StoreError) -> Status {
    if matches!(error, StoreError::Busy) {
        return Status::unavailable("the database is busy");
    }
    tracing::error!(node, %error, "who made an id was not found out");
    Status::unavailable("ids cannot be looked up now")
}
