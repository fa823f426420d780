//! The data directory: who may read it, who holds it, and how small files are
//! written into it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::ControlError;

/// How long a predecessor may take to let go.
const LOCK_WAIT: Duration = Duration::from_secs(3);

/// The locked directory; the lock ends with the process, however it ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory (0700) when it is missing and locks it.
    ///
    /// # Errors
    /// Not writable, or held by another control plane.
    pub fn open(path: &Path) -> Result<Self, ControlError> {
        let refused = |source: io::Error| ControlError::DataDirNotWritable { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(refused)?;
        DirBuilder::new().recursive(true).mode(0o700).create(path.join("run")).map_err(refused)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("run").join("control.lock"))
            .map_err(refused)?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path: path.to_owned(), _lock: lock }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(TryLockError::WouldBlock) => return Err(ControlError::DataDirInUse { path: path.to_owned() }),
                Err(TryLockError::Error(source)) => return Err(refused(source)),
            }
        }
    }

    /// A path below it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file that only its owner may read: whole or not at all.
    ///
    /// # Errors
    /// The directory is not writable.
    pub fn write_private(&self, name: &str, content: &[u8]) -> Result<PathBuf, ControlError> {
        let path = self.join(name);
        let temporary = self.join(&format!("{name}.new"));
        let write = || {
            let _ = fs::remove_file(&temporary);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
        };
        write().map_err(|source| ControlError::DataDirNotWritable { path: path.clone(), source })?;
        Ok(path)
    }

    /// The trimmed text of a file, `None` when it does not exist or is empty.
    ///
    /// # Errors
    /// It exists and cannot be read.
    pub fn read_text(&self, name: &str) -> Result<Option<zeroize::Zeroizing<String>>, ControlError> {
        let path = self.join(name);
        match fs::read_to_string(&path).map(zeroize::Zeroizing::new) {
            Ok(text) => {
                let text = zeroize::Zeroizing::new(text.trim().to_owned());
                Ok((!text.is_empty()).then_some(text))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ControlError::DataDirNotWritable { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_by_one() {
        use std::os::unix::fs::PermissionsExt as _;
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("data");
        let held = DataDir::open(&path).expect("opens");
        assert_eq!(fs::metadata(&path).expect("exists").permissions().mode() & 0o777, 0o700);
        assert!(matches!(DataDir::open(&path), Err(ControlError::DataDirInUse { .. })));
        let file = held.write_private("secret", b" text\n").expect("writes");
        assert_eq!(fs::metadata(&file).expect("exists").permissions().mode() & 0o777, 0o600);
        assert_eq!(held.read_text("secret").expect("reads").expect("there").as_str(), "text");
        assert!(held.read_text("absent").expect("reads").is_none());
        drop(held);
        DataDir::open(&path).expect("free again");
    }

    #[test]
    fn a_file_in_its_place_is_refused() {
        let temp = tempfile::NamedTempFile::new().expect("temp file");
        assert!(matches!(DataDir::open(temp.path()), Err(ControlError::DataDirNotWritable { .. })));
    }
}
