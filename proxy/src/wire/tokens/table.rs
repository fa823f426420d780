//! Finds a token's rank in a vocabulary that was laid out at build time.

use super::layout::{RANK_BITS, place};

/// A vocabulary where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    starts: &'static [u8],
    slots: &'static [u8],
    bytes: &'static [u8],
    slot_bits: u32,
}

const WORD: usize = 4;
const RANK_MASK: u32 = (1 << RANK_BITS) - 1;

fn word(words: &[u8], at: usize) -> u32 {
    let bytes = words.get(at * WORD..(at + 1) * WORD).and_then(|bytes| bytes.try_into().ok());
    u32::from_le_bytes(bytes.unwrap_or_default())
}

impl Table {
    /// Reads what `layout::lay_out` wrote; `None` when it is something else.
    pub(super) fn read(laid_out: &'static [u8]) -> Option<Self> {
        let (tokens, slot_bits) = (word(laid_out, 0), word(laid_out, 1));
        let rest = laid_out.get(2 * WORD..)?;
        let (starts, rest) = rest.split_at_checked((usize::try_from(tokens).ok()? + 1) * WORD)?;
        let (slots, bytes) = rest.split_at_checked(WORD.checked_shl(slot_bits)?)?;
        Some(Self { starts, slots, bytes, slot_bits })
    }

    /// The rank of a token; lower ranks are put together first.
    pub(super) fn rank(&self, token: &[u8]) -> Option<u32> {
        let (mut at, mark) = place(token, self.slot_bits);
        let last = (1_usize << self.slot_bits) - 1;
        loop {
            let slot = word(self.slots, at);
            let rank = (slot & RANK_MASK).checked_sub(1)?;
            if slot & !RANK_MASK == mark && self.token(rank) == token {
                return Some(rank);
            }
            at = (at + 1) & last;
        }
    }

    fn token(&self, rank: u32) -> &'static [u8] {
        let at = usize::try_from(rank).unwrap_or(usize::MAX >> 3);
        let range = word(self.starts, at) as usize..word(self.starts, at + 1) as usize;
        self.bytes.get(range).unwrap_or_default()
    }
}
