//! Child processes with their logs.
//!
//! A process that is dropped is killed, and its log must not hold a panic; when
//! the test itself fails, the log's end is printed.

use std::fs::{File, OpenOptions};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::wait::until;

/// How much of a log is shown when a test fails.
const SHOWN: usize = 16 * 1024;
/// How long an exit may take before it counts as hanging.
pub const EXIT_LIMIT: Duration = Duration::from_secs(60);

/// What to start, as often as wanted.
#[derive(Clone, Debug)]
pub struct Spec {
    /// For messages and the log's file name.
    pub name: String,
    /// The binary.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Added to the environment, from which everything `CLAWGATE_*` is taken
    /// away first.
    pub environment: Vec<(String, String)>,
    /// Working directory and home of the log.
    pub folder: PathBuf,
}

impl Spec {
    /// A program with arguments, to run in `folder`.
    pub fn new(name: &str, program: PathBuf, folder: &Path, arguments: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            program,
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            environment: Vec::new(),
            folder: folder.to_path_buf(),
        }
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds or replaces the value of a flag written as two arguments.
    pub fn set(&mut self, flag: &str, value: &str) {
        if let Some(at) = self.arguments.iter().position(|a| a == flag) {
            self.arguments[at + 1] = value.to_owned();
        } else {
            self.arguments.extend([flag.to_owned(), value.to_owned()]);
        }
    }

    /// Where both output streams go, appended over restarts.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CLAWGATE_") {
                command.env_remove(name);
            }
        }
        command.args(&self.arguments).current_dir(&self.folder);
        command.envs(self.environment.iter().map(|(n, v)| (n, v)));
        command.stdin(Stdio::null());
        command
    }

    /// Starts it in a process group of its own.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start(&self) -> Process {
        let log = OpenOptions::new().create(true).append(true).open(self.log()).expect("log file");
        let errors = log.try_clone().expect("log file");
        let child = self.command().process_group(0).stdout(log).stderr(errors).spawn();
        let child = child.unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        Process { child, spec: self.clone(), started: Instant::now() }
    }

    /// Runs it to its end and returns its exit status and both outputs.
    ///
    /// # Panics
    /// It cannot be started or hangs.
    #[must_use]
    pub fn run(&self) -> Finished {
        // Others may run in the same folder at the same time.
        let [out, err] = ["out", "err"].map(|end| self.folder.join(format!("{}.run.{end}", self.name)));
        let mut command = self.command();
        command.stdout(File::create(&out).expect("file")).stderr(File::create(&err).expect("file"));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("own child") {
                break status;
            }
            if start.elapsed() > EXIT_LIMIT {
                let _gone = child.kill();
                panic!("{} {:?} hangs; so far: {}", self.name, self.arguments, lossy(&err));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Finished { status, stdout: lossy(&out), stderr: lossy(&err) }
    }
}

/// A process that ran to its end.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output of a success.
    ///
    /// # Panics
    /// It was none.
    #[must_use]
    pub fn success(self) -> String {
        assert!(self.status.success(), "{:?}\n{}\n{}", self.status, self.stdout, self.stderr);
        self.stdout
    }

    /// Asserts a failure by exit code, without panic, whose message holds `needle`.
    ///
    /// # Panics
    /// It was another one.
    pub fn fails_with(&self, needle: &str) {
        let text = format!("{}{}", self.stdout, self.stderr);
        assert!(self.status.code().is_some_and(|c| c != 0), "expected a failure: {self:#?}");
        assert!(text.to_lowercase().contains(&needle.to_lowercase()), "no {needle:?} in {text}");
        assert!(!text.contains("panicked at"), "{text}");
    }
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    spec: Spec,
    /// When it was started.
    pub started: Instant,
}

impl Process {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process alone.
    ///
    /// # Panics
    /// It is not there any more.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("pid"));
        nix::sys::signal::kill(pid, signal).unwrap_or_else(|error| panic!("{}: {error}", self.spec.name));
    }

    /// `kill -9` and reap.
    pub fn kill(mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }

    /// Whether it has ended by itself.
    ///
    /// # Panics
    /// The process table cannot be read.
    #[must_use]
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("own child")
    }

    /// Waits for its end and says how long that took.
    ///
    /// # Panics
    /// It hangs.
    pub fn wait(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let status = until(&format!("exit of {}", self.spec.name), EXIT_LIMIT, || self.ended());
        (status, start.elapsed())
    }

    /// SIGTERM and wait; must end with code 0.
    ///
    /// # Panics
    /// It ends otherwise or hangs.
    pub fn terminate(&mut self) -> Duration {
        self.signal(Signal::SIGTERM);
        let (status, took) = self.wait();
        let name = &self.spec.name;
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{name}: {}", self.log_tail());
        took
    }

    /// Everything it (and its predecessors of the same spec) wrote.
    #[must_use]
    pub fn log(&self) -> String {
        lossy(&self.spec.log())
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let mut from = log.len().saturating_sub(SHOWN);
        while !log.is_char_boundary(from) {
            from += 1;
        }
        log[from..].to_owned()
    }

    /// Resident memory in KiB.
    ///
    /// # Panics
    /// It is not running.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("running");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).map(Pid::from_raw);
        if let (Ok(group), Ok(None)) = (group, self.child.try_wait()) {
            let _already_gone = killpg(group, Signal::SIGKILL);
        }
        let _status = self.child.wait();
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("----- log of {} -----\n{}\n-----", self.spec.name, self.log_tail());
        } else {
            assert!(!log.contains("panicked at"), "{} panicked:\n{}", self.spec.name, self.log_tail());
        }
    }
}

fn lossy(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
