//! The figures that need no benchmark.

use std::time::{Duration, Instant};

use clawgate_tests::config::binary;
use clawgate_tests::process::Spec;
use clawgate_tests::stack::Stack;
use clawgate_tests::wait::{until, until_good};
use serde_json::json;

const IDLE_KIB: u64 = 30 * 1024;
const FIRST_START: Duration = Duration::from_secs(3);

#[test]
fn an_idle_node_stays_under_thirty_megabytes() {
    let mut stack = Stack::start();
    let bot = stack.ordinary("sk-numbers", "worker");
    for number in 0..50 {
        stack.bot(&format!("bot-{number}"), json!({}));
    }
    for _ in 0..200 {
        assert_eq!(stack.chat(&bot).status(), 200);
    }
    let seen = until_good(
        "resident memory under 30 MB",
        Duration::from_secs(10),
        || stack.node.process().resident_kib(),
        |kib| *kib < IDLE_KIB,
    );
    println!("idle node: {seen} KiB resident");
}

#[test]
fn the_first_start_is_ready_within_three_seconds() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let mut arguments = vec!["up", "--demo", "--data-dir", &data];
    for flag in ["--listen", "--console-listen", "--admin-listen", "--control-admin-listen"] {
        arguments.extend([flag, "127.0.0.1:0"]);
    }
    let spec = Spec::new("up", binary("clawgate"), folder.path(), &arguments);
    let start = Instant::now();
    let mut up = spec.start();
    until("`ready`", Duration::from_secs(30), || {
        assert!(up.ended().is_none(), "up ended: {}", up.log());
        up.log().lines().any(|line| line.trim() == "ready").then_some(())
    });
    let took = start.elapsed();
    println!("first start: {took:?}");
    let stopped = up.terminate();
    assert!(took < FIRST_START, "ready after {took:?}: {}", up.log());
    assert!(stopped < Duration::from_secs(1), "idle `up` took {stopped:?} to stop");
}
