//! `clawgate price …`

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::body::{Body, JsonArg};
use super::{Column, ListArgs, Session};
use crate::failure::Failure;

const COLUMNS: &[Column] =
    &[("VENDOR", "vendor"), ("MODEL", "model"), ("SOURCE", "source"), ("FROM", "effective_from"), ("BANDS", "bands")];

/// Largest price file that is sent.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// What models cost
#[derive(clap::Subcommand, Debug)]
pub(crate) enum PriceVerb {
    /// Prices in effect now, USD per million tokens
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Replaces the prices set by hand: --json takes {"prices": […]}
    Set {
        /// The platform's instead of the tenant's
        #[arg(long)]
        platform: bool,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Takes over a price file in `LiteLLM`'s shape, for every tenant
    Import {
        /// `model_prices_and_context_window.json`
        file: PathBuf,
        /// From when on, RFC 3339; from now on unless given
        #[arg(long, value_name = "TIME")]
        effective_from: Option<String>,
    },
}

/// Which prices.
#[derive(clap::Args, Debug)]
pub(crate) struct Filter {
    /// Without what the tenant has set
    #[arg(long)]
    platform: bool,
    /// Of one vendor, by slug
    #[arg(long)]
    vendor: Option<String>,
    /// Of one model
    #[arg(long)]
    model: Option<String>,
    /// Of one source: tenant, platform, import, builtin
    #[arg(long)]
    source: Option<String>,
}

fn scope(platform: bool) -> Vec<(&'static str, String)> {
    if platform { vec![("scope", "platform".to_owned())] } else { Vec::new() }
}

impl PriceVerb {
    /// Asks the control plane and prints its answer.
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Session { api, out } = session;
        match self {
            Self::List { filter, list } => {
                let mut query = scope(filter.platform);
                query.extend(filter.vendor.map(|vendor| ("vendor", vendor)));
                query.extend(filter.model.map(|model| ("model", model)));
                query.extend(filter.source.map(|source| ("source", source)));
                out.rows(&api.list("/prices", &query, list.limit).await?, COLUMNS)
            }
            Self::Set { platform, json } => {
                let body = Body::from_arg(&json)?.for_update()?;
                session.changed(api.put("/prices", &scope(platform), &body).await?)
            }
            Self::Import { file, effective_from } => {
                let file = read(&file)?;
                let query: Vec<_> = effective_from.map(|at| ("effective_from", at)).into_iter().collect();
                session.changed(api.post_with("/prices/import", &query, &file).await?)
            }
        }
    }
}

fn read(path: &Path) -> Result<Value, Failure> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
        .map_err(|e| Failure::failed(&format!("reading {}", path.display()), e))?;
    serde_json::from_slice(&bytes).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))
}
