//! `clawgate.node.v1.QuotaLeases`.

use std::sync::Arc;

use clawgate_shared::clock;
use clawgate_shared::proto::node::quota_leases_server::QuotaLeases;
use clawgate_shared::proto::node::{Lease, LeaseClaim, LeaseReply, LeaseRequest};
use tonic::{Request, Response, Status, async_trait};

use super::peer::{Peer, Transport};
use crate::fleet::Fleet;
use crate::quota::trade::MAX_AMOUNT;
use crate::quota::{Answer, Claim, Holder, TradeError, USABLE_MILLIS};
use crate::store::StoreError;

pub(super) struct Service {
    pub(super) fleet: Arc<Fleet>,
    pub(super) transport: Transport,
}

#[async_trait]
impl QuotaLeases for Service {
    async fn trade(&self, request: Request<LeaseRequest>) -> Result<Response<LeaseReply>, Status> {
        let peer = Peer::of(self.transport, &request);
        let request = request.into_inner();
        peer.check(&request.node_id)?;
        if !clawgate_shared::id::Kind::Node.matches(&request.node_id) {
            return Err(Status::invalid_argument("node_id is no node id"));
        }
        let epoch = i64::try_from(request.epoch).map_err(|_| Status::invalid_argument("epoch is too large"))?;
        let claims: Vec<Claim> = request.claims.into_iter().map(claim).collect();
        let holder = Holder { node_id: &request.node_id, epoch };
        let answers = self.fleet.trade(holder, &claims).await.map_err(|error| refusal(&request.node_id, &error))?;
        Ok(Response::new(reply(answers, clock::now_micros())))
    }
}

/// What a node is told, at `now`.
#[must_use]
pub fn reply(answers: Vec<Answer>, now: i64) -> LeaseReply {
    let leases = answers.into_iter().map(lease).collect();
    LeaseReply { leases, control_time_micros: now, usable_millis: USABLE_MILLIS }
}

/// A claim as it came, its amounts bounded.
#[must_use]
pub fn claim(claim: LeaseClaim) -> Claim {
    let amount = |value: u64| i64::try_from(value).unwrap_or(MAX_AMOUNT).min(MAX_AMOUNT);
    Claim {
        quota_id: claim.quota_id,
        window_start: claim.window_start_micros,
        next: claim.next,
        granted: amount(claim.granted),
        returned: amount(claim.returned),
        want: amount(claim.want),
        least: amount(claim.least),
    }
}

fn lease(answer: Answer) -> Lease {
    let amount = |value: i64| u64::try_from(value).unwrap_or(0);
    Lease {
        quota_id: answer.quota_id,
        window_start_micros: answer.window.start,
        window_end_micros: answer.window.end,
        granted: amount(answer.granted),
        returned: amount(answer.returned),
        limit: amount(answer.limit),
        settled: amount(answer.settled),
        outstanding: amount(answer.outstanding),
        recall: amount(answer.recall),
        gone: answer.gone,
    }
}

fn refusal(node: &str, error: &TradeError) -> Status {
    match error {
        TradeError::Ended => Status::failed_precondition(error.to_string()),
        TradeError::Revoked => Status::permission_denied(error.to_string()),
        TradeError::Invalid(_) => Status::invalid_argument(error.to_string()),
        TradeError::Store(StoreError::Busy) => Status::unavailable("the database is busy"),
        TradeError::Store(cause) => {
            tracing::error!(node, %cause, "leases were not traded");
            Status::unavailable("leases cannot be traded now")
        }
    }
}
