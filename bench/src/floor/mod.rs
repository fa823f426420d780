//! Floors: what the gateway is compared with.
//!
//! Invariant: a floor proxies HTTP honestly (hop-by-hop headers, bodies in
//! both framings, keep-alive on both legs, TCP_NODELAY) and does nothing else.
//! The bare loop's source is frozen: a faster gateway must come from the
//! gateway, not from a slower floor.
//! Deliberately absent: authentication, limits, logging, metering.

mod bare;
mod nginx;
mod pingora;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use clawgate_mock::{Knobs, Ledger, LedgerTarget, MockConfig};
use pingora_core::server::configuration::ServerConf;

use crate::failure::Failure;

pub(crate) use nginx::configuration as nginx_configuration;

/// Idle connections a floor keeps to its upstream: more than any scenario
/// opens, so that no floor is slow for want of a connection.
const KEEPALIVE: usize = 1024;

/// Where a floor stands.
#[derive(Args, Clone, Debug)]
pub(crate) struct Legs {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9100")]
    pub(crate) listen: SocketAddr,
    /// Where to send requests
    #[arg(long, default_value = "127.0.0.1:9001")]
    pub(crate) upstream: SocketAddr,
    /// Worker threads
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
}

/// The floors.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Floor {
    /// A bare loop over pingora-core
    Bare(Legs),
    /// A bare pingora-proxy
    PingoraProxy(Legs),
    /// Write an nginx configuration with keep-alive to the upstream
    NginxConfig {
        #[command(flatten)]
        legs: Legs,
        /// Folder for its pid file and logs
        #[arg(long, default_value = "/tmp")]
        folder: PathBuf,
    },
    /// The mock vendor alone, counting only
    Mock {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:9001")]
        listen: SocketAddr,
    },
}

impl Floor {
    /// Runs until killed, except for the configuration, which is printed.
    #[allow(clippy::print_stdout, reason = "the configuration is this command's output")]
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Bare(legs) => bare::run(&legs),
            Self::PingoraProxy(legs) => pingora::run(&legs),
            Self::NginxConfig { legs, folder } => {
                print!("{}", nginx_configuration(&legs, &folder));
                Ok(())
            }
            Self::Mock { listen } => mock(listen),
        }
    }
}

fn configuration(legs: &Legs) -> ServerConf {
    ServerConf {
        threads: legs.threads,
        upstream_keepalive_pool_size: KEEPALIVE,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}

fn mock(listen: SocketAddr) -> Result<(), Failure> {
    let failed = |what: &str, cause: std::io::Error| Failure::Setup(format!("{what}: {cause}"));
    let ledger = Ledger::open(&LedgerTarget::None).map_err(|cause| failed("ledger", cause))?;
    let config = MockConfig { ledger: Arc::clone(&ledger), recordings: None, knobs: Knobs::default() };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|cause| failed("runtime", cause))?;
    runtime.block_on(async {
        let listener =
            tokio::net::TcpListener::bind(listen).await.map_err(|cause| failed(&format!("listen {listen}"), cause))?;
        clawgate_mock::serve(listener, config, std::future::pending()).await.map_err(|cause| failed("serve", cause))
    })
}
