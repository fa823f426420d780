//! Times the usage API as a console would use it.

use std::time::Instant;

use clawgate_shared::clock;
use serde_json::{Map, Value, json};

use super::{Filled, println_json};
use crate::Met;
use crate::failure::Failure;

/// What 95 of 100 calls of a kind must stay below, in milliseconds.
const LIMIT: f64 = 100.0;

/// A kind of call: its name and its path; `{bot}` is another bot each time.
/// `back`: where a page in the middle of the log begins.
fn kinds(from: &str, to: &str, back: &str) -> Vec<(String, String)> {
    let mut kinds = Vec::new();
    let mut add = |name: &str, path: String| kinds.push((name.to_owned(), path));
    for period in ["day", "week", "month"] {
        add(&format!("stats {period}"), format!("/usage/stats?period={period}"));
        add(&format!("bot stats {period}"), format!("/bots/{{bot}}/usage/stats?period={period}"));
    }
    let all = format!("startDate={from}&endDate={to}");
    add("stats all", format!("/usage/stats?{all}"));
    for granularity in ["hour", "day", "week"] {
        add(&format!("trend {granularity}"), format!("/usage/trend?granularity={granularity}"));
        add(&format!("trend {granularity} all"), format!("/usage/trend?granularity={granularity}&{all}"));
        add(
            &format!("bot trend {granularity} all"),
            format!("/bots/{{bot}}/usage/trend?granularity={granularity}&{all}"),
        );
    }
    for by in ["vendor", "model", "status", "key", "bot", "project", "label"] {
        add(&format!("breakdown {by}"), format!("/usage/breakdown?groupBy={by}"));
        add(&format!("breakdown {by} all"), format!("/usage/breakdown?groupBy={by}&{all}"));
    }
    add("bot breakdown model all", format!("/bots/{{bot}}/usage/breakdown?groupBy=model&{all}"));
    add("logs", "/usage/logs?limit=50".to_owned());
    add("logs of a bot", "/usage/logs?limit=50&bot={bot}".to_owned());
    add("logs of a model", "/usage/logs?limit=50&model=claude-sonnet-4-5".to_owned());
    add("logs of failures", "/usage/logs?limit=50&outcome=upstream_error".to_owned());
    add("logs of a bot's failures", "/usage/logs?limit=50&outcome=upstream_error&bot={bot}".to_owned());
    add("logs far back", format!("/usage/logs?limit=50&after={back}"));
    add("logs of a bot far back", format!("/usage/logs?limit=50&bot={{bot}}&after={back}"));
    kinds
}

/// Asks everything `calls` times and judges.
pub(super) fn ask(filled: &mut Filled, calls: usize) -> Result<Met, Failure> {
    let (from, to) = filled.span();
    let mut report = Map::new();
    let mut all = Vec::new();
    let mut met = true;
    let middle = clock::rfc3339(filled.world.start + filled.world.duration_micros(filled.truth.events / 2));
    let page = filled.plane.rest.call("GET", &format!("/usage/logs?limit=1&to={middle}"), None, None)?;
    let back = page.get("next_cursor").and_then(Value::as_str);
    let back = back.ok_or_else(|| Failure::Void(format!("no log before {middle}")))?;
    for (name, path) in kinds(&from, &to, back) {
        let mut taken = Vec::with_capacity(calls);
        for call in 0..calls {
            let path = path.replace("{bot}", &format!("bench-{:04}", call * 37 % filled.world.bots.len()));
            let began = Instant::now();
            filled.plane.rest.call("GET", &path, None, None)?;
            taken.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        all.extend_from_slice(&taken);
        let p95 = percentile(&mut taken);
        met &= p95 < LIMIT;
        report.insert(name, json!((p95 * 10.0).round() / 10.0));
    }
    let whole = percentile(&mut all);
    println_json(
        &json!({ "events": filled.truth.events, "p95_ms": report, "p95_ms_of_all_calls": (whole * 10.0).round() / 10.0 }),
    );
    Ok(met)
}

fn percentile(taken: &mut [f64]) -> f64 {
    taken.sort_by(f64::total_cmp);
    let at = (taken.len() * 95).div_ceil(100).saturating_sub(1);
    taken.get(at).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_one_of_the_values() {
        let mut values: Vec<f64> = (1..=40).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values), 38.0);
        assert_eq!(percentile(&mut [7.0]), 7.0);
    }
}
