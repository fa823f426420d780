//! The two usage records of an exchange, encoded straight from borrowed fields
//! into a buffer that is used again and again: nothing is allocated once that
//! buffer has grown.
//!
//! The bytes are a `UsageRecord` of the node protocol. Lengths of nested
//! messages are written as padded varints, which every decoder accepts, so
//! that one pass is enough. Texts and lists are cut at the limits below: a
//! record always fits into a frame, whatever a client sends.

use clawgate_shared::pricing::ServiceTier;
use clawgate_shared::usage::Billing;

use crate::quota::Line;

/// Longest text of a record, in bytes; longer ones are cut at a character.
pub const MAX_TEXT: usize = 2048;
/// Longest text inside an attempt or a label, in bytes.
pub const MAX_SMALL_TEXT: usize = 256;
/// Most attempts, and most labels, of one record; later ones are left out.
pub const MAX_LISTED: usize = 128;
/// Most ids of things that one record says were made.
pub const MAX_MADE: usize = 64;

/// What is known of an exchange before its first byte goes upstream. Empty
/// text means "none".
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenRecord<'a> {
    /// `req_…`
    pub exchange_id: &'a str,
    /// When the request began: unix microseconds.
    pub at_micros: i64,
    /// Owner of the bot.
    pub tenant_id: &'a str,
    /// Empty: none.
    pub project_id: &'a str,
    /// Who called.
    pub bot_id: &'a str,
    /// Vendor slug.
    pub vendor: &'a str,
    /// As asked for; in a settle as served, when the vendor said.
    pub model: &'a str,
    /// The route, such as `chat/completions`.
    pub endpoint: &'a str,
    /// The client's `x-request-id`.
    pub client_request_id: &'a str,
    /// The key of the current or last attempt.
    pub provider_key_id: &'a str,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// Held from quotas before dispatch, in tokens.
    pub reserved_tokens: u64,
    /// The snapshot it was admitted under.
    pub config_version: &'a str,
    /// Reported by the client.
    pub agent_id: &'a str,
    /// Reported by the client.
    pub session_id: &'a str,
    /// Per quota: in an open what is held, in a settle what is used up.
    pub charges: &'a [ChargeRecord<'a>],
    /// Ids of what was made in the account of the last key, so far.
    pub made_ids: &'a [String],
    /// The vendor forgets those by itself.
    pub made_ids_pass: bool,
}

/// An amount of one quota in one window.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChargeRecord<'a> {
    /// `quo_…`
    pub quota_id: &'a str,
    /// As its lease says: unix microseconds.
    pub window_start_micros: i64,
    /// In the quota's unit.
    pub amount: u64,
}

/// One try with one key.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttemptRecord<'a> {
    /// The provider key.
    pub key_id: &'a str,
    /// HTTP status; 0 when no answer came.
    pub status: u32,
    /// Why it was not the last one, or how it ended.
    pub reason: &'a str,
    /// How long it took, in milliseconds.
    pub millis: u32,
}

/// How an exchange ended; complete in itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct SettleRecord<'a> {
    /// The facts of the open, brought up to date (model as served, last key).
    pub open: OpenRecord<'a>,
    /// `ok | upstream_error | client_disconnect | interrupted | refused | failed`
    pub outcome: &'a str,
    /// What the client got.
    pub status_code: u32,
    /// Our stable code, empty when there is none.
    pub error_code: &'a str,
    /// For a human; never a secret.
    pub error_message: &'a str,
    /// Token counts; `None` is unknown, an explicit zero stays zero.
    pub input_tokens: Option<u64>,
    /// See [`clawgate_shared::usage::Usage`].
    pub cached_input_tokens: Option<u64>,
    /// See [`clawgate_shared::usage::Usage`].
    pub cache_write_tokens: Option<u64>,
    /// See [`clawgate_shared::usage::Usage`].
    pub output_tokens: Option<u64>,
    /// See [`clawgate_shared::usage::Usage`].
    pub reasoning_tokens: Option<u64>,
    /// See [`clawgate_shared::usage::Usage`].
    pub total_tokens: Option<u64>,
    /// `upstream | estimated | none`
    pub usage_source: &'a str,
    /// The whole exchange, in microseconds.
    pub duration_micros: u64,
    /// Until the first byte went downstream, in microseconds.
    pub ttft_micros: Option<u64>,
    /// In the order they were made.
    pub tried: &'a [AttemptRecord<'a>],
    /// The bot's labels.
    pub labels: &'a [(String, String)],
    /// What else decides the price.
    pub billing: Billing,
}

impl<'a> From<Line<'a>> for ChargeRecord<'a> {
    fn from(line: Line<'a>) -> Self {
        let Line { quota_id, window_start_micros, amount } = line;
        Self { quota_id, window_start_micros, amount }
    }
}

/// Bytes of the padded length of the outermost message: up to 2 MiB.
const OUTER_LENGTH: usize = 3;
/// The same for attempts and labels: up to 16 KiB.
const INNER_LENGTH: usize = 2;

const WIRE_VARINT: u8 = 0;
const WIRE_BYTES: u8 = 2;

impl OpenRecord<'_> {
    /// Appends the encoded `UsageRecord { open }` to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        nested::<OUTER_LENGTH>(out, 1, |out| self.encode_fields(out));
    }

    /// Fields 1 to 15, 31, 38 and 39 have the same numbers in both messages.
    fn encode_fields(&self, out: &mut Vec<u8>) {
        text(out, 1, self.exchange_id, MAX_TEXT);
        number(out, 2, u64::from_ne_bytes(self.at_micros.to_ne_bytes()));
        text(out, 3, self.tenant_id, MAX_TEXT);
        text(out, 4, self.project_id, MAX_TEXT);
        text(out, 5, self.bot_id, MAX_TEXT);
        text(out, 6, self.vendor, MAX_TEXT);
        text(out, 7, self.model, MAX_TEXT);
        text(out, 8, self.endpoint, MAX_TEXT);
        text(out, 9, self.client_request_id, MAX_TEXT);
        text(out, 10, self.provider_key_id, MAX_TEXT);
        number(out, 11, u64::from(self.stream));
        number(out, 12, self.reserved_tokens);
        text(out, 13, self.config_version, MAX_TEXT);
        text(out, 14, self.agent_id, MAX_TEXT);
        text(out, 15, self.session_id, MAX_TEXT);
        for charge in self.charges.iter().take(MAX_LISTED) {
            nested::<INNER_LENGTH>(out, 31, |out| {
                text(out, 1, charge.quota_id, MAX_SMALL_TEXT);
                number(out, 2, u64::from_ne_bytes(charge.window_start_micros.to_ne_bytes()));
                number(out, 3, charge.amount);
            });
        }
        for id in self.made_ids.iter().take(MAX_MADE).filter(|id| id.len() <= MAX_SMALL_TEXT) {
            // Half an id would name something else.
            text(out, 38, id, MAX_SMALL_TEXT);
        }
        number(out, 39, u64::from(self.made_ids_pass && !self.made_ids.is_empty()));
    }
}

impl SettleRecord<'_> {
    /// Appends the encoded `UsageRecord { settle }` to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        nested::<OUTER_LENGTH>(out, 2, |out| {
            self.open.encode_fields(out);
            text(out, 16, self.outcome, MAX_TEXT);
            number(out, 17, u64::from(self.status_code));
            text(out, 18, self.error_code, MAX_TEXT);
            text(out, 19, self.error_message, MAX_TEXT);
            optional(out, 20, self.input_tokens);
            optional(out, 21, self.cached_input_tokens);
            optional(out, 22, self.cache_write_tokens);
            optional(out, 23, self.output_tokens);
            optional(out, 24, self.reasoning_tokens);
            optional(out, 25, self.total_tokens);
            text(out, 26, self.usage_source, MAX_TEXT);
            number(out, 27, self.duration_micros);
            optional(out, 28, self.ttft_micros);
            for attempt in self.tried.iter().take(MAX_LISTED) {
                nested::<INNER_LENGTH>(out, 29, |out| attempt.encode_fields(out));
            }
            for (key, value) in self.labels.iter().take(MAX_LISTED) {
                nested::<INNER_LENGTH>(out, 30, |out| {
                    text(out, 1, key, MAX_SMALL_TEXT);
                    text(out, 2, value, MAX_SMALL_TEXT);
                });
            }
            let Billing { tier, cache_write_1h, input_audio, output_audio, billed_input, billed_output } = self.billing;
            if tier != ServiceTier::Standard {
                text(out, 32, tier.as_str(), MAX_SMALL_TEXT);
            }
            optional(out, 33, cache_write_1h);
            optional(out, 34, input_audio);
            optional(out, 35, output_audio);
            optional(out, 36, billed_input);
            optional(out, 37, billed_output);
        });
    }
}

impl AttemptRecord<'_> {
    fn encode_fields(&self, out: &mut Vec<u8>) {
        text(out, 1, self.key_id, MAX_SMALL_TEXT);
        number(out, 2, u64::from(self.status));
        text(out, 3, self.reason, MAX_SMALL_TEXT);
        number(out, 4, u64::from(self.millis));
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_seven(value) | 0x80);
        value >>= 7;
    }
    out.push(low_seven(value));
}

const fn low_seven(value: u64) -> u8 {
    (value & 0x7f) as u8
}

fn tag(out: &mut Vec<u8>, field: u8, wire: u8) {
    varint(out, u64::from(field) << 3 | u64::from(wire));
}

/// Left out when zero, as proto3 wants it.
fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        optional(out, field, Some(value));
    }
}

fn optional(out: &mut Vec<u8>, field: u8, value: Option<u64>) {
    if let Some(value) = value {
        tag(out, field, WIRE_VARINT);
        varint(out, value);
    }
}

fn text(out: &mut Vec<u8>, field: u8, value: &str, limit: usize) {
    if value.is_empty() {
        return;
    }
    let cut = clip(value, limit);
    tag(out, field, WIRE_BYTES);
    varint(out, cut.len() as u64);
    out.extend_from_slice(cut.as_bytes());
}

/// The longest beginning of `value` of at most `limit` bytes.
fn clip(value: &str, limit: usize) -> &str {
    value.get(..value.floor_char_boundary(limit)).unwrap_or(value)
}

/// A nested message whose length takes exactly `LENGTH` bytes.
fn nested<const LENGTH: usize>(out: &mut Vec<u8>, field: u8, body: impl FnOnce(&mut Vec<u8>)) {
    tag(out, field, WIRE_BYTES);
    let at = out.len();
    out.extend_from_slice(&[0; LENGTH]);
    body(out);
    let mut length = (out.len() - at - LENGTH) as u64;
    let Some(place) = out.get_mut(at..at + LENGTH) else { return };
    let last = LENGTH - 1;
    for (index, byte) in place.iter_mut().enumerate() {
        *byte = low_seven(length) | if index == last { 0 } else { 0x80 };
        length >>= 7;
    }
}

#[cfg(test)]
mod tests {
    use clawgate_shared::proto::node::{Attempt, Charge, Label, Open, Settle, UsageRecord, usage_record::Kind};
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn wire_open(open: &OpenRecord<'_>) -> Open {
        let cut = |value: &str| clip(value, MAX_TEXT).to_owned();
        Open {
            exchange_id: cut(open.exchange_id),
            at_micros: open.at_micros,
            tenant_id: cut(open.tenant_id),
            project_id: cut(open.project_id),
            bot_id: cut(open.bot_id),
            vendor: cut(open.vendor),
            model: cut(open.model),
            endpoint: cut(open.endpoint),
            client_request_id: cut(open.client_request_id),
            provider_key_id: cut(open.provider_key_id),
            stream: open.stream,
            reserved_tokens: open.reserved_tokens,
            config_version: cut(open.config_version),
            agent_id: cut(open.agent_id),
            session_id: cut(open.session_id),
            reserved: open
                .charges
                .iter()
                .map(|charge| Charge {
                    quota_id: clip(charge.quota_id, MAX_SMALL_TEXT).to_owned(),
                    window_start_micros: charge.window_start_micros,
                    amount: charge.amount,
                })
                .collect(),
            made_ids: {
                let ids = open.made_ids.iter().take(MAX_MADE);
                ids.filter(|id| (1..=MAX_SMALL_TEXT).contains(&id.len())).cloned().collect()
            },
            made_ids_pass: open.made_ids_pass && !open.made_ids.is_empty(),
        }
    }

    fn wire_settle(settle: &SettleRecord<'_>) -> Settle {
        let open = wire_open(&settle.open);
        let cut = |value: &str| clip(value, MAX_TEXT).to_owned();
        let small = |value: &str| clip(value, MAX_SMALL_TEXT).to_owned();
        let attempt = |a: &AttemptRecord<'_>| Attempt {
            key_id: small(a.key_id),
            status: a.status,
            reason: small(a.reason),
            millis: a.millis,
        };
        let label = |(key, value): &(String, String)| Label { key: small(key), value: small(value) };
        Settle {
            exchange_id: open.exchange_id,
            at_micros: open.at_micros,
            tenant_id: open.tenant_id,
            project_id: open.project_id,
            bot_id: open.bot_id,
            vendor: open.vendor,
            model: open.model,
            endpoint: open.endpoint,
            client_request_id: open.client_request_id,
            provider_key_id: open.provider_key_id,
            stream: open.stream,
            reserved_tokens: open.reserved_tokens,
            config_version: open.config_version,
            agent_id: open.agent_id,
            session_id: open.session_id,
            charges: open.reserved,
            outcome: cut(settle.outcome),
            status_code: settle.status_code,
            error_code: cut(settle.error_code),
            error_message: cut(settle.error_message),
            input_tokens: settle.input_tokens,
            cached_input_tokens: settle.cached_input_tokens,
            cache_write_tokens: settle.cache_write_tokens,
            output_tokens: settle.output_tokens,
            reasoning_tokens: settle.reasoning_tokens,
            total_tokens: settle.total_tokens,
            usage_source: cut(settle.usage_source),
            duration_micros: settle.duration_micros,
            ttft_micros: settle.ttft_micros,
            tried: settle.tried.iter().take(MAX_LISTED).map(attempt).collect(),
            labels: settle.labels.iter().take(MAX_LISTED).map(label).collect(),
            service_tier: match settle.billing.tier {
                ServiceTier::Standard => String::new(),
                tier => tier.as_str().to_owned(),
            },
            cache_write_1h_tokens: settle.billing.cache_write_1h,
            input_audio_tokens: settle.billing.input_audio,
            output_audio_tokens: settle.billing.output_audio,
            billed_input_tokens: settle.billing.billed_input,
            billed_output_tokens: settle.billing.billed_output,
            made_ids: open.made_ids,
            made_ids_pass: open.made_ids_pass,
        }
    }

    fn decoded(bytes: &[u8]) -> Kind {
        UsageRecord::decode(bytes).expect("decodes").kind.expect("has a kind")
    }

    fn texts() -> impl Strategy<Value = Vec<String>> {
        let one = prop_oneof![8 => "\\PC{0,40}", 1 => Just(String::new()), 1 => Just("é".repeat(MAX_TEXT))];
        proptest::collection::vec(one, 16)
    }

    fn open_of<'a>(texts: &'a [String], numbers: (i64, u64, bool), charges: &'a [ChargeRecord<'a>]) -> OpenRecord<'a> {
        OpenRecord {
            exchange_id: &texts[0],
            at_micros: numbers.0,
            tenant_id: &texts[1],
            project_id: &texts[2],
            bot_id: &texts[3],
            vendor: &texts[4],
            model: &texts[5],
            endpoint: &texts[6],
            client_request_id: &texts[7],
            provider_key_id: &texts[8],
            stream: numbers.2,
            reserved_tokens: numbers.1,
            config_version: &texts[9],
            agent_id: &texts[10],
            session_id: &texts[11],
            charges,
            made_ids: &[],
            made_ids_pass: false,
        }
    }

    proptest! {
        #[test]
        fn an_open_decodes_to_itself(
            texts in texts(),
            numbers in any::<(i64, u64, bool)>(),
            made in proptest::collection::vec("\\PC{0,300}", 0..4),
        ) {
            let charge = ChargeRecord { quota_id: &texts[12], window_start_micros: numbers.0, amount: numbers.1 };
            let charges = [charge; 3];
            let open = OpenRecord { made_ids: &made, made_ids_pass: numbers.2, ..open_of(&texts, numbers, &charges) };
            let mut out = Vec::new();
            open.encode(&mut out);
            prop_assert_eq!(decoded(&out), Kind::Open(wire_open(&open)));
        }

        #[test]
        fn a_settle_decodes_to_itself(
            texts in texts(),
            numbers in any::<(i64, u64, bool)>(),
            counts in proptest::collection::vec(any::<Option<u64>>(), 12),
            status in any::<u32>(),
            duration in any::<u64>(),
            tried in proptest::collection::vec(("\\PC{0,300}", any::<u32>(), "\\PC{0,9}", any::<u32>()), 0..4),
            labels in proptest::collection::vec(("\\PC{0,9}", "\\PC{0,300}"), 0..4),
            made in proptest::collection::vec("\\PC{0,300}", 0..4),
        ) {
            let tried: Vec<_> = tried
                .iter()
                .map(|(key_id, status, reason, millis)| AttemptRecord { key_id, status: *status, reason, millis: *millis })
                .collect();
            let settle = SettleRecord {
                open: OpenRecord { made_ids: &made, made_ids_pass: numbers.2, ..open_of(&texts, numbers, &[]) },
                outcome: &texts[12],
                status_code: status,
                error_code: &texts[13],
                error_message: &texts[14],
                input_tokens: counts[0],
                cached_input_tokens: counts[1],
                cache_write_tokens: counts[2],
                output_tokens: counts[3],
                reasoning_tokens: counts[4],
                total_tokens: counts[5],
                usage_source: &texts[15],
                duration_micros: duration,
                ttft_micros: counts[6],
                tried: &tried,
                labels: &labels,
                billing: Billing {
                    tier: [ServiceTier::Standard, ServiceTier::Flex][usize::from(numbers.2)],
                    cache_write_1h: counts[7],
                    input_audio: counts[8],
                    output_audio: counts[9],
                    billed_input: counts[10],
                    billed_output: counts[11],
                },
            };
            let mut out = Vec::new();
            settle.encode(&mut out);
            prop_assert_eq!(decoded(&out), Kind::Settle(wire_settle(&settle)));
        }
    }

    #[test]
    fn the_largest_record_fits_into_a_frame() {
        let long = "x".repeat(MAX_TEXT * 2);
        let texts = vec![long.clone(); 16];
        let tried =
            [AttemptRecord { key_id: &long, status: u32::MAX, reason: &long, millis: u32::MAX }; MAX_LISTED * 2];
        let charges = [ChargeRecord { quota_id: &long, window_start_micros: -1, amount: u64::MAX }; MAX_LISTED];
        let labels = vec![(long.clone(), long.clone()); MAX_LISTED * 2];
        let settle = SettleRecord {
            open: OpenRecord {
                made_ids: &vec!["x".repeat(MAX_SMALL_TEXT); 2 * MAX_MADE],
                made_ids_pass: true,
                ..open_of(&texts, (-1, u64::MAX, true), &charges)
            },
            outcome: &long,
            error_code: &long,
            error_message: &long,
            usage_source: &long,
            tried: &tried,
            labels: &labels,
            ..SettleRecord::default()
        };
        let mut out = Vec::new();
        settle.encode(&mut out);
        assert!(out.len() <= crate::metering::spool::MAX_RECORD, "{}", out.len());
        assert_eq!(decoded(&out), Kind::Settle(wire_settle(&settle)));
    }
}
