//! Answers of any size pass byte for byte, and nothing of them is kept: events of
//! a hundred megabytes, of a million lines, and bodies that would be a thousand
//! times as large if somebody unpacked them.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clawgate_tests::config::verify;
use clawgate_tests::edge::huge::{Body, Huge, Measure, Shape};
use clawgate_tests::edge::usage::resident;
use clawgate_tests::http::{Connection, Request};
use clawgate_tests::stack::{Bot, Stack, chat_body};
use clawgate_tests::wait::until;
use serde_json::{Value, json};

/// What a node may hold more while such an answer passes: buffers of its
/// connections, and the part of an event in which usage is looked for.
const HELD: u64 = 4 << 20;

/// Watches the most memory that a process has while something happens.
fn watching<T>(pid: u32, work: impl FnOnce() -> T) -> (T, u64) {
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                most.fetch_max(resident(pid), Ordering::SeqCst);
                std::thread::yield_now();
            }
        });
        let done = work();
        over.store(true, Ordering::SeqCst);
        (done, most.load(Ordering::SeqCst))
    })
}

/// The answer as the bot got it.
fn answer(stack: &Stack, bot: &Bot, streams: bool) -> Body {
    let mut body = chat_body(streams);
    if streams {
        body["stream_options"] = json!({ "include_usage": true });
    }
    let mut connection = Connection::open(stack.data()).expect("connected");
    connection.send(&Request::post("/v1/openai/chat/completions", &body).bearer(&bot.token)).expect("sent");
    assert_eq!(connection.head("POST").expect("a head").status, 200);
    let mut measure = Measure::default();
    while let Some(piece) = connection.piece().expect("the answer goes on") {
        measure.push(&piece);
    }
    measure.end()
}

/// The usage row of the request with this number, once it is there.
fn row(stack: &Stack, number: usize) -> Value {
    let rows = stack.rest().usage_rows("huge", number);
    rows.into_iter().max_by_key(|row| row["created_at"].as_str().map(str::to_owned)).expect("a row")
}

#[test]
fn huge_events_pass_and_are_not_kept() {
    let megabytes = if verify() { 100 } else { 20 };
    let huge = Huge::start(Shape::Line(1 << 10));
    let stack = Stack::start();
    stack.key("openai", "sk-huge", &format!("http://{}/v1", huge.address), &[], json!({}));
    let bot = stack.bot("huge", json!({}));
    let pid = stack.node.process_id();
    assert_eq!(answer(&stack, &bot, true), huge.sent());
    for (number, shape) in [Shape::Line(megabytes << 20), Shape::Lines(megabytes * 10_000)].into_iter().enumerate() {
        let before = resident(pid);
        huge.shape(shape.clone());
        let (got, most) = watching(pid, || answer(&stack, &bot, true));
        let grown = most.saturating_sub(before);
        println!("C3: {shape:?}: {} bytes, memory +{} KiB", got.length, grown >> 10);
        assert_eq!(got, huge.sent(), "other bytes");
        assert!(grown <= HELD, "{shape:?}: {grown} bytes more");
        let row = row(&stack, number + 2);
        assert_eq!((row["input_tokens"].as_u64(), row["output_tokens"].as_u64()), (Some(9), Some(5)), "{row}");
        assert_eq!(row["usage_source"], "upstream", "{row}");
    }
}

/// So many megabytes of zeros, as gzip packs them.
fn packed(megabytes: usize) -> Vec<u8> {
    let program = "import sys,zlib\nc=zlib.compressobj(9,zlib.DEFLATED,31)\nz=bytes(1<<20)\nw=sys.stdout.buffer.write\n\
                   for _ in range(int(sys.argv[1])): w(c.compress(z))\nw(c.flush())";
    let made = Command::new("python3").args(["-c", program, &megabytes.to_string()]).output().expect("python3 runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}

#[test]
fn what_is_packed_is_never_unpacked() {
    let bomb = Arc::new(packed(if verify() { 10_240 } else { 512 }));
    let huge = Huge::start(Shape::Encoded("gzip", bomb.clone()));
    let stack = Stack::start();
    stack.key("openai", "sk-huge", &format!("http://{}/v1", huge.address), &[], json!({}));
    let bot = stack.bot("huge", json!({}));
    let pid = stack.node.process_id();
    for (number, encoding) in ["gzip", "br", "zstd"].into_iter().enumerate() {
        huge.shape(Shape::Encoded(encoding, bomb.clone()));
        let before = resident(pid);
        let (got, most) = watching(pid, || answer(&stack, &bot, false));
        let grown = most.saturating_sub(before);
        println!("C7: {encoding}: {} bytes, memory +{} KiB", got.length, grown >> 10);
        assert_eq!(got, huge.sent(), "other bytes");
        assert!(grown <= HELD, "{encoding}: {grown} bytes more");
        let row = row(&stack, number + 1);
        assert_eq!((row["outcome"].as_str(), row["usage_source"].as_str()), (Some("ok"), Some("estimated")), "{row}");
    }
    until("the node to be well", Duration::from_secs(5), || (answer(&stack, &bot, false) == huge.sent()).then_some(()));
}
