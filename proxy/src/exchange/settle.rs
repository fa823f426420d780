//! The only exit of an exchange: usage record, metrics, access line.
//!
//! A [`Settlement`] is made when the exchange begins and consumed when it
//! ends. If it is dropped instead (the process stops, a bug panics), what is
//! known is settled from `Drop`, so that an exchange that reached a vendor can
//! not leave without its record.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clawgate_shared::pricing::{self, Price};
use clawgate_shared::usage::{Usage, UsageSource};
use smallvec::SmallVec;

use super::Services;
use super::pass::Pass;
use super::record::Facts;
use super::reject::Refusal;
use crate::limits::Usual;
use crate::metering::{ChargeRecord, OpenRecord, SettleRecord, SpoolError, SpoolTicket};
use crate::quota::{Bound, Permit, Spent};
use crate::telemetry::AccessLine;
use crate::wire::error::Code;

/// Charges of one exchange, usually without a trip to the allocator.
type Charges<'a> = SmallVec<[ChargeRecord<'a>; 4]>;

/// What becomes of a request while the spool takes no more. A bot with a quota
/// that blocks is refused in any case: nobody could tell later what it used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Refused: nothing is served that might not be counted.
    #[default]
    Refuse,
    /// Served. Its usage is recorded at its end if there is room again, and else
    /// counted as unmetered in the metrics.
    Serve,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The vendor's answer went through whole.
    Ok,
    /// The vendor answered with an error, which went through.
    UpstreamError,
    /// The client went away first.
    ClientDisconnect,
    /// The vendor's answer broke off.
    Interrupted,
    /// We refused it before a vendor saw it.
    Refused,
    /// A vendor was asked, and no answer could be relayed.
    Failed,
}

impl Outcome {
    /// As in usage rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::UpstreamError => "upstream_error",
            Self::ClientDisconnect => "client_disconnect",
            Self::Interrupted => "interrupted",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// An exchange's obligation to leave a record.
#[must_use]
pub struct Settlement<'a> {
    services: &'a Services,
    /// What is known so far.
    pub facts: Facts,
    /// What the vendor reported, or else an estimate.
    pub usage: Usage,
    /// Some of it is an estimate.
    pub estimated: bool,
    /// The client has hung up: nothing is sent to it any more.
    pub client_gone: bool,
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
    ticket: Option<SpoolTicket>,
    /// The last OPEN says what is held of a key's quotas.
    key_is_written: bool,
    /// It was sent without an OPEN record ([`WhenFull::Serve`]).
    unmetered: bool,
    settled: bool,
}

impl<'a> Settlement<'a> {
    /// Begins the obligation.
    pub fn new(services: &'a Services, facts: Facts) -> Self {
        services.metrics.inflight.inc();
        Self {
            services,
            facts,
            usage: Usage::default(),
            estimated: false,
            client_gone: false,
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
            ticket: None,
            key_is_written: false,
            unmetered: false,
            settled: false,
        }
    }

    /// Writes the OPEN record: from here on the exchange is accounted for,
    /// whatever happens to this process. It is written again for a further key
    /// when one of them has quotas: none may be charged for what another held.
    ///
    /// # Errors
    /// The spool takes no more.
    pub fn open(&mut self) -> Result<(), Refusal> {
        if self.dispatched() && self.key_permit.is_empty() && !self.key_is_written {
            return Ok(());
        }
        match self.append_open(self.ticket) {
            Ok(ticket) => (self.ticket, self.unmetered) = (Some(ticket), false),
            Err(_) if self.ticket.is_none() && self.may_go_unmetered() => self.unmetered = true,
            Err(error) => {
                let full = matches!(error, SpoolError::Full);
                let text = if full { "the usage spool is full" } else { "the usage spool cannot be written" };
                let mut refusal =
                    Refusal::new(Code::SpoolFull, format!("{text}; the control plane must take usage first"));
                refusal.cause = Some(error.to_string());
                return Err(refusal);
            }
        }
        self.key_is_written = !self.key_permit.is_empty();
        self.pass.sent();
        self.permit.sent();
        self.key_permit.sent();
        Ok(())
    }

    /// Notes that more is held for a longer answer: when that is twice what is
    /// written down, it is written again, for the case that nobody sees its end.
    pub fn grown(&mut self, more: u64) {
        self.held_output = self.held_output.saturating_add(more);
        if self.ticket.is_some()
            && self.reserved() >= self.facts.reserved_tokens.saturating_mul(2)
            && let Err(error) = self.append_open(self.ticket)
        {
            tracing::warn!(request_id = %self.facts.id, %error, "what a longer answer holds was not written down");
        }
    }

    fn reserved(&self) -> u64 {
        self.permit.tokens().max(self.key_permit.tokens())
    }

    fn append_open(&mut self, first: Option<SpoolTicket>) -> Result<SpoolTicket, SpoolError> {
        let held: Charges<'_> = self.permit.held().chain(self.key_permit.held()).map(ChargeRecord::from).collect();
        let record = OpenRecord { reserved_tokens: self.reserved(), ..self.facts.open_record(&held) };
        let ticket = self.services.spool.append_open(first, &record)?;
        self.facts.reserved_tokens = self.reserved();
        Ok(ticket)
    }

    fn may_go_unmetered(&self) -> bool {
        self.services.when_full == WhenFull::Serve && self.permit.is_empty() && self.key_permit.is_empty()
    }

    /// What exchanges share.
    #[must_use]
    pub const fn services(&self) -> &'a Services {
        self.services
    }

    /// Whether a vendor may have seen the request.
    #[must_use]
    pub fn dispatched(&self) -> bool {
        self.ticket.is_some() || self.unmetered
    }

    /// Gives back what is held of the key that was tried: its vendor refused, or
    /// never got the request.
    pub fn free_key(&mut self) {
        let nothing = Usage::default();
        let spent = Spent { usage: &nothing, cost_micros: None, requests: 0, nothing_else: true };
        std::mem::take(&mut self.key_permit).settle(&spent);
    }

    /// Ends the exchange.
    pub fn settle(mut self, outcome: Outcome, refusal: Option<&Refusal>) {
        self.finish(outcome, refusal);
    }

    fn finish(&mut self, outcome: Outcome, refusal: Option<&Refusal>) {
        self.settled = true;
        self.owed |= *self.leaving.get_mut();
        let duration_micros = self.facts.elapsed_micros();
        if let Some(model) = self.usage.model.take().filter(|model| !model.is_empty()) {
            self.facts.model = model;
        }
        let usage = std::mem::take(&mut self.usage);
        let spent = Spent {
            usage: &usage,
            cost_micros: self.cost_micros(&usage),
            requests: u64::from(self.owed || self.facts.tried.iter().any(|tried| tried.status != 0)),
            nothing_else: !self.owed,
        };
        self.record(outcome, refusal, duration_micros, &spent);
        let tokens = usage.total_or_sum().or(spent.nothing_else.then_some(0));
        std::mem::take(&mut self.pass).settle(tokens);
        std::mem::take(&mut self.permit).settle(&spent);
        std::mem::take(&mut self.key_permit).settle(&spent);
        if let (Some(usual), Some(input), Some(output)) = (&self.usual, usage.input, usage.output) {
            usual.add(input, output);
        }
        self.usage = usage;
        self.observe(outcome, refusal, duration_micros);
    }

    /// What the vendor bills, as far as it reported.
    fn cost_micros(&self, usage: &Usage) -> Option<u64> {
        let price = self.price.as_ref()?;
        let spent = pricing::Spent::of(usage)?;
        pricing::cost(&spent, price, usage.billing.tier).and_then(|cost| u64::try_from(cost).ok())
    }

    fn record(&self, outcome: Outcome, refusal: Option<&Refusal>, duration_micros: u64, spent: &Spent<'_>) {
        let Some(bot) = self.facts.bot.as_deref() else { return };
        let usage = spent.usage;
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
            open: self.facts.open_record(&charges),
            outcome: outcome.as_str(),
            status_code: u32::from(self.facts.status),
            error_code: refusal.map_or("", |r| r.code.as_str()),
            error_message: refusal.map_or("", |r| r.message.as_str()),
            input_tokens: usage.input,
            cached_input_tokens: usage.cached_input,
            cache_write_tokens: usage.cache_write,
            output_tokens: usage.output,
            reasoning_tokens: usage.reasoning,
            total_tokens: usage.total_or_sum(),
            usage_source: source.as_str(),
            duration_micros,
            ttft_micros: self.facts.ttft_micros,
            tried: &attempts,
            labels: &bot.labels,
            billing: usage.billing,
        };
        let written = match &self.ticket {
            Some(ticket) => self.services.spool.append_settle(*ticket, &record),
            None => self.services.spool.append_refusal(&record),
        };
        if written.is_err() && self.unmetered {
            self.services.metrics.unmetered.inc();
        } else if let Err(error) = written {
            // The OPEN is on disk: the exchange will count as indeterminate.
            tracing::error!(request_id = %self.facts.id, %error, "usage record could not be written");
        }
    }

    fn observe(&self, outcome: Outcome, refusal: Option<&Refusal>, duration_micros: u64) {
        let (services, facts) = (self.services, &self.facts);
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
        services.access.log(&AccessLine {
            at_micros: facts.at_micros,
            request_id: &facts.id,
            client_request_id: &facts.client_request_id,
            tenant: bot.map_or("", |b| &b.tenant.id),
            bot: bot.map_or("", |b| &b.hostname),
            vendor: &facts.vendor,
            method: facts.method.as_str(),
            path: &facts.path,
            model: &facts.model,
            status: facts.status,
            outcome: outcome.as_str(),
            code: refusal.map_or("", |r| r.code.as_str()),
            key: facts.key.as_ref().map_or("", |(id, _)| id),
            attempts: facts.tried.len(),
            input_tokens: self.usage.input,
            output_tokens: self.usage.output,
            duration_micros,
            ttft_micros: facts.ttft_micros,
        });
    }
}

impl Drop for Settlement<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.finish(if self.dispatched() { Outcome::Interrupted } else { Outcome::Refused }, None);
        }
    }
}

#[allow(clippy::cast_precision_loss)] // a duration of 2^53 µs is 285 years
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}
