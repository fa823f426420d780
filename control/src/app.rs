//! The composition root: the only file that knows every part. No logic.
//!
//! Invariant: nothing answers before the database is migrated and the vault is
//! open, but for the health listener, which says what is still missing.

pub mod datadir;
pub mod error;
pub mod metrics;
pub mod readiness;
mod start;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::ControlConfig;
use crate::domain::{Domain, bootstrap};
use crate::fleet::{Fleet, FleetOptions};
use crate::http::admin::{self, Admin};
use crate::http::layers::AllowedHosts;
use crate::http::state::{App, Parts};
use crate::http::{router, serve};
use crate::runtime::Runtime;
use crate::store::Db;
use crate::store::migrate::{self, Report};
use crate::{grpc, jobs};
use datadir::DataDir;
use metrics::Metrics;
use readiness::Readiness;
use start::Listeners;

pub use error::ControlError;

/// Runs the control plane until `shutdown` completes, then drains.
///
/// # Errors
/// See [`ControlError`].
pub async fn run(config: ControlConfig, shutdown: impl Future<Output = ()>) -> Result<(), ControlError> {
    let (stop_sender, stop) = watch::channel(false);
    let mut parts = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let held = tokio::select! {
        held = start(config, stop, &mut parts) => held?,
        () = shutdown.as_mut() => return Ok(()),
    };
    let outcome = tokio::select! {
        () = shutdown => Ok(()),
        Some(ended) = parts.join_next() => Err(start::ended(ended)),
    };
    let _ = stop_sender.send(true);
    while let Some(ended) = parts.join_next().await {
        if let Ok((part, Err(message))) = ended {
            tracing::warn!(part, message, "part ended with an error");
        }
    }
    held.db.close().await;
    outcome
}

/// What lives as long as the control plane does.
struct Held {
    _data: DataDir,
    db: Db,
}

/// A part's name and how it ended.
type Ended = (&'static str, Result<(), String>);

async fn start(
    config: ControlConfig,
    stop: watch::Receiver<bool>,
    parts: &mut JoinSet<Ended>,
) -> Result<Held, ControlError> {
    let data = start::open_data_dir(&config).await?;
    let listeners = Listeners::bind(&config).await?;
    let addresses = listeners.addresses()?;
    let metrics = Arc::new(Metrics::new());
    let readiness = Arc::new(Readiness::new(&["database", "vault", "fleet"]));
    let admin = admin::router(Admin { metrics: metrics.clone(), readiness: readiness.clone() });
    start::spawn(parts, "health listener", serve::serve(listeners.admin, admin, stop.clone()));

    let (db, _report) = open_database(&config, &data).await?;
    readiness.watch(db.clone());
    readiness.done("database");
    let vault = start::open_vault(&config, &data, &db).await?;
    let token = start::bootstrap_token(&config, &data)?;
    let upstreams = Arc::new(config.private_upstreams.clone().forbidding(addresses.own()));
    let domain = Domain { db: db.clone(), vault: vault.clone(), upstreams, pool: config.containers.pool };
    bootstrap::ensure_default_tenant(&domain).await.map_err(|error| start::failed("default tenant", &error))?;
    readiness.done("vault");

    let options = FleetOptions {
        server_names: config.allowed_hosts.iter().cloned().collect(),
        max_config_age: config.max_config_age,
        test_poison: false,
    };
    let fleet = Fleet::open(db.clone(), vault, options).await.map_err(|e| start::failed("fleet", &e))?;
    for task in fleet.start(stop.clone()) {
        start::spawn(parts, "fleet", async move {
            let _ = task.await;
        });
    }
    let runtime = Runtime::open(db.clone(), domain.vault.clone(), config.containers).await;
    let runtime = runtime.map_err(start::database)?;
    start::spawn(parts, "bots", runtime.clone().run(stop.clone()));
    serve_grpc(&config, listeners.grpc, (&fleet, &runtime), &stop, parts);
    start::spawn(parts, "jobs", jobs::run(db.clone(), config.usage_retention_days, stop.clone()));

    metrics.watch(fleet.clone(), db.clone());
    let app = App::new(Parts { domain, fleet, runtime, public_url: config.public_url.clone(), bootstrap: token });
    let hosts = AllowedHosts::new(config.console_listen.ip(), &config.allowed_hosts);
    start::spawn(
        parts,
        "console listener",
        serve::serve(listeners.console, router::build(app, hosts, metrics, config.test_poison), stop),
    );
    readiness.done("fleet");
    start::announce(&data, &config, &addresses)?;
    Ok(Held { _data: data, db })
}

/// Opens the door of nodes and runners.
fn serve_grpc(
    config: &ControlConfig,
    listener: Option<TcpListener>,
    (fleet, runtime): (&Arc<Fleet>, &Arc<Runtime>),
    stop: &watch::Receiver<bool>,
    parts: &mut JoinSet<Ended>,
) {
    let behind = || (Arc::clone(fleet), Arc::clone(runtime));
    if let Some(socket) = config.grpc_socket.clone() {
        let (behind, stop) = (behind(), stop.clone());
        parts.spawn(async move {
            let served = grpc::serve_unix(&socket, behind, stop).await;
            ("gRPC socket", served.map_err(|error| error.to_string()))
        });
    }
    if let Some(listener) = listener {
        let (behind, stop) = (behind(), stop.clone());
        parts.spawn(async move {
            let served = grpc::serve_mtls(listener, behind, stop).await;
            ("gRPC listener", served.map_err(|error| error.to_string()))
        });
    }
}

/// What [`migrate`] did; its text is for people.
#[derive(Clone, Debug)]
pub struct Migrated(Report);

impl fmt::Display for Migrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.applied.is_empty() {
            return f.write_str("the schema is up to date");
        }
        write!(f, "applied {}", self.0.applied.join(", "))?;
        match &self.0.backup {
            Some(path) => write!(f, "; the database as it was is in {}", path.display()),
            None => Ok(()),
        }
    }
}

/// Brings the schema up to date and ends.
///
/// # Errors
/// See [`ControlError`].
pub async fn migrate(config: ControlConfig) -> Result<Migrated, ControlError> {
    let data = start::open_data_dir(&config).await?;
    let (db, report) = open_database(&config, &data).await?;
    db.close().await;
    Ok(Migrated(report))
}

async fn open_database(config: &ControlConfig, data: &DataDir) -> Result<(Db, Report), ControlError> {
    let db = Db::connect(&config.database_url).await.map_err(start::database)?;
    let report = migrate::run(&db, Some(&data.join("backups"))).await.map_err(start::database)?;
    for name in &report.applied {
        tracing::info!(migration = name, "applied");
    }
    Ok((db, report))
}
