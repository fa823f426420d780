//! `clawgate key …`: provider keys.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::body::{Body, JsonArg, pair};
use super::client::path;
use super::{Column, ListArgs, Session, secret};
use crate::failure::Failure;

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("VENDOR", "vendor"),
    ("LABEL", "label"),
    ("TAGS", "tags"),
    ("LAST4", "last4"),
    ("STATUS", "status"),
    ("BASE URL", "base_url"),
];

/// Provider keys: what we present to vendors
#[derive(clap::Subcommand, Debug)]
pub(crate) enum KeyVerb {
    /// All provider keys; never their secrets
    List(ListArgs),
    /// One provider key
    Get {
        /// Id
        key: String,
    },
    /// A new provider key; its secret is asked for, or read from a file or stdin
    Create {
        /// A vendor of the catalogue or the tenant's own
        #[arg(long)]
        vendor: Option<String>,
        /// Take the secret from this file (`-`: stdin)
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        /// Ask the vendor whether it works; it is kept whatever the vendor says
        #[arg(long)]
        verify: bool,
        #[command(flatten)]
        fields: Fields,
    },
    /// Asks the vendor whether a key works; fails unless it does
    Verify {
        /// Id
        key: String,
    },
    /// Changes a provider key
    Update {
        /// Id
        key: String,
        /// With a new base URL: the secret again (`-`: stdin)
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        #[command(flatten)]
        fields: Fields,
    },
    /// Replaces the secret
    Rotate {
        /// Id
        key: String,
        /// Take the secret from this file (`-`: stdin)
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// Deletes a provider key
    Delete {
        /// Id
        key: String,
    },
}

/// What can be set.
#[derive(clap::Args, Debug)]
pub(crate) struct Fields {
    /// Name for people
    #[arg(long)]
    label: Option<String>,
    /// A tag that bots may require; repeat it
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Another address than the vendor's own
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Only for this project
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// Share under the strategy `weighted`
    #[arg(long, value_name = "N")]
    weight: Option<u32>,
    /// Order under the strategy `priority`; higher goes first
    #[arg(long, value_name = "N")]
    priority: Option<i32>,
    /// Requests at one time; 0 is no limit
    #[arg(long, value_name = "N")]
    max_concurrency: Option<u32>,
    /// Take part in key choice
    #[arg(long, value_name = "BOOL")]
    enabled: Option<bool>,
    /// A vendor option such as `organization=…`, `auth=api-key`; repeat it
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = pair)]
    options: Vec<(String, String)>,
    #[command(flatten)]
    json: JsonArg,
}

impl Fields {
    fn body(self) -> Result<Body, Failure> {
        let mut body = Body::from_arg(&self.json)?;
        body.set("label", self.label)
            .list("tags", self.tags)
            .set("base_url", self.base_url)
            .set("project_id", self.project)
            .set("weight", self.weight)
            .set("priority", self.priority)
            .set("max_concurrency", self.max_concurrency)
            .set("enabled", self.enabled)
            .pairs("options", self.options);
        Ok(body)
    }
}

/// Whether the vendor takes the key.
fn works(said: &Value) -> Result<(), Failure> {
    let text = |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default();
    match text("result") {
        "active" => Ok(()),
        result => Err(Failure::Failed(format!("{} ({result})", text("message")))),
    }
}

const ASKED: &str = "provider key";

impl KeyVerb {
    /// Asks the control plane and prints its answer.
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Session { api, out } = session;
        match self {
            Self::List(args) => out.rows(&api.list("/provider-keys", &[], args.limit).await?, COLUMNS),
            Self::Get { key } => out.object(&api.get(&path(&["provider-keys", &key])?, &[]).await?),
            Self::Create { vendor, secret_file, verify, fields } => {
                let mut body = fields.body()?;
                body.set("vendor", vendor);
                if !body.has("secret") && !body.has("secret_ref") {
                    body.set("secret", Some(secret::read(ASKED, secret_file.as_ref())?));
                }
                let path = if verify { "/provider-keys?verify=true" } else { "/provider-keys" };
                let answer = api.post(path, &body.finish()).await?;
                let said = answer.body.get("verification").cloned();
                session.created(answer)?;
                said.as_ref().map_or(Ok(()), works)
            }
            Self::Verify { key } => {
                let said = api.post(&path(&["provider-keys", &key, "verify"])?, &json!({})).await?.body;
                out.object(&said)?;
                works(&said)
            }
            Self::Update { key, secret_file, fields } => {
                let moves = fields.base_url.is_some();
                let mut body = fields.body()?;
                if secret_file.is_some() || (moves && !body.has("secret")) {
                    body.set("secret", Some(secret::read(ASKED, secret_file.as_ref())?));
                }
                session.changed(api.patch(&path(&["provider-keys", &key])?, &body.for_update()?).await?)
            }
            Self::Rotate { key, secret_file } => {
                let mut body = Body::default();
                body.set("secret", Some(secret::read(ASKED, secret_file.as_ref())?));
                session.changed(api.post(&path(&["provider-keys", &key, "rotate"])?, &body.finish()).await?)
            }
            Self::Delete { key } => {
                session.deleted(api.delete(&path(&["provider-keys", &key])?).await?, "provider key", &key)
            }
        }
    }
}
