//! The command line: every subcommand, and which function answers it.

use std::future::Future;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::admin::{
    self, ApiTokenVerb, AuditVerb, BotVerb, EnvArgs, KeyVerb, LoginArgs, NodeVerb, PriceVerb, ProjectVerb, QuotaVerb,
    Session, TargetArgs, TenantVerb, UsageVerb, VendorVerb,
};
use crate::check::{self, CheckArgs};
use crate::doctor::{self, DoctorArgs};
use crate::failure::Failure;
use crate::files::DataDir;
use crate::flags::{Place, PlaceArgs};
use crate::planes::{self, ControlArgs, MigrateArgs, MockArgs, ProxyArgs};
use crate::runner::{self, RunnerArgs};
use crate::up::{self, UpArgs};

/// Runs many AI bots with many provider keys: a gateway that counts every
/// token, and the control plane beside it
#[derive(Parser, Debug)]
#[command(name = "clawgate", version, disable_help_subcommand = true, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Up(Box<UpArgs>),
    Control(Box<ControlArgs>),
    Proxy(Box<ProxyArgs>),
    Runner(Box<RunnerArgs>),
    #[command(hide = true)]
    Mock(MockArgs),
    Migrate(Box<MigrateArgs>),
    CheckConfig(Box<CheckArgs>),
    Doctor(Box<DoctorArgs>),
    Login(LoginArgs),
    Env(EnvArgs),
    /// Tenants
    Tenant(Verb<TenantVerb>),
    /// Projects
    Project(Verb<ProjectVerb>),
    /// Bots and their tokens
    Bot(Verb<BotVerb>),
    /// Provider keys
    Key(Verb<KeyVerb>),
    /// Vendors
    Vendor(Verb<VendorVerb>),
    /// Quotas
    Quota(Verb<QuotaVerb>),
    /// What models cost
    Price(Verb<PriceVerb>),
    /// Usage: tokens, requests, errors
    Usage(Verb<UsageVerb>),
    /// Data-plane nodes
    Node(Verb<NodeVerb>),
    /// The audit log
    Audit(Verb<AuditVerb>),
    /// API tokens
    ApiToken(Verb<ApiTokenVerb>),
    /// Asks a health endpoint: exit code 0 when it answers 200 (for containers)
    #[command(hide = true)]
    Probe {
        /// For example <http://127.0.0.1:8083/readyz>
        url: String,
    },
    /// Prints the completion script of a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// An admin verb and where to send it.
#[derive(clap::Args, Debug)]
struct Verb<V: Subcommand> {
    #[command(flatten)]
    target: TargetArgs,
    #[command(subcommand)]
    verb: V,
}

impl<V: Subcommand> Verb<V> {
    fn open(self, place: &Place) -> Result<(Session, V), Failure> {
        let data = DataDir::at(place.data_dir.clone());
        Ok((Session::open(&self.target, &data, place.explicit)?, self.verb))
    }
}

/// Runs the command to its end.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let place = cli.place.resolve()?;
    let data = || DataDir::at(place.data_dir.clone());
    match cli.command {
        Command::Up(args) => on_this_thread(up::run(*args, &place)),
        Command::Control(args) => planes::control(&args, &place),
        Command::Proxy(args) => planes::proxy(&args, &place),
        Command::Runner(args) => runner::run(*args, &place),
        Command::Mock(args) => planes::mock(&args, &place),
        Command::Migrate(args) => planes::migrate(&args, &place),
        Command::CheckConfig(args) => check::run(&args, &place),
        Command::Doctor(args) => on_this_thread(doctor::run(&args, &place)),
        Command::Login(args) => on_this_thread(admin::login(args)),
        Command::Env(args) => on_this_thread(admin::env(args, &data(), place.explicit)),
        Command::Probe { url } => on_this_thread(up::probe(&url)),
        Command::Completions { shell } => completions(shell),
        verb => on_this_thread(admin_verb(verb, &place)),
    }
}

async fn admin_verb(command: Command, place: &Place) -> Result<(), Failure> {
    /// Opens the session of a verb and runs it.
    macro_rules! verb {
        ($verb:expr) => {{
            let (session, verb) = $verb.open(place)?;
            verb.run(&session).await
        }};
    }
    match command {
        Command::Tenant(v) => verb!(v),
        Command::Project(v) => verb!(v),
        Command::Bot(v) => verb!(v),
        Command::Key(v) => verb!(v),
        Command::Vendor(v) => verb!(v),
        Command::Quota(v) => verb!(v),
        Command::Price(v) => verb!(v),
        Command::Usage(v) => verb!(v),
        Command::Node(v) => verb!(v),
        Command::Audit(v) => verb!(v),
        Command::ApiToken(v) => verb!(v),
        // `run` has answered every other command.
        _ => Ok(()),
    }
}

/// One thread is enough for a supervisor and for a client, and starts fastest.
fn on_this_thread(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed("starting the runtime", e))?
        .block_on(work)
}

fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "clawgate", &mut script);
    admin::say(String::from_utf8_lossy(&script).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_the_contract_names_is_there() {
        for line in [
            "clawgate up --demo --listen 127.0.0.1:0 --console-listen 127.0.0.1:0 --data-dir d",
            "clawgate control --console-listen 127.0.0.1:0 --database-url sqlite://x",
            "clawgate proxy --control http://127.0.0.1:8082 --enroll-token-file f --threads 2",
            "clawgate check-config --config c.toml",
            "clawgate doctor",
            "clawgate runner --control unix:/run/c.sock --engine unix:///var/run/docker.sock --label zone=a",
            "clawgate migrate",
            "clawgate env --bot demo --for claude-code --public-url https://gate.example --mint",
            "clawgate env --bot demo --for curl --mint=laptop",
            "clawgate usage stats --bot demo",
            "clawgate usage logs --status 429 --output json --url http://127.0.0.1:8081",
            "clawgate bot create demo --tag a --tag b --alias fast=gpt-4o-mini --tenant acme",
            "clawgate bot token rotate demo --overlap-seconds 0",
            "clawgate bot suspend demo",
            "clawgate key create --vendor openai --label main --secret-file -",
            "clawgate key rotate key_1",
            "clawgate node enroll-token --save-token f",
            "clawgate api-token create --name ci --role viewer",
            "clawgate audit list --limit 5",
            "clawgate vendor list",
            "clawgate bot limits set demo --requests-per-minute 60 --max-concurrency 4",
            "clawgate tenant limits get acme",
            "clawgate quota list --bot demo --output json",
            "clawgate quota set --bot demo --metric total_tokens --window day --limit 100000",
            "clawgate quota set --tenant acme --json quotas.json",
            "clawgate quota grant --key key_1 --metric requests --window hour --amount 5 --reason launch",
            "clawgate price list --vendor openai --platform",
            "clawgate price set --json prices.json",
            "clawgate price import model_prices.json --effective-from 2026-01-01T00:00:00Z",
            "clawgate completions bash",
            "clawgate probe http://127.0.0.1:8083/readyz",
            "clawgate login https://control.example --token-file f",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.err().map(|e| e.to_string()).unwrap_or_default());
        }
    }

    #[test]
    fn no_flag_takes_a_secret() {
        for line in
            ["clawgate key create --secret sk-x", "clawgate bot list --token cga_x", "clawgate login u --token t"]
        {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
