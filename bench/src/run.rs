//! `run`: measure targets that are already there, ours or not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::Met;
use crate::failure::Failure;
use crate::interleave::interleave;
use crate::load::{Pace, Plan, Scenario, Target};
use crate::machine;
use crate::report::{Ratio, Requirement, Series, Verdict, json_report, picture, table};

/// Connections of an open loop unless told otherwise.
const OPEN_CONNECTIONS: usize = 256;

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

/// Flags of `run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// chat, chat-50k, stream or stream-usage
    scenario: Scenario,
    /// name=http://host:port/base; `/chat/completions` is added. The first is what others are compared with
    #[arg(long = "target", required = true, value_name = "NAME=URL")]
    targets: Vec<Target>,
    /// File with bearer tokens, one per line; connections take them in turn
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Model named in the request
    #[arg(long, default_value = "gpt-4o-mini")]
    model: String,
    /// Open loop: requests per second
    #[arg(long)]
    rate: Option<f64>,
    /// Closed loop: connections (open loop: at most this many)
    #[arg(long)]
    connections: Option<usize>,
    /// Seconds per run
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// Seconds before each run that are not measured
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Rounds; each measures every target once
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Load threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Requirement: `A/B>=0.8`, `A.p99<=5000` (µs), `A.rps>=1000`, `A.errors<=0`
    #[arg(long = "require", value_name = "EXPRESSION")]
    requirements: Vec<Requirement>,
    /// How to print the report
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Also draw it into this SVG file
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

impl RunArgs {
    /// Measures and judges.
    pub(crate) fn run(&self) -> Result<Met, Failure> {
        let pace = self.pace()?;
        let tokens = read_tokens(self.token_file.as_deref())?;
        let plans: Vec<Plan> =
            self.targets.iter().map(|target| self.plan(target, pace, &tokens)).collect::<Result<_, _>>()?;
        let machine = machine::describe("none: processes share all cores");
        let series = interleave(&plans, self.rounds.max(1), |_, _, _| Ok(()))?;
        let ratios = ratios_to_first(&series);
        let verdicts: Vec<Verdict> =
            self.requirements.iter().map(|requirement| requirement.judge(&series)).collect::<Result<_, _>>()?;
        let title = format!("{}, {}, {} s", self.scenario.name(), describe(pace), self.duration);
        let about = json!({
            "scenario": self.scenario.name(),
            "pace": describe(pace),
            "seconds": self.duration,
            "warmup_seconds": self.warmup,
            "machine": machine,
        });
        let text = match self.output {
            Output::Table => table(&title, &series, &ratios, &verdicts),
            Output::Json => format!("{:#}\n", json_report(&about, &series, &ratios, &verdicts)),
        };
        show(&text);
        if let Some(path) = &self.picture {
            std::fs::write(path, picture(&title, &series)).map_err(Failure::setup(path.display().to_string()))?;
        }
        Ok(verdicts.iter().all(|verdict| verdict.met))
    }

    fn pace(&self) -> Result<Pace, Failure> {
        match (self.rate, self.connections) {
            (Some(rate), connections) => Ok(Pace::Open { rate, connections: connections.unwrap_or(OPEN_CONNECTIONS) }),
            (None, Some(connections)) if connections > 0 => Ok(Pace::Closed { connections }),
            _ => Err(Failure::Input("give --rate N or --connections N".to_owned())),
        }
    }

    fn plan(&self, target: &Target, pace: Pace, tokens: &[String]) -> Result<Plan, Failure> {
        Ok(Plan {
            target: target.clone(),
            requests: requests(self.scenario, target, tokens, &self.model),
            pace,
            warmup: seconds(self.warmup)?,
            duration: seconds(self.duration)?,
            threads: self.threads,
        })
    }
}

/// One request per token.
pub(crate) fn requests(scenario: Scenario, target: &Target, tokens: &[String], model: &str) -> Vec<Arc<[u8]>> {
    tokens.iter().map(|token| scenario.request(target, token, model).into()).collect()
}

/// Every target's ratio to the first one.
pub(crate) fn ratios_to_first(series: &[Series]) -> Vec<Ratio> {
    let Some((first, others)) = series.split_first() else { return Vec::new() };
    others.iter().map(|other| Ratio::between(other, first)).collect()
}

/// Prints a report.
#[allow(clippy::print_stdout, reason = "the report is this program's output")]
pub(crate) fn show(text: &str) {
    print!("{text}");
}

fn describe(pace: Pace) -> String {
    match pace {
        Pace::Closed { connections } => format!("closed loop, {connections} connections"),
        Pace::Open { rate, connections } => format!("open loop, {rate}/s over up to {connections} connections"),
    }
}

fn seconds(value: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(value).map_err(|_| Failure::Input(format!("{value} is no number of seconds")))
}

fn read_tokens(path: Option<&Path>) -> Result<Vec<String>, Failure> {
    let Some(path) = path else { return Ok(vec!["none".to_owned()]) };
    let text = std::fs::read_to_string(path).map_err(Failure::setup(path.display().to_string()))?;
    let tokens: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if tokens.is_empty() || tokens.iter().any(|token| token.bytes().any(|byte| byte <= b' ' || byte >= 0x7f)) {
        return Err(Failure::Input(format!("{}: expected one token per line", path.display())));
    }
    Ok(tokens)
}
