//! Putting an answer on the wire: pacing, cutting, and every fault.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::answer::{Answer, Cut, put};
use crate::disguise::disguise;
use crate::knobs::{Fault, FaultKind, Flush, Knobs};
use crate::ledger::Ended;
use crate::rng::Rng;

/// Most bytes of a following request taken in while an answer is under way.
const MAX_AHEAD: usize = 64 * 1024;
/// Longest a write may be stuck before the client counts as gone.
const WRITE_LIMIT: Duration = Duration::from_secs(120);
/// Most pieces a split cuts an answer into.
const MAX_PIECES: usize = 4000;

/// The connection while an answer is under way.
pub(crate) struct Wire<'a> {
    pub(crate) stream: &'a mut TcpStream,
    /// Bytes read ahead: the next requests of the connection.
    pub(crate) ahead: &'a mut BytesMut,
    /// Reused for what is written.
    pub(crate) out: &'a mut Vec<u8>,
}

/// What the client can take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// The connection may serve another request.
    pub(crate) keep_alive: bool,
    /// HTTP/1.0: no chunks.
    pub(crate) old: bool,
    /// HEAD: no body.
    pub(crate) head_only: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) ended: Ended,
    /// Body bytes written.
    pub(crate) bytes: u64,
    /// Output tokens those bytes carried.
    pub(crate) tokens: u64,
    /// The head was written, so the vendor has begun to bill.
    pub(crate) begun: bool,
}

/// The client went away.
struct Gone;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    UntilClose,
    None,
}

/// Sends an answer as the knobs say.
pub(crate) async fn send(wire: &mut Wire<'_>, answer: Answer, knobs: &Knobs, terms: Terms) -> Sent {
    let answer = disguise(answer, knobs.fault);
    let fault = knobs.fault.filter(|fault| !matches!(fault.kind, FaultKind::Gzip | FaultKind::HugeLine));
    let mut progress = Sent { ended: Ended::Complete, bytes: 0, tokens: 0, begun: false };
    progress.ended = match transmit(wire, &answer, knobs, fault, terms, &mut progress).await {
        Ok(ended) => ended,
        Err(Gone) => Ended::ClientGone,
    };
    progress.tokens = tokens_at(&answer.cuts, progress.bytes, answer.body.len());
    progress
}

async fn transmit(
    wire: &mut Wire<'_>,
    answer: &Answer,
    knobs: &Knobs,
    fault: Option<Fault>,
    terms: Terms,
    progress: &mut Sent,
) -> Result<Ended, Gone> {
    let started = Instant::now();
    if knobs.delay_ms > 0 {
        wire.wait_until(started + Duration::from_millis(knobs.delay_ms)).await?;
    }
    if let Some(Fault { kind, at: None }) = fault.filter(|fault| fault.kind != FaultKind::BadChunk) {
        wire.play(kind, knobs).await;
        return Ok(Ended::Fault(kind.as_str()));
    }
    let framing = choose_framing(answer, fault, terms);
    let keep_alive = terms.keep_alive && framing != Framing::UntilClose && fault.is_none();
    wire.out.clear();
    put_head(wire.out, answer, framing, keep_alive, terms.old);
    let streamed = answer.chunked && answer.cuts.len() > 1;
    // A whole answer is generated before its head is sent, a stream after.
    let first_byte = Instant::now() + Duration::from_millis(knobs.ttft_ms);
    if !streamed && (knobs.ttft_ms > 0 || knobs.tps > 0) {
        let all = answer.cuts.last().map_or(0, |cut| cut.tokens);
        wire.wait_until(due(first_byte, all, knobs.tps)).await?;
    }
    progress.begun = true;
    if terms.head_only || framing == Framing::None {
        wire.write_out().await?;
        return Ok(Ended::Complete);
    }
    let immediate = fault.is_none() && knobs.split.is_none() && knobs.tps == 0 && knobs.ttft_ms == 0;
    if immediate && (!streamed || knobs.flush == Flush::Whole) {
        put_piece(wire.out, &answer.body, framing);
        put_end(wire.out, framing);
        wire.write_out().await?;
        progress.bytes = answer.body.len() as u64;
        return Ok(Ended::Complete);
    }
    let tps = if streamed { knobs.tps } else { 0 };
    let paced = Paced { first_byte, tps, wait: streamed && knobs.ttft_ms > 0, framing, fault };
    relay(wire, answer, knobs, &paced, progress).await
}

/// When and how the pieces of an answer are written.
struct Paced {
    first_byte: Instant,
    tps: u64,
    wait: bool,
    framing: Framing,
    fault: Option<Fault>,
}

async fn relay(
    wire: &mut Wire<'_>,
    answer: &Answer,
    knobs: &Knobs,
    paced: &Paced,
    progress: &mut Sent,
) -> Result<Ended, Gone> {
    let (fault, framing) = (paced.fault, paced.framing);
    let stop = fault.and_then(|fault| fault.at).map(|at| usize::try_from(at).unwrap_or(usize::MAX));
    let stop = stop.or_else(|| fault.map(|_| 0)).map(|stop| stop.min(answer.body.len()));
    let mut rng = Rng::new(knobs.split.unwrap_or(0));
    if paced.wait || knobs.split.is_some() || stop == Some(0) {
        wire.write_out().await?;
    }
    let mut sent = 0;
    for end in boundaries(answer, knobs, stop) {
        let piece = answer.body.get(sent..end).unwrap_or_default();
        let tokens = tokens_at(&answer.cuts, end as u64, answer.body.len());
        if paced.wait || paced.tps > 0 {
            // What is pending (the head) goes out before a pause.
            wire.write_out().await?;
            wire.wait_until(due(paced.first_byte, tokens, paced.tps)).await?;
        } else {
            wire.look()?;
        }
        put_piece(wire.out, piece, framing);
        if knobs.split.is_some() {
            wire.write_in_two(&mut rng).await?;
        } else {
            wire.write_out().await?;
        }
        sent = end;
        progress.bytes = sent as u64;
    }
    if let Some(fault) = fault {
        wire.write_out().await?;
        wire.play(fault.kind, knobs).await;
        return Ok(Ended::Fault(fault.kind.as_str()));
    }
    put_end(wire.out, framing);
    wire.write_out().await?;
    Ok(Ended::Complete)
}

impl Wire<'_> {
    /// Writes what is pending.
    async fn write_out(&mut self) -> Result<(), Gone> {
        if self.out.is_empty() {
            return Ok(());
        }
        let written = write_limited(self.stream, self.out).await;
        self.out.clear();
        written
    }

    /// Writes what is pending with a cut at a random place, chunk headers
    /// included.
    async fn write_in_two(&mut self, rng: &mut Rng) -> Result<(), Gone> {
        let at = usize::try_from(rng.between(0, self.out.len() as u64)).unwrap_or(0);
        let (first, second) = self.out.split_at(at);
        for part in [first, second] {
            if !part.is_empty() {
                write_limited(self.stream, part).await?;
                tokio::task::yield_now().await;
            }
        }
        self.out.clear();
        Ok(())
    }

    /// Notices a hang-up without waiting.
    fn look(&mut self) -> Result<(), Gone> {
        if self.ahead.len() >= MAX_AHEAD {
            return Ok(());
        }
        match self.stream.try_read_buf(self.ahead) {
            Ok(0) => Err(Gone),
            Ok(_) => Ok(()),
            Err(cause) if cause.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Gone),
        }
    }

    /// Sleeps, and wakes early when the client hangs up.
    async fn wait_until(&mut self, due: Instant) -> Result<(), Gone> {
        loop {
            if Instant::now() >= due {
                return self.look();
            }
            if self.ahead.len() >= MAX_AHEAD {
                tokio::time::sleep_until(due).await;
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep_until(due) => return Ok(()),
                read = self.stream.read_buf(self.ahead) => match read {
                    Ok(0) | Err(_) => return Err(Gone),
                    Ok(_) => {}
                },
            }
        }
    }

    /// Plays a fault; the connection is closed by the caller afterwards.
    async fn play(&mut self, kind: FaultKind, knobs: &Knobs) {
        match kind {
            FaultKind::Reset => {
                // What was sent before should arrive before the reset does.
                tokio::time::sleep(Duration::from_millis(5)).await;
                let _set = self.stream.set_zero_linger();
            }
            FaultKind::Stall => {
                let limit = if knobs.stall_ms == 0 { 24 * 3600 * 1000 } else { knobs.stall_ms };
                let _gone = self.wait_until(Instant::now() + Duration::from_millis(limit)).await;
            }
            FaultKind::Garbage => {
                let mut rng = Rng::new(7);
                let noise: Vec<u8> = (0..64).flat_map(|_| (rng.next() | 0x80).to_le_bytes()).collect();
                let _written = write_limited(self.stream, &noise).await;
            }
            FaultKind::BadChunk => {
                let _written = write_limited(self.stream, b"zz;not-a-size\r\nnot a chunk\r\n").await;
            }
            FaultKind::Close | FaultKind::Gzip | FaultKind::HugeLine => {}
        }
    }
}

async fn write_limited(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), Gone> {
    // The common case needs no timer: the socket buffer takes it all.
    match stream.try_write(bytes) {
        Ok(written) if written == bytes.len() => return Ok(()),
        Ok(written) => {
            let rest = bytes.get(written..).unwrap_or_default();
            return write_slowly(stream, rest).await;
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::WouldBlock => {}
        Err(_) => return Err(Gone),
    }
    write_slowly(stream, bytes).await
}

async fn write_slowly(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), Gone> {
    match tokio::time::timeout(WRITE_LIMIT, stream.write_all(bytes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Gone),
    }
}

fn due(first_byte: Instant, tokens: u64, tps: u64) -> Instant {
    if tps == 0 {
        return first_byte;
    }
    first_byte + Duration::from_micros(tokens.saturating_mul(1_000_000) / tps)
}

/// Output tokens carried by the first `bytes` of a body.
fn tokens_at(cuts: &[Cut], bytes: u64, length: usize) -> u64 {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if bytes >= length {
        return cuts.last().map_or(0, |cut| cut.tokens);
    }
    let whole = cuts.partition_point(|cut| cut.end <= bytes);
    whole.checked_sub(1).and_then(|last| cuts.get(last)).map_or(0, |cut| cut.tokens)
}

/// Where the body is cut into HTTP chunks, in order, up to `stop`.
fn boundaries(answer: &Answer, knobs: &Knobs, stop: Option<usize>) -> Vec<usize> {
    let length = stop.unwrap_or(answer.body.len());
    let mut ends: Vec<usize> = match knobs.split {
        Some(seed) => {
            let mut rng = Rng::new(seed);
            let sizes = [1_usize, 3, 17, 64, 257, 1500, 8192];
            let index = usize::try_from(rng.next() % sizes.len() as u64).unwrap_or(0);
            let largest = sizes.get(index).copied().unwrap_or(64).max(length.div_ceil(MAX_PIECES)) as u64;
            let mut ends = Vec::new();
            let mut at = 0;
            while at < length {
                at += usize::try_from(rng.between(1, largest)).unwrap_or(1);
                ends.push(at.min(length));
            }
            ends
        }
        None if knobs.flush == Flush::Whole && knobs.tps == 0 => Vec::new(),
        None => answer.cuts.iter().map(|cut| cut.end).filter(|end| *end < length).collect(),
    };
    if length > 0 && ends.last() != Some(&length) {
        ends.push(length);
    }
    ends
}

fn choose_framing(answer: &Answer, fault: Option<Fault>, terms: Terms) -> Framing {
    if answer.status == 204 || answer.status == 304 {
        Framing::None
    } else if terms.old && answer.chunked {
        Framing::UntilClose
    } else if answer.chunked || fault.is_some_and(|fault| fault.kind == FaultKind::BadChunk) {
        Framing::Chunked
    } else {
        Framing::Length
    }
}

fn put_head(out: &mut Vec<u8>, answer: &Answer, framing: Framing, keep_alive: bool, old: bool) {
    if answer.status == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        put(out, format_args!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status)));
    }
    if !answer.content_type.is_empty() {
        put(out, format_args!("content-type: {}\r\n", answer.content_type));
    }
    for (name, value) in &answer.headers {
        put(out, format_args!("{name}: {value}\r\n"));
    }
    match framing {
        Framing::Length => put(out, format_args!("content-length: {}\r\n", answer.body.len())),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::UntilClose | Framing::None => {}
    }
    if !keep_alive {
        out.extend_from_slice(b"connection: close\r\n");
    } else if old {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

const fn reason(status: u16) -> &'static str {
    match status {
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        529 => "Overloaded",
        _ => "Status",
    }
}

fn put_piece(out: &mut Vec<u8>, piece: &[u8], framing: Framing) {
    if piece.is_empty() {
        return;
    }
    if framing == Framing::Chunked {
        put(out, format_args!("{:x}\r\n", piece.len()));
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    } else {
        out.extend_from_slice(piece);
    }
}

fn put_end(out: &mut Vec<u8>, framing: Framing) {
    if framing == Framing::Chunked {
        out.extend_from_slice(b"0\r\n\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Bill;

    #[test]
    fn tokens_are_counted_by_whole_frames() {
        let cuts = [Cut { end: 10, tokens: 0 }, Cut { end: 20, tokens: 1 }, Cut { end: 30, tokens: 2 }];
        assert_eq!([0, 9, 10, 19, 20, 29, 30, 99].map(|bytes| tokens_at(&cuts, bytes, 30)), [0, 0, 0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn splits_cover_the_body_and_repeat() {
        let answer = Answer::whole(200, "x", vec![7; 10_000], Bill::default());
        for seed in 0..50 {
            let knobs = Knobs { split: Some(seed), ..Knobs::default() };
            let ends = boundaries(&answer, &knobs, None);
            assert!(ends.is_sorted() && ends.last() == Some(&10_000));
            assert_eq!(ends, boundaries(&answer, &knobs, None));
            assert_eq!(boundaries(&answer, &knobs, Some(123)).last(), Some(&123));
        }
    }
}
