//! The mock vendor as a process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clawgate_mock::{Ledger, LedgerTarget, MockConfig, environment_knobs};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A mock LLM vendor with a ledger. Knobs come as header `x-mock-NAME`, query
/// `mock_NAME`, path `/knobs/NAME=VALUE;…/` or environment `MOCK_NAME`.
#[derive(Parser)]
#[command(name = "clawgate-mock", version)]
struct Arguments {
    /// Where to listen; port 0 picks one.
    #[arg(long, default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// File to append the ledger to, or `none` to count only.
    #[arg(long, default_value = "none")]
    ledger: String,
    /// Also write a line when a request arrives.
    #[arg(long)]
    two_phase: bool,
    /// Folder of recordings for /replay/.
    #[arg(long)]
    recordings: Option<PathBuf>,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("clawgate-mock: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), String> {
    let target = if arguments.ledger == "none" {
        LedgerTarget::None
    } else {
        LedgerTarget::File { path: PathBuf::from(&arguments.ledger), two_phase: arguments.two_phase }
    };
    let ledger = Ledger::open(&target).map_err(|cause| format!("ledger {}: {cause}", arguments.ledger))?;
    let knobs = environment_knobs().map_err(|cause| cause.to_string())?;
    if let Some(folder) = arguments.recordings.as_ref().filter(|folder| !folder.is_dir()) {
        return Err(format!("recordings {}: not a folder", folder.display()));
    }
    let config = MockConfig { ledger, recordings: arguments.recordings, knobs };
    let runtime = if arguments.threads <= 1 {
        tokio::runtime::Builder::new_current_thread().enable_all().build()
    } else {
        tokio::runtime::Builder::new_multi_thread().worker_threads(arguments.threads).enable_all().build()
    };
    runtime.map_err(|cause| cause.to_string())?.block_on(listen(arguments.listen, config))
}

async fn listen(address: SocketAddr, config: MockConfig) -> Result<(), String> {
    let listener = TcpListener::bind(address).await.map_err(|cause| format!("listen {address}: {cause}"))?;
    let bound = listener.local_addr().map_err(|cause| cause.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|cause| cause.to_string())?;
    announce(bound);
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    clawgate_mock::serve(listener, config, shutdown).await.map_err(|cause| cause.to_string())
}

/// One JSON line, for scripts that start the mock on port 0.
#[allow(clippy::print_stdout, reason = "the announcement is this program's interface")]
fn announce(bound: SocketAddr) {
    println!("{}", serde_json::json!({"event": "ready", "listen": bound.to_string()}));
}
