//! Counts tokens as the public vocabularies do, for when a vendor does not say.
//!
//! Invariant: a text's count is that of the reference tokenizer, special tokens
//! taken for plain text, except for a run of more than 512 bytes without a break
//! (`aaaa…`), which is counted in parts. The vocabularies lie in the program's
//! file, some 5 MB of it, and are read in place; only what splits text into words
//! is built when first needed (some 4 MB), and goes with its [`Counter`].
//! Deliberately absent: ids of tokens, decoding, threads, and vocabularies of
//! vendors that do not publish theirs.

mod json;
mod layout;
mod table;

use clawgate_shared::dialect::Protocol;
use regex::Regex;

use table::Table;

static O200K: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/o200k.vocabulary"));
static CL100K: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cl100k.vocabulary"));

/// Longer runs without a break are counted in parts: putting one together takes
/// time with the square of its length.
const MAX_PIECE: usize = 512;
/// Between texts that do not touch, in what is to be counted.
pub(super) const APART: u8 = 0;

/// Splits as the vocabularies were trained on, less a look ahead that
/// [`Words::next`] does itself.
const O200K_WORDS: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
const CL100K_WORDS: &str =
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+$|\s*[\r\n]|\s+";

/// Which vocabulary a model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// Of GPT-4o and everything since; the best guess for models of others that
    /// speak the same dialect.
    O200k,
    /// Of GPT-4, GPT-3.5 and the embedding models.
    Cl100k,
}

impl Vocabulary {
    /// The vocabulary to count a model's text with; `None` for dialects whose
    /// vendors have not published one.
    #[must_use]
    pub fn of(protocol: Protocol, model: &str) -> Option<Self> {
        let dialect = matches!(
            protocol,
            Protocol::OpenAiChat | Protocol::OpenAiCompletions | Protocol::OpenAiResponses | Protocol::OpenAiEmbeddings
        );
        let name = model.rsplit('/').next().unwrap_or(model);
        let old = ["gpt-3.5", "gpt-35", "text-embedding-", "davinci-002", "babbage-002"];
        let newer = ["gpt-4o", "gpt-4.1", "gpt-4.5"];
        let starts = |list: &[&str]| list.iter().any(|start| name.starts_with(start));
        let of_gpt4 = name.starts_with("gpt-4") && !starts(&newer);
        dialect.then_some(if of_gpt4 || starts(&old) { Self::Cl100k } else { Self::O200k })
    }

    fn table(self) -> Option<Table> {
        Table::read(match self {
            Self::O200k => O200K,
            Self::Cl100k => CL100K,
        })
    }
}

/// Counts texts, one after the other. What it needs is built at its first text.
#[derive(Debug, Default)]
pub struct Counter {
    o200k: Option<Regex>,
    cl100k: Option<Regex>,
    /// Where each part of the word in hand begins, and the rank it would have
    /// together with the next.
    parts: Vec<(usize, u32)>,
}

impl Counter {
    /// Tokens of what stands between the quotes of JSON strings, several of them
    /// with a zero byte between. `None` is never seen: the tables are our own.
    pub fn json(&mut self, vocabulary: Vocabulary, raw: &[u8]) -> Option<u64> {
        let mut sum = 0;
        for part in raw.split(|byte| *byte == APART) {
            sum += self.text(vocabulary, &json::unescaped(part))?;
        }
        Some(sum)
    }

    /// Tokens of a text.
    pub fn text(&mut self, vocabulary: Vocabulary, text: &str) -> Option<u64> {
        let table = vocabulary.table()?;
        let (split, pattern) = match vocabulary {
            Vocabulary::O200k => (&mut self.o200k, O200K_WORDS),
            Vocabulary::Cl100k => (&mut self.cl100k, CL100K_WORDS),
        };
        if split.is_none() {
            *split = Regex::new(pattern).ok();
        }
        let split = split.as_ref()?;
        let mut sum = 0;
        for word in (Words { split, text, at: 0 }) {
            for piece in word.as_bytes().chunks(MAX_PIECE) {
                sum += if table.rank(piece).is_some() { 1 } else { merged(&table, piece, &mut self.parts) };
            }
        }
        Some(sum)
    }
}

/// A text's words.
struct Words<'a> {
    split: &'a Regex,
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    /// Of white space before a word the last one belongs to the word, unless it
    /// ends a line.
    fn next(&mut self) -> Option<&'a str> {
        let found = self.split.find_at(self.text, self.at)?;
        let word = found.as_str();
        let last = word.chars().next_back().filter(|last| last.is_whitespace() && !matches!(last, '\r' | '\n'));
        let shared = last.map_or(0, char::len_utf8);
        let keep = if found.end() < self.text.len() && word.len() > shared { word.len() - shared } else { word.len() };
        self.at = found.start() + keep;
        word.get(..keep).or(Some(word))
    }
}

/// How many tokens a word that is none itself is made of: the two neighbours
/// that are lowest in rank together become one, until none can.
fn merged(table: &Table, word: &[u8], parts: &mut Vec<(usize, u32)>) -> u64 {
    let rank = |from: usize, to: usize| word.get(from..to).and_then(|token| table.rank(token)).unwrap_or(u32::MAX);
    parts.clear();
    parts.extend((0..word.len()).map(|at| (at, rank(at, at + 2))));
    let begin = |parts: &[(usize, u32)], at: usize| parts.get(at).map_or(word.len(), |(begin, _)| *begin);
    while let Some((at, lowest)) = parts.iter().enumerate().min_by_key(|(_, (_, rank))| *rank).map(|(at, p)| (at, p.1))
    {
        if lowest == u32::MAX {
            break;
        }
        parts.remove(at + 1);
        for at in [Some(at), at.checked_sub(1)].into_iter().flatten() {
            // The last part has no neighbour.
            let whole = if at + 1 < parts.len() { rank(begin(parts, at), begin(parts, at + 2)) } else { u32::MAX };
            if let Some(part) = parts.get_mut(at) {
                part.1 = whole;
            }
        }
    }
    parts.len() as u64
}

#[cfg(test)]
mod tests;
