//! `ingest` and `usage-api`: how fast a control plane takes usage, what an
//! event costs it, and how fast it answers questions about it.
//!
//! Invariant: a run whose counted sums differ from what was shipped is void.
//! Deliberately absent: the control plane's inside; it is started by its command
//! line, filled over the nodes' protocol and asked over REST.

mod api;
mod database;
mod plane;
mod records;
mod ship;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use clawgate_shared::clock;
use serde_json::{Value, json};

use crate::Met;
use crate::failure::Failure;
use crate::numbers::process::resident_megabytes;
use database::Choice;
use plane::Plane;
use records::{Truth, World};
use ship::Plan;

/// Events per second that must be taken.
const RATE: f64 = 20_000.0;
/// How much later than its last event a batch may be sent, microseconds.
const DAY: i64 = 24 * 3_600_000_000;

/// What both benches start and ship.
#[derive(Args, Clone, Debug)]
struct Load {
    /// sqlite, postgres (a server of its own) or a database URL
    #[arg(long, default_value = "sqlite")]
    database: Choice,
    /// Events to ship
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Bots, each with five keys and three models
    #[arg(long, default_value_t = 1000)]
    bots: usize,
    /// Logs of a node that are shipped side by side
    #[arg(long, default_value_t = 1)]
    shards: u64,
    /// Exchanges per batch
    #[arg(long, default_value_t = 4096)]
    batch: u64,
    /// Days that the events are spread over; 0: they happen now
    #[arg(long, default_value_t = 0.0)]
    days: f64,
    /// The gateway's binary [default: `clawgate` beside this program]
    #[arg(long, value_name = "FILE")]
    clawgate: Option<PathBuf>,
    /// Where the database is made [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the process id and wait for a line on standard input before the end
    #[arg(long)]
    hold: bool,
}

/// Flags of `ingest`.
#[derive(Args, Debug)]
pub(crate) struct IngestArgs {
    #[command(flatten)]
    load: Load,
    /// Longest time to ship
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Events per second; 0: as fast as they are taken
    #[arg(long, default_value_t = 0)]
    rate: u64,
}

/// Flags of `usage-api`.
#[derive(Args, Debug)]
pub(crate) struct UsageApiArgs {
    #[command(flatten)]
    load: Load,
    /// Calls of each kind
    #[arg(long, default_value_t = 40)]
    calls: usize,
}

/// A filled control plane.
struct Filled {
    plane: Plane,
    world: World,
    truth: Truth,
    report: Value,
    rate: f64,
}

impl IngestArgs {
    /// Ships, compares, reports.
    pub(crate) fn run(&self) -> Result<Met, Failure> {
        let mut filled = fill(&self.load, Duration::from_secs(self.seconds), self.rate)?;
        filled.check()?;
        println_json(&filled.report);
        hold(&self.load, &filled.plane);
        let wanted = if self.rate == 0 { RATE } else { (self.rate as f64 * 0.99).min(RATE) };
        Ok(filled.rate >= wanted)
    }
}

impl UsageApiArgs {
    /// Fills, then asks.
    pub(crate) fn run(&self) -> Result<Met, Failure> {
        let mut filled = fill(&self.load, Duration::from_secs(24 * 3600), 0)?;
        filled.check()?;
        println_json(&filled.report);
        let met = api::ask(&mut filled, self.calls.max(1))?;
        hold(&self.load, &filled.plane);
        Ok(met)
    }
}

fn hold(load: &Load, plane: &Plane) {
    if load.hold {
        eprintln!("control plane {}: enter ends it", plane.id());
        let _line = std::io::stdin().read_line(&mut String::new());
    }
}

fn fill(load: &Load, limit: Duration, rate: u64) -> Result<Filled, Failure> {
    let plane = Plane::start(load.clawgate.as_deref(), &load.database, load.dir.as_deref(), load.bots.max(1))?;
    let now = clock::now_micros();
    let span = (load.days.clamp(0.0, 34.0) * DAY as f64) as i64;
    let expected = i64::try_from(load.events.max(1)).unwrap_or(i64::MAX);
    // Events that happen now are a twentieth of a millisecond apart.
    let step_nanos = if span > 0 { span.saturating_mul(1000) / expected } else { 50_000 };
    let world = World {
        tenant_id: plane.tenant_id.clone(),
        bots: plane.bots.clone(),
        start: if span > 0 { now - span } else { now },
        step_nanos,
        shards: load.shards.max(1),
    };
    let plan =
        Plan { socket: plane.socket.clone(), events: load.events, limit, batch: load.batch.clamp(1, 32_768), rate };
    let (before, began) = (plane.cpu(), Instant::now());
    let truth = ship::ship(&plan, &world)?;
    let (took, after) = (began.elapsed().as_secs_f64(), plane.cpu());
    let each = |seconds: f64| (seconds * 1e8 / truth.events.max(1) as f64).round() / 100.0;
    let achieved = truth.events as f64 / took;
    let report = json!({
        "events": truth.events,
        "seconds": (took * 10.0).round() / 10.0,
        "events_per_second": achieved.round(),
        "batches_sent_again": truth.delayed,
        "control_cpu_micros_per_event": each(after.0 - before.0),
        "postgres_cpu_micros_per_event": each(after.1 - before.1),
        "disk_bytes_per_event": plane.disk_bytes() / truth.events.max(1),
        "control_megabytes": resident_megabytes(plane.id())?.round(),
    });
    Ok(Filled { plane, world, truth, report, rate: achieved })
}

impl Filled {
    /// Day and hour, in UTC, around everything that was shipped.
    fn span(&self) -> (String, String) {
        let (first, end) = self.days();
        (clock::rfc3339(first), clock::rfc3339(end))
    }

    /// The same in unix microseconds.
    fn days(&self) -> (i64, i64) {
        let end = self.world.start + self.world.duration_micros(self.truth.events);
        let day = |at: i64| at - at.rem_euclid(DAY);
        (day(self.world.start), day(end + DAY))
    }

    /// Sums over REST against what was shipped: rollups, and the events alone.
    fn check(&mut self) -> Result<(), Failure> {
        let (from, to) = self.span();
        let dates = format!("startDate={from}&endDate={to}");
        let stats = self.plane.rest.call("GET", &format!("/usage/stats?{dates}"), None, None)?;
        let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64).unwrap_or(0);
        let found = Truth {
            events: number(&stats, "requestCount"),
            tokens: number(&stats, "totalTokens"),
            input: number(&stats, "requestTokens"),
            errors: number(&stats, "errorCount"),
            delayed: self.truth.delayed,
        };
        if found != self.truth {
            return Err(Failure::Void(format!("{found:?} were counted of {:?}", self.truth)));
        }
        // Agents are in no rollup: this adds up the events themselves, a day at a time.
        let (mut day, end) = self.days();
        let mut events = 0;
        while day < end {
            let dates = format!("startDate={}&endDate={}", clock::rfc3339(day), clock::rfc3339(day + DAY));
            let agents = self.plane.rest.call("GET", &format!("/usage/breakdown?groupBy=agent&{dates}"), None, None)?;
            let groups = agents.get("groups").and_then(Value::as_array).cloned().unwrap_or_default();
            events += groups.iter().map(|group| number(group, "requestCount")).sum::<u64>();
            day += DAY;
        }
        if events != self.truth.events {
            return Err(Failure::Void(format!("{events} events are stored of {}", self.truth.events)));
        }
        Ok(())
    }
}

fn println_json(value: &Value) {
    use std::io::Write as _;
    let _written = writeln!(std::io::stdout(), "{value:#}");
}
