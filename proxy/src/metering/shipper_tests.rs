//! The shipper against a small control plane that keeps a cursor per shard.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clawgate_shared::proto::node::usage_ingest_server::{UsageIngest, UsageIngestServer};
use clawgate_shared::proto::node::{ShipReply, ShipRequest, UsageRecord, usage_record::Kind};
use prost::Message as _;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

use super::{OpenRecord, SettleRecord, Shipper, ShipperHandle, Spool, SpoolOptions};

#[derive(Debug, Default)]
struct Ledger {
    /// `None`: a folded open.
    logs: BTreeMap<(u64, u32), Vec<Option<Kind>>>,
    /// Answers to give instead of the right ones.
    answers: Vec<Result<u64, Status>>,
    largest: usize,
}

#[derive(Clone, Debug, Default)]
struct Plane(Arc<Mutex<Ledger>>);

impl Plane {
    fn look<T>(&self, read: impl FnOnce(&mut Ledger) -> T) -> T {
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn exchanges(&self) -> usize {
        self.look(|ledger| ledger.logs.values().flatten().filter(|kind| matches!(kind, Some(Kind::Settle(_)))).count())
    }

    fn serve(&self, socket: &Path) -> JoinHandle<()> {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("binds");
        let server = Server::builder().add_service(UsageIngestServer::new(self.clone()));
        tokio::spawn(async move {
            server.serve_with_incoming(UnixListenerStream::new(listener)).await.expect("serves");
        })
    }
}

#[tonic::async_trait]
impl UsageIngest for Plane {
    async fn ship(&self, request: Request<ShipRequest>) -> Result<Response<ShipReply>, Status> {
        let batch = request.into_inner();
        assert_eq!((batch.node_id.as_str(), batch.instance_id.as_str()), ("node_1", "instance_1"));
        self.look(|ledger| {
            if let Some(answer) = ledger.answers.pop() {
                return answer.map(|next_position| Response::new(ShipReply { next_position }));
            }
            ledger.largest = ledger.largest.max(batch.records.len());
            let log = ledger.logs.entry((batch.epoch, batch.shard)).or_default();
            let next = log.len() as u64;
            if let Some(skip) = next.checked_sub(batch.first_position) {
                let unseen = batch.records.iter().skip(usize::try_from(skip).expect("fits"));
                log.extend(unseen.map(|bytes| UsageRecord::decode(bytes.as_slice()).expect("decodes").kind));
            }
            Ok(Response::new(ShipReply { next_position: log.len() as u64 }))
        })
    }
}

struct Rig {
    dir: tempfile::TempDir,
    plane: Plane,
    spool: Arc<Spool>,
    handle: ShipperHandle,
    task: JoinHandle<()>,
}

fn rig() -> Rig {
    let dir = tempfile::tempdir().expect("temporary directory");
    let options = SpoolOptions { shards: 1, ..SpoolOptions::default() };
    let spool = Arc::new(Spool::open(&dir.path().join("spool"), options).expect("opens"));
    let socket = format!("unix:{}", dir.path().join("c.sock").display());
    let channel = Endpoint::from_shared(socket).expect("endpoint").connect_lazy();
    let source: crate::quota::ChannelSource = Arc::new(move || Some(channel.clone()));
    let (shipper, handle) = Shipper::new(spool.clone(), source, "node_1".into(), "instance_1".into());
    Rig { plane: Plane::default(), spool, handle, task: tokio::spawn(shipper.run()), dir }
}

impl Rig {
    fn serve(&self) -> JoinHandle<()> {
        self.plane.serve(&self.dir.path().join("c.sock"))
    }

    fn exchange(&self, number: usize) {
        let id = format!("req_{number}");
        let open = OpenRecord { exchange_id: &id, ..OpenRecord::default() };
        let ticket = self.spool.append_open(None, &open).expect("appends");
        self.spool.append_settle(ticket, &SettleRecord { open, ..SettleRecord::default() }).expect("settles");
    }
}

/// Waits for a condition; fails after 20 s.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what} did not happen");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_arrives_soon_and_in_batches() {
    let rig = rig();
    let _server = rig.serve();
    let began = Instant::now();
    rig.exchange(0);
    until("the first exchange", || rig.plane.exchanges() == 1).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    (1..3000).for_each(|number| rig.exchange(number));
    until("all exchanges", || rig.plane.exchanges() == 3000).await;
    until("an empty spool", || rig.spool.stats().records == 0).await;
    assert!(rig.plane.look(|ledger| ledger.largest) <= 32_768);
    assert_eq!(rig.plane.look(|ledger| ledger.logs.values().map(Vec::len).sum::<usize>()), 6000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_control_plane_costs_nothing_but_time() {
    let rig = rig();
    (0..100).for_each(|number| rig.exchange(number));
    assert!(!rig.handle.flush(Duration::from_secs(5)).await, "nobody is there");
    let server = rig.serve();
    assert!(rig.handle.flush(Duration::from_secs(20)).await, "a flush does not wait for the backoff");
    assert_eq!(rig.plane.exchanges(), 100);
    server.abort();
    let _ = server.await;
    (100..200).for_each(|number| rig.exchange(number));
    let _server = rig.serve();
    until("the rest", || rig.plane.exchanges() == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_answers_and_refusals_are_got_over() {
    let rig = rig();
    let _server = rig.serve();
    (0..20).for_each(|number| rig.exchange(number));
    // Taken from the end: a refusal, a jump forward that is none of ours, a
    // step back, no step at all.
    rig.plane.look(|ledger| {
        ledger.answers = vec![Ok(0), Ok(0), Ok(99_999), Err(Status::failed_precondition("fenced"))];
    });
    until("everything", || rig.plane.exchanges() == 20).await;
    until("an empty spool", || rig.spool.stats().records == 0).await;
    assert!(rig.plane.look(|ledger| ledger.answers.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_ships_the_end_and_leaves_no_files() {
    let rig = rig();
    let _server = rig.serve();
    rig.exchange(0);
    let spool = rig.spool.clone();
    tokio::task::spawn_blocking(move || spool.close()).await.expect("closes");
    assert!(rig.handle.flush(Duration::from_secs(20)).await);
    rig.plane.look(|ledger| {
        let ended = |log: &Vec<Option<Kind>>| matches!(log.last(), Some(Some(Kind::End(end))) if !end.abandoned);
        assert!(!ledger.logs.is_empty() && ledger.logs.values().all(ended));
    });
    let epochs = rig.dir.path().join("spool/epochs");
    until("no epoch", || std::fs::read_dir(&epochs).expect("lists").count() == 0).await;
    rig.task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_predecessors_records_are_shipped_too() {
    let first = rig();
    (0..10).for_each(|number| first.exchange(number));
    let (dir, plane) = (first.dir, first.plane);
    first.task.abort();
    let _ = first.task.await;
    drop((first.handle, first.spool));
    let options = SpoolOptions { shards: 1, ..SpoolOptions::default() };
    let spool = Arc::new(Spool::open(&dir.path().join("spool"), options).expect("opens"));
    let socket = dir.path().join("c.sock");
    let _server = plane.serve(&socket);
    let channel = Endpoint::from_shared(format!("unix:{}", socket.display())).expect("endpoint").connect_lazy();
    let (shipper, _handle) =
        Shipper::new(spool.clone(), Arc::new(move || Some(channel.clone())), "node_1".into(), "instance_1".into());
    let _task = tokio::spawn(shipper.run());
    until("the predecessor's records", || plane.exchanges() == 10).await;
    until("its end", || {
        plane.look(|ledger| {
            ledger.logs.values().flatten().any(|kind| matches!(kind, Some(Kind::End(end)) if end.abandoned))
        })
    })
    .await;
}
