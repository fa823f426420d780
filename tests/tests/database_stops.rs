//! The database goes away under load, or the control plane dies while it
//! commits: nothing is lost, nothing counted twice, and bots do not notice.
//!
//! Five times each; with `CLAWGATE_VERIFY` PostgreSQL stops fifty times and two
//! hundred commits are hit.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};

use clawgate_tests::chaos::{Load, Sample, Source, kill_under_load};
use clawgate_tests::config::verify;
use clawgate_tests::ledger::join;
use clawgate_tests::postgres::Postgres;
use clawgate_tests::stack::{Bot, Stack, chat_request};
use clawgate_tests::wait::until;

const PATIENCE: Duration = Duration::from_secs(60);
const RATE: u64 = 150;

fn times(long: usize) -> usize {
    if verify() { long } else { 5 }
}

fn source(bot: &Bot) -> [Source; 1] {
    let request = chat_request(&bot.token).header("x-mock-delay", "5").header("x-mock-tokens", "8");
    [Source { name: "load", request, rate: AtomicU64::new(RATE), connections: 24 }]
}

/// Waits for `count` more answers.
fn more(load: &Load<'_>, count: usize) {
    let from = load.now();
    until("service", PATIENCE, || (load.count("load", from, |sample| sample.status == 200) >= count).then_some(()));
}

fn undisturbed(samples: &[Sample]) {
    let bad = samples.iter().find(|sample| sample.status != 200);
    assert!(bad.is_none(), "a bot felt it: {bad:?}");
}

#[test]
fn postgres_stops_at_once_and_nothing_is_lost_or_counted_twice() {
    let Some(mut server) = Postgres::start() else { return };
    let url = server.database();
    let stack = Stack::start_with(|control, _| {
        control.spec.environment.push(("CLAWGATE_DATABASE_URL".to_owned(), url));
    });
    let bot = stack.ordinary("sk-stops", "stops");
    let sources = source(&bot);
    let samples = Load::run(stack.data(), &sources, |load| {
        for _ in 0..times(50) {
            more(load, 100);
            server.stop_immediately();
            more(load, 50);
            server.start_again();
        }
        more(load, 100);
    });
    undisturbed(&samples);
    let joined = join(&stack, &bot, "load-", 0);
    assert_eq!((joined.settled, joined.strays), (joined.ledger, 0));
}

/// Length and time of a file that is written to at every commit.
fn stamp(path: &Path) -> Option<(u64, SystemTime)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.len(), meta.modified().ok()?))
}

/// The write-ahead log of the control plane's database.
fn write_ahead_log(data: &Path) -> PathBuf {
    until("a write-ahead log", PATIENCE, || {
        let entries = std::fs::read_dir(data).ok()?;
        entries.flatten().map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with("-wal"))
    })
}

#[test]
fn the_control_plane_dies_within_commits_and_nothing_is_lost_or_counted_twice() {
    let mut stack = Stack::start();
    let bot = stack.ordinary("sk-stops", "commits");
    let sources = source(&bot);
    let wal = write_ahead_log(&stack.control.data);
    let address = stack.data();
    let control = &mut stack.control;
    let samples = Load::run(address, &sources, |load| {
        kill_under_load(control, times(200), |_| {
            more(load, 50);
            // A commit writes here, then syncs, then answers. Seen within
            // microseconds of the write, so that the kill falls between.
            let before = stamp(&wal);
            let began = Instant::now();
            while stamp(&wal) == before {
                assert!(began.elapsed() < PATIENCE, "nothing is committed");
                std::hint::spin_loop();
            }
        });
        more(load, 100);
    });
    undisturbed(&samples);
    let joined = join(&stack, &bot, "load-", 0);
    assert_eq!((joined.settled, joined.strays), (joined.ledger, 0));
}
