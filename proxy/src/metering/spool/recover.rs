//! Taking over the epochs of processes that are gone.
//!
//! Only the last segment of each shard is looked through here: it ends at its
//! last whole record, and what comes after is a write that never returned to
//! its caller, so nothing depends on it. Earlier segments are read when they
//! are shipped. Then the shard is ended, `abandoned` unless its writer ended it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clawgate_shared::proto::node::{UsageRecord, usage_record};
use prost::Message as _;

use super::disk::{Disk, DiskFile, OpenMode};
use super::epoch::EpochDir;
use super::format::{FRAME_HEADER, Frame, Header, HeaderError, SEGMENT_HEADER, damaged_until, frame_at, resync};
use super::log::ShardLog;
use super::reader::{PATIENCE, read_around};
use super::shard::{CURSOR, Restored, Segment, Shard, ShardContext, decode_cursor};
use super::{Shared, SpoolError, SpoolOptions, count, end_record};

/// An end record is a few bytes; nothing longer is decoded to look for one.
const MAX_END: usize = 16;

/// An epoch that this process ships to its end.
#[derive(Debug)]
pub(super) struct Adopted {
    dir: EpochDir,
    shards: Vec<Arc<Shard>>,
    shared: Arc<Shared>,
}

impl Adopted {
    pub(super) fn logs(&self) -> impl Iterator<Item = ShardLog> {
        let count = count(&self.shards);
        self.shards.iter().map(move |shard| ShardLog::adopted(self.dir.number(), shard, count))
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().map(Arc::as_ref)
    }

    /// Removes its files when the control plane has everything.
    pub(super) fn remove_if_done(&self) -> Result<bool, SpoolError> {
        if !self.shards().all(Shard::is_ended_and_acked) {
            return Ok(false);
        }
        self.dir.remove(&*self.shared.disk)?;
        self.shards().for_each(Shard::forget);
        Ok(true)
    }
}

/// Takes over every epoch that nobody holds, and says what went wrong first.
/// `failures`: how often it has failed, by epoch.
pub(super) fn adopt_all(
    root: &Path,
    options: &SpoolOptions,
    shared: &Arc<Shared>,
    failures: &mut BTreeMap<u64, u32>,
) -> (Vec<Adopted>, Result<(), SpoolError>) {
    let numbers = match EpochDir::list(&*shared.disk, root) {
        Ok(numbers) => numbers,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let (mut found, mut result) = (Vec::new(), Ok(()));
    for number in numbers {
        let failed = failures.get(&number).copied().unwrap_or(0);
        match adopt(root, number, options, shared, failed >= PATIENCE) {
            Ok(Some(adopted)) => found.push(adopted),
            Ok(None) => {}
            Err(error) => {
                failures.insert(number, failed.saturating_add(1));
                result = result.and(Err(error));
                continue;
            }
        }
        failures.remove(&number);
    }
    (found, result)
}

/// `impatient`: what cannot be read counts as damaged. One bad block must not
/// hold back for ever what the others have.
fn adopt(
    root: &Path,
    number: u64,
    options: &SpoolOptions,
    shared: &Arc<Shared>,
    impatient: bool,
) -> Result<Option<Adopted>, SpoolError> {
    let Some(dir) = EpochDir::take(&*shared.disk, root, number)? else { return Ok(None) };
    let mut shards = Vec::new();
    if let Err(error) = take_shards(&dir, options, shared, impatient, &mut shards) {
        shards.iter().for_each(|shard: &Arc<Shard>| shard.forget());
        return Err(error);
    }
    let adopted = Adopted { dir, shards, shared: shared.clone() };
    let records: u64 = adopted.shards().map(|shard| shard.backlog().0).sum();
    tracing::info!(epoch = number, records, "took over a usage epoch");
    Ok(Some(adopted))
}

fn take_shards(
    dir: &EpochDir,
    options: &SpoolOptions,
    shared: &Arc<Shared>,
    impatient: bool,
    shards: &mut Vec<Arc<Shard>>,
) -> Result<(), SpoolError> {
    let found = list_segments(&*shared.disk, dir.path()).map_err(SpoolError::io("list an epoch's files"))?;
    let count = u32::try_from(found.len()).unwrap_or(u32::MAX);
    for (index, files) in found {
        let context = ShardContext {
            dir: dir.path().to_owned(),
            epoch: dir.number(),
            index,
            segment_bytes: options.segment_bytes,
            shared: shared.clone(),
        };
        let shard = Arc::new(restore(context, files, impatient)?);
        shards.push(shard.clone());
        shard.close(&end_record(true, count))?;
        shard.sync();
    }
    Ok(())
}

/// Segment files by shard, in order of position.
fn list_segments(disk: &dyn Disk, dir: &Path) -> io::Result<BTreeMap<u32, BTreeMap<u64, PathBuf>>> {
    let mut shards: BTreeMap<u32, BTreeMap<u64, PathBuf>> = BTreeMap::new();
    for name in disk.list(dir)? {
        let parts = name.strip_suffix(".seg").and_then(|name| name.split_once('-'));
        let Some((shard, first)) = parts else { continue };
        if let (Ok(shard), Ok(first)) = (shard.parse(), first.parse()) {
            shards.entry(shard).or_default().insert(first, dir.join(&name));
        }
    }
    Ok(shards)
}

fn restore(context: ShardContext, files: BTreeMap<u64, PathBuf>, impatient: bool) -> Result<Shard, SpoolError> {
    let mut segments = VecDeque::new();
    let mut age = Duration::ZERO;
    for (first_position, path) in files {
        let (segment, written) = open_segment(&context, first_position, path, impatient)?;
        age = age.max(written);
        segments.push_back(segment);
    }
    let first = segments.front().map_or(0, |segment: &Segment| segment.first_position);
    let tail = match segments.back_mut() {
        Some(last) => find_end(last, impatient).map_err(SpoolError::io("read a segment"))?,
        None => Tail { next: 0, ended: false },
    };
    // A cursor that cannot be read costs a repetition, no record. It may also be
    // behind its files after a power failure. Should the control plane have less
    // than they begin with, it says so.
    let acked = read_cursor(&context).map_or(first, |acked| acked.max(first));
    let bytes = segments.iter().map(|segment| segment.len).sum();
    let next = tail.next.max(acked);
    let shared = context.shared.clone();
    let shard = Shard::restore(context, Restored { segments, next, acked, ended: tail.ended, age })?;
    shared.bytes.fetch_add(bytes, Ordering::Relaxed);
    Ok(shard)
}

/// `None` when there is none that can be read.
fn read_cursor(context: &ShardContext) -> Option<u64> {
    let file = context.shared.disk.open(&context.cursor_path(), OpenMode::Existing).ok()?;
    let mut bytes = [0; CURSOR];
    let filled = file.read_from(&mut bytes, 0).ok()?;
    decode_cursor(bytes.get(..filled)?, context.seed())
}

/// The segment and the time since it was written.
fn open_segment(
    context: &ShardContext,
    first_position: u64,
    path: PathBuf,
    impatient: bool,
) -> Result<(Segment, Duration), SpoolError> {
    let open = || -> io::Result<(Arc<dyn DiskFile>, u64, i64)> {
        let file = context.shared.disk.open(&path, OpenMode::Existing)?;
        let (length, modified) = (file.length()?, file.modified()?);
        Ok((file, length, modified))
    };
    let (file, len, modified) = open().map_err(SpoolError::io("open a segment"))?;
    let mut head = [0; SEGMENT_HEADER];
    let filled = match file.read_from(&mut head, 0) {
        Err(error) if !impatient => return Err(SpoolError::io("read a segment")(error)),
        read => read.unwrap_or(0),
    };
    let (epoch, shard) = (context.epoch, context.index);
    let seed = match Header::decode(head.get(..filled).unwrap_or_default()) {
        Ok((header, seed)) if header == (Header { shard, epoch, first_position }) => seed,
        // The name says the same as the header, and every frame has its
        // checksum: a damaged header costs nothing. Behind a header of another
        // file are another's frames, whose checksums are wrong here.
        Ok(_) | Err(HeaderError::Damaged) => {
            tracing::warn!(epoch, shard, first_position, "a usage segment's header is damaged");
            context.seed()
        }
        Err(HeaderError::Newer(version)) => return Err(SpoolError::NewerFormat { epoch, version }),
    };
    let micros = u64::try_from(context.shared.clock.unix_micros().saturating_sub(modified)).unwrap_or(0);
    Ok((Segment { first_position, path, file, len, seed, roomy: false }, Duration::from_micros(micros)))
}

struct Tail {
    next: u64,
    ended: bool,
}

/// Finds the last whole record and cuts off what is behind it.
fn find_end(segment: &mut Segment, impatient: bool) -> io::Result<Tail> {
    let mut bytes = vec![0; usize::try_from(segment.len).unwrap_or(usize::MAX)];
    let mut holes = 0;
    let filled = match segment.file.read_from(&mut bytes, 0) {
        Err(_) if impatient => read_around(&*segment.file, &mut bytes, 0, &mut holes),
        read => read?,
    };
    bytes.truncate(filled);
    let mut tail = Tail { next: segment.first_position, ended: false };
    let (mut at, mut end) = (SEGMENT_HEADER, SEGMENT_HEADER);
    loop {
        match frame_at(segment.seed, &bytes, at) {
            Frame::Record { position, payload } => {
                if position >= tail.next {
                    tail.next = position + 1;
                    tail.ended = is_end(bytes.get(payload.clone()).unwrap_or_default());
                }
                at = payload.end;
                end = at;
            }
            Frame::Incomplete | Frame::Bad => match resync(segment.seed, &bytes, at + 1, tail.next, u64::MAX) {
                Some(found) => at = found,
                None => break,
            },
        }
    }
    let rest = bytes.get(end..).unwrap_or_default();
    // All of a record, but altered: not a write that was cut short, of which the
    // header comes last. Behind the end of a log there was never anything.
    let begun = rest.iter().take(FRAME_HEADER).any(|byte| *byte != 0);
    let bad = begun && frame_at(segment.seed, &bytes, end) == Frame::Bad;
    // Nobody knows whether there was something in a hole: said rather than not.
    let altered = !tail.ended && (bad || holes > 0);
    if altered {
        tail.next = damaged_until(rest, tail.next).max(tail.next + 1);
    }
    if !rest.is_empty() {
        // Zeros were reserved and not written yet.
        if rest.iter().any(|byte| *byte != 0) {
            tracing::warn!(bytes = rest.len(), altered, "cut off the end of a usage segment");
        }
        segment.file.set_len(end as u64)?;
    }
    segment.len = end as u64;
    Ok(tail)
}

fn is_end(payload: &[u8]) -> bool {
    payload.len() <= MAX_END
        && UsageRecord::decode(payload).is_ok_and(|record| matches!(record.kind, Some(usage_record::Kind::End(_))))
}
