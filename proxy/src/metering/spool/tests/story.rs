//! Ends of processes, limits, failing disks.

use std::collections::BTreeSet;
use std::thread;

use proptest::prelude::*;

use super::*;

#[test]
fn records_arrive_once_and_files_go() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let spool = Spool::open(dir.path(), options()).expect("opens");
    let mut control = Control::default();
    for number in 0..500 {
        let ticket = append(&spool, number).expect("appends");
        settle(&spool, ticket, number).expect("settles");
    }
    assert!(segments(dir.path()).len() > 4, "several segments");
    assert_eq!(spool.stats().records, 1000);
    control.drain(&spool);
    assert_eq!(control.opens(), (0..500).map(exchange).collect::<Vec<_>>());
    assert_eq!(control.logs.values().flatten().count(), 1000);
    let stats = spool.stats();
    assert_eq!((stats.records, stats.oldest_millis, stats.lost), (0, 0, 0));
    assert!(segments(dir.path()).len() <= 2, "acknowledged segments are removed");
    let on_disk: u64 = segments(dir.path()).iter().map(|path| fs::metadata(path).expect("metadata").len()).sum();
    let reserved = on_disk.checked_sub(stats.bytes).expect("what counts is there");
    assert!(reserved <= 2 * (256 << 10), "only the last file of each shard has space in reserve: {reserved}");
}

#[test]
fn both_records_of_an_exchange_are_in_one_shard_whichever_thread_settles() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let spool = Spool::open(dir.path(), options()).expect("opens");
    let total = 400;
    thread::scope(|scope| {
        for thread in 0..4 {
            let spool = &spool;
            scope.spawn(move || {
                for number in (thread * 100)..(thread * 100 + 100) {
                    let ticket = append(spool, number).expect("appends");
                    scope.spawn(move || settle(spool, ticket, number).expect("settles"));
                }
            });
        }
    });
    let mut control = Control::default();
    control.drain(&spool);
    assert_eq!(control.opens().len(), total);
    for log in control.logs.values() {
        let opened: BTreeSet<_> = log.iter().filter_map(open_id).collect();
        let settled: BTreeSet<_> = log
            .iter()
            .filter_map(|kind| if let Kind::Settle(s) = kind { Some(s.exchange_id.clone()) } else { None })
            .collect();
        assert_eq!(opened, settled);
    }
}

#[test]
fn a_dead_process_is_shipped_by_its_successor_and_ended_as_abandoned() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut control = Control::default();
    let first = Spool::open(dir.path(), options()).expect("opens");
    for number in 0..50 {
        let _ = append(&first, number).expect("appends");
    }
    first.sync();
    control.ship(&first, 1, 20);
    let alive = Spool::open(dir.path(), options()).expect("opens");
    assert_eq!(alive.adopt().expect("looks"), 0, "a living process keeps its epoch");
    let epoch = first.epoch();
    drop(first);
    assert_eq!(alive.adopt().expect("takes over"), 1);
    assert_eq!(alive.adopt().expect("looks again"), 0);
    control.drain(&alive);
    assert_eq!(control.opens(), (0..50).map(exchange).collect::<Vec<_>>());
    let ends: Vec<_> = control.logs.values().flatten().filter(|kind| matches!(kind, Kind::End(_))).collect();
    assert_eq!(ends.len(), 2, "the shard that was never written ends too");
    assert!(ends.iter().all(|kind| matches!(kind, Kind::End(end) if end.abandoned && end.shards == 2)));
    assert_eq!(epochs(dir.path()), 1, "the old epoch is removed");
    assert!(alive.epoch() > epoch);
}

#[test]
fn a_clean_end_is_said_once_by_whoever_ships_it() {
    for ship_before_the_end in [true, false] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut control = Control::default();
        let first = Spool::open(dir.path(), options()).expect("opens");
        let ticket = append(&first, 1).expect("appends");
        first.close();
        assert!(matches!(append(&first, 2), Err(SpoolError::Closed)));
        assert!(matches!(settle(&first, ticket, 1), Err(SpoolError::Closed)));
        if ship_before_the_end {
            control.drain(&first);
            assert_eq!(epochs(dir.path()), 0);
        }
        drop(first);
        let second = Spool::open(dir.path(), options()).expect("opens");
        second.adopt().expect("takes over");
        control.drain(&second);
        let said: Vec<_> = control.logs.values().flatten().collect();
        let ends = said.iter().filter(|kind| matches!(kind, Kind::End(end) if !end.abandoned)).count();
        assert_eq!((said.len(), ends), (3, 2), "one open, and the end of each shard");
        assert_eq!(epochs(dir.path()), 1);
    }
}

#[test]
fn a_batch_that_is_full_by_its_bytes_loses_nothing_of_the_segment() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let spool = Spool::open(dir.path(), SpoolOptions { shards: 1, ..options() }).expect("opens");
    for number in 0..500 {
        let _ = append(&spool, number).expect("appends");
    }
    spool.sync();
    let mut control = Control::default();
    for _ in 0..500 {
        control.ship(&spool, 1, 1000);
    }
    assert_eq!((control.lost(), control.opens().len()), (0, 500));
}

#[test]
fn an_idle_process_leaves_its_end_and_nothing_else() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut control = Control::default();
    drop(Spool::open(dir.path(), options()).expect("opens"));
    let second = Spool::open(dir.path(), options()).expect("opens");
    assert_eq!(second.adopt().expect("takes over"), 1);
    control.drain(&second);
    let said: Vec<_> = control.logs.values().flatten().collect();
    assert!(said.len() == 2 && said.iter().all(|kind| matches!(kind, Kind::End(end) if end.abandoned)), "{said:?}");
    assert_eq!(epochs(dir.path()), 1);
}

#[test]
fn a_full_spool_refuses_opens_and_still_settles_and_recovers() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let small = SpoolOptions { shards: 1, limit_bytes: 64 << 10, segment_bytes: 16 << 20 };
    let spool = Spool::open(dir.path(), small.clone()).expect("opens");
    let mut tickets = Vec::new();
    let refused = loop {
        match append(&spool, tickets.len()) {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, SpoolError::Full));
    assert!(matches!(spool.append_refusal(&SettleRecord::default()), Err(SpoolError::Full)));
    let settled = (0..tickets.len()).take_while(|number| settle(&spool, tickets[*number], *number).is_ok()).count();
    assert!(settled > 50, "the reserve took only {settled}");
    assert!(spool.stats().bytes <= small.limit_bytes);
    let mut control = Control::default();
    control.drain(&spool);
    assert!(spool.stats().bytes < small.limit_bytes / 2, "{:?}", spool.stats());
    let _ = append(&spool, 100_000).expect("there is room again");
    control.drain(&spool);
    assert_eq!(control.opens().len(), tickets.len() + 1);
    assert_eq!(control.lost(), 0);
}

#[test]
fn a_failing_disk_costs_the_record_and_nothing_else() {
    for written in [0, 1, 15, 16, 20, 10_000] {
        let disk = MemoryDisk::new(1);
        let spool = on_memory(&disk, 1).expect("opens");
        let _ = append(&spool, 1).expect("appends");
        disk.tear_next_write(written, DiskError::NoSpace);
        assert!(matches!(append(&spool, 2), Err(SpoolError::Io { .. })));
        let _ = append(&spool, 3).expect("appends again");
        disk.tear_next_write(written, DiskError::Io);
        assert!(append(&spool, 4).is_err());
        spool.sync();
        drop(spool);
        let next = on_memory(&disk, 1).expect("opens");
        next.adopt().expect("takes over");
        let mut control = Control::default();
        control.drain(&next);
        assert_eq!(control.opens(), [exchange(1), exchange(3)], "after {written} bytes");
        assert_eq!(control.lost(), 0);
    }
}

#[test]
fn the_control_planes_position_is_the_truth() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let one = SpoolOptions { shards: 1, ..options() };
    let spool = Spool::open(dir.path(), one.clone()).expect("opens");
    for number in 0..10 {
        let _ = append(&spool, number).expect("appends");
    }
    spool.sync();
    let log = spool.pending().remove(0);
    assert_eq!(log.read(4, 1 << 20).expect("reads").next_position(), 4);
    log.acknowledge(4).expect("acknowledges");
    log.acknowledge(2).expect("goes back");
    let batch = log.read(100, 1 << 20).expect("reads");
    assert_eq!((batch.first_position, batch.records.len()), (2, 8));
    assert_eq!(open_id(&kind(&batch.records[0])), Some(exchange(2)));
    log.acknowledge(9).expect("goes forward");
    assert_eq!(log.read(100, 1 << 20).expect("reads").first_position, 9);
    assert!(matches!(log.acknowledge(99), Err(SpoolError::Ahead { expected: 99, end: 10 })));
    drop((log, spool));
    // A dead epoch that the control plane knows more of is ended where it is.
    let next = Spool::open(dir.path(), one).expect("opens");
    next.adopt().expect("takes over");
    let log = next.pending().remove(0);
    log.acknowledge(99).expect("jumps");
    let batch = log.read(100, 1 << 20).expect("reads");
    assert_eq!((batch.first_position, batch.records.len()), (99, 1));
    assert!(matches!(kind(&batch.records[0]), Kind::End(_)));
    log.acknowledge(100).expect("acknowledges");
    next.reap().expect("reaps");
    assert_eq!(epochs(dir.path()), 1);
}

#[test]
fn two_records_cost_microseconds() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let spool = Spool::open(dir.path(), SpoolOptions::default()).expect("opens");
    let label = [("team".to_owned(), "a".to_owned())];
    let open = OpenRecord {
        exchange_id: "req_0123456789abcdef0123456789abcdef",
        at_micros: 1_700_000_000_000_000,
        tenant_id: "ten_0123456789abcdef0123456789abcdef",
        bot_id: "bot_0123456789abcdef0123456789abcdef",
        vendor: "openai",
        model: "gpt-4o-mini",
        endpoint: "chat/completions",
        provider_key_id: "key_0123456789abcdef0123456789abcdef",
        config_version: "1-17-0123456789ab",
        ..OpenRecord::default()
    };
    let done = SettleRecord { open, outcome: "ok", input_tokens: Some(900), labels: &label, ..SettleRecord::default() };
    let mut nanos: Vec<u128> = (0..20_000)
        .map(|_| {
            let began = std::time::Instant::now();
            let ticket = spool.append_open(None, &open).expect("appends");
            spool.append_settle(ticket, &done).expect("settles");
            began.elapsed().as_nanos()
        })
        .collect();
    nanos.sort_unstable();
    let (median, late) = (nanos[nanos.len() / 2], nanos[nanos.len() * 99 / 100]);
    eprintln!("open and settle: median {median} ns, 99th percentile {late} ns");
    // Far above what it takes, so that a busy machine does not fail it: an
    // accidental disk wait is a thousand times slower.
    assert!(median < 100_000, "{median} ns");
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Sync,
    Ship(usize, usize),
    /// The process dies; with a share of the last segment that gets lost too.
    Die(Option<u8>),
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1usize..40).prop_map(Step::Append),
        2 => Just(Step::Sync),
        4 => (1usize..4, 1usize..30).prop_map(|(batches, records)| Step::Ship(batches, records)),
        1 => Just(Step::Die(None)),
        1 => any::<u8>().prop_map(|share| Step::Die(Some(share))),
        1 => Just(Step::Close),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_nothing_is_lost_twice_or_out_of_order(steps in steps()) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut control = Control::default();
        let mut spool = Spool::open(dir.path(), options()).expect("opens");
        let (mut number, mut certain, mut cut) = (0, BTreeSet::new(), false);
        for step in steps {
            match step {
                Step::Append(count) => for _ in 0..count {
                    if append(&spool, number).is_ok() {
                        certain.insert(exchange(number));
                    }
                    number += 1;
                },
                Step::Sync => spool.sync(),
                Step::Ship(batches, records) => control.ship(&spool, batches, records),
                Step::Close => spool.close(),
                Step::Die(share) => {
                    drop(spool);
                    if let Some((share, path)) = share.zip(segments(dir.path()).pop()) {
                        let length = fs::metadata(&path).expect("metadata").len();
                        let kept = length * u64::from(share) / 256;
                        fs::OpenOptions::new().write(true).open(&path).expect("opens").set_len(kept).expect("cuts");
                        cut = true;
                    }
                    spool = Spool::open(dir.path(), options()).expect("opens");
                    spool.adopt().expect("takes over");
                }
            }
        }
        drop(spool);
        let last = Spool::open(dir.path(), options()).expect("opens");
        last.adopt().expect("takes over");
        control.drain(&last);
        let arrived = control.opens();
        let distinct: BTreeSet<_> = arrived.iter().cloned().collect();
        prop_assert_eq!(distinct.len(), arrived.len(), "something arrived twice");
        prop_assert!(distinct.is_subset(&certain));
        if !cut {
            prop_assert_eq!(&distinct, &certain);
            prop_assert_eq!(control.lost(), 0);
        }
        prop_assert_eq!(epochs(dir.path()), 1);
    }
}
