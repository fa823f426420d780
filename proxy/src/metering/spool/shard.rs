//! One shard: appends under one lock, files behind them, the cursor before
//! them.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::disk::{DiskFile, OpenMode};
use super::format::{FRAME_HEADER, Header, SEGMENT_HEADER, finish_frame};
use super::reader::ReadPoint;
use super::{Shared, SpoolError, lock};

/// A new age mark is set at most this often.
const MARK_EVERY: Duration = Duration::from_millis(50);
/// Age marks per shard; when there are more, every other one goes.
const MAX_MARKS: usize = 64;
/// Bytes of a cursor file.
pub(super) const CURSOR: usize = 12;

/// Where a shard is and what it shares with others.
#[derive(Clone, Debug)]
pub(super) struct ShardContext {
    pub(super) dir: PathBuf,
    pub(super) epoch: u64,
    pub(super) index: u32,
    pub(super) segment_bytes: u64,
    pub(super) shared: Arc<Shared>,
}

impl ShardContext {
    fn header(&self, first_position: u64) -> Header {
        Header { shard: self.index, epoch: self.epoch, first_position }
    }

    /// What frames of this release's files begin their checksums with.
    pub(super) fn seed(&self) -> u32 {
        self.header(0).seed()
    }

    fn segment_path(&self, first_position: u64) -> PathBuf {
        self.dir.join(format!("{:04}-{first_position:020}.seg", self.index))
    }

    pub(super) fn cursor_path(&self) -> PathBuf {
        self.dir.join(format!("{:04}.cursor", self.index))
    }
}

/// One file of records.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) first_position: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    /// Bytes of header and whole frames; what is behind them does not count.
    pub(super) len: u64,
    /// What its frames' checksums begin with.
    pub(super) seed: u32,
    /// It takes space before it needs it, to be faster.
    pub(super) roomy: bool,
}

impl Segment {
    fn create(context: &ShardContext, first_position: u64) -> io::Result<Self> {
        let path = context.segment_path(first_position);
        let header = context.header(first_position);
        let disk = &context.shared.disk;
        let roomy = !context.shared.is_tight();
        let file = disk.open(&path, if roomy { OpenMode::Log } else { OpenMode::Empty })?;
        if let Err(error) = file.write_all_at(&header.encode(), 0) {
            let _ = disk.remove_file(&path);
            return Err(error);
        }
        context.shared.bytes.fetch_add(SEGMENT_HEADER as u64, Ordering::Relaxed);
        Ok(Self { first_position, path, file, len: SEGMENT_HEADER as u64, seed: header.seed(), roomy })
    }

    fn has_records(&self) -> bool {
        self.len > SEGMENT_HEADER as u64
    }
}

/// What is known of a shard that is opened.
pub(super) struct Restored {
    pub(super) segments: VecDeque<Segment>,
    pub(super) next: u64,
    pub(super) acked: u64,
    /// Its last record says that it ended.
    pub(super) ended: bool,
    /// How old its oldest record is.
    pub(super) age: Duration,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) context: ShardContext,
    pub(super) state: Mutex<State>,
    pub(super) reader: Mutex<ReadPoint>,
    cursor: Arc<dyn DiskFile>,
    /// Serialises syncs, so that `readable` never passes a file still unsynced.
    syncing: Mutex<()>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) segments: VecDeque<Segment>,
    /// Position of the next append.
    next: u64,
    /// Everything below is on disk and may be shipped.
    pub(super) readable: u64,
    /// What the control plane expects next.
    pub(super) acked: u64,
    /// Everything below was given out, by this process.
    pub(super) given: u64,
    ended: bool,
    closed: bool,
    /// Used for every append, so that none allocates.
    frame: Vec<u8>,
    dirty: bool,
    /// Files that were rolled over and not synced yet.
    unsynced: Vec<Arc<dyn DiskFile>>,
    /// (position, when it was appended by the clock), for the age of the backlog.
    marks: VecDeque<(u64, Duration)>,
}

impl Shard {
    /// A new shard with an empty segment.
    pub(super) fn create(context: ShardContext) -> Result<Self, SpoolError> {
        let first = Segment::create(&context, 0).map_err(SpoolError::io("make a segment"))?;
        let segments = VecDeque::from([first]);
        Self::restore(context, Restored { segments, next: 0, acked: 0, ended: false, age: Duration::ZERO })
    }

    /// A shard of a process that is gone.
    pub(super) fn restore(context: ShardContext, found: Restored) -> Result<Self, SpoolError> {
        let cursor = context.shared.disk.open(&context.cursor_path(), OpenMode::OrNew);
        let cursor = cursor.map_err(SpoolError::io("open a cursor"))?;
        let mut marks = VecDeque::with_capacity(MAX_MARKS + 1);
        if found.acked < found.next {
            marks.push_back((found.acked, context.shared.clock.monotonic().saturating_sub(found.age)));
        }
        // What the dead process did not sync is synced before it is given out.
        let files = found.segments.iter().filter(|_| found.next > 0);
        let unsynced: Vec<_> = files.map(|segment| segment.file.clone()).collect();
        let state = State {
            dirty: !unsynced.is_empty(),
            unsynced,
            segments: found.segments,
            next: found.next,
            readable: found.next,
            acked: found.acked,
            given: found.acked,
            ended: found.ended,
            closed: false,
            frame: Vec::with_capacity(4096),
            marks,
        };
        let reader = Mutex::new(ReadPoint::default());
        Ok(Self { context, state: Mutex::new(state), reader, cursor, syncing: Mutex::new(()) })
    }

    pub(super) fn index(&self) -> u32 {
        self.context.index
    }

    /// Appends one record, whose payload `encode` writes. `budget`: bytes the
    /// whole spool may have afterwards.
    pub(super) fn append(&self, budget: u64, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), SpoolError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(SpoolError::Closed);
        }
        state.append(&self.context, budget, encode)
    }

    /// Puts what was appended on disk and lets it be read. Whether there was
    /// anything.
    pub(super) fn sync(&self) -> bool {
        let _one_at_a_time = lock(&self.syncing);
        let (files, target) = {
            let mut state = lock(&self.state);
            if !std::mem::take(&mut state.dirty) {
                return false;
            }
            let mut files = std::mem::take(&mut state.unsynced);
            files.extend(state.segments.back().map(|segment| segment.file.clone()));
            (files, state.next)
        };
        let names = if files.len() > 1 { self.context.shared.disk.sync_dir(&self.context.dir) } else { Ok(()) };
        let synced = files.iter().map(|file| file.sync_data()).fold(names, Result::and);
        if let Err(error) = synced {
            // The pages are still readable, and shipping them is the best that
            // can be done for them now.
            self.context.shared.sync_failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, epoch = self.context.epoch, shard = self.index(), "usage records were not synced");
        }
        let mut state = lock(&self.state);
        state.readable = state.readable.max(target);
        true
    }

    /// The control plane has everything below `expected` and nothing else,
    /// whatever was thought before.
    pub(super) fn ack(&self, expected: u64) -> Result<(), SpoolError> {
        let gone = {
            let mut state = lock(&self.state);
            // An end that was never given out has the place of a record that was, and
            // was lost with the power: the control plane does not know of the end.
            let unsaid = state.ended && expected == state.next && state.given < expected && expected > state.acked;
            if expected > state.next || unsaid {
                return Err(SpoolError::Ahead { expected, end: state.next });
            }
            state.acked = expected;
            state.drop_marks();
            let at_rest = expected == state.next && !state.ended;
            let (worth_it, tight) = (self.context.segment_bytes / 4, self.context.shared.is_tight());
            let worth_it = state.segments.back().is_some_and(|tail| tight || tail.len >= worth_it);
            if at_rest
                && worth_it
                && let Err(error) = state.roll(&self.context)
            {
                tracing::debug!(%error, "an acknowledged usage segment stays for now");
            }
            state.take_acked_segments()
        };
        if let Err(error) = self.cursor.write_all_at(&encode_cursor(expected, self.context.seed()), 0) {
            // A cursor that is behind costs a repetition, no record.
            tracing::warn!(%error, "a usage cursor was not written");
        }
        // The segment that follows must have its name first: a power failure that
        // takes both leaves a shard that nobody knows of, and so never ends.
        if !gone.is_empty()
            && let Err(error) = self.context.shared.disk.sync_dir(&self.context.dir)
        {
            tracing::warn!(%error, "the names of usage segments were not synced");
        }
        for segment in gone {
            self.context.shared.bytes.fetch_sub(segment.len, Ordering::Relaxed);
            if let Err(error) = self.context.shared.disk.remove_file(&segment.path) {
                tracing::warn!(%error, "an acknowledged usage segment was not removed");
            }
        }
        Ok(())
    }

    /// Appends `end` unless it has ended before, and takes no more records. A
    /// shard that was never written ends too: leases of the epoch end when all
    /// its shards have.
    pub(super) fn close(&self, end: &[u8]) -> Result<(), SpoolError> {
        let mut state = lock(&self.state);
        state.closed = true;
        if state.ended { Ok(()) } else { state.end(&self.context, end) }
    }

    /// The control plane has more of this dead epoch than its files do (they
    /// lost their tail with the power): ends it where the control plane is. On an
    /// error all is as it was, and the control plane's next answer is the same.
    pub(super) fn end_at(&self, position: u64, end: &[u8]) -> Result<(), SpoolError> {
        {
            let mut state = lock(&self.state);
            let before = (state.next, state.acked);
            (state.next, state.acked, state.ended) = (position, position, false);
            let rolled = state.roll(&self.context).map_err(SpoolError::io("make a segment"));
            if let Err(error) = rolled.and_then(|()| state.end(&self.context, end)) {
                (state.next, state.acked) = before;
                return Err(error);
            }
        }
        self.sync();
        self.ack(position)
    }

    /// Records that are not acknowledged, and the age of the oldest.
    pub(super) fn backlog(&self) -> (u64, Duration) {
        let state = lock(&self.state);
        let records = state.next.saturating_sub(state.acked);
        let now = self.context.shared.clock.monotonic();
        let age = state.marks.front().map_or(Duration::ZERO, |(_, at)| now.saturating_sub(*at));
        (records, if records == 0 { Duration::ZERO } else { age })
    }

    pub(super) fn is_pending(&self) -> bool {
        let state = lock(&self.state);
        state.acked < state.readable
    }

    /// Whether the control plane has all of it, its end too. A shard whose end
    /// could not be written waits for a successor that can.
    pub(super) fn is_ended_and_acked(&self) -> bool {
        let state = lock(&self.state);
        state.ended && state.acked >= state.next
    }

    /// Whether the disk takes a write: the header once more, which changes
    /// nothing.
    pub(super) fn probe(&self) -> bool {
        let state = lock(&self.state);
        state.segments.back().is_none_or(|tail| {
            let header = self.context.header(tail.first_position);
            tail.file.write_all_at(&header.encode(), 0).is_ok()
        })
    }

    /// Lets go of files that were removed with their directory.
    pub(super) fn forget(&self) {
        let mut state = lock(&self.state);
        let bytes = state.segments.drain(..).map(|segment| segment.len).sum();
        self.context.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl State {
    fn end(&mut self, context: &ShardContext, end: &[u8]) -> Result<(), SpoolError> {
        self.append(context, u64::MAX, |out| out.extend_from_slice(end))?;
        self.ended = true;
        Ok(())
    }

    fn append(
        &mut self,
        context: &ShardContext,
        budget: u64,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SpoolError> {
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        frame.resize(FRAME_HEADER, 0);
        encode(&mut frame);
        let result = self.write(context, budget, &mut frame);
        self.frame = frame;
        result
    }

    fn write(&mut self, context: &ShardContext, budget: u64, frame: &mut [u8]) -> Result<(), SpoolError> {
        let position = self.next;
        let length = frame.len() as u64;
        if context.shared.bytes.load(Ordering::Relaxed).saturating_add(length) > budget {
            return Err(SpoolError::Full);
        }
        // Long before the disk is full nothing is kept in reserve any more: what is
        // left then changes by what is written, and a node that was full stays so.
        let tight = context.shared.is_tight();
        if self.segments.back().is_none_or(|tail| tail.len >= context.segment_bytes || (tight && tail.roomy))
            && let Err(error) = self.roll(context)
        {
            // The old file takes the record as well as a new one would.
            tracing::warn!(%error, "no new usage segment");
        }
        let tail = self.segments.back_mut().ok_or(SpoolError::Closed)?;
        if !finish_frame(frame, position, tail.seed) {
            return Err(SpoolError::io("write a record")(io::ErrorKind::InvalidInput.into()));
        }
        let wrote = tail.file.write_all_at(frame, tail.len);
        context.shared.note_write(wrote.is_ok());
        if let Err(error) = wrote {
            // Part of the frame may be there. The next one goes over it.
            if let Err(error) = tail.file.set_len(tail.len) {
                tracing::warn!(%error, "half a usage record was not cut off");
            }
            return Err(SpoolError::io("write a record")(error));
        }
        tail.len += length;
        context.shared.bytes.fetch_add(length, Ordering::Relaxed);
        self.next += 1;
        self.dirty = true;
        self.mark(position, context.shared.clock.monotonic());
        Ok(())
    }

    /// Begins a new segment, unless the last one is still empty.
    fn roll(&mut self, context: &ShardContext) -> io::Result<()> {
        if let Some(tail) = self.segments.back() {
            if !tail.has_records() && tail.first_position == self.next {
                return Ok(());
            }
            let (file, len) = (tail.file.clone(), tail.len);
            self.segments.push_back(Segment::create(context, self.next)?);
            if let Err(error) = file.set_len(len) {
                // Zeros are no records.
                tracing::debug!(%error, "what was reserved for a usage segment stays reserved");
            }
            self.unsynced.push(file);
        } else {
            self.segments.push_back(Segment::create(context, self.next)?);
        }
        self.dirty = true;
        Ok(())
    }

    fn take_acked_segments(&mut self) -> Vec<Segment> {
        let mut gone = Vec::new();
        while self.segments.get(1).is_some_and(|second| second.first_position <= self.acked) {
            gone.extend(self.segments.pop_front());
        }
        gone
    }

    fn mark(&mut self, position: u64, now: Duration) {
        if self.marks.back().is_some_and(|(_, last)| now.saturating_sub(*last) < MARK_EVERY) {
            return;
        }
        if self.marks.len() >= MAX_MARKS {
            let mut keep = false;
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.marks.push_back((position, now));
    }

    fn drop_marks(&mut self) {
        while self.marks.get(1).is_some_and(|(position, _)| *position <= self.acked) {
            self.marks.pop_front();
        }
        if self.acked >= self.next {
            self.marks.clear();
        }
    }
}

/// `seed`: as in the frames of the same shard, so that another's cursor is none.
fn encode_cursor(position: u64, seed: u32) -> [u8; CURSOR] {
    let mut out = [0; CURSOR];
    out[..8].copy_from_slice(&position.to_le_bytes());
    let sum = cursor_sum(seed, &out[..8]);
    out[8..].copy_from_slice(&sum.to_le_bytes());
    out
}

fn cursor_sum(seed: u32, position: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new_with_initial(seed);
    sum.update(position);
    sum.finalize()
}

/// `None` when the bytes are not this shard's cursor.
pub(super) fn decode_cursor(bytes: &[u8], seed: u32) -> Option<u64> {
    let (position, sum) = bytes.split_at_checked(8)?;
    let sum: [u8; 4] = sum.try_into().ok()?;
    if cursor_sum(seed, position) != u32::from_le_bytes(sum) {
        return None;
    }
    position.try_into().ok().map(u64::from_le_bytes)
}
