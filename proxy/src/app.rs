//! The composition root: the only file that knows every module. No logic, only
//! order: what is opened first is closed last.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clawgate_shared::clock;
use clawgate_shared::content::Content;
use clawgate_shared::proto::node::resource::Body;
use clawgate_shared::proto::node::{NodeStatus, Resource, SealedSecret, Version};
use pingora_core::server::Fds;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::accounts::Asker;
use crate::config::{self, ProxyConfig};
use crate::exchange::{BodyBudget, Counting, Drains, Inflight, Services};
use crate::limits::Learned;
use crate::metering::{Shipper, ShipperHandle, Spool, SpoolError, SpoolOptions};
use crate::quota::Renewer;
use crate::routing::{Healths, Turns};
use crate::server::{
    Admin, BindError, Bound, Front, Gateway, Handover, HandoverError, Listener, SourcePolicy, bind,
    raise_descriptor_limit, receive_listeners, watch_memory,
};
use crate::snapshot::cache::{Cache, CacheError};
use crate::snapshot::{Handle, Hints, Inputs, Trials, compile};
use crate::sync::{
    Activate, ControlChannel, IdentityCell, IdentityError, KeyMemory, KeyStatesSink, PeersSink, StatusSource,
    SyncClient, SyncParts, SyncState,
};
use crate::telemetry::{AccessLog, Exporter, Metrics, Traces};
use crate::upstream::{Client, Egress, Prober};

/// Bodies held in memory by all exchanges together.
const BODIES_TOTAL: usize = 1 << 30;
/// Worker threads that append to one shard of the spool. An append holds the
/// shard for two microseconds; fewer shards mean fewer syncs and larger batches.
const THREADS_PER_SHARD: usize = 4;
/// So long after it was told to stop a node with kept connections is there for
/// what was under way on them.
const LINGER: Duration = Duration::from_millis(350);
/// Last chance to ship usage before the process ends; what is not shipped is
/// on disk and goes with the successor.
const LAST_FLUSH: Duration = Duration::from_millis(400);

/// Why a node does not run, with a stable code.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A listener's address is taken or not ours.
    #[error("{0} (listener_unavailable)")]
    Bind(#[from] BindError),
    /// The predecessor's listeners did not come.
    #[error("{0} (handover_failed)")]
    Handover(#[from] HandoverError),
    /// The spool cannot be opened.
    #[error("{0} (spool_unavailable)")]
    Spool(#[from] SpoolError),
    /// The saved identity cannot be read.
    #[error("{0} (identity_unavailable)")]
    Identity(#[from] IdentityError),
    /// The directory of the last known good configuration cannot be used.
    #[error("{0} (cache_unavailable)")]
    Cache(#[from] CacheError),
    /// Something the system refused.
    #[error("{doing}: {cause} (io)")]
    Io {
        /// What was being done.
        doing: String,
        /// The system's words.
        cause: std::io::Error,
    },
}

fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> ProxyError {
    let doing = doing.into();
    move |cause| ProxyError::Io { doing, cause }
}

/// Runs one node until it is told to stop and has drained.
///
/// # Errors
/// What kept it from starting.
pub fn run(config: ProxyConfig) -> Result<(), ProxyError> {
    raise_descriptor_limit(config.max_connections);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.threads)
        .thread_name("clawgate-proxy")
        .enable_all()
        .build()
        .map_err(io("starting the runtime"))?;
    let outcome = runtime.block_on(Node::start(config)).and_then(|node| runtime.block_on(node.serve()));
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

/// A node with its listeners bound.
struct Node {
    config: ProxyConfig,
    services: Arc<Services>,
    bound: Vec<Bound>,
    state: Arc<SyncState>,
    stopping: Arc<AtomicBool>,
    shipper: ShipperHandle,
    handover: Handover,
    spans: Option<Spans>,
}

/// Where spans are sent from, until it is told to end.
struct Spans {
    stop: watch::Sender<bool>,
    exporter: tokio::task::JoinHandle<()>,
}

impl Node {
    async fn start(config: ProxyConfig) -> Result<Self, ProxyError> {
        let run_dir = config.data_dir.join("run");
        std::fs::create_dir_all(&run_dir).map_err(io(format!("making {}", run_dir.display())))?;
        let upgrade_socket = run_dir.join("upgrade.sock");
        let inherited = inherited(&config, upgrade_socket.clone()).await?;
        let bound = listeners(&config).iter().map(|l| bind(l, inherited.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let handover = Handover::new(upgrade_socket, &bound);
        let instance_id = clawgate_shared::id::new(clawgate_shared::id::Kind::Node);
        let shards = u32::try_from(config.threads.div_ceil(THREADS_PER_SHARD)).unwrap_or(1);
        let options = SpoolOptions { shards, limit_bytes: config.spool_max_bytes, ..SpoolOptions::default() };
        let spool = Arc::new(Spool::open(&config.data_dir.join("spool"), options)?);
        let state = Arc::new(SyncState::default());
        let (traces, spans, metrics) = tracing_to(&config)?;
        let services = Arc::new(services(&config, &bound, spool.clone(), state.clone(), traces, metrics)?);
        Counting::start(&services).map_err(io("starting the thread that counts tokens"))?;
        let identity = Arc::new(IdentityCell::open(&config.data_dir)?);
        let channel = ControlChannel::new(config.control.clone());
        let cache = Arc::new(Cache::open(&config.data_dir.join("node/config"))?);
        let trials = Trials::open(&config.data_dir.join("node"));
        let healths = Arc::new(Healths::new(config.key_probe_interval));
        let memory = KeyMemory {
            healths: healths.clone(),
            cache: cache.clone(),
            identity: identity.clone(),
            news: services.key_news.clone(),
        };
        memory.recall();
        let activate = activation(&config, identity.clone(), &services, healths, trials);
        let mut client = SyncClient::new(SyncParts {
            identity: identity.clone(),
            channel: channel.clone(),
            enroll_token: config.enroll_token.clone(),
            activate,
            cache,
            state: state.clone(),
            status: status(&services),
            peers: peers(&services),
            key_states: key_states(&services),
            key_news: services.key_news.clone(),
            instance_id: instance_id.clone(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        client.restore();
        tokio::spawn(memory.run());
        services.makers.connect(Asker::new(channel.source(), identity.node_id().to_owned()));
        let calls = services.metrics.clone();
        let renewer = Renewer::new(
            services.slices.clone(),
            channel.source(),
            identity.node_id().to_owned(),
            spool.epoch(),
            instance_id.clone(),
            Arc::new(move || _ = calls.lease_calls.inc()),
        );
        tokio::spawn(renewer.run());
        let (shipper, handle) = Shipper::new(spool, channel.source(), identity.node_id().to_owned(), instance_id);
        tokio::spawn(shipper.run());
        let sweeping = services.clone();
        tokio::spawn(async move { sweeping.client.sweep().await });
        tokio::spawn(prober(&services).run());
        tokio::spawn(async move {
            let Err(error) = client.run().await;
            tracing::error!(%error, "this node cannot enrol; it serves what it has");
        });
        let shipper = handle;
        Ok(Self { config, services, bound, state, stopping: Arc::default(), shipper, handover, spans })
    }

    async fn serve(mut self) -> Result<(), ProxyError> {
        let mut signals = Signals::new()?;
        let (stop, shutdown) = watch::channel(false);
        let gateway = Arc::new(Gateway::new(self.services.clone()));
        let front = Front::new(gateway.clone(), self.config.max_connections);
        let pressure = self.services.pressure.clone();
        tokio::spawn(watch_memory(pressure.clone(), self.config.memory_limit));
        publish(&self.config.data_dir, &self.bound)?;
        for bound in std::mem::take(&mut self.bound) {
            let (metrics, shutdown) = (self.services.metrics.clone(), shutdown.clone());
            if bound.name() == "admin" {
                tokio::spawn(bound.run(self.admin(), metrics, None, shutdown));
            } else {
                let front = front.at(&bound);
                tokio::spawn(bound.run(front, metrics, Some(pressure.clone()), shutdown));
            }
        }
        loop {
            match signals.next().await {
                Wanted::Stop => break,
                Wanted::Upgrade => match self.hand_over().await {
                    Ok(()) => break,
                    Err(error) => tracing::error!(%error, "the upgrade did not happen; this node goes on"),
                },
            }
        }
        self.stopping.store(true, Ordering::Relaxed);
        gateway.stop();
        let _ = stop.send(true);
        self.drain(&mut signals, &front).await;
        Ok(())
    }

    fn admin(&self) -> Admin {
        let (services, state, stopping) = (self.services.clone(), self.state.clone(), self.stopping.clone());
        let ready = {
            let services = services.clone();
            move || {
                let mut pending = Vec::new();
                if stopping.load(Ordering::Relaxed) {
                    pending.push("shutting_down".to_owned());
                }
                if services.snapshots.load().is_none() {
                    pending.push("configuration".to_owned());
                }
                if services.spool.is_full() {
                    pending.push("spool".to_owned());
                }
                pending
            }
        };
        let scrape = move |metrics: &Metrics| {
            let stats = services.spool.stats();
            metrics.spool_bytes.set(signed(stats.bytes));
            metrics.spool_records.set(signed(stats.records));
            metrics.spool_oldest_seconds.set(signed(stats.oldest_millis / 1000));
            for (counter, value) in [
                (&metrics.spool_lost, stats.lost),
                (&metrics.spool_sync_failures, stats.sync_failures),
                (&metrics.spool_write_failures, stats.write_failures),
            ] {
                counter.inner().store(value, Ordering::Relaxed);
            }
            let (used, limit) = services.pressure.bytes();
            metrics.memory_used.set(signed(used));
            metrics.memory_limit.set(signed(limit));
            metrics.memory_pressure.set(services.pressure.level() as i64);
            metrics.lease_remaining.set(signed(services.slices.remaining(clock::boot_micros())));
            metrics.config_age_seconds.set(signed(age_secs(&state)));
            if let Some(snapshot) = services.snapshots.load() {
                metrics.set_key_states(&snapshot.key_counts(clock::boot_micros()));
            }
        };
        Admin::new(Arc::new(ready), self.services.metrics.clone(), Arc::new(scrape))
    }

    /// Starts the successor and gives it the listeners.
    async fn hand_over(&self) -> Result<(), ProxyError> {
        let mut command = config::successor_command().map_err(io("finding this program"))?;
        let child = command.spawn().map_err(io("starting the successor"))?;
        tracing::info!(successor = child.id(), "handing the listeners over");
        let handover = self.handover.clone();
        let sent = tokio::task::spawn_blocking(move || handover.send()).await;
        sent.map_err(|e| io("handing over")(std::io::Error::other(e)))??;
        Ok(())
    }

    /// Waits until no exchange is left and no connection has only just come or may
    /// bring one that is on its way, at most for the grace time, then ends the
    /// spool's epoch. A second signal ends the waiting.
    async fn drain(&mut self, signals: &mut Signals, front: &Front) {
        let began = Instant::now();
        let idle = async {
            let on_its_way = || front.open() > 0 && began.elapsed() < LINGER;
            while self.services.inflight.now() + front.fresh() > 0 || on_its_way() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = idle => {}
            () = tokio::time::sleep(self.config.grace) => tracing::warn!("grace time is over"),
            _ = signals.next() => tracing::warn!("told twice to stop"),
        }
        let services = self.services.clone();
        let last = move || {
            services.counting.close();
            services.spool.close()
        };
        let _ = tokio::task::spawn_blocking(last).await;
        let shipped = self.shipper.flush(LAST_FLUSH).await;
        if let Some(spans) = self.spans.take() {
            let _ = spans.stop.send(true);
            let _ = tokio::time::timeout(LAST_FLUSH, spans.exporter).await;
        }
        tracing::info!(millis = began.elapsed().as_millis(), shipped, "drained");
    }
}

async fn inherited(config: &ProxyConfig, socket: PathBuf) -> Result<Option<Fds>, ProxyError> {
    if !config.upgrade {
        return Ok(None);
    }
    let received = tokio::task::spawn_blocking(move || receive_listeners(&socket)).await;
    let listeners = received.map_err(|e| io("waiting for the listeners")(std::io::Error::other(e)))??;
    Ok(Some(listeners))
}

fn listeners(config: &ProxyConfig) -> Vec<Listener> {
    let any = |name, address, per_source, tls| Listener { name, address, sources: SourcePolicy::Any, per_source, tls };
    let data = any("data", config.listen, config.max_per_source, config.tls.clone());
    let mut list = vec![data, any("admin", config.admin_listen, None, None)];
    if let Some((address, sources)) = &config.bot_listen {
        let per_source = Some(config.max_per_bot_source);
        list.push(Listener { name: "bots", address: *address, sources: sources.clone(), per_source, tls: None });
    }
    list
}

fn services(
    config: &ProxyConfig,
    bound: &[Bound],
    spool: Arc<Spool>,
    state: Arc<SyncState>,
    traces: Traces,
    metrics: Arc<Metrics>,
) -> Result<Services, ProxyError> {
    let own: Vec<SocketAddr> = bound.iter().map(|b| b.address).collect();
    let egress = Egress::new(config.private_upstreams.clone().forbidding(own), config.timeouts.connect);
    let access = AccessLog::open(&config.access_log).map_err(io(format!("opening {}", config.access_log)))?;
    Ok(Services {
        snapshots: Arc::new(Handle::default()),
        client: Arc::new(Client::new(egress, config.timeouts)),
        key_news: Arc::default(),
        spool,
        when_full: config.spool_full,
        slices: Arc::default(),
        learned: Learned::default(),
        makers: Arc::default(),
        gates: Arc::default(),
        metrics,
        access,
        traces,
        config_age_secs: Arc::new(move || age_secs(&state)),
        inflight: Inflight::new(config.max_inflight),
        pressure: Arc::default(),
        bodies: BodyBudget::new(config.max_body_bytes, BODIES_TOTAL.max(config.max_body_bytes)),
        counting: Arc::default(),
        drains: Drains::new(config.drains),
    })
}

/// The way of spans to the collector, if there is one.
fn tracing_to(config: &ProxyConfig) -> Result<(Traces, Option<Spans>, Arc<Metrics>), ProxyError> {
    let metrics = Arc::new(Metrics::new());
    let Some((collector, share)) = &config.collector else { return Ok((Traces::default(), None, metrics)) };
    let (traces, spans) = Traces::to_exporter(*share, metrics.spans_dropped.clone());
    let exporter = Exporter::new(collector, spans, metrics.spans_dropped.clone())
        .map_err(|error| io("preparing traces")(std::io::Error::other(error)))?;
    let (stop, stopped) = watch::channel(false);
    let exporter = tokio::spawn(exporter.run(stopped));
    Ok((traces, Some(Spans { stop, exporter }), metrics))
}

/// What `sync` calls to put a configuration into service: compile, then swap.
fn activation(
    config: &ProxyConfig,
    identity: Arc<IdentityCell>,
    services: &Arc<Services>,
    healths: Arc<Healths>,
    trials: Trials,
) -> Activate {
    let turns = Turns::default();
    let services = services.clone();
    let crash = config.test_crash_on.clone();
    Arc::new(move |content: &Content, secrets: &HashMap<String, SealedSecret>, version: &Version| {
        let sealing_key = identity.sealing_key().ok_or_else(|| vec!["this node has no sealing key yet".to_owned()])?;
        trials.begin(version).map_err(|reason| {
            services.metrics.config_nacks.inc();
            vec![reason]
        })?;
        if crash.as_ref().is_some_and(|name| content.iter().any(|resource| is_bot(resource, name))) {
            std::process::abort();
        }
        let inputs = Inputs {
            sealing_key: &sealing_key,
            secrets,
            turns: &turns,
            healths: &healths,
            slices: &services.slices,
            gates: &services.gates,
        };
        let built = compile(content, version, &inputs);
        trials.end(version);
        match built {
            Ok(snapshot) => {
                tracing::info!(version = %snapshot.version, bots = snapshot.bots, keys = snapshot.keys.len(), "configuration in service");
                services.metrics.config_version.set(version.revision);
                services.snapshots.swap(Arc::new(snapshot));
                Ok(())
            }
            Err(reasons) => {
                services.metrics.config_nacks.inc();
                tracing::warn!(?reasons, revision = version.revision, "configuration refused");
                Err(reasons)
            }
        }
    })
}

fn is_bot(resource: &Resource, hostname: &str) -> bool {
    matches!(&resource.body, Some(Body::Bot(bot)) if bot.hostname == hostname)
}

/// What `sync` calls when it hears how many nodes there are.
fn peers(services: &Arc<Services>) -> PeersSink {
    let gates = services.gates.clone();
    Arc::new(move |nodes| gates.share(nodes, clock::boot_micros()))
}

/// What `sync` calls when it hears how other nodes found keys.
fn key_states(services: &Arc<Services>) -> KeyStatesSink {
    let (services, hints) = (services.clone(), Hints::default());
    Arc::new(move |said| {
        // Of keys that are not known yet nothing is taken, and it is new later.
        let Some(snapshot) = services.snapshots.load() else { return };
        services.key_news.spread(snapshot.told(&hints.fresh(said), clock::boot_micros()));
    })
}

fn prober(services: &Services) -> Prober {
    let (client, snapshots) = (services.client.clone(), services.snapshots.clone());
    Prober { client, snapshots, news: services.key_news.clone() }
}

fn status(services: &Arc<Services>) -> StatusSource {
    let services = services.clone();
    Arc::new(move || {
        let spool = services.spool.stats();
        NodeStatus {
            spool_records: spool.records,
            spool_bytes: spool.bytes,
            spool_oldest_millis: spool.oldest_millis,
            inflight: services.inflight.now() as u64,
            requests_total: services.inflight.total(),
            keys: services
                .snapshots
                .load()
                .map(|s| s.key_states(clock::boot_micros(), clock::now_micros()))
                .unwrap_or_default(),
        }
    })
}

/// Age of the configuration for the check of every exchange.
fn age_secs(state: &SyncState) -> u64 {
    state.config_age_seconds(clock::now_micros()).unwrap_or(0)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Where supervisor, tests and people find the real addresses, and the process
/// that serves there: a successor is named once it has the listeners and hears
/// signals.
fn publish(data_dir: &Path, bound: &[Bound]) -> Result<(), ProxyError> {
    let addresses: HashMap<&str, String> = bound.iter().map(|b| (b.name(), b.address.to_string())).collect();
    let files =
        [("proxy.json", serde_json::json!(addresses).to_string()), ("proxy.pid", format!("{}\n", std::process::id()))];
    for (name, text) in files {
        let path = data_dir.join("run").join(name);
        let new = path.with_added_extension("new");
        let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path));
        written.map_err(io(format!("writing {}", path.display())))?;
    }
    Ok(())
}

enum Wanted {
    Stop,
    Upgrade,
}

struct Signals {
    term: Signal,
    int: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> Result<Self, ProxyError> {
        let listen = |kind| signal(kind).map_err(io("listening for signals"));
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
        })
    }

    async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.term.recv() => Wanted::Stop,
            _ = self.int.recv() => Wanted::Stop,
            _ = self.quit.recv() => Wanted::Upgrade,
        }
    }
}
