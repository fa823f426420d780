//! Connections beyond the cap, sizes beyond the limits, files beyond the
//! system's limit.

use std::io::Read as _;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use clawgate_tests::config::{installed, missing};
use clawgate_tests::edge::usage::{many_files, metric, processor};
use clawgate_tests::http::{Connection, Request, call, try_call};
use clawgate_tests::stack::{Stack, chat_request};
use clawgate_tests::wait::until;

use crate::alone;

#[test]
fn connections_beyond_a_cap_are_closed_at_once() {
    let _turn = alone();
    let stack = Stack::start_with(|_, node| {
        node.spec.environment.push(("CLAWGATE_MAX_CONNECTIONS".to_owned(), "50".to_owned()));
        node.spec.environment.push(("CLAWGATE_MAX_CONNECTIONS_PER_SOURCE".to_owned(), "40".to_owned()));
    });
    let bot = stack.ordinary("sk-caps", "worker");
    let (data, admin) = (stack.data(), stack.node.address("admin"));
    let open = |name: &str| metric(admin, name);
    // One more than the source may have is one too many.
    let mut kept: Vec<Connection> = (0..39).map(|_| Connection::open(data).expect("connected")).collect();
    until("39 connections", Duration::from_secs(5), || (open("clawgate_connections") == 39.0).then_some(()));
    let mut good = Connection::open(data).expect("connected");
    assert_eq!(good.call(&chat_request(&bot.token)).expect("an answer").status(), 200);
    let mut slowest = Duration::ZERO;
    for _ in 0..30 {
        let began = Instant::now();
        let mut refused = TcpStream::connect(data).expect("the kernel accepts");
        refused.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
        assert!(matches!(refused.read(&mut [0_u8; 16]), Ok(0) | Err(_)));
        slowest = slowest.max(began.elapsed());
    }
    let counted = open("clawgate_connections_refused_total{reason=\"source_cap\"}");
    println!("B5: 30 of 30 connections beyond a source's cap closed, the slowest after {slowest:?}; counted {counted}");
    assert!((counted - 30.0).abs() < 0.5 && slowest < Duration::from_millis(100), "{slowest:?}");
    assert_eq!(good.call(&chat_request(&bot.token)).expect("an answer").status(), 200, "the others are not touched");
    kept.truncate(10);
    until("places to come back", Duration::from_secs(5), || (open("clawgate_connections") <= 11.0).then_some(()));
    assert_eq!(stack.chat(&bot).status(), 200);
}

#[test]
fn sizes_beyond_a_limit_never_reach_a_vendor() {
    let _turn = alone();
    let stack = Stack::start();
    let bot = stack.ordinary("sk-sizes", "worker");
    let chat = chat_request(&bot.token);
    let long = chat.clone().header("x-long", &"x".repeat(33 << 10));
    let many = (0..101).fold(chat.clone(), |request, n| request.header(&format!("x-{n}"), "1"));
    let uri = Request { target: format!("{}?q={}", chat.target, "x".repeat(8 << 10)), ..chat.clone() };
    let endless = chat.clone().header("x-long", &"x".repeat(200 << 10));
    for (what, request, status, code) in [
        ("33 KiB of headers", &long, 431, "headers_too_large"),
        ("101 headers", &many, 431, "headers_too_large"),
        ("8 KiB of address", &uri, 414, "uri_too_long"),
        ("200 KiB of headers", &endless, 431, "headers_too_large"),
    ] {
        let answer = call(stack.data(), request);
        assert_eq!((answer.status(), answer.code().as_str()), (status, code), "{what}: {}", answer.text());
    }
    // The announced length is enough; the body itself is not waited for.
    let mut connection = Connection::open(stack.data()).expect("connected");
    let head = chat.body(Vec::new()).encode(stack.data());
    let text = String::from_utf8_lossy(&head).replace("content-length: 0", "content-length: 41943040");
    connection.send_raw(text.as_bytes()).expect("sent");
    let answer = connection.response("POST").expect("an answer");
    assert_eq!((answer.status(), answer.code().as_str()), (413, "request_too_large"), "{}", answer.text());
    assert_eq!(answer.head.header("connection"), Some("close"));
    assert_eq!(stack.mock.requests(), 0);
    println!("B6: 431, 431, 414, 413; nothing reached the vendor");
}

#[test]
fn without_free_files_the_node_waits_and_recovers() {
    let _turn = alone();
    let Some(prlimit) = installed("prlimit") else { return missing("prlimit") };
    many_files();
    let stack = Stack::start();
    let bot = stack.ordinary("sk-files", "worker");
    let pid = stack.node.process_id();
    let set = Command::new(prlimit).args(["--pid", &pid.to_string(), "--nofile=512:512"]).status();
    assert!(set.is_ok_and(|status| status.success()), "prlimit");
    // More than it can take: the rest waits in the kernel.
    let crowd: Vec<TcpStream> =
        (0..900).filter_map(|_| TcpStream::connect_timeout(&stack.data(), Duration::from_secs(1)).ok()).collect();
    assert!(crowd.len() > 600, "{} connected", crowd.len());
    let files = || std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    until("all files to be used", Duration::from_secs(10), || (files() >= 505).then_some(()));
    let (from, began) = (processor(pid), Instant::now());
    until("a while", Duration::from_secs(5), || (began.elapsed() >= Duration::from_secs(2)).then_some(()));
    let used = (processor(pid) - from).as_secs_f64() / began.elapsed().as_secs_f64();
    drop(crowd);
    let began = Instant::now();
    until("requests to be served again", Duration::from_secs(10), || {
        try_call(stack.data(), &chat_request(&bot.token)).ok().filter(|answer| answer.status() == 200)
    });
    println!("B7: {:.0} % of a core without free files; served again after {:?}", used * 100.0, began.elapsed());
    assert!(used < 0.2, "{used} of a core");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
