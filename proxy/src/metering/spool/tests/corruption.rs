//! Two thousand kinds of damage to what dead processes left behind; with
//! `CLAWGATE_VERIFY` ten thousand.
//!
//! Whatever is done to the files: nobody panics, a position never carries
//! anything but what was written there or a loss, what the control plane has is
//! not new to it, no more is lost than was damaged, every epoch ends, and the
//! successor's own log works as if nothing had been.

use super::*;

/// Few and long ones: it is the number of files that counts.
const EXCHANGES: usize = 160;

/// What was written where, and what the control plane had of it.
struct Template {
    disk: MemoryDisk,
    originals: BTreeMap<(u64, u32), Vec<Kind>>,
    had: BTreeMap<(u64, u32), Vec<Kind>>,
}

/// Two dead processes with two shards of several segments each. The control
/// plane has some of the first.
fn template() -> Template {
    let disk = MemoryDisk::new(7);
    let (mut originals, mut control) = (Control::default(), Control::default());
    let spools: Vec<Spool> = (0..2).map(|_| on_memory(&disk, 2).expect("opens")).collect();
    for number in 0..EXCHANGES {
        let spool = &spools[number % 2];
        let (id, model) = (exchange(number), "m".repeat(60 + number % 90));
        let open = OpenRecord { exchange_id: &id, model: &model, ..OpenRecord::default() };
        let ticket = spool.append_open(None, &open).expect("appends");
        let end = SettleRecord { open, outcome: "ok", ..SettleRecord::default() };
        spool.append_settle(ticket, &end).expect("settles");
    }
    spools[0].close();
    for (index, spool) in spools.iter().enumerate() {
        spool.sync();
        for log in spool.pending() {
            let all = log.read(usize::MAX, usize::MAX).expect("reads");
            originals.accept(&log, &all);
        }
        if index == 0 {
            control.ship(spool, 2, 9);
        }
    }
    Template { disk, originals: originals.logs, had: control.logs }
}

/// Damages one file or two, and says what of which may be gone for good.
fn corrupt(disk: &MemoryDisk, random: &mut Random) -> (&'static str, Vec<PathBuf>) {
    let segments: Vec<PathBuf> =
        disk.files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "seg")).collect();
    let victim = segments[random.below(segments.len())].clone();
    let other = segments[random.below(segments.len())].clone();
    let mut bytes = disk.contents(&victim).expect("is there");
    let at = random.below(bytes.len());
    let put = |path: &Path, bytes: Vec<u8>| disk.plant(path, bytes).expect("plants");
    match random.below(10) {
        0 | 1 => {
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            put(&victim, bytes);
            ("bits flipped", vec![victim])
        }
        2 => {
            bytes.truncate(at);
            put(&victim, bytes);
            ("cut", vec![victim])
        }
        3 => {
            let end = (at + 1 + random.below(700)).min(bytes.len());
            bytes[at..end].fill(0);
            put(&victim, bytes);
            ("zeros", vec![victim])
        }
        4 => {
            let end = (at + 1 + random.below(300)).min(bytes.len());
            bytes[at..end].iter_mut().for_each(|byte| *byte = u8::try_from(random.below(256)).expect("fits"));
            put(&victim, bytes);
            ("garbage", vec![victim])
        }
        5 => {
            let theirs = disk.contents(&other).expect("is there");
            put(&other, bytes);
            put(&victim, theirs);
            ("two files swapped", vec![victim, other])
        }
        6 => {
            put(&other, bytes);
            ("one file in another's place", vec![other])
        }
        7 => {
            // A write that went to the wrong place: whole frames of another file.
            let theirs = disk.contents(&other).expect("is there");
            let from = random.below(theirs.len());
            let length = random.below(600).min(theirs.len() - from);
            bytes.splice(at..(at + length).min(bytes.len()), theirs[from..from + length].iter().copied());
            put(&victim, bytes);
            ("a piece of another file", vec![victim])
        }
        _ => (corrupt_small(disk, random), Vec::new()),
    }
}

/// Damages a file that holds one number; no record depends on it.
fn corrupt_small(disk: &MemoryDisk, random: &mut Random) -> &'static str {
    if random.below(2) == 0 {
        let texts = [&b""[..], b"\xff\xff", b"0", b"99999999999999999999", b"18446744073709551615", b"1700000009"];
        let text = texts[random.below(texts.len())].to_vec();
        disk.plant(Path::new("/spool/epoch"), text).expect("plants");
        return "the number of the last epoch";
    }
    let cursors: Vec<PathBuf> =
        disk.files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "cursor")).collect();
    let mut bytes = disk.contents(&cursors[random.below(cursors.len())]).expect("is there");
    if random.below(2) == 0 && !bytes.is_empty() {
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
    }
    disk.plant(&cursors[random.below(cursors.len())], bytes).expect("plants");
    "a cursor"
}

/// (epoch, shard) of a segment file.
fn shard_of(path: &Path) -> (u64, u32) {
    let epoch = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).expect("a name");
    let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
    (epoch.parse().expect("a number"), name[..4].parse().expect("a number"))
}

/// How many frames lie in a file by their lengths, whole or not.
fn frames(disk: &MemoryDisk, path: &Path) -> usize {
    let bytes = disk.contents(path).expect("is there");
    let (mut at, mut count) = (format::SEGMENT_HEADER, 0);
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        (at, count) = (at + format::FRAME_HEADER + length.max(1), count + 1);
    }
    count
}

fn survive(template: &Template, seed: u64) {
    let mut random = Random::new(seed);
    let disk = template.disk.copy(seed);
    disk.short_reads(random.below(4) == 0);
    let (what, damaged) = corrupt(&disk, &mut random);
    let context = format!("seed {seed}: {what} {damaged:?}");
    let now: BTreeMap<&PathBuf, usize> = damaged.iter().map(|path| (path, frames(&disk, path))).collect();
    let mut control = Control { logs: template.had.clone() };
    let spool = on_memory(&disk, 2).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(template.originals.keys().all(|(epoch, _)| *epoch < spool.epoch()), "{context}: a number twice");
    spool.adopt().unwrap_or_else(|error| panic!("{context}: {error}"));
    let fresh: Vec<SpoolTicket> = (0..20).map(|n| append(&spool, 90_000 + n).expect("goes on")).collect();
    spool.sync();
    while !spool.pending().is_empty() {
        control.ship(&spool, 9, 64);
    }
    assert_eq!(fresh.len(), 20);
    for (shard, originals) in &template.originals {
        let mine = damaged.iter().filter(|path| shard_of(path) == *shard);
        // What lay there before, or now: nobody knows better.
        let most = mine.map(|path| frames(&template.disk, path).max(now[path])).sum();
        check_shard(&format!("{context}: {shard:?}"), &control.logs[shard], originals, most);
    }
    let late = (0..20).filter(|n| control.opens().contains(&exchange(90_000 + n))).count();
    assert_eq!(late, 20, "{context}: the successor's own records");
    let lost = control.lost();
    assert!(spool.stats().lost >= lost, "{context}: {lost} lost, {:?}", spool.stats());
    assert_eq!(EpochDir::list(&disk, Path::new("/spool")).expect("lists"), [spool.epoch()], "{context}");
}

fn check_shard(context: &str, log: &[Kind], originals: &[Kind], most: usize) {
    let (mut lost, mut ended) = (0, false);
    for (position, kind) in log.iter().enumerate() {
        assert!(!ended, "{context}: goes on after its end");
        match kind {
            Kind::Lost(range) => lost += usize::try_from(range.count).expect("fits"),
            Kind::End(end) => {
                ended = true;
                let said = originals.get(position) == Some(kind);
                assert!(said || end.abandoned, "{context}: ends at {position}: {end:?}");
            }
            other => assert_eq!(Some(other), originals.get(position), "{context}: position {position}"),
        }
    }
    assert!(ended, "{context}: does not end");
    let arrived = log.len() - 1 - lost;
    let real = originals.iter().filter(|kind| !matches!(kind, Kind::End(_))).count();
    // One more: a clean end may itself be what was damaged.
    assert!(lost <= most + 1, "{context}: lost {lost}, {most} were damaged");
    assert!(arrived + most >= real, "{context}: has {arrived} of {real}, {most} were damaged");
}

#[test]
fn corruptions_are_survived_and_nothing_counts_twice() {
    let template = template();
    let all = template.disk.files();
    assert!(all.iter().filter(|path| path.extension().is_some_and(|e| e == "seg")).count() >= 12, "{all:?}");
    for seed in 0..if config::verify() { 10_000 } else { 2_000 } {
        survive(&template, seed);
    }
}

#[test]
fn a_whole_file_of_another_shard_is_a_hole_and_not_counted_twice() {
    let template = template();
    let segments: Vec<PathBuf> =
        template.disk.files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "seg")).collect();
    let youngest = segments.iter().map(|path| shard_of(path).0).max().expect("is there");
    let mine = segments.iter().find(|path| shard_of(path) == (youngest, 0)).expect("is there");
    let last = segments.iter().rfind(|path| shard_of(path) == shard_of(mine));
    assert_ne!(last, Some(mine), "the last one is looked through by the successor");
    let theirs = segments.iter().find(|path| shard_of(path) == (youngest, 1)).expect("is there");
    let disk = template.disk.copy(1);
    disk.plant(mine, disk.contents(theirs).expect("is there")).expect("plants");
    let spool = on_memory(&disk, 2).expect("opens");
    spool.adopt().expect("takes over");
    let mut control = Control { logs: template.had.clone() };
    control.drain(&spool);
    let opens = control.opens();
    let distinct: std::collections::BTreeSet<_> = opens.iter().collect();
    assert_eq!(distinct.len(), opens.len(), "an exchange was delivered twice");
    assert_eq!(control.lost(), frames(&template.disk, mine) as u64);
    assert_eq!(spool.stats().lost, control.lost());
}
