//! What the figures were measured on.

use serde_json::{Value, json};

/// Processor, cores and load, as far as the system tells.
pub(crate) fn describe(pinning: &str) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned());
    let load = read("/proc/loadavg").split(' ').next().and_then(|text| text.parse::<f64>().ok());
    json!({
        "processor": processor,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_before": load,
        "pinning": pinning,
    })
}
