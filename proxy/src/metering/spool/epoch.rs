//! Epoch directories: numbered, each locked by the one process that may write
//! or ship it. Taking a number and taking a lock happen under the lock of the
//! whole spool, so that nobody takes over a directory that is just being made.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clawgate_shared::clock;

use super::SpoolError;

const EPOCHS: &str = "epochs";
const LAST: &str = "epoch";
const LOCK: &str = "lock";
/// Extension of a directory that is being removed.
const DONE: &str = "done";

/// One epoch's directory; the lock is released when this is dropped.
#[derive(Debug)]
pub(super) struct EpochDir {
    number: u64,
    path: PathBuf,
    _lock: File,
}

impl EpochDir {
    /// A new epoch, its number on disk before this returns.
    pub(super) fn create(root: &Path) -> Result<Self, SpoolError> {
        let epochs = root.join(EPOCHS);
        make_dir(&epochs).map_err(SpoolError::io("make the directory"))?;
        let _whole = lock_whole(root)?;
        sweep(&epochs);
        let number = next_number(root)?;
        store_number(root, number).map_err(SpoolError::io("store the epoch number"))?;
        let path = epochs.join(number.to_string());
        make_dir(&path).map_err(SpoolError::io("make the epoch's directory"))?;
        let lock = open_lock(&path).map_err(SpoolError::io("make the epoch's lock"))?;
        lock.try_lock().map_err(|e| SpoolError::io("lock the new epoch")(e.into()))?;
        sync_dir(&epochs).map_err(SpoolError::io("sync the directory"))?;
        Ok(Self { number, path, _lock: lock })
    }

    /// An existing epoch, when no living process holds it.
    pub(super) fn take(root: &Path, number: u64) -> Result<Option<Self>, SpoolError> {
        let _whole = lock_whole(root)?;
        let path = root.join(EPOCHS).join(number.to_string());
        let lock = match open_lock(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SpoolError::io("open an epoch's lock")(error)),
        };
        match lock.try_lock() {
            Ok(()) if path.is_dir() => Ok(Some(Self { number, path, _lock: lock })),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(SpoolError::io("lock an epoch")(error)),
        }
    }

    /// The numbers of all epochs, oldest first.
    pub(super) fn list(root: &Path) -> Result<Vec<u64>, SpoolError> {
        let list = || -> io::Result<Vec<u64>> {
            let mut numbers = Vec::new();
            for entry in fs::read_dir(root.join(EPOCHS))? {
                numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
            }
            numbers.sort_unstable();
            Ok(numbers)
        };
        list().map_err(SpoolError::io("list the epochs"))
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes new files in it durable.
    pub(super) fn sync(&self) -> Result<(), SpoolError> {
        sync_dir(&self.path).map_err(SpoolError::io("sync the epoch's directory"))
    }

    /// Removes it with everything in it. It loses its name first: half an
    /// epoch is never found.
    pub(super) fn remove(&self) -> Result<(), SpoolError> {
        let gone = self.path.with_extension(DONE);
        if self.path.exists() {
            fs::rename(&self.path, &gone).map_err(SpoolError::io("retire an epoch"))?;
        }
        fs::remove_dir_all(&gone).map_err(SpoolError::io("remove an epoch"))
    }
}

fn lock_whole(root: &Path) -> Result<File, SpoolError> {
    let lock = open_lock(root).map_err(SpoolError::io("open the spool's lock"))?;
    lock.lock().map_err(SpoolError::io("lock the spool"))?;
    Ok(lock)
}

fn open_lock(dir: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(dir.join(LOCK))
}

/// One more than any number seen, and more than the time in seconds, so that a
/// node whose spool was wiped, or put back to an earlier state, does not use its
/// old numbers again: the control plane would take the records for known ones.
fn next_number(root: &Path) -> Result<u64, SpoolError> {
    let stored = match fs::read_to_string(root.join(LAST)) {
        Ok(text) => text.trim().parse::<u64>().ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(SpoolError::io("read the epoch number")(error)),
    };
    let listed = EpochDir::list(root)?.last().copied();
    let now = u64::try_from(clock::now_micros() / 1_000_000).ok();
    Ok(stored.max(listed).max(now).unwrap_or(0).saturating_add(1))
}

fn store_number(root: &Path, number: u64) -> io::Result<()> {
    let next = root.join("epoch.tmp");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&next)?;
    file.write_all(number.to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(&next, root.join(LAST))?;
    sync_dir(root)
}

/// Removes what a process that died while removing left behind.
fn sweep(epochs: &Path) {
    let Ok(entries) = fs::read_dir(epochs) else { return };
    for entry in entries.flatten().filter(|entry| entry.path().extension().is_some_and(|end| end == DONE)) {
        if let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!(%error, "a retired usage epoch was not removed");
        }
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes names in a directory durable.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_up_and_a_live_epoch_is_not_taken() {
        let root = tempfile::tempdir().expect("temporary directory");
        let first = EpochDir::create(root.path()).expect("creates");
        let second = EpochDir::create(root.path()).expect("creates");
        assert_eq!(second.number(), first.number() + 1);
        assert!(EpochDir::take(root.path(), first.number()).expect("looks").is_none());
        let number = first.number();
        drop(first);
        let taken = EpochDir::take(root.path(), number).expect("looks").expect("is free");
        taken.remove().expect("removes");
        assert_eq!(EpochDir::list(root.path()).expect("lists"), [second.number()]);
        assert!(EpochDir::take(root.path(), number).expect("looks").is_none());
    }

    #[test]
    fn a_spool_that_was_put_back_does_not_repeat_its_numbers() {
        let root = tempfile::tempdir().expect("temporary directory");
        let long_ago = 1_600_000_000;
        store_number(root.path(), long_ago).expect("stores");
        let epoch = EpochDir::create(root.path()).expect("creates");
        assert!(epoch.number() > 1_700_000_000, "{}", epoch.number());
    }

    #[test]
    fn a_number_is_never_used_twice_even_when_the_last_directory_is_gone() {
        let root = tempfile::tempdir().expect("temporary directory");
        let first = EpochDir::create(root.path()).expect("creates");
        first.remove().expect("removes");
        let second = EpochDir::create(root.path()).expect("creates");
        assert!(second.number() > first.number());
    }
}
