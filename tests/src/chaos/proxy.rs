//! A TCP proxy in user space that delays, slows down, slices, resets, swallows
//! and forgets.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

/// How often a pump that has nothing to do looks whether it should end.
const LOOK: Duration = Duration::from_millis(20);
const BUFFER: usize = 16 * 1024;

/// What is wrong with the network. The default: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Every piece is late by this.
    pub delay: Duration,
    /// And by up to this more, by a generator with a fixed seed.
    pub jitter: Duration,
    /// No more than so many bytes per second, each way and connection.
    pub bytes_per_second: Option<u64>,
    /// Pieces of at most so many bytes.
    pub slice: Option<usize>,
    /// A connection that has carried so many bytes, both ways, is reset.
    pub reset_after: Option<u64>,
    /// Nothing gets through and nothing is closed: as if every packet were
    /// dropped. What was sent meanwhile arrives once this is over.
    pub black_hole: bool,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    faults: Mutex<Faults>,
    changed: Condvar,
    stop: AtomicBool,
    accepted: AtomicU64,
    carried: AtomicU64,
    resets: AtomicU64,
    /// Increased to make the present connections half-open.
    forgotten: AtomicU64,
}

impl Shared {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().expect("lock")
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits while nothing gets through. The faults then.
    fn wait_open(&self) -> Faults {
        let mut faults = self.faults();
        while faults.black_hole && !self.stopped() {
            faults = self.changed.wait(faults).expect("lock");
        }
        *faults
    }

    fn wait_stopped(&self) {
        let faults = self.faults();
        drop(self.changed.wait_while(faults, |_| !self.stopped()).expect("lock"));
    }
}

/// A running proxy on a loopback port of its own; gone when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Starts one in front of `upstream`.
    ///
    /// # Panics
    /// No port can be bound.
    #[must_use]
    pub fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            upstream,
            faults: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            carried: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
        });
        let on = shared.clone();
        let acceptor = thread::spawn(move || {
            for client in listener.incoming().flatten().take_while(|_| !on.stopped()) {
                let number = on.accepted.fetch_add(1, Ordering::Relaxed);
                let on = on.clone();
                thread::spawn(move || carry(&on, client, number));
            }
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// From now on, for present connections too.
    pub fn set(&self, faults: Faults) {
        *self.shared.faults() = faults;
        self.shared.changed.notify_all();
    }

    /// Nothing is wrong any more.
    pub fn heal(&self) {
        self.set(Faults::default());
    }

    /// The upstream side of all present connections goes away, and nobody tells
    /// the clients: they stay connected to nothing.
    pub fn forget_connections(&self) {
        self.shared.forgotten.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Bytes carried so far, both ways.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.shared.carried.load(Ordering::Relaxed)
    }

    /// Connections reset so far.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.shared.resets.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        {
            let _seen_by_who_waits = self.shared.faults();
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        self.shared.changed.notify_all();
        if let Some(acceptor) = self.acceptor.take() {
            let _wakes_it = TcpStream::connect(self.address);
            let _ended = acceptor.join();
        }
    }
}

/// What the two pumps of a connection share.
struct Line<'a> {
    shared: &'a Shared,
    carried: AtomicU64,
    over: AtomicBool,
    /// Both ends are closed by a reset and not in order.
    reset: AtomicBool,
    /// As [`Shared::forgotten`] was when it began.
    age: u64,
}

impl Line<'_> {
    fn is_forgotten(&self) -> bool {
        self.shared.forgotten.load(Ordering::Relaxed) != self.age
    }

    fn ended(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.shared.stopped() || self.is_forgotten()
    }
}

fn carry(shared: &Shared, client: TcpStream, number: u64) {
    let age = shared.forgotten.load(Ordering::Relaxed);
    shared.wait_open();
    let Ok(server) = TcpStream::connect(shared.upstream) else { return };
    for stream in [&client, &server] {
        if stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(LOOK))).is_err() {
            return;
        }
    }
    let line =
        Line { shared, carried: AtomicU64::new(0), over: AtomicBool::new(false), reset: AtomicBool::new(false), age };
    thread::scope(|scope| {
        scope.spawn(|| pump(&line, &client, &server, number * 2 + 1));
        pump(&line, &server, &client, number * 2 + 2);
    });
    if line.is_forgotten() {
        drop(server);
        // The client's socket stays open and silent.
        shared.wait_stopped();
    }
}

fn pump(line: &Line<'_>, mut from: &TcpStream, mut to: &TcpStream, seed: u64) {
    let mut buffer = [0_u8; BUFFER];
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while !line.ended() {
        let most = line.shared.wait_open().slice.unwrap_or(BUFFER).clamp(1, BUFFER);
        let count = match from.read(&mut buffer[..most]) {
            Ok(0) => {
                let _half_closed = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        // It may have been read a moment before everything was swallowed.
        let faults = line.shared.wait_open();
        if line.ended() {
            break;
        }
        // The fault itself, not a wait for something.
        thread::sleep(late_by(&faults, count, &mut random));
        let passed = line.carried.fetch_add(count as u64, Ordering::Relaxed);
        let allowed = faults.reset_after.map_or(count as u64, |limit| limit.saturating_sub(passed));
        let count = count.min(usize::try_from(allowed).unwrap_or(usize::MAX));
        line.shared.carried.fetch_add(count as u64, Ordering::Relaxed);
        let sent = to.write_all(&buffer[..count]);
        if faults.reset_after.is_some_and(|limit| passed + count as u64 >= limit) {
            // Both directions may get there.
            if !line.reset.swap(true, Ordering::Relaxed) {
                line.shared.resets.fetch_add(1, Ordering::Relaxed);
            }
            reset(from);
            reset(to);
            break;
        }
        if sent.is_err() {
            break;
        }
    }
    line.over.store(true, Ordering::Relaxed);
    if !line.is_forgotten() && !line.reset.load(Ordering::Relaxed) {
        let _gone = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

fn late_by(faults: &Faults, bytes: usize, random: &mut u64) -> Duration {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    let jitter = u64::try_from(faults.jitter.as_micros()).unwrap_or(u64::MAX);
    let jitter = Duration::from_micros((*random >> 11).checked_rem(jitter).unwrap_or(0));
    let rate = faults
        .bytes_per_second
        .map_or(Duration::ZERO, |rate| Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / rate.max(1)));
    faults.delay + jitter + rate
}

/// Makes the end of a socket a reset instead of an orderly close.
fn reset(stream: &TcpStream) {
    let now = libc::linger { l_onoff: 1, l_linger: 0 };
    let _best_effort = setsockopt(stream, sockopt::Linger, &now);
}
