//! The attacks on HTTP/2 of the last years: the connection they come on ends,
//! and others do not feel them.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use clawgate_tests::chaos::load::{Load, Sample, Source, percentile};
use clawgate_tests::config::verify;
use clawgate_tests::edge::frames::{END_HEADERS, END_STREAM, Frame, Wire, chat_head, fields, frame, kind};
use clawgate_tests::edge::tls::{Pair, plain_listener};
use clawgate_tests::edge::usage::{processor, resident};
use clawgate_tests::stack::{Bot, Stack, chat_request};
use clawgate_tests::wait::until;

/// Opens so many streams; says how many were taken, and whether GOAWAY came.
type Attack = fn(&Target, u32) -> (u32, bool);

struct Target {
    stack: Stack,
    pair: Pair,
    bot: Bot,
    plain: SocketAddr,
}

impl Target {
    fn start() -> Self {
        let pair = Pair::fresh();
        let stack = Stack::start_with(|_, node| {
            let folder = node.spec.folder.clone();
            pair.serve_on(node, &folder);
        });
        let bot = stack.ordinary("sk-h2-attack", "worker");
        let plain = plain_listener(&stack.node);
        Self { stack, pair, bot, plain }
    }

    fn wire(&self) -> Wire {
        let wire = Wire::open(self.stack.data(), &self.pair).expect("HTTP/2");
        wire.patience(Duration::from_secs(20)).expect("a limit");
        wire
    }

    /// The legitimate load's times while `attack` runs.
    fn while_serving(&self, attack: impl FnOnce(&Load<'_>)) -> Vec<Sample> {
        let source =
            Source { name: "legit", request: chat_request(&self.bot.token), rate: AtomicU64::new(50), connections: 8 };
        Load::run(self.plain, std::slice::from_ref(&source), attack)
    }
}

/// Sends pieces until the peer has had enough; says how many it took, and
/// whether it said so (GOAWAY).
fn until_refused(wire: &mut Wire, count: u32, piece: impl Fn(u32) -> Vec<u8>) -> (u32, bool) {
    let mut told = false;
    for number in 0..count {
        // Looked for all the time: a reset takes away what was not read yet.
        told |= number % 20 == 0 && went_away(&wire.arrived());
        if wire.send(&piece(number)).is_err() {
            return (number, told || went_away(&wire.rest()));
        }
    }
    (count, told || went_away(&wire.arrived()))
}

fn went_away(frames: &[Frame]) -> bool {
    frames.iter().any(|frame| frame.kind == kind::GOAWAY)
}

#[test]
fn attacks_end_their_own_connection_only() {
    let target = Target::start();
    let pid = target.stack.node.process_id();
    let quiet = target.while_serving(|load| {
        until("answers without an attack", Duration::from_secs(20), || {
            (load.count("legit", Duration::ZERO, |_| true) >= 50).then_some(())
        });
    });
    let before = resident(pid);
    let (connections, streams) = if verify() { (10, 10_000) } else { (4, 2_000) };
    let mut loaded = Vec::new();
    let attacks: [(&str, Attack); 2] = [("A4 rapid reset", rapid_reset), ("A5 made to reset", made_to_reset)];
    for (name, attack) in attacks {
        let samples = target.while_serving(|_| {
            for _ in 0..connections {
                let (sent, told) = attack(&target, streams);
                println!("{name}: the connection ended after {sent} of {streams} streams, GOAWAY {told}");
                // The GOAWAY may be lost to the reset of a connection with unread frames.
                assert!(sent < streams, "{name}: {sent} streams were taken");
            }
        });
        loaded.extend(samples);
    }
    let busy = processor(pid);
    let began = Instant::now();
    let mut look = (processor(pid), Instant::now());
    until("the processor to rest", Duration::from_secs(5), || {
        let over = look.1.elapsed() >= Duration::from_millis(200);
        let used = processor(pid) - look.0;
        let rests = over && used < look.1.elapsed() / 5;
        if over {
            look = (processor(pid), Instant::now());
        }
        rests.then_some(())
    });
    let median = |samples: &[Sample], per_mille| percentile(&samples.iter().collect::<Vec<_>>(), per_mille);
    let failed = loaded.iter().filter(|sample| sample.status != 200).count();
    println!(
        "A4/A5: legitimate p50 {:?} -> {:?}, p99 {:?} -> {:?}, {failed} of {} failed; memory +{} KiB; at rest after {:?}; {busy:?} used",
        median(&quiet, 500),
        median(&loaded, 500),
        median(&quiet, 990),
        median(&loaded, 990),
        loaded.len(),
        resident(pid).saturating_sub(before) / 1024,
        began.elapsed()
    );
    assert_eq!(failed, 0);
    assert!(resident(pid).saturating_sub(before) < 50 << 20);
}

fn rapid_reset(target: &Target, streams: u32) -> (u32, bool) {
    let mut wire = target.wire();
    let head = chat_head(&target.bot.token);
    until_refused(&mut wire, streams, |number| {
        let stream = number * 2 + 1;
        let mut bytes = frame(kind::HEADERS, END_HEADERS, stream, &head);
        bytes.extend(frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        bytes
    })
}

/// The client never resets: it makes the server do so, by a frame that is wrong
/// on the stream.
fn made_to_reset(target: &Target, streams: u32) -> (u32, bool) {
    let mut wire = target.wire();
    let head = chat_head(&target.bot.token);
    until_refused(&mut wire, streams, |number| {
        let stream = number * 2 + 1;
        let mut bytes = frame(kind::HEADERS, END_HEADERS, stream, &head);
        bytes.extend(frame(kind::WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes()));
        bytes
    })
}

#[test]
fn headers_without_end_are_not_kept() {
    let target = Target::start();
    let pid = target.stack.node.process_id();
    let before = resident(pid);
    // A6: a header block that goes on and on.
    let mut wire = target.wire();
    let mut first = chat_head(&target.bot.token);
    first.truncate(20);
    wire.send(&frame(kind::HEADERS, 0, 1, &first)).expect("sent");
    let filler = vec![0_u8; 16 * 1024];
    let pieces = if verify() { 6_400 } else { 400 };
    let (sent, _) = until_refused(&mut wire, pieces, |_| frame(kind::CONTINUATION, 0, 1, &filler));
    println!("A6: the connection ended after {sent} of {pieces} CONTINUATION frames of 16 KiB");
    assert!(sent < pieces);
    // The same with fields that are whole, and a list of 100 KiB that ends.
    let mut wire = target.wire();
    let long = "v".repeat(4_000);
    let field = fields(&[("x-filler", &long)]);
    let mut list = chat_head(&target.bot.token);
    (0..25).for_each(|_| list.extend_from_slice(&field));
    let mut bytes = Vec::new();
    for (number, piece) in list.chunks(16 * 1024).enumerate() {
        let flags = if (number + 1) * 16 * 1024 >= list.len() { END_HEADERS } else { 0 };
        let (kind, more) = if number == 0 { (kind::HEADERS, END_STREAM) } else { (kind::CONTINUATION, 0) };
        bytes.extend(frame(kind, flags | more, 1, piece));
    }
    wire.send(&bytes).expect("sent");
    wire.patience(Duration::from_secs(3)).expect("a limit");
    let frames = wire.rest();
    let refused = frames.iter().any(|f| matches!(f.kind, kind::HEADERS | kind::RST_STREAM | kind::GOAWAY));
    assert!(refused, "{frames:?}");
    let grown = resident(pid).saturating_sub(before);
    println!("A6: memory +{} KiB", grown / 1024);
    assert!(grown < 16 << 20);
    assert_eq!(target.stack.mock.requests(), 0);
}

#[test]
fn empty_frames_cost_nothing() {
    let target = Target::start();
    let pid = target.stack.node.process_id();
    let mut wire = target.wire();
    wire.send(&frame(kind::HEADERS, END_HEADERS, 1, &chat_head(&target.bot.token))).expect("sent");
    let before = resident(pid);
    let many: Vec<u8> = (0..1000).flat_map(|_| frame(kind::DATA, 0, 1, &[])).collect();
    let thousands = if verify() { 1_000 } else { 100 };
    let (sent, _) = until_refused(&mut wire, thousands, |_| many.clone());
    let grown = resident(pid).saturating_sub(before);
    println!("A7: {sent} of {thousands} thousand empty DATA frames were taken, memory +{} KiB", grown / 1024);
    assert!(grown < 5 << 20);
    assert_eq!(target.stack.chat_at(target.plain, &target.bot).status(), 200);
}
