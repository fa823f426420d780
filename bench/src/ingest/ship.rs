//! Ships batches as a node does: one under way per shard.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clawgate_shared::id;
use clawgate_shared::proto::node::ShipRequest;
use clawgate_shared::proto::node::usage_ingest_client::UsageIngestClient;
use tokio::sync::mpsc;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::records::{Source, Truth, World};
use crate::failure::Failure;

/// Before a batch is sent again that the control plane could not take.
const RETRY: Duration = Duration::from_millis(250);

/// How much is shipped, and how.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) socket: PathBuf,
    /// All shards together.
    pub(super) events: u64,
    pub(super) limit: Duration,
    /// Events per batch.
    pub(super) batch: u64,
    /// Events per second of all shards together; 0: as fast as they are taken.
    pub(super) rate: u64,
}

/// Ships until everything or the time is over; what was acknowledged.
pub(super) fn ship(plan: &Plan, world: &World) -> Result<Truth, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::setup("runtime"))?;
    runtime.block_on(async {
        let node = id::new(id::Kind::Node);
        let endpoint =
            Endpoint::from_shared(format!("unix:{}", plan.socket.display())).map_err(Failure::setup("gRPC socket"))?;
        let budget = Arc::new(AtomicU64::new(plan.events));
        let began = Instant::now();
        let mut tasks = Vec::new();
        for shard in 0..world.shards {
            let channel = endpoint.connect_lazy();
            let source = Source::new(world.clone(), shard);
            let place = (node.clone(), shard, world.shards);
            tasks.push(tokio::spawn(one_shard(plan.clone(), source, place, channel, budget.clone(), began)));
        }
        let shards = world.shards;
        let mut truth = Truth::default();
        for task in tasks {
            truth.add(task.await.map_err(Failure::setup(format!("one of {shards} shards")))??);
        }
        Ok(truth)
    })
}

async fn one_shard(
    plan: Plan,
    mut source: Source,
    (node_id, shard, shards): (String, u64, u64),
    channel: Channel,
    budget: Arc<AtomicU64>,
    began: Instant,
) -> Result<Truth, Failure> {
    let mut client = UsageIngestClient::new(channel);
    // The next batch is made while the last one is under way.
    let (sender, mut batches) = mpsc::channel(1);
    let size = plan.batch;
    tokio::spawn(async move {
        while let Ok(left) = budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| (left > 0).then_some(left.saturating_sub(size)))
        {
            if sender.send(source.batch(left.min(size))).await.is_err() {
                break;
            }
        }
    });
    let mut truth = Truth::default();
    let mut first_position = 0;
    while began.elapsed() < plan.limit {
        let Some((records, made)) = batches.recv().await else { break };
        let end = first_position + records.len() as u64;
        let request = ShipRequest {
            node_id: node_id.clone(),
            epoch: 1,
            shard: u32::try_from(shard).unwrap_or(0),
            first_position,
            records,
            instance_id: "bench".to_owned(),
        };
        let reply = loop {
            match client.ship(request.clone()).await {
                Ok(reply) => break reply.into_inner(),
                // A node tries again as well, and its records are still there.
                Err(status) if status.code() == Code::Unavailable && began.elapsed() < plan.limit => {
                    truth.delayed += 1;
                    tokio::time::sleep(RETRY).await;
                }
                Err(status) => return Err(Failure::setup("a batch was refused")(status)),
            }
        };
        if reply.next_position != end {
            return Err(Failure::Void(format!("position {} after a batch up to {end}", reply.next_position)));
        }
        first_position = end;
        truth.add(made);
        if let Some(millis) = (truth.events * shards * 1000).checked_div(plan.rate) {
            tokio::time::sleep_until((began + Duration::from_millis(millis)).into()).await;
        }
    }
    Ok(truth)
}
