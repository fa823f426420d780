//! Parts of text that are kept, so that tokens can be counted when nobody has
//! reported them; the rest is reckoned in proportion to its [`TextSize`].

use super::super::tokens::{APART, Counter, Vocabulary};
use super::text::TextSize;

/// What is kept of an answer: its beginning, some four thousand tokens.
const OF_ANSWER: usize = 16 * 1024;
/// What is kept of a prompt: all of it, or blocks from all over it.
const OF_PROMPT: usize = 64 * 1024;
const BLOCK: usize = 1024;

/// A sample is counted again when it has grown by one part in so many.
const GROWTH: usize = 4;

/// A piece of text as it stands in JSON, and its size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    raw: Vec<u8>,
    size: TextSize,
}

impl Sample {
    /// Adds what an answer says next, of which `size` was measured, as long as
    /// there is room. Of a piece that does not fit, the beginning.
    pub(super) fn answer(&mut self, text: &[u8], size: TextSize) {
        let room = OF_ANSWER - self.raw.len().min(OF_ANSWER);
        match text.get(..room) {
            Some([]) => {}
            Some(kept) if kept.len() < text.len() => {
                self.raw.extend_from_slice(kept);
                self.size.text(kept);
            }
            Some(_) | None => {
                self.raw.extend_from_slice(text);
                self.size = self.size.and(size);
            }
        }
    }

    /// Tokens of all the text of which this is a part.
    #[must_use]
    pub fn tokens(&self, counter: &mut Counter, vocabulary: Vocabulary, all: TextSize) -> u64 {
        self.scale(counter, vocabulary).of(all)
    }

    /// Counts what is kept.
    #[must_use]
    pub fn scale(&self, counter: &mut Counter, vocabulary: Vocabulary) -> Scale {
        match counter.json(vocabulary, &self.raw) {
            Some(tokens) => Scale { part: self.size, tokens, bytes: self.raw.len() },
            None => Scale::default(),
        }
    }

    /// Whether there is much in it that `scale` does not know.
    pub(super) fn outgrew(&self, scale: Scale) -> bool {
        self.raw.len() > scale.bytes + scale.bytes / GROWTH
    }
}

/// How many tokens a part of a text turned out to have; by default nothing was
/// counted, and texts are taken for usual ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    part: TextSize,
    tokens: u64,
    bytes: usize,
}

impl Scale {
    /// Tokens of all the text.
    #[must_use]
    pub fn of(self, all: TextSize) -> u64 {
        all.scaled(self.part, self.tokens)
    }
}

/// What is in a request, with a part of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptSize {
    sample: Sample,
    text: TextSize,
    rest: TextSize,
}

impl PromptSize {
    /// Measures a request as [`TextSize::of_request`] does.
    #[must_use]
    pub fn of(json: &[u8]) -> Self {
        let every = json.len().div_ceil(OF_PROMPT).max(1);
        let mut sample = Sample::default();
        let mut blocks = 0;
        let (text, rest) = TextSize::parts_of_request(json, |text| {
            for block in text.chunks(BLOCK) {
                if blocks % every == 0 && sample.raw.len() + block.len() < OF_PROMPT {
                    sample.raw.extend_from_slice(block);
                    sample.size.text(block);
                }
                blocks += 1;
            }
            if sample.raw.last().is_some_and(|last| *last != APART) {
                sample.raw.push(APART);
            }
        });
        Self { sample, text, rest }
    }

    /// By size alone.
    #[must_use]
    pub const fn by_size(&self) -> u64 {
        self.text.and(self.rest).tokens()
    }

    /// By the tokens of the part that was kept.
    #[must_use]
    pub fn tokens(&self, counter: &mut Counter, vocabulary: Vocabulary) -> u64 {
        self.rest.tokens() + self.sample.tokens(counter, vocabulary, self.text)
    }
}
