//! The figures that need no benchmark.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clawgate_tests::stack::Stack;
use clawgate_tests::up::Up;
use clawgate_tests::wait::until_good;
use serde_json::json;

/// Figures are taken one at a time.
static ALONE: Mutex<()> = Mutex::new(());
const IDLE_KIB: u64 = 30 * 1024;
const FIRST_START: Duration = Duration::from_secs(3);

#[test]
fn an_idle_node_stays_under_thirty_megabytes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut stack = Stack::start();
    let bot = stack.ordinary("sk-numbers", "worker");
    for number in 0..50 {
        stack.bot(&format!("bot-{number}"), json!({}));
    }
    let fresh = stack.node.process().resident_kib();
    for _ in 0..200 {
        assert_eq!(stack.chat(&bot).status(), 200);
    }
    let seen = until_good(
        "resident memory under 30 MB",
        Duration::from_secs(10),
        || stack.node.process().resident_kib(),
        |kib| *kib < IDLE_KIB,
    );
    println!("idle node: {fresh} KiB resident before its first request, {seen} after 200");
    assert!(fresh < IDLE_KIB, "{fresh} KiB before the first request");
}

#[test]
fn the_first_start_is_ready_within_three_seconds() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    let start = Instant::now();
    let mut up = Up::demo(folder.path());
    let took = start.elapsed();
    println!("first start: {took:?}");
    let stopped = up.process.terminate();
    assert!(took < FIRST_START, "ready after {took:?}: {}", up.process.log());
    assert!(stopped < Duration::from_secs(1), "idle `up` took {stopped:?} to stop");
}
