//! `clawgate bot …`

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::body::{Body, JsonArg, pair};
use super::bot_token::{self, TokenVerb};
use super::client::path;
use super::limits::LimitsVerb;
use super::{Column, ListArgs, Session};
use crate::failure::Failure;

const COLUMNS: &[Column] = &[
    ("HOSTNAME", "hostname"),
    ("NAME", "name"),
    ("STATUS", "status"),
    ("TAGS", "tags"),
    ("STRATEGY", "key_strategy"),
    ("CREATED", "created_at"),
];

const EVENTS: &[Column] = &[
    ("WHEN", "created_at"),
    ("KIND", "kind"),
    ("STATUS", "status"),
    ("REASON", "reason_code"),
    ("EXIT", "exit_code"),
    ("TEXT", "reason"),
];

/// Bots
#[derive(clap::Subcommand, Debug)]
pub(crate) enum BotVerb {
    /// All bots
    List(ListArgs),
    /// One bot
    Get {
        /// Hostname
        bot: String,
    },
    /// A new bot; its token is shown once
    Create {
        /// Lower-case name, unique in the tenant
        hostname: Option<String>,
        /// Write the token to this file (0600) instead of showing it
        #[arg(long, value_name = "FILE")]
        save_token: Option<PathBuf>,
        #[command(flatten)]
        fields: Box<Fields>,
    },
    /// Changes a bot
    Update {
        /// Hostname
        bot: String,
        #[command(flatten)]
        fields: Box<Fields>,
    },
    /// Deletes a bot; its streams end
    Delete {
        /// Hostname
        bot: String,
    },
    /// Takes all its tokens away at once: its streams end, nothing of it is
    /// served until it gets a new token
    Kill {
        /// Hostname
        bot: String,
    },
    /// Serves its requests again
    Enable {
        /// Hostname
        bot: String,
    },
    /// Switches it off: its requests are refused, its tokens stay
    Disable {
        /// Hostname
        bot: String,
    },
    /// Starts a bot that we run
    Start {
        /// Hostname
        bot: String,
    },
    /// Stops a bot that we run; its tokens stay
    Stop {
        /// Hostname
        bot: String,
    },
    /// Restarts a bot that we run
    Restart {
        /// Hostname
        bot: String,
    },
    /// Refuses its requests from now on; its streams end
    Suspend {
        /// Hostname
        bot: String,
    },
    /// Lifts a suspension
    Resume {
        /// Hostname
        bot: String,
    },
    /// The last lines that a bot that we run wrote
    Logs {
        /// Hostname
        bot: String,
        /// How many lines
        #[arg(long, value_name = "N", default_value_t = 200)]
        tail: u32,
    },
    /// What happened to a bot that we run, newest first
    Events {
        /// Hostname
        bot: String,
        #[command(flatten)]
        args: ListArgs,
    },
    /// Why a bot that we run is as it is
    Diagnostics {
        /// Hostname
        bot: String,
    },
    /// What would become of a request: the decision without sending one
    Explain {
        /// Hostname
        bot: String,
        /// Vendor, as in `/v1/{vendor}/…`
        #[arg(long, value_name = "VENDOR")]
        vendor: String,
        /// Model, as the bot would name it
        #[arg(long, value_name = "MODEL")]
        model: String,
    },
    /// Its rate and concurrency limits
    #[command(subcommand)]
    Limits(LimitsVerb),
    /// Its tokens
    #[command(subcommand)]
    Token(TokenVerb),
}

/// What can be set.
#[derive(clap::Args, Debug)]
pub(crate) struct Fields {
    /// Name for people
    #[arg(long)]
    name: Option<String>,
    /// Project it belongs to
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// A label for reports; repeat it
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// A tag its provider keys must carry; repeat it
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// A vendor it may use; repeat it; none given: all
    #[arg(long = "allow-vendor", value_name = "VENDOR")]
    vendors: Vec<String>,
    /// A model it may use, `*` allowed; repeat it; none given: all
    #[arg(long = "allow-model", value_name = "GLOB")]
    models: Vec<String>,
    /// Another name for a model; repeat it
    #[arg(long = "alias", value_name = "FROM=TO", value_parser = pair)]
    aliases: Vec<(String, String)>,
    /// `round_robin`, `weighted`, `priority`, `least_used` or `sticky`
    #[arg(long, value_name = "NAME")]
    key_strategy: Option<String>,
    /// What happens to the vendor's stream when the client goes: cancel, drain
    #[arg(long, value_name = "POLICY")]
    on_disconnect: Option<String>,
    /// Output limit put in when the client sends none
    #[arg(long, value_name = "N")]
    default_max_tokens: Option<u64>,
    /// Whether usage is asked for in streams: auto, never
    #[arg(long, value_name = "MODE")]
    include_usage: Option<String>,
    /// A permission such as `account_resources`; repeat it
    #[arg(long = "permission", value_name = "NAME")]
    permissions: Vec<String>,
    #[command(flatten)]
    container: ContainerFields,
    #[command(flatten)]
    json: JsonArg,
}

/// What can be set of a bot that we run.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Container")]
pub(crate) struct ContainerFields {
    /// What runs it: external, generic; cannot be changed
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Container image
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// Instead of the image's own command; repeat it for each word
    #[arg(long = "command", value_name = "WORD", allow_hyphen_values = true)]
    command: Vec<String>,
    /// A variable, no secret; `{{bot_token}}` and the like are filled in; repeat it
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Thousandths of a processor that it may take
    #[arg(long, value_name = "N")]
    cpu_millis: Option<u32>,
    /// MiB of memory that it may take
    #[arg(long, value_name = "N")]
    memory_mb: Option<u32>,
    /// MiB of disk that it may take
    #[arg(long, value_name = "N")]
    disk_mb: Option<u32>,
}

impl ContainerFields {
    fn set(self, body: &mut Body) {
        let given = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
        let env: Map<String, Value> = self.env.into_iter().map(|(name, value)| (name, value.into())).collect();
        body.set("adapter", self.adapter)
            .set("image", self.image)
            .within("container", "command", given(self.command))
            .within("container", "env", Some(env).filter(|env| !env.is_empty()))
            .within("resources", "cpu_millis", self.cpu_millis)
            .within("resources", "memory_mb", self.memory_mb)
            .within("resources", "disk_mb", self.disk_mb);
    }
}

impl Fields {
    fn body(self) -> Result<Body, Failure> {
        let mut body = Body::from_arg(&self.json)?;
        body.set("name", self.name)
            .set("project_id", self.project)
            .pairs("labels", self.labels)
            .list("tags", self.tags)
            .list("allowed_vendors", self.vendors)
            .list("allowed_models", self.models)
            .pairs("model_aliases", self.aliases)
            .set("key_strategy", self.key_strategy)
            .set("on_disconnect", self.on_disconnect)
            .set("default_max_tokens", self.default_max_tokens)
            .set("include_usage", self.include_usage)
            .list("permissions", self.permissions);
        self.container.set(&mut body);
        Ok(body)
    }
}

impl BotVerb {
    /// Asks the control plane and prints its answer.
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Session { api, out } = session;
        match self {
            Self::List(args) => out.rows(&api.list("/bots", &[], args.limit).await?, COLUMNS),
            Self::Get { bot } => out.object(&api.get(&path(&["bots", &bot])?, &[]).await?),
            Self::Create { hostname, save_token, fields } => {
                let mut body = fields.body()?;
                body.set("hostname", hostname);
                let answer = api.post("/bots", &body.finish()).await?;
                answer.warn_if_not_everywhere();
                bot_token::show_once(session, answer.body, save_token.as_deref())
            }
            Self::Update { bot, fields } => {
                let body = fields.body()?.for_update()?;
                session.changed(api.patch(&path(&["bots", &bot])?, &body).await?)
            }
            Self::Delete { bot } => session.deleted(api.delete(&path(&["bots", &bot])?).await?, "bot", &bot),
            Self::Kill { bot } => switch(session, &bot, "kill").await,
            Self::Enable { bot } => enable(session, &bot, true).await,
            Self::Disable { bot } => enable(session, &bot, false).await,
            Self::Start { bot } => switch(session, &bot, "start").await,
            Self::Stop { bot } => switch(session, &bot, "stop").await,
            Self::Restart { bot } => switch(session, &bot, "restart").await,
            Self::Suspend { bot } => switch(session, &bot, "suspend").await,
            Self::Resume { bot } => switch(session, &bot, "resume").await,
            Self::Logs { bot, tail } => {
                let answer = api.get(&path(&["bots", &bot, "logs"])?, &[("tail", tail.to_string())]).await?;
                out.lines(&answer, "lines")
            }
            Self::Events { bot, args } => {
                out.rows(&api.list(&path(&["bots", &bot, "events"])?, &[], args.limit).await?, EVENTS)
            }
            Self::Diagnostics { bot } => out.object(&api.get(&path(&["bots", &bot, "diagnostics"])?, &[]).await?),
            Self::Explain { bot, vendor, model } => {
                let body = json!({ "vendor": vendor, "model": model });
                out.object(&api.post(&path(&["bots", &bot, "explain"])?, &body).await?.body)
            }
            Self::Limits(verb) => verb.run(session, "bots").await,
            Self::Token(verb) => verb.run(session).await,
        }
    }
}

async fn enable(session: &Session, bot: &str, on: bool) -> Result<(), Failure> {
    session.changed(session.api.patch(&path(&["bots", bot])?, &json!({ "enabled": on })).await?)
}

async fn switch(session: &Session, bot: &str, verb: &str) -> Result<(), Failure> {
    session.changed(session.api.post(&path(&["bots", bot, verb])?, &json!({})).await?)
}
