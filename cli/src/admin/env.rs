//! `clawgate env`: finds the token and prints the lines of [`client_env`].

use std::path::PathBuf;

use clawgate_shared::token::{TokenKind, well_formed};
use serde_json::{Value, json};

use super::client::path;
use super::{Session, TargetArgs, say};
use crate::client_env::{self, Client, TokenText};
use crate::failure::Failure;
use crate::files::{self, DataDir};

/// Prints the lines that point a client at this gateway
#[derive(clap::Args, Debug)]
pub(crate) struct EnvArgs {
    /// Hostname of the bot
    #[arg(long, value_name = "HOSTNAME")]
    bot: String,
    /// The client to point here
    #[arg(long = "for", value_enum, value_name = "CLIENT")]
    client: Client,
    /// Where the client reaches the data plane
    #[arg(long, env = "CLAWGATE_PUBLIC_URL", value_name = "URL")]
    public_url: Option<String>,
    /// Make a new token of this name for the lines
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "env")]
    mint: Option<String>,
    /// Model named where a client's configuration must name one
    #[arg(long, default_value = "gpt-4o-mini")]
    model: String,
    /// File with the bot's token; not together with --mint
    #[arg(long, value_name = "FILE", conflicts_with = "mint")]
    token_file: Option<PathBuf>,
    /// Control plane to talk to, for --mint
    #[arg(long, env = "CLAWGATE_URL", value_name = "URL")]
    url: Option<String>,
    /// Tenant of the bot, for --mint
    #[arg(long, env = "CLAWGATE_TENANT", value_name = "SLUG")]
    tenant: Option<String>,
}

/// Runs `clawgate env`. Only `--mint` talks to the control plane.
pub(crate) async fn run(args: EnvArgs, data: &DataDir, explicit_data: bool) -> Result<(), Failure> {
    let text = args.public_url.clone().unwrap_or_else(|| local_data_plane(data));
    let base = client_env::public_url(&text).map_err(|e| Failure::Usage(e.to_string()))?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._:/@-".contains(&b);
    if args.model.is_empty() || !args.model.bytes().all(plain) {
        return Err(Failure::Usage("the model's name has characters that are not safe in a shell".to_owned()));
    }
    let token = match (&args.token_file, &args.mint) {
        (Some(file), _) => TokenText::Literal(checked(files::read_secret(file)?)?),
        (None, Some(name)) => TokenText::Literal(mint(&args, name, data, explicit_data).await?),
        (None, None) => TokenText::Variable,
    };
    client_env::lines(args.client, &base, &token, &args.model).iter().try_for_each(|line| say(line))
}

/// Where a node of this data directory listens, else the default.
fn local_data_plane(data: &DataDir) -> String {
    let address = files::read_address(&data.run_file("proxy.json"), "data").map(files::dialable);
    format!("http://{}", address.as_deref().unwrap_or("127.0.0.1:8080"))
}

fn checked(token: String) -> Result<String, Failure> {
    if well_formed(TokenKind::Bot, &token) {
        return Ok(token);
    }
    Err(Failure::Usage("this is not a bot token (cgb_…), or it was mistyped".to_owned()))
}

async fn mint(args: &EnvArgs, name: &str, data: &DataDir, explicit_data: bool) -> Result<String, Failure> {
    let target = TargetArgs {
        url: args.url.clone(),
        token_file: None,
        tenant: args.tenant.clone(),
        output: super::Format::Table,
    };
    let session = Session::open(&target, data, explicit_data)?;
    let answer = session.api.post(&path(&["bots", &args.bot, "tokens"])?, &json!({ "name": name })).await?;
    answer.warn_if_not_everywhere();
    let token = answer.body.get("token").and_then(Value::as_str).unwrap_or_default();
    checked(token.to_owned())
}
