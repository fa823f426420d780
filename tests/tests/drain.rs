//! Stopping: at once when idle, and not before the last stream has ended.

use std::time::{Duration, Instant};

use clawgate_tests::config::verify;
use clawgate_tests::edge::usage::many_files;
use clawgate_tests::http::{Connection, Request};
use clawgate_tests::stack::{Stack, chat_body};
use clawgate_tests::wait::until;
use nix::sys::signal::Signal;

#[test]
fn idle_planes_are_gone_within_a_second() {
    let mut stack = Stack::start();
    let bot = stack.ordinary("sk-drain", "worker");
    // A kept connection without a request on it holds nobody up.
    let mut idle = Connection::open(stack.data()).expect("connected");
    let request = clawgate_tests::stack::chat_request(&bot.token);
    assert_eq!(idle.call(&request).expect("an answer").status(), 200);
    let node = stack.node.terminate();
    assert!(node < Duration::from_secs(1), "the node took {node:?}");
    let control = stack.control.terminate();
    assert!(control < Duration::from_secs(1), "the control plane took {control:?}");
}

#[test]
fn a_stream_under_way_is_finished_and_counted() {
    let mut stack = Stack::start();
    let bot = stack.ordinary("sk-drain", "worker");
    let slow = Request::post("/v1/openai/chat/completions", &chat_body(true))
        .bearer(&bot.token)
        .header("x-mock-tps", "20")
        .header("x-mock-tokens", "40");
    let mut connection = Connection::open(stack.data()).expect("connected");
    connection.send(&slow).expect("sent");
    assert_eq!(connection.head("POST").expect("head").status, 200);
    assert!(connection.piece().expect("a piece").is_some());

    let data = stack.data();
    stack.node.process().signal(Signal::SIGTERM);
    until("new connections to be refused", Duration::from_secs(3), || Connection::open(data).is_err().then_some(()));
    let mut text = Vec::new();
    while let Some(piece) = connection.piece().expect("the stream goes on") {
        text.extend(piece);
    }
    let ended = Instant::now();
    assert!(String::from_utf8_lossy(&text).ends_with("data: [DONE]\n\n"));
    let (status, _) = stack.node.process().wait();
    assert_eq!(status.code(), Some(0));
    assert!(ended.elapsed() < Duration::from_secs(2), "lingered {:?} after the stream", ended.elapsed());

    // What the node could not send in its last moments it keeps.
    stack.node.start();
    let rows = stack.rest().usage_rows("worker", 1);
    let row = rows.iter().find(|r| r["stream"] == true).expect("a row of the stream");
    assert_eq!((row["outcome"].as_str(), row["output_tokens"].as_u64()), (Some("ok"), Some(40)), "{row}");
}

#[test]
fn a_request_that_comes_late_is_sent_elsewhere() {
    let mut stack = Stack::start();
    let bot = stack.ordinary("sk-late", "worker");
    let slow = Request::post("/v1/openai/chat/completions", &chat_body(true))
        .bearer(&bot.token)
        .header("x-mock-tps", "20")
        .header("x-mock-tokens", "160");
    let mut stream = Connection::open(stack.data()).expect("connected");
    stream.send(&slow).expect("sent");
    assert_eq!(stream.head("POST").expect("head").status, 200);
    // Of another request half of the head is there when the node begins to stop.
    let late = clawgate_tests::stack::chat_request(&bot.token).encode(stack.data());
    let (half, rest) = late.split_at(40);
    let mut connection = Connection::open(stack.data()).expect("connected");
    connection.send_raw(half).expect("sent");

    let data = stack.data();
    stack.node.process().signal(Signal::SIGTERM);
    until("new connections to be refused", Duration::from_secs(3), || Connection::open(data).is_err().then_some(()));
    let refused = Instant::now();
    until("a good second", Duration::from_secs(3), || (refused.elapsed() > Duration::from_millis(1200)).then_some(()));
    connection.send_raw(rest).expect("sent");
    let answer = connection.response("POST").expect("an answer");
    assert_eq!((answer.status(), answer.code().as_str()), (503, "shutting_down"), "{}", answer.text());
    assert_eq!((answer.head.header("retry-after"), answer.head.header("connection")), (Some("1"), Some("close")));
    while stream.piece().expect("the stream goes on").is_some() {}
    let (status, _) = stack.node.process().wait();
    assert_eq!(status.code(), Some(0));
}

/// H2: whoever is being served is served to the end, however many they are.
#[test]
fn a_crowd_of_streams_is_finished_and_counted() {
    many_files();
    let count = if verify() { 1000 } else { 200 };
    let mut stack = Stack::start();
    let bot = stack.ordinary("sk-crowd", "crowd");
    let slow = Request::post("/v1/openai/chat/completions", &chat_body(true))
        .bearer(&bot.token)
        .header("x-mock-tps", "10")
        .header("x-mock-tokens", "80");
    let mut streams: Vec<Connection> = (0..count)
        .map(|_| {
            let mut stream = Connection::open(stack.data()).expect("connected");
            stream.send(&slow).expect("sent");
            stream
        })
        .collect();
    for stream in &mut streams {
        assert_eq!(stream.head("POST").expect("head").status, 200);
        assert!(stream.piece().expect("a piece").is_some());
    }
    let data = stack.data();
    let told = Instant::now();
    stack.node.process().signal(Signal::SIGTERM);
    until("new connections to be refused", Duration::from_secs(3), || Connection::open(data).is_err().then_some(()));
    let refused = told.elapsed();
    for stream in &mut streams {
        let mut text = Vec::new();
        while let Some(piece) = stream.piece().expect("the stream goes on") {
            text.extend(piece);
        }
        assert!(String::from_utf8_lossy(&text).ends_with("data: [DONE]\n\n"));
    }
    let (status, _) = stack.node.process().wait();
    assert_eq!(status.code(), Some(0));
    println!(
        "H2: new connections refused after {refused:?}; {count} streams finished, gone after {:?}",
        told.elapsed()
    );
    stack.node.start();
    let rows = stack.rest().usage_rows("crowd", count);
    let whole = |row: &&serde_json::Value| row["outcome"] == "ok" && row["output_tokens"] == 80;
    assert_eq!((rows.len(), rows.iter().filter(whole).count()), (count, count));
}
