//! `clawgate bot …`

use std::path::PathBuf;

use serde_json::json;

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
    json: JsonArg,
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
