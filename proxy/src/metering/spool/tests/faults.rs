//! A disk that fails, is full, or loses its power.

use std::collections::BTreeSet;

use super::super::memory_disk::{Operation, Survival};
use super::*;

#[test]
fn a_failing_disk_refuses_is_counted_and_is_used_again_when_it_works() {
    let disk = MemoryDisk::new(1);
    let spool = on_memory(&disk, 2).expect("opens");
    let ticket = append(&spool, 1).expect("appends");
    disk.fail(Operation::Write, DiskError::Io, 0, u32::MAX);
    for number in 2..5 {
        assert!(matches!(append(&spool, number), Err(SpoolError::Io { .. })));
    }
    assert!(spool.is_full(), "a node that cannot write is not ready");
    assert_eq!(spool.stats().write_failures, 3);
    spool.sync();
    assert!(spool.is_full(), "it still fails");
    disk.heal();
    spool.sync();
    assert!(!spool.is_full(), "found out without a request");
    settle(&spool, ticket, 1).expect("settles");
    let _ = append(&spool, 5).expect("appends");
    let mut control = Control::default();
    control.drain(&spool);
    assert_eq!((control.opens(), control.lost()), (vec![exchange(1), exchange(5)], 0));
}

#[test]
fn a_failed_sync_is_counted_and_what_was_written_is_shipped_all_the_same() {
    let disk = MemoryDisk::new(1);
    let spool = on_memory(&disk, 1).expect("opens");
    let _ = append(&spool, 1).expect("appends");
    disk.fail(Operation::Sync, DiskError::Io, 0, 1);
    spool.sync();
    assert_eq!(spool.stats().sync_failures, 1);
    let mut control = Control::default();
    control.ship(&spool, 1, 10);
    assert_eq!(control.opens(), [exchange(1)]);
}

#[test]
fn a_full_disk_is_met_as_a_full_spool_is() {
    let disk = MemoryDisk::new(1);
    disk.set_capacity(Some(256 << 10));
    let spool = on_memory(&disk, 2).expect("opens");
    let mut tickets = Vec::new();
    let refused = loop {
        match append(&spool, tickets.len()) {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break error,
        }
        spool.sync();
    };
    assert!(matches!(refused, SpoolError::Full), "{refused}");
    assert!(spool.is_full() && spool.stats().write_failures == 0, "before the disk itself says no");
    let some = tickets.len().min(100);
    for (number, ticket) in tickets[..some].iter().enumerate() {
        settle(&spool, *ticket, number).expect("what has begun still settles");
    }
    let mut control = Control::default();
    control.drain(&spool);
    spool.sync();
    assert!(!spool.is_full(), "{:?}", spool.stats());
    let _ = append(&spool, 100_000).expect("there is room again");
    control.drain(&spool);
    assert_eq!((control.opens().len(), control.lost()), (tickets.len() + 1, 0));
}

#[test]
fn a_small_disk_that_was_shipped_is_free_again_although_no_segment_was_full() {
    let disk = MemoryDisk::new(1);
    let large = SpoolOptions { shards: 1, limit_bytes: 1 << 30, segment_bytes: 16 << 20 };
    let on: Arc<MemoryDisk> = Arc::new(disk.clone());
    let spool = Spool::open_on(on.clone(), on, Path::new("/spool"), large).expect("opens");
    for number in 0..2000 {
        let _ = append(&spool, number).expect("appends");
    }
    spool.sync();
    // Others fill the disk after the segments' size was chosen.
    disk.set_capacity(Some(spool.stats().bytes + (8 << 10)));
    spool.sync();
    assert!(spool.is_full());
    let mut control = Control::default();
    control.drain(&spool);
    spool.sync();
    assert!(!spool.is_full(), "{:?}", spool.stats());
}

#[test]
fn a_block_that_cannot_be_read_costs_its_records_after_some_patience() {
    let disk = MemoryDisk::new(1);
    let spool = on_memory(&disk, 1).expect("opens");
    for number in 0..300 {
        let _ = append(&spool, number).expect("appends");
    }
    spool.sync();
    let log = spool.pending().remove(0);
    disk.fail(Operation::Read, DiskError::Io, 0, 3);
    for _ in 0..3 {
        assert!(matches!(log.read(100, 1 << 20), Err(SpoolError::Io { .. })), "it may think better of it");
    }
    assert_eq!(log.read(100, 1 << 20).expect("reads").records.len(), 100);
    assert_eq!(spool.stats().lost, 0);
    // Then the first file's two blocks.
    disk.fail(Operation::Read, DiskError::Io, 0, 10);
    let (mut refused, mut control) = (0, Control::default());
    let batch = loop {
        match log.read(100, 1 << 20) {
            Ok(batch) => break batch,
            Err(_) => refused += 1,
        }
    };
    assert_eq!(refused, 8);
    log.acknowledge(control.accept(&log, &batch)).expect("acknowledges");
    control.drain(&spool);
    assert!(control.lost() > 0 && control.lost() < 100, "{}", control.lost());
    assert_eq!(control.opens().len() as u64 + control.lost(), 300);
}

#[test]
fn an_epoch_whose_end_could_not_be_written_waits_for_a_successor() {
    let disk = MemoryDisk::new(1);
    let spool = on_memory(&disk, 1).expect("opens");
    let _never_settled = append(&spool, 1).expect("appends");
    let epoch = spool.epoch();
    disk.fail(Operation::Write, DiskError::NoSpace, 0, 1);
    spool.close();
    let mut control = Control::default();
    control.drain(&spool);
    drop(spool);
    let next = on_memory(&disk, 1).expect("opens");
    assert_eq!(next.adopt().expect("takes over"), 1, "it is still there");
    control.drain(&next);
    assert!(matches!(control.logs[&(epoch, 0)].as_slice(), [Kind::Open(_), Kind::End(_)]), "{:?}", control.logs);
}

#[test]
fn an_end_that_the_control_plane_places_is_written_or_tried_again() {
    let disk = MemoryDisk::new(1);
    let spool = on_memory(&disk, 1).expect("opens");
    let _open = append(&spool, 1).expect("appends");
    spool.sync();
    disk.kill();
    drop(spool);
    let disk = disk.process();
    let next = on_memory(&disk, 1).expect("opens");
    next.adopt().expect("takes over");
    let log = next.pending().remove(0);
    for skip in [0, 1] {
        disk.fail(Operation::Write, DiskError::Io, skip, 1);
        assert!(log.acknowledge(7).is_err(), "the disk refuses a file, or the record");
        next.reap().expect("reaps");
    }
    log.acknowledge(7).expect("now it takes it");
    next.sync();
    let batch = log.read(10, 4096).expect("reads");
    assert_eq!(batch.first_position, 7);
    assert!(matches!(kind(&batch.records[0]), Kind::End(_)));
}

#[test]
fn an_epoch_that_cannot_be_read_is_taken_over_without_that_after_some_patience() {
    let disk = MemoryDisk::new(1);
    let spool = on_memory(&disk, 1).expect("opens");
    let _open = append(&spool, 1).expect("appends");
    let epoch = spool.epoch();
    spool.sync();
    disk.kill();
    drop(spool);
    let disk = disk.process();
    let next = on_memory(&disk, 1).expect("opens");
    let refused = (0..20)
        .take_while(|_| {
            // Behind its length and its time.
            disk.fail(Operation::Read, DiskError::Io, 2, 5);
            let refused = next.adopt().is_err();
            disk.heal();
            refused
        })
        .count();
    assert_eq!(refused, 8);
    let mut control = Control::default();
    control.drain(&next);
    let kinds = &control.logs[&(epoch, 0)];
    assert!(matches!(kinds.last(), Some(Kind::End(_))), "{kinds:?}");
    assert!(control.lost() > 0, "what is not known to be there is said to be lost");
}

/// Whatever the disk does, in any order, with any process dying.
fn storm(seed: u64) {
    let mut random = Random::new(seed);
    let mut disk = MemoryDisk::new(seed);
    let (mut control, mut number) = (Control::default(), 0);
    let (mut appended, mut certain) = (BTreeSet::new(), BTreeSet::new());
    let mut power_was_cut = false;
    let mut spool = on_memory(&disk, 2).expect("opens");
    for _ in 0..60 {
        match random.below(12) {
            0..=4 => {
                for _ in 0..random.below(20) {
                    if random.below(8) == 0 {
                        disk.tear_next_write(random.below(120), DiskError::Io);
                    }
                    if append(&spool, number).is_ok() {
                        appended.insert(exchange(number));
                    }
                    number += 1;
                }
            }
            5 | 6 => {
                spool.sync();
                certain.clone_from(&appended);
            }
            7 | 8 => {
                disk.short_reads(random.below(2) == 0);
                spool.sync();
                certain.clone_from(&appended);
                control.ship(&spool, 1 + random.below(3), 1 + random.below(30));
            }
            9 => spool.close(),
            ending => {
                if ending == 10 {
                    disk.kill();
                } else {
                    disk.power_cut(if random.below(2) == 0 { Survival::Synced } else { Survival::Random });
                    power_was_cut = true;
                    appended.clone_from(&certain);
                }
                drop(spool);
                disk = disk.process();
                disk.heal();
                spool = on_memory(&disk, 2).expect("opens");
                spool.adopt().expect("takes over");
            }
        }
    }
    disk.kill();
    drop(spool);
    disk = disk.process();
    disk.heal();
    let last = on_memory(&disk, 2).expect("opens");
    last.adopt().expect("takes over");
    control.drain(&last);
    let opens = control.opens();
    let distinct: BTreeSet<_> = opens.iter().cloned().collect();
    assert_eq!(distinct.len(), opens.len(), "seed {seed}: something arrived twice");
    let missing: Vec<_> = certain.difference(&distinct).collect();
    assert!(missing.is_empty(), "seed {seed}: synced and lost: {missing:?}");
    if !power_was_cut {
        assert_eq!(distinct, appended, "seed {seed}");
        assert_eq!(control.lost(), 0, "seed {seed}");
        let dead = control.logs.iter().filter(|((epoch, _), _)| *epoch != last.epoch());
        for (log, kinds) in dead {
            assert!(matches!(kinds.last(), Some(Kind::End(_))), "seed {seed}: {log:?} never ends");
        }
    }
}

#[test]
fn what_was_synced_survives_everything_and_nothing_arrives_twice() {
    for seed in 0..2000 {
        storm(seed);
    }
}

#[test]
fn on_a_disk_in_memory_the_same_seed_does_the_same() {
    let run = |seed: u64| {
        let disk = MemoryDisk::new(seed);
        disk.fail_sometimes(Operation::Write, DiskError::Io, 100_000);
        let spool = on_memory(&disk, 3);
        let done: Vec<bool> = spool.iter().flat_map(|spool| (0..50).map(|n| append(spool, n).is_ok())).collect();
        spool.iter().for_each(Spool::sync);
        let files: Vec<_> = disk.files().into_iter().map(|path| disk.contents(&path)).collect();
        (done, files)
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
    }
}
