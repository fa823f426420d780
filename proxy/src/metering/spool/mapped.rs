//! A file that is written through memory: what is copied into it belongs to the
//! kernel at once and survives the death of this process, without a system call
//! for each record.
//!
//! Used only where the memory does not vanish under us: on file systems that keep
//! what was reserved for a file ([`KEEPS_ITS_WORD`]), inside the part that has
//! been reserved. Everywhere else, when no more can be reserved, and once a sync
//! has failed, it is written by system calls like any other file.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use memmap2::{MmapMut, MmapOptions};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, FsType, TMPFS_MAGIC, fstatfs};

use super::disk::DiskFile;

/// Bytes that are reserved and mapped at a time.
const WINDOW: u64 = 256 << 10;
/// A file is mapped once it has grown to this: reserving costs more than it
/// saves for one that stays small.
const WORTH_IT: u64 = 64 << 10;
/// A window begins at a multiple of this.
const PAGE: u64 = 4096;
/// The first bytes of a write are copied last and at once, so that a write
/// during which the process dies looks as if it had not begun.
const HEAD: usize = 16;
/// Writing to reserved space cannot fail here for want of space. Others copy on
/// write (XFS a file that a backup shares with it), and would end the process
/// with a signal when their disk is full.
const KEEPS_ITS_WORD: [FsType; 2] = [EXT4_SUPER_MAGIC, TMPFS_MAGIC];

/// The file. Behind what was written it is filled with zeros, up to its length.
#[derive(Debug)]
pub(super) struct MappedFile {
    file: File,
    window: Mutex<Option<Window>>,
    /// No more can be mapped.
    plain: AtomicBool,
}

#[derive(Debug)]
struct Window {
    start: u64,
    memory: MmapMut,
}

impl Window {
    /// Reserves and maps what begins with the page of `offset`.
    #[allow(unsafe_code)]
    fn open(file: &File, offset: u64) -> io::Result<Self> {
        let start = offset / PAGE * PAGE;
        let signed = |bytes: u64| i64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        fallocate(file, FallocateFlags::empty(), signed(start)?, signed(WINDOW)?)?;
        let length = usize::try_from(WINDOW).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: the memory is shared with the kernel only. This process writes
        // to it under the lock of the window and never reads it: readers ask the
        // system. It goes away when somebody cuts the file: `set_len` closes the
        // window first, and the directory belongs to this process alone, by a
        // lock and its permissions. The space behind it is reserved, on file
        // systems that hold to that, so that a full disk does not take it away. A
        // disk that fails shows in a sync first, which closes the window; should a
        // page fail before that, the process ends by a signal, and its successor
        // finds every record that was whole.
        let memory = unsafe { MmapOptions::new().offset(start).len(length).map_mut(file) }?;
        Ok(Self { start, memory })
    }

    /// Whether the window took it.
    fn write(&mut self, bytes: &[u8], offset: u64) -> bool {
        let Some(at) = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok()) else { return false };
        let Some(place) = at.checked_add(bytes.len()).and_then(|end| self.memory.get_mut(at..end)) else {
            return false;
        };
        let head = bytes.len().min(HEAD);
        if let (Some(to), Some(from)) = (place.get_mut(head..), bytes.get(head..)) {
            to.copy_from_slice(from);
        }
        compiler_fence(Ordering::SeqCst);
        match (place.first_chunk_mut::<HEAD>(), bytes.first_chunk::<HEAD>()) {
            (Some(to), Some(from)) => *to = *from,
            _ => place.copy_from_slice(bytes),
        }
        true
    }
}

impl MappedFile {
    /// `file` is open for reading and writing.
    pub(super) fn new(file: File) -> Self {
        let suits = fstatfs(&file).is_ok_and(|on| KEEPS_ITS_WORD.contains(&on.filesystem_type()));
        Self { file, window: Mutex::new(None), plain: AtomicBool::new(!suits) }
    }

    fn window(&self) -> MutexGuard<'_, Option<Window>> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was written through memory.
    fn map(&self, bytes: &[u8], offset: u64) -> bool {
        if offset < WORTH_IT || self.plain.load(Ordering::Relaxed) {
            return false;
        }
        let mut window = self.window();
        if window.as_mut().is_some_and(|window| window.write(bytes, offset)) {
            return true;
        }
        *window = None;
        match Window::open(&self.file, offset) {
            Ok(mut opened) => {
                let wrote = opened.write(bytes, offset);
                *window = Some(opened);
                wrote
            }
            Err(error) => {
                tracing::debug!(%error, "a usage segment is not mapped");
                self.plain.store(true, Ordering::Relaxed);
                false
            }
        }
    }
}

impl DiskFile for MappedFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        DiskFile::read_at(&self.file, bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if self.map(bytes, offset) { Ok(bytes.len()) } else { DiskFile::write_at(&self.file, bytes, offset) }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut window = self.window();
        *window = None;
        File::set_len(&self.file, length)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn modified(&self) -> io::Result<i64> {
        self.file.modified()
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = File::sync_data(&self.file);
        if synced.is_err() {
            self.plain.store(true, Ordering::Relaxed);
            *self.window() = None;
        }
        synced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, MappedFile) {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("log");
        let file = File::options().create_new(true).read(true).write(true).open(path).expect("opens");
        (dir, MappedFile::new(file))
    }

    fn read(file: &MappedFile, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let filled = file.read_from(&mut bytes, offset).expect("reads");
        bytes.truncate(filled);
        bytes
    }

    #[test]
    fn what_is_written_is_read_back_over_many_windows() {
        let (_dir, file) = file();
        let suits = !file.plain.load(Ordering::Relaxed);
        let mut truth = Vec::new();
        for round in 0..3000_u32 {
            let piece: Vec<u8> = (0..round % 700 + 1).map(|at| (round + at) as u8).collect();
            file.write_all_at(&piece, truth.len() as u64).expect("writes");
            truth.extend_from_slice(&piece);
        }
        assert_eq!(read(&file, 0, truth.len()), truth);
        assert_eq!(file.window().is_some(), suits, "mapped where it may be");
        file.sync_data().expect("syncs");
        file.set_len(truth.len() as u64).expect("cuts");
        assert_eq!(file.length().expect("length"), truth.len() as u64);
        file.write_all_at(b"more", truth.len() as u64).expect("writes behind a cut");
        assert_eq!(read(&file, truth.len() as u64, 4), b"more");
    }

    #[test]
    fn what_is_larger_than_a_window_is_written_all_the_same() {
        let (_dir, file) = file();
        let large = vec![7; usize::try_from(WINDOW).expect("fits") + 5];
        let mut at = WORTH_IT + 3;
        for piece in [b"first".as_slice(), &large, b"last"] {
            file.write_all_at(piece, at).expect("writes");
            assert!(read(&file, at, piece.len()) == piece);
            at += piece.len() as u64;
        }
    }
}
