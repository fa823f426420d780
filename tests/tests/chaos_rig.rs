//! The chaos rig does what it says: each fault is seen at an echo server behind
//! the proxy, or at a process of one's own.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};

use clawgate_tests::chaos::load::percentile;
use clawgate_tests::chaos::process::state;
use clawgate_tests::chaos::{FaultProxy, Faults, Frozen, Load, Source};
use clawgate_tests::http::Request;
use clawgate_tests::process::Spec;
use clawgate_tests::wait::until;

const PATIENCE: Duration = Duration::from_secs(20);

/// Sends back what it gets, for as long as the test runs.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let (mut from, mut to) = (&stream, &stream);
                let _ended = std::io::copy(&mut from, &mut to);
            });
        }
    });
    address
}

fn connect(proxy: &FaultProxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.set_nodelay(true).expect("no delay");
    stream
}

fn round_trip(mut stream: &TcpStream, bytes: &[u8]) -> Duration {
    let began = Instant::now();
    stream.write_all(bytes).expect("writes");
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).expect("comes back");
    assert_eq!(back, bytes);
    began.elapsed()
}

/// Whether nothing arrives for a while.
fn silent(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a limit");
    let nothing = matches!(stream.read(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    nothing
}

#[test]
fn without_a_fault_it_only_carries() {
    let proxy = FaultProxy::start(echo());
    let stream = connect(&proxy);
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    round_trip(&stream, b"small");
    thread::scope(|scope| {
        scope.spawn(|| (&stream).write_all(&bytes).expect("writes"));
        let mut back = vec![0; bytes.len()];
        (&stream).read_exact(&mut back).expect("comes back");
        assert_eq!(back, bytes);
    });
    assert_eq!((proxy.accepted(), proxy.carried()), (1, 2 * (bytes.len() as u64 + 5)));
    stream.shutdown(std::net::Shutdown::Write).expect("half closes");
    assert_eq!((&stream).read(&mut [0; 1]).expect("an orderly end"), 0);
}

#[test]
fn delay_and_jitter_make_it_late() {
    let proxy = FaultProxy::start(echo());
    let stream = connect(&proxy);
    round_trip(&stream, b"before");
    proxy.set(Faults { delay: Duration::from_millis(80), jitter: Duration::from_millis(20), ..Faults::default() });
    let took = round_trip(&stream, b"during");
    assert!(took >= Duration::from_millis(160), "{took:?}: once each way");
    proxy.heal();
    until("the delay to be over", PATIENCE, || {
        (round_trip(&stream, b"after") < Duration::from_millis(80)).then_some(())
    });
}

#[test]
fn a_rate_is_kept() {
    let proxy = FaultProxy::start(echo());
    let stream = connect(&proxy);
    proxy.set(Faults { bytes_per_second: Some(20_000), ..Faults::default() });
    let took = round_trip(&stream, &[7; 10_000]);
    assert!(took >= Duration::from_millis(500), "{took:?} for 10,000 bytes at 20,000 per second");
}

#[test]
fn slices_are_small_and_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let proxy = FaultProxy::start(listener.local_addr().expect("its address"));
    proxy.set(Faults { slice: Some(3), delay: Duration::from_millis(2), ..Faults::default() });
    let mut client = connect(&proxy);
    client.write_all(b"0123456789").expect("writes");
    let (mut server, _) = listener.accept().expect("accepts");
    let (mut got, mut pieces) = (Vec::new(), 0);
    while got.len() < 10 {
        let mut buffer = [0; 64];
        let count = server.read(&mut buffer).expect("reads");
        got.extend_from_slice(&buffer[..count]);
        pieces += 1;
    }
    assert_eq!(got, b"0123456789");
    assert!(pieces > 1, "all in one piece");
}

#[test]
fn a_connection_is_reset_at_the_byte_that_was_said() {
    let proxy = FaultProxy::start(echo());
    proxy.set(Faults { reset_after: Some(1000), ..Faults::default() });
    let mut stream = connect(&proxy);
    round_trip(&stream, &[1; 400]);
    assert_eq!(proxy.resets(), 0);
    stream.write_all(&[2; 400]).expect("is taken");
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest).expect_err("a reset");
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
    assert!(rest.len() <= 200, "{}", rest.len());
    assert_eq!((proxy.resets(), proxy.carried()), (1, 1000));
}

#[test]
fn a_black_hole_swallows_and_gives_back_what_was_sent_once_it_is_over() {
    let proxy = FaultProxy::start(echo());
    let old = connect(&proxy);
    round_trip(&old, b"before");
    proxy.set(Faults { black_hole: true, ..Faults::default() });
    let new = connect(&proxy);
    (&old).write_all(b"old").expect("is taken by the kernel");
    (&new).write_all(b"new").expect("is taken by the kernel");
    assert!(silent(&old) && silent(&new), "something got through");
    assert_eq!(proxy.carried(), 12);
    proxy.heal();
    for (mut stream, wanted) in [(&old, b"old"), (&new, b"new")] {
        let mut back = [0; 3];
        stream.read_exact(&mut back).expect("arrives late");
        assert_eq!(&back, wanted);
    }
}

#[test]
fn a_forgotten_connection_is_open_and_dead_and_new_ones_work() {
    let proxy = FaultProxy::start(echo());
    let old = connect(&proxy);
    round_trip(&old, b"before");
    proxy.forget_connections();
    assert!(silent(&old), "the client is not told");
    (&old).write_all(b"is anybody there?").expect("the kernel takes it");
    assert!(silent(&old), "somebody was there");
    round_trip(&connect(&proxy), b"a new one");
}

#[test]
fn a_process_stands_still_and_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut process = Spec::new("sleeper", PathBuf::from("/bin/sleep"), folder.path(), &["60"]).start();
    let frozen = Frozen::new(&process);
    assert_eq!(state(process.id()), Some('T'));
    drop(frozen);
    until("the process to go on", PATIENCE, || (state(process.id()) != Some('T')).then_some(()));
    assert_eq!(process.ended(), None);
}

#[test]
fn a_load_keeps_its_pace_and_counts_waiting_from_when_a_request_was_due() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while matches!((&stream).read(&mut bytes), Ok(n) if n > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if (&stream).write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let proxy = FaultProxy::start(address);
    let source = Source { name: "pace", request: Request::new("GET", "/"), rate: AtomicU64::new(200), connections: 10 };
    let mut from = Duration::ZERO;
    let samples = Load::run(proxy.address, std::slice::from_ref(&source), |load| {
        until("a hundred answers", PATIENCE, || {
            (load.count("pace", Duration::ZERO, |s| s.status == 200) >= 100).then_some(())
        });
        from = load.now();
        proxy.set(Faults { black_hole: true, ..Faults::default() });
        until("a second to pass", PATIENCE, || (load.now() >= from + Duration::from_secs(1)).then_some(()));
        proxy.heal();
        until("answers again", PATIENCE, || {
            (load.count("pace", from + Duration::from_secs(1), |s| s.status == 200) >= 50).then_some(())
        });
    });
    assert!(samples.iter().all(|sample| sample.status == 200 && sample.name == "pace"), "{samples:?}");
    let during: Vec<_> = samples.iter().filter(|s| s.at >= from && s.at < from + Duration::from_millis(500)).collect();
    assert!(during.len() >= 80, "{} due in half a second at 200 per second", during.len());
    assert!(percentile(&during, 500) >= Duration::from_millis(400), "waiting was left out");
}
