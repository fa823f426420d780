//! `clawgate bot token …`: what bots present to the data plane.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::body::Body;
use super::client::path;
use super::{Column, ListArgs, Session};
use crate::failure::Failure;
use crate::files;

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("CREATED", "created_at"),
    ("EXPIRES", "expires_at"),
    ("LAST USED", "last_used_at"),
];

/// Tokens of one bot
#[derive(clap::Subcommand, Debug)]
pub(crate) enum TokenVerb {
    /// Its tokens; never their text
    List {
        /// Hostname of the bot
        bot: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// A further token, shown once
    Create {
        /// Hostname of the bot
        bot: String,
        /// Name for people
        #[arg(long)]
        name: Option<String>,
        /// End of its life, RFC 3339
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
        /// Write the token to this file (0600) instead of showing it
        #[arg(long, value_name = "FILE")]
        save_token: Option<PathBuf>,
    },
    /// Deletes a token; streams that used it end
    Delete {
        /// Hostname of the bot
        bot: String,
        /// Id of the token
        token: String,
    },
    /// A new token; the others end after an overlap
    Rotate {
        /// Hostname of the bot
        bot: String,
        /// How long the old tokens still work
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        overlap_seconds: u32,
        /// Write the token to this file (0600) instead of showing it
        #[arg(long, value_name = "FILE")]
        save_token: Option<PathBuf>,
    },
}

impl TokenVerb {
    /// Asks the control plane and prints its answer.
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Session { api, out } = session;
        match self {
            Self::List { bot, list } => {
                out.rows(&api.list(&path(&["bots", &bot, "tokens"])?, &[], list.limit).await?, COLUMNS)
            }
            Self::Create { bot, name, expires_at, save_token } => {
                let mut body = Body::default();
                body.set("name", name).set("expires_at", expires_at);
                let answer = api.post(&path(&["bots", &bot, "tokens"])?, &body.finish()).await?;
                answer.warn_if_not_everywhere();
                show_once(session, answer.body, save_token.as_deref())
            }
            Self::Delete { bot, token } => {
                let answer = api.delete(&path(&["bots", &bot, "tokens", &token])?).await?;
                session.deleted(answer, "bot token", &token)
            }
            Self::Rotate { bot, overlap_seconds, save_token } => {
                let body = json!({ "overlap_seconds": overlap_seconds });
                let answer = api.post(&path(&["bots", &bot, "token"])?, &body).await?;
                answer.warn_if_not_everywhere();
                show_once(session, answer.body, save_token.as_deref())
            }
        }
    }
}

/// Prints an answer that holds a new `token`; with a file the token goes there
/// and its place in the answer names the file.
pub(crate) fn show_once(session: &Session, mut body: Value, file: Option<&Path>) -> Result<(), Failure> {
    if let Some(file) = file {
        let token = body
            .get("token")
            .and_then(Value::as_str)
            .ok_or_else(|| Failure::Failed("the control plane's answer has no token".to_owned()))?;
        files::write_private(file, format!("{token}\n").as_bytes())
            .map_err(|e| Failure::failed(&format!("writing {}", file.display()), e))?;
        if let Some(field) = body.get_mut("token") {
            *field = Value::from(format!("written to {}", file.display()));
        }
    }
    session.out.object(&body)
}
