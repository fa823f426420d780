//! What has a name after the power was gone.

use std::path::Path;
use std::sync::Arc;

use super::super::memory_disk::{MemoryDisk, Survival};
use super::super::{Spool, SpoolOptions};
use crate::metering::OpenRecord;

fn open(disk: &MemoryDisk) -> Spool {
    let options = SpoolOptions { shards: 1, limit_bytes: 1 << 20, segment_bytes: 4096 };
    let process = Arc::new(disk.process());
    Spool::open_on(process.clone(), process, Path::new("/spool"), options).expect("opens")
}

#[test]
fn a_shard_whose_records_are_all_acknowledged_still_ends_after_a_power_cut() {
    for seed in 0..64 {
        let disk = MemoryDisk::new(seed);
        let spool = open(&disk);
        for _ in 0..30 {
            let open = OpenRecord { exchange_id: "req_1", bot_id: "bot_1", model: "a model", ..OpenRecord::default() };
            let _ticket = spool.append_open(None, &open).expect("appends");
        }
        spool.sync();
        for log in spool.pending() {
            let end = log.read(100, 1 << 20).expect("reads").next_position();
            log.acknowledge(end).expect("is taken");
        }
        disk.power_cut(Survival::Random);
        drop(spool);
        let next = open(&disk);
        assert_eq!(next.adopt().expect("takes over"), 1, "seed {seed}");
        assert_eq!(next.pending().len(), 1, "seed {seed}: nobody knows of the shard");
    }
}
