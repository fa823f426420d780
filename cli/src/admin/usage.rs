//! `clawgate usage …`

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

/// Filters of single requests.
#[derive(clap::Args, Debug)]
pub(crate) struct LogsArgs {
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
    #[command(flatten)]
    list: ListArgs,
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
                let filters = given([
                    ("bot", args.bot),
                    ("vendor", args.vendor),
                    ("model", args.model),
                    ("status", args.status.map(|s| s.to_string())),
                    ("outcome", args.outcome),
                    ("key", args.key),
                    ("from", args.from),
                    ("to", args.to),
                ]);
                out.rows(&api.list("/usage/logs", &filters, args.list.limit).await?, LOGS)
            }
        }
    }
}

fn rows(body: &Value, name: &str) -> Vec<Value> {
    body.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
}
