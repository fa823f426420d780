//! Processor time per request: the figure that other work on the machine
//! disturbs least.

use std::collections::BTreeMap;

/// Clock ticks of `/proc/PID/stat` per second; fixed for user space on Linux.
const TICKS: f64 = 100.0;

/// Seconds of processor time of a process and its children, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpu(BTreeMap<String, f64>);

impl Cpu {
    /// Reads the named processes now.
    pub(crate) fn read(processes: &[(String, u32)]) -> Self {
        let table = table();
        let seconds = |id: u32| -> f64 {
            table.iter().filter(|line| line.id == id || line.parent == id).map(|line| line.ticks as f64 / TICKS).sum()
        };
        Self(processes.iter().map(|(name, id)| (name.clone(), seconds(*id))).collect())
    }

    /// Seconds of one process so far.
    pub(crate) fn seconds(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    /// Microseconds per request since `earlier`; `requests` says how many a
    /// process had to do with.
    pub(crate) fn per_request(&self, earlier: &Self, requests: impl Fn(&str) -> u64) -> BTreeMap<String, f64> {
        let each = |(name, now): (&String, &f64)| {
            let used = now - earlier.0.get(name).copied().unwrap_or(0.0);
            let count = requests(name);
            (count > 0).then(|| (name.clone(), (used * 1e7 / count as f64).round() / 10.0))
        };
        self.0.iter().filter_map(each).collect()
    }
}

struct Line {
    id: u32,
    parent: u32,
    ticks: u64,
}

/// Every process; one that ends meanwhile is left out.
fn table() -> Vec<Line> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            parse(id, &std::fs::read_to_string(entry.path().join("stat")).ok()?)
        })
        .collect()
}

/// The name in parentheses may contain anything, so fields count from its end.
fn parse(id: u32, stat: &str) -> Option<Line> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let parent = u32::try_from(number(1)?).ok()?;
    Some(Line { id, parent, ticks: number(11)? + number(12)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_name() {
        let line = parse(7, "7 (a) b) S 3 7 7 0 -1 4194304 1 0 0 0 250 50 0 0 20 0").unwrap();
        assert_eq!((line.id, line.parent, line.ticks), (7, 3, 300));
    }

    #[test]
    fn time_is_shared_between_requests() {
        let cpu = |seconds| Cpu(BTreeMap::from([("x".to_owned(), seconds)]));
        assert_eq!(cpu(3.0).per_request(&cpu(1.0), |_| 20_000).get("x"), Some(&100.0));
        assert!(cpu(3.0).per_request(&cpu(1.0), |_| 0).is_empty());
    }
}
