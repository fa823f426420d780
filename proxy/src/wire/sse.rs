//! Cuts a byte stream into server-sent events, incrementally and without
//! copying what arrives whole.
//!
//! A *unit* is what belongs together: the lines of one event with the blank
//! line that ends it, a lone blank line, or a comment line before an event.
//! Units are the same however the stream was split; joined they are the stream.

/// Longest unit looked into. Of a longer one only the two ends are kept.
pub const MAX_UNIT: usize = 256 * 1024;
/// What is kept of the beginning of an oversize unit.
const HEAD: usize = 1024;
/// What is kept of the end of an oversize unit.
const TAIL: usize = 64 * 1024;

/// What the framer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit<'a> {
    /// All bytes of the unit.
    Whole(&'a [u8]),
    /// Both ends of a unit over [`MAX_UNIT`].
    Oversize {
        /// The first 1 KiB.
        head: &'a [u8],
        /// The last 64 KiB.
        tail: &'a [u8],
    },
    /// The line feed of a CRLF whose carriage return ended the unit before.
    Rest,
}

/// The state between two chunks.
#[derive(Debug, Default)]
pub struct Framer {
    /// The unfinished unit; once oversize, its last bytes.
    carry: Vec<u8>,
    /// The first bytes of an oversize unit.
    head: Vec<u8>,
    /// Bytes of the unfinished unit.
    length: usize,
    /// Bytes of the unfinished line, and the first of them.
    line: usize,
    first: u8,
    /// Whole lines in the unfinished unit.
    lines: usize,
    /// A carriage return came last; a line feed belongs to it.
    after_cr: bool,
}

impl Framer {
    /// Takes a chunk. `found` gets each unit that ends in it and the offset in
    /// the chunk behind the unit.
    pub fn feed(&mut self, chunk: &[u8], mut found: impl FnMut(Unit<'_>, usize)) {
        let mut start = 0;
        let mut at = 0;
        if self.after_cr && !chunk.is_empty() {
            self.after_cr = false;
            if chunk.first() == Some(&b'\n') {
                at = 1;
                if self.length == 0 {
                    start = 1;
                    found(Unit::Rest, 1);
                }
            }
        }
        loop {
            let rest = chunk.get(at..).unwrap_or_default();
            let end = memchr::memchr2(b'\n', b'\r', rest);
            let part = end.unwrap_or(rest.len());
            if self.line == 0 && part > 0 {
                self.first = rest.first().copied().unwrap_or_default();
            }
            self.line += part;
            let Some(end) = end else { break };
            at += end + 1;
            if rest.get(end) == Some(&b'\r') {
                match chunk.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            let blank = self.line == 0;
            let comment = self.lines == 0 && self.first == b':';
            self.line = 0;
            self.lines += 1;
            if blank || comment {
                self.emit(chunk.get(start..at).unwrap_or_default(), &mut |unit| found(unit, at));
                start = at;
            }
        }
        self.keep(chunk.get(start..).unwrap_or_default());
    }

    /// The stream is over: gives the last unit if it lacks its blank line.
    pub fn finish(&mut self, mut found: impl FnMut(Unit<'_>)) {
        if self.length > 0 {
            self.emit(&[], &mut found);
        }
    }

    /// Whether the stream stands between two units.
    #[must_use]
    pub const fn at_boundary(&self) -> bool {
        self.length == 0
    }

    /// The bytes of the unfinished unit; `None` once it is oversize.
    #[must_use]
    pub fn pending(&self) -> Option<&[u8]> {
        (self.length <= MAX_UNIT).then_some(self.carry.as_slice())
    }

    fn emit(&mut self, last: &[u8], found: &mut impl FnMut(Unit<'_>)) {
        let length = self.length + last.len();
        if length <= MAX_UNIT {
            if self.length == 0 {
                found(Unit::Whole(last));
            } else {
                self.carry.extend_from_slice(last);
                found(Unit::Whole(&self.carry));
            }
        } else {
            self.keep(last);
            let from = self.carry.len().saturating_sub(TAIL);
            found(Unit::Oversize { head: &self.head, tail: self.carry.get(from..).unwrap_or_default() });
            // An oversize unit's buffer is not worth keeping.
            self.carry = Vec::new();
            self.head = Vec::new();
        }
        self.carry.clear();
        self.length = 0;
        self.lines = 0;
    }

    fn keep(&mut self, part: &[u8]) {
        let whole_before = self.length <= MAX_UNIT;
        self.length += part.len();
        if self.length <= MAX_UNIT {
            self.carry.extend_from_slice(part);
            return;
        }
        if whole_before {
            let wanted = HEAD.min(self.carry.len());
            self.head.extend_from_slice(self.carry.get(..wanted).unwrap_or_default());
            self.head.extend_from_slice(part.get(..HEAD - wanted).unwrap_or_default());
        }
        // Only the end matters from here on; moved seldom, not per chunk.
        let useful = part.get(part.len().saturating_sub(TAIL)..).unwrap_or_default();
        if self.carry.len() + useful.len() > 4 * TAIL {
            let surplus = self.carry.len().saturating_sub(TAIL);
            self.carry.drain(..surplus);
        }
        self.carry.extend_from_slice(useful);
    }
}

/// One event's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event` field; empty when absent.
    pub name: &'a [u8],
    /// The `data` lines, joined by line feeds.
    pub data: &'a [u8],
}

/// Reads a unit's fields; `None` without a `data` line. `scratch` is used only
/// for an event with several of them.
#[must_use]
pub fn event<'a>(unit: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<Event<'a>> {
    let unit = unit.strip_prefix(b"\xef\xbb\xbf").unwrap_or(unit);
    let mut name = &unit[..0];
    let mut data = None;
    let mut joined = false;
    scratch.clear();
    for line in lines(unit) {
        let (field, value) = field(line);
        match field {
            b"event" => name = value,
            b"data" => match data {
                None => data = Some(value),
                Some(first) => {
                    if !joined {
                        scratch.extend_from_slice(first);
                        joined = true;
                    }
                    scratch.push(b'\n');
                    scratch.extend_from_slice(value);
                }
            },
            _ => {}
        }
    }
    let single = data?;
    Some(Event { name, data: if joined { scratch } else { single } })
}

/// A line as field name and value; a comment's name is empty.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b':', line) {
        None => (line, &[]),
        Some(colon) => {
            let (name, rest) = line.split_at(colon);
            let value = rest.strip_prefix(b":").unwrap_or(rest);
            (name, value.strip_prefix(b" ").unwrap_or(value))
        }
    }
}

/// The lines of a unit without their ends.
fn lines(unit: &[u8]) -> impl Iterator<Item = &[u8]> {
    lines_inclusive(unit).map(|line| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    })
}

/// The lines of a unit with their ends.
pub(super) fn lines_inclusive(unit: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = unit;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = memchr::memchr2(b'\n', b'\r', rest).map_or(rest.len(), |at| at + 1);
        if rest.get(end - 1) == Some(&b'\r') && rest.get(end) == Some(&b'\n') {
            end += 1;
        }
        let (line, after) = rest.split_at(end);
        rest = after;
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The units of a stream fed in pieces, a split CRLF's line feed put back.
    fn units(stream: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
        let mut framer = Framer::default();
        let mut list: Vec<Vec<u8>> = Vec::new();
        let mut take = |unit: Unit<'_>| match unit {
            Unit::Whole(bytes) => list.push(bytes.to_vec()),
            Unit::Oversize { head, tail } => list.push([head, tail].concat()),
            Unit::Rest => list.last_mut().expect("a unit before").push(b'\n'),
        };
        let mut at = 0;
        for cut in cuts.iter().copied().chain([stream.len()]) {
            let cut = cut.clamp(at, stream.len());
            framer.feed(&stream[at..cut], |unit, _| take(unit));
            at = cut;
        }
        framer.finish(take);
        list
    }

    #[test]
    fn units_of_every_line_end() {
        for (stream, want) in [
            ("data: a\n\ndata: b\n\n", vec!["data: a\n\n", "data: b\n\n"]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", vec!["data: a\r\n\r\n", "data: b\r\n\r\n"]),
            ("data: a\r\rdata: b\r\r", vec!["data: a\r\r", "data: b\r\r"]),
            (": ping\n\ndata: a\n\n", vec![": ping\n", "\n", "data: a\n\n"]),
            ("event: x\n: c\ndata: a\n\n", vec!["event: x\n: c\ndata: a\n\n"]),
            ("data: a\n\ndata: b", vec!["data: a\n\n", "data: b"]),
            ("\n\n", vec!["\n", "\n"]),
            ("", vec![]),
        ] {
            let found = units(stream.as_bytes(), &[]);
            let found: Vec<_> = found.iter().map(|unit| std::str::from_utf8(unit).expect("text")).collect();
            assert_eq!(found, want, "{stream:?}");
        }
    }

    #[test]
    fn fields_of_every_spelling() {
        let mut scratch = Vec::new();
        let mut read = |unit: &str| {
            event(unit.as_bytes(), &mut scratch)
                .map(|e| (String::from_utf8_lossy(e.name).into_owned(), String::from_utf8_lossy(e.data).into_owned()))
        };
        let pair = |name: &str, data: &str| Some((name.to_owned(), data.to_owned()));
        assert_eq!(read("data: {}\n\n"), pair("", "{}"));
        assert_eq!(read("data:{}\n\n"), pair("", "{}"));
        assert_eq!(read("\u{feff}data: x\n\n"), pair("", "x"));
        assert_eq!(read("event: e\r\nid: 7\r\ndata: x\r\n\r\n"), pair("e", "x"));
        assert_eq!(read("data: a\ndata: b\ndata\n\n"), pair("", "a\nb\n"));
        assert_eq!(read("data:  x\n\n"), pair("", " x"));
        assert_eq!(read(": data: x\n\n"), None);
        assert_eq!(read("datax: y\n\n"), None);
        assert_eq!(read("data: x"), pair("", "x"));
    }

    #[test]
    fn an_oversize_unit_keeps_its_ends_and_no_more() {
        let mut stream = b"event: big\ndata: ".to_vec();
        stream.extend(std::iter::repeat_n(b'x', 3 * MAX_UNIT));
        stream.extend_from_slice(b"END\n\ndata: next\n\n");
        for step in [1000, 70_000, stream.len()] {
            let mut framer = Framer::default();
            let mut seen = Vec::new();
            for chunk in stream.chunks(step) {
                framer.feed(chunk, |unit, _| match unit {
                    Unit::Oversize { head, tail } => {
                        assert!(head.starts_with(b"event: big\n") && head.len() == HEAD);
                        assert!(tail.ends_with(b"END\n\n") && tail.len() == TAIL);
                        seen.push("oversize");
                    }
                    Unit::Whole(bytes) => {
                        assert_eq!(bytes, b"data: next\n\n");
                        seen.push("whole");
                    }
                    Unit::Rest => {}
                });
                assert!(framer.carry.len() <= MAX_UNIT.max(5 * TAIL));
            }
            assert_eq!(seen, ["oversize", "whole"], "{step}");
            assert!(framer.at_boundary());
        }
    }

    proptest! {
        #[test]
        fn units_do_not_depend_on_the_split(
            stream in "(data:|event: a|: c|x|\r\n|\n|\r|\n\n|\r\n\r\n){0,24}",
            cuts in prop::collection::vec(0_usize..120, 0..12),
        ) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let whole = units(stream.as_bytes(), &[]);
            prop_assert_eq!(whole.concat(), stream.as_bytes());
            prop_assert_eq!(&units(stream.as_bytes(), &cuts), &whole);
            let every: Vec<_> = (0..stream.len()).collect();
            prop_assert_eq!(&units(stream.as_bytes(), &every), &whole);
        }
    }
}
