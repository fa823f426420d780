//! What requests of one bot for one model usually use.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Pairs of bot and model that are remembered; beyond, no new one is.
const MAX_PAIRS: usize = 20_000;
/// Buckets per power of two, and powers: up to 2^32 tokens.
const PER_OCTAVE: u32 = 4;
const BUCKETS: usize = 128;
/// Fewer samples say nothing.
const ENOUGH: u32 = 20;
/// Beyond so many, all are halved: what was long ago fades.
const FADES: u32 = 4096;
/// The share of requests that use no more than what is learned, in percent.
const SHARE: u64 = 95;

/// Sizes of one kind, in buckets a quarter of a power of two wide.
#[derive(Debug)]
struct Sizes([AtomicU32; BUCKETS]);

/// Prompts and answers of one bot and model.
#[derive(Debug, Default)]
pub struct Usual {
    input: Sizes,
    output: Sizes,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Learned(Mutex<Pairs>);

/// (bot, model) -> what they use
type Pairs = HashMap<(Arc<str>, String), Arc<Usual>>;

impl Learned {
    /// What is known of a pair; `None`: too many are known already.
    #[must_use]
    pub fn of(&self, bot_id: &Arc<str>, model: &str) -> Option<Arc<Usual>> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (bot_id.clone(), model.to_owned());
        if let Some(known) = map.get(&key) {
            return Some(known.clone());
        }
        (map.len() < MAX_PAIRS).then(|| map.entry(key).or_default().clone())
    }
}

impl Usual {
    /// Adds what a request used, in tokens.
    pub fn add(&self, input: u64, output: u64) {
        self.input.add(input);
        self.output.add(output);
    }

    /// Input and output that 95 of 100 requests do not pass; `None` until there
    /// were enough of them.
    #[must_use]
    pub fn bound(&self) -> Option<(u64, u64)> {
        Some((self.input.bound()?, self.output.bound()?))
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }
}

impl Sizes {
    fn add(&self, tokens: u64) {
        let Some(bucket) = self.0.get(bucket_of(tokens)) else { return };
        if bucket.fetch_add(1, Ordering::Relaxed) >= FADES {
            for bucket in &self.0 {
                let half = |count: u32| Some(count / 2);
                let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
            }
        }
    }

    fn bound(&self) -> Option<u64> {
        let counts: Vec<u64> = self.0.iter().map(|bucket| u64::from(bucket.load(Ordering::Relaxed))).collect();
        let all: u64 = counts.iter().sum();
        if all < u64::from(ENOUGH) {
            return None;
        }
        let wanted = (all * SHARE).div_ceil(100);
        let mut sum = 0;
        let found = counts.iter().position(|count| {
            sum += count;
            sum >= wanted
        });
        found.map(end_of)
    }
}

/// Small numbers have a bucket each; larger ones share, four to a power of two.
fn bucket_of(tokens: u64) -> usize {
    if tokens < u64::from(PER_OCTAVE) {
        return usize::try_from(tokens).unwrap_or(0);
    }
    let octave = tokens.ilog2();
    let quarter = (tokens >> (octave - 2)) & 3;
    let at = u64::from(octave - 1) * u64::from(PER_OCTAVE) + quarter;
    usize::try_from(at).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The largest number of a bucket.
fn end_of(bucket: usize) -> u64 {
    let at = bucket as u64;
    if at < u64::from(PER_OCTAVE) {
        return at;
    }
    let (octave, quarter) = (at / 4 + 1, at % 4);
    ((5 + quarter) << (octave - 2)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_lies_in_its_bucket() {
        for tokens in (0..5000).chain([1 << 20, (1 << 20) + 1, u64::from(u32::MAX)]) {
            let bucket = bucket_of(tokens);
            assert!(tokens <= end_of(bucket), "{tokens}");
            assert!(bucket == 0 || tokens > end_of(bucket - 1), "{tokens}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn what_is_usual_is_known_after_some_requests() {
        let learned = Learned::default();
        let bot: Arc<str> = "bot_1".into();
        let usual = learned.of(&bot, "m").expect("room");
        (0..19).for_each(|_| usual.add(100, 10));
        assert_eq!(usual.bound(), None);
        (0..76).for_each(|_| usual.add(100, 10));
        (0..5).for_each(|_| usual.add(50_000, 9000));
        let (input, output) = learned.of(&bot, "m").and_then(|usual| usual.bound()).expect("enough");
        assert_eq!((input, output), (111, 11));
        (0..100_000).for_each(|_| usual.add(1000, 1000));
        assert_eq!(usual.bound(), Some((1023, 1023)), "what was long ago fades");
    }
}
