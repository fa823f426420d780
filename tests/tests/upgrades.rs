//! Upgrades under load: the node hands its listeners to a successor again and
//! again; no request fails, every stream comes to its end, usage is exact.
//!
//! Three times with twenty streams; with `CLAWGATE_VERIFY` twenty times with two
//! hundred streams of a minute.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clawgate_tests::config::verify;
use clawgate_tests::http::{Connection, Request};
use clawgate_tests::ledger::join;
use clawgate_tests::stack::{Bot, Stack, chat_body};
use clawgate_tests::wait::until;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Between the beginnings of two upgrades at least.
const PAUSE: Duration = Duration::from_millis(700);

struct Size {
    upgrades: usize,
    clients: u64,
    streams: u64,
    /// Of each stream, and how many in a second.
    tokens: u64,
    rate: u64,
}

fn size() -> Size {
    if verify() {
        Size { upgrades: 20, clients: 128, streams: 200, tokens: 300, rate: 5 }
    } else {
        Size { upgrades: 3, clients: 16, streams: 20, tokens: 60, rate: 12 }
    }
}

/// The node that serves now. Its process was started by its predecessor; when
/// this is dropped, all of them go.
struct Node {
    pid_file: PathBuf,
    group: Pid,
}

impl Node {
    fn pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(&self.pid_file).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }

    /// Has it start its successor, and waits for that to take over.
    fn upgrade(&self) {
        let old = self.pid().expect("a node");
        kill(old, Signal::SIGQUIT).expect("it is there");
        until("the successor", Duration::from_secs(20), || self.pid().filter(|new| *new != old));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _none_left = killpg(self.group, Signal::SIGKILL);
    }
}

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    answered: AtomicU64,
    streams: AtomicU64,
    failed: Mutex<BTreeMap<String, u64>>,
}

impl Seen {
    fn fail(&self, what: String) {
        *self.failed.lock().expect("lock").entry(what).or_default() += 1;
    }

    /// Sends one request after the other, over a connection that is kept as long
    /// as the node does.
    fn client(&self, number: u64, address: SocketAddr, bot: &Bot) {
        let mut kept: Option<Connection> = None;
        for serial in 0_u64.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let request = request(bot, &format!("up-{number:03}-{serial:06}"), false).header("x-mock-tokens", "4");
            let Some(mut open) = kept.take().or_else(|| Connection::open(address).ok()) else {
                self.fail("no connection".to_owned());
                continue;
            };
            match open.call(&request) {
                Ok(answer) if answer.status() == 200 && answer.cut.is_none() => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    let closes = answer.head.header("connection").is_some_and(|value| value.contains("close"));
                    kept = (!closes).then_some(open);
                }
                Ok(answer) => self.fail(format!("{} {} {:?}", answer.status(), answer.code(), answer.cut)),
                Err(error) => self.fail(error.to_string()),
            }
        }
    }

    fn stream(&self, number: u64, address: SocketAddr, bot: &Bot, size: &Size) {
        let request = request(bot, &format!("up-stream-{number:03}"), true)
            .header("x-mock-tokens", &size.tokens.to_string())
            .header("x-mock-tps", &size.rate.to_string());
        let ended = Connection::open(address).and_then(|mut connection| connection.call(&request));
        match ended {
            Ok(answer) if answer.status() == 200 && answer.text().ends_with("data: [DONE]\n\n") => {
                self.streams.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => self.fail(format!("a stream ended with {} {:?}", answer.status(), answer.cut)),
            Err(error) => self.fail(format!("a stream: {error}")),
        }
    }
}

fn request(bot: &Bot, id: &str, stream: bool) -> Request {
    Request::post("/v1/openai/chat/completions", &chat_body(stream)).bearer(&bot.token).header("x-request-id", id)
}

#[test]
fn upgrades_under_load_fail_no_request_and_end_no_stream() {
    let size = size();
    // So that a failure shows what the nodes say of it.
    let mut stack = Stack::start_with(|_, node| node.spec.set("--access-log", "off"));
    let bot = stack.ordinary("sk-upgrade", "upgraded");
    let group = Pid::from_raw(i32::try_from(stack.node.process().id()).expect("pid"));
    let node = Node { pid_file: stack.folder.path().join("node/run/proxy.pid"), group };
    let (address, seen) = (stack.data(), Seen::default());
    std::thread::scope(|scope| {
        for number in 0..size.clients {
            let (seen, bot) = (&seen, &bot);
            scope.spawn(move || seen.client(number, address, bot));
        }
        let streams: Vec<_> = (0..size.streams)
            .map(|number| {
                let (seen, bot, size) = (&seen, &bot, &size);
                scope.spawn(move || seen.stream(number, address, bot, size))
            })
            .collect();
        let work = || {
            until("streams under way", Duration::from_secs(20), || {
                (stack.mock.inflight() >= size.streams).then_some(())
            });
            for upgrade in 0..size.upgrades {
                let (before, began) = (seen.answered.load(Ordering::Relaxed), Instant::now());
                node.upgrade();
                until("answers after the upgrade", Duration::from_secs(20), || {
                    let more = seen.answered.load(Ordering::Relaxed) > before + 5 * size.clients;
                    (more && began.elapsed() >= PAUSE).then_some(())
                });
                println!("upgrade {upgrade}: {:?} after {:?}", seen.answered, began.elapsed());
            }
            until("every stream's end", Duration::from_secs(150), || {
                streams.iter().all(std::thread::ScopedJoinHandle::is_finished).then_some(())
            });
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        seen.stop.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    println!("{:?} answered, {:?} streams", seen.answered, seen.streams);
    assert!(seen.failed.lock().expect("lock").is_empty(), "{:?}", seen.failed);
    assert_eq!(seen.streams.load(Ordering::Relaxed), size.streams);
    let joined = join(&stack, &bot, "up-", 0);
    assert_eq!(joined.settled as u64, seen.answered.load(Ordering::Relaxed) + size.streams);
}
