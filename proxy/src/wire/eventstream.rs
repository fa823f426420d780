//! Cuts Amazon's binary event stream into its messages, incrementally and
//! without copying what arrives whole.
//!
//! A message is a prelude (its length, the length of its headers, a checksum of
//! both), headers, a payload, and a checksum of it all. A length that cannot be
//! or a checksum that does not fit ends the reading: where the next message
//! would begin is not known any more.

/// The longest message that may be: more than Amazon allows.
pub const MAX_MESSAGE: usize = 24 * 1024 * 1024;
/// Longer ones are passed over; no event that a meter reads is as long.
pub const MAX_READ: usize = 1024 * 1024;

const PRELUDE: usize = 12;
const CHECKSUM: usize = 4;

/// One message. What it does not name is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// `:message-type`: `event`, `exception` or `error`.
    pub kind: &'a [u8],
    /// `:event-type`, `:exception-type` or `:error-code`.
    pub name: &'a [u8],
    /// What it carries, usually JSON.
    pub payload: &'a [u8],
}

/// The state between two chunks.
#[derive(Debug, Default)]
pub struct Framer {
    /// The unfinished message.
    carry: Vec<u8>,
    /// Bytes of a message that is too long which are still to come.
    skip: usize,
    broken: bool,
}

impl Framer {
    /// Takes a chunk. `found` gets each message that ends in it.
    pub fn feed(&mut self, chunk: &[u8], mut found: impl FnMut(Message<'_>)) {
        let mut rest = chunk;
        while !rest.is_empty() && !self.broken {
            if self.skip > 0 {
                let passed = self.skip.min(rest.len());
                self.skip -= passed;
                rest = rest.get(passed..).unwrap_or_default();
                continue;
            }
            if self.carry.is_empty()
                && let Some(prelude) = rest.first_chunk()
            {
                match length(prelude) {
                    None => self.broken = true,
                    Some(total) if total > MAX_READ => self.skip = total,
                    Some(total) => match rest.split_at_checked(total) {
                        Some((message, after)) => {
                            self.broken = !emit(message, &mut found);
                            rest = after;
                        }
                        None => rest = self.keep(rest, total, &mut found),
                    },
                }
                continue;
            }
            let known = self.carry.first_chunk().map(length);
            rest = match known {
                None => self.keep_prelude(rest),
                Some(total) => self.keep(rest, total.unwrap_or(PRELUDE), &mut found),
            };
        }
    }

    /// Whether the stream cannot be read any further.
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether the stream stands between two messages.
    #[must_use]
    pub const fn at_boundary(&self) -> bool {
        self.carry.is_empty() && self.skip == 0
    }

    /// Takes what the prelude lacks, and looks at it when it is there.
    fn keep_prelude<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let (part, after) = rest.split_at(rest.len().min(PRELUDE - self.carry.len().min(PRELUDE)));
        self.carry.extend_from_slice(part);
        match self.carry.first_chunk().map(length) {
            Some(None) => self.broken = true,
            Some(Some(total)) if total > MAX_READ => {
                self.skip = total - PRELUDE;
                self.carry.clear();
            }
            Some(Some(_)) | None => {}
        }
        after
    }

    /// Takes what a message of `total` bytes lacks, and gives it when it is there.
    fn keep<'a>(&mut self, rest: &'a [u8], total: usize, found: &mut impl FnMut(Message<'_>)) -> &'a [u8] {
        let (part, after) = rest.split_at(rest.len().min(total.saturating_sub(self.carry.len())));
        self.carry.extend_from_slice(part);
        if self.carry.len() >= total {
            self.broken = !emit(&self.carry, found);
            self.carry.clear();
        }
        after
    }
}

/// A message's length; `None` when its prelude cannot be one.
fn length(prelude: &[u8; PRELUDE]) -> Option<usize> {
    let total = number(prelude, 0)?;
    let headers = number(prelude, 4)?;
    let sum = crc32fast::hash(prelude.get(..8)?);
    let fits = total <= MAX_MESSAGE && headers.checked_add(PRELUDE + CHECKSUM)? <= total;
    (fits && number(prelude, 8)? == usize::try_from(sum).ok()?).then_some(total)
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let digits = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(*digits)).ok()
}

/// Gives a whole message; `false` when it is damaged.
fn emit(message: &[u8], found: &mut impl FnMut(Message<'_>)) -> bool {
    read(message).map(found).is_some()
}

fn read(message: &[u8]) -> Option<Message<'_>> {
    let end = message.len().checked_sub(CHECKSUM)?;
    let sum = crc32fast::hash(message.get(..end)?);
    if number(message, end)? != usize::try_from(sum).ok()? {
        return None;
    }
    let headers = number(message, 4)?;
    let mut rest = message.get(PRELUDE..PRELUDE.checked_add(headers)?)?;
    let mut read = Message { payload: message.get(PRELUDE + headers..end)?, ..Message::default() };
    while let Some((&length, after)) = rest.split_first() {
        let (name, after) = after.split_at_checked(usize::from(length))?;
        let (&kind, after) = after.split_first()?;
        let (value, after) = value(kind, after)?;
        match name {
            b":message-type" => read.kind = value,
            b":event-type" | b":exception-type" | b":error-code" => read.name = value,
            _ => {}
        }
        rest = after;
    }
    Some(read)
}

/// A header's value and what follows it.
fn value(kind: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, bytes) = match kind {
        0 | 1 => (0, bytes),
        2 => (1, bytes),
        3 => (2, bytes),
        4 => (4, bytes),
        5 | 8 => (8, bytes),
        6 | 7 => {
            let (length, after) = bytes.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), after)
        }
        9 => (16, bytes),
        _ => return None,
    };
    bytes.split_at_checked(length)
}

/// A message as Amazon writes it, for tests.
#[cfg(test)]
pub(super) fn written(kind: &str, name: &str, payload: &[u8]) -> Vec<u8> {
    let which = if kind == "event" { ":event-type" } else { ":exception-type" };
    let mut headers = Vec::new();
    for (key, value) in [(which, name), (":content-type", "application/json"), (":message-type", kind)] {
        headers.push(u8::try_from(key.len()).unwrap_or_default());
        headers.extend_from_slice(key.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap_or_default().to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let length = |length: usize| u32::try_from(length).unwrap_or_default().to_be_bytes();
    let mut out = length(PRELUDE + headers.len() + payload.len() + CHECKSUM).to_vec();
    out.extend_from_slice(&length(headers.len()));
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out.extend_from_slice(&headers);
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages(stream: &[u8], cuts: &[usize]) -> (Vec<String>, bool) {
        let mut framer = Framer::default();
        let mut list = Vec::new();
        let mut at = 0;
        for cut in cuts.iter().copied().chain([stream.len()]) {
            let cut = cut.clamp(at, stream.len());
            framer.feed(&stream[at..cut], |message| {
                let [kind, name, payload] = [message.kind, message.name, message.payload].map(String::from_utf8_lossy);
                list.push(format!("{kind} {name} {payload}"));
            });
            at = cut;
        }
        (list, framer.is_broken())
    }

    fn story() -> Vec<u8> {
        [
            written("event", "messageStart", b"{}"),
            written("event", "metadata", br#"{"usage":{}}"#),
            written("exception", "throttlingException", b""),
        ]
        .concat()
    }

    #[test]
    fn messages_are_read_with_their_names() {
        let wanted = ["event messageStart {}", "event metadata {\"usage\":{}}", "exception throttlingException "];
        let (found, broken) = messages(&story(), &[]);
        assert_eq!((found.as_slice(), broken), (&wanted.map(str::to_owned)[..], false));
    }

    #[test]
    fn what_is_damaged_ends_the_reading() {
        let story = story();
        for at in 0..story.len() {
            let mut damaged = story.clone();
            damaged[at] ^= 0x10;
            let (found, broken) = messages(&damaged, &[]);
            assert!(broken && found.len() < 3, "byte {at}: {found:?}");
        }
        let long = u32::MAX.to_be_bytes();
        let mut absurd = [long, [0; 4]].concat();
        absurd.extend_from_slice(&crc32fast::hash(&absurd).to_be_bytes());
        assert_eq!(messages(&absurd, &[]), (Vec::new(), true));
    }

    #[test]
    fn a_message_that_is_too_long_is_passed_over() {
        let stream = [written("event", "huge", &vec![b'x'; MAX_READ]), story()].concat();
        for step in [1000, 70_000, stream.len()] {
            let cuts: Vec<_> = (0..stream.len()).step_by(step).collect();
            let (found, broken) = messages(&stream, &cuts);
            assert_eq!((found.len(), broken), (3, false), "{step}");
        }
    }

    proptest! {
        #[test]
        fn messages_do_not_depend_on_the_split(
            cuts in prop::collection::vec(0_usize..400, 0..12),
            damage in prop::option::of(0_usize..400),
        ) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut stream = story();
            if let Some(byte) = damage.and_then(|at| stream.get_mut(at)) {
                *byte ^= 1;
            }
            let whole = messages(&stream, &[]);
            prop_assert_eq!(&messages(&stream, &cuts), &whole);
            let every: Vec<_> = (0..stream.len()).collect();
            prop_assert_eq!(&messages(&stream, &every), &whole);
        }

        #[test]
        fn bytes_of_any_kind_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = messages(&bytes, &[5, 20]);
            let headers = written("event", "x", b"");
            let _ = messages(&[&headers[..], &bytes].concat(), &[]);
        }
    }
}
