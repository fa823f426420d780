//! The runner's life: its id, and one session after the other.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clawgate_shared::id;
use tokio::time::{Instant, sleep};

use crate::link;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(15);

/// What a runner is told at its start.
#[derive(Clone, Debug)]
pub struct RunnerConfig {
    /// Where its id is kept.
    pub data_dir: PathBuf,
    /// The control plane's Unix socket.
    pub control: PathBuf,
    /// `unix:///…` or `tcp://127.…`; `None`: where engines usually are.
    pub engine: Option<String>,
    /// For people.
    pub name: String,
    /// For placing bots.
    pub labels: HashMap<String, String>,
    /// What bots may take together; 0: what the machine has.
    pub cpu_millis: u64,
    /// As `cpu_millis`.
    pub memory_mb: u64,
    /// As `cpu_millis`.
    pub max_bots: u64,
    /// The bots' listener on this machine.
    pub bot_listener: Option<SocketAddr>,
}

/// Runs until `stop`.
///
/// # Errors
/// Its id cannot be read or kept.
pub async fn run(config: RunnerConfig, stop: impl Future<Output = ()>) -> io::Result<()> {
    let runner_id = runner_id(&config.data_dir)?;
    tokio::select! {
        () = stop => Ok(()),
        never = sessions(&config, &runner_id) => match never {},
    }
}

async fn sessions(config: &RunnerConfig, runner_id: &str) -> std::convert::Infallible {
    let mut ceiling = FIRST;
    loop {
        let begun = Instant::now();
        match link::session(config, runner_id).await {
            Ok(()) => tracing::info!("the control plane ended the stream"),
            Err(error) => tracing::warn!(%error, "no session with the control plane"),
        }
        if begun.elapsed() > LONGEST {
            ceiling = FIRST;
        }
        // Runners that lost the same control plane do not come back together.
        let share = getrandom::u32().map_or(1.0, |n| f64::from(n) / f64::from(u32::MAX));
        sleep(ceiling.mul_f64(share.max(0.1))).await;
        ceiling = (ceiling * 2).min(LONGEST);
    }
}

/// Chosen at the first start, never changed.
fn runner_id(data_dir: &Path) -> io::Result<String> {
    let dir = data_dir.join("runner");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    let file = dir.join("runner_id");
    match std::fs::read_to_string(&file) {
        Ok(text) if id::Kind::Runner.matches(text.trim()) => Ok(text.trim().to_owned()),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the runner's id is damaged; remove the file runner/runner_id",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let fresh = id::new(id::Kind::Runner);
            // Whole or not at all: half an id would be taken for a damaged one.
            let part = dir.join("runner_id.new");
            std::fs::write(&part, &fresh)?;
            std::fs::rename(&part, &file)?;
            Ok(fresh)
        }
        Err(error) => Err(error),
    }
}
