//! Packs against a disk that keeps no more than it promises.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kit::hunt;

use super::file::FIRST_RECORD;
use super::*;
use crate::disk::RealFolder;
use crate::disk::simulated::{Fault, SimulatedFolder};
use crate::identity::History;

const SMALL: Options = Options {
    sync: SyncMode::Always,
    most_small: 120,
    pack_bytes: FIRST_RECORD + 1500,
    pack_records: 10,
    open_packs: 2,
    capacity: None,
};

/// Of the places where a disk can be damaged or cut off, each run tries one in so many.
const SHARES: usize = 3;

/// The seeds of this run's histories. More for a hunt: `HISTORIES=100000 cargo test --release -p depot pack`.
fn histories() -> impl Iterator<Item = u64> {
    let count = hunt::number("HISTORIES").unwrap_or(if hunt::is_long() { 1_000 } else { 20 });
    let first = hunt::seed() * count;
    first..first + count
}

/// This run's share of the bytes of a file of this length. Padding is alike: a little of it is enough.
fn places(length: usize) -> impl Iterator<Item = usize> {
    let share = hunt::share(SHARES).take_while(move |at| *at < length);
    share.filter(|at| at % 4096 < 150 || *at >= FIRST_RECORD as usize)
}

fn key(number: u64) -> Key {
    Key { history: History(7), term: 1 + number / 10, number }
}

/// An object never changes: its key says its bytes. About every fifth is a file of its own.
fn content(key: &Key) -> Vec<u8> {
    let mut rng = Rng::with_seed(key.number);
    let length = if rng.u8(..5) == 0 { rng.usize(121..200) } else { rng.usize(..120) };
    (0..length).map(|_| rng.u8(..)).collect()
}

fn put_bytes(disk: &Disk, key: Key, bytes: &[u8]) -> Result<Stored, PutError> {
    disk.put(key, bytes.len() as u64, Checksum::of(bytes), &mut &*bytes, Purpose::Put)
}

fn put(disk: &Disk, number: u64) -> Result<Stored, PutError> {
    put_bytes(disk, key(number), &content(&key(number)))
}

fn put_many(disk: &Disk, keys: &[Key]) -> Result<Position, PutError> {
    let contents: Vec<Vec<u8>> = keys.iter().map(content).collect();
    let announced = keys.iter().zip(&contents).map(|(key, bytes)| announced(*key, bytes));
    disk.put_many(&announced.collect::<Vec<_>>(), &contents.concat(), Purpose::Put)
}

fn announced(key: Key, bytes: &[u8]) -> Announced {
    Announced { key, length: bytes.len() as u64, checksum: Checksum::of(bytes) }
}

/// Whether its object lies in a pack.
fn is_small(key: &Key) -> bool {
    content(key).len() <= SMALL.most_small as usize
}

fn get(disk: &Disk, key: &Key) -> Result<Vec<u8>, GetError> {
    let mut object = disk.open_object(key)?;
    let (mut bytes, count) = (Vec::new(), object.block_sums().len());
    object.read(0..count, &mut bytes)?;
    assert_eq!((bytes.len() as u64, Checksum::of(&bytes)), (object.length(), object.checksum()));
    Ok(bytes)
}

fn open(folder: &SimulatedFolder) -> Result<(Disk, Recovered), OpenError> {
    Disk::open(Arc::new(folder.clone()), SMALL)
}

/// What was acknowledged of each object that was ever put: whether it is there.
#[derive(Clone, Debug, Default)]
struct Known {
    there: BTreeMap<Key, bool>,
    /// The last operation failed: these may be there or not.
    unknown: Vec<Key>,
    /// A power cut may have kept a later one of several records that were not synced, and lost what was before it: a record, or
    /// a part of one, which is then a damaged copy that was never acknowledged.
    may_have_gaps: bool,
}

impl Known {
    fn of(numbers: impl IntoIterator<Item = u64>) -> Self {
        Self { there: numbers.into_iter().map(|number| (key(number), true)).collect(), ..Self::default() }
    }
}

/// Random work on a disk, until an operation fails.
fn work(folder: &SimulatedFolder, rng: &mut Rng, known: &mut Known, steps: usize) {
    let Ok((disk, _)) = open(folder) else { return };
    for _ in 0..steps {
        let number = rng.u64(..30);
        let key = key(number);
        let (keys, is_there, is_done) = match rng.usize(..12) {
            0..5 => (vec![key], true, put(&disk, number).is_ok()),
            5..7 => {
                let keys: Vec<Key> = (number..30).map(self::key).filter(is_small).take(rng.usize(..6)).collect();
                let is_done = put_many(&disk, &keys).is_ok();
                (keys, true, is_done)
            }
            7..10 => (vec![key], false, disk.remove(&key).is_ok()),
            10 => (Vec::new(), false, disk.compact_if_due(&mut |_| Ok(())).is_ok()),
            _ => {
                disk.scrub_step(None, 1000);
                continue;
            }
        };
        if !is_done {
            known.may_have_gaps |= keys.len() > 1;
            known.unknown = keys;
            return;
        }
        known.there.extend(keys.into_iter().map(|key| (key, is_there)));
    }
    if rng.bool() {
        let _ = disk.settle();
    }
}

/// The disk opens, holds what was acknowledged and nothing else, and takes more.
fn check(folder: &SimulatedFolder, known: &mut Known, what: &str) {
    let (disk, recovered) = open(folder).unwrap_or_else(|error| panic!("{what}: {error}"));
    for unknown in known.unknown.drain(..) {
        known.there.insert(unknown, get(&disk, &unknown).is_ok());
    }
    for (key, is_there) in &known.there {
        match get(&disk, key) {
            Ok(bytes) if *is_there => assert!(bytes == content(key), "{what}: {key} has other bytes"),
            Err(GetError::Missing) if !is_there => {}
            Err(GetError::Damaged) if !is_there && known.may_have_gaps => {}
            other => panic!("{what}: {key} is {is_there}, but {:?}; {recovered:?}", other.map(|bytes| bytes.len())),
        }
    }
    let there = known.there.values().filter(|is_there| **is_there).count();
    assert_eq!(recovered.objects - recovered.damaged, there as u64, "{what}");
    assert!((recovered.damaged, recovered.lost_bytes) == (0, 0) || known.may_have_gaps, "{what}: {recovered:?}");
    check_counts(&disk, what);
    put(&disk, 1000).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (disk, _) = open(&folder.after_kill()).unwrap_or_else(|error| panic!("{what}, and again: {error}"));
    assert_eq!(get(&disk, &key(1000)).ok(), Some(content(&key(1000))), "{what}");
}

/// What the index counts is what it has.
fn check_counts(disk: &Disk, what: &str) {
    let state = disk.state.lock();
    let index = &state.index;
    let entries: Vec<_> = index.after(None).map(|(_, entry)| entry).collect();
    assert_eq!(index.objects, entries.len() as u64, "{what}");
    assert_eq!(index.bytes, entries.iter().map(|entry| u64::from(entry.length)).sum::<u64>(), "{what}");
    for (number, pack) in &index.packs {
        let live = entries.iter().filter(|entry| entry.pack == *number);
        assert_eq!(pack.live, live.clone().count() as u32, "{what}: pack {number}");
        assert_eq!(
            pack.live_bytes,
            live.map(|entry| index::weight(entry.length)).sum::<u64>(),
            "{what}: pack {number}"
        );
        assert!(pack.needed_bytes() <= pack.bytes, "{what}: pack {number}: {pack:?}");
    }
}

#[test]
fn what_was_put_comes_back_and_what_was_removed_does_not() {
    for seed in histories() {
        let (mut folder, mut rng, mut known) = (SimulatedFolder::default(), Rng::with_seed(seed), Known::default());
        for round in 0..4 {
            work(&folder, &mut rng, &mut known, 60);
            assert_eq!(known.unknown, []);
            // Killed: everything that was written is there.
            check(&folder.after_kill(), &mut known, &format!("seed {seed}, round {round}"));
            folder = folder.after_kill();
        }
    }
}

#[test]
fn a_kill_at_any_operation_loses_nothing_acknowledged() {
    for seed in histories() {
        let (folder, mut rng, mut known) = (SimulatedFolder::default(), Rng::with_seed(seed), Known::default());
        work(&folder, &mut rng, &mut known, 30);
        folder.fail_at(1 + seed % 90, Fault::End);
        work(&folder, &mut rng, &mut known, 60);
        check(&folder.after_kill(), &mut known, &format!("seed {seed}"));
    }
}

#[test]
fn what_was_verified_for_a_controller_is_on_the_disk() {
    for sync in [SyncMode::Always, SyncMode::Interval, SyncMode::Never] {
        let folder = SimulatedFolder::default();
        let (disk, _) = Disk::open(Arc::new(folder.clone()), Options { sync, ..SMALL }).expect("a disk");
        for number in 0..40 {
            put(&disk, number).expect("stored");
        }
        // In packs that are sealed, in the open one, and in files of their own.
        for number in 0..40 {
            disk.verify_on_disk(&key(number)).expect("sound");
            let left = folder.after_power_cut(&mut Rng::with_seed(number));
            let (disk, _) = open(&left).expect("a disk after a power cut");
            let found = get(&disk, &key(number));
            assert!(found.is_ok_and(|bytes| bytes == content(&key(number))), "{sync:?}: object {number} is lost");
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    for seed in histories() {
        let (mut folder, mut rng, mut known) = (SimulatedFolder::default(), Rng::with_seed(seed), Known::default());
        // One cut after another: what recovery does is cut into as well.
        for round in 0..5 {
            folder.fail_at(rng.u64(1..120), Fault::End);
            work(&folder, &mut rng, &mut known, 60);
            for _ in 0..3 {
                check(&folder.after_power_cut(&mut rng), &mut known.clone(), &format!("seed {seed}, round {round}"));
            }
            folder = folder.after_power_cut(&mut rng);
            let unknown = std::mem::take(&mut known.unknown);
            if !unknown.is_empty()
                && let Ok((disk, _)) = open(&folder.copy())
            {
                known.there.extend(unknown.into_iter().map(|key| (key, get(&disk, &key).is_ok())));
            }
        }
    }
}

#[test]
fn a_failed_operation_loses_nothing_acknowledged() {
    for seed in histories() {
        let (folder, mut rng, mut known) = (SimulatedFolder::default(), Rng::with_seed(seed), Known::default());
        work(&folder, &mut rng, &mut known, 30);
        folder.fail_at(1 + seed % 90, Fault::Error);
        work(&folder, &mut rng, &mut known, 60);
        check(&folder.after_kill(), &mut known, &format!("seed {seed}"));
    }
}

#[test]
fn after_a_failed_sync_nothing_is_accepted_and_all_can_be_read() {
    let folder = SimulatedFolder::default();
    let (disk, _) = open(&folder).expect("a new disk");
    put(&disk, 1).expect("stored");
    let position = disk.position();
    folder.fail_at(2, Fault::Error); // the first one appends
    let Err(PutError::Disk(error @ DiskError::Failed(_))) = put(&disk, 2) else { panic!("the disk fails") };
    assert!(
        matches!(put(&disk, 3), Err(PutError::Disk(again)) if again == error),
        "the system would call this one good"
    );
    assert_eq!(disk.remove(&key(1)), Err(error.clone()));
    assert_eq!(disk.settle(), Err(error));
    assert!(disk.failure().is_some());
    assert_eq!(get(&disk, &key(1)).ok(), Some(content(&key(1))));
    assert_eq!(disk.position(), position, "what was not synced is not reported");
    assert_eq!(disk.changes(0, 10).map(|changes| changes.len()), Some(1));
}

/// A disk with sealed packs, an open one, and objects of their own.
fn filled() -> (SimulatedFolder, Known) {
    let folder = SimulatedFolder::default();
    let (disk, _) = open(&folder).expect("a new disk");
    for number in 0..26 {
        put(&disk, number).expect("stored");
    }
    let names = folder.names().expect("a list");
    assert!(names.iter().filter(|name| name.starts_with("pack")).count() >= 3, "{names:?}");
    assert!(names.iter().filter(|name| name.starts_with("object")).count() > 2, "{names:?}");
    (folder, Known::of(0..26))
}

/// Which objects cannot be had; all others have their bytes.
fn missed(disk: &Disk, known: &Known, what: &str) -> Vec<Key> {
    let mut missed = Vec::new();
    for key in known.there.keys() {
        match get(disk, key) {
            Ok(bytes) => assert!(bytes == content(key), "{what}: {key} has other bytes"),
            Err(GetError::Missing | GetError::Damaged) => missed.push(*key),
            Err(error) => panic!("{what}: {key}: {error}"),
        }
    }
    missed
}

#[test]
fn any_flipped_byte_loses_its_record_only() {
    let (folder, known) = filled();
    let mut lost = 0;
    for name in folder.names().expect("a list") {
        let length = folder.read(&name).expect("read").len();
        for at in places(length) {
            let (folder, what) = (folder.copy(), format!("byte {at} of {name}"));
            folder.alter(&name, |bytes| bytes[at] ^= 0x10);
            match open(&folder) {
                Ok((disk, _)) => {
                    let missed = missed(&disk, &known, &what);
                    assert!(missed.len() <= 1, "{what}: {missed:?}");
                    lost += missed.len();
                    // It comes again, and then all is well, also after a restart. Tried for some, as it takes long.
                    if missed.is_empty() || at % 16 > 0 {
                        continue;
                    }
                    for key in &missed {
                        let stored = put(&disk, key.number).unwrap_or_else(|error| panic!("{what}: {error}"));
                        assert!(!stored.was_there, "{what}");
                    }
                    assert_eq!(self::missed(&disk, &known, &what), [], "{what}");
                    drop(disk);
                    let (disk, recovered) =
                        open(&folder.after_kill()).unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(self::missed(&disk, &known, &what), [], "{what}");
                    assert_eq!((recovered.objects, recovered.damaged), (26, 0), "{what}");
                }
                Err(OpenError::Damaged { file } | OpenError::Format { file }) => {
                    assert_eq!((file.as_str(), name.as_str()), (identity::NAME, identity::NAME), "{what}");
                    assert_eq!(folder.operations(), 0, "{what}: nothing was changed");
                }
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }
    assert!(lost > 2000 / SHARES, "{lost} flips cost an object");
}

#[test]
fn a_file_cut_at_any_length_loses_what_was_behind_only() {
    let (folder, known) = filled();
    for name in folder.names().expect("a list") {
        let length = folder.read(&name).expect("read").len();
        let mut before = usize::MAX;
        for cut in places(length) {
            let (folder, what) = (folder.copy(), format!("{name} cut at {cut}"));
            folder.alter(&name, |bytes| bytes.truncate(cut));
            match open(&folder) {
                Ok((disk, _)) => {
                    let missed = missed(&disk, &known, &what).len();
                    assert!(missed <= before, "{what}: {missed}, and {before} if more is cut");
                    before = missed;
                }
                Err(_) => assert_eq!(name, identity::NAME, "{what}"),
            }
        }
        assert!(before <= 1 || name == identity::NAME, "{name}");
    }
}

#[test]
fn any_flipped_byte_of_a_mark_leaves_other_objects_alone() {
    let (folder, mut known) = filled();
    let (disk, _) = open(&folder).expect("in order");
    for number in [0, 1, 2, 20, 21] {
        disk.remove(&key(number)).expect("removed");
        known.there.remove(&key(number));
    }
    drop(disk);
    let name = folder.names().expect("a list").into_iter().rfind(|name| name.starts_with("pack")).expect("a pack");
    let length = folder.read(&name).expect("read").len();
    for at in FIRST_RECORD as usize..length {
        let (folder, what) = (folder.copy(), format!("byte {at} of {name}"));
        folder.alter(&name, |bytes| bytes[at] ^= 4);
        let (disk, recovered) = open(&folder).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(missed(&disk, &known, &what).len() <= 1, "{what}");
        // Without its mark an object is there again, with its own bytes: the Controller has it removed once more.
        assert!(recovered.objects <= known.there.len() as u64 + 1, "{what}: {recovered:?}");
    }
}

#[test]
fn stored_content_cannot_pose_as_a_record() {
    for guess in [true, false] {
        let folder = SimulatedFolder::default();
        let options = Options { most_small: 1 << 20, pack_bytes: 1 << 20, pack_records: 1000, ..SMALL };
        let (disk, _) = Disk::open(Arc::new(folder.clone()), options).expect("a new disk");
        for number in 0..5 {
            put(&disk, number).expect("stored");
            disk.remove(&key(number)).expect("removed");
        }
        // A client stores a copy of all that this very pack holds, or of another's.
        let name = folder.names().expect("a list").into_iter().rfind(|name| name.starts_with("pack")).expect("a pack");
        let mut stolen = folder.read(&name).expect("the pack").split_off(FIRST_RECORD as usize);
        if !guess {
            let salt: [u8; 8] = stolen[..8].try_into().expect("a salt");
            let places: Vec<_> = (0..stolen.len() - 8).filter(|at| stolen[*at..at + 8] == salt).collect();
            assert_eq!(places.len(), 10, "each record begins with the salt");
            places.iter().for_each(|at| stolen[*at] ^= 1);
        }
        let carrier = folder.read(&name).expect("the pack").len();
        put_bytes(&disk, key(500), &stolen).expect("stored");
        put(&disk, 6).expect("stored");
        assert_eq!(get(&disk, &key(500)).ok(), Some(stolen));
        drop(disk);
        // Its own header is damaged: now its content is searched for records.
        folder.alter(&name, |bytes| bytes[carrier + 30] ^= 1);
        let (disk, recovered) = Disk::open(Arc::new(folder.after_kill()), options).expect("it opens");
        assert_eq!((recovered.objects, get(&disk, &key(6)).ok()), (1, Some(content(&key(6)))), "{recovered:?}");
        assert!(recovered.lost_bytes > 0);
    }
}

/// The room is enough for the marks of some of the objects. What is said to be removed stays removed, without another sync.
#[test]
fn each_of_many_removals_on_a_full_disk_says_what_it_did() {
    let keys = [key(1), key(2), key(3)];
    let mut mixed = 0;
    for room in 0..400 {
        let folder = SimulatedFolder::default();
        let (disk, _) = open(&folder).expect("a new disk");
        for key in &keys {
            put_bytes(&disk, *key, b"small").expect("there is room");
        }
        folder.set_room(room);
        let outcomes = disk.remove_all(&keys);
        let removed: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
        assert!(outcomes.iter().flat_map(|outcome| outcome.as_ref().err()).all(|error| *error == DiskError::Full));
        mixed += usize::from(removed.contains(&true) && removed.contains(&false));
        drop(disk);
        let after = folder.after_power_cut(&mut Rng::with_seed(room as u64));
        after.set_room(1 << 20);
        let (disk, _) = open(&after).expect("a disk after a power cut");
        let gone: Vec<bool> = keys.iter().map(|key| matches!(get(&disk, key), Err(GetError::Missing))).collect();
        assert_eq!(gone, removed, "with room for {room} bytes");
    }
    assert!(mixed > 0, "no room was enough for some and not for all");
}

#[test]
fn a_full_disk_refuses_what_does_not_fit_and_keeps_the_rest() {
    let (folder, mut known) = filled();
    let (disk, _) = open(&folder).expect("in order");
    for room in 0..400 {
        folder.set_room(room);
        let number = 100 + room as u64;
        match put(&disk, number) {
            Ok(_) => drop(known.there.insert(key(number), true)),
            Err(PutError::Full) => {
                known.there.insert(key(number), false);
                // Only what rotation goes on with is left.
                let left = folder.names().expect("a list");
                assert!(left.iter().all(|name| !name.starts_with(NEW) || name == NEW_PACK), "{left:?}");
            }
            Err(error) => panic!("with room for {room} bytes: {error}"),
        }
    }
    folder.set_room(1 << 20);
    put(&disk, 99).expect("there is room again");
    known.there.insert(key(99), true);
    check(&folder.after_kill(), &mut known, "after the disk was full");
}

#[test]
fn each_purpose_stops_at_its_share_of_the_disk() {
    let folder = SimulatedFolder::default();
    // The system is not asked for each put, so each is at a disk that has just been opened.
    let takes = |percent: u64, purpose| {
        let (disk, _) = open(&folder).expect("a disk");
        folder.set_space(Space { total: 1000, available: 1000 - 10 * percent });
        disk.put(key(percent), 1, Checksum::of(b"x"), &mut &b"x"[..], purpose).is_ok()
    };
    for (purpose, most) in [(Purpose::Balance, 90), (Purpose::Put, 95), (Purpose::Repair, 97)] {
        assert!(takes(most - 1, purpose) && !takes(most, purpose), "{purpose:?}");
    }
}

#[test]
fn a_full_disk_takes_objects_as_soon_as_there_is_space() {
    let folder = SimulatedFolder::default();
    let (disk, _) = open(&folder).expect("a new disk");
    let takes = |number, available| {
        folder.set_space(Space { total: 1000, available });
        disk.put(key(number), 1, Checksum::of(b"x"), &mut &b"x"[..], Purpose::Put).is_ok()
    };
    assert!(!takes(1, 0) && takes(1, 1000));
}

#[test]
fn what_is_not_as_announced_leaves_no_trace() {
    let folder = SimulatedFolder::default();
    let (disk, _) = open(&folder).expect("a new disk");
    for number in 0..20 {
        let bytes = content(&key(number));
        let length = bytes.len() as u64;
        let longer = disk.put(key(number), length + 1, Checksum::of(&bytes), &mut &bytes[..], Purpose::Put);
        assert!(matches!(longer, Err(PutError::Source(_))), "{longer:?}");
        let other = disk.put(key(number), length, Checksum(5), &mut &bytes[..], Purpose::Put);
        assert!(matches!(other, Err(PutError::Mismatch { found, .. }) if found == Checksum::of(&bytes)), "{other:?}");
    }
    let huge = disk.put(key(1), MOST_BYTES + 1, Checksum(5), &mut &b""[..], Purpose::Put);
    assert!(matches!(huge, Err(PutError::TooLarge)));
    assert_eq!(folder.names().expect("a list"), ["identity", "pack-0000000001"]);
    assert_eq!(disk.position().number, 0);
}

#[test]
fn a_key_is_used_once() {
    let (folder, _) = filled();
    let (disk, _) = open(&folder).expect("in order");
    for number in 0..26 {
        let bytes = content(&key(number));
        let again = disk.put(key(number), bytes.len() as u64, Checksum::of(&bytes), &mut &b""[..], Purpose::Put);
        assert!(again.expect("it is there").was_there, "and nothing is read");
        let other = put_bytes(&disk, key(number), b"other bytes");
        assert!(matches!(other, Err(PutError::Conflict)), "{other:?}");
    }
    assert_eq!(disk.position().number, 0);
}

/// A disk with one object of three blocks and a bit, in a pack or in a file of its own.
fn with_blocks(most_small: u32) -> (SimulatedFolder, Options, Vec<u8>) {
    let folder = SimulatedFolder::default();
    let options = Options { most_small, pack_bytes: 1 << 20, ..SMALL };
    let (disk, _) = Disk::open(Arc::new(folder.clone()), options).expect("a new disk");
    let mut rng = Rng::with_seed(3);
    let bytes: Vec<u8> = (0..3 * BLOCK_BYTES + 100).map(|_| rng.u8(..)).collect();
    put_bytes(&disk, key(1), &bytes).expect("stored");
    (folder, options, bytes)
}

#[test]
fn a_damaged_block_is_withheld_reported_and_remembered() {
    for most_small in [120, 1 << 20] {
        let (folder, options, bytes) = with_blocks(most_small);
        let name = folder.names().expect("a list").into_iter().max_by_key(|name| folder.read(name).unwrap().len());
        let name = name.expect("a file");
        let start =
            folder.read(&name).unwrap().windows(50).position(|window| window == &bytes[..50]).expect("it is there");
        // Shut down in order, the pack is open: its content is looked at when it is opened, so damage it afterwards.
        let (disk, recovered) = Disk::open(Arc::new(folder.clone()), options).expect("in order");
        assert_eq!(recovered.damaged, 0);
        folder.alter(&name, |bytes| bytes[start + 2 * BLOCK_BYTES + 7] ^= 1);

        let mut object = disk.open_object(&key(1)).expect("it is there");
        let mut buffer = Vec::new();
        object.read(1..2, &mut buffer).expect("a good block, read alone");
        assert!(buffer == bytes[BLOCK_BYTES..2 * BLOCK_BYTES]);
        object.read(3..9, &mut buffer).expect("the last one");
        assert!(buffer == bytes[3 * BLOCK_BYTES..]);
        assert_eq!(disk.changes(0, 9).expect("kept").len(), 0);
        assert!(matches!(object.read(0..4, &mut buffer), Err(GetError::Damaged)));
        assert!(buffer == bytes[..2 * BLOCK_BYTES], "the good blocks before it");

        let now = Now::Damaged { length: bytes.len() as u32, checksum: Checksum::of(&bytes) };
        assert_eq!(disk.changes(0, 9), Some(vec![Change { key: key(1), now }]));
        drop(object);
        drop(disk);
        // It is known after a restart, its good blocks can still be read, and the object can be stored anew.
        let folder = folder.after_kill();
        let (disk, recovered) = Disk::open(Arc::new(folder.clone()), options).expect("in order");
        assert_eq!((recovered.objects, recovered.damaged), (1, 1));
        assert_eq!(disk.inventory(None, 5).expect("a page").objects, [(key(1), now)]);
        disk.open_object(&key(1)).expect("it is there").read(1..2, &mut buffer).expect("a good block");
        assert!(!put_bytes(&disk, key(1), &bytes).expect("stored").was_there);
        assert!(get(&disk, &key(1)).expect("sound") == bytes);
        drop(disk);
        let (disk, recovered) = Disk::open(Arc::new(folder.after_kill()), options).expect("in order");
        assert_eq!((recovered.objects, recovered.damaged), (1, 0));
        disk.verify(&key(1)).expect("sound");
    }
}

#[test]
fn the_scrub_finds_what_has_decayed() {
    let (folder, known) = filled();
    let (disk, _) = open(&folder).expect("in order");
    let mut victims = Vec::new();
    for number in [3, 8, 20] {
        let bytes = content(&key(number));
        for name in folder.names().expect("a list") {
            let read = folder.read(&name).expect("read");
            if let Some(at) = read.windows(bytes.len()).position(|window| window == bytes) {
                folder.alter(&name, |bytes| bytes[at] ^= 1);
                victims.push(key(number));
            }
        }
    }
    let (mut found, mut sound, mut after) = (Vec::new(), 0, None);
    loop {
        let step = disk.scrub_step(after, 500);
        found.extend(step.damaged);
        sound += step.objects;
        after = step.last;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, victims);
    assert_eq!(sound as usize, known.there.len() - victims.len());
    assert_eq!(disk.usage().expect("told").damaged, 3);
}

#[test]
fn a_round_of_the_scrub_goes_on_after_a_restart() {
    let (folder, _) = filled();
    let (disk, _) = open(&folder).expect("in order");
    let new = disk.scrub_round();
    assert!(new.after.is_none() && new.age() < Duration::from_secs(60), "{new:?}");
    let half = ScrubRound { after: Some(key(8)), begun: new.begun - 500, completed: new.completed - 1000 };
    disk.keep_scrub_round(&half).expect("kept");
    drop(disk);
    let (disk, _) = open(&folder).expect("in order");
    let mut round = disk.scrub_round();
    assert_eq!((round, round.begins_in()), (half, Duration::ZERO));
    assert!(round.age() >= Duration::from_secs(1000), "{round:?}");
    round.complete(Duration::from_secs(3000));
    assert_eq!((round.after, round.begun), (None, half.begun + 3000), "a period after the last beginning");
    assert!(round.age() < Duration::from_secs(60) && round.begins_in() > Duration::from_secs(2400), "{round:?}");
    round.complete(Duration::ZERO);
    assert!(round.begins_in() <= Duration::from_secs(2500), "{round:?}");
    // What cannot be read says nothing.
    disk.keep_scrub_round(&half).expect("kept");
    for damage in [&b""[..], b"scrub 2 - 1 1\n", b"scrub 1 - 1\n", b"scrub 1 - 1 1", b"\xff\n"] {
        folder.alter("scrub", |bytes| *bytes = damage.to_vec());
        assert!(disk.scrub_round().age() < Duration::from_secs(60), "{damage:?}");
    }
}

#[test]
fn an_inventory_and_the_changes_since_are_what_is_there() {
    let (folder, _) = filled();
    let (disk, _) = open(&folder).expect("in order");
    let from = disk.position();
    let mut told = BTreeMap::new();
    let mut after = None;
    // While pages are read, objects come and go on both sides of the cursor.
    for turn in 0.. {
        let page = disk.inventory(after, 4).expect("a page");
        assert!(page.objects.len() <= 4);
        after = page.objects.last().map(|(key, _)| *key);
        told.extend(page.objects);
        if page.is_last {
            break;
        }
        put(&disk, 100 - turn).expect("stored");
        disk.remove(&key(turn * 5)).expect("removed");
    }
    for change in disk.changes(from.number, 1000).expect("kept") {
        told.insert(change.key, change.now);
    }
    told.retain(|_, now| *now != Now::Removed);
    let state = disk.state.lock();
    let there: BTreeMap<_, _> = state.index.after(None).map(|(key, entry)| (key, entry.now())).collect();
    assert_eq!(told, there);
}

#[test]
fn changes_that_are_not_kept_are_not_passed_over() {
    let mut index = Index::default();
    for number in 0..70_000 {
        index.changed(key(number), Now::Removed);
    }
    assert_eq!(index.changes(4_000, 70_000, 5), None);
    let changes = index.changes(69_990, 69_995, 100).expect("kept");
    assert_eq!(
        changes.iter().map(|change| change.key.number).collect::<Vec<_>>(),
        [69_990, 69_991, 69_992, 69_993, 69_994]
    );
    assert_eq!(index.changes(70_000, 70_000, 5), Some(Vec::new()));
}

#[test]
fn one_sync_serves_all_puts_that_wait() {
    let folder = SimulatedFolder::default();
    let options = Options { pack_bytes: 1 << 20, pack_records: 1000, ..SMALL };
    let (disk, _) = Disk::open(Arc::new(folder.clone()), options).expect("a new disk");
    let before = folder.syncs();
    folder.hold_syncs(true);
    std::thread::scope(|scope| {
        let store = |number: u64| put_bytes(&disk, key(number), b"some bytes").expect("stored");
        scope.spawn(move || store(0));
        let written = || disk.state.lock().index.number;
        while written() < 1 {
            std::thread::yield_now();
        }
        for number in 1..9 {
            scope.spawn(move || store(number));
        }
        while written() < 9 {
            std::thread::yield_now();
        }
        assert_eq!(disk.position().number, 0, "nothing is sure yet");
        folder.hold_syncs(false);
    });
    // The first put's, which may have begun before the others were written, and one for them.
    assert!((1..=2).contains(&(folder.syncs() - before)), "{} syncs", folder.syncs() - before);
    assert_eq!(disk.position().number, 9);
}

#[test]
fn one_sync_serves_all_objects_that_are_put_together() {
    let folder = SimulatedFolder::default();
    let options = Options { pack_bytes: 1 << 20, pack_records: 1000, ..SMALL };
    let (disk, _) = Disk::open(Arc::new(folder.clone()), options).expect("a new disk");
    let keys: Vec<Key> = (0..30).map(key).filter(is_small).collect();
    let before = folder.syncs();
    let position = put_many(&disk, &keys).expect("stored");
    assert_eq!((folder.syncs() - before, position, position.number), (1, disk.position(), keys.len() as u64));
    let again = put_many(&disk, &keys).expect("they are there");
    assert_eq!((folder.syncs() - before, again), (1, position), "nothing is written again");
    keys.iter().for_each(|key| assert_eq!(get(&disk, key).ok(), Some(content(key))));
}

#[test]
fn of_objects_that_are_put_together_none_is_stored_unless_all_are_as_announced() {
    let folder = SimulatedFolder::default();
    let (disk, _) = open(&folder).expect("a new disk");
    let good = announced(key(1), b"12345");
    let refused =
        |objects: &[Announced], content: &[u8]| disk.put_many(objects, content, Purpose::Put).expect_err("refused");
    let other = Announced { key: key(2), length: 5, checksum: Checksum(5) };
    assert!(matches!(refused(&[good, other], b"1234512345"), PutError::Mismatch { .. }));
    assert!(matches!(refused(&[good, Announced { key: key(2), ..good }], b"12345123"), PutError::TooLarge));
    let large = vec![7; SMALL.most_small as usize + 1];
    let parts = [&b"12345"[..], &large].concat();
    assert!(matches!(refused(&[good, announced(key(2), &large)], &parts), PutError::TooLarge));
    assert_eq!((disk.position().number, get(&disk, &key(1)).is_err()), (0, true));
    put_bytes(&disk, key(2), b"other").expect("stored");
    assert!(matches!(refused(&[Announced { key: key(2), ..good }], b"12345"), PutError::Conflict));
}

/// A disk on which several packs are due for compaction, one mark at least has to move along, and what is known of it.
fn due_for_compaction() -> (SimulatedFolder, Known) {
    let folder = SimulatedFolder::default();
    let (disk, _) = open(&folder).expect("a new disk");
    let mut known = Known::default();
    for number in 0..80 {
        put(&disk, number).expect("stored");
        known.there.insert(key(number), true);
    }
    for number in (0..80).filter(|number| number % 5 != 0 && *number != 1) {
        disk.remove(&key(number)).expect("removed");
        known.there.insert(key(number), false);
    }
    (folder, known)
}

#[test]
fn compaction_frees_space_and_comes_to_rest() {
    let (folder, mut known) = due_for_compaction();
    let size = |folder: &SimulatedFolder| {
        let names = folder.names().expect("a list");
        names.iter().map(|name| folder.read(name).expect("read").len()).sum::<usize>()
    };
    let before = size(&folder);
    let (disk, _) = open(&folder).expect("in order");
    let mut runs = 0;
    while let Some(compacted) = disk.compact_if_due(&mut |_| Ok(())).expect("it works") {
        assert!(compacted.packs > 0);
        check_counts(&disk, "compacting");
        runs += 1;
        assert!(runs < 20, "it does not come to rest");
    }
    assert!(size(&folder) * 2 < before, "{} of {before} bytes", size(&folder));
    check(&folder.after_kill(), &mut known, "after compaction");
    for key in known.there.keys() {
        disk.remove(key).expect("removed");
    }
    while disk.compact_if_due(&mut |_| Ok(())).expect("it works").is_some() {
        runs += 1;
        assert!(runs < 40, "it does not come to rest");
    }
    let packs = disk.state.lock().index.packs.clone();
    assert!(packs.len() <= 3, "{packs:?}");
}

#[test]
fn compaction_interrupted_at_any_operation_changes_nothing() {
    let (folder, known) = due_for_compaction();
    let mut rng = Rng::with_seed(hunt::seed());
    let counted = folder.copy();
    let (disk, _) = open(&counted).expect("in order");
    let before = counted.operations();
    while disk.compact_if_due(&mut |_| Ok(())).expect("it works").is_some() {}
    let operations = counted.operations() - before;
    assert!(operations > 10, "{operations}");
    for fault in [Fault::End, Fault::Error] {
        for at in hunt::share(SHARES).map(|at| 1 + at as u64).take_while(|at| *at <= operations) {
            let (folder, what) = (folder.copy(), format!("{fault:?} at {at} of {operations}"));
            let (disk, _) = open(&folder).expect("in order");
            folder.fail_at(at, fault);
            while matches!(disk.compact_if_due(&mut |_| Ok(())), Ok(Some(_))) {}
            for (key, is_there) in &known.there {
                assert_eq!(get(&disk, key).is_ok(), *is_there, "{what}: {key}, before a restart");
            }
            check(&folder.after_kill(), &mut known.clone(), &what);
            for _ in 0..3 {
                check(&folder.after_power_cut(&mut rng), &mut known.clone(), &what);
            }
        }
    }
}

#[test]
fn a_replaced_pack_that_cannot_be_removed_ends_all_writing() {
    // Else it would come back once the pack that replaces it is compacted away, and with it what was removed.
    let (folder, mut known) = due_for_compaction();
    let counted = folder.copy();
    let (disk, _) = open(&counted).expect("in order");
    let before = counted.operations();
    disk.compact_if_due(&mut |_| Ok(())).expect("it works").expect("it is due");
    let operations = counted.operations() - before;
    let (disk, _) = open(&folder).expect("in order");
    folder.fail_at(operations, Fault::Error); // the last one removes the last pack
    assert!(matches!(disk.compact_if_due(&mut |_| Ok(())), Err(DiskError::Failed(_))));
    assert!(matches!(put(&disk, 99), Err(PutError::Disk(DiskError::Failed(_)))));
    for (key, is_there) in &known.there {
        assert_eq!(get(&disk, key).is_ok(), *is_there, "{key}");
    }
    drop(disk);
    check(&folder.after_kill(), &mut known, "at the next start");
}

#[test]
fn what_is_removed_or_read_during_compaction_stays_so() {
    for at in 0..3 {
        let (folder, mut known) = due_for_compaction();
        let (disk, _) = Disk::open(Arc::new(folder.clone()), WIDE).expect("in order");
        // Read before, during and after: an open object stays where it is.
        let mut object = disk.open_object(&key(5)).expect("there");
        let mut calls = 0;
        let victims = [key(10), key(15), key(20), key(60)];
        let remove = |known: &mut Known| {
            for victim in victims {
                disk.remove(&victim).expect("removed");
                known.there.insert(victim, false);
            }
            put(&disk, 2).expect("stored again");
            known.there.insert(key(2), true);
        };
        while disk
            .compact_with(PIECE_OF_TEST, &mut |_| {
                calls += 1;
                if calls == 1 + at {
                    remove(&mut known);
                }
                Ok(())
            })
            .expect("it works")
            .is_some()
        {}
        assert!(calls > at, "{calls}");
        let mut buffer = Vec::new();
        object.read(0..1, &mut buffer).expect("still there for its reader");
        assert!(buffer == content(&key(5)));
        for (key, is_there) in &known.there {
            assert_eq!(get(&disk, key).is_ok(), *is_there, "{key}, before a restart");
        }
        // Only marks about the new pack say that these are gone: so it must be there after a power cut.
        for number in (25..60).step_by(5).filter(|number| content(&key(*number)).len() <= SMALL.most_small as usize) {
            disk.remove(&key(number)).expect("removed");
            known.there.insert(key(number), false);
        }
        for seed in 0..20 {
            let left = folder.after_power_cut(&mut Rng::with_seed(seed));
            check(&left, &mut known.clone(), &format!("after {at}, a power cut"));
        }
        check(&folder.after_kill(), &mut known, &format!("after {at}"));
    }
}

/// No new pack is begun meanwhile, which would have the folder synced.
const WIDE: Options = Options { pack_bytes: 1 << 20, pack_records: 1000, ..SMALL };

/// Compaction calls its pace after so few bytes.
const PIECE_OF_TEST: u64 = 1;

#[test]
fn compaction_keeps_the_only_record_of_a_damaged_object() {
    let (folder, known) = due_for_compaction();
    let (disk, _) = open(&folder).expect("in order");
    let victim = key(10);
    let bytes = content(&victim);
    for name in folder.names().expect("a list") {
        let read = folder.read(&name).expect("read");
        if let Some(at) = read.windows(bytes.len()).position(|window| window == bytes) {
            folder.alter(&name, |bytes| bytes[at] ^= 1);
        }
    }
    // The first time it finds the damage and leaves it at that, then it goes around it.
    for _ in 0..2 {
        while disk.compact_if_due(&mut |_| Ok(())).expect("it works").is_some() {}
    }
    let damaged = Now::Damaged { length: bytes.len() as u32, checksum: Checksum::of(&bytes) };
    let inventory = disk.inventory(None, 1000).expect("a page").objects;
    assert!(inventory.contains(&(victim, damaged)), "it was found, and is still there");
    let mut reads = 0;
    let again = disk.compact_with(PIECE_OF_TEST, &mut |_| {
        reads += 1;
        Ok(())
    });
    assert_eq!((again, reads), (Ok(None), 0), "nor is its pack read again and again");
    for (key, is_there) in known.there.iter().filter(|(key, _)| **key != victim) {
        assert_eq!(get(&disk, key).is_ok(), *is_there, "{key}");
    }
    // Once it is stored anew, the rest of the way is free.
    put(&disk, victim.number).expect("stored");
    while disk.compact_if_due(&mut |_| Ok(())).expect("it works").is_some() {}
    check(&folder.after_kill(), &mut known.clone(), "healed");
}

#[test]
fn compaction_leaves_a_pack_alone_that_lacks_a_record() {
    let (folder, known) = due_for_compaction();
    let (disk, _) = open(&folder).expect("in order");
    let small = |key: &Key| content(key).len() <= SMALL.most_small as usize;
    let victim = known.there.iter().find(|(key, is_there)| **is_there && small(key)).map(|(key, _)| *key);
    let victim = victim.expect("some are small");
    let (name, offset) = disk.locate(&victim).expect("there");
    // Its header: a scan passes over it, and only the footer says that there was something.
    folder.alter(&name, |bytes| bytes[offset as usize + 25] ^= 1);
    for _ in 0..2 {
        while disk.compact_if_due(&mut |_| Ok(())).expect("it works").is_some() {}
    }
    assert_eq!(disk.locate(&victim), Some((name.clone(), offset)), "what is left of it may still be of use");
    assert!(folder.names().expect("a list").contains(&name));
    assert!(matches!(get(&disk, &victim), Err(GetError::Damaged)));
    for (key, is_there) in known.there.iter().filter(|(key, _)| **key != victim) {
        assert_eq!(get(&disk, key).is_ok(), *is_there, "{key}");
    }
}

#[test]
fn a_disk_knows_who_it_is_and_counts_its_starts() {
    let folder = SimulatedFolder::default();
    let (disk, recovered) = open(&folder).expect("a new disk");
    assert!(recovered.is_new);
    let epoch = Epoch { history: History(8), term: 3, nonce: 5 };
    disk.follow(ClusterId(5), DstoreId(4), epoch, 7).expect("written");
    let identity = disk.identity();
    assert_eq!((identity.cluster, identity.number), (Some(ClusterId(5)), Some(DstoreId(4))));
    assert_eq!(identity.epoch, Some(epoch));
    let position = put(&disk, 1).expect("stored").position;
    drop(disk);
    let (disk, recovered) = open(&folder.after_power_cut(&mut Rng::with_seed(1))).expect("in order");
    assert!(!recovered.is_new);
    assert_eq!(disk.identity(), Identity { start: 2, ..identity });
    assert!(put(&disk, 2).expect("stored").position > position);
}

#[test]
fn a_folder_that_was_tampered_with_is_refused_and_not_changed() {
    let (folder, _) = filled();
    let refused = |folder: &SimulatedFolder| {
        let error = open(folder).map(|_| ()).expect_err("refused");
        assert!(error.to_string().contains("Nothing was changed"), "{error}");
        error
    };
    let without = folder.copy();
    without.remove(identity::NAME).expect("removed");
    assert!(matches!(refused(&without.copy()), OpenError::NoIdentity));

    let old = folder.copy();
    let before = old.read(identity::NAME).expect("read");
    {
        let (disk, _) = open(&old).expect("in order");
        (100..130).for_each(|number| assert!(put(&disk, number).is_ok()));
    }
    old.alter(identity::NAME, |bytes| *bytes = before);
    assert!(matches!(refused(&old.copy()), OpenError::OldIdentity { .. }));

    let (other, _) = filled();
    let mixed = folder.copy();
    let pack = other.read("pack-0000000001").expect("read");
    mixed.alter("pack-0000000001", |bytes| *bytes = pack);
    assert!(matches!(refused(&mixed.copy()), OpenError::OtherDisk { .. }));

    let later = folder.copy();
    later.alter(identity::NAME, |bytes| {
        let text = String::from_utf8(bytes.clone()).expect("text").replace("stevedore-dstore 1", "stevedore-dstore 2");
        let lines = text.split_once("sum ").expect("a sum").0.to_owned();
        *bytes = format!("{lines}sum {:016x}\n", twox_hash::XxHash3_64::oneshot(lines.as_bytes())).into_bytes();
    });
    assert!(matches!(open(&later).map(|_| ()), Err(OpenError::Format { .. })));
}

#[test]
fn a_real_folder_serves_one_process_and_keeps_its_objects() {
    let path = std::env::temp_dir().join(format!("stevedore-pack-{}", std::process::id()));
    let folder = || Arc::new(RealFolder::new(&path).expect("a folder"));
    {
        let (disk, _) = Disk::open(folder(), SMALL).expect("a new disk");
        assert!(matches!(Disk::open(folder(), SMALL).map(|_| ()), Err(OpenError::InUse)));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let disk = &disk;
                scope.spawn(move || (0..40).for_each(|turn| assert!(put(disk, thread * 40 + turn).is_ok())));
            }
        });
        for number in (0..160).filter(|number| number % 3 > 0) {
            disk.remove(&key(number)).expect("removed");
        }
        while disk.compact_if_due(&mut |_| Ok(())).expect("it works").is_some() {}
        let space = disk.usage().expect("told").space;
        assert!(space.total > space.available && space.available > 0, "{space:?}");
    }
    let (disk, recovered) = Disk::open(folder(), SMALL).expect("in order");
    assert_eq!(recovered.objects, 54);
    for number in 0..160 {
        assert_eq!(get(&disk, &key(number)).ok(), (number % 3 == 0).then(|| content(&key(number))));
    }
    std::fs::remove_dir_all(&path).expect("removed");
}
