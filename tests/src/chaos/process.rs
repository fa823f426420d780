//! Processes that stand still, and processes that die at a chosen moment.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::Process;
use crate::stack::Service;
use crate::wait::until;

/// A process that stands still (SIGSTOP): its sockets are open and nobody
/// answers. Goes on when this is dropped.
#[derive(Debug)]
pub struct Frozen {
    pid: Pid,
}

impl Frozen {
    /// Stops a process and waits until it stands.
    ///
    /// # Panics
    /// It is not there, or does not stop.
    #[must_use]
    pub fn new(process: &Process) -> Self {
        process.signal(Signal::SIGSTOP);
        let pid = process.id();
        until("the process to stand still", Duration::from_secs(5), || (state(pid) == Some('T')).then_some(()));
        Self { pid: Pid::from_raw(i32::try_from(pid).expect("pid")) }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _gone = kill(self.pid, Signal::SIGCONT);
    }
}

/// The letter of a process's state, as `ps` shows it.
#[must_use]
pub fn state(pid: u32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}

/// `kill -9` and a new start, `times` times; `moment` returns when the next one
/// is due.
///
/// # Panics
/// The service does not come back.
pub fn kill_under_load(service: &mut Service, times: usize, mut moment: impl FnMut(usize)) {
    for number in 0..times {
        moment(number);
        service.kill();
        service.start();
    }
}
