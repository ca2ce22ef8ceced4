//! Another beginning, on a disk that keeps no more than it promises.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::{Found, has_log};
use crate::checksum::Checksum;
use crate::disk::Folder;
use crate::disk::simulated::{Fault, SimulatedFolder};
use crate::identity::{Epoch, History};
use crate::log::backup::{BackupError, Verifier, verify};
use crate::log::{Backup, OpenError, Options, Replica, ReplicaOptions, Seat, SyncMode};
use crate::namespace::change::{Change, Command, Condition, Details, NewObjects};
use crate::namespace::listing::Query;
use crate::path::Path;

const SMALL: ReplicaOptions = ReplicaOptions {
    sync: SyncMode::Always,
    log: Options { segment_bytes: 1500, ballast_bytes: 0, first_index: 1 },
    snapshot_bytes: 3000,
    kept_changes: 5,
};

fn open(folder: &SimulatedFolder) -> Replica {
    Replica::open(Arc::new(folder.clone()), SMALL, Seat::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn put(replica: &Replica, name: &str) {
    let path: Path = name.parse().expect("a path");
    let command = Command::Put {
        path,
        condition: Condition::Any,
        parents: true,
        objects: NewObjects::default(),
        checksum: Checksum::EMPTY,
        modified_ms: None,
        details: Details::default(),
    };
    replica.propose(&Change { now_ms: 7, stamp: None, command }).expect("it leads").outcome.expect("accepted");
}

fn names(replica: &Replica) -> Vec<String> {
    let page = replica.read(|namespace| namespace.list(&Path::root(), Query::default(), 1000, |_| true));
    page.expect("it leads").expect("the root").entries.into_iter().map(|entry| entry.name).collect()
}

fn epoch(replica: &Replica) -> Epoch {
    replica.epoch().expect("it leads")
}

fn lineage(replica: &Replica) -> Vec<History> {
    replica.read(|namespace| namespace.lineage().collect()).expect("it leads")
}

fn bytes(backup: &Backup) -> Vec<u8> {
    let mut bytes = vec![0; backup.length as usize];
    backup.file.read_at(&mut bytes, 0).expect("it is there");
    bytes
}

/// A store of two files, of which the backup has one.
fn store_and_backup() -> (SimulatedFolder, Vec<u8>) {
    let folder = SimulatedFolder::default();
    let replica = open(&folder);
    put(&replica, "/early");
    let backup = bytes(&replica.backup(None).expect("the disk works"));
    put(&replica, "/late");
    replica.close().expect("the disk works");
    (folder, backup)
}

fn restore(folder: &SimulatedFolder, backup: &[u8], others: &[History]) -> std::io::Result<History> {
    Found::in_backup(backup, "backup").expect("a whole one").restore_to(folder, others)
}

#[test]
fn a_power_cut_at_any_instant_leaves_the_old_store_or_the_new() {
    let (folder, backup) = store_and_backup();
    let (mut old, mut new) = (0, 0);
    for operation in 1.. {
        let restored = folder.copy();
        restored.fail_at(operation, Fault::End);
        let is_done = restore(&restored, &backup, &[]).is_ok();
        for seed in 0..20 {
            let mut rng = Rng::with_seed(seed);
            let cut = restored.after_power_cut(&mut rng);
            // What finishes it is interrupted as well, by a kill and by a power cut.
            cut.fail_at(rng.u64(1..12), Fault::End);
            drop(Replica::open(Arc::new(cut.clone()), SMALL, Seat::default()));
            let cut = if rng.bool() { cut.after_kill() } else { cut.after_power_cut(&mut rng) };
            let replica = open(&cut);
            match &names(&replica)[..] {
                [early, late] if early == "early" && late == "late" => {
                    assert!(!is_done && lineage(&replica).len() == 1, "operation {operation}, seed {seed}");
                    old += 1;
                }
                [early] if early == "early" => {
                    assert_eq!(lineage(&replica).len(), 2, "operation {operation}, seed {seed}");
                    new += 1;
                }
                other => panic!("operation {operation}, seed {seed}: {other:?}"),
            }
        }
        if is_done {
            break;
        }
    }
    assert!(old > 20 && new > 20, "{old} old, {new} new");
}

#[test]
fn what_was_there_before_a_restore_is_kept_beside_it() {
    let (folder, backup) = store_and_backup();
    let before: Vec<_> = folder.names().expect("a list");
    let contents =
        |names: &[String]| -> Vec<_> { names.iter().map(|name| folder.read(name).expect("there")).collect() };
    let kept = contents(&before);
    let history = restore(&folder, &backup, &[]).expect("the disk works");
    let moved: Vec<String> = before.iter().map(|name| format!("before-{history}-{name}")).collect();
    assert_eq!(contents(&moved), kept);
    drop(open(&folder));
    assert_eq!(contents(&moved), kept, "a start leaves them alone");
}

#[test]
fn a_restored_store_descends_from_all_that_were_before() {
    let (folder, backup) = store_and_backup();
    let before = open(&folder.copy());
    let (first, newest) = (epoch(&before), before.last_index());
    let lost = History(0x105);
    let history = restore(&folder, &backup, &[lost, first.history]).expect("the disk works");
    let replica = open(&folder);
    assert_eq!(lineage(&replica), [first.history, lost, history]);
    let now = epoch(&replica);
    assert!(now.history == history && now.term > 1, "{now:?}");
    // What was issued in the lost time, and in histories that nothing is known of, names nothing now.
    for sequence in 1..=newest {
        let version = replica.read(|namespace| namespace.version(sequence)).expect("it leads");
        assert_ne!(version.history, lost, "{sequence}");
    }
    put(&replica, "/next");
    let late = Found::in_log(&folder.after_kill()).expect("readable").expect("a log");
    let mut names = late.namespace().list(&Path::root(), Query::default(), 9, |_| true).expect("the root").entries;
    assert_eq!(names.pop().expect("two").name, "next");
    // A second time, from the same backup: the log that is there says which histories there have been.
    let known: Vec<History> = late.namespace().lineage().collect();
    restore(&folder, &backup, &known).expect("the disk works");
    let again = open(&folder);
    assert!(known.iter().all(|history| lineage(&again).contains(history)), "{known:?}");
}

/// A store with some files, two snapshots and log on both sides of them.
fn store_with_log() -> (SimulatedFolder, Vec<String>) {
    let folder = SimulatedFolder::default();
    let replica = open(&folder);
    for number in 0..60 {
        put(&replica, &format!("/{number:02}"));
        replica.snapshot_if_due().expect("the disk works");
    }
    let names = names(&replica);
    replica.close().expect("the disk works");
    (folder, names)
}

#[test]
fn damage_anywhere_costs_no_change_before_it() {
    let (folder, all) = store_with_log();
    let logs: Vec<_> = folder.names().expect("a list").into_iter().filter(|name| name.starts_with("log-")).collect();
    assert!(logs.len() > 2, "{logs:?}");
    let (mut whole, mut cut) = (0, 0);
    for name in &logs {
        for at in (0..folder.read(name).expect("there").len()).step_by(7) {
            let folder = folder.copy();
            folder.alter(name, |bytes| bytes[at] ^= 0x10);
            let what = format!("byte {at} of {name}");
            let is_refused = Replica::open(Arc::new(folder.copy()), SMALL, Seat::default()).is_err();
            let found = Found::in_log(&folder).expect("readable").expect("a log");
            let damage = found.damage().cloned();
            found.restore_to(&folder, &[]).expect("the disk works");
            let replica = open(&folder);
            let left = names(&replica);
            assert!(all.starts_with(&left), "{what}: {left:?}");
            assert_eq!(damage.is_none(), left == all || !is_refused, "{what}: {damage:?} {left:?}");
            assert!(is_refused || left.len() + 1 >= all.len(), "{what}: what no mark vouches for is little");
            let at_fault = damage.as_ref().map_or("", |damage| &damage.place);
            assert!(damage.is_none() || at_fault.contains("byte"), "{what}: {at_fault}");
            if left == all {
                whole += 1
            } else {
                cut += 1
            };
            // All that is there is counted on: nothing that is issued from now on was issued before.
            let lost = damage.and_then(|damage| damage.last_index).unwrap_or(0);
            assert!(replica.read(|namespace| namespace.sequence()).expect("it leads") > lost, "{what}");
        }
    }
    assert!(whole > 0 && cut > 0, "{whole} whole, {cut} cut");
}

#[test]
fn a_torn_tail_is_no_damage() {
    for seed in 0..40 {
        let (folder, mut rng) = (SimulatedFolder::default(), Rng::with_seed(seed));
        let replica = open(&folder);
        folder.fail_at(rng.u64(1..80), Fault::End);
        for number in 0..40 {
            let command = Command::MakeDirectory {
                path: format!("/{number}").parse().expect("a path"),
                parents: false,
                details: Details::default(),
                modified_ms: None,
            };
            let made = replica.propose(&Change { now_ms: 7, stamp: None, command });
            if made.is_err() || (rng.u8(..9) == 0 && replica.snapshot_if_due().is_err()) {
                break;
            }
        }
        let cut = folder.after_power_cut(&mut rng);
        let found = Found::in_log(&cut).expect("readable").expect("a log");
        assert_eq!(found.damage(), None, "seed {seed}");
        let entries = open(&cut).read(|namespace| namespace.entry_count());
        assert_eq!(Ok(found.namespace().entry_count()), entries, "seed {seed}: as a start finds it");
    }
}

#[test]
fn damage_that_a_snapshot_covers_loses_nothing() {
    let (folder, all) = store_with_log();
    let first = folder.names().expect("a list").into_iter().find(|name| name.starts_with("log-")).expect("a log");
    folder.alter(&first, |bytes| bytes.iter_mut().for_each(|byte| *byte = 0));
    assert!(matches!(Replica::open(Arc::new(folder.copy()), SMALL, Seat::default()), Err(OpenError::Damaged { .. })));
    let found = Found::in_log(&folder).expect("readable").expect("a log");
    assert_eq!(found.damage(), None);
    assert_eq!(found.last_change_ms(), Some(7));
    found.restore_to(&folder, &[]).expect("the disk works");
    assert_eq!(names(&open(&folder)), all);
}

#[test]
fn a_log_that_is_missing_is_not_begun_again_in_silence() {
    let (folder, all) = store_with_log();
    let logs = folder.names().expect("a list").into_iter().filter(|name| name.starts_with("log-"));
    logs.for_each(|name| folder.remove(&name).expect("removed"));
    assert!(matches!(Replica::open(Arc::new(folder.copy()), SMALL, Seat::default()), Err(OpenError::Damaged { .. })));
    let found = Found::in_log(&folder).expect("readable").expect("a log");
    assert!(found.damage().is_some_and(|damage| damage.place.contains("missing")), "{:?}", found.damage());
    found.restore_to(&folder, &[]).expect("the disk works");
    let left = names(&open(&folder));
    assert!(all.starts_with(&left) && !left.is_empty(), "{left:?}");
}

#[test]
fn what_cannot_be_read_at_all_is_left_alone() {
    let folder = SimulatedFolder::default();
    assert!(Found::in_log(&folder).expect("an empty folder").is_none() && !has_log(&folder).expect("a list"));
    let (folder, _) = store_and_backup();
    assert!(has_log(&folder).expect("a list"));
    let all = folder.names().expect("a list");
    for name in all.iter().filter(|name| name.starts_with("snapshot-")) {
        folder.alter(name, |bytes| bytes.truncate(40));
    }
    assert!(matches!(Found::in_log(&folder), Err(OpenError::Damaged { .. })));
    assert_eq!(folder.names().expect("a list"), all);
}

#[test]
fn what_a_later_release_wrote_is_not_given_up() {
    let (folder, backup) = store_and_backup();
    let name = folder.names().expect("a list").into_iter().find(|name| name.starts_with("log-")).expect("a log");
    let later = "stevedore-log 2 77 0 1 extra";
    let sum = twox_hash::XxHash3_64::oneshot(later.as_bytes());
    folder.alter(&name, |bytes| *bytes = format!("{later} {sum:016x}\nwho knows").into_bytes());
    assert!(matches!(Found::in_log(&folder), Err(OpenError::Format { .. })));
    assert!(matches!(Replica::open(Arc::new(folder), SMALL, Seat::default()), Err(OpenError::Format { .. })));
    let text = String::from_utf8(backup).expect("text");
    let (first, rest) = text.split_once('\n').expect("lines");
    let first = first.rsplit_once(' ').expect("a sum").0.replace("snapshot 1", "snapshot 2");
    let sum = twox_hash::XxHash3_64::oneshot(first.as_bytes());
    let backup = format!("{first} {sum:016x}\n{rest}").into_bytes();
    assert!(matches!(Found::in_backup(&backup, "x"), Err(OpenError::Format { .. })));
    assert_eq!(verify(&backup[..]).expect_err("later").to_string(), BackupError::Format.to_string());
}

#[test]
fn a_backup_under_load_is_one_sequence() {
    let folder = SimulatedFolder::default();
    let log = Options { segment_bytes: 64 << 10, ..SMALL.log };
    let options = ReplicaOptions { log, kept_changes: 10_000, snapshot_bytes: 20_000, ..SMALL };
    let replica = Replica::open(Arc::new(folder), options, Seat::default()).expect("a new store");
    let backups = thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|thread| {
                let replica = &replica;
                scope.spawn(move || (0..100).for_each(|number| put(replica, &format!("/{thread}/{number}"))))
            })
            .collect();
        let mut backups = Vec::new();
        while backups.len() < 5 || (backups.len() < 30 && writers.iter().any(|writer| !writer.is_finished())) {
            let before = replica.read(|namespace| namespace.sequence()).expect("it leads");
            let backup = replica.backup(None).expect("the disk works");
            assert!(backup.sequence >= before, "it has all that was acknowledged before");
            backups.push(bytes(&backup));
            replica.snapshot_if_due().expect("the disk works");
        }
        backups
    });
    let sequence = replica.read(|namespace| namespace.sequence()).expect("it leads");
    for backup in backups {
        let contents = verify(&backup[..]).expect("whole");
        let mut namespace = Found::in_backup(&backup, "backup").expect("whole").namespace;
        assert_eq!((contents.sequence, contents.entries), (namespace.sequence(), namespace.entry_count()));
        // Its state, and what followed, are the state of now.
        while namespace.sequence() < sequence {
            let changes = replica.changes_after(namespace.sequence(), 1 << 20).expect("they are kept");
            changes.iter().for_each(|(sequence, change)| drop(namespace.apply(*sequence, change)));
        }
        assert_eq!(Ok(namespace.hash()), replica.read(|namespace| namespace.hash()));
    }
}

#[test]
fn a_backup_waits_for_a_snapshot_that_is_being_written() {
    let folder = SimulatedFolder::default();
    let options = ReplicaOptions { snapshot_bytes: 1, ..SMALL };
    let replica = Replica::open(Arc::new(folder.clone()), options, Seat::default()).expect("a new store");
    put(&replica, "/a");
    folder.hold_syncs(true);
    thread::scope(|scope| {
        let snapshot = scope.spawn(|| replica.snapshot_if_due().expect("the disk works"));
        kit::eventually("it waits for the disk", || folder.names().expect("a list").contains(&"new-snapshot".into()));
        let soon = Instant::now() + Duration::from_millis(20);
        let replica = &replica;
        let hasty = scope.spawn(move || replica.backup(Some(soon)).map(drop));
        let is_given_up = kit::comes_true(Duration::from_secs(10), || hasty.is_finished());
        folder.hold_syncs(false);
        assert!(is_given_up, "two were written at a time");
        let error = hasty.join().expect("no panic").expect_err("there was no time");
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        assert!(snapshot.join().expect("no panic"));
    });
    assert_eq!(verify(&bytes(&replica.backup(None).expect("the disk works"))[..]).expect("whole").entries, 1);
}

#[test]
fn a_backup_without_news_is_the_last_snapshot() {
    let folder = SimulatedFolder::default();
    let replica = open(&folder);
    let first = replica.backup(None).expect("the disk works");
    assert_eq!(replica.backup(None).expect("the disk works").sequence, first.sequence);
    let begun = bytes(&first);
    (0..3).for_each(|number| {
        put(&replica, &format!("/{number}"));
        assert!(replica.backup(None).expect("the disk works").sequence > first.sequence);
    });
    assert_eq!(bytes(&first), begun, "its file is still there for one that reads it");
}

#[test]
fn a_backup_that_takes_too_long_is_given_up() {
    let replica = open(&SimulatedFolder::default());
    put(&replica, "/a");
    let given_up = replica.backup(Some(Instant::now())).expect_err("there is no time");
    assert_eq!(given_up.kind(), std::io::ErrorKind::TimedOut);
    put(&replica, "/b");
    assert_eq!(verify(&bytes(&replica.backup(None).expect("the disk works"))[..]).expect("whole").entries, 2);
}

#[test]
fn no_altered_or_shortened_backup_checks() {
    let (_, backup) = store_and_backup();
    assert_eq!(verify(&backup[..]).expect("whole").entries, 1);
    for at in 0..backup.len() {
        assert!(verify(&backup[..at]).is_err(), "cut at {at}");
        for bit in [0, 5] {
            let mut altered = backup.clone();
            altered[at] ^= 1 << bit;
            assert!(verify(&altered[..]).is_err(), "bit {bit} of byte {at}");
            assert!(Found::in_backup(&altered, "x").is_err(), "bit {bit} of byte {at}");
        }
    }
    // However it comes: the pieces of a socket are not lines.
    for piece in [1, 7, 100] {
        let mut verifier = Verifier::default();
        backup.chunks(piece).for_each(|piece| std::io::Write::write_all(&mut verifier, piece).expect("good so far"));
        verifier.finish().expect("whole");
    }
}
