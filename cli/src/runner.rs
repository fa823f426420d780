//! `clawgate runner`: the only process that opens a container engine's socket.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clawgate_runner::app::{self, RunnerConfig};

use crate::failure::Failure;
use crate::files::DataDir;
use crate::flags::Place;
use crate::{liveness, logging, planes};

/// Starts a runner: bots in containers on this machine's engine
#[derive(clap::Args, Debug)]
pub(crate) struct RunnerArgs {
    /// Started by `clawgate up`: ends with it
    #[arg(long, hide = true)]
    supervised: bool,
    /// The control plane: unix:PATH [default: the socket in the data directory]
    #[arg(long, value_name = "URL", env = "CLAWGATE_CONTROL", hide_env_values = true)]
    control: Option<String>,
    /// The engine: unix:///PATH, or tcp:// on loopback [default: where Docker and Podman have it]
    #[arg(long, value_name = "URL", env = "DOCKER_HOST", hide_env_values = true)]
    engine: Option<String>,
    /// What people call it
    #[arg(long, value_name = "NAME", default_value = "local")]
    name: String,
    /// For placing bots; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Thousandths of a processor that bots may take together; 0: all
    #[arg(long, value_name = "N", default_value_t = 0)]
    capacity_cpu_millis: u64,
    /// Memory that bots may take together; 0: all
    #[arg(long, value_name = "MB", default_value_t = 0)]
    capacity_memory_mb: u64,
    /// Most bots; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    capacity_bots: u64,
    /// The bots' listener of this machine's node
    #[arg(long, value_name = "ADDR")]
    bot_listener: Option<SocketAddr>,
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("not KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl RunnerArgs {
    fn resolve(self, place: &Place) -> Result<RunnerConfig, Failure> {
        let control = match &self.control {
            None => DataDir::at(place.data_dir.clone()).run_file("control.sock"),
            Some(url) => url
                .strip_prefix("unix:")
                .map(|path| PathBuf::from(path.strip_prefix("//").unwrap_or(path)))
                .filter(|path| path.is_absolute())
                .ok_or_else(|| Failure::Usage("a runner reaches its control plane by unix:PATH only".to_owned()))?,
        };
        Ok(RunnerConfig {
            data_dir: place.data_dir.clone(),
            control,
            engine: self.engine.filter(|url| !url.is_empty()),
            name: self.name,
            labels: self.labels.into_iter().collect::<HashMap<_, _>>(),
            cpu_millis: self.capacity_cpu_millis,
            memory_mb: self.capacity_memory_mb,
            max_bots: self.capacity_bots,
            bot_listener: self.bot_listener,
        })
    }
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(args: RunnerArgs, place: &Place) -> Result<(), Failure> {
    let supervised = args.supervised;
    let config = args.resolve(place)?;
    logging::start();
    if supervised {
        liveness::follow_supervisor()?;
    }
    let runtime = planes::workers()?;
    let outcome = runtime.block_on(async {
        let stop = planes::stop_signal()?;
        app::run(config, stop).await.map_err(|e| Failure::failed("the runner", e))
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}
