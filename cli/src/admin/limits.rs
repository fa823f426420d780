//! `clawgate bot limits …` and `clawgate tenant limits …`

use super::Session;
use super::body::Body;
use super::client::path;
use crate::failure::Failure;

/// Rate and concurrency limits of one thing
#[derive(clap::Subcommand, Debug)]
pub(crate) enum LimitsVerb {
    /// The limits as they are
    Get {
        /// Hostname of the bot; id or slug of the tenant
        name: String,
    },
    /// Replaces the limits: one that is not given is lifted
    Set {
        /// Hostname of the bot; id or slug of the tenant
        name: String,
        /// Requests in any minute
        #[arg(long, value_name = "N")]
        requests_per_minute: Option<u64>,
        /// Tokens in any minute
        #[arg(long, value_name = "N")]
        tokens_per_minute: Option<u64>,
        /// Requests at one time
        #[arg(long, value_name = "N")]
        max_concurrency: Option<u64>,
    },
}

impl LimitsVerb {
    /// Asks the control plane about one of `kind` (`bots`, `tenants`) and prints
    /// its answer.
    pub(crate) async fn run(self, session: &Session, kind: &str) -> Result<(), Failure> {
        let Session { api, out } = session;
        match self {
            Self::Get { name } => out.object(&api.get(&path(&[kind, &name, "limits"])?, &[]).await?),
            Self::Set { name, requests_per_minute, tokens_per_minute, max_concurrency } => {
                let mut body = Body::default();
                body.set("requests_per_minute", requests_per_minute)
                    .set("tokens_per_minute", tokens_per_minute)
                    .set("max_concurrency", max_concurrency);
                session.changed(api.put(&path(&[kind, &name, "limits"])?, &[], &body.finish()).await?)
            }
        }
    }
}
