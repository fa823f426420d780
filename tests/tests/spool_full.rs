//! A node whose usage has nowhere to go: its disk is full.
//!
//! The spool is on a file system of 8 MiB that the test mounts, which takes
//! root.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use clawgate_tests::config::missing;
use clawgate_tests::http::{Connection, Request, call};
use clawgate_tests::ledger::join;
use clawgate_tests::stack::{Bot, Stack, chat_body};
use clawgate_tests::wait::{until, until_good};

const PATIENCE: Duration = Duration::from_secs(60);
const SIZE: u64 = 8 << 20;
/// Requests under way while the disk fills up.
const SLOW: u64 = 24;

/// A small file system; unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={SIZE},mode=0700"), "tmpfs"]).arg(at);
        mount.output().is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Dropped in this order.
struct House {
    stack: Stack,
    bot: Bot,
    mount: Mount,
}

fn house() -> Option<House> {
    let mut mounted = None;
    if !nix::unistd::geteuid().is_root() {
        missing("root, to mount a small file system");
        return None;
    }
    let stack = Stack::start_with(|_, node| mounted = Mount::new(&node.data.join("spool")));
    let Some(mount) = mounted else {
        missing("the right to mount a small file system");
        return None;
    };
    let bot = stack.ordinary("sk-full", "full");
    Some(House { stack, bot, mount })
}

impl House {
    fn request(&self, number: u64, delay: u64) -> Request {
        // Long names fill the disk sooner.
        Request::post("/v1/openai/chat/completions", &chat_body(false))
            .bearer(&self.bot.token)
            .header("x-request-id", &format!("full-{number:08}-{}", "x".repeat(100)))
            .header("x-mock-delay", &delay.to_string())
            .header("x-mock-tokens", "8")
    }

    fn ready(&self) -> (u16, String) {
        let answer = call(self.stack.node.address("admin"), &Request::new("GET", "/readyz"));
        (answer.status(), answer.text())
    }

    fn metrics(&self) -> String {
        call(self.stack.node.address("admin"), &Request::new("GET", "/metrics")).text()
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics();
        let value =
            text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
        value.trim().parse().expect("a number")
    }

    /// Sends until the node refuses. How many were served.
    fn fill(&self, from: u64, most: u64) -> (u64, bool) {
        let next = std::sync::atomic::AtomicU64::new(from);
        let full = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| self.filler(&next, from + most, &full));
            }
        });
        (next.into_inner() - from, full.into_inner())
    }

    fn filler(&self, next: &std::sync::atomic::AtomicU64, end: u64, full: &std::sync::atomic::AtomicBool) {
        use std::sync::atomic::Ordering::Relaxed;
        let mut connection = Connection::open(self.stack.data()).expect("connects");
        while !full.load(Relaxed) {
            let number = next.fetch_add(1, Relaxed);
            if number >= end {
                return;
            }
            let answer = connection.call(&self.request(number, 0)).expect("an answer");
            match (answer.status(), answer.code().as_str()) {
                (200, _) => {}
                (503, "spool_full") => {
                    full.store(true, Relaxed);
                    return;
                }
                _ => panic!("{} {}", answer.status(), answer.text()),
            }
        }
    }
}

#[test]
fn a_full_disk_refuses_what_is_new_settles_what_has_begun_and_loses_nothing() {
    let Some(mut house) = house() else { return };
    house.stack.control.kill();
    // Nearly full first, so that the slow ones are under way when it is.
    let mut sent = 0;
    while house.metric("clawgate_spool_bytes ") < SIZE * 6 / 10 {
        let (more, full) = house.fill(sent, 500);
        assert!(!full, "full at {} bytes", house.metric("clawgate_spool_bytes "));
        sent += more;
    }
    std::thread::scope(|scope| {
        let slow: Vec<_> = (0..SLOW)
            .map(|number| {
                let house = &house;
                let request = house.request(90_000_000 + number, 20_000);
                scope.spawn(move || call(house.stack.data(), &request).status())
            })
            .collect();
        until("the slow ones at the vendor", PATIENCE, || (house.stack.mock.inflight() == SLOW).then_some(()));
        let (more, full) = house.fill(sent, 1_000_000);
        println!("{} served until the disk was full", sent + more);
        assert!(full);
        assert_eq!(house.stack.mock.inflight(), SLOW, "the slow ones must still be under way");
        // As long as nobody takes what there is, whatever the node had in reserve.
        until("the slow ones answered", PATIENCE, || {
            let (status, why) = house.ready();
            assert!(status == 503 && why.contains("spool"), "{status} {why}");
            slow.iter().all(ScopedJoinHandle::is_finished).then_some(())
        });
        for request in slow {
            assert_eq!(request.join().expect("no panic"), 200);
        }
        assert_eq!(house.ready().0, 503);
    });
    let metrics = house.metrics();
    assert!(metrics.contains("clawgate_refusals_total{code=\"spool_full\"}"), "{metrics}");
    assert_eq!(house.metric("clawgate_spool_write_failures_total "), 0, "met before the disk said no");
    house.stack.control.start();
    until_good("a ready node", PATIENCE, || house.ready(), |(status, _)| *status == 200);
    assert_eq!(call(house.stack.data(), &house.request(95_000_000, 0)).status(), 200);
    let joined = join(&house.stack, &house.bot, "full-", 0);
    assert_eq!((joined.indeterminate, joined.settled), (0, joined.ledger), "{joined:?}");
    assert_eq!(house.metric("clawgate_spool_lost_total "), 0);
}

#[test]
fn a_disk_that_others_filled_is_used_again_when_they_are_gone() {
    let Some(house) = house() else { return };
    assert_eq!(house.fill(0, 200), (200 + 8, false));
    let ballast = house.mount.0.join("ballast");
    let mut file = std::fs::File::create(&ballast).expect("a file");
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    until_good("a node that is not ready", PATIENCE, || house.ready(), |(status, _)| *status == 503);
    let refused = call(house.stack.data(), &house.request(1_000, 0));
    assert_eq!((refused.status(), refused.code().as_str()), (503, "spool_full"), "{}", refused.text());
    std::fs::remove_file(&ballast).expect("removes");
    until_good("a ready node", PATIENCE, || house.ready(), |(status, _)| *status == 200);
    let (_, full) = house.fill(2_000, 50);
    assert!(!full);
    let joined = join(&house.stack, &house.bot, "full-", 0);
    assert_eq!((joined.ledger, joined.settled), (250, 250));
}
