//! Reads the frames of a WebSocket as they pass (RFC 6455), in one direction.
//!
//! Nothing is changed and nothing judged but what keeps it from being read:
//! extensions are never offered to a vendor, so that what passes is plain.

/// Bytes of the longest frame header.
const MAX_HEADER: usize = 14;
/// A message's buffer that grew beyond this is given back after it.
const KEPT: usize = 64 << 10;
/// A control frame's payload.
const MAX_CONTROL: usize = 125;
/// The close code of a close frame without one, as clients name it.
pub const NO_CODE: u16 = 1005;
/// Closed because of what was sent or asked for.
pub const POLICY: u16 = 1008;
/// Closed because this side goes away.
pub const GOING_AWAY: u16 = 1001;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// What has come whole.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'m> {
    /// A text or binary message, unmasked and put together.
    Message(&'m [u8]),
    /// A message over the limit; its bytes were not kept.
    Oversize,
    /// A ping, a pong or a close.
    Control,
}

/// The frame that is being read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: u8,
    last: bool,
    mask: Option<[u8; 4]>,
    /// Payload that has come, and that is still to come.
    came: u64,
    left: u64,
}

/// A reader of frames; feed it every byte of one direction, in order.
#[derive(Debug)]
pub struct Frames {
    limit: usize,
    header: [u8; MAX_HEADER],
    header_len: usize,
    frame: Option<Frame>,
    message: Vec<u8>,
    control: Vec<u8>,
    in_message: bool,
    oversize: bool,
    /// The message was given out and is forgotten before the next.
    given: bool,
    lost: bool,
    closed: Option<u16>,
}

impl Frames {
    /// Messages of more than `limit` bytes are passed over; 0: all of them.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            header: [0; MAX_HEADER],
            header_len: 0,
            frame: None,
            message: Vec::new(),
            control: Vec::new(),
            in_message: false,
            oversize: false,
            given: false,
            lost: false,
            closed: None,
        }
    }

    /// Messages are passed over from here on.
    pub fn ignore_messages(&mut self) {
        self.limit = 0;
        self.message = Vec::new();
        self.oversize |= self.in_message;
    }

    /// The next thing that is whole within `chunk`; `at` is how much of the
    /// chunk was read, and is moved on. `None`: all of it was.
    pub fn next(&mut self, chunk: &[u8], at: &mut usize) -> Option<Event<'_>> {
        if std::mem::take(&mut self.given) {
            self.forget();
        }
        while !self.lost {
            if self.frame.is_none() && !self.read_header(chunk, at) {
                return None;
            }
            let frame = self.read_payload(chunk, at)?;
            if frame.opcode >= CLOSE {
                if frame.opcode == CLOSE && self.closed.is_none() {
                    let code = self.control.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
                    self.closed = Some(code.unwrap_or(NO_CODE));
                }
                self.control.clear();
                return Some(Event::Control);
            }
            if frame.last {
                self.in_message = false;
                self.given = true;
                return Some(if self.oversize { Event::Oversize } else { Event::Message(&self.message) });
            }
        }
        *at = chunk.len();
        None
    }

    /// Whether frames can no longer be told apart: what comes is no WebSocket
    /// without extensions.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether a frame of somebody else's would fit in here.
    #[must_use]
    pub const fn between_frames(&self) -> bool {
        !self.lost && self.frame.is_none() && self.header_len == 0
    }

    /// Whether a message of somebody else's would fit in here.
    #[must_use]
    pub const fn between_messages(&self) -> bool {
        self.between_frames() && !self.in_message
    }

    /// The code of the first close frame.
    #[must_use]
    pub const fn closed(&self) -> Option<u16> {
        self.closed
    }

    /// Bytes of a message that is not whole yet.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.message.capacity()
    }

    /// There is no room for the message that is being read: it counts as one
    /// over the limit.
    pub fn give_up_message(&mut self) {
        self.message = Vec::new();
        self.oversize = self.in_message;
    }

    fn forget(&mut self) {
        self.message.clear();
        if self.message.capacity() > KEPT {
            self.message = Vec::new();
        }
        self.oversize = false;
    }

    /// Reads a header; false: the chunk ended first, or it makes no sense.
    fn read_header(&mut self, chunk: &[u8], at: &mut usize) -> bool {
        while let Some(&byte) = chunk.get(*at) {
            *at += 1;
            if let Some(place) = self.header.get_mut(self.header_len) {
                *place = byte;
                self.header_len += 1;
            }
            let [first, second, ..] = self.header;
            let extended = match second & 0x7f {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let masked = second & 0x80 != 0;
            if self.header_len < 2 || self.header_len < 2 + extended + if masked { 4 } else { 0 } {
                continue;
            }
            let rest = self.header.get(2..self.header_len).unwrap_or_default();
            let (length, mask) = rest.split_at_checked(extended).unwrap_or_default();
            let length = match extended {
                0 => u64::from(second & 0x7f),
                _ => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            };
            let mask = mask.first_chunk::<4>().copied().filter(|_| masked);
            let frame = Frame { opcode: first & 0xf, last: first & 0x80 != 0, mask, came: 0, left: length };
            self.header_len = 0;
            return self.begin(first & 0x70 != 0, frame);
        }
        false
    }

    fn begin(&mut self, reserved: bool, frame: Frame) -> bool {
        let sensible = match frame.opcode {
            CONTINUATION => self.in_message,
            TEXT | BINARY => !self.in_message,
            CLOSE | PING | PONG => frame.last && frame.left <= MAX_CONTROL as u64,
            _ => false,
        };
        if reserved || !sensible || frame.left > i64::MAX as u64 {
            self.lost = true;
            self.message = Vec::new();
            return true;
        }
        self.in_message |= frame.opcode < CLOSE;
        self.frame = Some(frame);
        true
    }

    /// Reads payload; the frame when it is whole.
    fn read_payload(&mut self, chunk: &[u8], at: &mut usize) -> Option<Frame> {
        // Without a frame the stream is lost: the caller's loop ends.
        let Some(mut frame) = self.frame.take() else {
            return Some(Frame { opcode: CONTINUATION, last: false, mask: None, came: 0, left: 0 });
        };
        let rest = chunk.get(*at..).unwrap_or_default();
        let take = usize::try_from(frame.left).unwrap_or(usize::MAX).min(rest.len());
        let piece = rest.get(..take).unwrap_or_default();
        *at += take;
        self.keep(&frame, piece);
        frame.came += take as u64;
        frame.left -= take as u64;
        if frame.left > 0 {
            self.frame = Some(frame);
            return None;
        }
        Some(frame)
    }

    fn keep(&mut self, frame: &Frame, piece: &[u8]) {
        let into = if frame.opcode >= CLOSE {
            &mut self.control
        } else {
            if self.oversize || self.message.len() + piece.len() > self.limit {
                self.oversize = true;
                self.message = Vec::new();
                return;
            }
            &mut self.message
        };
        let from = into.len();
        into.extend_from_slice(piece);
        if let (Some(mask), Some(new)) = (frame.mask, into.get_mut(from..)) {
            let turn = (frame.came % 4) as usize;
            for (byte, mask) in new.iter_mut().zip(mask.iter().cycle().skip(turn)) {
                *byte ^= mask;
            }
        }
    }
}

/// A text message to a client.
#[must_use]
pub fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 10);
    out.push(0x80 | TEXT);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

/// A close frame to a client; a long reason is cut.
#[must_use]
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let reason = reason.get(..reason.floor_char_boundary(MAX_CONTROL - 2)).unwrap_or_default();
    let mut out = vec![0x80 | CLOSE, u8::try_from(2 + reason.len()).unwrap_or(2)];
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
    out
}

/// A close frame to a vendor. What is in it is ours, so that its mask guards
/// against nothing and may be zero.
#[must_use]
pub fn masked_close_frame(code: u16) -> Vec<u8> {
    let [high, low] = code.to_be_bytes();
    vec![0x80 | CLOSE, 0x80 | 2, 0, 0, 0, 0, high, low]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a client (masked) or a vendor sends it.
    fn frame(opcode: u8, last: bool, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let masked = if mask.is_some() { 0x80 } else { 0 };
        let mut out = vec![if last { 0x80 } else { 0 } | opcode];
        match payload.len() {
            short @ 0..126 => out.push(masked | u8::try_from(short).expect("short")),
            medium @ 126..65_536 => {
                out.push(masked | 126);
                out.extend(u16::try_from(medium).expect("medium").to_be_bytes());
            }
            long => {
                out.push(masked | 127);
                out.extend((long as u64).to_be_bytes());
            }
        }
        out.extend(mask.into_iter().flatten());
        let mask = mask.unwrap_or_default();
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Message(Vec<u8>),
        Oversize,
        Control,
    }

    fn read(frames: &mut Frames, bytes: &[u8], cuts: &[usize]) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut rest = bytes;
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let (chunk, after) = rest.split_at(cut.min(rest.len()));
            rest = after;
            let mut at = 0;
            while let Some(event) = frames.next(chunk, &mut at) {
                seen.push(match event {
                    Event::Message(bytes) => Seen::Message(bytes.to_vec()),
                    Event::Oversize => Seen::Oversize,
                    Event::Control => Seen::Control,
                });
            }
            assert_eq!(at, chunk.len(), "a chunk is read to its end");
        }
        seen
    }

    /// Messages in pieces, with pings between the pieces, and what they are.
    fn traffic() -> impl Strategy<Value = (Vec<u8>, Vec<Seen>)> {
        let piece = prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..40),
            1 => prop::collection::vec(any::<u8>(), 120..300),
        ];
        let message = (prop::collection::vec((piece, any::<bool>()), 1..4), any::<Option<[u8; 4]>>(), any::<bool>());
        prop::collection::vec(message, 0..6).prop_map(|messages| {
            let (mut bytes, mut want) = (Vec::new(), Vec::new());
            for (pieces, mask, binary) in messages {
                let mut whole = Vec::new();
                let last = pieces.len() - 1;
                for (index, (piece, ping)) in pieces.into_iter().enumerate() {
                    let opcode = if index > 0 { CONTINUATION } else { 1 + u8::from(binary) };
                    bytes.extend(frame(opcode, index == last, mask, &piece));
                    whole.extend(piece);
                    if index < last && ping {
                        bytes.extend(frame(PING, true, mask, b"?"));
                        want.push(Seen::Control);
                    }
                }
                want.push(if whole.len() > 500 { Seen::Oversize } else { Seen::Message(whole) });
            }
            (bytes, want)
        })
    }

    proptest! {
        #[test]
        fn messages_come_out_whole_however_they_were_cut(
            (bytes, want) in traffic(),
            cuts in prop::collection::vec(0_usize..60, 0..60),
        ) {
            let mut frames = Frames::new(500);
            prop_assert_eq!(read(&mut frames, &bytes, &cuts), want);
            prop_assert!(frames.between_messages() && !frames.is_lost());
            let single = vec![1; bytes.len()];
            let counted = read(&mut Frames::new(500), &bytes, &single).len();
            prop_assert_eq!(counted, read(&mut Frames::new(0), &bytes, &[]).len());
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400), cuts in prop::collection::vec(0_usize..20, 0..30)) {
            let mut frames = Frames::new(100);
            let _ = read(&mut frames, &bytes, &cuts);
            prop_assert!(frames.held() <= 256);
        }
    }

    #[test]
    fn what_is_no_plain_websocket_is_not_read_on() {
        let text = |first: u8| vec![first, 1, b'x'];
        for (name, bytes) in [
            ("compressed", text(0xc1)),
            ("a reserved opcode", text(0x83)),
            ("a continuation of nothing", text(0x80)),
            ("a fragmented ping", text(0x09)),
            ("a message within a message", [text(0x01), text(0x81)].concat()),
            ("a long ping", [vec![0x89, 126, 1, 0], vec![0; 256]].concat()),
            ("a negative length", vec![0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            let mut frames = Frames::new(100);
            let seen = read(&mut frames, &[bytes, frame(TEXT, true, None, b"later")].concat(), &[]);
            assert!(frames.is_lost() && seen.is_empty() && !frames.between_frames(), "{name}: {seen:?}");
        }
    }

    #[test]
    fn the_first_close_code_is_kept() {
        let mut frames = Frames::new(100);
        let bytes = [frame(CLOSE, true, Some([1, 2, 3, 4]), &1000_u16.to_be_bytes()), close_frame(1011, "x")].concat();
        read(&mut frames, &bytes, &[3, 1, 1]);
        assert_eq!(frames.closed(), Some(1000));
        let mut frames = Frames::new(100);
        read(&mut frames, &frame(CLOSE, true, None, b""), &[]);
        assert_eq!(frames.closed(), Some(NO_CODE));
    }

    #[test]
    fn what_is_written_can_be_read() {
        for length in [0, 1, 125, 126, 65_535, 65_536, 100_000] {
            let payload = vec![b'x'; length];
            let bytes = text_frame(&payload);
            assert_eq!(bytes, frame(TEXT, true, None, &payload), "{length}");
        }
        assert_eq!(close_frame(POLICY, "why"), frame(CLOSE, true, None, &[&POLICY.to_be_bytes()[..], b"why"].concat()));
        let long = "é".repeat(100);
        assert_eq!(close_frame(POLICY, &long).len(), 2 + 2 + 122);
        let masked = masked_close_frame(GOING_AWAY);
        assert_eq!(masked, frame(CLOSE, true, Some([0; 4]), &GOING_AWAY.to_be_bytes()));
    }

    #[test]
    fn what_may_be_put_between() {
        let mut frames = Frames::new(100);
        read(&mut frames, &frame(TEXT, false, None, b"half"), &[]);
        assert!(frames.between_frames() && !frames.between_messages());
        frames.give_up_message();
        let rest = frame(CONTINUATION, true, None, b"half");
        assert_eq!(read(&mut frames, &rest, &[1]), [Seen::Oversize]);
        assert_eq!(read(&mut frames, &frame(TEXT, true, None, b"next"), &[]), [Seen::Message(b"next".to_vec())]);
        frames.ignore_messages();
        assert_eq!(read(&mut frames, &frame(TEXT, true, None, b"next"), &[]), [Seen::Oversize]);
    }
}
