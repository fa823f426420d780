//! A process's calls to the control plane: leases, as `quota::renewer` makes
//! them, and usage, as `metering::shipper` does.

use std::collections::BTreeMap;

use clawgate_proxy::limits::Claim;
use clawgate_proxy::metering::SpoolError;
use clawgate_proxy::metering::shipment;
use clawgate_proxy::metering::spool::ShardLog;
use clawgate_proxy::quota::trade;
use clawgate_shared::proto::node::{LeaseReply, LeaseRequest, ShipRequest};

use super::Broken;
use super::network::{Call, Message};
use super::node::Process;
use super::plan::SECOND;
use super::world::Env;

/// From one call about leases to the next.
const PERIOD: i64 = SECOND;
/// How long an answer about leases may take.
const TRADE_ANSWER: i64 = 2 * SECOND;
/// How long an answer about usage may take.
const SHIP_ANSWER: i64 = 15 * SECOND;
/// Most claims of one call.
const MAX_CLAIMS: usize = 4000;
/// Most bytes of one batch.
const MAX_BYTES: usize = 16 << 10;

/// What a process waits for.
#[derive(Default)]
pub struct Calls {
    trade: Option<Trade>,
    next_trade: i64,
    /// When the last call was made that was answered, by the boot clock.
    pub(super) heard: i64,
    /// By epoch and shard.
    ships: BTreeMap<(u64, u32), Shipment>,
    /// Not before.
    waits: BTreeMap<(u64, u32), i64>,
}

struct Trade {
    call: Call,
    claims: Vec<Claim>,
    /// By the boot clock.
    asked: i64,
    until: i64,
}

struct Shipment {
    call: Call,
    first: u64,
    end: u64,
    log: ShardLog,
    until: i64,
}

impl Process {
    /// One call about leases, if it is time and there is anything to say.
    pub(super) fn trade(&mut self, env: &mut Env, (machine, boot): (usize, i64), node_id: &str) {
        if let Some(late) = self.calls.trade.take_if(|trade| trade.until <= env.now) {
            self.slices.called(false, boot);
            self.slices.unsaid(&late.claims);
        }
        if self.calls.trade.is_some() || env.now < self.calls.next_trade {
            return;
        }
        self.calls.next_trade = env.now + PERIOD;
        let mut claims = self.slices.claims(boot, MAX_CLAIMS);
        // The same order whatever the hasher does.
        claims.sort_by(|a, b| a.quota_id.cmp(&b.quota_id));
        if claims.is_empty() && !self.slices.any_lease() {
            return;
        }
        let call = Call { machine, process: self.number, number: env.network.number() };
        let request = LeaseRequest {
            node_id: node_id.to_owned(),
            epoch: self.spool.epoch(),
            instance_id: self.instance(),
            claims: claims.iter().map(trade::message).collect(),
        };
        env.say(|| format!("process {}: claims {claims:?}", self.number));
        self.calls.trade = Some(Trade { call, claims, asked: boot, until: env.now + TRADE_ANSWER });
        env.network.send(env.now, &env.plan, &mut env.rng, Message::Trade(call, request));
    }

    /// Calls ahead of the period.
    pub(super) const fn hurry(&mut self) {
        self.calls.next_trade = 0;
    }

    /// The answer about leases.
    pub(super) fn traded(&mut self, env: &mut Env, boot: i64, call: Call, reply: Option<LeaseReply>) {
        let Some(asked) = self.calls.trade.take_if(|trade| trade.call == call) else { return };
        match reply {
            Some(reply) => {
                env.say(|| format!("process {}: has {:?}", self.number, reply.leases));
                self.slices.called(true, boot);
                self.calls.heard = asked.asked;
                if trade::take(&self.slices, &asked.claims, reply, asked.asked, boot) {
                    self.hurry();
                }
            }
            None => {
                self.slices.called(false, boot);
                self.slices.unsaid(&asked.claims);
            }
        }
    }

    /// One batch of every log that may be tried.
    pub(super) fn ship(&mut self, env: &mut Env, machine: usize, node_id: &str) -> Result<(), Broken> {
        let late: Vec<_> =
            self.calls.ships.iter().filter(|(_, sent)| sent.until <= env.now).map(|(key, _)| *key).collect();
        for key in late {
            self.calls.ships.remove(&key);
            self.calls.waits.insert(key, env.now + env.rng.range(SECOND / 10, 3 * SECOND));
        }
        for log in self.spool.pending() {
            let key = (log.epoch(), log.shard());
            let waits = self.calls.waits.get(&key).is_some_and(|until| *until > env.now);
            if self.calls.ships.contains_key(&key) || waits {
                continue;
            }
            let Ok(batch) = shipment::next(&log, env.plan.batch, MAX_BYTES) else { continue };
            if batch.records.is_empty() {
                continue;
            }
            let call = Call { machine, process: self.number, number: env.network.number() };
            let (first, end) = (batch.first_position, batch.next_position());
            let request = ShipRequest {
                node_id: node_id.to_owned(),
                epoch: log.epoch(),
                shard: log.shard(),
                first_position: first,
                records: batch.records,
                instance_id: self.instance(),
            };
            env.say(|| format!("process {}: ships {key:?} {first}..{end}", self.number));
            self.calls.ships.insert(key, Shipment { call, first, end, log, until: env.now + SHIP_ANSWER });
            env.network.send(env.now, &env.plan, &mut env.rng, Message::Ship(call, request));
        }
        Ok(())
    }

    /// The answer about usage; `None`: it was refused.
    pub(super) fn shipped(&mut self, env: &mut Env, call: Call, next: Option<u64>) -> Result<(), Broken> {
        let found = self.calls.ships.iter().find(|(_, sent)| sent.call == call).map(|(key, _)| *key);
        let Some((key, sent)) = found.and_then(|key| Some((key, self.calls.ships.remove(&key)?))) else {
            return Ok(());
        };
        let mut wait = || env.now + env.rng.range(SECOND / 10, 3 * SECOND);
        let further = match next {
            None => false,
            Some(next) => match shipment::answered(&sent.log, (sent.first, sent.end), next) {
                Ok(further) => further,
                Err(SpoolError::Ahead { expected, end }) => {
                    let what = format!("{key:?}: the control plane has {expected}, the log ends at {end}");
                    return Err(Broken::new("no cursor is ahead of its log", what));
                }
                Err(_) => false,
            },
        };
        if further {
            self.calls.waits.remove(&key);
        } else {
            self.calls.waits.insert(key, wait());
        }
        Ok(())
    }
}
