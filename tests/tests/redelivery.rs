//! Batches sent again, out of order, cut, under wrong names and by zombies, to
//! the control plane's own ingest on both databases: sums come out as if each
//! had been sent once.

use std::collections::BTreeMap;

use clawgate_control::ingest::{Accepted, Batch, IngestError, accept};
use clawgate_control::jobs::reconcile;
use clawgate_control::prices::Table;
use clawgate_control::quota::Books;
use clawgate_control::snapshot::rollout::Rollout;
use clawgate_control::store::usage_query::{self, Scope, Span};
use clawgate_control::store::{Db, migrate};
use clawgate_shared::proto::node::{EpochEnd, Open, Settle, UsageRecord, usage_record::Kind};
use clawgate_shared::{clock, id};
use clawgate_tests::postgres::Postgres;
use prost::Message as _;

const NODE: &str = "node_0123456789abcdef0123456789abcdef";
const HOUR: i64 = 3_600_000_000;
const SHARDS: u32 = 3;
const PER_SHARD: usize = 70;
const BATCH: usize = 13;

/// A log of one shard and what it comes to.
struct Log {
    epoch: u64,
    shard: u32,
    records: Vec<Vec<u8>>,
    events: i64,
    tokens: i64,
}

fn record(kind: Kind) -> Vec<u8> {
    UsageRecord { kind: Some(kind) }.encode_to_vec()
}

/// Exchanges of which every fifth never ends, and the end of the epoch.
fn log(epoch: u64, shard: u32) -> Log {
    let (mut records, mut tokens) = (Vec::new(), 0);
    for number in 0..PER_SHARD {
        let (exchange_id, input) = (id::new(id::Kind::Exchange), number as u64 + u64::from(shard));
        let (tenant_id, bot_id) = ("ten_1".to_owned(), "bot_1".to_owned());
        let at_micros = clock::now_micros();
        let open = Open {
            exchange_id: exchange_id.clone(),
            at_micros,
            tenant_id: tenant_id.clone(),
            bot_id: bot_id.clone(),
            vendor: "openai".into(),
            model: "m".into(),
            reserved_tokens: 50,
            ..Open::default()
        };
        records.push(record(Kind::Open(open)));
        if number % 5 == 4 {
            tokens += 50;
            continue;
        }
        tokens += i64::try_from(input).expect("small") + 1;
        records.push(record(Kind::Settle(Settle {
            exchange_id,
            at_micros,
            tenant_id,
            bot_id,
            vendor: "openai".into(),
            model: "m".into(),
            outcome: "ok".into(),
            status_code: 200,
            input_tokens: Some(input),
            output_tokens: Some(1),
            usage_source: "upstream".into(),
            duration_micros: 5,
            ..Settle::default()
        })));
    }
    records.push(record(Kind::End(EpochEnd { abandoned: true, shards: SHARDS })));
    Log { epoch, shard, records, events: i64::try_from(PER_SHARD).expect("small"), tokens }
}

struct Node<'a> {
    db: &'a Db,
    rollout: &'a Rollout,
    instance: &'a str,
}

impl Node<'_> {
    async fn ship(&self, at: (u64, u32), first: usize, records: &[Vec<u8>]) -> Result<Accepted, IngestError> {
        let batch = Batch {
            node_id: NODE,
            epoch: at.0,
            shard: at.1,
            first_position: first as u64,
            records,
            instance_id: self.instance,
        };
        accept(self.db, self.rollout, &Table::default(), &Books::default(), batch, clock::now_micros()).await
    }
}

/// (events, tokens) by the sums, which are those of the events.
async fn totals(db: &Db) -> (i64, i64) {
    assert_eq!(reconcile::run(db, 0).await.expect("reads"), [], "rollups are not the sum of the events");
    let mut tx = db.snapshot().await.expect("reads");
    let now = clock::now_micros();
    let (from, to) = (0, now - now % HOUR + 2 * HOUR);
    let span = Span { tenant_id: "ten_1", scope: Scope::Tenant, from, to };
    let sums = usage_query::totals(&mut tx, &span).await.expect("reads");
    (sums.requests, sums.total)
}

/// A small generator; the same order for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % limit as u64).expect("fits")
    }
}

/// Each batch three times, whole and cut, shuffled over shards and epochs, until
/// everything is taken.
async fn again_and_again(db: &Db, logs: &[Log]) {
    let rollout = Rollout::default();
    let node = Node { db, rollout: &rollout, instance: "i" };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut deliveries: Vec<(usize, usize, usize)> = Vec::new();
    for (number, log) in logs.iter().enumerate() {
        for first in (0..log.records.len()).step_by(BATCH) {
            let end = (first + BATCH).min(log.records.len());
            let cut = first + 1 + random.below(end - first);
            deliveries.extend([(number, first, end), (number, first, cut), (number, first, end)]);
        }
    }
    for at in (1..deliveries.len()).rev() {
        deliveries.swap(at, random.below(at + 1));
    }
    let mut known: BTreeMap<usize, usize> = BTreeMap::new();
    let (mut gaps, mut rounds) = (0, 0);
    while known.values().sum::<usize>() < logs.iter().map(|log| log.records.len()).sum() {
        rounds += 1;
        assert!(rounds < 100, "it does not get on: {known:?}");
        for (number, first, end) in &deliveries {
            let (log, next) = (&logs[*number], known.entry(*number).or_default());
            let taken = node.ship((log.epoch, log.shard), *first, &log.records[*first..*end]).await.expect("answers");
            let wanted = if first > next { *next } else { (*next).max(*end) };
            gaps += usize::from(first > next);
            assert_eq!(taken.next_position, wanted as u64, "a gap is refused, what is known is skipped");
            *next = wanted;
        }
    }
    assert!(gaps > 0, "nothing was out of order");
    println!("{rounds} rounds of {} deliveries, {gaps} of them with a gap", deliveries.len());
}

/// The same records under another epoch and another shard: known exchanges.
async fn under_wrong_names(db: &Db, logs: &[Log]) {
    let rollout = Rollout::default();
    let node = Node { db, rollout: &rollout, instance: "i" };
    let log = &logs[0];
    let ends = log.records.iter().filter(|bytes| {
        UsageRecord::decode(bytes.as_slice()).is_ok_and(|record| matches!(record.kind, Some(Kind::Settle(_))))
    });
    let settles: Vec<Vec<u8>> = ends.cloned().collect();
    for at in [(log.epoch + 100, log.shard), (log.epoch + 100, log.shard + 50), (log.epoch, log.shard + 50)] {
        let taken = node.ship(at, 0, &settles).await.expect("taken");
        assert_eq!((taken.events, taken.duplicates), (0, settles.len() as u64), "as {at:?}");
    }
}

/// Two processes with one node's identity and data: the one that is not the
/// writer is fenced, before and after it was.
async fn zombies(db: &Db) {
    let rollout = Rollout::default();
    let [first, second] = ["first", "second"].map(|instance| Node { db, rollout: &rollout, instance });
    let log = log(1_000, 0);
    let at = (log.epoch, log.shard);
    let session = rollout.connect(NODE, "first", "0.1.0", None);
    let other = rollout.connect(NODE, "second", "0.1.0", None);
    first.ship(at, 0, &log.records[..20]).await.expect("its own");
    for from in [0, 10, 20, 30] {
        let fenced = second.ship(at, from, &log.records[from..]).await;
        assert!(matches!(fenced, Err(IngestError::Fenced)), "{fenced:?}");
    }
    first.ship(at, 20, &log.records[20..40]).await.expect("undisturbed");
    rollout.disconnect(session);
    let taken = second.ship(at, 0, &log.records).await.expect("the first is gone");
    assert_eq!(taken.next_position, log.records.len() as u64);
    for from in [0, 39, 40, log.records.len()] {
        let fenced = first.ship(at, from, &log.records[from..]).await;
        assert!(matches!(fenced, Err(IngestError::Fenced)), "back from the dead: {fenced:?}");
    }
    // A shard that nobody has heard of is of whom the epoch's others are of.
    let beside = (log.epoch, 1);
    let fenced = first.ship(beside, 0, &log.records).await;
    assert!(matches!(fenced, Err(IngestError::Fenced)), "first to write it: {fenced:?}");
    rollout.disconnect(other);
}

/// A log that lost its last record after that was delivered: its end stands in
/// that one's place.
async fn ends_in_a_known_place(db: &Db) {
    let rollout = Rollout::default();
    let node = Node { db, rollout: &rollout, instance: "i" };
    let open = || {
        let exchange_id = id::new(id::Kind::Exchange);
        let (tenant_id, bot_id) = ("ten_1".to_owned(), "bot_1".to_owned());
        record(Kind::Open(Open { exchange_id, at_micros: clock::now_micros(), tenant_id, bot_id, ..Open::default() }))
    };
    let opens = [open(), open()];
    let at = (2_000, 0);
    let end = [opens[0].clone(), record(Kind::End(EpochEnd { abandoned: true, shards: 1 }))];
    let taken = node.ship(at, 0, &opens).await.expect("taken");
    assert_eq!((taken.next_position, taken.events), (2, 0));
    let taken = node.ship(at, 0, &end).await.expect("taken");
    assert_eq!((taken.next_position, taken.events, taken.indeterminate), (2, 2, 2), "it has ended");
    let taken = node.ship(at, 0, &end).await.expect("taken");
    assert_eq!((taken.next_position, taken.events), (2, 0), "once");
    // Only a copy of the log goes on.
    let taken = node.ship(at, 2, &[open()]).await.expect("taken");
    assert_eq!((taken.next_position, taken.indeterminate), (3, 1), "and leaves nothing open");
}

async fn story(url: &str) {
    let db = Db::connect(url).await.expect("opens");
    migrate::run(&db, None).await.expect("migrates");
    let logs: Vec<Log> = (1..=2).flat_map(|epoch| (0..SHARDS).map(move |shard| log(epoch, shard))).collect();
    let wanted = (logs.iter().map(|log| log.events).sum(), logs.iter().map(|log| log.tokens).sum());
    again_and_again(&db, &logs).await;
    assert_eq!(totals(&db).await, wanted);
    under_wrong_names(&db, &logs).await;
    assert_eq!(totals(&db).await, wanted);
    let before = totals(&db).await;
    zombies(&db).await;
    let more = log(0, 0);
    assert_eq!(totals(&db).await, (before.0 + more.events, before.1 + more.tokens));
    ends_in_a_known_place(&db).await;
    db.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite() {
    let dir = tempfile::tempdir().expect("directory");
    story(&format!("sqlite://{}", dir.path().join("claw.db").display())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres() {
    let Some(server) = Postgres::start() else { return };
    story(&server.database()).await;
}
