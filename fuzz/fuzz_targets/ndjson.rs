//! Values one after the other: the same however they were cut, and those that a
//! JSON parser finds.

#![no_main]

use clawgate_fuzz::wire::ndjson::{Framer, Value};
use clawgate_fuzz::{choice, cut};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, PartialEq)]
enum Seen {
    Whole(Vec<u8>),
    Oversize,
    Broken(Vec<u8>),
}

fn values(pieces: &[&[u8]]) -> Vec<Seen> {
    let mut framer = Framer::default();
    let mut seen = Vec::new();
    let mut take = |value: Value<'_>| {
        seen.push(match value {
            Value::Whole(bytes) => Seen::Whole(bytes.to_vec()),
            Value::Oversize { .. } => Seen::Oversize,
            Value::Broken(bytes) => Seen::Broken(bytes.to_vec()),
        });
    };
    for piece in pieces {
        framer.feed(piece, &mut take);
    }
    framer.finish(&mut take);
    seen
}

fuzz_target!(|data: &[u8]| {
    let (seed, stream) = choice(data);
    let whole = values(&[stream]);
    assert_eq!(values(&cut(stream, seed)), whole);

    // The lines that are objects or lists, framed again: exactly those.
    let lines: Vec<&[u8]> = stream
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| matches!(line.first(), Some(b'{' | b'[')))
        .filter(|line| serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok())
        .collect();
    let joined = lines.join(&b"\r\n"[..]);
    let wanted: Vec<Seen> = lines.iter().map(|line| Seen::Whole(line.to_vec())).collect();
    assert_eq!(values(&cut(&joined, seed)), wanted);
});
