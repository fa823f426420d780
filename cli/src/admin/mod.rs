//! The admin client: every verb is one or two calls of the public REST API.
//!
//! Invariant: nothing here knows the database or the control plane's code; what
//! these verbs can do, a script with `curl` can do. Secrets come from a file,
//! from stdin or from a prompt without echo, never from the command line.
//! Deliberately absent: retries and caching; a person is watching.

mod api_token;
mod audit;
mod body;
mod bot;
mod bot_token;
mod client;
mod env;
mod key;
mod limits;
mod node;
mod output;
mod price;
mod profile;
mod project;
mod quota;
mod runner;
mod secret;
mod target;
mod tenant;
mod usage;
mod vendor;

pub(crate) use api_token::ApiTokenVerb;
pub(crate) use audit::AuditVerb;
pub(crate) use bot::BotVerb;
pub(crate) use client::{Answer, Api, path as client_path};
pub(crate) use env::{EnvArgs, run as env};
pub(crate) use key::KeyVerb;
pub(crate) use node::NodeVerb;
pub(crate) use output::{Column, Format, Printer, say};
pub(crate) use price::PriceVerb;
pub(crate) use profile::{LoginArgs, login};
pub(crate) use project::ProjectVerb;
pub(crate) use quota::QuotaVerb;
pub(crate) use runner::RunnerVerb;
pub(crate) use target::{Target, TargetArgs, remember_local_tenant};
pub(crate) use tenant::TenantVerb;
pub(crate) use usage::UsageVerb;
pub(crate) use vendor::VendorVerb;

use crate::failure::Failure;
use crate::files::DataDir;

/// What every verb needs: where to ask and how to show the answer.
pub(crate) struct Session {
    /// The control plane.
    pub(crate) api: Api,
    /// Standard output in the format asked for.
    pub(crate) out: Printer,
}

impl Session {
    /// Finds the control plane and the credential for it.
    pub(crate) fn open(args: &TargetArgs, data: &DataDir, explicit_data: bool) -> Result<Self, Failure> {
        let target = Target::find(args, data, explicit_data)?;
        Ok(Self { api: Api::new(target)?, out: Printer::new(args.output) })
    }
}

/// Limits of a listing.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ListArgs {
    /// Show at most this many
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
}

impl Session {
    /// Shows a new thing.
    fn created(&self, answer: Answer) -> Result<(), Failure> {
        answer.warn_if_not_everywhere();
        self.out.object(&answer.body)
    }

    /// Shows a changed thing; some verbs answer without a body.
    fn changed(&self, answer: Answer) -> Result<(), Failure> {
        answer.warn_if_not_everywhere();
        if answer.body.is_null() { self.out.done("done") } else { self.out.object(&answer.body) }
    }

    /// Says that a thing is gone.
    fn deleted(&self, answer: Answer, kind: &str, name: &str) -> Result<(), Failure> {
        answer.warn_if_not_everywhere();
        self.out.done(&format!("{kind} {name} deleted"))
    }
}
