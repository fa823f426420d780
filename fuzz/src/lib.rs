//! What the fuzz targets share: the module under test, and how an input is cut.
//!
//! Invariant: a target asserts more than the absence of a panic, against a check
//! that shares no code with what it checks.
//! Deliberately absent: everything else of the planes. What is under test knows
//! nothing of it, so that a target builds in a minute and runs without a runtime.

// The modules under test name themselves as they do in their own crates.
extern crate self as clawgate_shared;

#[path = "../../shared/src/catalogue/mod.rs"]
pub mod catalogue;
#[path = "../../shared/src/dialect.rs"]
pub mod dialect;
#[path = "../../shared/src/egress.rs"]
pub mod egress;
#[path = "../../shared/src/origin.rs"]
pub mod origin;
#[path = "../../shared/src/pricing/mod.rs"]
pub mod pricing;
#[path = "../../shared/src/usage.rs"]
pub mod usage;
#[path = "../../proxy/src/wire/mod.rs"]
pub mod wire;

/// The first byte of an input, which chooses, and the rest.
#[must_use]
pub fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// Cuts that a seed names: in short pieces when it is even, else in few long ones.
#[must_use]
pub fn cut(data: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut state = u64::from(seed) + 1;
    let longest = if seed.is_multiple_of(2) { 7 } else { data.len() as u64 / 2 + 1 };
    let mut pieces = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let length = usize::try_from((state >> 33) % (longest + 1)).unwrap_or(1).min(rest.len());
        let (piece, after) = rest.split_at(length);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// The input with one byte blown up to more than any buffer of a framer holds, so
/// that small inputs reach what happens to large ones.
#[must_use]
pub fn swollen(data: &[u8], at: u8, length: usize) -> Vec<u8> {
    let at = usize::from(at).min(data.len());
    let (before, after) = data.split_at(at);
    let filler = after.first().copied().unwrap_or(b'x');
    let mut whole = Vec::with_capacity(data.len() + length);
    whole.extend_from_slice(before);
    whole.resize(before.len() + length, filler);
    whole.extend_from_slice(after);
    whole
}
