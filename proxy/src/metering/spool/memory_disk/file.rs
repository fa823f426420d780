//! The bytes of one file, what of them is durable, and an open file.

use std::io;
use std::sync::{Arc, Mutex};

use super::super::disk::{DiskFile, OpenMode};
use super::super::lock;
use super::faults::{Operation, Random};
use super::{MemoryDisk, Survival};

/// What a disk writes at once.
const SECTOR: usize = 512;

/// A file's bytes, and how to get from them to what was synced last.
#[derive(Clone, Debug, Default)]
pub(super) struct Data {
    bytes: Vec<u8>,
    /// Oldest first: where a change was, what stood there, the length before.
    undo: Vec<(usize, Vec<u8>, usize)>,
    modified: i64,
}

impl Data {
    /// A file that is durable as it is.
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn truncate(&mut self) {
        self.set_len(0);
    }

    fn note(&mut self, from: usize, to: usize) {
        let end = to.min(self.bytes.len());
        let before = self.bytes.get(from..end).unwrap_or_default().to_vec();
        self.undo.push((from, before, self.bytes.len()));
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        self.note(offset, end);
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        if let Some(place) = self.bytes.get_mut(offset..end) {
            place.copy_from_slice(bytes);
        }
    }

    fn set_len(&mut self, length: usize) {
        self.note(length, usize::MAX);
        self.bytes.resize(length, 0);
    }

    fn sync(&mut self) {
        self.undo.clear();
    }

    /// The power goes: this is what the platters have.
    pub(super) fn power_cut(&mut self, survival: Survival, random: &mut Random) {
        let written = self.bytes.clone();
        while let Some((offset, before, length)) = self.undo.pop() {
            self.bytes.resize(length, 0);
            if let Some(place) = self.bytes.get_mut(offset..offset + before.len()) {
                place.copy_from_slice(&before);
            }
        }
        if survival == Survival::Synced || written == self.bytes {
            return;
        }
        let (low, high) = (written.len().min(self.bytes.len()), written.len().max(self.bytes.len()));
        let length = low + usize::try_from(random.below((high - low + 1) as u64)).unwrap_or(0);
        self.bytes.resize(length, 0);
        for from in (0..length.min(written.len())).step_by(SECTOR) {
            let end = (from + SECTOR).min(length).min(written.len());
            if random.coin()
                && let (Some(place), Some(new)) = (self.bytes.get_mut(from..end), written.get(from..end))
            {
                place.copy_from_slice(new);
            }
        }
    }
}

/// An open file of one process.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) disk: MemoryDisk,
    pub(super) data: Arc<Mutex<Data>>,
}

impl DiskFile for Handle {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.disk.enter(Operation::Read)?;
        let data = self.data();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = data.bytes.get(from..).unwrap_or_default();
        let mut length = rest.len().min(bytes.len());
        if world.faults.short_reads && length > 1 {
            length = 1 + usize::try_from(world.random.below(length as u64)).unwrap_or(0);
        }
        if let (Some(place), Some(there)) = (bytes.get_mut(..length), rest.get(..length)) {
            place.copy_from_slice(there);
        }
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut world = self.disk.enter(Operation::Write)?;
        let offset = usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let torn = world.faults.take_tear();
        let mut length = torn.map_or(bytes.len(), |(most, _)| most.min(bytes.len()));
        if let Some(capacity) = world.capacity {
            let free = usize::try_from(capacity.saturating_sub(world.tree.used())).unwrap_or(usize::MAX);
            let over = self.data().bytes.len().saturating_sub(offset);
            length = length.min(free.saturating_add(over));
            if length == 0 && !bytes.is_empty() && torn.is_none() {
                return Err(super::DiskError::NoSpace.error());
            }
        }
        let mut data = self.data();
        data.write(bytes.get(..length).unwrap_or_default(), offset);
        data.modified = world.unix_micros;
        torn.map_or(Ok(length), |(_, error)| Err(error.error()))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let world = self.disk.enter(Operation::SetLen)?;
        let mut data = self.data();
        data.set_len(usize::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?);
        data.modified = world.unix_micros;
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        drop(self.disk.enter(Operation::Read)?);
        Ok(self.data().bytes.len() as u64)
    }

    fn modified(&self) -> io::Result<i64> {
        drop(self.disk.enter(Operation::Read)?);
        Ok(self.data().modified)
    }

    fn sync_data(&self) -> io::Result<()> {
        let _world = self.disk.enter(Operation::Sync)?;
        self.data().sync();
        Ok(())
    }
}

/// An empty file, or the same one emptied.
pub(super) fn opened(file: &Arc<Mutex<Data>>, mode: OpenMode) -> Arc<Mutex<Data>> {
    if matches!(mode, OpenMode::Empty | OpenMode::Log) {
        lock(file).truncate();
    }
    file.clone()
}
