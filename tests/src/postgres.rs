//! A PostgreSQL server of a test's own, on a Unix socket in a directory of its
//! own: no port, no password, gone with the value.
//!
//! PostgreSQL refuses to run as root; as root it is run as `postgres` or
//! `nobody`.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, User, chown, geteuid};

/// How long the server may take to accept connections.
const READY: Duration = Duration::from_secs(60);
const SUPERUSER: &str = "clawgate";

/// A running server.
pub struct Postgres {
    dir: tempfile::TempDir,
    bin: PathBuf,
    run_as: Option<(Uid, Gid)>,
    child: Child,
    databases: AtomicU32,
}

impl Postgres {
    /// Starts a server; `None`, loudly, when PostgreSQL is not installed.
    ///
    /// # Panics
    /// PostgreSQL is installed and does not start; or it is not installed and
    /// `CI` is set.
    #[must_use]
    pub fn start() -> Option<Self> {
        let Some(bin) = find_binaries() else {
            assert!(std::env::var_os("CI").is_none(), "PostgreSQL is not installed");
            eprintln!("SKIPPED: PostgreSQL (initdb, postgres) is not installed");
            return None;
        };
        let run_as = geteuid().is_root().then(unprivileged);
        let dir = tempfile::Builder::new().prefix("clawgate-pg-").tempdir().expect("temporary directory");
        if let Some((uid, gid)) = run_as {
            chown(dir.path(), Some(uid), Some(gid)).expect("directory of the server's user");
        }
        let data = dir.path().join("data");
        let mut initdb = command(&bin, "initdb", run_as, dir.path());
        initdb.args(["--auth=trust", "--encoding=UTF8", "--no-sync", "--no-instructions", "-U", SUPERUSER, "-D"]);
        let made = initdb.arg(&data).stdout(Stdio::null()).output().expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));

        let child = server(&bin, run_as, dir.path());
        let mut started = Self { dir, bin, run_as, child, databases: AtomicU32::new(0) };
        started.await_ready();
        Some(started)
    }

    /// Stops it as `pg_ctl stop -m immediate` does: no checkpoint, no goodbye;
    /// the next start recovers.
    ///
    /// # Panics
    /// It does not end.
    pub fn stop_immediately(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT).expect("a running server");
        self.child.wait().expect("own child");
    }

    /// Starts it again after a stop.
    ///
    /// # Panics
    /// It does not recover.
    pub fn start_again(&mut self) {
        let _of_the_last_run = std::fs::remove_file(self.dir.path().join("data").join("postmaster.pid"));
        self.child = server(&self.bin, self.run_as, self.dir.path());
        self.await_ready();
    }

    /// A new empty database and its URL.
    ///
    /// # Panics
    /// The server is gone.
    #[must_use]
    pub fn database(&self) -> String {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut createdb = command(&self.bin, "createdb", self.run_as, self.dir.path());
        let made =
            createdb.arg("-h").arg(self.dir.path()).args(["-U", SUPERUSER, &name]).output().expect("createdb runs");
        assert!(made.status.success(), "createdb: {}", String::from_utf8_lossy(&made.stderr));
        self.url(&name)
    }

    /// The URL of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let socket = self.dir.path().display().to_string().replace('/', "%2F");
        format!("postgres://{SUPERUSER}@localhost/{database}?host={socket}")
    }

    /// The server writes its state into the last line of its pid file.
    fn await_ready(&mut self) {
        let deadline = Instant::now() + READY;
        let pid_file = self.dir.path().join("data").join("postmaster.pid");
        loop {
            let state = std::fs::read_to_string(&pid_file).unwrap_or_default();
            if state.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return;
            }
            let ended = self.child.try_wait().expect("state of the server");
            let log = || std::fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default();
            assert!(ended.is_none(), "postgres ended: {}", log());
            assert!(Instant::now() < deadline, "postgres is not ready: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).map(nix::unistd::Pid::from_raw);
        if let Ok(pid) = pid {
            // Immediate shutdown: the directory goes anyway.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT);
        }
        let _ = self.child.wait();
    }
}

/// Starts the server whose data lies in `dir`.
fn server(bin: &Path, run_as: Option<(Uid, Gid)>, dir: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("server.log")).expect("log file");
    let mut server = command(bin, "postgres", run_as, dir);
    server.arg("-D").arg(dir.join("data")).arg("-k").arg(dir);
    for setting in ["listen_addresses=", "fsync=off", "max_connections=200", "shared_buffers=32MB"] {
        server.arg("-c").arg(setting);
    }
    server.stdout(Stdio::null()).stderr(log).spawn().expect("postgres runs")
}

fn command(bin: &Path, name: &str, run_as: Option<(Uid, Gid)>, dir: &Path) -> Command {
    let mut command = Command::new(bin.join(name));
    command.current_dir(dir).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    if let Some((uid, gid)) = run_as {
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    command
}

fn unprivileged() -> (Uid, Gid) {
    let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
    user.map(|user| (user.uid, user.gid)).expect("a user postgres or nobody")
}

/// The directory of the newest installed server.
#[must_use]
pub fn find_binaries() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = debian.map(|entry| entry.path().join("bin")).collect();
    versions.sort_by_key(|path| {
        let version = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        std::cmp::Reverse(version.and_then(|name| name.parse::<u32>().ok()))
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    versions
        .into_iter()
        .chain(std::env::split_paths(&path))
        .find(|dir| ["initdb", "postgres", "createdb"].iter().all(|name| dir.join(name).is_file()))
}
