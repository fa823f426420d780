//! `clawgate node …`: data-plane nodes.

use std::path::PathBuf;

use serde_json::json;

use super::bot_token::show_once;
use super::client::path;
use super::{Column, ListArgs, Session};
use crate::failure::Failure;

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("VERSION", "version"),
    ("ACKED", "acked_version"),
    ("CONNECTED", "connected"),
    ("LAST SEEN", "last_seen"),
    ("BACKLOG", "spool_backlog"),
    ("NACK", "nack_reason"),
];

/// Data-plane nodes
#[derive(clap::Subcommand, Debug)]
pub(crate) enum NodeVerb {
    /// All nodes: what they serve, whether they are connected
    List(ListArgs),
    /// One node
    Get {
        /// Id
        node: String,
    },
    /// Shuts a node out for good: its stream ends, it is refused from now on
    Revoke {
        /// Id
        node: String,
    },
    /// A one-time token with which a new node enrols (15 minutes)
    EnrollToken {
        /// Write the token to this file (0600) instead of showing it
        #[arg(long, value_name = "FILE")]
        save_token: Option<PathBuf>,
    },
}

impl NodeVerb {
    /// Asks the control plane and prints its answer.
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Session { api, out } = session;
        match self {
            Self::List(args) => out.rows(&api.list("/nodes", &[], args.limit).await?, COLUMNS),
            Self::Get { node } => out.object(&api.get(&path(&["nodes", &node])?, &[]).await?),
            Self::Revoke { node } => {
                api.delete(&path(&["nodes", &node])?).await?;
                out.done(&format!("node {node} revoked"))
            }
            Self::EnrollToken { save_token } => {
                let answer = api.post("/nodes/enroll-tokens", &json!({})).await?;
                show_once(session, answer.body, save_token.as_deref())
            }
        }
    }
}
