//! That the disk does what it says, and does it again under the same seed.

use super::super::disk::{Clock as _, Disk as _};
use super::*;

fn file(disk: &MemoryDisk, name: &str) -> Arc<dyn DiskFile> {
    disk.open(Path::new(name), OpenMode::OrNew).expect("opens")
}

#[test]
fn what_was_not_synced_is_lost_with_the_power_and_not_with_the_process() {
    let disk = MemoryDisk::new(1);
    disk.make_dir(Path::new("/a")).expect("makes");
    disk.sync_dir(Path::new("/")).expect("syncs");
    let synced = file(&disk, "/a/synced");
    synced.write_all_at(b"kept", 0).expect("writes");
    synced.sync_data().expect("syncs");
    disk.sync_dir(Path::new("/a")).expect("syncs");
    synced.write_all_at(b"LOST and more", 2).expect("writes");
    file(&disk, "/a/nameless").sync_data().expect("syncs");
    disk.kill();
    assert!(synced.write_at(b"x", 0).is_err(), "a dead process writes nothing");
    let next = disk.process();
    assert_eq!(next.contents(Path::new("/a/synced")).as_deref(), Some(b"keLOST and more".as_slice()));
    assert_eq!(next.files().len(), 2);
    next.power_cut(Survival::Synced);
    assert_eq!(next.contents(Path::new("/a/synced")).as_deref(), Some(b"kept".as_slice()));
    assert_eq!(next.files().len(), 1, "a name that was not synced is gone");
}

#[test]
fn a_cut_and_an_overwrite_are_undone_in_order() {
    let disk = MemoryDisk::new(1);
    let it = file(&disk, "/it");
    it.write_all_at(b"0123456789", 0).expect("writes");
    it.sync_data().expect("syncs");
    disk.sync_dir(Path::new("/")).expect("syncs");
    it.set_len(4).expect("cuts");
    it.write_all_at(b"abcdefghijkl", 3).expect("writes");
    it.set_len(1).expect("cuts");
    it.set_len(20).expect("fills up");
    disk.power_cut(Survival::Synced);
    assert_eq!(disk.contents(Path::new("/it")).as_deref(), Some(b"0123456789".as_slice()));
}

#[test]
fn locks_belong_to_processes_and_follow_renames() {
    let disk = MemoryDisk::new(1);
    let other = disk.process();
    disk.make_dir(Path::new("/e/1")).expect("makes");
    let held = disk.lock(Path::new("/e/1/lock"), false).expect("locks").expect("is free");
    assert!(other.lock(Path::new("/e/1/lock"), false).expect("looks").is_none());
    disk.rename(Path::new("/e/1"), Path::new("/e/2")).expect("renames");
    assert!(other.lock(Path::new("/e/2/lock"), false).expect("looks").is_none());
    drop(held);
    let again = other.lock(Path::new("/e/2/lock"), false).expect("locks").expect("is free");
    other.kill();
    assert!(disk.lock(Path::new("/e/2/lock"), false).expect("locks").is_some(), "the dead hold nothing");
    drop(again);
}

#[test]
fn faults_come_as_planned_and_a_full_disk_takes_what_fits() {
    let disk = MemoryDisk::new(1);
    let it = file(&disk, "/it");
    disk.fail(Operation::Write, DiskError::Io, 1, 1);
    it.write_all_at(b"1", 0).expect("the first passes");
    assert_eq!(it.write_all_at(b"2", 1).map_err(|e| e.raw_os_error()), Err(Some(5)));
    it.write_all_at(b"3", 1).expect("the third passes");
    disk.tear_next_write(2, DiskError::Io);
    assert!(it.write_all_at(b"torn", 2).is_err());
    assert_eq!(disk.contents(Path::new("/it")).as_deref(), Some(b"13to".as_slice()));
    disk.set_capacity(Some(6));
    let full = it.write_all_at(b"much too long", 2);
    assert_eq!(full.map_err(|e| e.kind()), Err(io::ErrorKind::StorageFull));
    assert_eq!(disk.contents(Path::new("/it")).as_deref(), Some(b"13much".as_slice()));
    it.write_all_at(b"over", 2).expect("what is there may be written over");
}

#[test]
fn the_same_seed_loses_and_reads_the_same() {
    let run = |seed: u64| {
        let disk = MemoryDisk::new(seed);
        disk.short_reads(true);
        disk.fail_sometimes(Operation::Write, DiskError::NoSpace, 300_000);
        let it = file(&disk, "/it");
        disk.sync_dir(Path::new("/")).expect("syncs");
        let failed: Vec<bool> = (0..20).map(|n| it.write_all_at(&[7; 1000], n * 900).is_err()).collect();
        let mut some = [0; 500];
        let read: Vec<usize> = (0..20).map(|_| it.read_at(&mut some, 0).expect("reads")).collect();
        assert!(it.read_from(&mut some, 0).expect("reads") == 500, "short reads are gone on with");
        disk.power_cut(Survival::Random);
        (failed, read, disk.contents(Path::new("/it")))
    };
    assert_eq!(run(3), run(3));
    assert!((0..5).any(|seed| run(seed) != run(seed + 5)));
}

#[test]
fn time_goes_on_when_it_is_told_to() {
    let disk = MemoryDisk::new(1);
    let before = disk.unix_micros();
    disk.advance(Duration::from_secs(3));
    assert_eq!((disk.monotonic(), disk.unix_micros() - before), (Duration::from_secs(3), 3_000_000));
}
