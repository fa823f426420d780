//! Keeps what is one JSON text until its end.

/// Most of a body that is kept whole.
pub(super) const MAX_BODY: usize = 8 * 1024 * 1024;
/// What is kept of the end of a longer one.
const TAIL: usize = 64 * 1024;

#[derive(Debug, Default)]
pub struct Collector {
    head: Vec<u8>,
    tail: Vec<u8>,
    cut: bool,
}

impl Collector {
    pub(super) fn push(&mut self, chunk: &[u8]) {
        if !self.cut && self.head.len() + chunk.len() <= MAX_BODY {
            self.head.extend_from_slice(chunk);
            return;
        }
        let mut rest = chunk;
        if !self.cut {
            let (fits, after) = chunk.split_at(MAX_BODY - self.head.len());
            self.head.extend_from_slice(fits);
            let overlap = self.head.len().saturating_sub(TAIL);
            self.tail.extend_from_slice(self.head.get(overlap..).unwrap_or_default());
            self.cut = true;
            rest = after;
        }
        let useful = rest.get(rest.len().saturating_sub(TAIL)..).unwrap_or_default();
        if self.tail.len() + useful.len() > 4 * TAIL {
            let surplus = self.tail.len().saturating_sub(TAIL);
            self.tail.drain(..surplus);
        }
        self.tail.extend_from_slice(useful);
    }

    /// Forgets what it has; a buffer that grew large is given back.
    pub(super) fn clear(&mut self) {
        if self.head.capacity() > TAIL {
            self.head = Vec::new();
        }
        self.head.clear();
        self.tail = Vec::new();
        self.cut = false;
    }

    /// The body, or its first 8 MiB.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// The last 64 KiB of a body that was too long.
    pub(super) fn tail(&self) -> Option<&[u8]> {
        let from = self.tail.len().saturating_sub(TAIL);
        self.cut.then(|| self.tail.get(from..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_body_is_kept_however_it_was_cut() {
        let body: Vec<u8> = (0..MAX_BODY + 300_000).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect();
        for step in [1009, 65_536, 1_000_000, body.len()] {
            let mut collector = Collector::default();
            body.chunks(step).for_each(|chunk| collector.push(chunk));
            assert_eq!(collector.head(), &body[..MAX_BODY]);
            assert_eq!(collector.tail().expect("cut"), &body[body.len() - TAIL..], "{step}");
            assert!(collector.tail.len() <= 5 * TAIL);
        }
        let mut short = Collector::default();
        short.push(b"{}");
        assert_eq!((short.head(), short.tail()), (&b"{}"[..], None));
    }
}
