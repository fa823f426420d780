//! The spool against a model of the control plane: what was appended arrives
//! exactly once and in order, whatever happens to processes and files.

mod config;
mod corruption;
mod damage;
mod faults;
mod limits;
mod names;
mod story;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clawgate_shared::proto::node::{UsageRecord, usage_record::Kind};
use prost::Message as _;

use super::memory_disk::{DiskError, MemoryDisk};
use super::*;
use crate::metering::record::{OpenRecord, SettleRecord};

/// What arrived, by (epoch, shard); the index is the position.
#[derive(Debug, Default)]
struct Control {
    logs: BTreeMap<(u64, u32), Vec<Kind>>,
}

impl Control {
    /// Takes at most `batches` batches of each pending shard.
    fn ship(&mut self, spool: &Spool, batches: usize, max_records: usize) {
        for log in spool.pending() {
            for _ in 0..batches {
                let batch = log.read(max_records, 4096).expect("reads");
                if batch.records.is_empty() {
                    break;
                }
                let next = self.accept(&log, &batch);
                match log.acknowledge(next) {
                    Ok(()) => {}
                    // It wanted to write, and is asked again.
                    Err(SpoolError::Io { .. }) => break,
                    Err(error) => panic!("acknowledges: {error}"),
                }
            }
        }
        spool.reap().expect("reaps");
    }

    fn accept(&mut self, log: &ShardLog, batch: &Batch) -> u64 {
        let known = self.logs.entry((log.epoch(), log.shard())).or_default();
        let next = known.len() as u64;
        if batch.first_position <= next {
            let skip = usize::try_from(next - batch.first_position).expect("fits");
            known.extend(batch.records.iter().skip(skip).map(|bytes| kind(bytes)));
        }
        known.len() as u64
    }

    fn drain(&mut self, spool: &Spool) {
        spool.sync();
        for _ in 0..10_000 {
            self.ship(spool, 1, 7);
            if spool.pending().is_empty() {
                return;
            }
        }
        panic!("the spool does not get empty: {:?}", spool.stats());
    }

    /// The exchange ids of all opens, sorted.
    fn opens(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.logs.values().flatten().filter_map(open_id).collect();
        ids.sort();
        ids
    }

    fn lost(&self) -> u64 {
        self.logs.values().flatten().map(|kind| if let Kind::Lost(lost) = kind { lost.count } else { 0 }).sum()
    }
}

fn kind(bytes: &[u8]) -> Kind {
    UsageRecord::decode(bytes).expect("a usage record").kind.expect("of a known kind")
}

fn open_id(kind: &Kind) -> Option<String> {
    if let Kind::Open(open) = kind { Some(open.exchange_id.clone()) } else { None }
}

fn options() -> SpoolOptions {
    SpoolOptions { shards: 2, limit_bytes: 64 << 20, segment_bytes: 4096 }
}

fn on_memory(disk: &MemoryDisk, shards: u32) -> Result<Spool, SpoolError> {
    let disk = Arc::new(disk.clone());
    Spool::open_on(disk.clone(), disk, Path::new("/spool"), SpoolOptions { shards, ..options() })
}

fn append(spool: &Spool, number: usize) -> Result<SpoolTicket, SpoolError> {
    let id = exchange(number);
    // Lengths differ, so that cuts and flips fall on all kinds of bytes.
    let model = "m".repeat(number % 50);
    spool.append_open(None, &OpenRecord { exchange_id: &id, model: &model, ..OpenRecord::default() })
}

fn settle(spool: &Spool, ticket: SpoolTicket, number: usize) -> Result<(), SpoolError> {
    let id = exchange(number);
    let open = OpenRecord { exchange_id: &id, ..OpenRecord::default() };
    spool.append_settle(ticket, &SettleRecord { open, outcome: "ok", ..SettleRecord::default() })
}

/// A small generator, so that a failure can be repeated by its seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % (limit as u64).max(1)).expect("fits")
    }
}

fn exchange(number: usize) -> String {
    format!("req_{number:08}")
}

/// Segment files of all epochs, in order.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for epoch in fs::read_dir(dir.join("epochs")).expect("lists") {
        for entry in fs::read_dir(epoch.expect("entry").path()).expect("lists") {
            files.push(entry.expect("entry").path());
        }
    }
    files.retain(|path| path.extension().is_some_and(|end| end == "seg"));
    files.sort();
    files
}

fn epochs(dir: &Path) -> usize {
    EpochDir::list(&RealDisk, dir).expect("lists").len()
}
