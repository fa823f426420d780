//! A control plane of our own, with a tenant and its bots.

use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::database::{Choice, Database};
use crate::failure::Failure;
use crate::numbers::Pin;
use crate::numbers::cpu::Cpu;
use crate::numbers::process::{Process, Side};
use crate::numbers::rest::Rest;
use crate::numbers::stack::announced;

const CONTROL: &str = "control";
const SERVER: &str = "postgres";

/// Dropped in the order of the fields: the client of the database goes first.
pub(super) struct Plane {
    process: Process,
    database: Database,
    folder: TempDir,
    pub(super) rest: Rest,
    pub(super) socket: PathBuf,
    pub(super) tenant_id: String,
    pub(super) bots: Vec<String>,
}

impl Plane {
    /// Starts a control plane over a database and creates `bots` bots.
    pub(super) fn start(
        binary: Option<&Path>,
        choice: &Choice,
        dir: Option<&Path>,
        bots: usize,
    ) -> Result<Self, Failure> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("clawgate-bench-");
        let folder = dir.map_or_else(|| builder.tempdir(), |dir| builder.tempdir_in(dir));
        let folder = folder.map_err(Failure::setup("folder"))?;
        let own = std::env::current_exe().map_err(Failure::setup("own path"))?;
        let binary = binary.map_or_else(|| own.with_file_name("clawgate"), Path::to_path_buf);
        let database = Database::open(choice, folder.path())?;
        let data = folder.path().join("data");
        let socket = folder.path().join("grpc.sock");
        let arguments = [
            "control".to_owned(),
            "--data-dir".to_owned(),
            data.display().to_string(),
            "--console-listen".to_owned(),
            "127.0.0.1:0".to_owned(),
            "--control-admin-listen".to_owned(),
            "127.0.0.1:0".to_owned(),
            "--grpc-listen".to_owned(),
            format!("unix:{}", socket.display()),
        ];
        // A URL may hold a password: not among the arguments.
        let environment = [("CLAWGATE_DATABASE_URL", database.url.as_str())];
        let log = folder.path().join("control.log");
        let pinned = (Pin::None, Side::Measured);
        let mut process = Process::start_with(CONTROL, &binary, arguments, &environment, &log, pinned)?;
        let ready = data.join("run/control.json");
        process.wait("ready", || ready.is_file().then_some(()))?;
        let path = data.join("admin.token");
        let token = std::fs::read_to_string(&path).map_err(Failure::setup(path.display().to_string()))?;
        let mut rest = Rest::new(announced(&ready, "console")?, token.trim())?;
        let tenants = rest.call("GET", "/tenants", None, None)?;
        let tenant_id = tenants.pointer("/data/0/id").and_then(|id| id.as_str());
        let tenant_id = tenant_id.ok_or_else(|| Failure::Setup("there is no tenant".to_owned()))?.to_owned();
        let mut ids = Vec::with_capacity(bots);
        for index in 0..bots {
            let body = json!({ "hostname": format!("bench-{index:04}"), "labels": { "team": format!("team-{}", index % 20) } });
            let bot = rest.call("POST", "/bots", Some("respond-async"), Some(&body))?;
            let id = bot.get("id").and_then(|id| id.as_str());
            ids.push(id.ok_or_else(|| Failure::Setup("a bot came without an id".to_owned()))?.to_owned());
        }
        Ok(Self { process, database, folder, rest, socket, tenant_id, bots: ids })
    }

    /// Processor seconds so far: of the control plane, and of a server of ours.
    pub(super) fn cpu(&self) -> (f64, f64) {
        let mut processes = vec![(CONTROL.to_owned(), self.process.id())];
        processes.extend(self.database.process().map(|id| (SERVER.to_owned(), id)));
        let cpu = Cpu::read(&processes);
        (cpu.seconds(CONTROL), cpu.seconds(SERVER))
    }

    /// The control plane's process.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Bytes on disk of database and log.
    pub(super) fn disk_bytes(&self) -> u64 {
        fn of(path: &Path) -> u64 {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            let size = |entry: std::fs::DirEntry| match entry.metadata() {
                Ok(meta) if meta.is_dir() => of(&entry.path()),
                Ok(meta) => meta.len(),
                Err(_) => 0,
            };
            entries.map(size).sum()
        }
        of(self.folder.path())
    }
}
