//! The calendar while bots are served: every request counts in exactly one
//! period, none is refused because a day ends, and a clock that is set opens no
//! period twice. Control plane and node wear a clock that the test sets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clawgate_shared::clock::parse_rfc3339;
use clawgate_tests::fake_clock::FakeClock;
use clawgate_tests::http::{Connection, Request};
use clawgate_tests::stack::{Bot, Stack, chat_body};
use clawgate_tests::wait::{until, until_good};
use serde_json::{Value, json};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
/// Of every request.
const TOKENS: u64 = 20;
/// The node's and the control plane's idea of one instant differ by no more.
const BLUR: i64 = SECOND / 4;
const PATIENCE: Duration = Duration::from_secs(30);

fn instant(text: &str) -> i64 {
    parse_rfc3339(text).expect("an instant")
}

/// Everything, with a clock that shows `at`.
fn start(at: &str) -> Option<(FakeClock, Stack)> {
    let clock = FakeClock::showing(instant(at))?;
    let stack = Stack::start_with(|control, node| [control, node].into_iter().for_each(|plane| clock.wear(plane)));
    stack.key("openai", "sk-clock", &stack.mock.url("/v1"), &[], json!({}));
    Some((clock, stack))
}

/// A bot with a quota that is far from its end.
fn bot(stack: &Stack, hostname: &str, window: &str) -> Bot {
    let bot = stack.bot(hostname, json!({}));
    let quotas = json!([{ "metric": "total_tokens", "window": window, "limit": 10_000_000 }]);
    stack.rest().put(&format!("/bots/{hostname}/quotas"), &quotas);
    bot
}

fn request(bot: &Bot) -> Request {
    Request::post("/v1/openai/chat/completions", &chat_body(false))
        .bearer(&bot.token)
        .header("x-mock-input-tokens", "10")
        .header("x-mock-tokens", "10")
        .header("x-mock-delay", "20")
}

/// Four clients that ask without a pause while `meanwhile` runs; how many were
/// served. Nobody is refused, but where `may_wait` some may be asked to come again
/// at once: a window that nobody could foresee has to be fetched.
fn serve(stack: &Stack, bot: &Bot, may_wait: bool, meanwhile: impl FnOnce()) -> usize {
    let (served, over) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = Connection::open(stack.data()).expect("connected");
                while over.load(Ordering::Relaxed) == 0 {
                    let answer = connection.call(&request(bot)).expect("an answer");
                    if may_wait && answer.code() == "quota_pending" {
                        continue;
                    }
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        meanwhile();
        over.store(1, Ordering::Relaxed);
    });
    served.into_inner()
}

/// The usage rows of what was served, once all are there: what they charge is
/// settled with them.
fn rows(stack: &Stack, bot: &Bot, served: usize) -> Vec<Value> {
    let path = format!("/usage/logs?bot={}", bot.hostname);
    let all = || stack.rest().all(&path).into_iter().filter(|row| row["status_code"] == 200).collect::<Vec<_>>();
    let rows = until_good("the usage rows", PATIENCE, all, |rows| rows.len() >= served);
    assert_eq!(rows.len(), served, "{}", bot.hostname);
    rows
}

fn quota(stack: &Stack, bot: &Bot) -> Value {
    stack.rest().get(&format!("/bots/{}/quotas", bot.hostname))["data"][0].clone()
}

fn used(quota: &Value) -> u64 {
    quota["used"].as_u64().unwrap_or_else(|| panic!("no used in {quota}"))
}

/// Serves while one period ends at `end`, and checks what was counted where.
fn crossing(clock: &FakeClock, stack: &Stack, bot: &Bot, start: &str, end: &str, next_end: &str) {
    let edge = instant(end);
    clock.set(edge - 5 * SECOND);
    let what = format!("{} {end}", bot.hostname);
    until_good("the first answer", PATIENCE, || stack_call(stack, bot), |status| *status == 200);
    let told = quota(stack, bot);
    assert_eq!((instant_of(&told, "window_start"), instant_of(&told, "resets_at")), (instant(start), edge), "{what}");
    let wait = || until("the period to be over", PATIENCE, || (clock.now() > edge + 2 * SECOND).then_some(()));
    let served = 1 + serve(stack, bot, false, wait);
    let rows = rows(stack, bot, served);
    let at = |row: &Value| instant_of(row, "created_at");
    let late = |least: i64| rows.iter().filter(|row| at(row) >= edge + least).count() as u64 * TOKENS;
    let all = served as u64 * TOKENS;
    let after = quota(stack, bot);
    assert_eq!(instant_of(&after, "resets_at"), instant(next_end), "{what}");
    // The clock is set back to see what was counted in the period that is over.
    clock.set(edge - SECOND / 2);
    let before =
        until_good("the period before", PATIENCE, || quota(stack, bot), |q| instant_of(q, "resets_at") == edge);
    assert_eq!(used(&before) + used(&after), all, "{what}: counted once, {before} {after}");
    assert!((late(BLUR)..=late(-BLUR)).contains(&used(&after)), "{what}: {after}, {} of {all}", late(0));
    clock.set(edge + 10 * SECOND);
}

fn stack_call(stack: &Stack, bot: &Bot) -> u16 {
    clawgate_tests::http::call(stack.data(), &request(bot)).status()
}

fn instant_of(value: &Value, name: &str) -> i64 {
    value[name].as_str().and_then(|text| parse_rfc3339(text).ok()).unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn zone(stack: &Stack, zone: &str) {
    stack.rest().patch("/tenants/default", &json!({ "time_zone": zone }));
}

#[test]
fn days_and_months_end_at_local_midnight_also_on_a_leap_day() {
    let Some((clock, stack)) = start("2028-02-29T12:59:30Z") else { return };
    for (name, zone_name, window, begin, end, next_end) in [
        (
            "howe",
            "Australia/Lord_Howe",
            "month",
            "2028-01-31T13:00:00Z",
            "2028-02-29T13:00:00Z",
            "2028-03-31T13:00:00Z",
        ),
        ("kathmandu", "Asia/Kathmandu", "day", "2028-02-28T18:15:00Z", "2028-02-29T18:15:00Z", "2028-03-01T18:15:00Z"),
        ("utc", "UTC", "day", "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z", "2028-03-02T00:00:00Z"),
    ] {
        zone(&stack, zone_name);
        crossing(&clock, &stack, &bot(&stack, name, window), begin, end, next_end);
    }
}

#[test]
fn periods_end_when_the_local_clock_changes() {
    let Some((clock, stack)) = start("2027-03-28T00:59:30Z") else { return };
    for (name, zone_name, window, begin, end, next_end) in [
        // 02:00 becomes 03:00; the day has 23 hours.
        (
            "berlin-hour",
            "Europe/Berlin",
            "hour",
            "2027-03-28T00:00:00Z",
            "2027-03-28T01:00:00Z",
            "2027-03-28T02:00:00Z",
        ),
        ("berlin-day", "Europe/Berlin", "day", "2027-03-27T23:00:00Z", "2027-03-28T22:00:00Z", "2027-03-29T22:00:00Z"),
        // 02:00 becomes 01:30: half an hour comes twice.
        ("howe", "Australia/Lord_Howe", "hour", "2027-04-03T14:00:00Z", "2027-04-03T15:00:00Z", "2027-04-03T15:30:00Z"),
    ] {
        zone(&stack, zone_name);
        crossing(&clock, &stack, &bot(&stack, name, window), begin, end, next_end);
    }
}

#[test]
fn a_clock_that_is_set_while_answers_stream_loses_and_repeats_nothing() {
    let Some((clock, stack)) = start("2027-12-31T23:20:00Z") else { return };
    let bot = bot(&stack, "worker", "day");
    until_good("the first answer", PATIENCE, || stack_call(&stack, &bot), |status| *status == 200);
    let mut stream = Connection::open(stack.data()).expect("connected");
    let slow = Request::post("/v1/openai/chat/completions", &chat_body(true))
        .bearer(&bot.token)
        .header("x-mock-input-tokens", "10")
        .header("x-mock-tokens", "10")
        .header("x-mock-tps", "2");
    stream.send(&slow).expect("sent");
    assert_eq!(stream.head("POST").expect("head").status, 200);
    assert!(stream.piece().expect("a piece").is_some());
    let mut served = 2;
    // An hour on, into another year; a second back; an hour back; and on again.
    for step in [HOUR, -SECOND, -HOUR, 0, HOUR] {
        clock.step(step);
        let until_then = clock.now() + SECOND;
        served += serve(&stack, &bot, true, || {
            until("a second", PATIENCE, || (clock.now() > until_then).then_some(()));
        });
    }
    let mut text = Vec::new();
    while let Some(piece) = stream.piece().expect("the stream goes on") {
        text.extend(piece);
    }
    assert!(String::from_utf8_lossy(&text).ends_with("data: [DONE]\n\n"));
    let _rows = rows(&stack, &bot, served);
    let all = served as u64 * TOKENS;
    // What each of the two days has, the clock set into its middle.
    let of_day = |at: &str| {
        clock.set(instant(at));
        let start = instant(at) / (24 * HOUR) * (24 * HOUR);
        let quota = until_good("the day", PATIENCE, || quota(&stack, &bot), |q| instant_of(q, "window_start") == start);
        used(&quota)
    };
    let (old, new) = (of_day("2027-12-31T12:00:00Z"), of_day("2028-01-01T12:00:00Z"));
    assert_eq!(old + new, all, "{old} + {new}");
    assert!(old >= 2 * TOKENS && new > 0, "{old} + {new}: a request belongs to the day that admitted it");
    let ledger: u64 = stack.mock.entries().iter().map(|e| e["billed_output"].as_u64().unwrap_or(0)).sum();
    assert_eq!(ledger * 2, all, "the vendor's own count");
}
