//! Amazon's binary event stream: the same messages however it was cut, and what
//! was written by the book is read as it was written.

#![no_main]

use clawgate_fuzz::wire::eventstream::{Framer, MAX_READ};
use clawgate_fuzz::{choice, cut};
use libfuzzer_sys::fuzz_target;

type Seen = (Vec<u8>, Vec<u8>, Vec<u8>);

fn messages(pieces: &[&[u8]]) -> (Vec<Seen>, bool, bool) {
    let mut framer = Framer::default();
    let mut seen = Vec::new();
    for piece in pieces {
        framer.feed(piece, |message| {
            assert!(message.payload.len() <= MAX_READ);
            seen.push((message.kind.to_vec(), message.name.to_vec(), message.payload.to_vec()));
        });
    }
    (seen, framer.is_broken(), framer.at_boundary())
}

fn written(kind: &[u8], name: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    for (key, value) in [(&b":message-type"[..], kind), (b":event-type", name)] {
        headers.push(key.len() as u8);
        headers.extend_from_slice(key);
        headers.push(7);
        headers.extend_from_slice(&(value.len() as u16).to_be_bytes());
        headers.extend_from_slice(value);
    }
    let total = 12 + headers.len() + payload.len() + 4;
    let mut out = (total as u32).to_be_bytes().to_vec();
    out.extend_from_slice(&(headers.len() as u32).to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out.extend_from_slice(&headers);
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out
}

/// The checksums made to fit, so that what is behind them is reached.
fn mended(stream: &[u8]) -> Vec<u8> {
    let mut out = stream.to_vec();
    let mut at = 0;
    while out.len().saturating_sub(at) >= 16 {
        let total = u32::from_be_bytes([out[at], out[at + 1], out[at + 2], out[at + 3]]) as usize;
        if total < 16 || total > out.len() - at {
            break;
        }
        let prelude = crc32fast::hash(&out[at..at + 8]).to_be_bytes();
        out[at + 8..at + 12].copy_from_slice(&prelude);
        let sum = crc32fast::hash(&out[at..at + total - 4]).to_be_bytes();
        out[at + total - 4..at + total].copy_from_slice(&sum);
        at += total;
    }
    out
}

fuzz_target!(|data: &[u8]| {
    let (seed, rest) = choice(data);
    for stream in [rest.to_vec(), mended(rest)] {
        let (whole, broken, between) = messages(&[&stream]);
        let (again, broken_again, between_again) = messages(&cut(&stream, seed));
        assert_eq!((&again, broken_again), (&whole, broken));
        assert!(broken || between == between_again);
    }
    let third = rest.len() / 3;
    let (kind, rest) = rest.split_at(third.min(100));
    let (name, payload) = rest.split_at(third.min(100));
    let good = [written(kind, name, payload), written(b"event", b"end", b"")].concat();
    let wanted =
        vec![(kind.to_vec(), name.to_vec(), payload.to_vec()), (b"event".to_vec(), b"end".to_vec(), Vec::new())];
    assert_eq!(messages(&cut(&good, seed)), (wanted, false, true));
});
