//! Cuts a stream of JSON values into its values, incrementally and without
//! copying what arrives whole.
//!
//! One value a line is how such streams are written, but where a value ends is
//! told by its brackets: one that is printed over several lines is one value
//! too. What stands between values is passed over.

use super::collect::{Collector, MAX_BODY};

/// What the framer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// All bytes of an object or a list.
    Whole(&'a [u8]),
    /// Both ends of one over 8 MiB.
    Oversize {
        /// The first 8 MiB.
        head: &'a [u8],
        /// The last 64 KiB.
        tail: &'a [u8],
    },
    /// The stream ended within it: its beginning.
    Broken(&'a [u8]),
}

/// The state between two chunks.
#[derive(Debug, Default)]
pub struct Framer {
    /// The unfinished value, as far as it came in earlier chunks.
    carry: Collector,
    /// Brackets that are open; none: between two values.
    depth: usize,
    in_string: bool,
    /// A backslash came last.
    escaped: bool,
}

impl Framer {
    /// Takes a chunk. `found` gets each value that ends in it.
    pub fn feed(&mut self, chunk: &[u8], mut found: impl FnMut(Value<'_>)) {
        let (mut start, mut at) = (0, 0);
        while let Some(&byte) = chunk.get(at) {
            if self.escaped {
                self.escaped = false;
            } else if self.in_string {
                let rest = chunk.get(at..).unwrap_or_default();
                let Some(next) = memchr::memchr2(b'"', b'\\', rest) else { break };
                at += next;
                self.escaped = rest.get(next) == Some(&b'\\');
                self.in_string = self.escaped;
            } else {
                match byte {
                    b'{' | b'[' => {
                        if self.depth == 0 {
                            start = at;
                        }
                        self.depth += 1;
                    }
                    b'"' if self.depth > 0 => self.in_string = true,
                    b'}' | b']' if self.depth > 0 => {
                        self.depth -= 1;
                        if self.depth == 0 {
                            self.emit(chunk.get(start..=at).unwrap_or_default(), &mut found);
                        }
                    }
                    _ => {}
                }
            }
            at += 1;
        }
        if self.depth > 0 {
            self.carry.push(chunk.get(start..).unwrap_or_default());
        }
    }

    /// The stream is over: gives what is left of a value.
    pub fn finish(&mut self, mut found: impl FnMut(Value<'_>)) {
        if self.depth > 0 {
            match self.carry.tail() {
                Some(tail) => found(Value::Oversize { head: self.carry.head(), tail }),
                None => found(Value::Broken(self.carry.head())),
            }
        }
    }

    fn emit(&mut self, last: &[u8], found: &mut impl FnMut(Value<'_>)) {
        if self.carry.head().is_empty() && last.len() <= MAX_BODY {
            return found(Value::Whole(last));
        }
        self.carry.push(last);
        match self.carry.tail() {
            Some(tail) => found(Value::Oversize { head: self.carry.head(), tail }),
            None => found(Value::Whole(self.carry.head())),
        }
        self.carry.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(stream: &[u8], cuts: &[usize]) -> Vec<String> {
        let mut framer = Framer::default();
        let mut list = Vec::new();
        let mut take = |value: Value<'_>| {
            list.push(match value {
                Value::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Value::Oversize { head, tail } => format!("{} and {}", head.len(), tail.len()),
                Value::Broken(bytes) => format!("broken {}", String::from_utf8_lossy(bytes)),
            });
        };
        let mut at = 0;
        for cut in cuts.iter().copied().chain([stream.len()]) {
            let cut = cut.clamp(at, stream.len());
            framer.feed(&stream[at..cut], &mut take);
            at = cut;
        }
        framer.finish(&mut take);
        list
    }

    #[test]
    fn values_end_with_their_brackets() {
        for (stream, want) in [
            ("{\"a\":1}\n{\"b\":2}\r\n", vec!["{\"a\":1}", "{\"b\":2}"]),
            ("{\n  \"a\": [1,\n 2]\n}\n{}", vec!["{\n  \"a\": [1,\n 2]\n}", "{}"]),
            (r#"{"a":"}\"{\\"}{"b":"]"}"#, vec![r#"{"a":"}\"{\\"}"#, r#"{"b":"]"}"#]),
            ("  \n{\"a\":1}\n\n{\"b\":", vec!["{\"a\":1}", "broken {\"b\":"]),
            ("[{\"a\":1}] }] , true {}", vec!["[{\"a\":1}]", "{}"]),
            ("", vec![]),
        ] {
            assert_eq!(values(stream.as_bytes(), &[]), want, "{stream}");
        }
    }

    #[test]
    fn a_huge_value_keeps_its_ends_and_the_next_is_read() {
        let stream = format!("{{\"a\":\"{}\",\"end\":1}}\n{{\"b\":2}}\n", "x".repeat(9 << 20));
        for step in [60_000, 1 << 20, stream.len()] {
            let mut framer = Framer::default();
            let mut seen = Vec::new();
            for chunk in stream.as_bytes().chunks(step) {
                framer.feed(chunk, |value| match value {
                    Value::Whole(bytes) if bytes.len() < 100 => seen.push("whole"),
                    Value::Oversize { tail, .. } if tail.ends_with(b"\"end\":1}") => seen.push("oversize"),
                    _ => seen.push("other"),
                });
            }
            assert_eq!(seen, ["oversize", "whole"], "{step}");
        }
    }

    proptest! {
        #[test]
        fn values_do_not_depend_on_the_split(
            stream in "(\\{|\\}|\\[|\\]|\"|\\\\|a|:|,|\n| ){0,60}",
            cuts in prop::collection::vec(0_usize..60, 0..8),
        ) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let whole = values(stream.as_bytes(), &[]);
            prop_assert_eq!(&values(stream.as_bytes(), &cuts), &whole);
            let every: Vec<_> = (0..stream.len()).collect();
            prop_assert_eq!(&values(stream.as_bytes(), &every), &whole);
        }

        #[test]
        fn bytes_of_any_kind_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = values(&bytes, &[3, 50]);
        }
    }
}
