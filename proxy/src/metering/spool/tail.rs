//! The end of a log, in memory: what was appended last is in a small file beside
//! the log, which is mapped. What is copied into it belongs to the kernel at once
//! and survives the death of this process, without a system call for each
//! record; its pages are used over and over again, so that they are in memory
//! already (a log that is mapped itself costs a page fault for every two
//! exchanges).
//!
//! The file: one page with two numbers, written twice, and two halves. Each number
//! says where in the log its half begins; a half reaches to where the other
//! begins, or, being the later one, as far as there is something in it. A half is
//! used again once the log has it. After the death of the process the log is
//! completed with what its end has beyond its length ([`restore`]).
//!
//! Deliberately absent: what a power failure leaves. The end of a log is for the
//! boot it was written in; what was synced is in the log.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{Ordering, compiler_fence};

use memmap2::{Advice, MmapMut, MmapOptions};
use nix::fcntl::{FallocateFlags, fallocate};

/// Bytes of a half: more than is appended between two syncs at some hundred
/// megabytes per second, few enough to stay in a processor's cache.
pub(super) const HALF: usize = 256 << 10;
/// Bytes before the halves.
const PAGE: usize = 4096;
const MAGIC: &[u8; 8] = b"cgtail\x00\x01";
/// Where the page says what it knows: one of both is whole whenever the process
/// dies, and whatever single bit changes.
const COPIES: [usize; 2] = [0, 2048];
/// Magic, the boot's name, two numbers, checksum.
const HEADER: usize = 8 + 36 + 8 + 8 + 4;
/// The first bytes of a write are copied last and at once, so that a write
/// during which the process dies looks as if it had not begun.
const HEAD: usize = 16;

static THIS_BOOT: LazyLock<Option<[u8; 36]>> = LazyLock::new(|| {
    let text = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    text.first_chunk().copied()
});

/// What a log has in memory.
#[derive(Debug)]
pub(super) struct Tail {
    log_path: PathBuf,
    memory: MmapMut,
    halves: [Half; 2],
    /// Which half is written.
    current: usize,
    boot: [u8; 36],
}

#[derive(Clone, Copy, Debug, Default)]
struct Half {
    /// Where in the log it begins.
    base: u64,
    /// Bytes in it.
    len: usize,
    /// Of them, those that the log has.
    done: usize,
}

impl Half {
    fn end(&self) -> u64 {
        self.base + self.len as u64
    }
}

/// Beside the log.
pub(super) fn path_of(log: &Path) -> PathBuf {
    log.with_added_extension("tail")
}

impl Tail {
    /// For a log that is `offset` long. Space for what it takes is reserved in the
    /// log, too.
    #[allow(unsafe_code)]
    pub(super) fn create(log_path: &Path, log: &File, offset: u64) -> io::Result<Self> {
        let boot = THIS_BOOT.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let path = path_of(log_path);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let length = PAGE + 2 * HALF;
        fallocate(&file, FallocateFlags::empty(), 0, signed(length as u64)?)?;
        reserve(log, offset)?;
        // SAFETY: the memory is shared with the kernel only. This process writes and
        // reads it under one lock; nobody else opens the file while this process
        // lives: the directory belongs to it alone, by a lock and its permissions.
        // Nobody cuts the file, it is only removed. The space behind it is reserved,
        // on file systems that hold to that (`mapped`), so that a full disk does not
        // take it away; its pages are brought in below and stay dirty or cached.
        // Should the disk fail to take one all the same, the process ends by a
        // signal, and its successor finds every record that was whole.
        let memory = unsafe { MmapOptions::new().len(length).map_mut(&file) }?;
        if let Err(error) = memory.advise(Advice::PopulateWrite) {
            tracing::debug!(%error, "the end of a usage segment comes into memory page by page");
        }
        let first = Half { base: offset, ..Half::default() };
        let mut tail =
            Self { log_path: log_path.to_owned(), memory, halves: [first, Half::default()], current: 0, boot: *boot };
        tail.note_bases();
        Ok(tail)
    }

    /// Where the log ends.
    pub(super) fn end(&self) -> u64 {
        self.half(self.current).end()
    }

    /// Up to where the log itself has everything.
    pub(super) fn done_until(&self) -> u64 {
        let (other, current) = (self.half(1 - self.current), self.half(self.current));
        if other.done < other.len { other.base + other.done as u64 } else { current.base + current.done as u64 }
    }

    fn half(&self, index: usize) -> Half {
        self.halves.get(index).copied().unwrap_or_default()
    }

    fn note_bases(&mut self) {
        let header = header(&self.boot, self.halves.map(|half| half.base));
        for at in COPIES {
            self.memory.get_mut(at..at + HEADER).into_iter().for_each(|place| place.copy_from_slice(&header));
            compiler_fence(Ordering::SeqCst);
        }
    }

    fn bytes(&self, index: usize, from: usize, to: usize) -> &[u8] {
        let start = PAGE + index * HALF;
        self.memory.get(start + from..start + to).unwrap_or_default()
    }

    /// Appends `bytes`, at most [`HALF`] of them.
    ///
    /// # Errors
    /// The log did not take what must leave first; nothing was appended.
    pub(super) fn append(&mut self, log: &File, bytes: &[u8]) -> io::Result<()> {
        if self.half(self.current).len + bytes.len() > HALF {
            self.turn(log)?;
        }
        let (index, half) = (self.current, self.half(self.current));
        let at = PAGE + index * HALF + half.len;
        let place = self.memory.get_mut(at..at + bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
        let head = bytes.len().min(HEAD);
        if let (Some(to), Some(from)) = (place.get_mut(head..), bytes.get(head..)) {
            to.copy_from_slice(from);
        }
        compiler_fence(Ordering::SeqCst);
        match (place.first_chunk_mut::<HEAD>(), bytes.first_chunk::<HEAD>()) {
            (Some(to), Some(from)) => *to = *from,
            _ => place.copy_from_slice(bytes),
        }
        self.halves.get_mut(index).into_iter().for_each(|half| half.len += bytes.len());
        Ok(())
    }

    /// Begins the other half.
    fn turn(&mut self, log: &File) -> io::Result<()> {
        let next = 1 - self.current;
        let old = self.half(next);
        if old.done < old.len {
            // Syncing did not keep up.
            log.write_all_at(self.bytes(next, old.done, old.len), old.base + old.done as u64)?;
        }
        let base = self.end();
        reserve(log, base)?;
        let start = PAGE + next * HALF;
        self.memory.get_mut(start..start + old.len).into_iter().for_each(|bytes| bytes.fill(0));
        compiler_fence(Ordering::SeqCst);
        self.halves.get_mut(next).into_iter().for_each(|half| *half = Half { base, ..Half::default() });
        self.note_bases();
        self.current = next;
        Ok(())
    }

    /// Appends to `out` what the log does not have yet, and says where that
    /// belongs.
    pub(super) fn take(&self, out: &mut Vec<u8>) -> u64 {
        let from = self.done_until();
        for index in [1 - self.current, self.current] {
            let half = self.half(index);
            out.extend_from_slice(self.bytes(index, half.done, half.len));
        }
        from
    }

    /// The log has everything below `until`.
    pub(super) fn done(&mut self, until: u64) {
        for half in &mut self.halves {
            let inside = usize::try_from(until.saturating_sub(half.base)).unwrap_or(usize::MAX);
            half.done = half.done.max(inside.min(half.len));
        }
    }

    /// Copies what it has from `offset` on, up to the end of a half.
    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> usize {
        for (index, half) in self.halves.iter().enumerate() {
            if (half.base..half.end()).contains(&offset) {
                let from = usize::try_from(offset - half.base).unwrap_or(usize::MAX);
                let found = self.bytes(index, from, half.len);
                let count = found.len().min(bytes.len());
                if let (Some(to), Some(found)) = (bytes.get_mut(..count), found.get(..count)) {
                    to.copy_from_slice(found);
                }
                return count;
            }
        }
        0
    }

    /// The log has everything: the file goes. Nothing in it is beyond the log's end
    /// should it not.
    pub(super) fn remove(self) {
        forget(&self.log_path);
    }
}

/// Removes what there is beside a log that is gone.
pub(super) fn forget(log_path: &Path) {
    if let Err(error) = fs::remove_file(path_of(log_path))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(%error, "the end of a usage segment was not removed");
    }
}

/// Keeps space for a half from `offset` of the log on, and leaves its length.
fn reserve(log: &File, offset: u64) -> io::Result<()> {
    fallocate(log, FallocateFlags::FALLOC_FL_KEEP_SIZE, signed(offset)?, signed(HALF as u64)?)?;
    Ok(())
}

fn signed(bytes: u64) -> io::Result<i64> {
    i64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Completes a log whose writer is gone, and makes that durable. What was in
/// reserve comes along as zeros.
///
/// # Errors
/// The system's; it can be done again.
pub(super) fn restore(log_path: &Path, log: &File) -> io::Result<()> {
    let path = path_of(log_path);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut length = log.metadata()?.len();
    let before = length;
    for (base, half) in halves(&bytes).into_iter().flatten() {
        let missing = length.checked_sub(base).and_then(|from| half.get(usize::try_from(from).ok()?..));
        if let Some(missing) = missing {
            log.write_all_at(missing, length)?;
            length += missing.len() as u64;
        }
    }
    if length != before {
        log.sync_data()?;
    }
    fs::remove_file(&path)
}

fn header(boot: &[u8; 36], bases: [u64; 2]) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    let (first, second) = (bases[0].to_le_bytes(), bases[1].to_le_bytes());
    let said = MAGIC.iter().chain(boot).chain(&first).chain(&second);
    out.iter_mut().zip(said).for_each(|(to, from)| *to = *from);
    let sum = crc32fast::hash(&out[..HEADER - 4]).to_le_bytes();
    out[HEADER - 4..].copy_from_slice(&sum);
    out
}

/// The two numbers, unless it is no header or one of another boot.
fn bases(header: &[u8]) -> Option<[u64; 2]> {
    let (said, sum) = header.split_at_checked(HEADER - 4)?;
    let rest = said.strip_prefix(MAGIC)?.strip_prefix(THIS_BOOT.as_ref()?)?;
    let (first, second) = rest.split_at_checked(8)?;
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
    let whole = crc32fast::hash(said).to_le_bytes() == *sum;
    Some([number(first)?, number(second)?]).filter(|_| whole)
}

/// The two halves in order, each with its place in the log; `None`: this is no
/// end of a log, or one of another boot.
fn halves(bytes: &[u8]) -> Option<[(u64, &[u8]); 2]> {
    let bases = COPIES.iter().find_map(|at| bases(bytes.get(*at..at + HEADER)?))?;
    let half = |index: usize| bytes.get(PAGE + index * HALF..PAGE + (index + 1) * HALF);
    let ([early, late], [first, second]) =
        if bases[0] <= bases[1] { (bases, [0, 1]) } else { ([bases[1], bases[0]], [1, 0]) };
    // Before the second half was ever used its number is zero.
    let reaches = if early == 0 { 0 } else { usize::try_from(late - early).ok()? };
    Some([(early, half(first)?.get(..reaches)?), (late, half(second)?)])
}
