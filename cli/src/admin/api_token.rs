//! `clawgate api-token …`: what scripts present to the REST API.

use std::path::PathBuf;

use super::body::{Body, JsonArg};
use super::bot_token::show_once;
use super::client::path;
use super::{Column, ListArgs, Session};
use crate::failure::Failure;

const COLUMNS: &[Column] =
    &[("ID", "id"), ("NAME", "name"), ("ROLE", "role"), ("CREATED", "created_at"), ("EXPIRES", "expires_at")];

/// API tokens
#[derive(clap::Subcommand, Debug)]
pub(crate) enum ApiTokenVerb {
    /// All API tokens; never their text
    List(ListArgs),
    /// A new API token, shown once
    Create {
        /// Name for people
        #[arg(long)]
        name: Option<String>,
        /// What it may do: viewer, developer, operator, admin, owner, auditor, `platform_admin`
        #[arg(long)]
        role: Option<String>,
        /// End of its life, RFC 3339
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
        /// Write the token to this file (0600) instead of showing it
        #[arg(long, value_name = "FILE")]
        save_token: Option<PathBuf>,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Deletes an API token
    Delete {
        /// Id
        token: String,
    },
}

impl ApiTokenVerb {
    /// Asks the control plane and prints its answer.
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Session { api, out } = session;
        match self {
            Self::List(args) => out.rows(&api.list("/api-tokens", &[], args.limit).await?, COLUMNS),
            Self::Create { name, role, expires_at, save_token, json } => {
                let mut body = Body::from_arg(&json)?;
                body.set("name", name).set("role", role).set("expires_at", expires_at);
                let answer = api.post("/api-tokens", &body.finish()).await?;
                show_once(session, answer.body, save_token.as_deref())
            }
            Self::Delete { token } => {
                session.deleted(api.delete(&path(&["api-tokens", &token])?).await?, "API token", &token)
            }
        }
    }
}
