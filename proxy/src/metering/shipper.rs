//! Carries the spool to the control plane: reads from the files, sends a
//! batch, moves the cursor to what the answer says. Nothing is kept in memory
//! between two batches, so there is nothing to lose here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clawgate_shared::proto::node::ShipRequest;
use clawgate_shared::proto::node::usage_ingest_client::UsageIngestClient;
use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::backoff::Backoff;
use super::shipment;
use super::spool::{ShardLog, Spool, SpoolError};
use crate::quota::ChannelSource;

/// Most records of one batch; the control plane takes twice as many.
const MAX_RECORDS: usize = 32_768;
/// Most bytes of one batch; well below what the control plane takes.
const MAX_BYTES: usize = 8 << 20;
/// Batches under way at the same time, each of another shard.
const MAX_PARALLEL: usize = 8;
/// How long the first records after a rest are gathered before they are sent.
const GATHER: Duration = Duration::from_millis(50);
/// From the beginning of one round to that of the next while records keep
/// coming. The larger a batch, the cheaper each of its records: an exchange
/// that begins and ends in one batch is never written as open, sums of one bot
/// are added up before they reach the database, and pages are written once.
const ROUND: Duration = Duration::from_secs(1);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(15);
/// How often it looks for epochs whose process has gone.
const ADOPT_EVERY: Duration = Duration::from_secs(5);

/// The background task. Dropping its future at any point loses nothing.
pub struct Shipper {
    spool: Arc<Spool>,
    channel: ChannelSource,
    node_id: String,
    instance_id: String,
    waits: HashMap<(u64, u32), (Backoff, Instant)>,
    flushes: watch::Receiver<u64>,
    passes: watch::Sender<Pass>,
}

/// What one round over all pending shards came to.
#[derive(Clone, Copy, Debug, Default)]
struct Pass {
    /// The last flush that had been asked for when it began.
    flush: u64,
    pending: usize,
    progress: bool,
}

/// Asks the shipper for things from outside.
#[derive(Clone, Debug)]
pub struct ShipperHandle {
    spool: Arc<Spool>,
    flushes: Arc<watch::Sender<u64>>,
    passes: watch::Receiver<Pass>,
}

#[derive(Debug, thiserror::Error)]
enum ShipError {
    #[error("no channel to the control plane yet")]
    NoChannel,
    #[error("the control plane did not answer in time")]
    Timeout,
    #[error("the control plane refused: {:?}: {}", .0.code(), .0.message())]
    Refused(Box<tonic::Status>),
    #[error("the control plane still expects position {0}")]
    NoProgress(u64),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("a blocking task was cancelled")]
    Cancelled,
}

impl Shipper {
    /// `instance_id`: the same as in the `Hello` of config sync.
    #[must_use]
    pub fn new(
        spool: Arc<Spool>,
        channel: ChannelSource,
        node_id: String,
        instance_id: String,
    ) -> (Self, ShipperHandle) {
        let (flush_sender, flushes) = watch::channel(0);
        let (passes, pass_receiver) = watch::channel(Pass::default());
        let handle = ShipperHandle { spool: spool.clone(), flushes: Arc::new(flush_sender), passes: pass_receiver };
        (Self { spool, channel, node_id, instance_id, waits: HashMap::new(), flushes, passes }, handle)
    }

    /// Ships until it is dropped.
    pub async fn run(mut self) {
        let mut next_adoption = Instant::now();
        loop {
            if Instant::now() >= next_adoption {
                self.adopt().await;
                next_adoption = Instant::now() + ADOPT_EVERY;
            }
            let flush = *self.flushes.borrow_and_update();
            if flush > self.passes.borrow().flush {
                self.waits.clear();
            }
            let began = Instant::now();
            let progress = self.pass().await;
            let pending = self.spool.pending().len();
            self.passes.send_replace(Pass { flush, pending, progress });
            if !progress || pending == 0 {
                self.rest(next_adoption).await;
            } else if self.spool.stats().records < MAX_RECORDS as u64 {
                // Not worth a transaction of its own yet.
                self.linger(began + ROUND).await;
            }
        }
    }

    async fn adopt(&self) {
        let spool = self.spool.clone();
        let result = spawn_blocking(move || {
            let adopted = spool.adopt();
            spool.reap().and(adopted)
        });
        if let Ok(Err(error)) = result.await {
            tracing::warn!(%error, "a usage epoch of an earlier process was not taken over");
        }
    }

    /// One batch of every shard that may be tried. Whether any got further.
    async fn pass(&mut self) -> bool {
        let now = Instant::now();
        let mut logs = self.spool.pending();
        let keys: Vec<_> = logs.iter().map(key).collect();
        self.waits.retain(|key, _| keys.contains(key));
        logs.retain(|log| self.waits.get(&key(log)).is_none_or(|(_, until)| *until <= now));
        let this = &*self;
        let results: Vec<_> = futures::stream::iter(logs)
            .map(|log| async move {
                let result = this.ship(&log).await;
                (log, result)
            })
            .buffer_unordered(MAX_PARALLEL)
            .collect()
            .await;
        let mut progress = false;
        for (log, result) in results {
            match result {
                Ok(()) => {
                    self.waits.remove(&key(&log));
                    progress = true;
                }
                Err(error) => self.wait(&log, &error),
            }
        }
        if progress {
            let spool = self.spool.clone();
            if let Ok(Err(error)) = spawn_blocking(move || spool.reap()).await {
                tracing::warn!(%error, "a finished usage epoch was not removed");
            }
        }
        progress
    }

    fn wait(&mut self, log: &ShardLog, error: &ShipError) {
        let (backoff, until) = self.waits.entry(key(log)).or_insert_with(|| (Backoff::default(), Instant::now()));
        let delay = backoff.next_delay();
        *until = Instant::now() + delay;
        let (epoch, shard, millis) = (log.epoch(), log.shard(), u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        match error {
            ShipError::NoChannel | ShipError::Timeout | ShipError::Cancelled => {
                tracing::debug!(%error, epoch, shard, millis, "usage waits");
            }
            _ => tracing::warn!(%error, epoch, shard, millis, "usage was not taken; it is sent again"),
        }
    }

    async fn ship(&self, log: &ShardLog) -> Result<(), ShipError> {
        let channel = (self.channel)().ok_or(ShipError::NoChannel)?;
        let reader = log.clone();
        let batch = blocking(move || shipment::next(&reader, MAX_RECORDS, MAX_BYTES)).await?;
        if batch.records.is_empty() {
            return Ok(());
        }
        let (first, end) = (batch.first_position, batch.next_position());
        let request = ShipRequest {
            node_id: self.node_id.clone(),
            epoch: log.epoch(),
            shard: log.shard(),
            first_position: first,
            records: batch.records,
            instance_id: self.instance_id.clone(),
        };
        let mut client = UsageIngestClient::new(channel);
        let answer = timeout(ANSWER, client.ship(request)).await.map_err(|_| ShipError::Timeout)?;
        let next = answer.map_err(|status| ShipError::Refused(Box::new(status)))?.into_inner().next_position;
        if next != end {
            tracing::warn!(
                first,
                end,
                next,
                epoch = log.epoch(),
                shard = log.shard(),
                "the control plane is elsewhere"
            );
        }
        let owner = log.clone();
        let further = blocking(move || shipment::answered(&owner, (first, end), next)).await?;
        if further { Ok(()) } else { Err(ShipError::NoProgress(next)) }
    }

    /// Until `end`, or until a flush is asked for.
    async fn linger(&mut self, end: Instant) {
        tokio::select! {
            () = sleep_until(end) => {}
            Ok(()) = self.flushes.changed() => {}
        }
    }

    /// Until there is something to do.
    async fn rest(&mut self, next_adoption: Instant) {
        let retry = self.waits.values().map(|(_, until)| *until).min();
        let wake = retry.map_or(next_adoption, |retry| retry.min(next_adoption));
        tokio::select! {
            () = self.spool.wait_synced() => sleep(GATHER).await,
            () = sleep_until(wake) => {}
            changed = self.flushes.changed() => {
                if changed.is_err() {
                    // Nobody can ask for a flush any more; the others still wake us.
                    sleep_until(wake.min(Instant::now() + GATHER)).await;
                }
            }
        }
    }
}

impl ShipperHandle {
    /// Sends what is in the spool, now. Ends when everything is acknowledged,
    /// when a try got nowhere (the control plane is away: a successor ships the
    /// rest), or after `limit`. Returns whether the spool is empty.
    pub async fn flush(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let spool = self.spool.clone();
        let _ = spawn_blocking(move || spool.sync()).await;
        let mut passes = self.passes.clone();
        let mut number = 0;
        self.flushes.send_modify(|last| {
            *last += 1;
            number = *last;
        });
        let done = passes.wait_for(|pass| pass.flush >= number && (pass.pending == 0 || !pass.progress));
        let seen = timeout_at(deadline, done).await;
        matches!(seen, Ok(Ok(pass)) if pass.pending == 0)
    }
}

fn key(log: &ShardLog) -> (u64, u32) {
    (log.epoch(), log.shard())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, ShipError> {
    Ok(spawn_blocking(work).await.map_err(|_| ShipError::Cancelled)??)
}
