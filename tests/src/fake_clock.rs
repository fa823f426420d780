//! A wall clock for child processes that a test sets while they run.
//!
//! The library `libfaketime` reads how far the clock is off from a file, at every
//! look at the clock. The monotonic clocks are left alone: so it is with a clock
//! that is set on a real machine.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};

use clawgate_shared::clock;
use tempfile::TempDir;

use crate::config::missing;
use crate::stack::Service;

/// One clock, shared by everything started with [`FakeClock::wear`].
#[derive(Debug)]
pub struct FakeClock {
    library: PathBuf,
    folder: TempDir,
    ahead: AtomicI64,
}

impl FakeClock {
    /// One that shows `micros` now and runs from there; `None`, said aloud, where
    /// the library is not installed.
    ///
    /// # Panics
    /// There is no place for its file.
    #[must_use]
    pub fn showing(micros: i64) -> Option<Self> {
        let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let places = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
        let Some(library) = places.into_iter().find(|path| path.is_file()) else {
            missing("libfaketime (.ci/needs test)");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("clock-").tempdir().expect("a temporary folder");
        let clock = Self { library, folder, ahead: AtomicI64::new(0) };
        clock.set(micros);
        Some(clock)
    }

    /// Sets it, as an administrator would: by one step.
    ///
    /// # Panics
    /// Its file cannot be written.
    pub fn set(&self, micros: i64) {
        let ahead = micros - clock::now_micros();
        self.ahead.store(ahead, Ordering::Relaxed);
        let sign = if ahead < 0 { '-' } else { '+' };
        let (seconds, rest) = (ahead.abs() / 1_000_000, ahead.abs() % 1_000_000);
        let new = self.file().with_extension("new");
        std::fs::write(&new, format!("{sign}{seconds}.{rest:06}\n")).expect("written");
        std::fs::rename(&new, self.file()).expect("renamed");
    }

    /// Moves it on, or back.
    pub fn step(&self, micros: i64) {
        self.set(self.now() + micros);
    }

    /// What it shows.
    #[must_use]
    pub fn now(&self) -> i64 {
        clock::now_micros() + self.ahead.load(Ordering::Relaxed)
    }

    /// Gives it to a process that is yet to be started.
    pub fn wear(&self, service: &mut Service) {
        let values = [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        service.spec.environment.extend(values.map(|(name, value)| (name.to_owned(), value)));
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ahead")
    }
}
