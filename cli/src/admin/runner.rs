//! `clawgate runner …`: the processes that hold container engines.

use std::path::PathBuf;

use serde_json::json;

use super::bot_token::show_once;
use super::client::path;
use super::{Column, ListArgs, Session};
use crate::failure::Failure;

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("VERSION", "version"),
    ("CONNECTED", "connected"),
    ("STATE", "state"),
    ("WHY", "state_reason"),
    ("LAST SEEN", "last_seen"),
];

/// Runners
#[derive(clap::Subcommand, Debug)]
pub(crate) enum RunnerVerb {
    /// All runners: whether they are connected, whether their engine answers
    List(ListArgs),
    /// One runner
    Get {
        /// Id
        runner: String,
    },
    /// Shuts a runner out for good; its bots go on until they are cleared up
    Revoke {
        /// Id
        runner: String,
    },
    /// A one-time token with which a new runner enrols (15 minutes)
    EnrollToken {
        /// Write the token to this file (0600) instead of showing it
        #[arg(long, value_name = "FILE")]
        save_token: Option<PathBuf>,
    },
    /// Containers without a bot, and bots without a container
    Orphans,
    /// Clears them up
    Cleanup,
}

impl RunnerVerb {
    /// Asks the control plane and prints its answer.
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Session { api, out } = session;
        match self {
            Self::List(args) => out.rows(&api.list("/runners", &[], args.limit).await?, COLUMNS),
            Self::Get { runner } => out.object(&api.get(&path(&["runners", &runner])?, &[]).await?),
            Self::Revoke { runner } => {
                api.delete(&path(&["runners", &runner])?).await?;
                out.done(&format!("runner {runner} revoked"))
            }
            Self::EnrollToken { save_token } => {
                let answer = api.post("/runners/enroll-tokens", &json!({})).await?;
                show_once(session, answer.body, save_token.as_deref())
            }
            Self::Orphans => out.object(&api.get("/diagnostics/orphans", &[]).await?),
            Self::Cleanup => out.object(&api.post("/diagnostics/cleanup", &json!({})).await?.body),
        }
    }
}
