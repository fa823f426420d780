//! Reads a shard back from its files, exactly as a successor would. What
//! cannot be read becomes one `LostRange` record per position, so that what is
//! shipped stays gap-free.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clawgate_shared::proto::node::{LostRange, UsageRecord, usage_record};
use prost::Message as _;

use super::disk::DiskFile;
use super::format::{FRAME_HEADER, Frame, MAX_RECORD, SEGMENT_HEADER, frame_at, resync};
use super::log::Batch;
use super::shard::Shard;
use super::{SpoolError, lock};

/// One whole frame always fits into so many bytes.
const WINDOW: usize = FRAME_HEADER + MAX_RECORD;
/// A disk that does not give out what it has may think better of it. After so
/// many reads that failed, what cannot be read counts as damaged.
pub(super) const PATIENCE: u32 = 8;
/// So much is given up at a time then.
const BLOCK: usize = 4096;

/// Where the last read ended, so that the next one need not search.
#[derive(Debug, Default)]
pub(super) struct ReadPoint {
    position: u64,
    segment: u64,
    offset: u64,
    window: Vec<u8>,
    /// Reads that failed, one after the other.
    failures: u32,
    /// What is lost below this position was counted; a batch is read again while
    /// the control plane is away.
    counted: u64,
}

/// One segment as it was when the read began.
struct View {
    first: u64,
    /// Positions below this belong to it.
    end: u64,
    file: Arc<dyn DiskFile>,
    len: u64,
    /// What its frames' checksums begin with.
    seed: u32,
}

struct Gather {
    batch: Batch,
    next: u64,
    bytes: usize,
    max_records: usize,
    max_bytes: usize,
    lost: u64,
    /// What is lost below this was counted before.
    counted: u64,
    /// A record did not fit: what follows is for the next batch, and not lost.
    closed: bool,
}

impl Gather {
    fn is_full(&self) -> bool {
        self.closed || self.batch.records.len() >= self.max_records || self.bytes >= self.max_bytes
    }

    fn has_room(&self, length: usize) -> bool {
        self.batch.records.is_empty() || (!self.is_full() && self.bytes + length <= self.max_bytes)
    }

    fn push(&mut self, record: Vec<u8>) {
        self.bytes += record.len();
        self.batch.records.push(record);
        self.next += 1;
    }

    /// Whether `position` was reached before the batch was full.
    fn lose_up_to(&mut self, position: u64) -> bool {
        while self.next < position {
            if self.is_full() {
                return false;
            }
            self.lost += u64::from(self.next >= self.counted);
            self.push(lost_record());
        }
        true
    }
}

impl Shard {
    /// The records from the acknowledged position on that are on disk.
    pub(super) fn read(&self, max_records: usize, max_bytes: usize) -> Result<Batch, SpoolError> {
        let (from, limit, views) = self.views();
        let batch = Batch { first_position: from, records: Vec::new() };
        let mut point = lock(&self.reader);
        let counted = point.counted;
        let mut gather =
            Gather { batch, next: from, bytes: 0, max_records, max_bytes, lost: 0, counted, closed: false };
        for view in &views {
            if !gather.lose_up_to(view.first) || gather.is_full() {
                break;
            }
            if let Err(error) = walk(view, &mut point, &mut gather) {
                point.failures += 1;
                if gather.batch.records.is_empty() {
                    return Err(SpoolError::io("read records")(error));
                }
                break;
            }
        }
        if views.is_empty() {
            gather.lose_up_to(limit);
        }
        {
            let mut state = lock(&self.state);
            state.given = state.given.max(gather.next);
        }
        if gather.lost > 0 {
            point.counted = gather.next;
            self.context.shared.lost.fetch_add(gather.lost, Ordering::Relaxed);
            let (epoch, shard) = (self.context.epoch, self.index());
            tracing::error!(
                lost = gather.lost,
                from,
                epoch,
                shard,
                "usage records are damaged and cannot be delivered"
            );
        }
        Ok(gather.batch)
    }

    fn views(&self) -> (u64, u64, Vec<View>) {
        let state = lock(&self.state);
        let (from, limit) = (state.acked, state.readable);
        let mut views = Vec::new();
        for (index, segment) in state.segments.iter().enumerate() {
            let end = state.segments.get(index + 1).map_or(limit, |next| next.first_position).min(limit);
            if from < end && segment.first_position < end {
                let file = segment.file.clone();
                let (first, len, seed) = (segment.first_position, segment.len, segment.seed);
                views.push(View { first, end, file, len, seed });
            }
        }
        (from, limit, views)
    }
}

/// Gathers from one segment until it ends or the batch is full.
fn walk(view: &View, point: &mut ReadPoint, gather: &mut Gather) -> io::Result<()> {
    let known = point.segment == view.first && point.position == gather.next && point.offset > 0;
    let mut offset = if known { point.offset } else { SEGMENT_HEADER as u64 };
    let holes = (point.failures >= PATIENCE).then_some(0);
    let mut window = Window { bytes: std::mem::take(&mut point.window), base: 0, view, holes };
    window.bytes.clear();
    while !gather.is_full() && gather.next < view.end {
        let at = window.show(offset, WINDOW)?;
        match frame_at(view.seed, &window.bytes, at) {
            Frame::Record { position, payload } if position < view.end => {
                let length = payload.len();
                if position >= gather.next {
                    if !gather.lose_up_to(position) {
                        break;
                    }
                    gather.closed = !gather.has_room(length);
                    if gather.closed {
                        break;
                    }
                    gather.push(window.bytes.get(payload).unwrap_or_default().to_vec());
                }
                offset += (FRAME_HEADER + length) as u64;
            }
            Frame::Record { .. } | Frame::Incomplete | Frame::Bad => {
                let at = window.show(offset, usize::MAX)?;
                match resync(view.seed, &window.bytes, at + 1, gather.next, view.end - 1) {
                    Some(found) => offset += (found - at) as u64,
                    None => {
                        gather.lose_up_to(view.end);
                        break;
                    }
                }
            }
        }
    }
    let failures = if window.holes.is_some_and(|holes| holes > 0) { PATIENCE } else { 0 };
    let (position, segment, counted) = (gather.next, view.first, point.counted);
    *point = ReadPoint { position, segment, offset, window: window.bytes, failures, counted };
    point.window.shrink_to(2 * WINDOW);
    Ok(())
}

/// A piece of a file in memory.
struct Window<'a> {
    bytes: Vec<u8>,
    base: u64,
    view: &'a View,
    /// How many blocks could not be read, when that is no reason to stop.
    holes: Option<u32>,
}

impl Window<'_> {
    /// Makes `want` bytes from `offset` on visible, or all that there are, and
    /// says where `offset` is in `bytes`.
    fn show(&mut self, offset: u64, want: usize) -> io::Result<usize> {
        let rest = usize::try_from(self.view.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let want = want.min(rest);
        let at = offset.checked_sub(self.base).and_then(|at| usize::try_from(at).ok());
        if let Some(at) = at.filter(|at| at.checked_add(want).is_some_and(|end| end <= self.bytes.len())) {
            return Ok(at);
        }
        self.base = offset;
        // Two frames' worth, so that small records do not each cost a read.
        self.bytes.resize(want.max((2 * WINDOW).min(rest)), 0);
        let filled = match &mut self.holes {
            None => self.view.file.read_from(&mut self.bytes, offset)?,
            Some(holes) => read_around(&*self.view.file, &mut self.bytes, offset, holes),
        };
        self.bytes.truncate(filled);
        Ok(0)
    }
}

/// Reads what can be read; the rest is zeros, which are no frames.
pub(super) fn read_around(file: &dyn DiskFile, bytes: &mut [u8], offset: u64, holes: &mut u32) -> usize {
    let mut filled = 0;
    for block in bytes.chunks_mut(BLOCK) {
        match file.read_from(block, offset + filled as u64) {
            Ok(n) if n < block.len() => return filled + n,
            Ok(_) => {}
            Err(_) => {
                block.fill(0);
                *holes += 1;
            }
        }
        filled += block.len();
    }
    filled
}

fn lost_record() -> Vec<u8> {
    let lost = LostRange { count: 1, reason: "damaged in the spool".to_owned() };
    UsageRecord { kind: Some(usage_record::Kind::Lost(lost)) }.encode_to_vec()
}
