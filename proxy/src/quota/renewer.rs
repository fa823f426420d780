//! Trades leases with the control plane.
//!
//! Once a second while there is something to trade; ahead of that for a quota of
//! which this node has nothing yet, or which has run short for the first time in
//! a while, all such together in one call; and for a quota that stays short, a
//! few times ahead of the second, which a node that stays short soon has used up.

use std::sync::Arc;
use std::time::Duration;

use clawgate_shared::clock;
use clawgate_shared::proto::node::LeaseRequest;
use clawgate_shared::proto::node::quota_leases_client::QuotaLeasesClient;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::transport::Channel;

use super::trade;
use crate::limits::Slices;

/// From one call to the next.
const PERIOD: Duration = Duration::from_secs(1);
/// Calls ahead of their time for what has run short, and how soon each comes
/// back.
const AHEAD: u32 = 20;
const COMES_BACK: Duration = Duration::from_secs(5);
/// Calls are never closer than this: what becomes cold meanwhile goes along.
const APART: Duration = Duration::from_millis(20);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// Most claims of one call, but for those of its last quota; the control plane
/// takes 4096.
const MAX_CLAIMS: usize = 4000;

/// Gives the channel to the control plane; `None` while there is none.
pub type ChannelSource = Arc<dyn Fn() -> Option<Channel> + Send + Sync>;

/// The background task. Dropping its future at any point loses nothing: all
/// amounts that are traded are cumulative.
pub struct Renewer {
    slices: Arc<Slices>,
    channel: ChannelSource,
    node_id: String,
    epoch: u64,
    instance_id: String,
    calls: Arc<dyn Fn() + Send + Sync>,
}

impl Renewer {
    /// `epoch`: that of the spool whose records settle what is leased.
    /// `instance_id`: the same as in the `Hello` of config sync. `calls` is told
    /// of every call.
    #[must_use]
    pub fn new(
        slices: Arc<Slices>,
        channel: ChannelSource,
        node_id: String,
        epoch: u64,
        instance_id: String,
        calls: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self { slices, channel, node_id, epoch, instance_id, calls }
    }

    /// Trades until it is dropped.
    pub async fn run(self) {
        let mut ahead = Ahead { left: AHEAD, since: Instant::now() };
        let mut regular = Instant::now();
        loop {
            due(&self.slices, &mut ahead, regular).await;
            self.trade().await;
            regular = Instant::now() + PERIOD;
            sleep(APART).await;
        }
    }

    /// One call, if there is anything to say or to hear.
    async fn trade(&self) {
        let asked = clock::boot_micros();
        let claims = self.slices.claims(asked, MAX_CLAIMS);
        if claims.is_empty() && !self.slices.any_lease() {
            return;
        }
        let request = LeaseRequest {
            node_id: self.node_id.clone(),
            epoch: self.epoch,
            instance_id: self.instance_id.clone(),
            claims: claims.iter().map(trade::message).collect(),
        };
        let Some(channel) = (self.channel)() else {
            self.slices.unsaid(&claims);
            return self.slices.called(false, asked);
        };
        (self.calls)();
        let answer = timeout(ANSWER, QuotaLeasesClient::new(channel).trade(request)).await;
        let now = clock::boot_micros();
        match answer {
            Ok(Ok(reply)) => {
                self.slices.called(true, now);
                if trade::take(&self.slices, &claims, reply.into_inner(), asked, now) {
                    // Others wait for what was just given back.
                    self.slices.wake(false);
                }
            }
            Ok(Err(status)) => {
                self.slices.called(false, now);
                self.slices.unsaid(&claims);
                tracing::warn!(code = ?status.code(), message = status.message(), "leases could not be traded");
            }
            Err(_) => {
                self.slices.called(false, now);
                self.slices.unsaid(&claims);
                tracing::warn!("the control plane did not answer about leases in time");
            }
        }
    }
}

/// Waits until the next call is to be made.
async fn due(slices: &Slices, ahead: &mut Ahead, regular: Instant) {
    loop {
        tokio::select! {
            cold = slices.woken() => {
                if cold || ahead.take() {
                    return;
                }
            }
            () = sleep_until(regular) => return,
        }
    }
}

/// Calls that may be made ahead of their time.
struct Ahead {
    left: u32,
    since: Instant,
}

impl Ahead {
    fn take(&mut self) -> bool {
        let back = u32::try_from(self.since.elapsed().as_millis() / COMES_BACK.as_millis()).unwrap_or(AHEAD);
        if back > 0 {
            self.left = self.left.saturating_add(back).min(AHEAD);
            self.since = Instant::now();
        }
        let any = self.left > 0;
        self.left = self.left.saturating_sub(1);
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_cold_does_not_wait_behind_what_is_short() {
        let (slices, began) = (Slices::default(), Instant::now());
        let mut ahead = Ahead { left: 1, since: began };
        let regular = began + PERIOD;
        slices.wake(false);
        due(&slices, &mut ahead, regular).await;
        assert_eq!(Instant::now(), began, "ahead of its time, once");
        let both = async {
            slices.wake(false);
            tokio::time::sleep(PERIOD / 4).await;
            slices.wake(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = due(&slices, &mut ahead, regular) => {}
            () = both => {}
        }
        assert_eq!(Instant::now(), began + PERIOD / 4);
        slices.wake(false);
        due(&slices, &mut ahead, regular).await;
        assert_eq!(Instant::now(), regular);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_stays_short_falls_back_to_its_second() {
        let mut ahead = Ahead { left: AHEAD, since: Instant::now() };
        assert_eq!((0..100).filter(|_| ahead.take()).count(), 20);
        tokio::time::advance(COMES_BACK * 3).await;
        assert_eq!((0..100).filter(|_| ahead.take()).count(), 3);
    }
}
