//! `clawgate-bench`: measure a gateway, the floors below it, and the numbers
//! Clawgate is held to.
//!
//! Exit code 0: every target met; 5: one was missed; 1: the run could not be
//! made or is void.

mod failure;
mod floor;
mod ingest;
mod interleave;
mod load;
mod machine;
mod numbers;
mod report;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

// Floors get the allocator the gateway uses, so that no ratio is won by it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load generator and floors.
#[derive(Parser)]
#[command(name = "clawgate-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure one or several targets, interleaved
    Run(run::RunArgs),
    /// Start everything on this machine and check the numbers it is held to
    Numbers(Box<numbers::NumbersArgs>),
    /// Ship usage to a control plane: events per second, processor time per event
    Ingest(ingest::IngestArgs),
    /// Fill a control plane with usage and time the usage API over it
    UsageApi(ingest::UsageApiArgs),
    /// Serve as one of the floors
    #[command(subcommand)]
    Floor(floor::Floor),
}

/// Whether all requirements were met.
pub(crate) type Met = bool;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(arguments) => arguments.run(),
        Command::Numbers(arguments) => arguments.run(),
        Command::Ingest(arguments) => arguments.run(),
        Command::UsageApi(arguments) => arguments.run(),
        Command::Floor(floor) => floor.run().map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(5),
        Err(cause) => {
            eprintln!("clawgate-bench: {cause}");
            ExitCode::FAILURE
        }
    }
}
