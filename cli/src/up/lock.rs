//! Who holds the data directory.
//!
//! A lock ends with the process that holds it, however that one ends, so a
//! stale lock cannot exist.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::files::DataDir;

/// How long a new process waits for its predecessor to let go.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub(crate) struct Held(File);

/// Takes the supervisor's lock and waits until no node of an earlier
/// supervisor is left, both within `wait`.
///
/// # Errors
/// Another supervisor or node has the directory.
pub(crate) fn supervisor(data: &DataDir, wait: Duration) -> Result<Held, Failure> {
    let deadline = Instant::now() + wait;
    let held = exclusive(&data.run_file("up.lock"), deadline, data)?;
    exclusive(&data.run_file("proxy.lock"), deadline, data).map(drop)?;
    Ok(held)
}

/// Takes a node's lock: alone, or beside its predecessor when it takes over
/// the listeners from it.
///
/// # Errors
/// Another node has the directory.
pub(crate) fn node(data: &DataDir, upgrade: bool, wait: Duration) -> Result<Held, Failure> {
    let path = data.run_file("proxy.lock");
    let held = if upgrade { Held(open(&path)?) } else { exclusive(&path, Instant::now() + wait, data)? };
    held.0.try_lock_shared().map_err(|e| match e {
        TryLockError::WouldBlock => in_use(data),
        TryLockError::Error(e) => Failure::failed(&format!("locking {}", path.display()), e),
    })?;
    Ok(held)
}

fn exclusive(path: &Path, deadline: Instant, data: &DataDir) -> Result<Held, Failure> {
    let file = open(path)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Held(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(POLL),
            Err(TryLockError::WouldBlock) => return Err(in_use(data)),
            Err(TryLockError::Error(e)) => return Err(Failure::failed(&format!("locking {}", path.display()), e)),
        }
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| Failure::failed(&format!("opening {}", path.display()), e))
}

fn in_use(data: &DataDir) -> Failure {
    Failure::Failed(format!(
        "data directory {} is in use by another clawgate: stop it, or choose another with --data-dir (data_dir_in_use)",
        data.path().display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_supervisor_and_an_upgrade_has_two_nodes() {
        let root = tempfile::tempdir().expect("temporary directory");
        let data = DataDir::at(root.path().to_path_buf());
        data.prepare().expect("prepared");
        let now = Duration::ZERO;
        let first = supervisor(&data, now).expect("free");
        assert!(supervisor(&data, now).is_err());
        let old = node(&data, false, now).expect("a child's lock");
        assert!(node(&data, false, now).is_err());
        let new = node(&data, true, now).expect("beside its predecessor");
        drop((first, old));
        assert!(supervisor(&data, now).is_err(), "a node is left");
        drop(new);
        assert!(supervisor(&data, now).is_ok());
    }
}
