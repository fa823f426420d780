//! A log file whose end is in memory ([`super::tail`]) until it is synced.
//!
//! Used only where that memory does not vanish under us: on file systems that
//! keep what was reserved for a file ([`KEEPS_ITS_WORD`]). Everywhere else, when
//! no more can be reserved, and once a sync has failed, it is written by system
//! calls like any other file.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::statfs::{EXT4_SUPER_MAGIC, FsType, TMPFS_MAGIC, fstatfs};

use super::disk::DiskFile;
use super::tail::{HALF, Tail};

/// Its end is taken into memory once it has grown to this: making room for that
/// costs more than it saves for a log that stays small.
const WORTH_IT: u64 = 64 << 10;
/// Writing to reserved space cannot fail here for want of space. Others copy on
/// write (XFS a file that a backup shares with it), and would end the process
/// with a signal when their disk is full.
const KEEPS_ITS_WORD: [FsType; 2] = [EXT4_SUPER_MAGIC, TMPFS_MAGIC];

/// The file; its length is what was written, wherever that is.
#[derive(Debug)]
pub(super) struct MappedFile {
    path: PathBuf,
    file: File,
    tail: Mutex<Option<Tail>>,
    /// What is on its way from memory into the file; held while it is.
    moving: Mutex<Vec<u8>>,
    /// Nothing more goes by way of memory.
    plain: AtomicBool,
}

impl MappedFile {
    /// `file` is open for reading and writing.
    pub(super) fn new(path: &Path, file: File) -> Self {
        let suits = fstatfs(&file).is_ok_and(|on| KEEPS_ITS_WORD.contains(&on.filesystem_type()));
        Self {
            path: path.to_owned(),
            file,
            tail: Mutex::new(None),
            moving: Mutex::default(),
            plain: AtomicBool::new(!suits),
        }
    }

    fn tail(&self) -> MutexGuard<'_, Option<Tail>> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether memory took it.
    fn append(&self, bytes: &[u8], offset: u64) -> io::Result<bool> {
        let mut guard = self.tail();
        let wanted = offset >= WORTH_IT && bytes.len() <= HALF && !self.plain.load(Ordering::Relaxed);
        let fits = wanted && guard.as_ref().is_none_or(|tail| tail.end() == offset);
        if !fits {
            // Bytes behind the end of what is in memory never come before it.
            if offset >= WORTH_IT {
                self.end_tail(&mut guard)?;
            }
            return Ok(false);
        }
        if guard.is_none() {
            match Tail::create(&self.path, &self.file, offset) {
                Ok(tail) => *guard = Some(tail),
                Err(error) => {
                    tracing::debug!(%error, "the end of a usage segment is not kept in memory");
                    self.plain.store(true, Ordering::Relaxed);
                    return Ok(false);
                }
            }
        }
        let Some(tail) = guard.as_mut() else { return Ok(false) };
        if let Err(error) = tail.append(&self.file, bytes) {
            tracing::debug!(%error, "a usage segment is written without memory from now on");
            self.plain.store(true, Ordering::Relaxed);
            // The small file stays until the log goes: a disk that is full has no
            // room all of a sudden because it is.
            self.empty_tail(&mut guard)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Moves everything into the file and lets go of the memory and the file
    /// behind it.
    fn end_tail(&self, guard: &mut Option<Tail>) -> io::Result<()> {
        self.empty_tail(guard)?.into_iter().for_each(Tail::remove);
        Ok(())
    }

    /// Moves everything into the file and lets go of the memory.
    fn empty_tail(&self, guard: &mut Option<Tail>) -> io::Result<Option<Tail>> {
        let Some(tail) = guard.as_ref() else { return Ok(None) };
        let mut bytes = Vec::new();
        let at = tail.take(&mut bytes);
        std::os::unix::fs::FileExt::write_all_at(&self.file, &bytes, at)?;
        Ok(guard.take())
    }

    /// Moves into the file what is in memory now. Appends go on meanwhile.
    fn flush(&self) -> io::Result<()> {
        let mut moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        moving.clear();
        let Some(at) = self.tail().as_ref().map(|tail| tail.take(&mut moving)) else { return Ok(()) };
        std::os::unix::fs::FileExt::write_all_at(&self.file, &moving, at)?;
        if let Some(tail) = self.tail().as_mut() {
            tail.done(at + moving.len() as u64);
        }
        Ok(())
    }
}

impl DiskFile for MappedFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut limit = bytes.len();
        if let Some(tail) = self.tail().as_ref() {
            let before = tail.done_until().saturating_sub(offset);
            if before == 0 {
                return Ok(tail.read(bytes, offset));
            }
            limit = limit.min(usize::try_from(before).unwrap_or(usize::MAX));
        }
        DiskFile::read_at(&self.file, bytes.get_mut(..limit).unwrap_or_default(), offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if self.append(bytes, offset)? { Ok(bytes.len()) } else { DiskFile::write_at(&self.file, bytes, offset) }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.end_tail(&mut self.tail())?;
        File::set_len(&self.file, length)
    }

    fn length(&self) -> io::Result<u64> {
        let end = self.tail().as_ref().map(Tail::end);
        end.map_or_else(|| self.file.length(), Ok)
    }

    fn modified(&self) -> io::Result<i64> {
        self.file.modified()
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.flush().and_then(|()| File::sync_data(&self.file));
        if synced.is_err() {
            // What follows is told at once whether the disk takes it.
            self.plain.store(true, Ordering::Relaxed);
        }
        synced
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::disk::{Disk as _, OpenMode, RealDisk};
    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf, MappedFile) {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("0000-00000000000000000000.seg");
        let file = File::options().create_new(true).read(true).write(true).open(&path).expect("opens");
        let mapped = MappedFile::new(&path, file);
        (dir, path, mapped)
    }

    fn read(file: &dyn DiskFile, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let filled = file.read_from(&mut bytes, offset).expect("reads");
        bytes.truncate(filled);
        bytes
    }

    /// What a successor finds.
    fn found(path: &Path) -> Vec<u8> {
        let file = RealDisk.open(path, OpenMode::Existing).expect("opens");
        read(&*file, 0, usize::try_from(file.length().expect("length")).expect("fits"))
    }

    fn piece(round: u32, length: usize) -> Vec<u8> {
        (0..length).map(|at| (round as usize + at) as u8).collect()
    }

    #[test]
    fn what_is_written_is_read_back_over_many_halves() {
        let (_dir, path, file) = file();
        let suits = !file.plain.load(Ordering::Relaxed);
        let mut truth = Vec::new();
        for round in 0..6000_u32 {
            let piece = piece(round, round as usize % 700 + 1);
            file.write_all_at(&piece, truth.len() as u64).expect("writes");
            truth.extend_from_slice(&piece);
            if round % 500 == 77 {
                file.sync_data().expect("syncs");
            }
        }
        assert_eq!(read(&file, 0, truth.len() + 1), truth);
        assert_eq!(file.length().expect("length"), truth.len() as u64);
        assert_eq!(file.tail().is_some(), suits, "in memory where it may be");
        file.set_len(truth.len() as u64).expect("cuts");
        file.write_all_at(b"more", truth.len() as u64).expect("writes behind a cut");
        assert_eq!(read(&file, truth.len() as u64, 9), b"more");
        drop(file);
        truth.extend_from_slice(b"more");
        assert_eq!(&found(&path)[..truth.len()], truth);
        assert!(!super::super::tail::path_of(&path).exists(), "the end is in the log");
        assert_eq!(&found(&path)[..truth.len()], truth, "found again");
    }

    #[test]
    fn what_is_larger_than_a_half_is_written_all_the_same() {
        let (_dir, path, file) = file();
        let large = vec![7; HALF + 5];
        let mut at = WORTH_IT + 3;
        for piece in [b"first".as_slice(), &large, b"last"] {
            file.write_all_at(piece, at).expect("writes");
            assert!(read(&file, at, piece.len()) == piece);
            at += piece.len() as u64;
        }
        drop(file);
        assert_eq!(&found(&path)[usize::try_from(at).expect("fits") - 4..][..4], b"last");
    }

    #[test]
    fn an_end_of_another_boot_is_not_believed() {
        let (_dir, path, file) = file();
        file.write_all_at(&piece(1, 100_000), 0).expect("writes");
        file.write_all_at(&piece(2, 500), 100_000).expect("writes");
        if file.plain.load(Ordering::Relaxed) {
            return;
        }
        drop(file);
        let tail = super::super::tail::path_of(&path);
        let mut bytes = std::fs::read(&tail).expect("reads");
        bytes[9] ^= 1;
        std::fs::write(&tail, &bytes).expect("writes");
        assert!(found(&path).starts_with(&[piece(1, 100_000), piece(2, 500)].concat()), "it says so twice");
        File::options().write(true).open(&path).expect("opens").set_len(100_000).expect("cuts");
        bytes[2048 + 9] ^= 1;
        std::fs::write(&tail, bytes).expect("writes");
        assert_eq!(found(&path), piece(1, 100_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// However much was synced when the process died, all of it is found, and
        /// behind it at most zeros.
        #[test]
        fn nothing_is_lost_with_the_process(
            writes in proptest::collection::vec((1..40_000_usize, 0..6_u8), 1..120),
            again in any::<bool>(),
        ) {
            let (_dir, path, file) = file();
            let mut truth = Vec::new();
            for (round, (length, what)) in (0_u32..).zip(&writes) {
                let piece = piece(round | 1, *length);
                file.write_all_at(&piece, truth.len() as u64).expect("writes");
                truth.extend_from_slice(&piece);
                match what {
                    0 => file.flush().expect("flushes"),
                    1 => file.sync_data().expect("syncs"),
                    2 if *length < 3000 => file.set_len(truth.len() as u64).expect("cuts"),
                    _ => {}
                }
            }
            drop(file);
            for _ in 0..=u8::from(again) {
                let found = found(&path);
                prop_assert!(found.get(..truth.len()) == Some(truth.as_slice()));
                prop_assert!(found[truth.len()..].iter().all(|byte| *byte == 0));
            }
        }
    }
}
