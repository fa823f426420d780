//! Bytes of segment files. Pure: bytes in, bytes and ranges out.
//!
//! A segment is a header and then frames:
//! ```text
//! header  "cgspool\n" | version u32 | shard u32 | epoch u64 | first position u64 | crc32 u32
//! frame   length u32 | crc32 u32 | position u64 | payload
//! ```
//! All numbers are little-endian. A frame's checksum is over epoch and shard
//! (since version 2), position and payload: a file, or a piece of one, that got
//! into the place of another is nothing but damage there.

use std::ops::Range;

use clawgate_shared::mutant::{self, Mutant};

/// Largest payload of a frame, in bytes.
pub const MAX_RECORD: usize = 256 << 10;
/// Bytes before a payload.
pub(super) const FRAME_HEADER: usize = 16;
/// Bytes before the first frame.
pub(super) const SEGMENT_HEADER: usize = 36;
/// What this release writes and reads.
const VERSION: u32 = 2;
/// Since when a frame's checksum says whose it is.
const VERSION_SEEDED: u32 = 2;
/// No file holds so many records; a position further off is not believed.
const MAX_JUMP: u64 = 1 << 32;

const MAGIC: &[u8; 8] = b"cgspool\n";

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) shard: u32,
    pub(super) epoch: u64,
    pub(super) first_position: u64,
}

/// Why a header was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// Cut off or altered.
    Damaged,
    /// Whole, but of a format that this release does not know.
    Newer(u32),
}

impl Header {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0; SEGMENT_HEADER];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.shard.to_le_bytes());
        out[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_position.to_le_bytes());
        let sum = crc32fast::hash(&out[..32]);
        out[32..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// What frames of this release's files begin their checksums with.
    pub(super) fn seed(&self) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&self.epoch.to_le_bytes());
        sum.update(&self.shard.to_le_bytes());
        sum.finalize()
    }

    /// The header, and what the frames behind it begin their checksums with.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, u32), HeaderError> {
        let body = bytes.get(..32).ok_or(HeaderError::Damaged)?;
        if !body.starts_with(MAGIC) || u32_at(bytes, 32) != Some(crc32fast::hash(body)) {
            return Err(HeaderError::Damaged);
        }
        let fields = || Some((u32_at(body, 8)?, u32_at(body, 12)?, u64_at(body, 16)?, u64_at(body, 24)?));
        let (version, shard, epoch, first_position) = fields().ok_or(HeaderError::Damaged)?;
        if version > VERSION {
            return Err(HeaderError::Newer(version));
        }
        let header = Self { shard, epoch, first_position };
        Ok((header, if version < VERSION_SEEDED { 0 } else { header.seed() }))
    }
}

/// Fills in the first [`FRAME_HEADER`] bytes of `frame`, whose payload is
/// already behind them. `false` when the payload is empty or too long.
#[must_use]
pub(super) fn finish_frame(frame: &mut [u8], position: u64, seed: u32) -> bool {
    let Some(length) = frame.len().checked_sub(FRAME_HEADER).filter(|n| (1..=MAX_RECORD).contains(n)) else {
        return false;
    };
    let Ok(length) = u32::try_from(length) else { return false };
    let Some((head, payload)) = frame.split_at_mut_checked(FRAME_HEADER) else { return false };
    head[8..16].copy_from_slice(&position.to_le_bytes());
    let sum = checksum(seed, &head[8..16], payload);
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..8].copy_from_slice(&sum.to_le_bytes());
    true
}

/// What stands at one offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A whole record; the range is its payload's.
    Record { position: u64, payload: Range<usize> },
    /// The bytes end before the frame does.
    Incomplete,
    /// Not a frame, or altered.
    Bad,
}

pub(super) fn frame_at(seed: u32, bytes: &[u8], at: usize) -> Frame {
    let Some(head) = at.checked_add(FRAME_HEADER).and_then(|end| bytes.get(at..end)) else {
        return Frame::Incomplete;
    };
    let (Some(length), Some(sum), Some(position)) = (u32_at(head, 0), u32_at(head, 4), u64_at(head, 8)) else {
        return Frame::Incomplete;
    };
    let length = length as usize;
    if length == 0 || length > MAX_RECORD {
        return Frame::Bad;
    }
    let payload = at + FRAME_HEADER..at + FRAME_HEADER + length;
    let Some(body) = bytes.get(payload.clone()) else { return Frame::Incomplete };
    let right = checksum(seed, &head[8..16], body) == sum || mutant::is(Mutant::TornTailTrusted);
    if right { Frame::Record { position, payload } } else { Frame::Bad }
}

/// The offset of the next whole record at or behind `from` whose position is at
/// least `expected` and at most `ceiling`.
pub(super) fn resync(seed: u32, bytes: &[u8], from: usize, expected: u64, ceiling: u64) -> Option<usize> {
    let ceiling = ceiling.min(expected.saturating_add(MAX_JUMP));
    (from..bytes.len().saturating_sub(FRAME_HEADER)).find(|&at| {
        // The position is checked first: it is far cheaper than a checksum.
        u64_at(bytes, at + 8).is_some_and(|position| (expected..=ceiling).contains(&position))
            && matches!(frame_at(seed, bytes, at), Frame::Record { .. })
    })
}

/// How far the damaged frames in `bytes` reach, the first of which has the
/// position `next`: as far as their lengths lead from one to the other, or as
/// one of them says, whatever is more.
pub(super) fn damaged_until(bytes: &[u8], next: u64) -> u64 {
    let most = next.saturating_add((bytes.len() / (FRAME_HEADER + 1)) as u64);
    let (mut at, mut until) = (0, next);
    while let (Some(length), Some(position)) = (u32_at(bytes, at), u64_at(bytes, at + 8)) {
        let said = if (next..most).contains(&position) { position + 1 } else { 0 };
        let length = length as usize;
        if length == 0 || length > MAX_RECORD {
            return until.max(said.min(until + 1));
        }
        if at + FRAME_HEADER + length > bytes.len() {
            // A write that was cut short.
            return until;
        }
        until = (until + 1).max(said).min(most);
        at += FRAME_HEADER + length;
    }
    until
}

fn checksum(seed: u32, position: &[u8], payload: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new_with_initial(seed);
    sum.update(position);
    sum.update(payload);
    sum.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u32 = 77;

    fn frame(position: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0; FRAME_HEADER];
        out.extend_from_slice(payload);
        assert!(finish_frame(&mut out, position, SEED));
        out
    }

    #[test]
    fn a_header_is_read_back_and_every_flip_is_seen() {
        let header = Header { shard: 3, epoch: 7, first_position: 512 };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok((header, header.seed())));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&damaged), Err(HeaderError::Damaged), "bit {bit}");
        }
        assert_eq!(Header::decode(&bytes[..35]), Err(HeaderError::Damaged));
    }

    #[test]
    fn files_of_the_first_format_are_read_and_others_frames_are_not() {
        let header = Header { shard: 3, epoch: 7, first_position: 512 };
        let mut bytes = header.encode();
        bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..32]);
        bytes[32..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Ok((header, 0)));
        let bytes = frame(9, b"payload");
        for other in [0, SEED + 1, Header { shard: 4, ..header }.seed(), Header { epoch: 8, ..header }.seed()] {
            assert_eq!(frame_at(other, &bytes, 0), Frame::Bad);
        }
        assert_ne!(header.seed(), Header { shard: 4, ..header }.seed());
    }

    #[test]
    fn damaged_frames_at_the_end_are_counted() {
        let mut bytes: Vec<u8> = (5..9).flat_map(|position| frame(position, b"payload")).collect();
        for at in [16, 39, 62, 85] {
            bytes[at] ^= 1;
        }
        assert_eq!(damaged_until(&bytes, 5), 9);
        assert_eq!(damaged_until(&bytes[..60], 5), 7, "the third is a write that was cut short");
        bytes[9] = 0xff;
        assert_eq!(damaged_until(&bytes, 5), 9, "a position that cannot be is not believed");
        bytes[0] = 0;
        assert_eq!(damaged_until(&bytes, 5), 5, "nothing more can be said");
        assert_eq!(damaged_until(&[], 5), 5);
    }

    #[test]
    fn a_newer_format_is_named_not_guessed() {
        let mut bytes = Header { shard: 0, epoch: 1, first_position: 0 }.encode();
        bytes[8..12].copy_from_slice(&9u32.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..32]);
        bytes[32..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Newer(9)));
    }

    #[test]
    fn frames_are_whole_incomplete_or_bad() {
        let bytes = frame(9, b"payload");
        assert_eq!(frame_at(SEED, &bytes, 0), Frame::Record { position: 9, payload: 16..23 });
        for end in 0..bytes.len() {
            assert_eq!(frame_at(SEED, &bytes[..end], 0), Frame::Incomplete, "cut at {end}");
        }
        for bit in 32..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(frame_at(SEED, &damaged, 0), Frame::Bad, "bit {bit}");
        }
        assert!(!finish_frame(&mut [0; FRAME_HEADER], 0, SEED));
        assert!(!finish_frame(&mut vec![0; FRAME_HEADER + MAX_RECORD + 1], 0, SEED));
    }

    #[test]
    fn the_next_whole_record_is_found_behind_damage() {
        let mut bytes = frame(1, b"first");
        let second = bytes.len();
        bytes.extend(frame(2, b"second"));
        bytes[3] = 0xff;
        assert_eq!(resync(SEED, &bytes, 1, 1, 10), Some(second));
        assert_eq!(resync(SEED, &bytes, 1, 1, 1), None, "a position above the ceiling is not believed");
        assert_eq!(resync(SEED, &bytes, second + 1, 1, 10), None);
    }
}
