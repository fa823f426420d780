//! One batch, one transaction.

use clawgate_shared::id;
use clawgate_shared::mutant::{self, Mutant};
use clawgate_shared::proto::node::ShipRequest;

use super::charges;
use super::decode::{self, Record, decode};
use super::fence::{Claim, may_take_over};
use super::plan::{Plan, plan};
use super::rollup;
use crate::prices::Table;
use crate::quota::Books;
use crate::snapshot::rollout::Rollout;
use crate::store::usage_dims::{self, Fresh, Known};
use crate::store::usage_ingest::{self, Cursor, EventRow, OpenRow, Shard};
use crate::store::{Db, StoreError, Tx, account_ids, usage_events, usage_rollup, usage_sessions};

/// Most records in one batch.
pub const MAX_RECORDS: usize = 65_536;
/// Longest instance id, in bytes.
const MAX_INSTANCE: usize = 128;
/// An end is a few bytes; nothing longer is looked into for one.
const MAX_END: usize = 32;
/// How many open exchanges of an ended shard are turned into events at a time.
const LONE_OPENS: i64 = 1024;

/// A batch as it came, not yet looked into.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Checked against the sender's certificate before.
    pub node_id: &'a str,
    /// See the node protocol; so for all fields.
    pub epoch: u64,
    /// Which log of the epoch.
    pub shard: u32,
    /// Position of `records[0]`.
    pub first_position: u64,
    /// Encoded records.
    pub records: &'a [Vec<u8>],
    /// Random per process.
    pub instance_id: &'a str,
}

impl<'a> From<&'a ShipRequest> for Batch<'a> {
    fn from(request: &'a ShipRequest) -> Self {
        Self {
            node_id: &request.node_id,
            epoch: request.epoch,
            shard: request.shard,
            first_position: request.first_position,
            records: &request.records,
            instance_id: &request.instance_id,
        }
    }
}

/// What came of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Everything below is durable here.
    pub next_position: u64,
    /// Events that were new.
    pub events: u64,
    /// Of them, those whose end nobody saw.
    pub indeterminate: u64,
    /// Ends of exchanges that had an event already.
    pub duplicates: u64,
    /// Records that are lost.
    pub lost: u64,
}

/// Why a batch is not taken.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Another live process writes this epoch; or the sender is not known yet.
    #[error("another process of this node writes this epoch")]
    Fenced,
    /// An admin removed this node.
    #[error("this node was revoked")]
    Revoked,
    /// The request itself is wrong; sending it again does not help.
    #[error("{0}")]
    Invalid(&'static str),
    /// The database; sending the batch again may help.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes a batch; `prices` gives events their cost, `books` says which quotas they are charged to. When this returns
/// `Ok`, everything below `next_position` is durable; when it does not, nothing of the batch is.
///
/// # Errors
/// See [`IngestError`].
pub async fn accept(
    db: &Db,
    rollout: &Rollout,
    prices: &Table,
    books: &Books,
    batch: Batch<'_>,
    now: i64,
) -> Result<Accepted, IngestError> {
    let (shard, first) = check(&batch)?;
    let mut tx = db.begin().await?;
    let mut cursor = usage_ingest::lock_cursor(&mut tx, shard, 0, batch.instance_id, now).await?;
    fence(&mut tx, rollout, shard, &cursor, batch.instance_id).await?;
    let next = cursor.next_position;
    let news = news(&cursor, first, batch.records);
    if news.records.is_empty() {
        // A gap, or nothing new: the answer says where we are.
        tx.commit().await?;
        return Ok(Accepted { next_position: unsigned(next), ..Accepted::default() });
    }
    let mut planned = plan((next..).zip(news.records).map(|(position, bytes)| decode(bytes, position, now)));
    planned.of_ended(&cursor);
    prices.price(&mut planned.events);
    let (mut accepted, fresh) = write(&mut tx, (books, db.usage_dims()), shard, &planned, now).await?;
    if let Some(reason) = planned.malformed {
        tracing::error!(node = batch.node_id, epoch = batch.epoch, shard = batch.shard, reason, "usage record lost");
    }
    advance(&mut cursor, news.moves, &planned, batch.instance_id);
    usage_ingest::move_cursor(&mut tx, shard, &cursor, planned.lost).await?;
    if planned.ended.is_some() {
        charges::shard_ended(&mut tx, shard, planned.shards).await?;
    }
    tx.commit().await?;
    fresh.into_iter().for_each(|fresh| db.usage_dims().keep(fresh));
    accepted.next_position = unsigned(cursor.next_position);
    Ok(accepted)
}

/// What a batch says that is not known.
#[derive(Clone, Copy, Debug)]
pub struct News<'a> {
    /// Encoded.
    pub records: &'a [Vec<u8>],
    /// How many positions the cursor goes on by.
    pub moves: usize,
}

/// The records from the cursor on; none when there is a gap before them. And the
/// end of a shard that has not ended, whatever its position: a log that lost its
/// last record with the power, after it was delivered, ends in that one's place.
/// Pure.
#[must_use]
pub fn news<'a>(cursor: &Cursor, first: i64, records: &'a [Vec<u8>]) -> News<'a> {
    let next = cursor.next_position;
    if mutant::is(Mutant::CursorCheckSkipped) {
        return News { records, moves: records.len() };
    }
    if first > next {
        return News { records: &[], moves: 0 };
    }
    let known = usize::try_from(next.saturating_sub(first)).unwrap_or(0);
    match (records.get(known..).unwrap_or_default(), records.split_last()) {
        ([], Some((last, before))) if cursor.ended.is_empty() && is_end(last) => {
            News { records: records.get(before.len()..).unwrap_or_default(), moves: 0 }
        }
        (unseen, _) => News { records: unseen, moves: unseen.len() },
    }
}

fn is_end(record: &[u8]) -> bool {
    record.len() <= MAX_END && matches!(decode(record, 0, 0), Record::End { .. })
}

/// The cursor behind `count` records that were planned. Pure.
pub fn advance(cursor: &mut Cursor, count: usize, planned: &Plan, instance_id: &str) {
    cursor.next_position = cursor.next_position.saturating_add(i64::try_from(count).unwrap_or(i64::MAX));
    cursor.instance_id = instance_id.to_owned();
    if let Some(ended) = planned.ended {
        cursor.ended = ended.to_owned();
    }
}

/// What the batch is about, and the position of its first record. Pure.
///
/// # Errors
/// It is not what any node sends.
pub fn check<'a>(batch: &Batch<'a>) -> Result<(Shard<'a>, i64), IngestError> {
    if !id::Kind::Node.matches(batch.node_id) {
        return Err(IngestError::Invalid("node_id is no node id"));
    }
    if batch.instance_id.is_empty() || batch.instance_id.len() > MAX_INSTANCE || batch.instance_id.contains('\0') {
        return Err(IngestError::Invalid("instance_id is empty or too long"));
    }
    if batch.records.len() > MAX_RECORDS {
        return Err(IngestError::Invalid("too many records"));
    }
    let too_large = |_| IngestError::Invalid("epoch or position is too large");
    let epoch = i64::try_from(batch.epoch).map_err(too_large)?;
    let first = i64::try_from(batch.first_position).map_err(too_large)?;
    Ok((Shard { node_id: batch.node_id, epoch, shard: i64::from(batch.shard) }, first))
}

async fn fence(
    tx: &mut Tx,
    rollout: &Rollout,
    shard: Shard<'_>,
    cursor: &Cursor,
    instance_id: &str,
) -> Result<(), IngestError> {
    // Of a shard that is new here, the writer is that of the epoch's others.
    let of_others = if is_new(cursor) { usage_ingest::last_other(tx, shard).await? } else { None };
    let writer = of_others.as_deref().unwrap_or(&cursor.instance_id);
    if writer == instance_id {
        return Ok(());
    }
    let claim = Claim {
        epoch: shard.epoch,
        writer_connected: rollout.is_connected(shard.node_id, writer),
        claimant_connected: rollout.is_connected(shard.node_id, instance_id),
        claimant_epoch: usage_ingest::newest_epoch(tx, shard.node_id, instance_id).await?,
    };
    if may_take_over(claim) { Ok(()) } else { Err(IngestError::Fenced) }
}

/// Whether nothing of the shard is known. Pure.
#[must_use]
pub const fn is_new(cursor: &Cursor) -> bool {
    cursor.next_position == 0 && cursor.ended.is_empty()
}

/// Writes what was planned; the cursor is the caller's.
async fn write(
    tx: &mut Tx,
    with: (&Books, &Known),
    shard: Shard<'_>,
    plan: &Plan,
    now: i64,
) -> Result<(Accepted, Vec<Fresh>), StoreError> {
    let mut accepted = Accepted { lost: unsigned(plan.lost), ..Accepted::default() };
    usage_ingest::insert_opens(tx, shard, &plan.opens).await?;
    account_ids::insert(tx, &plan.opens.iter().collect::<Vec<_>>(), now).await?;
    let earlier: Vec<&str> = plan.settles_of_earlier.iter().map(String::as_str).collect();
    usage_ingest::delete_opens_if_any(tx, &earlier).await?;
    let mut fresh = vec![add(tx, with, shard, &plan.events, now, &mut accepted).await?];
    if plan.ended.is_some() {
        loop {
            let opens = usage_ingest::lone_opens(tx, shard, LONE_OPENS).await?;
            if opens.is_empty() {
                break;
            }
            let events: Vec<EventRow> = opens.into_iter().map(decode::indeterminate).collect();
            fresh.push(add(tx, with, shard, &events, now, &mut accepted).await?);
            let ids: Vec<&str> = events.iter().map(|event| event.open.exchange_id.as_str()).collect();
            usage_ingest::delete_opens(tx, &ids).await?;
        }
    }
    Ok((accepted, fresh))
}

/// Adds events and, for those that were new, their sums.
async fn add(
    tx: &mut Tx,
    (books, known): (&Books, &Known),
    shard: Shard<'_>,
    events: &[EventRow],
    now: i64,
    accepted: &mut Accepted,
) -> Result<Fresh, StoreError> {
    let (new, fresh) = add_events(tx, known, shard, events, now).await?;
    let new = those_new(events, &new);
    charges::charge(tx, books, shard, &new, now).await?;
    let made: Vec<&OpenRow> = new.iter().map(|event| &event.open).collect();
    account_ids::insert(tx, &made, now).await?;
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    accepted.events += count(new.len());
    accepted.indeterminate += count(new.iter().filter(|event| event.indeterminate).count());
    accepted.duplicates += count(events.len() - new.len());
    Ok(fresh)
}

/// The events that were not known. Pure.
#[must_use]
pub fn those_new<'e>(events: &'e [EventRow], new: &[bool]) -> Vec<&'e EventRow> {
    events.iter().zip(new).filter_map(|(event, new)| new.then_some(event)).collect()
}

/// Adds events of one shard with their sums. Says for each whether it was new,
/// and what is to be remembered once the transaction is committed.
///
/// # Errors
/// As the database answers.
pub async fn add_events(
    conn: &mut Tx,
    known: &Known,
    shard: Shard<'_>,
    events: &[EventRow],
    received_at: i64,
) -> Result<(Vec<bool>, Fresh), StoreError> {
    let (places, fresh) = usage_dims::places(conn, known, shard, events).await?;
    let new = usage_events::insert(conn, shard, received_at, events, &places).await?;
    let counted = || events.iter().zip(&places).zip(&new).filter_map(|(pair, new)| new.then_some(pair));
    let before = usage_rollup::add(conn, &rollup::sum(counted())).await?;
    usage_sessions::add(conn, &rollup::sum_late(counted(), before)).await?;
    Ok((new, fresh))
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
