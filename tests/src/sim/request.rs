//! One request's life in a process, as `exchange` leads it: held, written down,
//! sent, written down again, settled. Its steps come one by one, so that
//! anything may happen between them.

use std::sync::PoisonError;

use clawgate_control::store::quota_windows::WindowKey;
use clawgate_proxy::limits::{Metric, QuotaRule};
use clawgate_proxy::metering::{ChargeRecord, OpenRecord, SettleRecord, SpoolTicket};
use clawgate_proxy::quota::{Permit, Spent};
use clawgate_shared::mutant::{self, Mutant};
use clawgate_shared::usage::Usage;

use super::Broken;
use super::node::{Machine, Process, Unsynced};
use super::plan::SECOND;
use super::truth::{Exchange, Kept, Line};
use super::world::{BOT, Env, TENANT};

/// A request is sent so soon after it was admitted, or not at all.
const SOON: i64 = 30 * SECOND;
/// For how long a lease may be used after the call that named it.
const USABLE: i64 = 13 * 60 * SECOND;

/// A request that was admitted.
pub struct Request {
    id: String,
    permit: Permit,
    admitted: i64,
    /// By the node's wall clock.
    at: i64,
    sent: bool,
    ticket: Option<SpoolTicket>,
}

impl Machine {
    /// A client asks for something that costs at most `amount` tokens.
    pub(super) fn admit(&mut self, env: &mut Env, amount: i64) -> Result<(), Broken> {
        let (index, boot) = (self.index, self.clocks.boot(env.now));
        let node_id = self.node_id.clone();
        let Some(process) = self.processes.iter_mut().find(|process| process.serves()) else { return Ok(()) };
        let rules = process.rules.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if rules.is_empty() {
            return Ok(());
        }
        let (mut permit, mut lines) = (Permit::default(), Vec::new());
        for rule in rules {
            let held = if rule.metric == Metric::Requests { 1 } else { amount };
            let wanted = u64::try_from(held).unwrap_or(0);
            let Some(hold) = rule.slice.hold(wanted, boot) else {
                // What the others gave goes back; whoever waits makes it known.
                drop(permit);
                let _waits = rule.slice.short(wanted);
                process.hurry();
                process.trade(env, (index, boot), &node_id);
                return Ok(());
            };
            if boot >= process.calls.heard + USABLE {
                let what = format!("process {}, heard of it at {}", process.number, process.calls.heard);
                return Err(Broken::new("no lease is used after its time", what));
            }
            let window = rule.slice.window(boot).map_or(0, |window| window.start_micros());
            lines.push(line(&rule, window, held));
            permit.add(rule, hold);
        }
        let id = format!("req_{:032x}", env.network.number());
        env.say(|| format!("process {}: admits {id} {lines:?}", process.number));
        let exchange = Exchange {
            machine: index,
            epoch: process.spool.epoch(),
            lines,
            billed: env.rng.range(0, amount + 1),
            sent: false,
            open: Kept::No,
            settle: Kept::No,
            reported: None,
            forgotten: false,
        };
        env.truth.exchanges.insert(id.clone(), exchange);
        env.tally.admitted += 1;
        let at = self.clocks.wall();
        process.requests.push(Request { id, permit, admitted: env.now, at, sent: false, ticket: None });
        Ok(())
    }

    /// A request goes on: it is sent.
    pub(super) fn send(&mut self, env: &mut Env, process: usize, at: usize) -> Result<(), Broken> {
        let process = &mut self.processes[process];
        let late = mutant::is(Mutant::OpenAfterDispatch) && !process.requests[at].sent;
        if late || process.requests[at].ticket.is_some() {
            let request = &mut process.requests[at];
            request.sent = true;
            return env.truth.sent(&request.id);
        }
        if !process.open(env, at, &mut self.unsynced) {
            // Nothing may be sent; the drop gives everything back.
            process.requests.swap_remove(at);
            return Ok(());
        }
        let request = &mut process.requests[at];
        if env.rng.chance(30) {
            // It is held up between the two.
            return Ok(());
        }
        request.sent = true;
        env.truth.sent(&request.id)
    }

    /// A request ends: the vendor said what it used, or nobody knows.
    pub(super) fn settle(&mut self, env: &mut Env, process: usize, at: usize, known: bool) {
        let process = &mut self.processes[process];
        let request = process.requests.swap_remove(at);
        let (Some(ticket), true) = (request.ticket, request.sent) else {
            // Its client left before anything was sent. What was written down
            // by then counts as sent.
            if request.ticket.is_some() {
                process.write(env, request, None, &mut self.unsynced);
            }
            return;
        };
        let billed = env.truth.exchanges.get(&request.id).map_or(0, |exchange| exchange.billed);
        let reported = known.then_some(billed);
        let request = Request { ticket: Some(ticket), ..request };
        process.write(env, request, reported, &mut self.unsynced);
    }

    /// Requests that were not sent in time are given up.
    pub(super) fn give_up(&mut self, now: i64) {
        for process in &mut self.processes {
            process
                .requests
                .retain(|request| request.ticket.is_some() || request.sent || now - request.admitted < SOON);
        }
    }
}

impl Process {
    /// Writes the OPEN. Whether it is there.
    fn open(&mut self, env: &mut Env, at: usize, unsynced: &mut Unsynced) -> bool {
        let request = &mut self.requests[at];
        let charges: Vec<ChargeRecord<'_>> = request.permit.held().map(ChargeRecord::from).collect();
        let reserved_tokens = request.permit.tokens();
        let open = OpenRecord { reserved_tokens, ..record(&request.id, request.at, &charges) };
        let Ok(ticket) = self.spool.append_open(None, &open) else { return false };
        env.say(|| format!("process {}: OPEN of {}", self.number, request.id));
        request.ticket = Some(ticket);
        request.permit.sent();
        unsynced.add(self.spool.epoch(), &request.id, false);
        if let Some(exchange) = env.truth.exchanges.get_mut(&request.id) {
            exchange.open = Kept::Yes;
        }
        true
    }

    /// Writes the SETTLE, and lets go of what is held.
    fn write(&mut self, env: &mut Env, request: Request, reported: Option<i64>, unsynced: &mut Unsynced) {
        let Request { id, permit, at, ticket: Some(ticket), .. } = request else { return };
        let tokens = reported.map(|tokens| u64::try_from(tokens).unwrap_or(0));
        let usage = Usage { total: tokens, ..Usage::default() };
        let spent = Spent { usage: &usage, cost_micros: None, requests: 1, nothing_else: false };
        let charges: Vec<ChargeRecord<'_>> = permit.charges(&spent).map(ChargeRecord::from).collect();
        let record = SettleRecord {
            open: record(&id, at, &charges),
            outcome: if reported.is_some() { "ok" } else { "interrupted" },
            status_code: 200,
            total_tokens: tokens,
            usage_source: if reported.is_some() { "upstream" } else { "none" },
            ..SettleRecord::default()
        };
        let written = self.spool.append_settle(ticket, &record).is_ok();
        env.say(|| format!("process {}: SETTLE of {id}: {reported:?}, written: {written}", self.number));
        drop(charges);
        if written {
            unsynced.add(self.spool.epoch(), &id, true);
        }
        env.truth.ended(&id, reported, written);
        if reported.is_some() {
            permit.settle(&spent);
        } else {
            drop(permit);
        }
    }
}

fn line(rule: &QuotaRule, start: i64, held: i64) -> Line {
    let key = WindowKey { quota_id: rule.slice.id().to_owned(), start };
    Line { key, requests: rule.metric == Metric::Requests, held }
}

fn record<'a>(id: &'a str, at_micros: i64, charges: &'a [ChargeRecord<'a>]) -> OpenRecord<'a> {
    OpenRecord {
        exchange_id: id,
        at_micros,
        tenant_id: TENANT,
        bot_id: BOT,
        vendor: "openai",
        model: "gpt-4o-mini",
        endpoint: "chat/completions",
        provider_key_id: "key_1",
        charges,
        ..OpenRecord::default()
    }
}
