//! What an exchange has become, apart from everything it lived on: enough to end
//! it, also after its task is gone.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clawgate_shared::pricing::{self, Price};
use clawgate_shared::usage::{Usage, UsageSource};
use smallvec::SmallVec;

use super::Services;
use super::counting::Recount;
use super::pass::Pass;
use super::record::Facts;
use super::reject::Refusal;
use super::settle::Outcome;
use super::span;
use super::ties::Listens;
use crate::accounts::Maker;
use crate::limits::Usual;
use crate::metering::{ChargeRecord, OpenRecord, SettleRecord, SpoolTicket};
use crate::quota::{Bound, Permit, Spent};
use crate::telemetry::AccessLine;
use crate::wire::made::note;

/// Charges of one exchange, usually without a trip to the allocator.
pub(super) type Charges<'a> = SmallVec<[ChargeRecord<'a>; 4]>;

/// How and when an exchange ended.
#[derive(Debug)]
pub struct Ending {
    /// In one word.
    pub outcome: Outcome,
    /// What the client was told, if it was refused or cut off.
    pub refusal: Option<Refusal>,
    /// Since it began.
    pub duration_micros: u64,
}

/// What is known and held of one exchange; ended once, by [`Account::finish`].
#[derive(Debug)]
pub struct Account {
    /// What is known so far.
    pub facts: Facts,
    /// What the vendor reported, or else an estimate.
    pub usage: Usage,
    /// Some of it is an estimate.
    pub estimated: bool,
    /// The client has hung up: nothing is sent to it any more.
    pub client_gone: bool,
    /// This node answers it itself: that is no usage, unless it is refused.
    pub local: bool,
    /// A vendor may bill something that it has not reported.
    pub owed: bool,
    /// The request of the attempt that runs has begun to leave.
    pub leaving: AtomicBool,
    /// What it has of rate and concurrency limits.
    pub pass: Pass,
    /// What is held of the quotas of bot, project and tenant.
    pub permit: Permit,
    /// What is held of the quotas of the provider key that is tried.
    pub key_permit: Permit,
    /// Where to remember what was used, when a quota goes by that.
    pub usual: Option<Arc<Usual>>,
    /// The most that the prompt and all answers can be, when a quota applies.
    pub bound: Option<Bound>,
    /// What is in the prompt is known to the vendor only.
    pub prompt_elsewhere: bool,
    /// Output for which all quotas that would cut the answer off have held.
    pub held_output: u64,
    /// The model's, when a quota counts money.
    pub price: Option<Arc<Price>>,
    /// What is to be counted before the end, instead of what was reckoned.
    pub recount: Option<Recount>,
    /// For the record, when there is no refusal to tell of: what was remarkable.
    pub note: Option<String>,
    /// What the answer may name that stays in the vendor's account.
    pub listens: Listens,
    /// The ids of it.
    pub made: Vec<String>,
    /// Where the OPEN record is.
    pub(super) ticket: Option<SpoolTicket>,
    /// It was sent without an OPEN record
    /// ([`WhenFull::Serve`](super::WhenFull::Serve)).
    pub(super) unmetered: bool,
}

impl Account {
    /// Of an exchange that begins.
    pub fn new(facts: Facts) -> Self {
        Self {
            facts,
            usage: Usage::default(),
            estimated: false,
            client_gone: false,
            local: false,
            owed: false,
            leaving: AtomicBool::new(false),
            pass: Pass::default(),
            permit: Permit::default(),
            key_permit: Permit::default(),
            usual: None,
            bound: None,
            prompt_elsewhere: false,
            held_output: 0,
            price: None,
            recount: None,
            note: None,
            listens: Listens::No,
            made: Vec::new(),
            ticket: None,
            unmetered: false,
        }
    }

    /// Whether a vendor may have seen the request.
    #[must_use]
    pub fn dispatched(&self) -> bool {
        self.ticket.is_some() || self.unmetered
    }

    /// The largest number of tokens that any quota holds.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.permit.tokens().max(self.key_permit.tokens())
    }

    /// Takes what an answer named: from here on this bot may name it, with the key
    /// that was used. It becomes durable with the next record.
    pub fn keep(&mut self, services: &Services, ids: Vec<String>) {
        let (Some(bot), Some((key, _))) = (self.facts.bot.as_deref(), &self.facts.key) else { return };
        let maker = Maker { bot: bot.id.clone(), key: key.clone() };
        services.makers.made(&bot.tenant.id, &self.facts.vendor, &ids, &maker);
        ids.into_iter().for_each(|id| note(&mut self.made, id));
    }

    /// The end: everything is written down and given back.
    pub fn finish(&mut self, services: &Services, ending: &Ending) {
        self.owed |= *self.leaving.get_mut();
        let served = self.usage.model.take().filter(|model| !model.is_empty());
        let asked = served.map(|model| std::mem::replace(&mut self.facts.model, model));
        let usage = std::mem::take(&mut self.usage);
        let spent = Spent {
            usage: &usage,
            cost_micros: self.cost_micros(&usage),
            requests: u64::from(self.owed || self.facts.tried.iter().any(|tried| tried.status != 0)),
            nothing_else: !self.owed,
        };
        self.record(services, ending, &spent);
        let tokens = usage.total_or_sum().or(spent.nothing_else.then_some(0));
        std::mem::take(&mut self.pass).settle(tokens);
        std::mem::take(&mut self.permit).settle(&spent);
        std::mem::take(&mut self.key_permit).settle(&spent);
        if let (Some(usual), Some(input), Some(output)) = (&self.usual, usage.input, usage.output) {
            usual.add(input, output);
        }
        self.usage = usage;
        self.observe(services, ending);
        let asked = asked.as_deref().unwrap_or(&self.facts.model);
        span::end(&services.traces, &self.facts, ending, &self.usage, asked);
    }

    /// What the vendor bills, as far as it reported.
    fn cost_micros(&self, usage: &Usage) -> Option<u64> {
        let price = self.price.as_ref()?;
        let spent = pricing::Spent::of(usage)?;
        pricing::cost(&spent, price, usage.billing.tier).and_then(|cost| u64::try_from(cost).ok())
    }

    /// The part that all records of it share; `charges` is what is held, or what is
    /// used up.
    pub(super) fn open_record<'a>(&'a self, charges: &'a [ChargeRecord<'a>]) -> OpenRecord<'a> {
        OpenRecord {
            made_ids: &self.made,
            made_ids_pass: !matches!(self.listens, Listens::Things(_)),
            ..self.facts.open_record(charges)
        }
    }

    fn record(&self, services: &Services, ending: &Ending, spent: &Spent<'_>) {
        let Some(bot) = self.facts.bot.as_deref() else { return };
        if self.local && ending.refusal.is_none() {
            return;
        }
        let usage = spent.usage;
        let refusal = ending.refusal.as_ref();
        let charges: Charges<'_> = match &self.ticket {
            Some(_) => {
                self.permit.charges(spent).chain(self.key_permit.charges(spent)).map(ChargeRecord::from).collect()
            }
            None => Charges::default(),
        };
        let source = match (usage.has_counts(), self.estimated) {
            (true, false) => UsageSource::Upstream,
            (true, true) => UsageSource::Estimated,
            (false, _) => UsageSource::None,
        };
        let attempts = self.facts.attempts();
        let record = SettleRecord {
            open: self.open_record(&charges),
            outcome: ending.outcome.as_str(),
            status_code: u32::from(self.facts.status),
            error_code: refusal.map_or("", |r| r.code.as_str()),
            error_message: refusal.map(|r| r.message.as_str()).or(self.note.as_deref()).unwrap_or_default(),
            input_tokens: usage.input,
            cached_input_tokens: usage.cached_input,
            cache_write_tokens: usage.cache_write,
            output_tokens: usage.output,
            reasoning_tokens: usage.reasoning,
            total_tokens: usage.total_or_sum(),
            usage_source: source.as_str(),
            duration_micros: ending.duration_micros,
            ttft_micros: self.facts.ttft_micros,
            tried: &attempts,
            labels: &bot.labels,
            billing: usage.billing,
        };
        let written = match &self.ticket {
            Some(ticket) => services.spool.append_settle(*ticket, &record),
            None => services.spool.append_refusal(&record),
        };
        if written.is_err() && self.unmetered {
            services.metrics.unmetered.inc();
        } else if let Err(error) = written {
            // The OPEN is on disk: the exchange will count as indeterminate.
            tracing::error!(request_id = %self.facts.id, %error, "usage record could not be written");
        }
    }

    fn observe(&self, services: &Services, ending: &Ending) {
        let Ending { outcome, refusal, duration_micros } = ending;
        let (facts, duration_micros) = (&self.facts, *duration_micros);
        let metrics = &services.metrics;
        metrics.inflight.dec();
        let vendor = metrics.vendor(if facts.endpoint.is_empty() { "" } else { &facts.vendor });
        vendor.count(facts.status);
        vendor.input_tokens.inc_by(self.usage.input.unwrap_or(0));
        vendor.output_tokens.inc_by(self.usage.output.unwrap_or(0));
        metrics.duration.observe(seconds(duration_micros));
        metrics.overhead.observe(seconds(duration_micros.saturating_sub(facts.waited_micros)));
        if let Some(ttft) = facts.ttft_micros {
            metrics.ttft.observe(seconds(ttft));
        }
        if let Some(refusal) = refusal {
            metrics.refused(refusal.code.as_str());
            if let Some(cause) = &refusal.cause {
                tracing::warn!(request_id = %facts.id, code = refusal.code.as_str(), %cause, "request failed");
            }
        }
        let bot = facts.bot.as_deref();
        let trace_id = facts.trace.map(|trace| trace.hex_id());
        services.access.log(&AccessLine {
            at_micros: facts.at_micros,
            request_id: &facts.id,
            client_request_id: &facts.client_request_id,
            trace_id: trace_id.as_deref().unwrap_or_default(),
            tenant: bot.map_or("", |b| &b.tenant.id),
            bot: bot.map_or("", |b| &b.hostname),
            vendor: &facts.vendor,
            method: facts.method.as_str(),
            path: &facts.path,
            model: &facts.model,
            status: facts.status,
            outcome: outcome.as_str(),
            code: refusal.as_ref().map_or("", |r| r.code.as_str()),
            key: facts.key.as_ref().map_or("", |(id, _)| id),
            attempts: facts.tried.len(),
            input_tokens: self.usage.input,
            output_tokens: self.usage.output,
            duration_micros,
            ttft_micros: facts.ttft_micros,
        });
    }
}

#[allow(clippy::cast_precision_loss)] // a duration of 2^53 µs is 285 years
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}
