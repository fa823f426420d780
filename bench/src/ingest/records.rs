//! Usage records as nodes write them: deterministic, with their sums.

use clawgate_shared::proto::node::{Attempt, Label, Settle, UsageRecord, usage_record::Kind};
use prost::Message as _;

/// Keys a bot may use.
pub(super) const KEYS_PER_BOT: u64 = 5;
/// Vendors and models, as served.
const MODELS: [(&str, &str, &str); 3] = [
    ("openai", "gpt-4o-mini-2024-07-18", "chat/completions"),
    ("anthropic", "claude-sonnet-4-5", "messages"),
    ("google", "gemini-2.5-flash", "generateContent"),
];

/// What was made, for comparison with what is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Truth {
    /// Exchanges.
    pub(crate) events: u64,
    /// All tokens.
    pub(crate) tokens: u64,
    /// Of them, those that came in.
    pub(crate) input: u64,
    /// Exchanges that did not end well.
    pub(crate) errors: u64,
    /// Batches that had to be sent again.
    pub(crate) delayed: u64,
}

impl Truth {
    /// Adds another's.
    pub(crate) fn add(&mut self, other: Self) {
        self.events += other.events;
        self.tokens += other.tokens;
        self.input += other.input;
        self.errors += other.errors;
        self.delayed += other.delayed;
    }
}

/// What is the same for all records.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) tenant_id: String,
    pub(super) bots: Vec<String>,
    /// Before the first event, unix microseconds.
    pub(super) start: i64,
    /// From one event of all shards to the next, nanoseconds.
    pub(super) step_nanos: i64,
    pub(super) shards: u64,
}

impl World {
    /// How long so many events take, in microseconds.
    pub(super) fn duration_micros(&self, events: u64) -> i64 {
        i64::try_from(events).unwrap_or(i64::MAX).saturating_mul(self.step_nanos) / 1000
    }
}

/// The records of one shard.
pub(super) struct Source {
    world: World,
    shard: u64,
    made: u64,
    random: u64,
}

impl Source {
    pub(super) fn new(world: World, shard: u64) -> Self {
        Self { world, shard, made: 0, random: 0x9e37_79b9_7f4a_7c15 ^ (shard + 1) }
    }

    /// `count` exchanges, each as an emptied OPEN and its SETTLE.
    pub(super) fn batch(&mut self, count: u64) -> (Vec<Vec<u8>>, Truth) {
        let mut records = Vec::with_capacity(usize::try_from(2 * count).unwrap_or(0));
        let mut truth = Truth::default();
        for _ in 0..count {
            let settle = self.settle();
            truth.events += 1;
            truth.tokens += settle.total_tokens.unwrap_or(0);
            truth.input += settle.input_tokens.unwrap_or(0);
            truth.errors += u64::from(settle.outcome != "ok");
            records.push(Vec::new());
            records.push(UsageRecord { kind: Some(Kind::Settle(settle)) }.encode_to_vec());
        }
        (records, truth)
    }

    fn settle(&mut self) -> Settle {
        let number = i64::try_from(self.made * self.world.shards + self.shard).unwrap_or(i64::MAX);
        self.made += 1;
        let at = self.world.start + number * self.world.step_nanos / 1000;
        let random = self.next();
        let bot = usize::try_from(random % self.world.bots.len() as u64).unwrap_or(0);
        let (vendor, model, endpoint) = MODELS[usize::try_from((random >> 20) % 3).unwrap_or(0)];
        let key = (bot as u64 % 20) * KEYS_PER_BOT + (random >> 24) % KEYS_PER_BOT;
        let key = format!("key_{:032x}", 0x0192_0000_0000_7000_8000_0000_0000_0000_u128 + u128::from(key));
        // One in fifty did not get an answer.
        let failed = (random >> 32).is_multiple_of(50);
        let input = 200 + (random >> 40) % 8000;
        let output = 20 + (random >> 16) % 900;
        let millis = u32::try_from(300 + (random >> 12) % 4000).unwrap_or(300);
        let status = if failed { 502 } else { 200 };
        let reason = if failed { "upstream_5xx" } else { "" };
        let counted = |count: u64| (!failed).then_some(count);
        Settle {
            exchange_id: format!("req_{:012x}7{:03x}8{:015x}", at / 1000, random >> 52, self.next() >> 4),
            at_micros: at,
            tenant_id: self.world.tenant_id.clone(),
            bot_id: self.world.bots.get(bot).cloned().unwrap_or_default(),
            vendor: vendor.into(),
            model: model.into(),
            endpoint: endpoint.into(),
            provider_key_id: key.clone(),
            stream: random & 1 == 0,
            config_version: "1.1187.5f2c6b1f".into(),
            session_id: if random & 6 == 0 { format!("session-{}", (random >> 8) % 5000) } else { String::new() },
            outcome: if failed { "upstream_error".into() } else { "ok".into() },
            status_code: status,
            error_code: if failed { "upstream_connect".into() } else { String::new() },
            error_message: if failed { "the vendor did not answer".into() } else { String::new() },
            input_tokens: counted(input),
            cached_input_tokens: counted(input / 2),
            output_tokens: counted(output),
            total_tokens: counted(input + output),
            usage_source: if failed { "none".into() } else { "upstream".into() },
            duration_micros: u64::from(millis) * 1000 + (random >> 30) % 1000,
            ttft_micros: (!failed).then_some(u64::from(millis) * 300),
            tried: vec![Attempt { key_id: key, status, reason: reason.into(), millis }],
            labels: vec![Label { key: "team".into(), value: format!("team-{}", bot % 20) }],
            ..Settle::default()
        }
    }

    /// xorshift64*: the same run makes the same records.
    fn next(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_those_that_were_counted() {
        let world = World {
            tenant_id: "ten_1".into(),
            bots: vec!["bot_1".into()],
            start: 1_800_000_000_000_000,
            step_nanos: 1500,
            shards: 2,
        };
        let (records, truth) = Source::new(world, 1).batch(200);
        let mut found = Truth::default();
        let mut last = String::new();
        for record in records.iter().filter(|record| !record.is_empty()) {
            let Some(Kind::Settle(settle)) = UsageRecord::decode(record.as_slice()).unwrap().kind else { panic!() };
            assert!(clawgate_shared::id::Kind::Exchange.matches(&settle.exchange_id), "{}", settle.exchange_id);
            assert!(settle.exchange_id[..16] >= last[..], "ids go up with time");
            last = settle.exchange_id[..16].to_owned();
            let (tokens, input) = (settle.total_tokens.unwrap_or(0), settle.input_tokens.unwrap_or(0));
            let errors = u64::from(settle.status_code != 200);
            found.add(Truth { events: 1, tokens, input, errors, ..Truth::default() });
        }
        assert_eq!((records.len(), found), (400, truth));
    }
}
