//! The accounts of an exchange allocate nothing once everything is warm, and what is
//! held of an answer does not grow with it.

use clawgate_proxy::wire::{Meter, Report};
use clawgate_shared::dialect::Protocol;

#[path = "../benches/desk/mod.rs"]
mod desk;

#[test]
fn the_accounts_of_an_exchange_allocate_nothing() {
    let mut desk = desk::Desk::new();
    (0..desk::BOTS).for_each(|_| desk.exchange());
    let counted = allocation_counter::measure(|| (0..desk::BOTS).for_each(|_| desk.exchange()));
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0));
}

/// Most that is held of an answer between two chunks of it, and while a buffer
/// moves to a larger place.
const HELD: u64 = 260 * 1024;
const MOVING: u64 = 2 * HELD;

/// Feeds a stream in chunks of network size, `filler` again and again for `total`
/// bytes between `head` and `tail`; what the meter reports.
fn metered(head: &str, filler: &str, total: usize, tail: &str) -> Report {
    let filler = filler.repeat(CHUNK.div_ceil(filler.len()));
    let mut meter = Meter::new(Protocol::OpenAiChat, "openai");
    meter.push(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n");
    let mut most = 0;
    let counted = allocation_counter::measure(|| {
        meter.push(head.as_bytes());
        for _ in 0..total / filler.len() {
            let fed = allocation_counter::measure(|| meter.push(filler.as_bytes()));
            most = most.max(fed.bytes_max);
        }
    });
    let held = u64::try_from(counted.bytes_current).unwrap_or(0);
    assert!(held <= HELD && counted.bytes_max <= MOVING, "{total} bytes, {most} asked for at once: {counted:?}");
    meter.push(tail.as_bytes());
    meter.finish()
}

const CHUNK: usize = 16 * 1024;
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7}}\n\ndata: [DONE]\n\n";

#[test]
fn an_event_of_100_mb_on_one_line_is_held_in_a_fixed_room() {
    let opening = "data: {\"choices\":[{\"delta\":{\"content\":\"";
    let report = metered(opening, "word ", 100_000_000, &format!("\"}}}}]}}\n\n{USAGE}"));
    assert_eq!((report.usage.input, report.usage.output, report.terminal), (Some(5), Some(7), true));
}

#[test]
fn an_event_of_a_million_lines_is_held_in_a_fixed_room() {
    let report = metered("event: x\n", "data: word\n", 11_000_000, &format!("\n{USAGE}"));
    assert_eq!((report.usage.input, report.usage.output, report.terminal), (Some(5), Some(7), true));
}

#[test]
fn an_event_that_is_just_short_enough_is_held_in_a_fixed_room() {
    let report = metered("data: \"", "x", 255 * 1024, &format!("\"\n\n{USAGE}"));
    assert_eq!((report.usage.input, report.usage.output, report.terminal), (Some(5), Some(7), true));
}
