//! The one binary of Clawgate.
//!
//! Invariant: composition only. A command resolves its configuration, calls
//! the crate that does the work, and turns the outcome into an exit code; no
//! rule of either plane lives here.
//! Deliberately absent: defaults of settings (each plane's `config`), SQL, the
//! wire between the planes.

mod admin;
mod check;
mod client_env;
mod commands;
mod doctor;
mod failure;
mod files;
mod flags;
mod liveness;
mod logging;
mod planes;
mod runner;
mod settings_file;
mod up;

use std::process::ExitCode;

use clap::Parser as _;

/// Proxy and ingest allocate from many threads at once; this allocator keeps
/// that cheap and gives memory back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    failure::finish(commands::run(commands::Cli::parse()))
}
