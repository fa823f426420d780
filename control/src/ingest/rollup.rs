//! From events to their sums. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::store::usage_dims::{Dims, Place};
use crate::store::usage_ingest::EventRow;
use crate::store::usage_query::DAY;
use crate::store::usage_rollup::{RollupKey, RollupSums};
use crate::store::usage_sessions::{MAX_NAME, SessionKey};

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

/// The sums of `events`, each with its place, in key order: of single exchanges'
/// rows, and of the wider rows these belong to.
pub fn sum<'a>(events: impl IntoIterator<Item = (&'a EventRow, &'a Place)>) -> Vec<(RollupKey, RollupSums)> {
    let mut narrow: HashMap<(i64, i64), (RollupSums, Dims)> = HashMap::new();
    for (event, place) in events {
        let key = (hour_of(event.open.created_at), place.dims.exchange);
        add(&mut narrow.entry(key).or_insert((RollupSums::default(), place.dims)).0, event);
    }
    let mut rows: BTreeMap<RollupKey, RollupSums> = BTreeMap::new();
    for ((start_at, dim_id), (sums, dims)) in narrow {
        rows.insert(RollupKey { start_at, dim_id }, sums);
        for dim_id in [dims.model, dims.key, dims.bot] {
            rows.entry(RollupKey { start_at, dim_id }).or_default().add(&sums);
        }
    }
    rows.into_iter().collect()
}

/// The sums by session of those `events` that began before `before`.
pub fn sum_late<'a>(
    events: impl IntoIterator<Item = (&'a EventRow, &'a Place)>,
    before: i64,
) -> BTreeMap<SessionKey, RollupSums> {
    let name = |text: &str| text.chars().take(MAX_NAME).collect();
    let mut rows: BTreeMap<SessionKey, RollupSums> = BTreeMap::new();
    for (event, place) in events {
        let open = &event.open;
        if open.created_at < before {
            let start_at = open.created_at - open.created_at.rem_euclid(DAY);
            let (agent, session) = (name(&open.agent_id), name(&open.session_id));
            add(rows.entry(SessionKey { dim_id: place.dims.bot, start_at, agent, session }).or_default(), event);
        }
    }
    rows
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

    fn event(at: i64, tokens: Option<i64>, outcome: &str) -> EventRow {
        EventRow {
            open: OpenRow { created_at: at, ..OpenRow::default() },
            total_tokens: tokens,
            outcome: outcome.into(),
            duration_micros: 10,
            ..EventRow::default()
        }
    }

    fn place(exchange: i64) -> Place {
        let dims = Dims { exchange, model: 101, key: 102, bot: 103, tenant: 104, caller: 105 };
        Place { dims, origin: 106 }
    }

    #[test]
    fn events_of_one_hour_and_kind_are_one_row_and_part_of_three_wider_ones() {
        let events = [
            (event(HOUR, Some(5), "ok"), place(1)),
            (event(2 * HOUR - 1, None, "ok"), place(1)),
            (event(2 * HOUR, Some(7), "ok"), place(1)),
            (event(HOUR, Some(1), "refused"), place(2)),
        ];
        let rows = sum(events.iter().map(|(event, place)| (event, place)));
        let seen: Vec<_> = rows
            .iter()
            .map(|(key, sums)| (key.start_at / HOUR, key.dim_id, sums.requests, sums.errors, sums.total))
            .collect();
        let wide = |hour, dim, (requests, errors, total)| (hour, dim, requests, errors, total);
        let mut wanted = vec![(1, 1, 2, 0, 5), (1, 2, 1, 1, 1)];
        wanted.extend([101, 102, 103].map(|dim| wide(1, dim, (3, 1, 6))));
        wanted.push((2, 1, 1, 0, 7));
        wanted.extend([101, 102, 103].map(|dim| wide(2, dim, (1, 0, 7))));
        assert_eq!(seen, wanted);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_events_are_split(
            parts in proptest::collection::vec((1..4i64, 0..5i64, proptest::option::of(0..1000i64)), 0..60),
            at in 0..60usize,
        ) {
            let events: Vec<(EventRow, Place)> = parts
                .iter()
                .map(|(dim, hour, tokens)| (event(hour * HOUR + 1, *tokens, "ok"), place(*dim)))
                .collect();
            let total = |events: &[(EventRow, Place)]| {
                let rows = sum(events.iter().map(|(event, place)| (event, place)));
                let of = |wide: bool| {
                    let rows = rows.iter().filter(|(key, _)| (key.dim_id == 101) == wide && key.dim_id < 102);
                    rows.fold((0, 0), |(n, t), (_, sums)| (n + sums.requests, t + sums.total))
                };
                assert_eq!(of(true), of(false));
                of(true)
            };
            let (left, right) = events.split_at(at.min(events.len()));
            let (l, r) = (total(left), total(right));
            prop_assert_eq!((l.0 + r.0, l.1 + r.1), total(&events));
            prop_assert_eq!(total(&events).0, i64::try_from(events.len()).unwrap_or(0));
        }
    }
}
