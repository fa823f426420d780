//! The whole life of a request.
//!
//! Invariant: `run` is the only entry and [`Settlement`] the only exit; every
//! stage is straight-line code that either hands on what it found or refuses.
//! One snapshot is loaded and serves to the end. The stages, in order:
//! receive → authenticate → pass → prepare → target → ties → chain (for one target
//! after another: admit → plan → attempt) → relay (or tunnel) → settle. What this node
//! answers itself ends in `local` instead.
//! Deliberately absent: sockets (a [`Downstream`] and the upstream client stand
//! for them) and configuration that could change underway.

mod account;
mod admit;
mod attempt;
mod authenticate;
mod budget;
mod chain;
mod counting;
mod drains;
mod grow;
mod local;
mod pass;
mod plan;
mod ports;
mod prepare;
mod receive;
mod record;
mod reject;
mod relay;
mod settle;
mod span;
mod talk;
mod target;
mod ties;
mod tunnel;
mod watch;
mod within;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use http::HeaderValue;

use crate::accounts::Makers;
use crate::limits::{Gates, Learned, Level, Pressure, Slices};
use crate::metering::Spool;
use crate::snapshot::{Handle, Snapshot};
use crate::telemetry::{AccessLog, Metrics, Traces};
use crate::upstream::{Client, KeyNews};
use crate::wire::error::Code;

pub use budget::{BodyBudget, Held};
pub use counting::Counting;
pub use drains::{DrainLimits, Drains};
pub use ports::{BodyError, Downstream, Gone, Head, Length};
pub use reject::Refusal;
pub use settle::{Outcome, Settlement, WhenFull};

use authenticate::Caller;
use local::Page;
use receive::Wanted;
use record::Facts;

/// What exchanges share.
pub struct Services {
    /// The configuration.
    pub snapshots: Arc<Handle>,
    /// The way to vendors.
    pub client: Arc<Client>,
    /// Where changes of keys' standings are told.
    pub key_news: Arc<KeyNews>,
    /// Where usage is made durable.
    pub spool: Arc<Spool>,
    /// What happens when it takes no more.
    pub when_full: WhenFull,
    /// What this node has of each quota.
    pub slices: Arc<Slices>,
    /// What requests usually use, for quotas that go by it.
    pub learned: Learned,
    /// Who made what in vendor accounts.
    pub makers: Arc<Makers>,
    /// Rate and concurrency limits, and what is used of them.
    pub gates: Arc<Gates>,
    /// Metric families.
    pub metrics: Arc<Metrics>,
    /// Access lines.
    pub access: AccessLog,
    /// Spans.
    pub traces: Traces,
    /// Seconds since the control plane was last heard.
    pub config_age_secs: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Exchanges now, and how many there may be.
    pub inflight: Inflight,
    /// How near this process is to the end of its memory.
    pub pressure: Arc<Pressure>,
    /// Request bodies held in memory.
    pub bodies: BodyBudget,
    /// Counts tokens that no vendor reported.
    pub counting: Arc<Counting>,
    /// Answers that are read on without their clients.
    pub drains: Drains,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

/// Counts exchanges against a cap.
#[derive(Debug)]
pub struct Inflight {
    now: AtomicUsize,
    total: AtomicU64,
    limit: usize,
}

/// One exchange's place; gives it back when dropped.
#[must_use]
#[derive(Debug)]
struct Place<'a>(&'a Inflight);

impl Inflight {
    /// At most `limit` exchanges at once.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { now: AtomicUsize::new(0), total: AtomicU64::new(0), limit }
    }

    /// How many there are.
    #[must_use]
    pub fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// How many there have been since the process started.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    fn enter(&self) -> (Place<'_>, bool) {
        self.total.fetch_add(1, Ordering::Relaxed);
        let before = self.now.fetch_add(1, Ordering::Relaxed);
        (Place(self), before < self.limit)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one request on `down`.
pub async fn run<D: Downstream>(services: &Services, down: &mut D) {
    let (_place, admitted) = services.inflight.enter();
    let head = down.take_head();
    let mut facts = Facts::begin(&head.method, head.uri.path(), &head.headers);
    facts.trace = services.traces.begin(head.headers.get_all("traceparent").iter().map(HeaderValue::as_bytes));
    let mut settlement = Settlement::new(services, facts);
    let ended = stages(services, &mut settlement, head, down, admitted).await;
    match ended {
        Ok((outcome, refusal)) => settlement.settle(outcome, refusal),
        Err(refusal) => {
            settlement.facts.status = refusal.code.status();
            settlement.pass.leave();
            let answered = if settlement.client_gone {
                down.abort();
                Err(Gone)
            } else {
                reject::answer(down, &settlement.facts, &refusal).await
            };
            let outcome = match (answered, settlement.dispatched()) {
                (Err(Gone), true) => Outcome::ClientDisconnect,
                (_, true) => Outcome::Failed,
                (_, false) => Outcome::Refused,
            };
            settlement.settle(outcome, Some(refusal));
        }
    }
}

/// The stages up to the relayed answer. `Err` means that nothing has been sent
/// to the client yet; a refusal beside an outcome ended a stream midway.
async fn stages<D: Downstream>(
    services: &Services,
    settlement: &mut Settlement<'_>,
    head: Head,
    down: &mut D,
    admitted: bool,
) -> Result<(Outcome, Option<Refusal>), Refusal> {
    settlement.facts.dialect = receive::likely_dialect(head.uri.path(), &head.headers);
    let received = receive::receive(head)?;
    if received.wanted == Wanted::Local(Page::Health) {
        return local::health(settlement, &received, down).await;
    }
    let seen = services.snapshots.swaps();
    let snapshot = current(services)?;
    let Caller { bot, token } = authenticate::authenticate(&snapshot, &received)?;
    settlement.facts.bot = Some(bot.clone());
    settlement.facts.config = snapshot.version.clone();
    settlement.facts.config_header.clone_from(&snapshot.version_header);
    authenticate::from_its_network(&token, received.source)?;
    authenticate::may_call(&bot)?;
    settlement.pass = pass::Pass::enter(&bot)?;
    has_room(services, admitted)?;
    if let Wanted::Local(page) = &received.wanted {
        return local::answer(settlement, &bot, token, &received, page, down).await;
    }
    let asked = prepare::asked(&bot, &received, &mut settlement.facts)?;
    let payload = prepare::payload(services, &bot, &received, &asked, &mut settlement.facts, down).await?;
    let targets = target::targets(&bot, &received, &asked, &payload, &mut settlement.facts)?;
    let ties = ties::ties(services, &bot, &received, &asked, &payload, &targets).await?;
    settlement.listens = ties.listens;
    let mut watch = watch::Watch::new(&services.snapshots, bot.clone(), token, seen);
    let request = chain::Request { bot: &bot, received: &received, payload: &payload, ties: &ties };
    let (prepared, chosen) = chain::serve(settlement, &request, &targets, asked, &mut watch, down).await?;
    if chosen.drain.is_some() {
        return Ok(relay::without_client(settlement, &prepared, chosen, watch).await);
    }
    if chosen.answer.status == http::StatusCode::SWITCHING_PROTOCOLS {
        return Ok(tunnel::tunnel(settlement, &prepared, chosen, watch, down).await);
    }
    relay::relay(settlement, &prepared, chosen, watch, down).await
}

/// Whether the node can take a further exchange. Asked when it is known whose it
/// is, so that a bot at its own limit hears of that, and before its body is
/// read, so that saying no is cheap.
fn has_room(services: &Services, admitted: bool) -> Result<(), Refusal> {
    if !admitted {
        let text = "this node serves as many requests as it may; try again in a moment";
        return Err(Refusal::new(Code::Overloaded, text));
    }
    if services.pressure.level() >= Level::Shed {
        return Err(Refusal::new(Code::Overloaded, "this node is short of memory; try again in a moment"));
    }
    Ok(())
}

/// The snapshot that this exchange will see.
fn current(services: &Services) -> Result<Arc<Snapshot>, Refusal> {
    let snapshot = services.snapshots.load().ok_or_else(|| {
        Refusal::new(Code::NotConfigured, "this node has no configuration yet; it is waiting for the control plane")
    })?;
    let limit = snapshot.max_config_age_secs;
    if limit > 0 && (services.config_age_secs)() > limit {
        let text = "this node has not heard from the control plane for too long to trust its configuration";
        return Err(Refusal::new(Code::ConfigTooOld, text));
    }
    Ok(snapshot)
}
