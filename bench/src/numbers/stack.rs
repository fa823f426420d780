//! Everything that runs during `numbers`, and the gateway's own figures.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::ledger::{Count, Counted};
use super::process::{Process, Side, free_address, pin_self, resident_megabytes};
use super::rest::Rest;
use super::{IDLE_MEGABYTES, NumbersArgs, Pin, START_SECONDS};
use crate::failure::Failure;
use crate::floor::{Legs, nginx_configuration};
use crate::load::Target;
use crate::report::{Verdict, verdict};

/// Names of the gateway's two processes.
const NODE: &str = "gateway node";
const CONTROL: &str = "gateway control";

/// How long usage may take to arrive after the last request.
const USAGE_LIMIT: Duration = Duration::from_secs(60);
/// How long the node may take to come to rest before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);

/// The processes. Dropped in the order of the fields: what asks goes before
/// what answers.
pub(super) struct Stack {
    gateway: Option<Gateway>,
    floors: Vec<(Process, Target)>,
    vendor: Process,
    folder: TempDir,
    /// The mock vendor's address.
    pub(super) mock: SocketAddr,
    /// Tokens to ask with; floors ignore them.
    pub(super) tokens: Vec<String>,
}

/// The gateway under measurement.
struct Gateway {
    _process: Process,
    target: Target,
    rest: Rest,
    start_seconds: f64,
    empty_megabytes: f64,
    loaded_megabytes: f64,
}

impl Stack {
    /// Starts mock vendor, floors and gateway, and loads the gateway.
    pub(super) fn start(arguments: &NumbersArgs) -> Result<Self, Failure> {
        pin_self(arguments.pin)?;
        let folder = tempfile::Builder::new().prefix("clawgate-bench-").tempdir().map_err(Failure::setup("folder"))?;
        let own = std::env::current_exe().map_err(Failure::setup("own path"))?;
        let mock = free_address()?;
        let log = folder.path().join("mock.log");
        let listen = mock.to_string();
        let mut vendor =
            Process::start("mock", &own, ["floor", "mock", "--listen", &listen], &log, (arguments.pin, Side::Load))?;
        vendor.wait_listening(mock)?;
        let floors = start_floors(&own, mock, folder.path(), arguments)?;
        let mut tokens = vec!["floor".to_owned()];
        let mut gateway = None;
        if !arguments.floors_only {
            let binary = arguments.clawgate.clone().unwrap_or_else(|| own.with_file_name("clawgate"));
            let mut started = Gateway::start(&binary, folder.path(), arguments.pin)?;
            started.rest.create_keys(arguments.keys, mock)?;
            tokens = started.rest.create_bots(arguments.bots.max(1), arguments.keys)?;
            started.loaded_megabytes = node_megabytes(folder.path())?;
            gateway = Some(started);
        }
        Ok(Self { gateway, floors, vendor, folder, mock, tokens })
    }

    /// What is measured, the mock vendor itself included.
    pub(super) fn targets(&self) -> Vec<Target> {
        let mut targets = vec![Target::local("mock", self.mock, "/v1")];
        targets.extend(self.floors.iter().map(|(_, target)| target.clone()));
        targets.extend(self.gateway.iter().map(|gateway| gateway.target.clone()));
        targets
    }

    /// The processes whose time is counted; see [`target_of`].
    pub(super) fn processes(&self) -> Result<Vec<(String, u32)>, Failure> {
        let mut processes = vec![("mock".to_owned(), self.vendor.id())];
        processes.extend(self.floors.iter().map(|(process, target)| (target.name.clone(), process.id())));
        if self.gateway.is_some() {
            processes.push((NODE.to_owned(), pid(self.folder.path(), "proxy")?));
            processes.push((CONTROL.to_owned(), pid(self.folder.path(), "control")?));
        }
        Ok(processes)
    }

    /// After a run of the gateway: waits until its usage has been counted, so
    /// that the next target does not share the machine with that work.
    pub(super) fn settle(&mut self, target: &str, counted: &Counted) -> Result<(), Failure> {
        match &mut self.gateway {
            Some(gateway) if gateway.target.name == target => gateway.settled(counted).map(drop),
            _ => Ok(()),
        }
    }

    /// The gateway's own figures and verdicts; void when its books are wrong.
    pub(super) fn gateway(&mut self, counted: &Counted, verdicts: &mut Vec<Verdict>) -> Result<Value, Failure> {
        let gateway = self.gateway.as_mut().ok_or_else(|| Failure::Setup("there is no gateway".to_owned()))?;
        let truth = gateway.settled(counted)?;
        let start = gateway.start_seconds;
        verdicts.push(verdict(&format!("first start to ready < {START_SECONDS} s"), start, false, START_SECONDS));
        let idle = gateway.loaded_megabytes;
        verdicts.push(verdict(&format!("idle node < {IDLE_MEGABYTES} MB"), idle, false, IDLE_MEGABYTES));
        Ok(json!({
            "start_seconds": start,
            "node_megabytes_empty": gateway.empty_megabytes,
            "node_megabytes_loaded": idle,
            "requests_through": truth.requests,
            "tokens_through": truth.tokens,
        }))
    }
}

/// The target whose requests a process serves; `None`: all of them.
pub(super) fn target_of(process: &str) -> Option<&str> {
    match process {
        "mock" => None,
        NODE | CONTROL => Some("gateway"),
        floor => Some(floor),
    }
}

impl Gateway {
    fn start(binary: &Path, folder: &Path, pin: Pin) -> Result<Self, Failure> {
        let data = folder.join("data");
        let log = folder.join("gateway.log");
        let before = Instant::now();
        let mut process = Process::start(
            "gateway",
            binary,
            [
                "up",
                "--data-dir",
                &data.display().to_string(),
                "--listen",
                "127.0.0.1:0",
                "--console-listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
                "--control-admin-listen",
                "127.0.0.1:0",
            ],
            &log,
            (pin, Side::Measured),
        )?;
        process
            .wait("ready", || std::fs::read_to_string(&log).ok()?.lines().any(|line| line == "ready").then_some(()))?;
        let start_seconds = before.elapsed().as_secs_f64();
        let listen = announced(&data.join("run/proxy.json"), "data")?;
        let console = announced(&data.join("run/control.json"), "console")?;
        let path = data.join("admin.token");
        let token = std::fs::read_to_string(&path).map_err(Failure::setup(path.display().to_string()))?;
        let rest = Rest::new(console, token.trim())?;
        let empty_megabytes = node_megabytes(folder)?;
        let target = Target::local("gateway", listen, "/v1/openai");
        Ok(Self { _process: process, target, rest, start_seconds, empty_megabytes, loaded_megabytes: 0.0 })
    }

    /// Waits until usage equals the ledger; void when it never does.
    fn settled(&mut self, counted: &Counted) -> Result<Count, Failure> {
        let truth = counted.of(&self.target.name);
        let deadline = Instant::now() + USAGE_LIMIT;
        loop {
            let usage = self.rest.usage()?;
            if usage == truth {
                return Ok(truth);
            }
            if Instant::now() > deadline {
                return Err(Failure::Void(format!("usage is {usage:?}, the ledger has {truth:?}")));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Memory of the node once it has nothing to do.
fn node_megabytes(folder: &Path) -> Result<f64, Failure> {
    std::thread::sleep(SETTLE);
    resident_megabytes(pid(folder, "proxy")?)
}

/// A plane's process id, from its file.
fn pid(folder: &Path, plane: &str) -> Result<u32, Failure> {
    let path = folder.join(format!("data/run/{plane}.pid"));
    let text = std::fs::read_to_string(&path).map_err(Failure::setup(path.display().to_string()))?;
    text.trim().parse().map_err(Failure::setup(path.display().to_string()))
}

/// An address a plane wrote into its ready file.
pub(crate) fn announced(path: &Path, name: &str) -> Result<SocketAddr, Failure> {
    let text = std::fs::read(path).map_err(Failure::setup(path.display().to_string()))?;
    let value: Value = serde_json::from_slice(&text).map_err(Failure::setup(path.display().to_string()))?;
    let address = value.get(name).and_then(Value::as_str).and_then(|text| text.parse().ok());
    address.ok_or_else(|| Failure::Setup(format!("{}: no address {name}", path.display())))
}

fn start_floors(
    own: &Path,
    upstream: SocketAddr,
    folder: &Path,
    arguments: &NumbersArgs,
) -> Result<Vec<(Process, Target)>, Failure> {
    let threads = if arguments.pin == Pin::Split { 1 } else { 2 };
    let mut floors = Vec::new();
    for name in ["nginx", "pingora-proxy", "bare"] {
        if arguments.bare_only && name != "bare" {
            continue;
        }
        let listen = free_address()?;
        let legs = Legs { listen, upstream, threads };
        let log = folder.join(format!("{name}.log"));
        let pinned = (arguments.pin, Side::Measured);
        let mut process = if name == "nginx" {
            let Some(nginx) = find_nginx() else {
                eprintln!("nginx is not installed: the bare loop is not compared with it");
                continue;
            };
            let path = folder.join("nginx.conf");
            std::fs::write(&path, nginx_configuration(&legs, folder)).map_err(Failure::setup("nginx.conf"))?;
            Process::start(name, &nginx, [Path::new("-p"), folder, Path::new("-c"), &path], &log, pinned)?
        } else {
            let (listen, upstream) = (listen.to_string(), upstream.to_string());
            let threads = threads.to_string();
            let flags = ["floor", name, "--listen", &listen, "--upstream", &upstream, "--threads", &threads];
            Process::start(name, own, flags, &log, pinned)?
        };
        process.wait_listening(listen)?;
        floors.push((process, Target::local(name, listen, "/v1")));
    }
    Ok(floors)
}

fn find_nginx() -> Option<PathBuf> {
    ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file())
}
