//! Takes the usage event out of a stream that we, not the client, asked for.
//!
//! Invariant: what comes out is what went in, less the `choices: []` events
//! that report usage. Comments, blank lines, `"usage": null` members and every
//! other byte stay. Held back is only an event that has not ended yet.

use bytes::Bytes;

use super::json::Scanner;
use super::sse::{self, Framer, Unit};
use super::usage::{mentions, reports};

/// Slices of one unfinished event held as they came; more are joined.
const MAX_HELD: usize = 32;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    /// Nothing but white space has come.
    #[default]
    Start,
    /// Server-sent events.
    Events,
    /// Something else: passed on untouched.
    Pass,
}

/// The filter of one answer.
#[derive(Debug, Default)]
pub struct UsageStripper {
    mode: Mode,
    framer: Framer,
    held: Vec<Bytes>,
    scratch: Vec<u8>,
    /// The last unit went: the rest of its line end goes too.
    removed: bool,
}

impl UsageStripper {
    /// A filter at the beginning of an answer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a chunk and appends to `out` what may go to the client. A chunk of
    /// whole events goes as it came, uncopied.
    pub fn push(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) {
        if self.mode == Mode::Start {
            self.mode = match chunk.iter().find(|byte| !byte.is_ascii_whitespace()) {
                None => Mode::Start,
                Some(b'{' | b'[' | b'"') => Mode::Pass,
                Some(_) => Mode::Events,
            };
        }
        if self.mode == Mode::Events {
            self.events(&chunk, out);
        } else if !chunk.is_empty() {
            out.push(chunk);
        }
    }

    /// The stream is over: appends what is left.
    pub fn finish(mut self, out: &mut Vec<Bytes>) {
        let Self { framer, scratch, held, .. } = &mut self;
        framer.finish(|unit| {
            if let Unit::Whole(bytes) = unit
                && is_usage_event(bytes, scratch)
            {
                held.clear();
                comments(bytes, out);
            }
        });
        out.append(&mut self.held);
    }

    fn events(&mut self, chunk: &Bytes, out: &mut Vec<Bytes>) {
        // `from..` is not yet given out; `begin` is where the unit begins.
        let (mut from, mut begin) = (0, 0);
        let Self { framer, scratch, held, removed, .. } = self;
        framer.feed(chunk, |unit, end| {
            match unit {
                Unit::Rest => {}
                Unit::Oversize { .. } => *removed = false,
                Unit::Whole(bytes) => *removed = is_usage_event(bytes, scratch),
            }
            if *removed {
                held.clear();
                give(chunk, from, begin, out);
                if let Unit::Whole(bytes) = unit {
                    comments(bytes, out);
                }
                from = end;
            } else {
                out.append(held);
            }
            begin = end;
        });
        match self.framer.pending() {
            Some(pending) => {
                give(chunk, from, begin, out);
                if begin < chunk.len() {
                    if self.held.len() == MAX_HELD {
                        self.held.clear();
                        self.held.push(Bytes::copy_from_slice(pending));
                    } else {
                        self.held.push(chunk.slice(begin..));
                    }
                }
            }
            // Too long for a usage event: nothing to wait for.
            None => {
                give(chunk, from, begin, out);
                out.append(&mut self.held);
                give(chunk, begin, chunk.len(), out);
            }
        }
    }
}

fn give(chunk: &Bytes, from: usize, to: usize, out: &mut Vec<Bytes>) {
    if from < to {
        out.push(chunk.slice(from..to));
    }
}

/// The comment lines of an event that is taken out.
fn comments(unit: &[u8], out: &mut Vec<Bytes>) {
    let comments = sse::lines_inclusive(unit).filter(|line| line.starts_with(b":"));
    out.extend(comments.map(Bytes::copy_from_slice));
}

/// Whether a unit is the event that reports usage and nothing else: an empty
/// `choices` and a `usage` object. Azure's first chunk has empty choices and no
/// usage; other vendors put usage on the chunk that finishes: both stay.
fn is_usage_event(unit: &[u8], scratch: &mut Vec<u8>) -> bool {
    if !mentions(unit) {
        return false;
    }
    let Some(event) = sse::event(unit, scratch).filter(|event| reports(event.data)) else { return false };
    let (mut empty, mut usage, mut error) = (false, false, false);
    let mut scanner = Scanner::lenient(event.data);
    let walked = scanner.object(|scanner, name| {
        match name {
            b"choices" if scanner.next() == Some(b'[') => {
                empty = true;
                scanner.array(|scanner| {
                    empty = false;
                    scanner.skip().map(|_| ())
                })?;
            }
            b"usage" => {
                usage = scanner.next() == Some(b'{');
                scanner.skip()?;
            }
            b"error" => error = scanner.raw()? != b"null",
            _ => {
                scanner.skip()?;
            }
        }
        Ok(())
    });
    walked.and_then(|_| scanner.end()).is_ok() && empty && usage && !error
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strip(stream: &[u8], cuts: &[usize]) -> Vec<u8> {
        let whole = Bytes::copy_from_slice(stream);
        let mut stripper = UsageStripper::new();
        let mut out = Vec::new();
        let mut at = 0;
        for cut in cuts.iter().copied().chain([stream.len()]) {
            let cut = cut.clamp(at, stream.len());
            stripper.push(whole.slice(at..cut), &mut out);
            at = cut;
        }
        stripper.finish(&mut out);
        assert!(out.iter().all(|piece| !piece.is_empty()));
        out.concat()
    }

    const USAGE: &str = r#"{"id":"x","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;

    #[test]
    fn only_the_usage_event_goes() {
        let usage = format!("data: {USAGE}\n\n");
        let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}],\"usage\":null}\n\n";
        let broken = usage.replace(",\"usage\"", ",\n data: \"usage\"");
        for (stream, want) in [
            (format!("{chunk}{usage}data: [DONE]\n\n"), format!("{chunk}data: [DONE]\n\n")),
            (format!("{chunk}: ping\n\n{usage}"), format!("{chunk}: ping\n\n")),
            (format!("{chunk}: ping\n{usage}data: [DONE]\n\n"), format!("{chunk}: ping\ndata: [DONE]\n\n")),
            (format!("event: x\n: ping\ndata:{USAGE}\n\n\n"), ": ping\n\n".to_owned()),
            (usage.replace('\n', "\r\n") + "data: [DONE]\r\n\r\n", "data: [DONE]\r\n\r\n".to_owned()),
            (usage.replace('\n', "\r") + "\ndata: x\r\r", "data: x\r\r".to_owned()),
            (format!("{chunk}data: {USAGE}"), chunk.to_owned()),
            (format!("{chunk}data: {USAGE}\n"), chunk.to_owned()),
            (broken.clone(), broken),
            (usage.replace(",\"usage\"", ",\ndata: \"usage\""), String::new()),
            (usage.replace("[]", "[ ]").replace("data: ", "\u{feff}data:"), String::new()),
        ] {
            let every: Vec<_> = (0..stream.len()).collect();
            for cuts in [&[][..], &every] {
                let found = strip(stream.as_bytes(), cuts);
                assert_eq!(String::from_utf8_lossy(&found), want, "{stream:?}");
            }
        }
    }

    #[test]
    fn what_merely_resembles_it_stays() {
        for stream in [
            "data: {\"choices\":[],\"prompt_filter_results\":[{\"a\":1}],\"model\":\"\"}\n\n",
            "data: {\"choices\":[],\"usage\":null}\n\n",
            "data: {\"choices\":[{\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1}}\n\n",
            "data: {\"choices\":[{\"finish_reason\":\"stop\",\"usage\":{\"prompt_tokens\":1}}]}\n\n",
            "data: {\"choices\":[[]],\"usage\":{\"prompt_tokens\":1}}\n\n",
            "data: {\"usage\":{\"prompt_tokens\":1}}\n\n",
            "data: {\"error\":{\"code\":502},\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}\n\n",
            "data: {\"choices\":[],\"usage\":{\"pr",
            "{\"choices\":[],\"usage\":{\"prompt_tokens\":1}}",
            "{\"error\":{\"message\":\"no\"}}\n\n",
            ": {\"choices\":[],\"usage\":{}}\n\n",
            "data: [DONE]",
        ] {
            let every: Vec<_> = (0..stream.len()).collect();
            assert_eq!(strip(stream.as_bytes(), &[]), stream.as_bytes());
            assert_eq!(strip(stream.as_bytes(), &every), stream.as_bytes());
        }
    }

    #[test]
    fn whole_events_pass_at_once_and_uncopied() {
        let chunk = Bytes::from_static(b"data: {\"a\":1}\n\ndata: {\"b\":2}\n\n");
        let mut stripper = UsageStripper::new();
        let mut out = Vec::new();
        stripper.push(chunk.clone(), &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].as_ptr(), chunk.as_ptr());
        out.clear();
        stripper.push(Bytes::from_static(b"data: {\"c\":3}\n\ndata: {\"d\""), &mut out);
        assert_eq!(out.concat(), b"data: {\"c\":3}\n\n");
        out.clear();
        let long = Bytes::from(vec![b'x'; sse::MAX_UNIT]);
        stripper.push(long.clone(), &mut out);
        assert_eq!(out.concat().len(), long.len() + 10);
        out.clear();
        stripper.push(Bytes::from_static(b"tail"), &mut out);
        assert_eq!(out.concat(), b"tail");
    }

    fn piece() -> impl Strategy<Value = (String, bool)> {
        let end = prop::sample::select(vec!["\n", "\r\n"]);
        let kept = prop::sample::select(vec![
            ": ping",
            "",
            "data: [DONE]",
            "data:{\"choices\":[{\"delta\":{}}],\"usage\":null}",
            "data: {\"choices\":[],\"usage\":null}",
            "event: x",
        ]);
        prop_oneof![
            3 => (kept, end.clone()).prop_map(|(text, end)| (format!("{text}{end}{end}"), false)),
            1 => end.prop_map(|end| (format!("data: {USAGE}{end}{end}"), true)),
        ]
    }

    proptest! {
        #[test]
        fn output_is_input_less_usage(
            pieces in prop::collection::vec(piece(), 0..10),
            cuts in prop::collection::vec(0_usize..900, 0..16),
        ) {
            let stream: String = pieces.iter().map(|(text, _)| text.as_str()).collect();
            let want: String = pieces.iter().filter(|(_, usage)| !usage).map(|(text, _)| text.as_str()).collect();
            let mut cuts = cuts;
            cuts.sort_unstable();
            for cuts in [&cuts[..], &[], &(0..stream.len()).collect::<Vec<_>>()] {
                let found = strip(stream.as_bytes(), cuts);
                prop_assert_eq!(String::from_utf8_lossy(&found), want.as_str());
            }
        }
    }
}
