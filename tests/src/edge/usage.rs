//! What a process takes, as the kernel says it.

use std::fs;
use std::time::Duration;

/// Resident bytes of a process.
///
/// # Panics
/// It is gone.
#[must_use]
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

/// Processor time a process has used so far.
///
/// # Panics
/// It is gone.
#[must_use]
pub fn processor(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Lets this process open as many files as it may.
///
/// # Panics
/// The system does not say how many those are.
pub fn many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
}

/// The value of a metric line that begins with `name`; 0 when there is none.
#[must_use]
pub fn metric(admin: std::net::SocketAddr, name: &str) -> f64 {
    let text = crate::http::call(admin, &crate::http::Request::new("GET", "/metrics")).text();
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|n| n.parse().ok()).unwrap_or(0.0)
}
