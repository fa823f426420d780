//! Child processes that end with us, and what the system says about them.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Pin;
use crate::failure::Failure;

/// Longest wait for a process to listen or to say something.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a process may take to end by itself.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A process that is ended when this is dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
}

/// On which side of a split a process stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Measured,
    Load,
}

/// The core list of a side, when cores are split.
fn cores(pin: Pin, side: Side) -> Option<&'static str> {
    match (pin, side) {
        (Pin::None, _) => None,
        (Pin::Split, Side::Measured) => Some("0"),
        (Pin::Split, Side::Load) => Some("1"),
    }
}

impl Process {
    /// Starts a program; its output goes to `log`.
    pub(crate) fn start<I: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = I>,
        log: &Path,
        pinned: (Pin, Side),
    ) -> Result<Self, Failure> {
        Self::start_with(name, program, arguments, &[], log, pinned)
    }

    /// Starts a program with more in its environment.
    pub(crate) fn start_with<I: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = I>,
        environment: &[(&str, &str)],
        log: &Path,
        (pin, side): (Pin, Side),
    ) -> Result<Self, Failure> {
        let output = File::create(log).map_err(Failure::setup(log.display().to_string()))?;
        let errors = output.try_clone().map_err(Failure::setup("log"))?;
        let mut command = match cores(pin, side) {
            Some(cores) => {
                let mut command = Command::new("taskset");
                command.args(["-c", cores]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().map_err(Failure::setup(format!("{name} ({})", program.display())))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something listens there.
    pub(crate) fn wait_listening(&mut self, address: SocketAddr) -> Result<(), Failure> {
        self.wait("listening", || TcpStream::connect(address).is_ok().then_some(()))
    }

    /// Polls until there is something, or the process ends, or it takes too
    /// long.
    pub(crate) fn wait<T>(&mut self, what: &str, mut poll: impl FnMut() -> Option<T>) -> Result<T, Failure> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(found) = poll() {
                return Ok(found);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Failure::Setup(format!("{} ended with {status} before {what}", self.name)));
            }
            if Instant::now() >= deadline {
                return Err(Failure::Setup(format!("{}: not {what} after {START_LIMIT:?}", self.name)));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn terminate(&self) {
        // `kill` instead of a library call: it needs no unsafe code and no
        // further dependency.
        let _sent = Command::new("kill").arg(self.child.id().to_string()).stderr(Stdio::null()).status();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.terminate();
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// An address nobody listens on. Another process may take it before we use
/// it; then the start fails and says so.
pub(crate) fn free_address() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(Failure::setup("a free port"))?;
    listener.local_addr().map_err(Failure::setup("a free port"))
}

/// Puts this process on the load side.
pub(crate) fn pin_self(pin: Pin) -> Result<(), Failure> {
    let Some(cores) = cores(pin, Side::Load) else { return Ok(()) };
    let id = std::process::id().to_string();
    let status = Command::new("taskset")
        .args(["-a", "-cp", cores, &id])
        .stdout(Stdio::null())
        .status()
        .map_err(Failure::setup("taskset"))?;
    if status.success() { Ok(()) } else { Err(Failure::Setup("taskset failed".to_owned())) }
}

/// Resident megabytes of a process.
pub(crate) fn resident_megabytes(id: u32) -> Result<f64, Failure> {
    let path = format!("/proc/{id}/status");
    let status = std::fs::read_to_string(&path).map_err(Failure::setup(&path))?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kilobytes.map(|kilobytes| kilobytes / 1024.0).ok_or_else(|| Failure::Setup(format!("{path}: no VmRSS")))
}
