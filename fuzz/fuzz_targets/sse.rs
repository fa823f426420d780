//! An event stream: its units are the same however it was cut, together they are
//! the stream, and a stream without usage events passes the stripper untouched.

#![no_main]

use bytes::Bytes;
use clawgate_fuzz::wire::UsageStripper;
use clawgate_fuzz::wire::sse::{Framer, MAX_UNIT, Unit, event};
use clawgate_fuzz::{choice, cut, swollen};
use libfuzzer_sys::fuzz_target;

/// Most that a framer may hold.
const MAX_HELD: usize = MAX_UNIT + 1024;

#[derive(Debug, PartialEq)]
struct Seen {
    bytes: Vec<u8>,
    whole: bool,
}

fn units(pieces: &[&[u8]]) -> Vec<Seen> {
    let mut framer = Framer::default();
    let mut seen: Vec<Seen> = Vec::new();
    let mut take = |unit: Unit<'_>| match unit {
        Unit::Whole(bytes) => seen.push(Seen { bytes: bytes.to_vec(), whole: true }),
        Unit::Oversize { head, tail } => seen.push(Seen { bytes: [head, tail].concat(), whole: false }),
        // A line feed that came after its carriage return's unit was given.
        Unit::Rest => {
            if let Some(last) = seen.last_mut().filter(|last| last.whole) {
                last.bytes.push(b'\n');
            }
        }
    };
    for piece in pieces {
        framer.feed(piece, |unit, end| {
            assert!(end <= piece.len());
            take(unit);
        });
        assert!(framer.pending().is_none_or(|held| held.len() <= MAX_HELD));
    }
    framer.finish(&mut take);
    seen
}

fn stripped(pieces: &[&[u8]]) -> Vec<u8> {
    let mut stripper = UsageStripper::new();
    let mut out = Vec::new();
    for piece in pieces {
        stripper.push(Bytes::copy_from_slice(piece), &mut out);
    }
    stripper.finish(&mut out);
    out.concat()
}

fuzz_target!(|data: &[u8]| {
    let (seed, rest) = choice(data);
    let (place, rest) = choice(rest);
    let large = seed % 32 == 31;
    let stream = if large { swollen(rest, place, MAX_UNIT + 70_000) } else { rest.to_vec() };
    let whole = units(&[&stream]);
    let pieces = cut(&stream, if large { seed | 1 } else { seed });
    assert_eq!(units(&pieces).len(), whole.len());
    if !large {
        assert_eq!(units(&pieces), whole);
        assert_eq!(whole.iter().flat_map(|unit| &unit.bytes).copied().collect::<Vec<u8>>(), stream);
    }
    let clean = stripped(&[&stream]);
    assert_eq!(stripped(&pieces), clean);
    let mentions = stream.windows(5).any(|window| window == b"usage") || stream.contains(&b'\\');
    if !mentions {
        assert_eq!(clean, stream);
    }
    assert!(clean.len() <= stream.len());
    let mut scratch = Vec::new();
    for unit in &whole {
        if let Some(event) = event(&unit.bytes, &mut scratch) {
            assert!(event.data.len() <= unit.bytes.len() && event.name.len() <= unit.bytes.len());
        }
    }
});
