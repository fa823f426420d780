//! From events to hourly sums. Pure.

use std::collections::BTreeMap;

use crate::store::usage_ingest::EventRow;
use crate::store::usage_rollup::{RollupKey, RollupSums};

/// Microseconds of an hour.
pub const HOUR: i64 = 3_600_000_000;

/// Whether an exchange counts as an error: anything but a success, and but a
/// client that left by itself.
#[must_use]
pub fn is_error(event: &EventRow) -> bool {
    !matches!(event.outcome.as_str(), "ok" | "client_disconnect")
}

/// The full hour, UTC, that `micros` lies in.
#[must_use]
pub const fn hour_of(micros: i64) -> i64 {
    micros - micros.rem_euclid(HOUR)
}

/// A [`RollupKey`] that borrows, in the same order.
type Key<'a> = (&'a str, &'a str, i64, &'a str, &'a str, &'a str, &'a str, i64, &'a str);

fn key(event: &EventRow) -> Key<'_> {
    let open = &event.open;
    (
        &open.tenant_id,
        &open.bot_id,
        hour_of(open.created_at),
        &open.project_id,
        &open.vendor,
        &open.model,
        &open.provider_key_id,
        event.status_code,
        &event.outcome,
    )
}

/// The sums of `events`, in key order.
pub fn sum<'a>(events: impl IntoIterator<Item = &'a EventRow>) -> Vec<(RollupKey, RollupSums)> {
    let mut rows: BTreeMap<Key<'a>, RollupSums> = BTreeMap::new();
    for event in events {
        add(rows.entry(key(event)).or_default(), event);
    }
    let owned =
        |(tenant, bot, hour_start, project, vendor, model, provider_key, status_code, outcome): Key<'_>| RollupKey {
            tenant_id: tenant.to_owned(),
            bot_id: bot.to_owned(),
            hour_start,
            project_id: project.to_owned(),
            vendor: vendor.to_owned(),
            model: model.to_owned(),
            provider_key_id: provider_key.to_owned(),
            status_code,
            outcome: outcome.to_owned(),
        };
    rows.into_iter().map(|(key, sums)| (owned(key), sums)).collect()
}

fn add(sums: &mut RollupSums, event: &EventRow) {
    let plus = |sum: &mut i64, value: i64| *sum = sum.saturating_add(value);
    plus(&mut sums.requests, 1);
    plus(&mut sums.errors, i64::from(is_error(event)));
    plus(&mut sums.input, event.input_tokens.unwrap_or(0));
    plus(&mut sums.cached_input, event.cached_input_tokens.unwrap_or(0));
    plus(&mut sums.cache_write, event.cache_write_tokens.unwrap_or(0));
    plus(&mut sums.output, event.output_tokens.unwrap_or(0));
    plus(&mut sums.reasoning, event.reasoning_tokens.unwrap_or(0));
    plus(&mut sums.total, event.total_tokens.unwrap_or(0));
    plus(&mut sums.duration_sum, event.duration_micros);
    plus(&mut sums.duration_count, i64::from(!event.indeterminate));
    plus(&mut sums.ttft_sum, event.ttft_micros.unwrap_or(0));
    plus(&mut sums.ttft_count, i64::from(event.ttft_micros.is_some()));
    plus(&mut sums.cost, event.cost_micros.unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::usage_ingest::OpenRow;

    fn event(bot: &str, at: i64, tokens: Option<i64>, outcome: &str) -> EventRow {
        EventRow {
            open: OpenRow { bot_id: bot.into(), created_at: at, ..OpenRow::default() },
            total_tokens: tokens,
            outcome: outcome.into(),
            duration_micros: 10,
            ..EventRow::default()
        }
    }

    #[test]
    fn events_of_one_hour_and_key_are_one_row() {
        let events = [
            event("bot_1", HOUR, Some(5), "ok"),
            event("bot_1", 2 * HOUR - 1, None, "ok"),
            event("bot_1", 2 * HOUR, Some(7), "ok"),
            event("bot_2", HOUR, Some(1), "refused"),
        ];
        let rows = sum(&events);
        let seen: Vec<_> = rows
            .iter()
            .map(|(key, sums)| (key.bot_id.as_str(), key.hour_start / HOUR, sums.requests, sums.errors, sums.total))
            .collect();
        assert_eq!(seen, [("bot_1", 1, 2, 0, 5), ("bot_1", 2, 1, 0, 7), ("bot_2", 1, 1, 1, 1)]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_events_are_split(
            parts in proptest::collection::vec((0..3u8, 0..5i64, proptest::option::of(0..1000i64)), 0..60),
            at in 0..60usize,
        ) {
            let events: Vec<EventRow> = parts
                .iter()
                .map(|(bot, hour, tokens)| event(&format!("bot_{bot}"), hour * HOUR + 1, *tokens, "ok"))
                .collect();
            let total = |rows: &[(RollupKey, RollupSums)]| {
                rows.iter().fold((0, 0), |(n, t), (_, sums)| (n + sums.requests, t + sums.total))
            };
            let (left, right) = events.split_at(at.min(events.len()));
            let (l, r) = (total(&sum(left)), total(&sum(right)));
            prop_assert_eq!((l.0 + r.0, l.1 + r.1), total(&sum(&events)));
            prop_assert_eq!(total(&sum(&events)).0, i64::try_from(events.len()).unwrap_or(0));
        }
    }
}
