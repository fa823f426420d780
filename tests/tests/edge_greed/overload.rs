//! Three times as much as the node may serve: it serves what it may, says no to
//! the rest at once, and is itself again when the flood ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clawgate_tests::chaos::load::{Load, Sample, Source, percentile};
use clawgate_tests::config::verify;
use clawgate_tests::stack::{Stack, chat_request};
use clawgate_tests::wait::until;

use crate::alone;

/// Exchanges at once, and how long each takes at the vendor: so many a second.
const PLACES: u64 = 20;
const TAKES_MILLIS: u64 = 100;
const CAPACITY: u64 = PLACES * 1000 / TAKES_MILLIS;

#[test]
fn a_flood_is_shed_cheaply() {
    let _turn = alone();
    let stack = Stack::start_with(|_, node| {
        node.spec.environment.push(("CLAWGATE_MAX_INFLIGHT".to_owned(), PLACES.to_string()));
    });
    let bot = stack.ordinary("sk-flood", "worker");
    let request = chat_request(&bot.token).header("x-mock-ttft", &TAKES_MILLIS.to_string());
    let seconds = Duration::from_secs(if verify() { 30 } else { 4 });
    let source =
        Source { name: "flood", request: request.clone(), rate: AtomicU64::new(CAPACITY / 2), connections: 150 };
    let mut times = Vec::new();
    let all = Load::run(stack.data(), std::slice::from_ref(&source), |load| {
        for per_cent in [50, 300] {
            source.rate.store(CAPACITY * per_cent / 100, Ordering::Relaxed);
            times.push(load.now());
            let until_then = load.now() + if per_cent == 300 { seconds } else { seconds / 2 };
            until("the step to end", seconds * 2, || (load.now() >= until_then).then_some(()));
        }
        times.push(load.now());
    });
    // Fresh connections: those of the flood are all due at the same moment now.
    let calm = Source { name: "calm", request, rate: AtomicU64::new(CAPACITY / 2), connections: PLACES };
    let after = Load::run(stack.data(), std::slice::from_ref(&calm), |load| {
        until("the calm to end", seconds * 2, || (load.now() >= seconds / 2).then_some(()));
    });
    let within = |from: Duration, to: Duration| all.iter().filter(move |s| s.at >= from && s.at < to);
    let settled = Duration::from_secs(1);
    let flood: Vec<&Sample> = within(times[1] + settled, times[2]).collect();
    let good = flood.iter().filter(|sample| sample.status == 200).count();
    let shed: Vec<&Sample> = flood.iter().filter(|sample| sample.status == 503).copied().collect();
    let span = (times[2] - times[1] - settled).as_secs_f64();
    let rate = good as f64 / span;
    let late = after.iter().filter(|sample| sample.at >= settled && sample.status != 200).count();
    println!(
        "H3: capacity {CAPACITY}/s, offered {:.0}/s: served {rate:.0}/s, refused {} with p50 {:?} p99 {:?}; {late} of {} refused \
         1 s after the flood",
        flood.len() as f64 / span,
        shed.len(),
        percentile(&shed, 500),
        percentile(&shed, 990),
        after.len()
    );
    assert!(shed.iter().all(|sample| sample.code == "overloaded") && !shed.is_empty());
    assert_eq!(good + shed.len(), flood.len(), "neither served nor refused");
    assert!(rate >= CAPACITY as f64 * 0.85, "{rate}");
    assert!(percentile(&shed, 500) <= Duration::from_millis(5), "{:?}", percentile(&shed, 500));
    assert_eq!(late, 0);
}
