//! How far answers are read on when their clients have gone: so long, so many
//! tokens, so many at once. Beyond, the vendor's answer is dropped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::wire::Meter;

/// Most bytes of one drain, whatever they say.
const MOST_BYTES: usize = 64 << 20;

/// The caps of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainLimits {
    /// Of one drain, from the moment the client went.
    pub time: Duration,
    /// That one drain may see generated, those before the client went included.
    pub tokens: u64,
    /// Drains at one time.
    pub at_once: usize,
}

impl Default for DrainLimits {
    /// Two minutes, 32,768 tokens, 256 at once.
    fn default() -> Self {
        Self { time: Duration::from_secs(120), tokens: 32_768, at_once: 256 }
    }
}

/// The drains of one node.
#[derive(Debug, Default)]
pub struct Drains {
    limits: DrainLimits,
    now: AtomicUsize,
}

impl Drains {
    /// None yet.
    #[must_use]
    pub const fn new(limits: DrainLimits) -> Self {
        Self { limits, now: AtomicUsize::new(0) }
    }

    /// Begins one; `None`: there are as many as there may be.
    #[must_use]
    pub fn begin(&self) -> Option<Drain<'_>> {
        let more = |now| (now < self.limits.at_once).then_some(now + 1);
        self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Drain { all: self, began: Instant::now(), bytes: 0 })
    }
}

/// One answer that is read without its client; its place goes back when it is
/// dropped.
#[derive(Debug)]
#[must_use]
pub struct Drain<'a> {
    all: &'a Drains,
    began: Instant,
    bytes: usize,
}

impl Drain<'_> {
    /// How long it may still take.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.all.limits.time.saturating_sub(self.began.elapsed())
    }

    /// Counts what came; whether more may come.
    #[must_use]
    pub fn goes_on(&mut self, chunk: &[u8], meter: &Meter) -> bool {
        self.bytes = self.bytes.saturating_add(chunk.len());
        self.bytes < MOST_BYTES && meter.generated() < self.all.limits.tokens && !self.left().is_zero()
    }
}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        self.all.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use clawgate_shared::dialect::Protocol;

    use super::*;

    #[test]
    fn there_are_never_more_than_may_be_and_places_come_back() {
        let drains = Drains::new(DrainLimits { at_once: 2, ..DrainLimits::default() });
        let first = drains.begin().expect("a place");
        let second = drains.begin().expect("another");
        assert!(drains.begin().is_none());
        drop(first);
        assert!(drains.begin().is_some());
        drop(second);
        assert_eq!(drains.now.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn tokens_and_time_end_a_drain() {
        let mut meter = Meter::new(Protocol::OpenAiChat, "openai");
        let chunk = b"data: {\"choices\":[{\"delta\":{\"content\":\"one two three four five six seven\"}}]}\n\n";
        meter.push(chunk);
        let drains = |tokens, seconds| {
            Drains::new(DrainLimits { tokens, time: Duration::from_secs(seconds), ..DrainLimits::default() })
        };
        assert!(drains(100, 9).begin().expect("a place").goes_on(chunk, &meter));
        assert!(!drains(5, 9).begin().expect("a place").goes_on(chunk, &meter));
        assert!(!drains(100, 0).begin().expect("a place").goes_on(chunk, &meter));
    }
}
