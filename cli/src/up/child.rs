//! One child process, kept alive.
//!
//! Invariant: one living process per child that this supervisor starts again,
//! stops and upgrades; the pid file names it. Predecessors of a node that still
//! drain are left alone, and waited for when all is stopped.

use std::ffi::OsString;
use std::io::{PipeReader, stderr};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::failure::Failure;
use crate::files;

/// First pause before a restart; it doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause before a restart.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A life this long makes the next pause the first again.
const STEADY: Duration = Duration::from_secs(30);
/// How often an adopted process is looked at: it is nobody's `wait`.
const ADOPTED_POLL: Duration = Duration::from_millis(50);

/// How to start a child.
#[derive(Debug)]
pub(crate) struct ChildSpec {
    /// For messages: `control`, `proxy`, …
    pub(crate) name: &'static str,
    /// This binary.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) args: Vec<OsString>,
    /// Environment variables it has no business to see.
    pub(crate) without: &'static [&'static str],
    /// Environment variables of its own.
    pub(crate) with: Vec<(&'static str, String)>,
    /// Where its process id is kept.
    pub(crate) pid_file: PathBuf,
    /// How long it may drain before it is killed.
    pub(crate) drain_cap: Duration,
    /// Its standard input: see [`crate::liveness`].
    pub(crate) bond: PipeReader,
}

impl ChildSpec {
    /// Adds a flag or replaces its value.
    fn set(&mut self, flag: &'static str, value: String) {
        match self.args.iter().position(|arg| arg == flag).and_then(|at| self.args.get_mut(at + 1)) {
            Some(old) => *old = value.into(),
            None => self.args.extend([flag.into(), value.into()]),
        }
    }
}

/// What a child is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not running, about to be.
    Starting,
    /// Running under this process id.
    Running(i32),
    /// Ended in its first life, before anybody called it settled.
    Failed(String),
    /// Ended as told.
    Stopped,
}

enum Order {
    Settled,
    Pin(&'static str, String),
    Upgrade,
    Stop,
    Kill,
}

/// The handle of a kept child.
pub(crate) struct Keeper {
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<State>,
}

impl Keeper {
    /// Starts the child and the task that keeps it. Must be called inside a
    /// `LocalSet`-free current-thread runtime: the parent of every child is the
    /// supervisor's one thread.
    pub(crate) fn start(spec: ChildSpec) -> Self {
        let (orders, inbox) = mpsc::channel(8);
        let (report, state) = watch::channel(State::Starting);
        tokio::spawn(Task { spec, inbox, report, settled: false, older: Vec::new() }.run());
        Self { orders, state }
    }

    /// What it is doing now.
    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// From now on an end is answered by a restart instead of [`State::Failed`].
    pub(crate) async fn settled(&self) {
        let _ = self.orders.send(Order::Settled).await;
    }

    /// From its next life on, `flag` has this value: a restarted child must come
    /// back where its clients look for it.
    pub(crate) async fn pin(&self, flag: &'static str, value: String) {
        let _ = self.orders.send(Order::Pin(flag, value)).await;
    }

    /// Tells a node to start its successor.
    pub(crate) async fn upgrade(&self) {
        let _ = self.orders.send(Order::Upgrade).await;
    }

    /// Drains it and waits for its end.
    pub(crate) async fn stop(&mut self) {
        let _ = self.orders.send(Order::Stop).await;
        let _ = self.state.wait_for(|s| matches!(s, State::Stopped | State::Failed(_))).await;
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        let _ = self.orders.try_send(Order::Kill);
    }
}

/// A running process: our own child, or one that our child left behind.
enum Process {
    Own(Child, i32),
    Adopted(i32),
}

impl Process {
    const fn pid(&self) -> i32 {
        match self {
            Self::Own(_, pid) | Self::Adopted(pid) => *pid,
        }
    }

    fn signal(&self, signal: Signal) {
        // It may just have ended; then there is nobody to tell.
        let _ = kill(Pid::from_raw(self.pid()), signal);
    }

    /// Completes when it has ended; says how, as far as known.
    async fn ended(&mut self) -> String {
        match self {
            Self::Own(child, _) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(e) => e.to_string(),
            },
            Self::Adopted(pid) => {
                while is_alive(*pid) {
                    tokio::time::sleep(ADOPTED_POLL).await;
                }
                "ended".to_owned()
            }
        }
    }
}

/// Whether a process that may or may not be our child is alive; reaps it when
/// it was ours.
fn is_alive(pid: i32) -> bool {
    match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) => true,
        Ok(_) => false,
        Err(Errno::ECHILD) => kill(Pid::from_raw(pid), None).is_ok(),
        Err(_) => false,
    }
}

struct Task {
    spec: ChildSpec,
    inbox: mpsc::Receiver<Order>,
    report: watch::Sender<State>,
    settled: bool,
    /// Processes that have a successor and drain.
    older: Vec<(Pid, JoinHandle<()>)>,
}

enum Life {
    /// It ended by itself.
    Ended { how: String, pid: i32 },
    /// It ended because it was told to.
    Over,
}

impl Task {
    async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        let mut next = self.spawn();
        loop {
            let born = Instant::now();
            let how = match next {
                Ok(process) => match self.live(process).await {
                    Life::Over => return self.end(State::Stopped),
                    Life::Ended { how, pid } => {
                        if let Some(successor) = self.successor_of(pid) {
                            next = Ok(Process::Adopted(successor));
                            continue;
                        }
                        how
                    }
                },
                Err(failure) => failure.to_string(),
            };
            if !self.settled {
                return self.end(State::Failed(how));
            }
            if born.elapsed() >= STEADY {
                backoff = BACKOFF_MIN;
            }
            self.report.send_replace(State::Starting);
            eprintln!("clawgate: {} ended ({how}); restarting in {} ms", self.spec.name, backoff.as_millis());
            if self.pause(backoff).await {
                return self.end(State::Stopped);
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
            next = self.spawn();
        }
    }

    fn end(&self, state: State) {
        let _ = std::fs::remove_file(&self.spec.pid_file);
        self.report.send_replace(state);
    }

    fn spawn(&self) -> Result<Process, Failure> {
        let doing = format!("starting {}", self.spec.name);
        let bond = self.spec.bond.try_clone().map_err(|e| Failure::failed(&doing, e))?;
        // Standard output belongs to the supervisor's announcements.
        let out = stderr().as_fd().try_clone_to_owned().map_err(|e| Failure::failed(&doing, e))?;
        let mut command = Command::new(&self.spec.program);
        command.args(&self.spec.args).stdin(Stdio::from(bond)).stdout(Stdio::from(out));
        // A group of its own: Ctrl-C reaches the supervisor alone, which then
        // stops its children in order.
        command.process_group(0);
        for name in self.spec.without {
            command.env_remove(name);
        }
        command.envs(self.spec.with.iter().map(|(name, value)| (name, value)));
        let child = command.spawn().map_err(|e| Failure::failed(&doing, e))?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default();
        Ok(Process::Own(child, pid))
    }

    /// One life, from its pid file to its end.
    async fn live(&mut self, mut process: Process) -> Life {
        if let Process::Own(_, pid) = process
            && let Err(e) = files::write_private(&self.spec.pid_file, format!("{pid}\n").as_bytes())
        {
            eprintln!("clawgate: {} cannot be written: {e}", self.spec.pid_file.display());
        }
        self.report.send_replace(State::Running(process.pid()));
        loop {
            let order = tokio::select! {
                how = process.ended() => return Life::Ended { how, pid: process.pid() },
                order = self.inbox.recv() => order,
            };
            // The predecessor of a node drains for a long time: what is ordered
            // meanwhile is for its successor.
            if let Some(successor) = self.successor_of(process.pid()) {
                let mut old = std::mem::replace(&mut process, Process::Adopted(successor));
                let pid = Pid::from_raw(old.pid());
                self.older.retain(|(_, waiting)| !waiting.is_finished());
                self.older.push((pid, tokio::spawn(async move { _ = old.ended().await })));
                self.report.send_replace(State::Running(successor));
            }
            match order {
                Some(Order::Settled) => self.settled = true,
                Some(Order::Pin(flag, value)) => self.spec.set(flag, value),
                Some(Order::Upgrade) => process.signal(Signal::SIGQUIT),
                Some(Order::Kill) => {
                    self.kill_all(&mut process).await;
                    return Life::Over;
                }
                Some(Order::Stop) | None => {
                    self.drain(&mut process).await;
                    return Life::Over;
                }
            }
        }
    }

    /// Until the process and its predecessors have drained, or the time is over.
    async fn drain(&mut self, process: &mut Process) {
        process.signal(Signal::SIGTERM);
        let cap = tokio::time::sleep(self.spec.drain_cap);
        tokio::pin!(cap);
        loop {
            let (inbox, older) = (&mut self.inbox, &mut self.older);
            let all_ended = async {
                process.ended().await;
                for (_, waiting) in older.iter_mut().filter(|(_, waiting)| !waiting.is_finished()) {
                    let _ended = waiting.await;
                }
            };
            tokio::select! {
                () = all_ended => return,
                () = &mut cap => break,
                order = inbox.recv() => if matches!(order, Some(Order::Kill) | None) { break },
            }
        }
        self.kill_all(process).await;
    }

    async fn kill_all(&mut self, process: &mut Process) {
        for (pid, _) in self.older.iter().filter(|(_, waiting)| !waiting.is_finished()) {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        process.signal(Signal::SIGKILL);
        process.ended().await;
    }

    /// The process that took over from `pid`, if the pid file names a living
    /// other one.
    fn successor_of(&self, pid: i32) -> Option<i32> {
        files::read_pid(&self.spec.pid_file).filter(|next| *next != pid && is_alive(*next))
    }

    /// Waits; true when it was told to stop meanwhile.
    async fn pause(&mut self, time: Duration) -> bool {
        let sleep = tokio::time::sleep(time);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return false,
                order = self.inbox.recv() => match order {
                    Some(Order::Stop | Order::Kill) | None => return true,
                    Some(Order::Pin(flag, value)) => self.spec.set(flag, value),
                    Some(Order::Settled | Order::Upgrade) => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// `sh -c script`, its pid file in `root`.
    fn spec(root: &Path, script: &str) -> (ChildSpec, std::io::PipeWriter) {
        let (bond, writer) = std::io::pipe().expect("pipe");
        let spec = ChildSpec {
            name: "test",
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            without: &["CLAWGATE_MASTER_KEY"],
            with: Vec::new(),
            pid_file: root.join("test.pid"),
            drain_cap: Duration::from_secs(5),
            bond,
        };
        (spec, writer)
    }

    async fn running(keeper: &Keeper, other_than: i32) -> i32 {
        let mut state = keeper.state.clone();
        let reached = state.wait_for(|s| matches!(s, State::Running(pid) if *pid != other_than)).await;
        match *reached.expect("alive") {
            State::Running(pid) => pid,
            _ => 0,
        }
    }

    #[tokio::test]
    async fn a_killed_child_comes_back_and_a_stopped_one_does_not() {
        let root = tempfile::tempdir().expect("temporary directory");
        let (spec, _writer) = spec(root.path(), "while :; do sleep 0.05; done");
        let pid_file = spec.pid_file.clone();
        let mut keeper = Keeper::start(spec);
        let first = running(&keeper, 0).await;
        assert_eq!(files::read_pid(&pid_file), Some(first));
        keeper.settled().await;
        tokio::task::yield_now().await;
        kill(Pid::from_raw(first), Signal::SIGKILL).expect("ours");
        let second = running(&keeper, first).await;
        assert_eq!(files::read_pid(&pid_file), Some(second));
        keeper.stop().await;
        assert_eq!(keeper.state(), State::Stopped);
        assert!(!pid_file.exists());
        assert!(!is_alive(second));
    }

    #[test]
    fn a_pinned_flag_replaces_its_value() {
        let root = tempfile::tempdir().expect("temporary directory");
        let (mut spec, _writer) = spec(root.path(), "true");
        spec.args = ["proxy", "--listen", "127.0.0.1:0"].map(OsString::from).to_vec();
        spec.set("--listen", "127.0.0.1:8".into());
        spec.set("--admin-listen", "127.0.0.1:9".into());
        assert_eq!(spec.args, ["proxy", "--listen", "127.0.0.1:8", "--admin-listen", "127.0.0.1:9"]);
    }

    #[tokio::test]
    async fn an_end_before_it_settled_is_a_failure() {
        let root = tempfile::tempdir().expect("temporary directory");
        let (spec, _writer) = spec(root.path(), "exit 3");
        let mut keeper = Keeper::start(spec);
        keeper.state.wait_for(|s| matches!(s, State::Failed(_))).await.expect("reported");
        keeper.stop().await;
        assert!(matches!(keeper.state(), State::Failed(how) if how.contains('3')));
    }

    #[tokio::test]
    async fn a_successor_named_in_the_pid_file_is_adopted() {
        let root = tempfile::tempdir().expect("temporary directory");
        // On SIGQUIT: leave a successor behind, name it in the pid file, end.
        let script = "trap 'sleep 60 & echo $! > \"$HERE/test.pid\"; exit 0' QUIT; : > \"$HERE/listens\"; \
                      while :; do sleep 0.05; done";
        let script = script.replace("$HERE", &root.path().display().to_string());
        // A shell cannot trap what was ignored when it began, as SIGQUIT is in a
        // job in the background.
        let file = root.path().join("successor.sh");
        std::fs::write(&file, script).expect("writes");
        let script = format!("exec env --default-signal=QUIT /bin/sh {}", file.display());
        let (spec, _writer) = spec(root.path(), &script);
        let mut keeper = Keeper::start(spec);
        let first = running(&keeper, 0).await;
        keeper.settled().await;
        // Before that the signal is ignored, or ends it.
        let listens = root.path().join("listens");
        while !listens.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        keeper.upgrade().await;
        let second = running(&keeper, first).await;
        assert!(is_alive(second));
        keeper.stop().await;
        assert!(!is_alive(second));
    }

    #[tokio::test]
    async fn an_upgrade_while_a_predecessor_drains_is_for_its_successor() {
        let root = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| root.path().join(name);
        // On the first SIGQUIT the first starts the second, and goes on.
        let script = "trap 'echo $1 >> \"$HERE/told\"; [ $1 = 2 ] || { $AGAIN 2 & echo $! > \"$HERE/test.pid\"; }' QUIT; \
                      : > \"$HERE/listens$1\"; while :; do sleep 0.05; done";
        let file = at("node.sh");
        let again = format!("env --default-signal=QUIT /bin/sh {}", file.display());
        let script = script.replace("$AGAIN", &again).replace("$HERE", &root.path().display().to_string());
        std::fs::write(&file, script).expect("writes");
        let (mut spec, _writer) = spec(root.path(), &format!("exec {again} 1"));
        spec.drain_cap = Duration::from_millis(200);
        let mut keeper = Keeper::start(spec);
        let first = running(&keeper, 0).await;
        keeper.settled().await;
        let exists = async |name: &str| {
            while !at(name).exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        exists("listens1").await;
        keeper.upgrade().await;
        exists("listens2").await;
        keeper.upgrade().await;
        let second = running(&keeper, first).await;
        while std::fs::read_to_string(at("told")).unwrap_or_default() != "1\n2\n" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(is_alive(first) && is_alive(second), "the first one still drains");
        keeper.stop().await;
        while is_alive(first) || is_alive(second) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
