//! A pull scanner over a whole JSON text: walks what is asked for, skips the
//! rest, and knows where everything stands.
//!
//! Two manners: strict for what we are about to send (a fault is a refusal),
//! lenient for what a vendor sent (odd scalars such as `NaN` are passed over).
//! Neither looks at raw control characters inside strings: they change nothing
//! about where a string ends.

use std::borrow::Cow;
use std::ops::Range;

use super::references::{Marks, mark};

/// Nesting a body may have.
pub(super) const MAX_DEPTH: usize = 256;

/// Where and why a text is no JSON; never what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) deep: bool,
}

pub(super) type Step<T = ()> = Result<T, Fault>;

pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    strict: bool,
    odd: bool,
    marks: Marks,
}

impl<'a> Scanner<'a> {
    pub(super) const fn strict(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, strict: true, odd: false, marks: Marks::NONE }
    }

    pub(super) const fn lenient(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, strict: false, odd: false, marks: Marks::NONE }
    }

    /// Notes that a number was read which cannot be what it stands for.
    pub(super) const fn doubt(&mut self) {
        self.odd = true;
    }

    /// Whether there was such a number.
    pub(super) const fn doubted(&self) -> bool {
        self.odd
    }

    /// What the names of all members that were passed, at any depth, may stand for.
    pub(super) const fn marks(&self) -> Marks {
        self.marks
    }

    /// The offset of the next unread byte.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// The next byte after white space, unread; `None` at the end.
    pub(super) fn next(&mut self) -> Option<u8> {
        while let Some(&byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    fn fault<T>(&self) -> Step<T> {
        Err(Fault { at: self.at.min(self.bytes.len()), deep: false })
    }

    fn eat(&mut self, wanted: u8) -> Step {
        if self.next() == Some(wanted) {
            self.at += 1;
            Ok(())
        } else {
            self.fault()
        }
    }

    /// Only white space may follow.
    pub(super) fn end(&mut self) -> Step {
        if self.next().is_none() { Ok(()) } else { self.fault() }
    }

    /// Walks an object; `member` gets each name and must read the value.
    /// Returns the object's range, braces included.
    pub(super) fn object(&mut self, mut member: impl FnMut(&mut Self, &[u8]) -> Step) -> Step<Range<usize>> {
        self.eat(b'{')?;
        let start = self.at - 1;
        if self.next() == Some(b'}') {
            self.at += 1;
            return Ok(start..self.at);
        }
        loop {
            let name = self.name()?;
            member(self, &name)?;
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(start..self.at);
                }
                _ => return self.fault(),
            }
        }
    }

    /// Walks an array; `element` must read the value. Returns the range.
    pub(super) fn array(&mut self, mut element: impl FnMut(&mut Self) -> Step) -> Step<Range<usize>> {
        self.eat(b'[')?;
        let start = self.at - 1;
        if self.next() == Some(b']') {
            self.at += 1;
            return Ok(start..self.at);
        }
        loop {
            element(self)?;
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(start..self.at);
                }
                _ => return self.fault(),
            }
        }
    }

    /// A member's name, decoded, and the colon behind it.
    fn name(&mut self) -> Step<Cow<'a, [u8]>> {
        let (range, escaped) = self.string()?;
        let name = if escaped {
            Cow::Owned(self.decoded(&range)?.into_bytes())
        } else {
            let inner = self.bytes.get(range.start + 1..range.end - 1).unwrap_or_default();
            Cow::Borrowed(inner)
        };
        self.marks |= mark(&name);
        self.eat(b':')?;
        Ok(name)
    }

    /// A string's range, quotes included, and whether it holds escapes.
    fn string(&mut self) -> Step<(Range<usize>, bool)> {
        self.eat(b'"')?;
        let start = self.at - 1;
        let mut escaped = false;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let Some(found) = quote_or_escape(rest) else {
                self.at = self.bytes.len();
                return self.fault();
            };
            self.at += found;
            if self.bytes.get(self.at) == Some(&b'"') {
                self.at += 1;
                let inner = self.bytes.get(start..self.at).unwrap_or_default();
                // To the end, whatever is found: many bytes are looked at together.
                if self.strict && inner.iter().fold(false, |found, byte| found | (*byte < b' ')) {
                    return self.fault();
                }
                return Ok((start..self.at, escaped));
            }
            escaped = true;
            if self.strict {
                self.escape()?;
            } else {
                self.at += 2;
            }
        }
    }

    /// One escape sequence, checked.
    fn escape(&mut self) -> Step {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u')
                if self
                    .bytes
                    .get(self.at + 2..self.at + 6)
                    .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) =>
            {
                self.at += 6;
            }
            _ => return self.fault(),
        }
        Ok(())
    }

    fn decoded(&self, range: &Range<usize>) -> Step<String> {
        let token = self.bytes.get(range.clone()).unwrap_or_default();
        serde_json::from_slice(token).map_err(|_| Fault { at: range.start, deep: false })
    }

    /// Reads any value; a string is given decoded, with its range.
    pub(super) fn text(&mut self) -> Step<Option<(String, Range<usize>)>> {
        if self.next() != Some(b'"') {
            self.skip()?;
            return Ok(None);
        }
        let (range, escaped) = self.string()?;
        let inner = self.bytes.get(range.start + 1..range.end - 1).unwrap_or_default();
        // What stands there as it is read need not be read once more.
        let plain = std::str::from_utf8(inner).ok().filter(|text| !escaped && text.bytes().all(|byte| byte >= b' '));
        let text = plain.map_or_else(|| self.decoded(&range), |text| Ok(text.to_owned()))?;
        Ok(Some((text, range)))
    }

    /// Reads any value; a number is given as its bytes.
    pub(super) fn number(&mut self) -> Step<Option<&'a [u8]>> {
        let numeric = matches!(self.next(), Some(b'-' | b'0'..=b'9'));
        let range = self.skip()?;
        Ok(self.bytes.get(range).filter(|_| numeric))
    }

    /// Reads any value and gives its bytes.
    pub(super) fn raw(&mut self) -> Step<&'a [u8]> {
        let range = self.skip()?;
        Ok(self.bytes.get(range).unwrap_or_default())
    }

    /// Passes over one value of any kind and any depth up to the limit.
    pub(super) fn skip(&mut self) -> Step<Range<usize>> {
        let first = self.next();
        let start = self.at;
        // Most values are no containers.
        match first {
            Some(b'{' | b'[') | None => {}
            Some(b'"') => return self.string().map(|(range, _)| range),
            Some(_) => return self.scalar().map(|()| start..self.at),
        }
        let mut open = Nesting::default();
        loop {
            match self.next() {
                Some(b'{') => {
                    self.open(&mut open, true)?;
                    if self.next() == Some(b'}') {
                        self.close(&mut open);
                    } else {
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.open(&mut open, false)?;
                    if self.next() == Some(b']') {
                        self.close(&mut open);
                    } else {
                        continue;
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                Some(_) => self.scalar()?,
                None => return self.fault(),
            }
            loop {
                let Some(object) = open.top() else { return Ok(start..self.at) };
                match self.next() {
                    Some(b',') => {
                        self.at += 1;
                        if object {
                            self.key()?;
                        }
                        break;
                    }
                    Some(b'}') if object => self.close(&mut open),
                    Some(b']') if !object => self.close(&mut open),
                    _ => return self.fault(),
                }
            }
        }
    }

    fn key(&mut self) -> Step {
        let (range, escaped) = self.string()?;
        let name = self.bytes.get(range.start + 1..range.end - 1).unwrap_or_default();
        // What an escape spells is not worth finding out here.
        self.marks |= if escaped { Marks::ALL } else { mark(name) };
        self.eat(b':')
    }

    fn open(&mut self, open: &mut Nesting, object: bool) -> Step {
        if !open.push(object) {
            return Err(Fault { at: self.at, deep: true });
        }
        self.at += 1;
        Ok(())
    }

    fn close(&mut self, open: &mut Nesting) {
        open.pop();
        self.at += 1;
    }

    /// A number or a literal.
    fn scalar(&mut self) -> Step {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|byte| !matches!(byte, b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z'))
            .unwrap_or(rest.len());
        let token = rest.get(..length).unwrap_or_default();
        let known = || matches!(token, b"true" | b"false" | b"null") || is_number(token);
        if token.is_empty() || (self.strict && !known()) {
            return self.fault();
        }
        self.at += length;
        Ok(())
    }
}

/// Finds the next `"` or `\`. Text is full of short runs between escapes, for
/// which a vector search costs more than it saves: the first words are looked
/// at eight bytes at a time.
fn quote_or_escape(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    const WORDS: usize = 6;
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    let mut rest = text;
    for _ in 0..WORDS {
        let Some((word, after)) = rest.split_first_chunk::<8>() else { break };
        let word = u64::from_le_bytes(*word);
        let hits = zeros(word ^ (ONES * 0x22)) | zeros(word ^ (ONES * 0x5c));
        if hits != 0 {
            // The lowest hit is exact, whatever borrowing did above it.
            let within = (hits.trailing_zeros() / 8) as usize;
            return Some(text.len() - rest.len() + within);
        }
        rest = after;
    }
    memchr::memchr2(b'"', b'\\', rest).map(|found| text.len() - rest.len() + found)
}

/// The grammar of RFC 8259, section 6.
fn is_number(token: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = token.strip_prefix(b"-").unwrap_or(token);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest.first() == Some(&b'0')) {
        return false;
    }
    rest = rest.get(whole..).unwrap_or_default();
    if let Some(after) = rest.strip_prefix(b".") {
        let fraction = digits(after);
        if fraction == 0 {
            return false;
        }
        rest = after.get(fraction..).unwrap_or_default();
    }
    if let Some(after) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let after = after.strip_prefix(b"+").or_else(|| after.strip_prefix(b"-")).unwrap_or(after);
        let exponent = digits(after);
        if exponent == 0 {
            return false;
        }
        rest = after.get(exponent..).unwrap_or_default();
    }
    rest.is_empty()
}

/// Which brackets are open, one bit each.
#[derive(Default)]
struct Nesting {
    objects: [u64; MAX_DEPTH / 64],
    depth: usize,
}

impl Nesting {
    fn push(&mut self, object: bool) -> bool {
        let Some(word) = self.objects.get_mut(self.depth / 64) else { return false };
        let bit = 1 << (self.depth % 64);
        if object {
            *word |= bit
        } else {
            *word &= !bit
        }
        self.depth += 1;
        true
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// Whether the innermost open bracket is a brace; `None` when none is open.
    fn top(&self) -> Option<bool> {
        let last = self.depth.checked_sub(1)?;
        self.objects.get(last / 64).map(|word| word >> (last % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(text: &[u8]) -> bool {
        let mut scanner = Scanner::strict(text);
        scanner.skip().and_then(|_| scanner.end()).is_ok()
    }

    #[test]
    fn what_is_json_is_accepted_and_nothing_else() {
        for good in ["{}", "[]", " [1 , -0.5e+3,true,null,\"a\\u00e9\\\\\"] ", "{\"a\":{\"b\":[[],{}]}}", "0", "\"\""] {
            assert!(accepts(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "{",
            "}",
            "[1,]",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "[1 2]",
            "01",
            "1.",
            "-",
            "1e",
            "tru",
            "NaN",
            "\"",
            "\"\\x\"",
            "\"\\u12\"",
            "[}",
            "{]",
            "{\"a\":1]",
            "1 2",
            "[\"a\":1]",
        ] {
            assert!(!accepts(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(accepts(nested(MAX_DEPTH).as_bytes()));
        let deep = nested(MAX_DEPTH + 1);
        assert_eq!(Scanner::strict(deep.as_bytes()).skip(), Err(Fault { at: MAX_DEPTH, deep: true }));
        assert!(!accepts("[{\"a\":".repeat(200_000).as_bytes()));
    }

    #[test]
    fn escaped_names_are_the_names_they_spell() {
        let mut seen = Vec::new();
        let text = br#"{"mod\u0065l":1,"a\"b":2}"#;
        Scanner::strict(text)
            .object(|scanner, name| {
                seen.push(String::from_utf8_lossy(name).into_owned());
                scanner.skip().map(drop)
            })
            .expect("valid");
        assert_eq!(seen, ["model", "a\"b"]);
    }

    proptest! {
        #[test]
        fn quotes_and_escapes_are_found(text in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(0x21), Just(0x23), Just(b'\\')], 0..90)) {
            let want = text.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            prop_assert_eq!(quote_or_escape(&text), want);
            prop_assert_eq!(quote_or_escape(&[&[b'x'; 70], &text[..]].concat()), want.map(|at| at + 70));
        }

        #[test]
        fn agrees_with_serde(text in "[\\[\\]{}:,\"0-9a\\\\u .e+-]{0,24}|\\{\"a\":[0-9.eE+-]{1,6}\\}") {
            // serde_json also refuses what overflows and lone surrogates; nothing
            // here is big enough for the one, and the other is looked at on decode.
            let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            let ours = accepts(text.as_bytes());
            prop_assert!(ours == theirs || (ours && text.contains("\\u")) || (ours && text.contains(['e', 'E'])), "{text}");
        }

        #[test]
        fn never_panics_on_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Scanner::strict(&bytes).skip();
            let _ = Scanner::lenient(&bytes).skip();
        }
    }
}
