//! Driving a target: closed loop (as fast as it answers) or open loop (at a
//! given rate, whatever it does).
//!
//! In the open loop latency counts from the moment a request was due, so a
//! target that stalls is charged for all the requests it kept waiting
//! (no coordinated omission).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use super::connection::Connection;
use super::measurement::Measurement;
use super::target::Target;
use crate::failure::Failure;

/// How long requests under way may take after the end.
const GRACE: Duration = Duration::from_secs(30);
/// Pause after a connection could not be opened.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// How requests are spaced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// Each connection asks again as soon as it has its answer.
    Closed { connections: usize },
    /// This many per second over at most this many connections.
    Open { rate: f64, connections: usize },
}

/// One stretch of load.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    /// Sent in turn: connection `i` of `n` sends `i`, `i + n`, `i + 2n`, …
    pub(crate) requests: Vec<Arc<[u8]>>,
    pub(crate) pace: Pace,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) threads: usize,
}

/// Runs a plan to its end.
pub(crate) fn drive(plan: &Plan) -> Result<Measurement, Failure> {
    if plan.requests.is_empty() {
        return Err(Failure::Input("there is no request to send".to_owned()));
    }
    let threads = plan.threads.max(1);
    let workers: Vec<_> = (0..threads)
        .map(|index| {
            let plan = share(plan, index, threads);
            std::thread::Builder::new().name(format!("load-{index}")).spawn(move || drive_one(&plan))
        })
        .collect();
    let mut total = Measurement::new()?;
    for worker in workers {
        let worker = worker.map_err(Failure::setup("load thread"))?;
        let part = worker.join().map_err(|_| Failure::Setup("a load thread panicked".to_owned()))??;
        total.add(&part);
    }
    Ok(total)
}

/// The part of a plan that one of several threads drives.
fn share(plan: &Plan, index: usize, threads: usize) -> Plan {
    let part = |connections: usize| connections / threads + usize::from(index < connections % threads);
    let mut plan = plan.clone();
    plan.pace = match plan.pace {
        Pace::Closed { connections } => Pace::Closed { connections: part(connections) },
        Pace::Open { rate, connections } => {
            Pace::Open { rate: rate / threads as f64, connections: part(connections).max(1) }
        }
    };
    let count = plan.requests.len();
    plan.requests.rotate_left(index % count);
    plan
}

/// What the workers of one thread share.
struct Shared {
    plan: Plan,
    begin: Instant,
    end: Instant,
    measured: RefCell<Measurement>,
}

impl Shared {
    /// Records a finished exchange; `due` is where its latency starts.
    fn record(&self, due: Instant, outcome: std::io::Result<super::Exchange>) -> bool {
        let now = Instant::now();
        let mut measured = self.measured.borrow_mut();
        match outcome {
            Ok(exchange) if (200..300).contains(&exchange.status) => {
                if now >= self.begin && now <= self.end {
                    measured.completed += 1;
                    measured.bytes += exchange.bytes;
                    measured.latency.saturating_record(nanoseconds(due, now));
                    measured.first_byte.saturating_record(nanoseconds(due, exchange.first_byte));
                } else {
                    measured.outside += 1;
                }
                exchange.reusable
            }
            Ok(exchange) => {
                *measured.statuses.entry(exchange.status).or_default() += 1;
                exchange.reusable
            }
            Err(_) => {
                measured.broken += 1;
                false
            }
        }
    }
}

fn nanoseconds(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
}

fn drive_one(plan: &Plan) -> Result<Measurement, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::setup("load runtime"))?;
    let start = Instant::now();
    let begin = start + plan.warmup;
    let end = begin + plan.duration;
    let shared = Rc::new(Shared { plan: plan.clone(), begin, end, measured: RefCell::new(Measurement::new()?) });
    let local = LocalSet::new();
    match plan.pace {
        Pace::Closed { connections } => {
            for index in 0..connections {
                local.spawn_local(closed(Rc::clone(&shared), index, connections));
            }
        }
        Pace::Open { rate, connections } => open_loop(&local, &shared, rate, connections, start)?,
    }
    let deadline = end.saturating_duration_since(Instant::now()) + GRACE;
    let finished = runtime.block_on(async { tokio::time::timeout(deadline, local).await });
    let mut measured = shared.measured.replace(Measurement::new()?);
    measured.elapsed = plan.duration;
    if finished.is_err() {
        return Err(Failure::Void(format!("{}: requests still unanswered after {GRACE:?}", plan.target.name)));
    }
    Ok(measured)
}

/// A slot that holds one connection and opens it again when it broke.
struct Slot {
    shared: Rc<Shared>,
    next: usize,
    stride: usize,
    connection: Option<Connection>,
}

impl Slot {
    fn new(shared: Rc<Shared>, index: usize, stride: usize) -> Self {
        Self { shared, next: index, stride, connection: None }
    }

    async fn ask(&mut self, due: Instant) {
        if self.connection.is_none() {
            match Connection::open(&self.shared.plan.target).await {
                Ok(connection) => self.connection = Some(connection),
                Err(cause) => {
                    self.shared.record(due, Err(cause));
                    tokio::time::sleep(RETRY_PAUSE).await;
                    return;
                }
            }
        }
        let Some(connection) = &mut self.connection else { return };
        let requests = &self.shared.plan.requests;
        let Some(request) = requests.get(self.next % requests.len()) else { return };
        self.next = self.next.wrapping_add(self.stride);
        let outcome = connection.exchange(request).await;
        if !self.shared.record(due, outcome) {
            self.connection = None;
        }
    }
}

async fn closed(shared: Rc<Shared>, index: usize, stride: usize) {
    let mut slot = Slot::new(Rc::clone(&shared), index, stride);
    loop {
        let now = Instant::now();
        if now >= shared.end {
            return;
        }
        slot.ask(now).await;
    }
}

/// Starts the workers and the thread that lets them go, one request at a time.
fn open_loop(
    local: &LocalSet,
    shared: &Rc<Shared>,
    rate: f64,
    connections: usize,
    start: Instant,
) -> Result<(), Failure> {
    if !rate.is_finite() || rate <= 0.0 {
        return Err(Failure::Input("the rate must be a positive number".to_owned()));
    }
    let permits = Arc::new(Semaphore::new(0));
    let taken = Rc::new(Cell::new(0_u64));
    let interval = move |index: u64| Duration::from_secs_f64(index as f64 / rate);
    for index in 0..connections {
        let (shared, permits, taken) = (Rc::clone(shared), Arc::clone(&permits), Rc::clone(&taken));
        local.spawn_local(async move {
            let mut slot = Slot::new(Rc::clone(&shared), index, connections);
            while let Ok(permit) = permits.acquire().await {
                permit.forget();
                let index = taken.get();
                taken.set(index + 1);
                let due = start + interval(index);
                if Instant::now() >= shared.end {
                    shared.measured.borrow_mut().unsent += 1;
                } else {
                    slot.ask(due).await;
                }
            }
        });
    }
    let end = shared.end;
    // A thread of its own: its sleep is exact to some 50 µs, the runtime's
    // timer only to a millisecond.
    std::thread::Builder::new()
        .name("pace".to_owned())
        .spawn(move || pace(&permits, start, end, interval))
        .map(drop)
        .map_err(Failure::setup("pace thread"))
}

fn pace(permits: &Semaphore, start: Instant, end: Instant, interval: impl Fn(u64) -> Duration) {
    let mut index = 0_u64;
    loop {
        let due = start + interval(index);
        if due >= end {
            break;
        }
        let now = Instant::now();
        if due > now {
            std::thread::sleep(due - now);
        }
        permits.add_permits(1);
        index += 1;
    }
    // What is still waiting is handed out and counted as unsent.
    while permits.available_permits() > 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    permits.close();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Scenario;
    use clawgate_mock::{Knobs, Ledger, LedgerTarget, MockConfig};

    fn with_mock(knobs: &str, plan: impl FnOnce(Target) -> Plan) -> (Measurement, clawgate_mock::Totals) {
        let ledger = Ledger::open(&LedgerTarget::None).unwrap();
        let mut set = Knobs::default();
        set.set_all(knobs).unwrap();
        let config = MockConfig { ledger: Arc::clone(&ledger), recordings: None, knobs: set };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let target = Target::local("mock", listener.local_addr().unwrap(), "/v1");
        runtime.spawn(clawgate_mock::serve(listener, config, std::future::pending()));
        let measured = drive(&plan(target)).unwrap();
        // The last counters are moved after the last bytes were sent.
        while ledger.totals().inflight > 0 {
            std::thread::yield_now();
        }
        (measured, ledger.totals())
    }

    fn plan(target: Target, scenario: Scenario, pace: Pace) -> Plan {
        let request = scenario.request(&target, "t", "m").into();
        let (warmup, duration) = (Duration::from_millis(50), Duration::from_millis(300));
        Plan { target, requests: vec![request], pace, warmup, duration, threads: 2 }
    }

    #[test]
    fn a_closed_loop_counts_what_the_target_counts() {
        for scenario in [Scenario::Chat, Scenario::Stream, Scenario::Chat50k] {
            let (measured, totals) = with_mock("", |target| plan(target, scenario, Pace::Closed { connections: 5 }));
            assert!(measured.completed > 0 && measured.errors() == 0, "{scenario:?} {measured:?}");
            assert_eq!(measured.completed + measured.outside, totals.completed, "{scenario:?}");
        }
    }

    #[test]
    fn an_open_loop_keeps_its_rate_and_charges_waiting() {
        let (measured, _) =
            with_mock("delay=20", |target| plan(target, Scenario::Chat, Pace::Open { rate: 200.0, connections: 2 }));
        // Two connections at 20 ms serve 100 a second; the rest waits.
        assert!(measured.quantile(0.9) > 40_000.0, "{}", measured.quantile(0.9));
        assert!(measured.unsent > 0);
    }

    #[test]
    fn errors_are_counted_by_status() {
        let (measured, totals) =
            with_mock("status=429", |target| plan(target, Scenario::Chat, Pace::Closed { connections: 1 }));
        assert_eq!((measured.completed, measured.statuses.get(&429).copied()), (0, Some(totals.errors)));
    }
}
