//! Slow heads, slow bodies, idle connections (all at once, with ordinary
//! requests between them) and readers that hardly read.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use clawgate_tests::chaos::load::{Load, Source, percentile};
use clawgate_tests::config::verify;
use clawgate_tests::edge::sink::Endless;
use clawgate_tests::edge::usage::{many_files, resident};
use clawgate_tests::http::{Connection, Request};
use clawgate_tests::stack::{Stack, chat_body, chat_request};
use serde_json::json;

use crate::alone;

/// A client that sends a byte now and then until it is thrown out.
struct Dripper {
    stream: TcpStream,
    /// When it was thrown out, since the beginning.
    ended: Option<Duration>,
}

impl Dripper {
    fn open(address: SocketAddr, first: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.write_all(first).expect("sent");
        stream.set_nonblocking(true).expect("non-blocking");
        Self { stream, ended: None }
    }

    /// Sends a byte and looks whether the other side has had enough.
    fn drip(&mut self, byte: u8, began: Instant) {
        let mut answer = [0_u8; 2048];
        let gone = match self.stream.read(&mut answer) {
            // An answer, or the end.
            Ok(_) => true,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        if gone || (byte != 0 && self.stream.write(&[byte]).is_err()) {
            self.ended.get_or_insert(began.elapsed());
        }
    }
}

/// The latest end of a crowd; `None`: some are still there.
fn last_end(crowd: &[Dripper]) -> Option<Duration> {
    crowd.iter().map(|client| client.ended).collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().max())
}

#[test]
fn slow_clients_are_thrown_out_and_idle_ones_cost_little() {
    let _turn = alone();
    many_files();
    let (slow, idle) = if verify() { (2000, 10_000) } else { (150, 1500) };
    let stack = Stack::start();
    let bot = stack.ordinary("sk-slow", "worker");
    let (data, pid) = (stack.data(), stack.node.process_id());
    let source =
        |rate| Source { name: "legit", request: chat_request(&bot.token), rate: AtomicU64::new(rate), connections: 16 };
    let quiet = Load::run(data, &[source(200)], |load| wait_for(load, 200));

    let mut kept = idle_ones(data, pid, idle);
    let before = resident(pid);
    let head = b"POST /v1/openai/chat/completions HTTP/1.1\r\nHost: a\r\nX: ";
    let body = format!(
        "POST /v1/openai/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Length: 100000\r\n\r\n{{",
        bot.token
    );
    let began = Instant::now();
    let mut heads: Vec<Dripper> = (0..slow).map(|_| Dripper::open(data, head)).collect();
    let mut bodies: Vec<Dripper> = (0..slow).map(|_| Dripper::open(data, body.as_bytes())).collect();
    let mut ends = (None, None);
    let mut each = 0;
    let samples = Load::run(data, &[source(200)], |load| {
        for turn in 1_u32.. {
            clawgate_tests::wait::until("the next second", Duration::from_secs(5), || {
                (began.elapsed() >= Duration::from_secs(1) * turn).then_some(())
            });
            heads.iter_mut().for_each(|client| client.drip(b'x', began));
            bodies.iter_mut().for_each(|client| client.drip(b' ', began));
            if turn == 8 {
                each = resident(pid).saturating_sub(before) / (2 * slow);
            }
            ends = (last_end(&heads), last_end(&bodies));
            if ends.0.is_some() && ends.1.is_some() {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "still there after {:?}", load.now());
        }
    });
    let times = |samples: &[_]| percentile(&samples.iter().collect::<Vec<_>>(), 990);
    let good = samples.iter().filter(|sample| sample.status == 200).count();
    println!(
        "B1: {slow} slow heads ended by {:?}, {each} bytes each; legitimate {good} of {}, p99 {:?} -> {:?}",
        ends.0,
        samples.len(),
        times(&quiet),
        times(&samples)
    );
    println!("B2: {slow} slow bodies ended by {:?}", ends.1);
    assert!(ends.0.is_some_and(|end| end <= Duration::from_secs(17)), "{ends:?}");
    assert!(ends.1.is_some_and(|end| end <= Duration::from_secs(60)), "{ends:?}");
    assert_eq!(good, samples.len());
    // The aim is 40 KiB.
    assert!(each <= 96 * 1024, "{each} bytes for each slow connection");
    let mut probe = kept.swap_remove(0);
    probe.write_all(&nothing(data)).expect("an idle connection is still there");
    assert!(probe.read(&mut [0_u8; 4096]).is_ok_and(|count| count > 0));
}

/// What is refused without a look at anything.
fn nothing(address: SocketAddr) -> Vec<u8> {
    Request::new("GET", "/v1/nowhere/x").encode(address)
}

/// B4: connections that are idle after a request, so that all their buffers have
/// been used once.
fn idle_ones(data: SocketAddr, pid: u32, count: u64) -> Vec<TcpStream> {
    let before = resident(pid);
    let mut kept: Vec<TcpStream> = (0..count).map(|_| TcpStream::connect(data).expect("connected")).collect();
    let get = nothing(data);
    for stream in &mut kept {
        stream.write_all(&get).expect("sent");
    }
    for stream in &mut kept {
        let read = stream.read(&mut [0_u8; 4096]).expect("an answer");
        assert!(read > 0);
    }
    let each = resident(pid).saturating_sub(before) / count;
    println!("B4: {count} idle connections, {each} bytes each");
    // The aim is 25 KiB.
    assert!(each <= 64 * 1024, "{each} bytes for each idle connection");
    kept
}

fn wait_for(load: &Load<'_>, count: usize) {
    clawgate_tests::wait::until("ordinary answers", Duration::from_secs(20), || {
        (load.count("legit", Duration::ZERO, |_| true) >= count).then_some(())
    });
}

/// B3: what is not read is not fetched, a slow reader is served, and one that
/// has stopped is cut off.
#[test]
fn readers_that_hardly_read_hold_little() {
    let _turn = alone();
    many_files();
    let clients = if verify() { 500 } else { 40 };
    let stack = Stack::start();
    let endless = Endless::start();
    stack.key("openai", "sk-endless", &format!("http://{}/v1", endless.address), &[], json!({}));
    let bot = stack.bot("reader", json!({}));
    let pid = stack.node.process_id();
    let request = Request::post("/v1/openai/chat/completions", &chat_body(true)).bearer(&bot.token);
    let before = resident(pid);
    let mut readers: Vec<Connection> = (0..clients)
        .map(|_| {
            let mut reader = narrow(stack.data());
            reader.send(&request).expect("sent");
            reader
        })
        .collect();
    for reader in &mut readers {
        assert_eq!(reader.head("POST").expect("a head").status, 200);
    }
    // Looked at once the node takes nothing more from the vendor.
    let mut last = (endless.taken().0, Instant::now());
    clawgate_tests::wait::until("the vendor to be held up", Duration::from_secs(20), || {
        let now = endless.taken().0;
        if now > last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(1)).then_some(())
    });
    let each = resident(pid).saturating_sub(before) / clients;
    let ahead = endless.taken().0;
    println!("B3: {clients} readers that do not read: {each} bytes each in the node, at most {ahead} bytes ahead");
    assert!(each <= 128 * 1024, "{each} bytes for each reader");
    assert!(ahead <= 1 << 20, "{ahead} bytes were taken of one answer");
    if verify() {
        slow_ones_stay(readers, &endless);
    }
}

/// Half of them read a kilobyte a second, the others nothing.
fn slow_ones_stay(mut readers: Vec<Connection>, endless: &Endless) {
    let began = Instant::now();
    let half = readers.len() / 2;
    let (steady, stalled) = readers.split_at_mut(half);
    for reader in steady.iter_mut() {
        reader.stream().set_nonblocking(true).expect("non-blocking");
    }
    let (mut piece, mut taken) = ([0_u8; 1024], vec![0_usize; half]);
    for second in 1_u32..=75 {
        clawgate_tests::wait::until("the next second", Duration::from_secs(5), || {
            (began.elapsed() >= Duration::from_secs(1) * second).then_some(())
        });
        for (reader, taken) in steady.iter_mut().zip(&mut taken) {
            let mut stream = reader.stream();
            match stream.read(&mut piece) {
                Ok(0) => panic!("a steady reader was cut off after {second} s and {taken} bytes"),
                Ok(count) => *taken += count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "after {second} s and {taken} bytes"),
            }
        }
    }
    println!("B3: steady readers took {:?} to {:?} bytes in 75 s", taken.iter().min(), taken.iter().max());
    let left = endless.taken().1;
    println!("B3: after 75 s {left} answers go on; {} read 1 KiB/s, {} had stopped", steady.len(), stalled.len());
    assert_eq!(left, steady.len());
}

/// A connection whose kernel takes a few kilobytes ahead, from its first packet on.
fn narrow(address: SocketAddr) -> Connection {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};
    let descriptor = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    setsockopt(&descriptor, sockopt::RcvBuf, &4096).expect("a small buffer");
    connect(descriptor.as_raw_fd(), &SockaddrStorage::from(address)).expect("connected");
    Connection::over(TcpStream::from(descriptor), address).expect("a connection")
}
