//! `clawgate up`: everything on this machine, as children of one supervisor.
//!
//! Invariant: the supervisor is stateless; what it knows it reads from the
//! data directory, so a new one after `kill -9` of the old finds everything.
//! Each child is restarted alone. On the way out the node goes first, so that
//! its last usage events still find the control plane.
//! Deliberately absent: configuration of its own beyond what its children take.

mod child;
mod demo;
mod endpoints;
mod lock;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clawgate_control::config::ControlConfig;
use clawgate_proxy::config::ProxyConfig;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) use endpoints::probe;
pub(crate) use lock::{LOCK_WAIT, node as lock_node};

use crate::admin::Target;
use crate::failure::Failure;
use crate::files::{self, DataDir};
use crate::flags::{ControlFlags, Place, ProxyFlags, SharedFlags};
use child::{ChildSpec, Keeper, State};
use endpoints::Endpoints;

/// Starts everything on this machine
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct UpArgs {
    /// Also start a mock vendor, with a tenant, a bot and provider keys to try it
    #[arg(long)]
    pub(crate) demo: bool,
    #[command(flatten)]
    pub(crate) shared: SharedFlags,
    #[command(flatten)]
    pub(crate) control: ControlFlags,
    #[command(flatten)]
    pub(crate) proxy: ProxyFlags,
}

/// Longest wait for a child to come up; what is slower than this hangs.
const START_CAP: Duration = Duration::from_secs(30);
/// How often a starting child is looked at.
const START_POLL: Duration = Duration::from_millis(10);
/// How long the control plane and the mock may drain.
const DRAIN_CAP: Duration = Duration::from_secs(15);
/// What the control plane's configuration says when nobody chose.
const DEFAULT_PUBLIC_URL: &str = "http://127.0.0.1:8080";
/// Child, flag and the field of its address file that holds the real value.
const PINNED: [(&str, &str, &str); 6] = [
    ("control", "--console-listen", "console"),
    ("control", "--control-admin-listen", "admin"),
    ("proxy", "--listen", "data"),
    ("proxy", "--admin-listen", "admin"),
    ("proxy", "--bot-listen", "bots"),
    ("mock", "--listen", "listen"),
];
/// Environment variables that only the control plane may see.
const CONTROL_SECRETS: &[&str] = &[
    "CLAWGATE_MASTER_KEY",
    "CLAWGATE_MASTER_KEY_FILE",
    "CLAWGATE_ADMIN_TOKEN",
    "CLAWGATE_ADMIN_TOKEN_FILE",
    "CLAWGATE_DATABASE_URL",
    "CLAWGATE_TOKEN",
];

/// Runs until a signal ends it.
pub(crate) async fn run(args: UpArgs, place: &Place) -> Result<(), Failure> {
    let (control, proxy) = resolve(&args, place)?;
    let data = DataDir::at(place.data_dir.clone());
    if args.demo {
        refuse_public_listeners(&control, &proxy)?;
    }
    data.prepare()?;
    let _held = lock::supervisor(&data, LOCK_WAIT)?;
    // A successor that a node leaves behind becomes our child when its parent
    // ends, so that its end can be waited for. Not having that is no harm.
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let mut signals = Signals::new()?;
    let mut family = Family::new(data, &args, place, &control)?;
    let started = tokio::select! {
        started = family.start(&args, &control, &proxy) => started,
        () = signals.stop() => Err(Failure::Failed("stopped while starting".to_owned())),
    };
    let outcome = match started {
        Ok(endpoints) => {
            endpoints.announce()?;
            family.settle().await;
            supervise(&mut family, &mut signals).await
        }
        Err(failure) => Err(failure),
    };
    let impatient = tokio::select! {
        () = family.stop() => false,
        () = signals.stop() => true,
    };
    if impatient {
        family.kill();
        family.stop().await;
    }
    outcome
}

/// The node's allocator gives freed memory back to the system after so many
/// milliseconds: each change of the configuration leaves a few megabytes behind,
/// and an idle node would keep them. At once would be too soon: what is freed
/// under load is taken again, page by page. Huge pages hold some more megabytes
/// that an idle node never asked for. It reads these before the program's first
/// instruction, so that no flag of the node could say them.
const FRUGAL: [(&str, &str); 2] = [("MIMALLOC_PURGE_DELAY", "250"), ("MIMALLOC_ALLOW_THP", "0")];

/// Both children's configuration, with every error of both.
fn resolve(args: &UpArgs, place: &Place) -> Result<(ControlConfig, ProxyConfig), Failure> {
    let control = args.control.resolve(&args.shared, place, true);
    let proxy = args.proxy.resolve(&args.shared, place, true);
    match (control, proxy) {
        (Ok(control), Ok(proxy)) => Ok((control, proxy)),
        (control, proxy) => {
            let mut problems = control.err().unwrap_or_default();
            problems.extend(proxy.err().unwrap_or_default());
            Err(crate::flags::refused(problems))
        }
    }
}

/// The demo's keys and token are worth nothing, but whoever reaches the
/// console of a demo owns that machine's data directory.
fn refuse_public_listeners(control: &ControlConfig, proxy: &ProxyConfig) -> Result<(), Failure> {
    let listeners: [(&str, Option<SocketAddr>); 6] = [
        ("--listen", Some(proxy.listen)),
        ("--bot-listen", proxy.bot_listen.as_ref().map(|(address, _)| *address)),
        ("--admin-listen", Some(proxy.admin_listen)),
        ("--console-listen", Some(control.console_listen)),
        ("--control-admin-listen", Some(control.admin_listen)),
        ("--grpc-listen", control.grpc_listen),
    ];
    for (flag, address) in listeners {
        if let Some(address) = address.filter(|a| !a.ip().is_loopback()) {
            return Err(Failure::Usage(format!("--demo listens on loopback only: {flag} is {address}")));
        }
    }
    Ok(())
}

struct Signals {
    term: Signal,
    int: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|e| Failure::failed("listening for signals", e));
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Waits for a signal to stop; passes SIGQUIT on.
async fn supervise(family: &mut Family, signals: &mut Signals) -> Result<(), Failure> {
    loop {
        tokio::select! {
            _ = signals.quit.recv() => family.upgrade().await,
            _ = signals.term.recv() => return Ok(()),
            _ = signals.int.recv() => return Ok(()),
        }
    }
}

/// The children, in the order in which they start.
struct Family {
    data: DataDir,
    program: PathBuf,
    bond: std::io::PipeReader,
    /// Held and never written to: see [`crate::liveness`].
    _bond: std::io::PipeWriter,
    place_args: Vec<std::ffi::OsString>,
    admin_token: Option<String>,
    children: Vec<(&'static str, Keeper)>,
}

impl Family {
    fn new(data: DataDir, args: &UpArgs, place: &Place, control: &ControlConfig) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|e| Failure::failed("finding this program", e))?;
        let (bond, writer) = std::io::pipe().map_err(|e| Failure::failed("preparing the children's bond", e))?;
        forget_addresses(&data);
        let mut place_args = place.to_args();
        place_args.extend(args.shared.to_args());
        let admin_token = control.admin_token.as_ref().map(|token| token.to_string());
        Ok(Self { data, program, bond, _bond: writer, place_args, admin_token, children: Vec::new() })
    }

    /// Starts everything in order; complete when a bot could be served.
    async fn start(
        &mut self,
        args: &UpArgs,
        control: &ControlConfig,
        proxy: &ProxyConfig,
    ) -> Result<Endpoints, Failure> {
        let socket = self.data.run_file("control.sock");
        let mut control_args = args.control.to_args_with_socket(control, &socket);
        control_args.extend(public_url_arg(args, control, proxy));
        // A database URL may hold a password and has no place on a command line.
        let url = args.control.database_url.clone().map(|url| ("CLAWGATE_DATABASE_URL", url));
        self.spawn("control", control_args, &[], url.into_iter().collect(), DRAIN_CAP)?;
        let console = self.address("control", "console").await?;
        let mock = if args.demo { Some(self.start_mock().await?) } else { None };
        let with = FRUGAL.map(|(name, value)| (name, value.to_owned())).into();
        self.spawn("proxy", args.proxy.to_args(), CONTROL_SECRETS, with, proxy.grace + DRAIN_CAP)?;
        let data_plane = self.address("proxy", "data").await?;
        let node_admin = self.address("proxy", "admin").await?;
        self.ready(&node_admin).await?;
        let data_plane = format!("{}://{data_plane}", scheme(proxy));
        let mut curl = None;
        if let Some(mock) = mock {
            let target = Target::local(&self.data, self.admin_token.as_deref())?;
            demo::prepare(&self.data, target, mock).await?;
            // Not the public URL: the demo is for this machine.
            curl = Some(demo::curl_line(&self.data, &data_plane)?);
        }
        Ok(Endpoints {
            public_url: chosen_public_url(args, control).unwrap_or_else(|| data_plane.clone()),
            data_plane,
            bots: files::read_address(&self.data.run_file("proxy.json"), "bots"),
            console,
            node_admin,
            control_admin: files::read_address(&self.data.run_file("control.json"), "admin"),
            admin_token: self.admin_token.is_none().then(|| self.data.file("admin.token")),
            mock,
            curl,
        })
    }

    async fn start_mock(&mut self) -> Result<SocketAddr, Failure> {
        let listen = vec!["--listen".into(), "127.0.0.1:0".into()];
        self.spawn("mock", listen, CONTROL_SECRETS, Vec::new(), DRAIN_CAP)?;
        let address = self.address("mock", "listen").await?;
        address.parse().map_err(|e| Failure::failed("reading the mock vendor's address", e))
    }

    fn spawn(
        &mut self,
        name: &'static str,
        args: Vec<std::ffi::OsString>,
        without: &'static [&'static str],
        with: Vec<(&'static str, String)>,
        drain_cap: Duration,
    ) -> Result<(), Failure> {
        let mut all = vec![name.into(), "--supervised".into()];
        all.extend(self.place_args.iter().cloned());
        all.extend(args);
        let bond = self.bond.try_clone().map_err(|e| Failure::failed("preparing the children's bond", e))?;
        let spec = ChildSpec {
            name,
            program: self.program.clone(),
            args: all,
            without,
            with,
            pid_file: self.data.run_file(&format!("{name}.pid")),
            drain_cap,
            bond,
        };
        self.children.push((name, Keeper::start(spec)));
        Ok(())
    }

    /// Waits for a child's address file and reads one field of it.
    async fn address(&self, name: &str, field: &str) -> Result<String, Failure> {
        let file = self.data.run_file(&format!("{name}.json"));
        self.until(&format!("{name} to listen"), async || files::read_address(&file, field)).await
    }

    /// Waits until the node can serve.
    async fn ready(&self, node_admin: &str) -> Result<(), Failure> {
        let probe = endpoints::Probe::new()?;
        let url = format!("http://{node_admin}/readyz");
        self.until("the node to be ready", async || probe.ok(&url).await.then_some(())).await
    }

    async fn until<T>(&self, what: &str, found: impl AsyncFn() -> Option<T>) -> Result<T, Failure> {
        let deadline = Instant::now() + START_CAP;
        loop {
            if let Some(value) = found().await {
                return Ok(value);
            }
            for (name, keeper) in &self.children {
                if let State::Failed(how) = keeper.state() {
                    return Err(Failure::Failed(format!("{name} ended while starting ({how}); see its message above")));
                }
            }
            if Instant::now() >= deadline {
                return Err(Failure::Failed(format!("waited {} s in vain for {what}", START_CAP.as_secs())));
            }
            tokio::time::sleep(START_POLL).await;
        }
    }

    /// From now on children that end are restarted, on the ports they have.
    async fn settle(&self) {
        for (name, keeper) in &self.children {
            let file = self.data.run_file(&format!("{name}.json"));
            for (_, flag, field) in PINNED.iter().filter(|(child, ..)| child == name) {
                if let Some(address) = files::read_address(&file, field) {
                    keeper.pin(flag, address).await;
                }
            }
            keeper.settled().await;
        }
    }

    async fn upgrade(&self) {
        if let Some((_, keeper)) = self.children.iter().find(|(name, _)| *name == "proxy") {
            keeper.upgrade().await;
        }
    }

    /// Last started, first stopped.
    async fn stop(&mut self) {
        for (_, keeper) in self.children.iter_mut().rev() {
            keeper.stop().await;
        }
        forget_addresses(&self.data);
    }

    fn kill(&self) {
        for (_, keeper) in &self.children {
            keeper.kill();
        }
    }
}

/// How bots speak to the node.
const fn scheme(proxy: &ProxyConfig) -> &'static str {
    if proxy.tls.is_some() { "https" } else { "http" }
}

/// Addresses of an earlier run must not be taken for this one's.
fn forget_addresses(data: &DataDir) {
    for name in ["control.json", "proxy.json", "mock.json"] {
        let _ = std::fs::remove_file(data.run_file(name));
    }
}

/// The public URL, if somebody chose one: in a flag, the environment or the
/// file.
fn chosen_public_url(args: &UpArgs, control: &ControlConfig) -> Option<String> {
    let chosen = args.shared.public_url.is_some() || control.public_url != DEFAULT_PUBLIC_URL;
    chosen.then(|| control.public_url.clone())
}

/// What new bots are told to connect to, when nobody chose: where the node
/// will listen.
fn public_url_arg(args: &UpArgs, control: &ControlConfig, proxy: &ProxyConfig) -> Vec<std::ffi::OsString> {
    if proxy.listen.port() == 0 || chosen_public_url(args, control).is_some() {
        return Vec::new();
    }
    vec!["--public-url".into(), format!("{}://{}", scheme(proxy), proxy.listen).into()]
}
