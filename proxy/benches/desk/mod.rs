//! Ten thousand bots with four quotas each, and one exchange's accounts: hold,
//! OPEN, SETTLE, give back.

// Measured and tested code only: whatever fails here ends the run.
#![allow(clippy::expect_used, clippy::new_without_default)]

use std::sync::Arc;

use clawgate_proxy::limits::{Granted, Metric, Outage, QuotaRule, Slices, Standing};
use clawgate_proxy::metering::{ChargeRecord, OpenRecord, SettleRecord, Spool, SpoolOptions};
use clawgate_proxy::quota::{Bound, Permit, Spent};
use clawgate_shared::clock;
use clawgate_shared::usage::Usage;

/// Bots with quotas of their own.
pub const BOTS: usize = 10_000;
/// What each has.
const QUOTAS: [Metric; 4] = [Metric::TotalTokens, Metric::OutputTokens, Metric::InputTokens, Metric::Requests];
/// So large that nothing is ever refused.
const PLENTY: u64 = 1 << 50;

/// The bots' quotas and the spool that their usage goes to.
pub struct Desk {
    bots: Vec<Vec<Arc<QuotaRule>>>,
    spool: Spool,
    turn: usize,
    _slices: Slices,
    _dir: tempfile::TempDir,
}

impl Desk {
    /// Everything leased, everything warm.
    pub fn new() -> Self {
        let slices = Slices::default();
        let bots = (0..BOTS).map(|bot| QUOTAS.iter().map(|metric| rule(&slices, bot, *metric)).collect()).collect();
        let dir = tempfile::tempdir().expect("directory");
        // A new file allocates its name; none is begun while this is watched.
        let options = SpoolOptions { limit_bytes: 64 << 30, segment_bytes: 8 << 30, ..SpoolOptions::default() };
        let spool = Spool::open(dir.path(), options).expect("spool");
        Self { bots, spool, turn: 0, _slices: slices, _dir: dir }
    }

    /// One exchange of the next bot, far from the last one in memory.
    pub fn exchange(&mut self) {
        self.turn = (self.turn + 6151) % BOTS;
        let bound = Bound { input: 250, output: 900 };
        let mut permit = Permit::default();
        let now = clock::boot_micros();
        for rule in &self.bots[self.turn] {
            let amount = bound.amount(rule.metric, None).expect("countable");
            assert!(rule.covers("gpt-5-mini") && permit.take(rule, amount, now), "there is plenty");
        }
        let held: Charges<'_> = permit.held().map(ChargeRecord::from).collect();
        let open = open_record(&held);
        let ticket = self.spool.append_open(None, &open).expect("opens");
        drop(held);
        permit.sent();
        let usage = Usage { input: Some(200), output: Some(40), total: Some(240), ..Usage::default() };
        let spent = Spent { usage: &usage, cost_micros: None, requests: 1, nothing_else: false };
        let charges: Charges<'_> = permit.charges(&spent).map(ChargeRecord::from).collect();
        self.spool.append_settle(ticket, &settle_record(open_record(&charges), &usage)).expect("settles");
        drop(charges);
        permit.settle(&spent);
    }
}

type Charges<'a> = smallvec::SmallVec<[ChargeRecord<'a>; 4]>;

fn rule(slices: &Slices, bot: usize, metric: Metric) -> Arc<QuotaRule> {
    let slice = slices.of(&format!("quo_{bot:08}_{}", metric.as_str()));
    let granted = Granted {
        window_start_micros: 1_790_000_000_000_000,
        ends: i64::MAX,
        granted: PLENTY,
        usable_until: i64::MAX,
        standing: Standing { limit: PLENTY, ..Standing::default() },
        ..Granted::default()
    };
    slice.renew(&granted, 0);
    Arc::new(QuotaRule {
        slice,
        scope: "bot".into(),
        window: "day".into(),
        metric,
        limit: PLENTY,
        models: None,
        strict: true,
        cut: false,
        outage: Outage::Deny,
    })
}

fn open_record<'a>(charges: &'a [ChargeRecord<'a>]) -> OpenRecord<'a> {
    OpenRecord {
        exchange_id: "req_019a0000000070008000000000000001",
        at_micros: 1_790_000_000_123_456,
        tenant_id: "ten_019a0000000070008000000000000002",
        project_id: "prj_019a0000000070008000000000000003",
        bot_id: "bot_019a0000000070008000000000000004",
        vendor: "openai",
        model: "gpt-5-mini",
        endpoint: "chat/completions",
        client_request_id: "",
        provider_key_id: "key_019a0000000070008000000000000005",
        stream: true,
        reserved_tokens: 1150,
        config_version: "4-1017",
        agent_id: "",
        session_id: "",
        charges,
        made_ids: &[],
        made_ids_pass: false,
    }
}

fn settle_record<'a>(open: OpenRecord<'a>, usage: &Usage) -> SettleRecord<'a> {
    SettleRecord {
        open,
        outcome: "ok",
        status_code: 200,
        error_code: "",
        error_message: "",
        input_tokens: usage.input,
        cached_input_tokens: None,
        cache_write_tokens: None,
        output_tokens: usage.output,
        reasoning_tokens: None,
        total_tokens: usage.total,
        usage_source: "upstream",
        duration_micros: 812_345,
        ttft_micros: Some(201_345),
        tried: &[],
        labels: &[],
        billing: usage.billing,
    }
}
