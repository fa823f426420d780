//! The database a bench writes to: a file, a server of its own, or a given one.
//!
//! The server is started from the host's binaries with its own defaults but for
//! the memory it may use: what is committed is on disk, as in production.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, User, chown, geteuid};

use crate::failure::Failure;

const SUPERUSER: &str = "clawgate";
const READY: Duration = Duration::from_secs(60);

/// What `--database` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// A new file.
    Sqlite,
    /// A new server.
    Postgres,
    /// As given; it is filled and left behind.
    Url(String),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sqlite" => Ok(Self::Sqlite),
            "postgres" => Ok(Self::Postgres),
            url if url.contains("://") => Ok(Self::Url(url.to_owned())),
            _ => Err("expected sqlite, postgres or a database URL".to_owned()),
        }
    }
}

/// An open choice.
pub(super) struct Database {
    pub(super) url: String,
    /// Ended when this is dropped.
    server: Option<Server>,
}

struct Server {
    child: Child,
}

impl Database {
    /// `folder` holds what is new.
    pub(super) fn open(choice: &Choice, folder: &Path) -> Result<Self, Failure> {
        match choice {
            Choice::Url(url) => Ok(Self { url: url.clone(), server: None }),
            Choice::Sqlite => Ok(Self { url: format!("sqlite://{}", folder.join("bench.db").display()), server: None }),
            Choice::Postgres => {
                let (url, server) = Server::start(&folder.join("pg"))?;
                Ok(Self { url, server: Some(server) })
            }
        }
    }

    /// The server's process, when it is ours.
    pub(super) fn process(&self) -> Option<u32> {
        self.server.as_ref().map(|server| server.child.id())
    }
}

impl Server {
    fn start(dir: &Path) -> Result<(String, Self), Failure> {
        let bin = find_binaries().ok_or_else(|| Failure::Setup("PostgreSQL is not installed".to_owned()))?;
        let run_as = if geteuid().is_root() { Some(unprivileged()?) } else { None };
        std::fs::create_dir_all(dir).map_err(Failure::setup("directory of the server"))?;
        if let Some((uid, gid)) = run_as {
            open_path(dir)?;
            chown(dir, Some(uid), Some(gid)).map_err(Failure::setup("directory of the server"))?;
        }
        let data = dir.join("data");
        let mut initdb = command(&bin, "initdb", run_as, dir);
        initdb.args(["--auth=trust", "--encoding=UTF8", "--no-instructions", "-U", SUPERUSER, "-D"]).arg(&data);
        let made = initdb.stdout(Stdio::null()).output().map_err(Failure::setup("initdb"))?;
        if !made.status.success() {
            return Err(Failure::Setup(format!("initdb: {}", String::from_utf8_lossy(&made.stderr))));
        }
        let log = std::fs::File::create(dir.join("server.log")).map_err(Failure::setup("server.log"))?;
        let mut server = command(&bin, "postgres", run_as, dir);
        server.arg("-D").arg(&data).arg("-k").arg(dir);
        for setting in ["listen_addresses=", "shared_buffers=512MB", "max_wal_size=4GB"] {
            server.arg("-c").arg(setting);
        }
        let child = server.stdout(Stdio::null()).stderr(log).spawn().map_err(Failure::setup("postgres"))?;
        let mut started = Self { child };
        started.await_ready(&data)?;
        let socket = dir.display().to_string().replace('/', "%2F");
        Ok((format!("postgres://{SUPERUSER}@localhost/postgres?host={socket}"), started))
    }

    /// The server writes its state into the last line of its pid file.
    fn await_ready(&mut self, data: &Path) -> Result<(), Failure> {
        let deadline = Instant::now() + READY;
        loop {
            let state = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            if state.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return Ok(());
            }
            if Instant::now() > deadline || !matches!(self.child.try_wait(), Ok(None)) {
                return Err(Failure::Setup("postgres did not become ready".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            let _sent = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGINT);
        }
        let _reaped = self.child.wait();
    }
}

/// The server's user must be able to get to its directory.
fn open_path(dir: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(parent) = dir.parent() else { return Ok(()) };
    std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o711)).map_err(Failure::setup("directory"))
}

fn command(bin: &Path, name: &str, run_as: Option<(Uid, Gid)>, dir: &Path) -> Command {
    let mut command = Command::new(bin.join(name));
    command.current_dir(dir).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    if let Some((uid, gid)) = run_as {
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    command
}

fn unprivileged() -> Result<(Uid, Gid), Failure> {
    let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
    user.map(|user| (user.uid, user.gid)).ok_or_else(|| Failure::Setup("no user postgres or nobody".to_owned()))
}

/// The directory of the newest installed server.
fn find_binaries() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = debian.map(|entry| entry.path().join("bin")).collect();
    versions.sort_by_key(|path| {
        let version = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        std::cmp::Reverse(version.and_then(|name| name.parse::<u32>().ok()))
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let elsewhere: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut all = versions.into_iter().chain(elsewhere);
    all.find(|dir| ["initdb", "postgres"].iter().all(|name| dir.join(name).is_file()))
}
