//! Ingest: the real decisions, in the order of `ingest::accept::accept`, between
//! tables in memory.

use clawgate_control::ingest::decode::{self, decode};
use clawgate_control::ingest::fence::{Claim, may_take_over};
use clawgate_control::ingest::plan::{Plan, plan};
use clawgate_control::ingest::{Batch, accept, charges, rollup};
use clawgate_control::quota::book::Book;
use clawgate_control::quota::{Holder, end};
use clawgate_control::snapshot::rollout::Rollout;
use clawgate_control::store::usage_dims::{Dims, Place};
use clawgate_control::store::usage_ingest::{Cursor, EventRow, Shard};
use clawgate_shared::proto::node::ShipRequest;

use super::control::{Control, End};
use super::tables::Tables;
use super::world::Env;
use super::{Broken, check};

/// Every exchange is of one bot, and is summed up in one place.
const PLACE: Place = Place { dims: Dims { exchange: 1, model: 2, key: 3, bot: 4, tenant: 5, caller: 6 }, origin: 7 };

impl Control {
    /// A node ships a batch; the answer is the next position.
    pub(super) fn ship(&mut self, env: &mut Env, request: &ShipRequest) -> Result<End<u64>, Broken> {
        let now = self.clock(env.now);
        let Some(process) = &self.process else { return Ok(End::Died) };
        let batch = Batch::from(request);
        let Ok((shard, first)) = accept::check(&batch) else {
            return Err(Broken::new("a node sends what is valid", format!("{request:?}")));
        };
        let mut tx = self.tables.clone();
        let mut cursor = tx.lock_cursor(shard, batch.instance_id, now);
        if !is_writer(&tx, &process.rollout, shard, &cursor, batch.instance_id) {
            env.say(|| format!("control: fences {} off {shard:?}", batch.instance_id));
            return Ok(End::Refused);
        }
        let next = cursor.next_position;
        let news = accept::news(&cursor, first, batch.records);
        if news.records.is_empty() {
            return self.commit(env, tx, unsigned(next));
        }
        let mut planned = plan((next..).zip(news.records).map(|(position, bytes)| decode(bytes, position, now)));
        planned.of_ended(&cursor);
        if let Some(reason) = planned.malformed {
            return Err(Broken::new("what is shipped is what was written", format!("{shard:?}: {reason}")));
        }
        write(&mut tx, &process.book, shard, &planned);
        accept::advance(&mut cursor, news.moves, &planned, batch.instance_id);
        tx.move_cursor(shard, &cursor, planned.lost);
        if planned.lost > 0 && !env.truth.losses {
            return Err(Broken::new("nothing is lost without a reason", format!("{shard:?}: {}", planned.lost)));
        }
        if planned.ended.is_some() {
            shard_ended(&mut tx, shard, planned.shards)?;
        }
        self.commit(env, tx, unsigned(cursor.next_position))
    }
}

fn is_writer(tx: &Tables, rollout: &Rollout, shard: Shard<'_>, cursor: &Cursor, instance_id: &str) -> bool {
    let of_others = if accept::is_new(cursor) { tx.last_other(shard) } else { None };
    let writer = of_others.as_deref().unwrap_or(&cursor.instance_id);
    writer == instance_id
        || may_take_over(Claim {
            epoch: shard.epoch,
            writer_connected: rollout.is_connected(shard.node_id, writer),
            claimant_connected: rollout.is_connected(shard.node_id, instance_id),
            claimant_epoch: tx.newest_epoch(shard.node_id, instance_id),
        })
}

/// As `write` there.
fn write(tx: &mut Tables, book: &Book, shard: Shard<'_>, planned: &Plan) {
    tx.insert_opens(shard, planned.opens.clone());
    tx.delete_opens(planned.settles_of_earlier.iter().map(String::as_str));
    add(tx, book, shard, &planned.events);
    if planned.ended.is_some() {
        let events: Vec<EventRow> = tx.lone_opens(shard).into_iter().map(decode::indeterminate).collect();
        add(tx, book, shard, &events);
        tx.delete_opens(events.iter().map(|event| event.open.exchange_id.as_str()));
    }
}

/// As `add` there, and `charges::charge`.
fn add(tx: &mut Tables, book: &Book, shard: Shard<'_>, events: &[EventRow]) {
    let new = tx.insert_events(shard, events);
    let counted = events.iter().zip(&new).filter_map(|(event, new)| new.then_some((event, &PLACE)));
    tx.add_rollup(&rollup::sum(counted));
    let new = accept::those_new(events, &new);
    let sums = charges::Sums::of(book, &new);
    tx.settle_windows(&sums.changes());
    let leased = sums.leased();
    let settled = tx.settle_leases(Holder { node_id: shard.node_id, epoch: shard.epoch }, &leased);
    tx.shift(&charges::no_longer_outstanding(leased, settled));
}

/// As `charges::shard_ended` and `end::epoch`.
fn shard_ended(tx: &mut Tables, shard: Shard<'_>, shards: u32) -> Result<(), Broken> {
    let holder = Holder { node_id: shard.node_id, epoch: shard.epoch };
    let (_, ended) = tx.shards(holder);
    if charges::was_last(ended, shards) {
        let found = tx.leases_of(holder);
        tx.settle_windows(&end::locks(&found));
        tx.shift(&end::released(&found));
        tx.delete_leases(&found);
    }
    check::ended(tx, holder, ended >= u64::from(shards.max(1)))
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
