//! `clawgate usage …`

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::client::path;
use super::{Column, ListArgs, Session};
use crate::failure::Failure;

const TREND: &[Column] = &[
    ("TIME", "timestamp"),
    ("REQUESTS", "requestCount"),
    ("ERRORS", "errorCount"),
    ("INPUT", "requestTokens"),
    ("OUTPUT", "responseTokens"),
    ("COST", "estimatedCost"),
];
const BREAKDOWN: &[Column] = &[
    ("KEY", "key"),
    ("REQUESTS", "requestCount"),
    ("INPUT", "requestTokens"),
    ("OUTPUT", "responseTokens"),
    ("%", "percentage"),
    ("COST", "estimatedCost"),
];
const LOGS: &[Column] = &[
    ("TIME", "created_at"),
    ("REQUEST", "request_id"),
    ("BOT", "bot"),
    ("VENDOR", "vendor"),
    ("MODEL", "model"),
    ("STATUS", "status_code"),
    ("OUTCOME", "outcome"),
    ("IN", "input_tokens"),
    ("OUT", "output_tokens"),
    ("SOURCE", "usage_source"),
    ("MS", "duration_ms"),
];

/// Usage: tokens, requests, errors
#[derive(clap::Subcommand, Debug)]
pub(crate) enum UsageVerb {
    /// Sums of a period
    Stats {
        #[command(flatten)]
        scope: Scope,
        /// day, week or month
        #[arg(long)]
        period: Option<String>,
    },
    /// Sums over time
    Trend {
        #[command(flatten)]
        scope: Scope,
        /// hour, day or week
        #[arg(long)]
        granularity: Option<String>,
    },
    /// Sums by something
    Breakdown {
        #[command(flatten)]
        scope: Scope,
        /// vendor, model, status, key, bot, project, label, agent or session
        #[arg(long, default_value = "model")]
        group_by: String,
    },
    /// Single requests, newest first
    Logs(Box<LogsArgs>),
    /// Every request as a file, newest first
    Export(Box<ExportArgs>),
}

/// Which requests are summed.
#[derive(clap::Args, Debug)]
pub(crate) struct Scope {
    /// Only this bot; without it everything the caller may see
    #[arg(long, value_name = "HOSTNAME")]
    bot: Option<String>,
    /// First day
    #[arg(long, value_name = "DATE")]
    start_date: Option<String>,
    /// Day after the last
    #[arg(long, value_name = "DATE")]
    end_date: Option<String>,
}

/// Single requests as a list.
#[derive(clap::Args, Debug)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    list: ListArgs,
}

/// Single requests as a file.
#[derive(clap::Args, Debug)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    filters: Filters,
    /// csv, or ndjson: one JSON object a line
    #[arg(long, default_value = "csv", value_parser = ["csv", "ndjson"])]
    format: String,
    /// Write to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Filters of single requests.
#[derive(clap::Args, Debug)]
struct Filters {
    /// Only this bot
    #[arg(long, value_name = "HOSTNAME")]
    bot: Option<String>,
    /// Only this vendor
    #[arg(long)]
    vendor: Option<String>,
    /// Only this model
    #[arg(long)]
    model: Option<String>,
    /// Only this status
    #[arg(long, value_name = "CODE")]
    status: Option<u16>,
    /// Only this outcome
    #[arg(long)]
    outcome: Option<String>,
    /// Only this provider key
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// From this time, RFC 3339
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Before this time, RFC 3339
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

impl Filters {
    fn query(self) -> Query {
        given([
            ("bot", self.bot),
            ("vendor", self.vendor),
            ("model", self.model),
            ("status", self.status.map(|s| s.to_string())),
            ("outcome", self.outcome),
            ("key", self.key),
            ("from", self.from),
            ("to", self.to),
        ])
    }
}

type Query = Vec<(&'static str, String)>;

impl Scope {
    /// The path of one of the three sums, and its dates.
    fn query(self, what: &str) -> Result<(String, Query), Failure> {
        let path = match &self.bot {
            Some(bot) => path(&["bots", bot, "usage", what])?,
            None => path(&["usage", what])?,
        };
        Ok((path, given([("startDate", self.start_date), ("endDate", self.end_date)])))
    }
}

fn given<const N: usize>(fields: [(&'static str, Option<String>); N]) -> Query {
    fields.into_iter().filter_map(|(name, value)| value.map(|v| (name, v))).collect()
}

impl UsageVerb {
    /// Asks the control plane and prints its answer.
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Session { api, out } = session;
        match self {
            Self::Stats { scope, period } => {
                let (path, mut query) = scope.query("stats")?;
                query.extend(given([("period", period)]));
                out.object(&api.get(&path, &query).await?)
            }
            Self::Trend { scope, granularity } => {
                let (path, mut query) = scope.query("trend")?;
                query.extend(given([("granularity", granularity)]));
                out.rows(&rows(&api.get(&path, &query).await?, "dataPoints"), TREND)
            }
            Self::Breakdown { scope, group_by } => {
                let (path, mut query) = scope.query("breakdown")?;
                query.push(("groupBy", group_by));
                out.rows(&rows(&api.get(&path, &query).await?, "groups"), BREAKDOWN)
            }
            Self::Logs(args) => {
                let LogsArgs { filters, list } = *args;
                out.rows(&api.list("/usage/logs", &filters.query(), list.limit).await?, LOGS)
            }
            Self::Export(args) => {
                let ExportArgs { filters, format, file } = *args;
                let mut query = filters.query();
                query.push(("format", format));
                match file {
                    None => api.download("/usage/export", &query, &mut std::io::stdout().lock()).await,
                    Some(path) => into_file(session, &query, &path).await,
                }
            }
        }
    }
}

/// The file appears under its name only when it is complete.
async fn into_file(session: &Session, query: &Query, path: &Path) -> Result<(), Failure> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".part");
    let failed = |e| Failure::failed(&format!("writing {}", path.display()), e);
    let mut file = std::fs::File::create(&partial).map_err(failed)?;
    match session.api.download("/usage/export", query, &mut file).await {
        Ok(()) => std::fs::rename(&partial, path).map_err(failed),
        Err(failure) => {
            let _ = std::fs::remove_file(&partial);
            Err(failure)
        }
    }
}

fn rows(body: &Value, name: &str) -> Vec<Value> {
    body.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
}
