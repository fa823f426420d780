//! Watching this process's memory against the limit it lives under.
//!
//! Counted is what only this process can give back: resident pages without
//! those of files. Pages of files (the spool is mapped) the kernel takes back
//! by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::limits::{Level, Pressure};

/// How often memory is looked at.
const EVERY: Duration = Duration::from_millis(250);
/// The limit itself may change; it is looked up once in so many turns.
const LIMIT_EVERY: u32 = 40;
/// The allocator gives freed memory back to the system some time after it was
/// freed (`MIMALLOC_PURGE_DELAY`), which saves taking it again at once, but only
/// while it frees more: a node that has nothing to do would keep what the last
/// change of its configuration left. So a piece, never touched, is taken and
/// freed once in so many turns; it is just large enough to be freed by itself.
const BREATHE_EVERY: u32 = 4;
const BREATH: usize = 576 << 10;
/// Where control groups are, as seen by a process.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Looks at memory for ever. `configured`: a limit of the operator's, in bytes;
/// the lowest of it, the control groups' and the machine's memory counts.
pub async fn watch_memory(pressure: Arc<Pressure>, configured: Option<u64>) {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| u64::try_from(size).ok()).unwrap_or(4096);
    let mut turns = tokio::time::interval(EVERY);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut limit = 0;
    for turn in 0_u32.. {
        turns.tick().await;
        if turn % BREATHE_EVERY == 0 {
            drop(std::hint::black_box(Vec::<u8>::with_capacity(BREATH)));
        }
        if turn % LIMIT_EVERY == 0 {
            limit = lowest_limit(configured);
        }
        let Some(used) = fs::read_to_string("/proc/self/statm").ok().and_then(|text| own_bytes(&text, page)) else {
            continue;
        };
        match pressure.found(used, limit) {
            Some((_, Level::Calm)) => tracing::info!(used, limit, "memory is no longer short"),
            Some((_, level)) => tracing::warn!(?level, used, limit, "memory is short: load is refused"),
            None => {}
        }
    }
}

/// Resident bytes without those of files, from `/proc/self/statm`.
fn own_bytes(statm: &str, page: u64) -> Option<u64> {
    let mut numbers = statm.split_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, shared) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(resident.saturating_sub(shared).saturating_mul(page))
}

/// The lowest limit there is; 0: none is known.
fn lowest_limit(configured: Option<u64>) -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let files = limit_files(&groups, Path::new(CGROUPS));
    let of_groups = files.iter().filter_map(|path| fs::read_to_string(path).ok()).filter_map(|text| limit(&text));
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    of_groups.chain(machine).chain(configured).min().unwrap_or(0)
}

/// The limit files of this process's groups and all groups above them, both
/// versions of control groups. Inside a container the path may lead nowhere and
/// the container's own group is at the top: so the top is always looked at.
fn limit_files(groups: &str, top: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (base, file) = if controllers.is_empty() {
            (top.to_path_buf(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (top.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let below = base.join(path.trim_start_matches('/'));
        let within = below.ancestors().take_while(|folder| folder.starts_with(&base));
        files.extend(within.map(|folder| folder.join(file)));
    }
    files
}

/// A limit as a control group says it; `None`: it has none.
fn limit(text: &str) -> Option<u64> {
    // Version 1 says "no limit" with a number near the largest.
    text.trim().parse::<u64>().ok().filter(|bytes| *bytes > 0 && *bytes < 1 << 60)
}

/// The machine's memory, from `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_understood() {
        assert_eq!(own_bytes("100 50 20 1 0 30 0\n", 4096), Some(30 * 4096));
        assert_eq!(own_bytes("100 50", 4096), None);
        assert_eq!((limit("max\n"), limit("9223372036854771712\n"), limit("268435456\n")), (None, None, Some(1 << 28)));
        assert_eq!(total("MemFree: 1 kB\nMemTotal:   2048 kB\n"), Some(2 << 20));
    }

    #[test]
    fn groups_and_all_above_them_are_asked() {
        let text = |files: Vec<PathBuf>| files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>();
        assert_eq!(
            text(limit_files("0::/a/b\n", Path::new("/c"))),
            ["/c/a/b/memory.max", "/c/a/memory.max", "/c/memory.max"]
        );
        assert_eq!(
            text(limit_files("5:cpu:/x\n4:memory:/d\n", Path::new("/c"))),
            ["/c/memory/d/memory.limit_in_bytes", "/c/memory/memory.limit_in_bytes"]
        );
    }

    #[test]
    fn this_process_has_memory_and_a_limit() {
        let statm = fs::read_to_string("/proc/self/statm").expect("statm");
        let used = own_bytes(&statm, 4096).expect("numbers");
        assert!(used > 0 && lowest_limit(None) > used);
        assert_eq!(lowest_limit(Some(1)), 1);
    }
}
