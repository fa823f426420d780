//! Batches as a bad network and dying processes deliver them.

use clawgate_shared::proto::node::{EpochEnd, Open, Settle, UsageRecord, usage_record::Kind};
use clawgate_shared::{clock, id};
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::fleet::testing::Plane;
use crate::jobs::reconcile;
use crate::prices::Table;
use crate::quota::Books;
use crate::snapshot::rollout::Rollout;
use crate::store::usage_query::{self, Scope, Span, Sums};
use crate::store::{Db, Tx, usage_ingest, usage_log};

const NODE: &str = "node_0123456789abcdef0123456789abcdef";

fn open(exchange: &str, reserved: u64) -> Vec<u8> {
    let open = Open {
        exchange_id: exchange.into(),
        at_micros: clock::now_micros(),
        tenant_id: "ten_1".into(),
        bot_id: "bot_1".into(),
        vendor: "openai".into(),
        model: "m".into(),
        reserved_tokens: reserved,
        ..Open::default()
    };
    UsageRecord { kind: Some(Kind::Open(open)) }.encode_to_vec()
}

fn settle(exchange: &str, tokens: u64) -> Vec<u8> {
    settle_of(exchange, "m", tokens)
}

fn settle_of(exchange: &str, model: &str, tokens: u64) -> Vec<u8> {
    let settle = Settle {
        exchange_id: exchange.into(),
        at_micros: clock::now_micros(),
        tenant_id: "ten_1".into(),
        // a bot that no table knows: it was deleted meanwhile
        bot_id: "bot_gone".into(),
        vendor: "openai".into(),
        model: model.into(),
        outcome: "ok".into(),
        status_code: 200,
        input_tokens: Some(tokens),
        output_tokens: Some(1),
        usage_source: "upstream".into(),
        duration_micros: 5,
        ..Settle::default()
    };
    UsageRecord { kind: Some(Kind::Settle(settle)) }.encode_to_vec()
}

fn end(abandoned: bool) -> Vec<u8> {
    UsageRecord { kind: Some(Kind::End(EpochEnd { abandoned, shards: 1 })) }.encode_to_vec()
}

/// An interleaved log: opens and ends of `count` exchanges, every third one
/// open until much later, every seventh for ever.
fn log(count: usize) -> (Vec<Vec<u8>>, i64) {
    let (mut records, mut late, mut tokens) = (Vec::new(), Vec::new(), 0);
    for n in 0..count {
        let exchange = id::new(id::Kind::Exchange);
        records.push(open(&exchange, 100));
        if n % 7 == 6 {
            continue;
        }
        tokens += i64::try_from(n).expect("small") + 1;
        let last = settle(&exchange, n as u64);
        if n % 3 == 0 { late.push(last) } else { records.push(last) }
    }
    records.extend(late);
    (records, tokens)
}

struct Shipper<'a> {
    db: &'a Db,
    rollout: &'a Rollout,
    instance: &'a str,
    epoch: u64,
}

impl Shipper<'_> {
    async fn ship(&self, first: usize, records: &[Vec<u8>]) -> Result<Accepted, IngestError> {
        let batch = Batch {
            node_id: NODE,
            epoch: self.epoch,
            shard: 0,
            first_position: first as u64,
            records,
            instance_id: self.instance,
        };
        accept(self.db, self.rollout, &Table::default(), &Books::default(), batch, clock::now_micros()).await
    }
}

/// Of everything, from the sums by hour.
async fn sums(conn: &mut Tx) -> Sums {
    let (from, to) = (0, rollup::hour_of(clock::now_micros()) + 2 * rollup::HOUR);
    usage_query::totals(conn, &Span { tenant_id: "ten_1", scope: Scope::Tenant, from, to }).await.expect("reads")
}

/// (events, indeterminate ones, total tokens, open rows)
async fn totals(db: &Db) -> (i64, i64, i64, usize) {
    let mut tx = db.snapshot().await.expect("reads");
    let Sums { requests: events, total, duration_count, .. } = sums(&mut tx).await;
    // Only what nobody saw the end of has no duration.
    let indeterminate = events - duration_count;
    let shard = usage_ingest::Shard { node_id: NODE, epoch: 1, shard: 0 };
    let open = usage_ingest::lone_opens(&mut tx, shard, 10_000).await.expect("reads").len();
    assert_eq!(reconcile::run(db, 0).await.expect("reads"), [], "rollups are not the sum of the events");
    (events, indeterminate, total, open)
}

#[tokio::test]
async fn whatever_order_batches_come_in_each_exchange_counts_once() {
    let plane = Plane::new().await;
    let (records, tokens) = log(140);
    let node = Shipper { db: &plane.db, rollout: &Rollout::default(), instance: "a", epoch: 1 };
    // A gap is answered by what is wanted.
    assert_eq!(node.ship(5, &records[5..9]).await.expect("answers").next_position, 0);
    // Batches of odd sizes, each sent twice, overlapping, some from the past.
    let mut at = 0;
    while at < records.len() {
        let upto = (at + 17).min(records.len());
        let next = node.ship(at, &records[at..upto]).await.expect("taken").next_position;
        assert_eq!(next, upto as u64);
        let back = at.saturating_sub(11);
        let again = node.ship(back, &records[back..upto]).await.expect("taken");
        assert_eq!((again.next_position, again.events), (upto as u64, 0));
        at = upto;
    }
    assert_eq!(totals(&plane.db).await, (120, 0, tokens, 20));
    // The epoch ends: what is still open counts at its reservation, once.
    for _ in 0..2 {
        let accepted = node.ship(records.len(), &[end(true)]).await.expect("taken");
        assert_eq!(accepted.next_position, records.len() as u64 + 1);
    }
    assert_eq!(totals(&plane.db).await, (140, 20, tokens + 20 * 100, 0));
}

#[tokio::test]
async fn few_that_are_open_end_among_many_that_never_were() {
    let plane = Plane::new().await;
    let node = Shipper { db: &plane.db, rollout: &Rollout::default(), instance: "a", epoch: 1 };
    let ids: Vec<String> = (0..40).map(|_| id::new(id::Kind::Exchange)).collect();
    let opens: Vec<_> = ids[..3].iter().map(|id| open(id, 100)).collect();
    node.ship(0, &opens).await.expect("taken");
    assert_eq!(totals(&plane.db).await, (0, 0, 0, 3));
    // Two of three end; the opens of all others were emptied on their way.
    let settles: Vec<_> = ids[1..].iter().map(|id| settle(id, 1)).collect();
    node.ship(3, &settles).await.expect("taken");
    assert_eq!(totals(&plane.db).await, (39, 0, 39 * 2, 1));
    // No more end than are open.
    node.ship(42, &[settle(&ids[0], 1)]).await.expect("taken");
    assert_eq!(totals(&plane.db).await, (40, 0, 40 * 2, 0));
}

#[tokio::test]
async fn a_batch_that_was_not_committed_is_as_if_it_had_never_come() {
    let plane = Plane::new().await;
    let (records, tokens) = log(70);
    let node = Shipper { db: &plane.db, rollout: &Rollout::default(), instance: "a", epoch: 1 };
    for budget in 0..40u32 {
        // The process dies somewhere in the middle.
        let cut = std::time::Duration::from_micros(u64::from(budget) * 120);
        let done = tokio::time::timeout(cut, node.ship(0, &records)).await;
        let (events, ..) = totals(&plane.db).await;
        assert!(events == 0 || events == 60, "half a batch: {events}");
        if done.is_ok() {
            break;
        }
    }
    node.ship(0, &records).await.expect("taken");
    assert_eq!(totals(&plane.db).await, (60, 0, tokens, 10));
}

#[tokio::test]
async fn one_exchange_in_two_epochs_counts_once() {
    let plane = Plane::new().await;
    let exchange = id::new(id::Kind::Exchange);
    let rollout = Rollout::default();
    let records = [open(&exchange, 0), settle(&exchange, 3)];
    for (epoch, events, duplicates) in [(1, 1, 0), (2, 0, 1)] {
        let node = Shipper { db: &plane.db, rollout: &rollout, instance: "a", epoch };
        let accepted = node.ship(0, &records).await.expect("taken");
        assert_eq!((accepted.events, accepted.duplicates), (events, duplicates), "epoch {epoch}");
    }
    assert_eq!(totals(&plane.db).await, (1, 0, 4, 0));
}

#[tokio::test]
async fn a_record_that_cannot_be_read_blocks_nothing_and_is_counted() {
    let plane = Plane::new().await;
    let (good, bad) = (id::new(id::Kind::Exchange), vec![0xff; 9]);
    let node = Shipper { db: &plane.db, rollout: &Rollout::default(), instance: "a", epoch: 1 };
    let accepted = node.ship(0, &[bad, open(&good, 0), settle(&good, 1), vec![9 << 3 | 2, 0]]).await.expect("taken");
    assert_eq!((accepted.next_position, accepted.events, accepted.lost), (4, 1, 2));
    assert_eq!(totals(&plane.db).await.0, 1);
}

#[tokio::test]
async fn a_folded_open_counts_once_however_batches_are_cut() {
    let plane = Plane::new().await;
    let exchange = id::new(id::Kind::Exchange);
    let node = Shipper { db: &plane.db, rollout: &Rollout::default(), instance: "a", epoch: 1 };
    // The answer to the first batch was lost; the next read reached the end.
    node.ship(0, &[open(&exchange, 0)]).await.expect("taken");
    let accepted = node.ship(0, &[Vec::new(), settle(&exchange, 7)]).await.expect("taken");
    assert_eq!((accepted.next_position, accepted.events, accepted.lost), (2, 1, 0));
    // Nothing is left that could count as indeterminate.
    let accepted = node.ship(2, &[end(false)]).await.expect("taken");
    assert_eq!((accepted.events, accepted.indeterminate), (0, 0));
    assert_eq!(totals(&plane.db).await, (1, 0, 8, 0), "seven in, one out");
}

#[tokio::test]
async fn an_event_gets_the_cost_of_its_model_and_the_sums_have_it() {
    let plane = Plane::new().await;
    let exchanges: Vec<String> = (0..3).map(|_| id::new(id::Kind::Exchange)).collect();
    let node = Shipper { db: &plane.db, rollout: &Rollout::default(), instance: "a", epoch: 1 };
    let batch = [
        settle_of(&exchanges[0], "gpt-4o-mini-2024-07-18", 1_000_000),
        settle_of(&exchanges[1], "gpt-4o-mini-2024-07-18", 2_000_000),
        settle_of(&exchanges[2], "a model without a price", 5),
    ];
    node.ship(0, &batch).await.expect("taken");
    node.ship(0, &batch).await.expect("nothing new");
    let mut tx = plane.db.snapshot().await.expect("reads");
    let mut found = Vec::new();
    for exchange in &exchanges {
        let row = usage_log::get(&mut tx, "ten_1", exchange).await.expect("reads").expect("there");
        found.push((row.cost_micros, row.price_ref.split('@').next().map(str::to_owned)));
    }
    let priced = || Some("builtin/openai/gpt-4o-mini".to_owned());
    // 0.15 and 0.6 USD per million, and one token out.
    let wanted = [(Some(150_001), priced()), (Some(300_001), priced()), (None, Some(String::new()))];
    assert_eq!(found, wanted);
    assert_eq!(sums(&mut tx).await.cost, 450_002);
    tx.rollback().await.expect("ends");
    assert_eq!(totals(&plane.db).await.0, 3, "and the sums are those of the events");
}

#[tokio::test]
async fn only_one_process_writes_an_epoch() {
    let plane = Plane::new().await;
    let (db, rollout) = (&plane.db, &Rollout::default());
    let exchanges: Vec<String> = (0..4).map(|_| id::new(id::Kind::Exchange)).collect();
    let old = Shipper { db, rollout, instance: "old", epoch: 1 };
    let new = Shipper { db, rollout, instance: "new", epoch: 1 };
    let session = rollout.connect(NODE, "old", "0.1.0", None);
    old.ship(0, &[settle(&exchanges[0], 1)]).await.expect("its own");
    // A copy of the data directory, connected or not.
    assert!(matches!(new.ship(1, &[settle(&exchanges[1], 1)]).await, Err(IngestError::Fenced)));
    rollout.connect(NODE, "new", "0.1.0", None);
    assert!(matches!(new.ship(1, &[settle(&exchanges[1], 1)]).await, Err(IngestError::Fenced)));
    // Once the first is gone, its successor ships the tail and ends the epoch.
    rollout.disconnect(session);
    new.ship(1, &[settle(&exchanges[2], 1), end(true)]).await.expect("takes over");
    // What comes back from the dead no longer counts.
    assert!(matches!(old.ship(3, &[settle(&exchanges[3], 1)]).await, Err(IngestError::Fenced)));
    assert_eq!(totals(db).await.0, 2);
    // Without streams (the control plane has just started) a newer epoch of its
    // own proves a successor.
    let rollout = &Rollout::default();
    let late = Shipper { db, rollout, instance: "late", epoch: 1 };
    assert!(matches!(late.ship(3, &[end(false)]).await, Err(IngestError::Fenced)));
    let own = Shipper { db, rollout, instance: "late", epoch: 2 };
    own.ship(0, &[settle(&exchanges[3], 1)]).await.expect("its own");
    late.ship(3, &[end(false)]).await.expect("takes over");
}

#[tokio::test]
async fn wrong_requests_are_named() {
    let plane = Plane::new().await;
    let rollout = Rollout::default();
    let good = Batch { node_id: NODE, epoch: 1, shard: 0, first_position: 0, records: &[], instance_id: "a" };
    let many = vec![Vec::new(); accept::MAX_RECORDS + 1];
    for bad in [
        Batch { node_id: "me", ..good },
        Batch { instance_id: "", ..good },
        Batch { epoch: u64::MAX, ..good },
        Batch { first_position: u64::MAX, ..good },
        Batch { records: &many, ..good },
    ] {
        let refused = accept(&plane.db, &rollout, &Table::default(), &Books::default(), bad, 0).await;
        assert!(matches!(refused, Err(IngestError::Invalid(_))), "{refused:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn random_delivery_ends_at_the_same_totals(
        sends in proptest::collection::vec((0..100usize, 1..40usize), 0..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let plane = Plane::new().await;
            let (records, tokens) = log(49);
            let node = Shipper { db: &plane.db, rollout: &Rollout::default(), instance: "a", epoch: 1 };
            let mut next = 0;
            for (from, count) in sends {
                let from = from.min(records.len());
                let upto = (from + count).min(records.len());
                let answer = node.ship(from, &records[from..upto]).await.expect("taken").next_position as usize;
                assert_eq!(answer, if from <= next { next.max(upto) } else { next });
                next = answer;
            }
            node.ship(next, &records[next..]).await.expect("taken");
            assert_eq!(totals(&plane.db).await, (42, 0, tokens, 7));
        });
    }
}
