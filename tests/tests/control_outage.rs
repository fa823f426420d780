//! The control plane cannot be reached, or stands still: bots without a blocking
//! quota do not notice, strict ones use what their node has and then wait, and
//! afterwards everything is counted once.
//!
//! Ten seconds at 300 requests per second; with `CLAWGATE_VERIFY` ten minutes at
//! a thousand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clawgate_tests::chaos::load::percentile;
use clawgate_tests::chaos::{FaultProxy, Faults, Frozen, Load, Sample, Source};
use clawgate_tests::config::verify;
use clawgate_tests::http::{Request, call};
use clawgate_tests::ledger::join;
use clawgate_tests::stack::{Bot, Stack, chat_body};
use clawgate_tests::wait::{until, until_good};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
/// Before the fault, for comparison.
const BEFORE: Duration = Duration::from_secs(5);
/// Tokens of one request of the strict bot.
const TOKENS: u64 = 1000;

/// (per second, how long)
fn size() -> (u64, Duration) {
    if verify() { (1000, Duration::from_secs(600)) } else { (300, Duration::from_secs(10)) }
}

struct House {
    stack: Stack,
    network: FaultProxy,
    plain: Bot,
    strict: Bot,
    limit: u64,
}

fn house(limit: u64) -> House {
    let mut network = None;
    let stack = Stack::start_routed(|_, _| {}, |control| network.insert(FaultProxy::start(control)).address);
    let network = network.expect("the route was asked for");
    let plain = stack.ordinary("sk-outage", "plain");
    let strict = stack.bot("strict", json!({}));
    let quotas = json!([{ "metric": "total_tokens", "window": "day", "limit": limit }]);
    stack.rest().put("/bots/strict/quotas", &quotas);
    House { stack, network, plain, strict, limit }
}

impl House {
    fn sources(&self, plain: u64, strict: u64) -> [Source; 2] {
        let request = |bot: &Bot, tokens: u64| {
            Request::post("/v1/openai/chat/completions", &with_limit(chat_body(false)))
                .bearer(&bot.token)
                .header("x-mock-input-tokens", &(tokens / 10).to_string())
                .header("x-mock-tokens", &(tokens - tokens / 10).to_string())
                .header("x-mock-delay", "5")
        };
        [
            Source { name: "plain", request: request(&self.plain, 100), rate: AtomicU64::new(plain), connections: 48 },
            Source {
                name: "strict",
                request: request(&self.strict, TOKENS),
                rate: AtomicU64::new(strict),
                connections: 16,
            },
        ]
    }

    /// Everything is counted once, and the limit held.
    fn settle(&self) {
        let strict = join(&self.stack, &self.strict, "strict-", 0);
        let plain = join(&self.stack, &self.plain, "plain-", 0);
        assert_eq!((strict.strays, plain.strays), (0, 0));
        assert!(strict.tokens <= self.limit, "overshoot: {strict:?} of {}", self.limit);
        let quota = until_good(
            "the quota to settle",
            PATIENCE,
            || self.stack.rest().get("/bots/strict/quotas")["data"][0].clone(),
            |quota| quota["used"] == json!(strict.tokens),
        );
        assert_eq!(quota["overrun"], 0, "{quota}");
    }
}

fn with_limit(mut body: Value) -> Value {
    body["max_tokens"] = json!(900);
    body
}

fn wait(load: &Load<'_>, until_then: Duration) {
    until("time to pass", until_then + PATIENCE, || (load.now() >= until_then).then_some(()));
}

/// What was due between two times.
fn due<'a>(samples: &'a [Sample], name: &str, from: Duration, to: Duration) -> Vec<&'a Sample> {
    samples.iter().filter(|s| s.name == name && s.at >= from && s.at < to).collect()
}

/// Nobody was refused, and answers were about as fast as before.
fn unaffected(before: &[&Sample], during: &[&Sample]) {
    let bad: Vec<_> = during.iter().filter(|sample| sample.status != 200).collect();
    assert!(bad.is_empty(), "{} of {} not served: {:?}", bad.len(), during.len(), bad.first());
    for (per_mille, factor, slack) in [(500, 2, 20), (990, 3, 100)] {
        let (usual, now) = (percentile(before, per_mille), percentile(during, per_mille));
        println!("{per_mille} per mille: {usual:?} before, {now:?} during");
        assert!(now <= usual * factor + Duration::from_millis(slack), "{usual:?} before, {now:?} during");
    }
}

/// Served, and then `quota_pending`, and nothing else. How many were pending.
fn within_its_slice(strict: &[&Sample]) -> usize {
    let served = strict.iter().filter(|s| s.status == 200).count();
    let pending = strict.iter().filter(|s| s.status == 429 && s.code == "quota_pending").count();
    println!("strict while the control plane was away: {served} served, {pending} pending");
    assert!(served > 0, "the slice was not used");
    let other = strict.iter().find(|s| s.status != 200 && s.code != "quota_pending");
    assert!(other.is_none(), "{other:?}");
    pending
}

#[test]
fn behind_a_black_hole_only_strict_bots_wait_and_nothing_is_lost() {
    let house = house(if verify() { 500_000_000 } else { 10_000_000 });
    let (rate, outage) = size();
    let (slow, fast) = (10, 60);
    let sources = house.sources(rate - fast, slow);
    let (mut from, mut to) = (Duration::ZERO, Duration::ZERO);
    let samples = Load::run(house.stack.data(), &sources, |load| {
        until("a lease", PATIENCE, || (load.count("strict", Duration::ZERO, |s| s.status == 200) > 0).then_some(()));
        let warm = load.now();
        wait(load, warm + BEFORE);
        from = load.now();
        house.network.set(Faults { black_hole: true, ..Faults::default() });
        sources[1].rate.store(fast, Ordering::Relaxed);
        wait(load, from + outage);
        to = load.now();
        house.network.heal();
        until("strict bots to be served again", PATIENCE, || {
            (load.count("strict", to, |s| s.status == 200) > 20).then_some(())
        });
    });
    let before = due(&samples, "plain", from.saturating_sub(BEFORE), from);
    unaffected(&before, &due(&samples, "plain", from, to));
    let pending = within_its_slice(&due(&samples, "strict", from, to));
    assert!(pending > 0, "more than the slice was used");
    house.settle();
}

#[test]
fn a_connection_that_is_open_and_dead_is_replaced() {
    let house = house(10_000_000);
    let sources = house.sources(50, 5);
    Load::run(house.stack.data(), &sources, |load| {
        until("some answers", PATIENCE, || {
            (load.count("plain", Duration::ZERO, |s| s.status == 200) > 50).then_some(())
        });
        let before = house.network.accepted();
        house.network.forget_connections();
        until("a new connection", PATIENCE, || (house.network.accepted() > before).then_some(()));
    });
    let late = house.stack.bot("late", json!({}));
    until_good("a bot that was made afterwards", PATIENCE, || house.stack.chat(&late).status(), |s| *s == 200);
    house.settle();
}

#[test]
fn while_the_control_plane_stands_still_admission_goes_on() {
    let mut house = house(10_000_000);
    let sources = house.sources(100, 5);
    let still = Duration::from_secs(20);
    let (mut from, mut to) = (Duration::ZERO, Duration::ZERO);
    let address = house.stack.data();
    let control = &mut house.stack.control;
    let samples = Load::run(address, &sources, |load| {
        until("a lease", PATIENCE, || (load.count("strict", Duration::ZERO, |s| s.status == 200) > 20).then_some(()));
        let warm = load.now();
        wait(load, warm + BEFORE);
        from = load.now();
        let frozen = Frozen::new(control.process());
        wait(load, from + still);
        to = load.now();
        drop(frozen);
        until("strict bots to be served again", PATIENCE, || {
            (load.count("strict", to, |s| s.status == 200) > 20).then_some(())
        });
    });
    let before = due(&samples, "plain", from.saturating_sub(BEFORE), from);
    unaffected(&before, &due(&samples, "plain", from, to));
    let pending = within_its_slice(&due(&samples, "strict", from, to));
    assert_eq!(pending, 0, "admission did not go on for all");
    assert_eq!(call(house.stack.node.address("admin"), &Request::new("GET", "/readyz")).status(), 200);
    house.settle();
}
