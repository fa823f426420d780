//! Asks vendors about keys that they refused: single-flight per key, a few at a
//! time, not more often than the keys' interval. A key that recovers does so
//! without a bot's request.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clawgate_shared::clock;
use http::Method;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::client::{Answer, Client, Failure, Outgoing};
use super::headers::for_probe;
use super::uri::target_uri;
use crate::routing::health::PEEK;
use crate::routing::{Key, News, Signal, Verdict};
use crate::snapshot::Handle;

/// Vendors asked at one time.
const AT_ONCE: usize = 8;
/// Longest wait for an answer; shorter than what a claim lasts.
const LIMIT: Duration = Duration::from_secs(10);
/// How often keys that wait for their turn are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Tells that keys' standings changed: the prober looks, the control plane hears of
/// it, and it is kept on disk.
#[derive(Debug, Default)]
pub struct KeyNews {
    probe: Notify,
    report: Notify,
    keep: Notify,
}

impl KeyNews {
    /// Passes news on.
    pub fn spread(&self, news: News) {
        if news.0 {
            self.probe.notify_one();
            self.report.notify_one();
            self.keep.notify_one();
        }
    }

    /// Resolves when there is something to report; one waiter.
    pub async fn to_report(&self) {
        self.report.notified().await;
    }

    /// Resolves when there is something to keep; one waiter.
    pub async fn to_keep(&self) {
        self.keep.notified().await;
    }
}

/// Sends probes until it is dropped.
pub struct Prober {
    /// The way to vendors.
    pub client: Arc<Client>,
    /// Which keys there are.
    pub snapshots: Arc<Handle>,
    /// Wakes it, and hears what it finds.
    pub news: Arc<KeyNews>,
}

impl Prober {
    /// The background task.
    pub async fn run(self) {
        let mut running = JoinSet::new();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                () = self.news.probe.notified() => {}
                Some(_) = running.join_next() => {}
            }
            let Some(snapshot) = self.snapshots.load() else { continue };
            for key in &snapshot.keys {
                if running.len() >= AT_ONCE {
                    break;
                }
                if key.probe.is_some() && key.health.claim_probe(clock::boot_micros()) {
                    running.spawn(ask(self.client.clone(), self.news.clone(), key.clone()));
                }
            }
        }
    }
}

async fn ask(client: Arc<Client>, news: Arc<KeyNews>, key: Arc<Key>) {
    let verdict = match timeout(LIMIT, answer(&client, &key)).await {
        Ok(Ok(signal)) => verdict(signal),
        Ok(Err(failure)) => {
            tracing::debug!(key = %key.id, %failure, "a probe came to nothing");
            Verdict::Unclear
        }
        Err(_) => Verdict::Unclear,
    };
    let found = key.health.probed(verdict, clock::boot_micros());
    if found.0 {
        tracing::info!(key = %key.id, vendor = %key.vendor, ?verdict, "a provider key was probed");
    }
    news.spread(found);
}

async fn answer(client: &Client, key: &Key) -> Result<Signal, Failure> {
    let Some(probe) = &key.probe else { return Ok(Signal::Nothing) };
    let target = client.target(&key.base.origin)?;
    let uri = target_uri(probe.target.clone(), None, &key.credential)?;
    let headers = for_probe(probe, key, &target.host);
    let request =
        || Outgoing { method: Method::GET, uri: uri.clone(), headers: headers.clone(), body: bytes::Bytes::new() };
    let mut answer = client.send(&target, &AtomicBool::new(false), request).await?;
    let body = answer.peek(PEEK).await;
    let signal = Signal::read(answer.status.as_u16(), &answer.headers, &body, clock::now_micros);
    if drained(&mut answer).await {
        client.release(answer).await;
    }
    Ok(signal)
}

/// Whether the little that was read ahead was all.
async fn drained(answer: &mut Answer) -> bool {
    while !answer.done() {
        if !matches!(timeout(Duration::ZERO, answer.chunk()).await, Ok(Ok(Some(_)))) {
            return false;
        }
    }
    true
}

/// Being asked to wait proves nothing.
const fn verdict(signal: Signal) -> Verdict {
    match signal {
        Signal::Good | Signal::UsedUp(_) => Verdict::Good,
        Signal::Refused => Verdict::Refused,
        Signal::Spent => Verdict::Spent,
        Signal::Nothing | Signal::Limited(_) => Verdict::Unclear,
    }
}
