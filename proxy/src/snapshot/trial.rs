//! Keeps a configuration from ending the process again and again.
//!
//! Before a configuration is built it is noted on disk, and struck out once the
//! process has served with it. One that was noted [`MOST`] times and never struck
//! out is refused, by this process and those after it, so that the node goes on
//! with an older one and says why. A panic is no matter of this file: it is a
//! refusal like any other.
//!
//! Deliberately absent: how a predecessor died. Whoever kills nodes from outside
//! would have to meet the few milliseconds of three activations of one
//! configuration in a row.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clawgate_shared::proto::node::Version;

const FILE: &str = "trials";
/// So often a configuration may end the process.
const MOST: u32 = 3;
/// Configurations that are remembered.
const REMEMBERED: usize = 16;
/// A process that lived so long with a configuration has served with it, should
/// nobody have asked for anything.
pub const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// The notes of a node.
#[derive(Debug)]
pub struct Trials {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Hash of a configuration and how often it was noted, oldest first.
    noted: Vec<(String, u32)>,
    /// What was activated last, and has not served yet.
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    hash: String,
    since: Instant,
    /// Exchanges that had ended before.
    ended: u64,
}

impl Trials {
    /// Reads the notes in `dir`. What another release noted does not count: it may
    /// have had the fault.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        let path = dir.join(FILE);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut lines = text.lines();
        let ours = lines.next() == Some(env!("CARGO_PKG_VERSION"));
        let noted = lines.filter(|_| ours).filter_map(|line| {
            let (hash, times) = line.split_once(' ')?;
            Some((hash.to_owned(), times.parse().ok()?))
        });
        Self { path, inner: Mutex::new(Inner { noted: noted.take(REMEMBERED).collect(), running: None }) }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `version` is about to be built; `ended`: exchanges that have
    /// ended so far.
    ///
    /// # Errors
    /// It has ended the process too often: the reason, for an admin.
    pub fn begin(&self, version: &Version, ended: u64) -> Result<(), String> {
        let mut inner = self.inner();
        if let Some(running) = inner.running.take() {
            inner.strike(&running.hash);
        }
        let hash = version.hash.as_str();
        let times = inner.noted.iter().find(|(known, _)| known == hash).map_or(0, |(_, times)| *times);
        if times >= MOST {
            return Err(format!(
                "this node ended {times} times while it took this configuration; it does not try again"
            ));
        }
        inner.strike(hash);
        if inner.noted.len() >= REMEMBERED {
            inner.noted.remove(0);
        }
        inner.noted.push((hash.to_owned(), times + 1));
        inner.running = Some(Running { hash: hash.to_owned(), since: Instant::now(), ended });
        self.write(&inner);
        Ok(())
    }

    /// Strikes out what has served: an exchange has ended since, or it was long
    /// enough. Whether something is still on trial.
    pub fn look(&self, ended: u64) -> bool {
        let mut inner = self.inner();
        let served = |running: &mut Running| ended > running.ended || running.since.elapsed() >= LONG_ENOUGH;
        if let Some(running) = inner.running.take_if(served) {
            inner.strike(&running.hash);
            self.write(&inner);
        }
        inner.running.is_some()
    }

    /// The process ends as it should, or refused what was on trial.
    pub fn end(&self) {
        let mut inner = self.inner();
        if let Some(running) = inner.running.take() {
            inner.strike(&running.hash);
            self.write(&inner);
        }
    }

    /// For the death of this process, not of the machine: nothing is synced.
    fn write(&self, inner: &Inner) {
        let mut text = format!("{}\n", env!("CARGO_PKG_VERSION"));
        for (hash, times) in &inner.noted {
            let _infallible = writeln!(text, "{hash} {times}");
        }
        let next = self.path.with_extension("tmp");
        if let Err(error) = fs::write(&next, text).and_then(|()| fs::rename(&next, &self.path)) {
            tracing::warn!(%error, "which configuration is tried was not noted");
        }
    }
}

impl Inner {
    fn strike(&mut self, hash: &str) {
        self.noted.retain(|(known, _)| known != hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(hash: &str) -> Version {
        Version { hash: hash.to_owned(), ..Version::default() }
    }

    #[test]
    fn a_configuration_that_ends_the_process_three_times_is_refused_and_others_are_not() {
        let dir = tempfile::tempdir().expect("directory");
        for _ in 0..3 {
            // The older one is served first, as at every start.
            let trials = Trials::open(dir.path());
            trials.begin(&version("good"), 0).expect("is tried");
            assert!(!trials.look(1), "it served");
            trials.begin(&version("bad"), 1).expect("is tried");
        }
        let trials = Trials::open(dir.path());
        trials.begin(&version("good"), 0).expect("is tried");
        let reason = trials.begin(&version("bad"), 0).expect_err("is refused");
        assert!(reason.contains("3 times"), "{reason}");
        trials.begin(&version("next"), 0).expect("is tried");
        trials.end();
        assert!(Trials::open(dir.path()).begin(&version("bad"), 0).is_err(), "for good");
        fs::write(dir.path().join(FILE), "0.0.0\nbad 3\n").expect("writes");
        Trials::open(dir.path()).begin(&version("bad"), 0).expect("another release had the fault");
    }

    #[test]
    fn one_that_serves_or_is_followed_is_struck_out() {
        let dir = tempfile::tempdir().expect("directory");
        for _ in 0..10 {
            let trials = Trials::open(dir.path());
            trials.begin(&version("a"), 7).expect("is tried");
            assert!(trials.look(7), "nothing ended yet");
            trials.begin(&version("b"), 7).expect("is tried");
            assert!(!trials.look(8));
        }
        let trials = Trials::open(dir.path());
        for number in 0..40 {
            trials.begin(&version(&number.to_string()), 0).expect("is tried");
        }
        assert!(Trials::open(dir.path()).inner().noted.len() <= REMEMBERED);
    }
}
