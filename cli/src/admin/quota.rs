//! `clawgate quota …`

use serde_json::{Value, json};

use super::body::JsonListArg;
use super::client::path;
use super::{Column, Session};
use crate::failure::Failure;

const COLUMNS: &[Column] = &[
    ("METRIC", "metric"),
    ("WINDOW", "window"),
    ("MODEL", "model"),
    ("LIMIT", "limit"),
    ("EXTRA", "extra"),
    ("USED", "used"),
    ("RESERVED", "reserved"),
    ("OVERRUN", "overrun"),
    ("ACTION", "action"),
    ("RESETS", "resets_at"),
];

/// Quotas: limits on tokens, requests and cost
#[derive(clap::Subcommand, Debug)]
pub(crate) enum QuotaVerb {
    /// The quotas of one thing, with what is used of them
    List(On),
    /// Replaces the quotas of one thing, or with --metric changes one of them;
    /// what was used stays used
    Set {
        #[command(flatten)]
        on: On,
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        json: JsonListArg,
    },
    /// Adds to the current window of a quota, for this window only
    Grant {
        #[command(flatten)]
        on: On,
        /// What it counts
        #[arg(long, value_name = "METRIC")]
        metric: String,
        /// Over which window
        #[arg(long, value_name = "WINDOW")]
        window: String,
        /// Glob of the quota's models; without it the quota for every model
        #[arg(long, value_name = "GLOB")]
        model: Option<String>,
        /// How much
        #[arg(long, value_name = "N")]
        amount: u64,
        /// Why; kept in the audit log
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// The thing that quotas are on; none of these: the tenant that --tenant names.
#[derive(clap::Args, Debug)]
#[group(multiple = false)]
pub(crate) struct On {
    /// A bot
    #[arg(long, value_name = "HOSTNAME")]
    bot: Option<String>,
    /// A project
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// A provider key
    #[arg(long, value_name = "ID")]
    key: Option<String>,
}

/// One quota by its flags.
#[derive(clap::Args, Debug)]
pub(crate) struct One {
    /// `total_tokens`, `input_tokens`, `output_tokens`, requests or `cost_micros`
    #[arg(long, value_name = "METRIC", requires_all = ["window", "limit"], conflicts_with = "json")]
    metric: Option<String>,
    /// minute, hour, day, week, month or total, in the tenant's time zone
    #[arg(long, value_name = "WINDOW", requires = "metric")]
    window: Option<String>,
    /// Units of the metric per window
    #[arg(long, value_name = "N", requires = "metric")]
    limit: Option<u64>,
    /// Only models that match; `*` allowed
    #[arg(long, value_name = "GLOB", requires = "metric")]
    model: Option<String>,
    /// block or notify
    #[arg(long, value_name = "ACTION", requires = "metric")]
    action: Option<String>,
    /// Warn at this share of the limit
    #[arg(long, value_name = "PERCENT", requires = "metric")]
    warn_pct: Option<u8>,
    /// strict or estimate
    #[arg(long, value_name = "MODE", requires = "metric")]
    mode: Option<String>,
    /// What happens to a stream that passes the limit: refuse, cut
    #[arg(long, value_name = "POLICY", requires = "metric")]
    on_exceed: Option<String>,
    /// What happens while the control plane is away: deny, allowance, allow
    #[arg(long, value_name = "POLICY", requires = "metric")]
    on_outage: Option<String>,
}

/// What a client may say of a quota; the rest of an answer is state.
const SETTABLE: &[&str] =
    &["metric", "window", "limit", "model", "action", "warn_pct", "mode", "on_exceed", "on_outage"];

impl On {
    fn path(&self, tenant: Option<&str>, below: &[&str]) -> Result<String, Failure> {
        let (kind, name) = match (self, tenant) {
            (Self { bot: Some(name), .. }, _) => ("bots", name.as_str()),
            (Self { project: Some(id), .. }, _) => ("projects", id.as_str()),
            (Self { key: Some(id), .. }, _) => ("provider-keys", id.as_str()),
            (_, Some(slug)) => ("tenants", slug),
            _ => return Err(Failure::Usage("give --bot, --project, --key or --tenant: whose quotas?".to_owned())),
        };
        path(&[&[kind, name, "quotas"], below].concat())
    }
}

impl One {
    /// The set with this quota put in the place of the one with its metric,
    /// window and model; `None`: no quota was given by flags.
    fn put_into(self, answer: &Value) -> Option<Value> {
        let metric = self.metric?;
        let given = [
            ("metric", Some(json!(metric))),
            ("window", self.window.map(Value::from)),
            ("limit", self.limit.map(Value::from)),
            ("model", self.model.map(Value::from)),
            ("action", self.action.map(Value::from)),
            ("warn_pct", self.warn_pct.map(Value::from)),
            ("mode", self.mode.map(Value::from)),
            ("on_exceed", self.on_exceed.map(Value::from)),
            ("on_outage", self.on_outage.map(Value::from)),
        ];
        let identity =
            |quota: &Value| ["metric", "window", "model"].map(|name| quota.get(name).cloned().unwrap_or_default());
        let current = answer.get("data").and_then(Value::as_array).into_iter().flatten();
        let mut set: Vec<Value> = current.map(settable).collect();
        let wanted: serde_json::Map<String, Value> =
            given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        let wanted = Value::Object(wanted);
        match set.iter_mut().find(|quota| identity(quota) == identity(&wanted)) {
            Some(Value::Object(quota)) => {
                if let Value::Object(fields) = wanted {
                    quota.extend(fields);
                }
            }
            _ => set.push(wanted),
        }
        Some(Value::Array(set))
    }
}

fn settable(quota: &Value) -> Value {
    let fields = quota.as_object().into_iter().flatten();
    fields
        .filter(|(name, _)| SETTABLE.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn rows(answer: &Value) -> Vec<Value> {
    answer.get("data").and_then(Value::as_array).cloned().unwrap_or_default()
}

impl QuotaVerb {
    /// Asks the control plane and prints its answer.
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Session { api, out } = session;
        match self {
            Self::List(on) => out.rows(&rows(&api.get(&on.path(api.tenant(), &[])?, &[]).await?), COLUMNS),
            Self::Set { on, one, json } => {
                let place = on.path(api.tenant(), &[])?;
                let set = match json.read()? {
                    Some(list) => list,
                    None => one.put_into(&api.get(&place, &[]).await?).ok_or_else(|| {
                        Failure::Usage("give one quota by --metric, --window and --limit, or all by --json".to_owned())
                    })?,
                };
                let answer = api.put(&place, &[], &set).await?;
                answer.warn_if_not_everywhere();
                out.rows(&rows(&answer.body), COLUMNS)
            }
            Self::Grant { on, metric, window, model, amount, reason } => {
                let mut body = json!({"metric": metric, "window": window, "amount": amount, "reason": reason});
                if let (Some(model), Some(fields)) = (model, body.as_object_mut()) {
                    fields.insert("model".to_owned(), model.into());
                }
                session.created(api.post(&on.path(api.tenant(), &["grants"])?, &body).await?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(metric: &str, limit: u64) -> One {
        One {
            metric: Some(metric.into()),
            window: Some("day".into()),
            limit: Some(limit),
            model: None,
            action: None,
            warn_pct: None,
            mode: None,
            on_exceed: None,
            on_outage: None,
        }
    }

    #[test]
    fn one_quota_takes_its_own_place_and_leaves_the_others() {
        let answer = json!({"data": [
            {"id": "quo_1", "metric": "requests", "window": "day", "model": null, "limit": 5, "warn_pct": 60, "used": 3},
            {"id": "quo_2", "metric": "requests", "window": "day", "model": "gpt-*", "limit": 2, "used": 0},
        ]});
        let changed = one("requests", 9).put_into(&answer);
        let wanted = json!([
            {"metric": "requests", "window": "day", "model": null, "limit": 9, "warn_pct": 60},
            {"metric": "requests", "window": "day", "model": "gpt-*", "limit": 2},
        ]);
        assert_eq!(changed, Some(wanted));
        let added = one("total_tokens", 9).put_into(&answer).expect("a set");
        assert_eq!(added.as_array().map(Vec::len), Some(3));
        assert_eq!(One { metric: None, ..one("", 1) }.put_into(&answer), None);
    }
}
