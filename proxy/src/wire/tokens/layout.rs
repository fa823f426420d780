//! How a vocabulary lies in memory; the build script writes it and `table`
//! reads it.
//!
//! ```text
//! u32 tokens n │ u32 slot bits b │ u32 × (n + 1) where each token's bytes begin │ u32 × 2^b slots │ bytes
//! ```
//!
//! Numbers are little-endian. A slot is 0 or the rank + 1 with a few bits of the
//! token's hash above it; who is in the way moves to the next slot.

/// Low bits of a slot that are the rank + 1.
pub const RANK_BITS: u32 = 18;

/// Where a token's slot is looked for first, and the mark it bears.
pub fn place(token: &[u8], slot_bits: u32) -> (usize, u32) {
    let hash = token
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let slot = usize::try_from(mixed >> (64 - slot_bits)).unwrap_or(0);
    let mark = u32::try_from(mixed & 0x3fff).unwrap_or(0);
    (slot, mark << RANK_BITS)
}

/// Writes a vocabulary; a token's rank is its place in the list.
///
/// # Panics
/// There are more tokens than a slot can name.
#[allow(dead_code, reason = "only the build script writes")]
#[allow(clippy::panic, clippy::indexing_slicing)]
pub fn lay_out(tokens: &[Vec<u8>]) -> Vec<u8> {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    assert!(number(tokens.len()) < (1 << RANK_BITS), "too many tokens");
    let slot_bits = (tokens.len() * 5 / 4).next_power_of_two().trailing_zeros();
    let mut slots = vec![0_u32; 1 << slot_bits];
    let mut starts = Vec::with_capacity(tokens.len() + 1);
    let mut bytes = Vec::new();
    for (rank, token) in tokens.iter().enumerate() {
        starts.push(number(bytes.len()));
        bytes.extend_from_slice(token);
        let (mut at, mark) = place(token, slot_bits);
        while slots[at] != 0 {
            at = (at + 1) % slots.len();
        }
        slots[at] = mark | (number(rank) + 1);
    }
    starts.push(number(bytes.len()));
    let head = [number(tokens.len()), slot_bits];
    let mut out: Vec<u8> = head.iter().chain(&starts).chain(&slots).flat_map(|word| word.to_le_bytes()).collect();
    out.extend(bytes);
    out
}
