//! A Docker engine: the machine's own, or one that the test starts for itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Finished, Process, Spec};

/// An engine that answers.
#[derive(Debug)]
pub struct Engine {
    host: Option<String>,
    folder: PathBuf,
    daemon: Option<Process>,
}

fn answers(host: Option<&str>) -> bool {
    let mut command = Command::new("docker");
    if let Some(host) = host {
        command.env("DOCKER_HOST", host);
    }
    let output = command.args(["info", "--format", "{{.ServerVersion}}"]).output();
    output.is_ok_and(|o| o.status.success() && !String::from_utf8_lossy(&o.stdout).trim().is_empty())
}

/// Whether an engine could be started.
#[must_use]
pub fn is_installed() -> bool {
    Command::new("dockerd").arg("--version").output().is_ok()
}

impl Engine {
    /// Whether the machine's own engine runs.
    #[must_use]
    pub fn of_the_machine_answers() -> bool {
        answers(None)
    }

    /// The machine's engine if it runs, else one of our own with everything in
    /// `folder`; `None` when neither can be had.
    #[must_use]
    pub fn start(folder: &Path) -> Option<Self> {
        if answers(None) {
            return Some(Self { host: None, folder: folder.to_path_buf(), daemon: None });
        }
        // The machine's network is not ours to change: no bridge, no rules.
        Self::own(folder, &["--bridge=none", "--iptables=false"])
    }

    /// An engine of our own with everything in `folder`; `None` when it cannot
    /// be had.
    #[must_use]
    pub fn own(folder: &Path, flags: &[&str]) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !is_installed() {
            return None;
        }
        let place = |name: &str| folder.join(name).display().to_string();
        let host = format!("unix://{}", place("docker.sock"));
        // In a mount namespace of its own: it leaves some of its mounts behind.
        let mut spec = Spec::new("dockerd", "unshare".into(), folder, &["--mount", "--", "dockerd"]);
        spec.arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
        spec.set("--host", &host);
        spec.set("--data-root", &place("docker-data"));
        spec.set("--exec-root", &place("docker-exec"));
        spec.set("--pidfile", &place("docker.pid"));
        let mut daemon = spec.start();
        let start = Instant::now();
        while !answers(Some(&host)) {
            if daemon.ended().is_some() || start.elapsed() > Duration::from_secs(60) {
                eprintln!("no Docker engine can be started here: {}", daemon.log());
                return None;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Some(Self { host: Some(host), folder: folder.to_path_buf(), daemon: Some(daemon) })
    }

    /// Runs a program of the machine against this engine.
    #[must_use]
    pub fn run(&self, program: &str, arguments: &[&str]) -> Finished {
        self.spec(program, arguments).run()
    }

    /// As [`Self::run`], to be changed first.
    #[must_use]
    pub fn spec(&self, program: &str, arguments: &[&str]) -> Spec {
        let mut spec = Spec::new("docker", program.into(), &self.folder, arguments);
        if let Some(host) = &self.host {
            spec = spec.env("DOCKER_HOST", host);
        }
        spec
    }

    /// Removes a container, whatever its state.
    pub fn remove(&self, container: &str) {
        let _gone = self.run("docker", &["rm", "--force", "--volumes", container]);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            // It unmounts what it mounted when it is asked to end.
            daemon.signal(nix::sys::signal::Signal::SIGTERM);
            let _status = daemon.wait();
        }
    }
}
