//! Epoch directories: numbered, each locked by the one process that may write
//! or ship it. Taking a number and taking a lock happen under the lock of the
//! whole spool, so that nobody takes over a directory that is just being made.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Clock, Disk, DiskLock, OpenMode};
use super::{Shared, SpoolError};

const EPOCHS: &str = "epochs";
const LAST: &str = "epoch";
const LOCK: &str = "lock";
/// Extension of a directory that is being removed.
const DONE: &str = "done";
/// No number is so large; a file or a directory that says so is not believed,
/// because there would be no room above it.
const MAX_NUMBER: u64 = 1 << 62;
/// Longer than any number in the file of the last one.
const MAX_TEXT: usize = 32;

/// One epoch's directory; the lock is released when this is dropped.
#[derive(Debug)]
pub(super) struct EpochDir {
    number: u64,
    path: PathBuf,
    _lock: Box<dyn DiskLock>,
}

impl EpochDir {
    /// A new epoch, its number on disk before this returns.
    pub(super) fn create(on: &Shared, root: &Path) -> Result<Self, SpoolError> {
        let disk = &*on.disk;
        let epochs = root.join(EPOCHS);
        disk.make_dir(&epochs).map_err(SpoolError::io("make the directory"))?;
        // The spool's own name too: a power failure must not take it whole.
        let above = root.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if let Err(error) = disk.sync_dir(above) {
            tracing::warn!(%error, "the directory above the usage spool was not synced");
        }
        let _whole = lock_whole(disk, root)?;
        sweep(disk, &epochs);
        let number = next_number(disk, &*on.clock, root)?;
        store_number(disk, root, number).map_err(SpoolError::io("store the epoch number"))?;
        let path = epochs.join(number.to_string());
        disk.make_dir(&path).map_err(SpoolError::io("make the epoch's directory"))?;
        let lock = disk.lock(&path.join(LOCK), false).map_err(SpoolError::io("lock the new epoch"))?;
        let lock = lock.ok_or_else(|| SpoolError::io("lock the new epoch")(io::ErrorKind::WouldBlock.into()))?;
        disk.sync_dir(&epochs).map_err(SpoolError::io("sync the directory"))?;
        Ok(Self { number, path, _lock: lock })
    }

    /// An existing epoch, when no living process holds it.
    pub(super) fn take(disk: &dyn Disk, root: &Path, number: u64) -> Result<Option<Self>, SpoolError> {
        let _whole = lock_whole(disk, root)?;
        let path = root.join(EPOCHS).join(number.to_string());
        match disk.lock(&path.join(LOCK), false) {
            Ok(Some(lock)) if disk.exists(&path) => Ok(Some(Self { number, path, _lock: lock })),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SpoolError::io("lock an epoch")(error)),
        }
    }

    /// The numbers of all epochs, oldest first.
    pub(super) fn list(disk: &dyn Disk, root: &Path) -> Result<Vec<u64>, SpoolError> {
        let names = disk.list(&root.join(EPOCHS)).map_err(SpoolError::io("list the epochs"))?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes new files in it durable.
    pub(super) fn sync(&self, disk: &dyn Disk) -> Result<(), SpoolError> {
        disk.sync_dir(&self.path).map_err(SpoolError::io("sync the epoch's directory"))
    }

    /// Removes it with everything in it. It loses its name first: half an
    /// epoch is never found.
    pub(super) fn remove(&self, disk: &dyn Disk) -> Result<(), SpoolError> {
        let gone = self.path.with_extension(DONE);
        if disk.exists(&self.path) {
            disk.rename(&self.path, &gone).map_err(SpoolError::io("retire an epoch"))?;
        }
        disk.remove_dir(&gone).map_err(SpoolError::io("remove an epoch"))
    }
}

fn lock_whole(disk: &dyn Disk, root: &Path) -> Result<Option<Box<dyn DiskLock>>, SpoolError> {
    disk.lock(&root.join(LOCK), true).map_err(SpoolError::io("lock the spool"))
}

/// One more than any number seen, and more than the time in seconds, so that a
/// node whose spool was wiped, or put back to an earlier state, does not use its
/// old numbers again: the control plane would take the records for known ones.
fn next_number(disk: &dyn Disk, clock: &dyn Clock, root: &Path) -> Result<u64, SpoolError> {
    let stored = stored_number(disk, root).map_err(SpoolError::io("read the epoch number"))?;
    let listed = EpochDir::list(disk, root)?.into_iter().rfind(|number| *number < MAX_NUMBER);
    let now = u64::try_from(clock.unix_micros() / 1_000_000).ok();
    Ok(stored.max(listed).max(now).unwrap_or(0).saturating_add(1))
}

/// The last number that was given out, unless the file is missing or damaged.
fn stored_number(disk: &dyn Disk, root: &Path) -> io::Result<Option<u64>> {
    let file = match disk.open(&root.join(LAST), OpenMode::Existing) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; MAX_TEXT];
    let filled = file.read_from(&mut bytes, 0)?;
    let text = bytes.get(..filled).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let number = text.and_then(|text| text.trim().parse::<u64>().ok()).filter(|number| *number < MAX_NUMBER);
    if number.is_none() {
        tracing::warn!("the number of the last usage epoch is damaged; the clock gives the next one");
    }
    Ok(number)
}

fn store_number(disk: &dyn Disk, root: &Path, number: u64) -> io::Result<()> {
    let next = root.join("epoch.tmp");
    let file = disk.open(&next, OpenMode::Empty)?;
    file.write_all_at(number.to_string().as_bytes(), 0)?;
    file.sync_data()?;
    disk.rename(&next, &root.join(LAST))?;
    disk.sync_dir(root)
}

/// Removes what a process that died while removing left behind.
fn sweep(disk: &dyn Disk, epochs: &Path) {
    let Ok(names) = disk.list(epochs) else { return };
    for path in names.iter().map(|name| epochs.join(name)) {
        if path.extension().is_some_and(|end| end == DONE)
            && let Err(error) = disk.remove_dir(&path)
        {
            tracing::warn!(%error, "a retired usage epoch was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::memory_disk::{MemoryDisk, Survival};
    use super::*;

    const ROOT: &str = "/spool";

    fn shared() -> (Shared, &'static Path) {
        let disk = Arc::new(MemoryDisk::new(1));
        (Shared::new(disk.clone(), disk, Path::new(ROOT), 1 << 20), Path::new(ROOT))
    }

    fn create(on: &Shared) -> EpochDir {
        EpochDir::create(on, Path::new(ROOT)).expect("creates")
    }

    #[test]
    fn numbers_go_up_and_a_live_epoch_is_not_taken() {
        let (on, root) = shared();
        let (first, second) = (create(&on), create(&on));
        assert_eq!(second.number(), first.number() + 1);
        assert!(EpochDir::take(&*on.disk, root, first.number()).expect("looks").is_none());
        let number = first.number();
        drop(first);
        let taken = EpochDir::take(&*on.disk, root, number).expect("looks").expect("is free");
        taken.remove(&*on.disk).expect("removes");
        assert_eq!(EpochDir::list(&*on.disk, root).expect("lists"), [second.number()]);
        assert!(EpochDir::take(&*on.disk, root, number).expect("looks").is_none());
    }

    #[test]
    fn a_spool_that_was_put_back_does_not_repeat_its_numbers() {
        let (on, root) = shared();
        on.disk.make_dir(root).expect("makes");
        store_number(&*on.disk, root, 1_600_000_000).expect("stores");
        let now = u64::try_from(on.clock.unix_micros() / 1_000_000).expect("fits");
        assert_eq!(create(&on).number(), now + 1);
    }

    #[test]
    fn a_number_is_never_used_twice_even_when_the_last_directory_is_gone() {
        let (on, _) = shared();
        let first = create(&on);
        first.remove(&*on.disk).expect("removes");
        assert!(create(&on).number() > first.number());
    }

    #[test]
    fn a_spool_that_was_just_made_outlives_the_power() {
        let disk = MemoryDisk::new(1);
        let on = Shared::new(Arc::new(disk.process()), Arc::new(disk.clone()), Path::new(ROOT), 1 << 30);
        let epoch = create(&on);
        epoch.sync(&*on.disk).expect("syncs");
        disk.power_cut(Survival::Synced);
        let after = disk.process();
        assert_eq!(EpochDir::list(&after, Path::new(ROOT)).expect("lists"), [epoch.number()]);
    }

    #[test]
    fn a_damaged_number_stops_nobody_and_is_not_believed() {
        let (on, root) = shared();
        let last = create(&on).number();
        for bytes in [&b"\xff\xfe"[..], b"", b"-3", b"18446744073709551615", b"9223372036854775807", &[b'1'; 99]] {
            let file = on.disk.open(&root.join(LAST), OpenMode::Empty).expect("opens");
            file.write_all_at(bytes, 0).expect("writes");
            let number = create(&on).number();
            assert!(number > last && number < last + 99, "{number} after {bytes:?}");
        }
    }
}
