//! From the bytes of one record to rows. Total: what cannot be read becomes
//! [`Record::Malformed`], so that one bad record never blocks its shard.

use std::collections::BTreeMap;

use clawgate_shared::catalogue::{MAX_ACCOUNT_ID, MAX_ACCOUNT_IDS};
use clawgate_shared::id;
use clawgate_shared::mutant::{self, Mutant};
use clawgate_shared::pricing::ServiceTier;
use clawgate_shared::proto::node::{self as wire, Attempt, Open, Settle, UsageRecord, usage_record::Kind};
use clawgate_shared::usage::{Billing, Usage};
use prost::Message as _;
use serde::Serialize;

use crate::store::row::clean;
use crate::store::types::Charge;
use crate::store::usage_ingest::{EventRow, OpenRow};

/// Longest text that is stored, in bytes.
const MAX_TEXT: usize = 2048;
/// Most entries of a list that are stored.
const MAX_LIST: usize = 128;
/// Most quotas that one exchange is charged to.
const MAX_CHARGES: usize = 256;
/// Counts above this are a mistake of the sender; it keeps sums far from
/// overflow, which would make the database refuse the batch for ever.
const MAX_COUNT: i64 = 1_000_000_000_000;
/// How far in the future an event may say it began, in microseconds.
const MAX_AHEAD: i64 = 5 * 60 * 1_000_000;
/// How far in the past, in microseconds.
const MAX_BEHIND: i64 = 35 * 24 * 3600 * 1_000_000;

const OUTCOMES: [&str; 7] =
    ["ok", "upstream_error", "client_disconnect", "interrupted", "refused", "failed", INDETERMINATE];
/// The outcome of an exchange whose end nobody saw.
pub const INDETERMINATE: &str = "indeterminate";

/// What one record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An exchange is about to be sent.
    Open(Box<OpenRow>),
    /// An exchange has ended.
    Settle(Box<EventRow>),
    /// The shard is complete.
    End {
        /// Said by a successor, not by the writer.
        abandoned: bool,
        /// How many shards the epoch has.
        shards: u32,
    },
    /// Positions that were lost before they came here.
    Lost {
        /// How many.
        count: i64,
    },
    /// An open whose end follows in the same batch.
    Folded,
    /// Cannot be read: counted as lost.
    Malformed(&'static str),
}

/// Reads one record; `now` bounds the times it may state.
#[must_use]
pub fn decode(bytes: &[u8], position: i64, now: i64) -> Record {
    if bytes.is_empty() {
        return Record::Folded;
    }
    let Ok(record) = UsageRecord::decode(bytes) else { return Record::Malformed("not a usage record") };
    match record.kind {
        Some(Kind::Open(open)) => match open_row(open, position, now) {
            Some(row) => Record::Open(Box::new(row)),
            None => Record::Malformed("an open without exchange, tenant or bot"),
        },
        Some(Kind::Settle(settle)) => match event_row(settle, position, now) {
            Some(row) => Record::Settle(Box::new(row)),
            None => Record::Malformed("a settle without exchange, tenant or bot"),
        },
        Some(Kind::End(end)) => Record::End { abandoned: end.abandoned, shards: end.shards },
        Some(Kind::Lost(lost)) => Record::Lost { count: count(lost.count) },
        None => Record::Malformed("a record of an unknown kind"),
    }
}

fn open_row(open: Open, position: i64, now: i64) -> Option<OpenRow> {
    let row = OpenRow {
        exchange_id: open.exchange_id,
        position,
        created_at: clamp_time(open.at_micros, now),
        tenant_id: text(open.tenant_id),
        project_id: text(open.project_id),
        bot_id: text(open.bot_id),
        vendor: text(open.vendor),
        model: text(open.model),
        endpoint: text(open.endpoint),
        client_request_id: text(open.client_request_id),
        provider_key_id: text(open.provider_key_id),
        stream: open.stream,
        reserved_tokens: count(open.reserved_tokens),
        config_version: text(open.config_version),
        agent_id: text(open.agent_id),
        session_id: text(open.session_id),
        reserved: charges(open.reserved),
        made_ids: made_ids(open.made_ids),
        made_ids_pass: open.made_ids_pass,
    };
    let named = id::Kind::Exchange.matches(&row.exchange_id) && !row.tenant_id.is_empty() && !row.bot_id.is_empty();
    named.then_some(row)
}

fn event_row(settle: Settle, position: i64, now: i64) -> Option<EventRow> {
    let usage = Usage {
        input: settle.input_tokens,
        output: settle.output_tokens,
        total: settle.total_tokens,
        ..Usage::default()
    };
    let tried = tried(&settle.provider_key_id, settle.status_code, settle.tried);
    let labels: BTreeMap<String, String> =
        settle.labels.into_iter().take(MAX_LIST).map(|label| (text(label.key), text(label.value))).collect();
    Some(EventRow {
        labels: json(&labels, "{}"),
        status_code: i64::from(settle.status_code.min(999)),
        outcome: known(&settle.outcome, &OUTCOMES, "failed"),
        error_code: text(settle.error_code),
        error_message: text(settle.error_message),
        input_tokens: settle.input_tokens.map(count),
        cached_input_tokens: settle.cached_input_tokens.map(count),
        cache_write_tokens: settle.cache_write_tokens.map(count),
        output_tokens: settle.output_tokens.map(count),
        reasoning_tokens: settle.reasoning_tokens.map(count),
        total_tokens: settle.total_tokens.or_else(|| usage.total_or_sum()).map(count),
        usage_source: known(&settle.usage_source, &["upstream", "estimated", "none"], "none"),
        tried,
        duration_micros: count(settle.duration_micros),
        ttft_micros: settle.ttft_micros.map(count),
        billing: Billing {
            tier: ServiceTier::parse(&settle.service_tier).unwrap_or_default(),
            cache_write_1h: settle.cache_write_1h_tokens,
            input_audio: settle.input_audio_tokens,
            output_audio: settle.output_audio_tokens,
            billed_input: settle.billed_input_tokens,
            billed_output: settle.billed_output_tokens,
        },
        cost_micros: None,
        price_ref: String::new(),
        indeterminate: settle.outcome == INDETERMINATE,
        charges: charges(settle.charges),
        open: open_row(
            Open {
                exchange_id: settle.exchange_id,
                at_micros: settle.at_micros,
                tenant_id: settle.tenant_id,
                project_id: settle.project_id,
                bot_id: settle.bot_id,
                vendor: settle.vendor,
                model: settle.model,
                endpoint: settle.endpoint,
                client_request_id: settle.client_request_id,
                provider_key_id: settle.provider_key_id,
                stream: settle.stream,
                reserved_tokens: settle.reserved_tokens,
                config_version: settle.config_version,
                agent_id: settle.agent_id,
                session_id: settle.session_id,
                reserved: Vec::new(),
                made_ids: settle.made_ids,
                made_ids_pass: settle.made_ids_pass,
            },
            position,
            now,
        )?,
    })
}

/// The event of an exchange whose end nobody saw: it counts at its
/// reservation.
#[must_use]
pub fn indeterminate(mut open: OpenRow) -> EventRow {
    let reserved = std::mem::take(&mut open.reserved);
    let charges = if mutant::is(Mutant::IndeterminateFree) { Vec::new() } else { reserved };
    let held = (open.reserved_tokens > 0).then_some(open.reserved_tokens);
    EventRow {
        labels: "{}".into(),
        outcome: INDETERMINATE.into(),
        usage_source: if held.is_some() { "estimated" } else { "none" }.into(),
        total_tokens: held,
        indeterminate: true,
        charges,
        open,
        ..EventRow::default()
    }
}

/// What can be read of them; each quota's window counts once.
fn charges(given: Vec<wire::Charge>) -> Vec<Charge> {
    let mut found: Vec<Charge> = Vec::with_capacity(given.len().min(MAX_CHARGES));
    for charge in given.into_iter().take(MAX_CHARGES) {
        let same =
            |known: &Charge| (&known.quota_id, known.window_start) == (&charge.quota_id, charge.window_start_micros);
        if id::Kind::Quota.matches(&charge.quota_id) && !found.iter().any(same) {
            let window_start = charge.window_start_micros;
            found.push(Charge { quota_id: charge.quota_id, window_start, amount: count(charge.amount) });
        }
    }
    found
}

/// Ids that are some: cut short, one would name something else.
fn made_ids(given: Vec<String>) -> Vec<String> {
    let fits = |id: &String| (1..=MAX_ACCOUNT_ID).contains(&id.len()) && !id.contains('\0');
    given.into_iter().filter(fits).take(MAX_ACCOUNT_IDS).collect()
}

/// The short form for what nearly every exchange is, see [`EventRow::tried`].
fn tried(key: &str, status: u32, attempts: Vec<Attempt>) -> String {
    match attempts.as_slice() {
        [one] if one.key_id == key && one.status == status && one.reason.is_empty() => one.millis.to_string(),
        [] => String::new(),
        _ => json(&attempts.into_iter().take(MAX_LIST).map(Tried::from).collect::<Vec<_>>(), "[]"),
    }
}

/// One try, as it is stored.
#[derive(Serialize)]
struct Tried {
    key: String,
    status: u32,
    reason: String,
    ms: u32,
}

impl From<Attempt> for Tried {
    fn from(attempt: Attempt) -> Self {
        Self { key: text(attempt.key_id), ms: attempt.millis, reason: text(attempt.reason), status: attempt.status }
    }
}

fn json(value: &impl Serialize, otherwise: &str) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| otherwise.to_owned())
}

fn text(mut value: String) -> String {
    if value.len() > MAX_TEXT {
        let mut end = MAX_TEXT;
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        value.truncate(end);
    }
    if value.contains('\0') { clean(&value) } else { value }
}

fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(MAX_COUNT).min(MAX_COUNT)
}

fn known(value: &str, words: &[&str], otherwise: &str) -> String {
    words.iter().find(|word| **word == value).map_or(otherwise, |word| word).to_owned()
}

fn clamp_time(at: i64, now: i64) -> i64 {
    at.clamp(now.saturating_sub(MAX_BEHIND).max(0), now.saturating_add(MAX_AHEAD))
}

#[cfg(test)]
mod tests {
    use clawgate_shared::proto::node::{EpochEnd, Label, LostRange};
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000_000_000;
    const ID: &str = "req_0123456789abcdef0123456789abcdef";

    fn settle() -> Settle {
        Settle {
            exchange_id: ID.into(),
            at_micros: NOW,
            tenant_id: "ten_1".into(),
            bot_id: "bot_1".into(),
            outcome: "ok".into(),
            status_code: 200,
            usage_source: "upstream".into(),
            ..Settle::default()
        }
    }

    fn read(kind: Kind) -> Record {
        decode(&UsageRecord { kind: Some(kind) }.encode_to_vec(), 7, NOW)
    }

    fn event(settle: Settle) -> EventRow {
        match read(Kind::Settle(settle)) {
            Record::Settle(row) => *row,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn absent_counts_stay_absent_and_zeros_stay_zero() {
        let row = event(Settle { input_tokens: Some(0), ..settle() });
        assert_eq!((row.input_tokens, row.output_tokens, row.total_tokens), (Some(0), None, Some(0)));
        assert_eq!(event(settle()).total_tokens, None);
        let row = event(Settle { input_tokens: Some(3), output_tokens: Some(4), total_tokens: Some(9), ..settle() });
        assert_eq!(row.total_tokens, Some(9), "the node's total stands");
    }

    #[test]
    fn times_and_counts_are_bounded() {
        for (at, wanted) in [
            (NOW, NOW),
            (i64::MAX, NOW + MAX_AHEAD),
            (0, NOW - MAX_BEHIND),
            (NOW - MAX_BEHIND + 1, NOW - MAX_BEHIND + 1),
        ] {
            assert_eq!(event(Settle { at_micros: at, ..settle() }).open.created_at, wanted);
        }
        let row = event(Settle { input_tokens: Some(u64::MAX), duration_micros: u64::MAX, ..settle() });
        assert_eq!((row.input_tokens, row.duration_micros), (Some(MAX_COUNT), MAX_COUNT));
    }

    #[test]
    fn texts_are_stored_by_both_engines() {
        let row = event(Settle { model: "a\0b".into(), error_message: "é".repeat(2000), ..settle() });
        assert_eq!(row.open.model, "a\u{fffd}b");
        assert_eq!(row.error_message.len(), 2048);
        let row = event(Settle {
            tried: vec![Attempt { key_id: "key_1".into(), status: 429, reason: "rate".into(), millis: 5 }],
            labels: vec![Label { key: "team".into(), value: "a\"b".into() }],
            outcome: "from the future".into(),
            ..settle()
        });
        assert_eq!(row.tried, r#"[{"key":"key_1","status":429,"reason":"rate","ms":5}]"#);
        let one = |key: &str| vec![Attempt { key_id: key.into(), status: 200, reason: String::new(), millis: 5 }];
        assert_eq!(event(Settle { provider_key_id: "key_1".into(), tried: one("key_1"), ..settle() }).tried, "5");
        assert!(
            event(Settle { provider_key_id: "key_1".into(), tried: one("key_2"), ..settle() }).tried.contains("key_2")
        );
        assert_eq!((row.labels.as_str(), row.outcome.as_str()), (r#"{"team":"a\"b"}"#, "failed"));
    }

    #[test]
    fn what_cannot_be_read_is_malformed_and_nothing_else() {
        assert!(matches!(decode(&[0xff, 0xff], 1, NOW), Record::Malformed(_)));
        assert!(matches!(decode(&[9 << 3 | 2, 0], 1, NOW), Record::Malformed(_)), "a kind of a later release");
        assert_eq!(decode(&[], 1, NOW), Record::Folded);
        for broken in [
            Settle { exchange_id: "x".into(), ..settle() },
            Settle { tenant_id: String::new(), ..settle() },
            Settle { bot_id: String::new(), ..settle() },
        ] {
            assert!(matches!(read(Kind::Settle(broken)), Record::Malformed(_)));
        }
        assert_eq!(
            read(Kind::End(EpochEnd { abandoned: true, shards: 3 })),
            Record::End { abandoned: true, shards: 3 }
        );
        assert_eq!(read(Kind::Lost(LostRange { count: 3, reason: String::new() })), Record::Lost { count: 3 });
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes, 0, NOW);
        }
    }
}
