//! Flipped bits, cut and missing files.

use super::*;

const RECORDS: usize = 150;

/// One shard of a dead process with three segments, and what is in them.
fn dead(dir: &Path) -> Vec<Kind> {
    let one = SpoolOptions { shards: 1, ..options() };
    let spool = Spool::open(dir, one).expect("opens");
    for number in 0..RECORDS {
        let _ = append(&spool, number).expect("appends");
    }
    spool.sync();
    drop(spool);
    (0..RECORDS)
        .map(|number| {
            Kind::Open(clawgate_shared::proto::node::Open {
                exchange_id: exchange(number),
                model: "m".repeat(number % 50),
                ..Default::default()
            })
        })
        .collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("makes");
    for entry in fs::read_dir(from).expect("lists") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// Ships what is in `dir` and returns what arrived before the end record.
fn arrived(dir: &Path) -> Vec<Kind> {
    let spool = Spool::open(dir, SpoolOptions { shards: 1, ..options() }).expect("opens");
    spool.adopt().expect("takes over");
    let mut control = Control::default();
    control.drain(&spool);
    let mut log = control.logs.into_values().next().unwrap_or_default();
    assert!(matches!(log.pop(), Some(Kind::End(end)) if end.abandoned));
    log
}

/// Every position is the original or counted as lost. Returns the lost ones.
fn check(log: &[Kind], originals: &[Kind], seed: u64) -> usize {
    let mut lost = 0;
    for (position, kind) in log.iter().enumerate() {
        match kind {
            Kind::Lost(range) => {
                assert_eq!(range.count, 1, "seed {seed}");
                lost += 1;
            }
            other => assert_eq!(Some(other), originals.get(position), "seed {seed}, position {position}"),
        }
    }
    lost
}

#[test]
fn flips_and_cuts_are_survived_and_seen() {
    let template = tempfile::tempdir().expect("temporary directory");
    let originals = dead(template.path());
    let scratch = tempfile::tempdir().expect("temporary directory");
    for seed in 1..=1000 {
        let mut random = Random::new(seed);
        let dir = scratch.path().join(seed.to_string());
        copy(template.path(), &dir);
        let files = segments(&dir);
        let victim = random.below(files.len());
        let mut bytes = fs::read(&files[victim]).expect("reads");
        let flip = seed % 2 == 0;
        if flip {
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
        } else {
            bytes.truncate(random.below(bytes.len()));
        }
        fs::write(&files[victim], &bytes).expect("writes");
        let log = arrived(&dir);
        let lost = check(&log, &originals, seed);
        let is_last = victim + 1 == files.len();
        if flip || !is_last {
            // Only the very last record can be taken for a write cut short.
            assert!(log.len() + 1 >= RECORDS, "seed {seed}: {} records", log.len());
        }
        if !flip && !is_last {
            assert!(lost > 0, "seed {seed}: a hole that nobody sees");
        }
        if !flip && is_last {
            assert_eq!(lost, 0, "seed {seed}: a cut tail was never acknowledged to anyone");
        }
        assert!(lost <= RECORDS);
        fs::remove_dir_all(&dir).expect("removes");
    }
}

#[test]
fn one_flipped_bit_costs_one_record() {
    let template = tempfile::tempdir().expect("temporary directory");
    let originals = dead(template.path());
    let first = segments(template.path()).remove(0);
    let mut bytes = fs::read(&first).expect("reads");
    let at = format::SEGMENT_HEADER + format::FRAME_HEADER + 3;
    bytes[at] ^= 1;
    fs::write(&first, &bytes).expect("writes");
    let log = arrived(template.path());
    assert_eq!(log.len(), RECORDS);
    assert_eq!(check(&log, &originals, 0), 1);
    assert!(matches!(log[0], Kind::Lost(_)));
}

#[test]
fn a_missing_segment_is_a_hole_of_its_size() {
    let template = tempfile::tempdir().expect("temporary directory");
    let originals = dead(template.path());
    let files = segments(template.path());
    let first_of = |path: &Path| -> usize {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("name").split_once('-').expect("dash").1;
        stem.parse().expect("number")
    };
    let hole = first_of(&files[2]) - first_of(&files[1]);
    fs::remove_file(&files[1]).expect("removes");
    let log = arrived(template.path());
    assert_eq!(log.len(), RECORDS);
    assert_eq!(check(&log, &originals, 0), hole);
}

#[test]
fn damaged_headers_and_cursors_cost_nothing() {
    let template = tempfile::tempdir().expect("temporary directory");
    let originals = dead(template.path());
    for file in segments(template.path()) {
        let mut bytes = fs::read(&file).expect("reads");
        bytes[20] ^= 0xff;
        fs::write(&file, &bytes).expect("writes");
        fs::write(file.with_file_name("0000.cursor"), b"garbage").expect("writes");
    }
    let log = arrived(template.path());
    assert_eq!((log.len(), check(&log, &originals, 0)), (RECORDS, 0));
}

#[test]
fn files_of_a_newer_release_are_left_alone() {
    let template = tempfile::tempdir().expect("temporary directory");
    dead(template.path());
    let file = segments(template.path()).remove(0);
    let mut bytes = fs::read(&file).expect("reads");
    bytes[8] = 9;
    let sum = crc32fast::hash(&bytes[..32]);
    bytes[32..36].copy_from_slice(&sum.to_le_bytes());
    fs::write(&file, &bytes).expect("writes");
    let spool = Spool::open(template.path(), options()).expect("opens");
    assert!(matches!(spool.adopt(), Err(SpoolError::NewerFormat { version: 9, .. })));
    assert!(spool.pending().is_empty());
    assert!(file.exists());
}
