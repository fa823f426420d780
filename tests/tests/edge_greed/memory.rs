//! A node that nears the end of its memory refuses, then closes, then accepts
//! no more, and none of that outlasts the need.

use std::io::Read as _;
use std::net::TcpStream;
use std::time::Duration;

use clawgate_tests::edge::usage::{metric, resident};
use clawgate_tests::http::{Connection, Request};
use clawgate_tests::stack::{Stack, chat_request};
use clawgate_tests::wait::until;

use crate::alone;

const LIMIT: u64 = 256 << 20;
/// One large body; it is held until the vendor has answered.
const BODY: usize = 30 << 20;

#[test]
fn memory_is_never_used_up() {
    let _turn = alone();
    let stack = Stack::start_with(|_, node| {
        node.spec.environment.push(("CLAWGATE_MEMORY_LIMIT".to_owned(), LIMIT.to_string()));
    });
    let bot = stack.ordinary("sk-memory", "worker");
    let (data, admin, pid) = (stack.data(), stack.node.address("admin"), stack.node.process_id());
    let pressure = || metric(admin, "clawgate_memory_pressure");
    assert!((metric(admin, "clawgate_memory_limit_bytes") - LIMIT as f64).abs() < 1.0);
    let text = format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}]}}", "x".repeat(BODY));
    let large = Request::new("POST", "/v1/openai/chat/completions")
        .bearer(&bot.token)
        .header("content-type", "application/json")
        .header("x-mock-ttft", "600000")
        .body(text.into_bytes());
    let mut kept = Connection::open(data).expect("connected");
    assert_eq!(kept.call(&chat_request(&bot.token)).expect("an answer").status(), 200);
    // Bodies come in one by one; each is let in below the watermark.
    let mut held = Vec::new();
    while pressure() < 1.0 {
        assert!(held.len() < 16, "{} bodies of {BODY} bytes and no pressure", held.len());
        let mut connection = Connection::open(data).expect("connected");
        connection.send(&large).expect("sent");
        held.push(connection);
        let count = held.len() as u64;
        until("the body to be at the vendor", Duration::from_secs(20), || {
            (stack.mock.inflight() >= count || pressure() >= 1.0).then_some(())
        });
        let looked = std::time::Instant::now();
        until("two looks at memory", Duration::from_secs(5), || (looked.elapsed().as_millis() > 600).then_some(()));
    }
    let peak = resident(pid);
    let level = pressure();
    println!("H4: {} bodies of 30 MiB, {} MiB of {} used, level {level}", held.len(), peak >> 20, LIMIT >> 20);
    if level < 3.0 {
        let answer = kept.call(&chat_request(&bot.token)).expect("an answer");
        assert_eq!((answer.status(), answer.code().as_str()), (503, "overloaded"), "{}", answer.text());
        assert_eq!(
            (answer.head.header("retry-after"), answer.head.header("x-should-retry")),
            (Some("1"), Some("true"))
        );
        assert!(level < 2.0 || answer.head.header("connection") == Some("close"), "{:?}", answer.head);
    }
    if level >= 3.0 {
        // Nobody is accepted: the kernel has the connection, and nothing comes.
        let mut waiting = TcpStream::connect(data).expect("the kernel takes it");
        waiting.set_read_timeout(Some(Duration::from_millis(500))).expect("a limit");
        assert!(waiting.read(&mut [0_u8; 1]).is_err());
    }
    drop(held);
    until("memory to come back", Duration::from_secs(20), || (pressure() < 1.0).then_some(()));
    assert_eq!(stack.chat(&bot).status(), 200);
    assert!(peak < LIMIT * 5 / 4, "{peak}");
    println!("H4: {} MiB after the flood, served again", resident(pid) >> 20);
}
