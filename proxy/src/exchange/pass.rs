//! What a request has of the rate and concurrency limits of its bot, its tenant
//! and the provider key that is tried; and the words for when there is no more.

use std::sync::Arc;

use clawgate_shared::clock;
use clawgate_shared::dialect::Dialect;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::reject::Refusal;
use crate::limits::{Bucket, Gate, Slot, Slots, Stay};
use crate::snapshot::Bot;
use crate::wire::error::Code;

/// Clients sleep for whatever they are told; this is the most.
const LONGEST_WAIT: i64 = 30;
/// Bytes of a prompt per token, as a first guess.
const BYTES_PER_TOKEN: usize = 4;

/// Everything goes back when it is dropped: places always, rates only when the
/// request was never sent.
#[derive(Debug, Default)]
#[must_use]
pub struct Pass {
    /// The bot, then its tenant, as far as they have limits.
    stays: [Option<Stay>; 2],
    key: Option<Slot>,
}

impl Pass {
    /// A place with the bot and its tenant, then one request of each rate.
    ///
    /// # Errors
    /// One of them has none left.
    pub fn enter(bot: &Bot) -> Result<Self, Refusal> {
        let gates = [("bot", bot.gate.as_ref()), ("tenant", bot.tenant.gate.as_ref())];
        let mut pass = Self::default();
        if gates.iter().all(|(_, gate)| gate.is_none()) {
            return Ok(pass);
        }
        for ((scope, gate), stay) in gates.into_iter().zip(&mut pass.stays) {
            if let Some(gate) = gate {
                *stay = Some(Stay::enter(gate).ok_or_else(|| crowded(scope, gate))?);
            }
        }
        let now = clock::boot_micros();
        for ((scope, gate), stay) in gates.into_iter().zip(&mut pass.stays) {
            if let (Some(gate), Some(stay)) = (gate, stay) {
                stay.request(now)
                    .map_err(|wait| too_fast(scope, gate.configured().requests_per_minute, "requests", wait))?;
            }
        }
        Ok(pass)
    }

    /// A response within a session that has its places already: one request of
    /// each rate, and what tokens there are.
    ///
    /// # Errors
    /// One of them has none left.
    pub fn within(bot: &Bot) -> Result<Self, Refusal> {
        let gates = [("bot", bot.gate.as_ref()), ("tenant", bot.tenant.gate.as_ref())];
        let mut pass = Self::default();
        let now = clock::boot_micros();
        for ((scope, gate), stay) in gates.into_iter().zip(&mut pass.stays) {
            let Some(gate) = gate else { continue };
            let limits = gate.configured();
            let stay = stay.insert(Stay::within(gate));
            stay.request(now).map_err(|wait| too_fast(scope, limits.requests_per_minute, "requests", wait))?;
            stay.tokens(1, now).map_err(|wait| too_fast(scope, limits.tokens_per_minute, "tokens", wait))?;
        }
        Ok(pass)
    }

    /// Whether nothing limits it.
    pub fn is_empty(&self) -> bool {
        self.stays.iter().all(Option::is_none)
    }

    /// Counts a prompt of `bytes` against the token rates.
    ///
    /// # Errors
    /// One of them has not so much left.
    pub fn tokens(&mut self, bot: &Bot, bytes: usize) -> Result<(), Refusal> {
        let gates = [("bot", bot.gate.as_ref()), ("tenant", bot.tenant.gate.as_ref())];
        if self.is_empty() {
            return Ok(());
        }
        let tokens = bytes.div_ceil(BYTES_PER_TOKEN) as u64;
        let now = clock::boot_micros();
        for ((scope, gate), stay) in gates.into_iter().zip(&mut self.stays) {
            if let (Some(gate), Some(stay)) = (gate, stay) {
                stay.tokens(tokens, now)
                    .map_err(|wait| too_fast(scope, gate.configured().tokens_per_minute, "tokens", wait))?;
            }
        }
        Ok(())
    }

    /// The place with the key that is tried now; the one before goes back.
    pub fn with_key(&mut self, slot: Option<Slot>) {
        self.key = slot;
    }

    /// A vendor may have seen the request: it counts from here on.
    pub fn sent(&mut self) {
        self.stays.iter_mut().flatten().for_each(Stay::sent);
    }

    /// The vendor is done with it: whoever waits may go on.
    pub fn leave(&mut self) {
        self.stays.iter_mut().flatten().for_each(Stay::leave);
        self.key = None;
    }

    /// The end: tokens are corrected to what they were; `None`: nobody knows.
    pub fn settle(mut self, tokens: Option<u64>) {
        if !self.is_empty() {
            let now = clock::boot_micros();
            self.stays.iter_mut().flatten().for_each(|stay| stay.settle(tokens, now));
        }
    }
}

fn crowded(scope: &str, gate: &Gate) -> Refusal {
    let limit = gate.configured().max_concurrency;
    Refusal::new(
        Code::ConcurrencyLimited,
        format!("the {scope} may have {limit} requests at one time and has; try again when one has ended"),
    )
}

/// All keys that could serve have as many requests as they may.
pub fn keys_crowded(vendor: &str) -> Refusal {
    Refusal::new(
        Code::ConcurrencyLimited,
        format!("the provider keys for vendor {vendor} have as many requests as they may; try again in a moment"),
    )
}

fn too_fast(scope: &str, limit: u64, what: &str, wait: i64) -> Refusal {
    let seconds = (wait.saturating_add(999_999) / 1_000_000).clamp(1, LONGEST_WAIT);
    let text = format!("the {scope} may use {limit} {what} per minute and has; try again in {seconds} s");
    Refusal { retry_after: u32::try_from(seconds).ok(), ..Refusal::new(Code::RateLimited, text) }
}

/// Tells the bot its rates in the words its client knows.
pub fn stamp(bot: &Bot, dialect: Dialect, headers: &mut HeaderMap) {
    let Some(gate) = &bot.gate else { return };
    let configured = gate.configured();
    let now = clock::boot_micros();
    let names = match dialect {
        Dialect::OpenAi => [
            ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
            ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
        ],
        Dialect::Anthropic => [
            [
                "anthropic-ratelimit-requests-limit",
                "anthropic-ratelimit-requests-remaining",
                "anthropic-ratelimit-requests-reset",
            ],
            [
                "anthropic-ratelimit-tokens-limit",
                "anthropic-ratelimit-tokens-remaining",
                "anthropic-ratelimit-tokens-reset",
            ],
        ],
        Dialect::Gemini => return,
    };
    let rates = [(&gate.requests, configured.requests_per_minute), (&gate.tokens, configured.tokens_per_minute)];
    for (names, (bucket, limit)) in names.into_iter().zip(rates) {
        if limit > 0 {
            let values = values(dialect, bucket, limit, now);
            for (name, value) in names.into_iter().zip(values) {
                headers.extend(value.map(|value| (HeaderName::from_static(name), value)));
            }
        }
    }
}

fn values(dialect: Dialect, bucket: &Bucket, limit: u64, now: i64) -> [Option<HeaderValue>; 3] {
    let resets_in = bucket.resets_in(now);
    let reset = if dialect == Dialect::Anthropic {
        // Whole seconds, the next one: two clocks took part.
        let at = clock::now_micros().saturating_add(resets_in).saturating_add(999_999) / 1_000_000 * 1_000_000;
        clock::rfc3339(at).replace(".000000", "")
    } else {
        duration(resets_in)
    };
    [Some(HeaderValue::from(limit)), Some(HeaderValue::from(bucket.remaining(now))), HeaderValue::from_str(&reset).ok()]
}

/// `120ms`, `1s`, `6m0s`, `1h0m0s`: as Go prints durations, rounded up.
fn duration(micros: i64) -> String {
    let millis = micros.max(0).saturating_add(999) / 1000;
    if millis > 0 && millis < 1000 {
        return format!("{millis}ms");
    }
    let seconds = millis.saturating_add(999) / 1000;
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// A place with a key whose places are counted; `Err`: all are taken.
pub fn key_slot(slots: Option<&Arc<Slots>>) -> Result<Option<Slot>, ()> {
    match slots {
        None => Ok(None),
        Some(slots) => slots.take().map(Some).ok_or(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        for (micros, text) in [
            (0, "0s"),
            (1, "1ms"),
            (120_000, "120ms"),
            (999_001, "1s"),
            (1_000_000, "1s"),
            (1_000_001, "2s"),
            (59_999_000, "1m0s"),
            (360_000_000, "6m0s"),
            (3_600_000_000, "1h0m0s"),
        ] {
            assert_eq!(duration(micros), text, "{micros}");
        }
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_never_a_long_one() {
        for (wait, seconds) in [(1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2), (29_000_001, 30), (i64::MAX, 30)]
        {
            let refusal = too_fast("bot", 60, "requests", wait);
            assert_eq!((refusal.code, refusal.retry_after), (Code::RateLimited, Some(seconds)), "{wait}");
        }
    }
}
