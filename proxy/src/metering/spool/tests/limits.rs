//! Batches of every size over segments and shards of every number.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn batches_of_any_size_lose_nothing_and_keep_their_limits(
        shards in 1u32..5,
        records in 1usize..600,
        max_records in 1usize..400,
        max_bytes in 1usize..20_000,
        by_successor in any::<bool>(),
        short_reads in any::<bool>(),
    ) {
        let disk = MemoryDisk::new(1);
        disk.short_reads(short_reads);
        let mut spool = on_memory(&disk, shards).expect("opens");
        for number in 0..records {
            let _ = append(&spool, number).expect("appends");
        }
        spool.sync();
        if by_successor {
            drop(spool);
            spool = on_memory(&disk, shards).expect("opens");
            spool.adopt().expect("takes over");
        }
        let mut control = Control::default();
        while !spool.pending().is_empty() {
            for log in spool.pending() {
                let batch = log.read(max_records, max_bytes).expect("reads");
                prop_assert!(!batch.records.is_empty(), "a pending shard gives something");
                prop_assert!(batch.records.len() <= max_records);
                let bytes: usize = batch.records.iter().map(Vec::len).sum();
                prop_assert!(bytes <= max_bytes || batch.records.len() == 1, "{bytes} bytes of {max_bytes}");
                log.acknowledge(control.accept(&log, &batch)).expect("acknowledges");
            }
            spool.reap().expect("reaps");
        }
        prop_assert_eq!(control.lost(), 0);
        prop_assert_eq!(spool.stats().lost, 0);
        prop_assert_eq!(control.opens(), (0..records).map(exchange).collect::<Vec<_>>());
    }
}
