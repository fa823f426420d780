//! An engine of the test's own: the test runs itself once more in a network
//! namespace, starts `dockerd` there, and imports a tiny image.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clawgate_runner::engine;
use clawgate_runner::verbs::Cells;

/// A static busybox and nothing else.
pub const IMAGE: &str = "clawgate-test/busybox:1";
const INSIDE: &str = "CLAWGATE_TEST_RUNNER_NETWORK";

pub struct Machine {
    folder: tempfile::TempDir,
    daemon: Child,
}

fn run(program: &str, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(program).args(arguments).output().expect("it can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        eprintln!("{program} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    (output.status.code().unwrap_or(-1), text)
}

/// Runs `story`; `test` is the test's name.
pub fn with_machine(test: &str, story: impl AsyncFnOnce(&Machine)) {
    if std::env::var_os(INSIDE).is_none() {
        let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
        let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().any(|path| std::path::Path::new(path).exists());
        if !root || !has("dockerd") || !has("unshare") || !busybox {
            assert!(std::env::var_os("CI").is_none(), "no dockerd, unshare or busybox, or not root");
            eprintln!("skipped: no dockerd, unshare or busybox, or not root");
            return;
        }
        let this = std::env::current_exe().expect("a path");
        let mut inner = Command::new("unshare");
        inner.args(["--net", "--mount", "--"]).arg(this).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
        let output = inner.output().expect("runs");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        eprintln!("{text}");
        assert!(output.status.success() && text.contains("1 passed"), "the inner run of {test}: {}", output.status);
        return;
    }
    let machine = Machine::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(story(&machine));
}

impl Machine {
    fn start() -> Self {
        run("ip", &["link", "set", "lo", "up"]);
        let folder = tempfile::Builder::new().prefix("clawgate-runner-").tempdir().expect("a folder");
        let machine = Self { daemon: Self::daemon(&folder.path().to_path_buf()), folder };
        let start = Instant::now();
        while machine.docker(&["info"]).0 != 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "dockerd does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        machine.import();
        machine
    }

    fn daemon(folder: &PathBuf) -> Child {
        let log = std::fs::File::create(folder.join("dockerd.log")).expect("a log");
        let at = |name: &str| folder.join(name).display().to_string();
        let host = format!("unix://{}", at("docker.sock"));
        let mut command = Command::new("dockerd");
        command.args([
            "--host",
            &host,
            "--data-root",
            &at("data"),
            "--exec-root",
            &at("exec"),
            "--pidfile",
            &at("pid"),
        ]);
        command
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("dockerd starts")
    }

    fn import(&self) {
        let root = self.folder.path().join("root");
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| std::path::Path::new(path).exists());
        std::fs::create_dir_all(root.join("bin")).expect("a folder");
        std::fs::copy(busybox.expect("it was there"), root.join("bin/busybox")).expect("copied");
        let archive = self.folder.path().join("root.tar").display().to_string();
        assert_eq!(run("tar", &["-C", &root.display().to_string(), "-cf", &archive, "."]).0, 0);
        assert_eq!(self.docker(&["import", &archive, IMAGE]).0, 0);
    }

    fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("docker.sock").display())
    }

    pub fn docker(&self, arguments: &[&str]) -> (i32, String) {
        run("docker", &[&["--host", &self.host()], arguments].concat())
    }

    /// Runs something in the container of `bot_1`.
    pub fn inside(&self, command: &[&str]) -> (i32, String) {
        self.docker(&[&["exec", "clawgate-bot_1"], command].concat())
    }

    pub async fn cells(&self, installation: &str) -> Cells {
        let engine = engine::open(Some(&self.host())).await.expect("it answers");
        Cells { docker: engine.docker, installation: installation.to_owned() }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It unmounts what it mounted when it is asked to end.
        run("kill", &["-TERM", &self.daemon.id().to_string()]);
        let _ = self.daemon.wait();
    }
}
