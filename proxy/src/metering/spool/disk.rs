//! The disk and the clock as the spool uses them, and the real ones.
//!
//! Everything the spool knows of the world outside comes through here, so that
//! the same code runs on a disk that fails on purpose ([`super::memory_disk`]).
//! One virtual call beside a system call; nothing is allocated for a write.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use clawgate_shared::clock;

use super::mapped::MappedFile;
use super::tail;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must be there. A log whose writer died is whole again.
    Existing,
    /// As it is, or a new one.
    OrNew,
    /// Empty, whatever was there.
    Empty,
    /// The same; it is going to be written from front to back in small pieces.
    /// Behind them it may be filled with zeros.
    Log,
}

/// Directories and names. Errors are those of the system calls behind them.
pub trait Disk: Debug + Send + Sync {
    /// Makes a directory with its parents; one that is there is no error.
    ///
    /// # Errors
    /// The system's.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in any order.
    ///
    /// # Errors
    /// The system's.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// The system's.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Whether there is a file or a directory of that name.
    fn exists(&self, path: &Path) -> bool;
    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with everything in it.
    ///
    /// # Errors
    /// The system's.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Gives a file or a directory another name; replaces a file of that name.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Bytes that may still be written to the file system a directory is on.
    ///
    /// # Errors
    /// The system's.
    fn free(&self, path: &Path) -> io::Result<u64>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// The system's.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes the lock that is a file of this name, which is made when it is
    /// missing. `None`: another process has it and `wait` is off. It is free
    /// again when what is returned is dropped or the process dies.
    ///
    /// # Errors
    /// The system's.
    fn lock(&self, path: &Path, wait: bool) -> io::Result<Option<Box<dyn DiskLock>>>;
}

/// A lock that is held.
pub trait DiskLock: Debug + Send + Sync {}

/// An open file.
pub trait DiskFile: Debug + Send + Sync {
    /// Reads some bytes from `offset` on; 0 at the end.
    ///
    /// # Errors
    /// The system's.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes the first bytes of `bytes`, and says how many.
    ///
    /// # Errors
    /// The system's.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Cuts it off, or fills it up with zeros.
    ///
    /// # Errors
    /// The system's.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Its length in bytes.
    ///
    /// # Errors
    /// The system's.
    fn length(&self) -> io::Result<u64>;
    /// When it was last written, in unix microseconds.
    ///
    /// # Errors
    /// The system's.
    fn modified(&self) -> io::Result<i64>;
    /// Makes what was written durable. Blocks on the disk.
    ///
    /// # Errors
    /// The system's.
    fn sync_data(&self) -> io::Result<()>;

    /// Writes all of `bytes`. After an error some of them may be there.
    ///
    /// # Errors
    /// The system's; `WriteZero` when it takes no more and does not say why.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match self.write_at(rest, offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fills `bytes` from `offset` on as far as the file goes. A file that
    /// somebody cut is no error: what is missing counts as damaged.
    ///
    /// # Errors
    /// The system's.
    fn read_from(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(free) = bytes.get_mut(filled..).filter(|free| !free.is_empty()) {
            match self.read_at(free, offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// The time. It decides over nothing but the age of the backlog that is shown
/// and the first number of a new spool's epochs.
pub trait Clock: Debug + Send + Sync {
    /// Since any fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// Unix microseconds.
    fn unix_micros(&self) -> i64;
}

/// This machine's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// This machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct RealClock {
    began: Instant,
}

impl Default for RealClock {
    fn default() -> Self {
        Self { began: Instant::now() }
    }
}

impl Clock for RealClock {
    fn monotonic(&self) -> Duration {
        self.began.elapsed()
    }

    fn unix_micros(&self) -> i64 {
        clock::now_micros()
    }
}

impl Disk for RealDisk {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            // A name that is no text is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = open_file(path, mode)?;
        if mode == OpenMode::Log {
            return Ok(Arc::new(MappedFile::new(path, file)));
        }
        if mode == OpenMode::Existing {
            tail::restore(path, &file)?;
        }
        Ok(Arc::new(file))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)?;
        tail::forget(path);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn free(&self, path: &Path) -> io::Result<u64> {
        let system = nix::sys::statvfs::statvfs(path)?;
        if system.blocks() == 0 {
            // It has no size that it knows of.
            return Ok(u64::MAX);
        }
        Ok(system.blocks_available().saturating_mul(system.fragment_size()))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path, wait: bool) -> io::Result<Option<Box<dyn DiskLock>>> {
        let file = open_file(path, OpenMode::OrNew)?;
        if wait {
            file.lock()?;
            return Ok(Some(Box::new(file)));
        }
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn open_file(path: &Path, mode: OpenMode) -> io::Result<File> {
    let (create, truncate) = (mode != OpenMode::Existing, matches!(mode, OpenMode::Empty | OpenMode::Log));
    OpenOptions::new().read(true).write(true).create(create).truncate(truncate).mode(0o600).open(path)
}

impl DiskLock for File {}

impl DiskFile for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        Self::set_len(self, length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn modified(&self) -> io::Result<i64> {
        let since = self.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }
}
