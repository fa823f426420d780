//! Keeps a configuration from ending the process again and again.
//!
//! Before a configuration is built it is noted on disk, and struck out once it is
//! built or refused. One that was noted [`MOST`] times and never struck out is
//! refused, by this process and those after it, so that the node goes on with an
//! older one and says why. A panic is no matter of this file: it is a refusal like
//! any other.
//!
//! Deliberately absent: what happens after a configuration is in service, because
//! nobody can tell a death by its fault from one by somebody else's hand, and to
//! refuse a good one is worse. Whoever kills nodes from outside would have to meet
//! the few milliseconds of three activations of one configuration in a row.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use clawgate_shared::proto::node::Version;

const FILE: &str = "trials";
/// So often a configuration may end the process.
const MOST: u32 = 3;
/// Configurations that are remembered.
const REMEMBERED: usize = 16;
/// The notes of a node.
#[derive(Debug)]
pub struct Trials {
    path: PathBuf,
    /// Hash of a configuration and how often it was noted, oldest first.
    noted: Mutex<Vec<(String, u32)>>,
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
        Self { path, noted: Mutex::new(noted.take(REMEMBERED).collect()) }
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, Vec<(String, u32)>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `version` is about to be built.
    ///
    /// # Errors
    /// It has ended the process too often: the reason, for an admin.
    pub fn begin(&self, version: &Version) -> Result<(), String> {
        let mut noted = self.noted();
        let known = noted.iter().find(|(hash, _)| *hash == version.hash);
        let times = known.map_or(0, |(_, times)| *times);
        if times >= MOST {
            return Err(format!(
                "this node ended {times} times while it took this configuration; it does not try again"
            ));
        }
        noted.retain(|(hash, _)| *hash != version.hash);
        if noted.len() >= REMEMBERED {
            noted.remove(0);
        }
        noted.push((version.hash.clone(), times + 1));
        self.write(&noted);
        Ok(())
    }

    /// Strikes it out: it is in service, or refused.
    pub fn end(&self, version: &Version) {
        let mut noted = self.noted();
        noted.retain(|(hash, _)| *hash != version.hash);
        self.write(&noted);
    }

    /// For the death of this process, not of the machine: nothing is synced.
    fn write(&self, noted: &[(String, u32)]) {
        let mut text = format!("{}\n", env!("CARGO_PKG_VERSION"));
        for (hash, times) in noted {
            let _infallible = writeln!(text, "{hash} {times}");
        }
        let next = self.path.with_extension("tmp");
        if let Err(error) = fs::write(&next, text).and_then(|()| fs::rename(&next, &self.path)) {
            tracing::warn!(%error, "which configuration is tried was not noted");
        }
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
            trials.begin(&version("good")).expect("is tried");
            trials.end(&version("good"));
            trials.begin(&version("bad")).expect("is tried");
        }
        let trials = Trials::open(dir.path());
        trials.begin(&version("good")).expect("is tried");
        let reason = trials.begin(&version("bad")).expect_err("is refused");
        assert!(reason.contains("3 times"), "{reason}");
        trials.begin(&version("next")).expect("is tried");
        trials.end(&version("next"));
        assert!(Trials::open(dir.path()).begin(&version("bad")).is_err(), "for good");
        fs::write(dir.path().join(FILE), "0.0.0\nbad 3\n").expect("writes");
        Trials::open(dir.path()).begin(&version("bad")).expect("another release had the fault");
    }

    #[test]
    fn one_that_was_built_is_struck_out_and_no_more_are_remembered_than_some() {
        let dir = tempfile::tempdir().expect("directory");
        for _ in 0..10 {
            let trials = Trials::open(dir.path());
            trials.begin(&version("a")).expect("is tried");
            trials.end(&version("a"));
        }
        let trials = Trials::open(dir.path());
        for number in 0..40 {
            trials.begin(&version(&number.to_string())).expect("is tried");
        }
        assert_eq!(Trials::open(dir.path()).noted().len(), REMEMBERED);
    }
}
