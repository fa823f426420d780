//! `numbers`: starts mock vendor, floors and gateway on this machine, loads
//! the gateway's snapshot with bots and keys, and checks the figures it is
//! held to.
//!
//! Invariant: a run whose usage rows or tokens differ from the mock vendor's
//! ledger is void, whatever its figures are.
//! Deliberately absent: knowledge of the gateway's inside; it is started by
//! its command line and driven by its REST interface.

pub(crate) mod clients;
pub(crate) mod cpu;
mod ledger;
pub(crate) mod process;
pub(crate) mod rest;
pub(crate) mod stack;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::Met;
use crate::failure::Failure;
use crate::interleave::interleave;
use crate::load::{Pace, Plan, Scenario, Target};
use crate::machine;
use crate::report::{Ratio, Series, Verdict, json_report, picture, table, verdict};
use crate::run::{Output, requests, show};
use cpu::Cpu;
use ledger::Counted;
use stack::Stack;

/// Requests per second at 64 connections, of the bare loop's.
const RATE_RATIO: f64 = 0.80;
/// Added median latency at one connection, times the bare loop's.
const ADDED_RATIO: f64 = 1.6;
/// The bare loop's requests per second, of nginx's: what makes it a floor.
const FLOOR_RATIO: f64 = 0.36;
/// Resident megabytes of an idle node.
const IDLE_MEGABYTES: f64 = 30.0;
/// Seconds from the first start to `ready`.
const START_SECONDS: f64 = 3.0;
/// Bots and keys in the snapshot.
const BOTS: usize = 1000;
const KEYS: usize = 100;

/// Which cores processes may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pin {
    /// All share all cores
    None,
    /// What is measured on core 0, load and mock vendor on core 1
    Split,
}

/// Flags of `numbers`.
#[derive(Args, Debug)]
pub(crate) struct NumbersArgs {
    /// The gateway's binary [default: `clawgate` beside this program]
    #[arg(long, value_name = "FILE")]
    clawgate: Option<PathBuf>,
    /// Interleaved rounds
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Seconds per run
    #[arg(long, default_value_t = 2.5)]
    duration: f64,
    /// Seconds before each run that are not measured
    #[arg(long, default_value_t = 0.5)]
    warmup: f64,
    /// Scenario at 64 connections
    #[arg(long, default_value = "chat")]
    scenario: Scenario,
    /// Bots and keys to create
    #[arg(long, default_value_t = BOTS)]
    bots: usize,
    #[arg(long, default_value_t = KEYS)]
    keys: usize,
    /// Leave the gateway out: only the floors among themselves
    #[arg(long)]
    floors_only: bool,
    /// Leave nginx and pingora-proxy out
    #[arg(long)]
    bare_only: bool,
    /// Which cores processes may use
    #[arg(long, value_enum, default_value_t = Pin::None)]
    pin: Pin,
    /// How to print the report
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Also write the JSON report into this file
    #[arg(long, value_name = "FILE")]
    json_file: Option<PathBuf>,
    /// Also draw the rates into this SVG file
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

/// One set of interleaved runs.
struct Leg {
    title: String,
    series: Vec<Series>,
    ratios: Vec<Ratio>,
    /// Processor microseconds per request, by process.
    cpu: BTreeMap<String, f64>,
}

impl NumbersArgs {
    /// Measures and judges.
    pub(crate) fn run(&self) -> Result<Met, Failure> {
        let machine = machine::describe(match self.pin {
            Pin::None => "none: all processes share all cores",
            Pin::Split => "measured process on core 0, load generator and mock vendor on core 1",
        });
        let mut stack = Stack::start(self)?;
        let mut counted = Counted::new(stack.mock)?;
        let rate = self.leg(&mut stack, &mut counted, self.scenario, 64)?;
        let added = self.leg(&mut stack, &mut counted, Scenario::Chat, 1)?;
        let mut verdicts = self.judge(&rate, &added)?;
        let gateway = if self.floors_only { Ok(json!(null)) } else { stack.gateway(&counted, &mut verdicts) };
        drop(stack);
        // The figures of a void run are shown too: they help to find out why.
        let shown = gateway.as_ref().map_or_else(|void| json!(void.to_string()), Clone::clone);
        self.print(&json!({ "machine": machine, "gateway": shown }), &[rate, added], &verdicts)?;
        gateway.map(|_| verdicts.iter().all(|verdict| verdict.met))
    }

    fn leg(
        &self,
        stack: &mut Stack,
        counted: &mut Counted,
        scenario: Scenario,
        connections: usize,
    ) -> Result<Leg, Failure> {
        let targets = stack.targets();
        let plans: Vec<Plan> =
            targets.iter().map(|target| self.plan(target, scenario, connections, &stack.tokens)).collect();
        let processes = stack.processes()?;
        let (earlier, began) = (counted.clone_counts(), Cpu::read(&processes));
        let series = interleave(&plans, self.rounds.max(1), |_, plan, measured| {
            counted.after(&plan.target.name, measured)?;
            stack.settle(&plan.target.name, counted)
        })?;
        let cpu =
            Cpu::read(&processes).per_request(&began, |process| counted.since(&earlier, stack::target_of(process)));
        let ratios = ratios(&series, connections);
        Ok(Leg { title: format!("{}, {connections} connections", scenario.name()), series, ratios, cpu })
    }

    fn plan(&self, target: &Target, scenario: Scenario, connections: usize, tokens: &[String]) -> Plan {
        Plan {
            target: target.clone(),
            requests: requests(scenario, target, tokens, "gpt-4o-mini"),
            pace: Pace::Closed { connections },
            warmup: Duration::from_secs_f64(self.warmup.clamp(0.0, 600.0)),
            duration: Duration::from_secs_f64(self.duration.clamp(0.1, 3600.0)),
            threads: 1,
        }
    }

    fn judge(&self, rate: &Leg, added: &Leg) -> Result<Vec<Verdict>, Failure> {
        let median =
            |leg: &Leg, pair: &str| leg.ratios.iter().find(|ratio| ratio.pair == pair).map(|ratio| ratio.spread.median);
        let mut verdicts = Vec::new();
        if let Some(value) = median(rate, "bare/nginx") {
            verdicts.push(verdict(&format!("bare/nginx >= {FLOOR_RATIO}"), value, true, FLOOR_RATIO));
        }
        if !self.floors_only {
            let value = median(rate, "gateway/bare").unwrap_or(f64::NAN);
            verdicts.push(verdict(&format!("gateway/bare >= {RATE_RATIO}"), value, true, RATE_RATIO));
            let value = median(added, "added gateway/bare").unwrap_or(f64::NAN);
            verdicts.push(verdict(&format!("added latency gateway/bare <= {ADDED_RATIO}"), value, false, ADDED_RATIO));
        }
        let errors: u64 = [rate, added].iter().flat_map(|leg| &leg.series).map(Series::errors).sum();
        if errors > 0 {
            return Err(Failure::Void(format!("{errors} requests failed")));
        }
        Ok(verdicts)
    }

    fn print(&self, about: &serde_json::Value, legs: &[Leg], verdicts: &[Verdict]) -> Result<(), Failure> {
        let reports: Vec<_> = legs
            .iter()
            .map(|leg| {
                let about = json!({ "title": leg.title, "cpu_us_per_request": leg.cpu, "about": about });
                json_report(&about, &leg.series, &leg.ratios, verdicts)
            })
            .collect();
        let whole = format!("{:#}\n", json!({ "version": crate::report::VERSION, "legs": reports }));
        match self.output {
            Output::Json => show(&whole),
            Output::Table => {
                show(&format!("{about:#}\n"));
                for leg in legs {
                    show(&table(&leg.title, &leg.series, &leg.ratios, &[]));
                    let each: Vec<String> = leg.cpu.iter().map(|(name, used)| format!("{name} {used:.1}")).collect();
                    show(&format!("  processor µs per request: {}\n", each.join(", ")));
                }
                show(&table("requirements", &[], &[], verdicts));
            }
        }
        write(self.json_file.as_deref(), &whole)?;
        let drawing = legs.first().map(|leg| picture(&leg.title, &leg.series)).unwrap_or_default();
        write(self.picture.as_deref(), &drawing)
    }
}

fn ratios(series: &[Series], connections: usize) -> Vec<Ratio> {
    let find = |name: &str| series.iter().find(|series| series.name == name);
    let mut ratios = Vec::new();
    for (of, over) in [("gateway", "bare"), ("bare", "nginx"), ("pingora-proxy", "bare"), ("gateway", "pingora-proxy")]
    {
        if let (Some(of), Some(over)) = (find(of), find(over)) {
            ratios.push(Ratio::between(of, over));
            if let (1, Some(direct)) = (connections, find("mock")) {
                ratios.push(Ratio::of_added_latency(of, over, direct));
            }
        }
    }
    ratios
}

fn write(path: Option<&Path>, text: &str) -> Result<(), Failure> {
    path.map_or(Ok(()), |path| std::fs::write(path, text).map_err(Failure::setup(path.display().to_string())))
}
