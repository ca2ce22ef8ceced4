//! The log against a disk that keeps no more than it promises.

use std::sync::Arc;

use fastrand::Rng;

use super::segments::{OpenError, Options, Segments};
use super::{Entry, EntryKind, HardState};
use crate::disk::Folder;
use crate::disk::simulated::{Fault, SimulatedFolder};

const SMALL: Options = Options { segment_bytes: 700, ballast_bytes: 0, first_index: 1 };

/// More for a hunt: `HISTORIES=100000 cargo test --release -p depot log`.
fn histories() -> u64 {
    let short_or_long = if kit::hunt::is_long() { 5_000 } else { 60 };
    kit::hunt::number("HISTORIES").unwrap_or(short_or_long)
}

/// A log and what is in it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Contents {
    entries: Vec<Entry>,
    state: HardState,
}

impl Contents {
    fn append(&mut self, entries: &[Entry], state: Option<HardState>) {
        if let Some(first) = entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
        }
        self.entries.extend_from_slice(entries);
        self.state = state.unwrap_or(self.state);
    }

    fn last_index(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.index)
    }

    /// Index, term and length of each entry, for messages.
    fn summary(&self) -> String {
        let entries = self.entries.iter().map(|entry| format!("{}.{}:{}", entry.index, entry.term, entry.data.len()));
        format!("{:?} {}", self.state, entries.collect::<Vec<_>>().join(" "))
    }

    /// Without what the log may have discarded.
    fn from(&self, index: u64) -> Self {
        let entries = self.entries.iter().filter(|entry| entry.index >= index).cloned().collect();
        Self { entries, state: self.state }
    }
}

fn open(folder: &SimulatedFolder, options: Options) -> Result<(Segments, Contents), OpenError> {
    let mut contents = Contents::default();
    let log = Segments::open(Arc::new(folder.clone()), options, |entry| contents.append(&[entry], None))?;
    contents = contents.from(log.first_index());
    contents.state = log.state();
    assert_eq!(contents.last_index().max(log.first_index() - 1), log.last_index());
    let mut read = Vec::new();
    while (read.len() as u64) + log.first_index() <= log.last_index() {
        let from = log.first_index() + read.len() as u64;
        read.extend(log.read(from, 100).expect("what is there can be read"));
    }
    assert_eq!(read, contents.entries, "what is read back is what was visited");
    Ok((log, contents))
}

/// Random work on a log until an operation fails: what it held after each step since the last sync, the one then first.
fn work(folder: &SimulatedFolder, rng: &mut Rng, steps: usize) -> Vec<Contents> {
    let (_, before) = open(&folder.copy(), SMALL).expect("the log is in order");
    let mut possible = vec![before];
    let _ = (|| -> Result<(), ()> {
        let (mut log, mut contents) = open(folder, SMALL).map_err(|_| ())?;
        possible = vec![contents.clone()];
        let mut term = contents.state.term;
        for _ in 0..steps {
            match rng.usize(..10) {
                0..5 => {
                    // Now and then a new leader replaces what was not committed.
                    let replaced = if rng.usize(..4) == 0 {
                        rng.u64(..3).min(contents.last_index().saturating_sub(log.first_index()))
                    } else {
                        0
                    };
                    term += u64::from(replaced > 0);
                    let first = contents.last_index() - replaced + 1;
                    let entries: Vec<_> =
                        (first..first + rng.u64(..4)).map(|index| any_entry(rng, index, term)).collect();
                    let state = rng.bool().then(|| HardState { term, vote: rng.u64(..3), commit: first - 1 });
                    contents.append(&entries, state);
                    possible.push(contents.clone());
                    log.append(&entries, state).map_err(|_| ())?;
                }
                5 => log.mark().map_err(|_| ())?,
                6 => log.discard_before(contents.last_index().saturating_sub(rng.u64(..10))).map_err(|_| ())?,
                _ => {
                    log.sync().map_err(|_| ())?;
                    possible = vec![contents.clone()];
                }
            }
        }
        if rng.bool() {
            log.close().map_err(|_| ())?;
            possible = vec![contents];
        }
        Ok(())
    })();
    possible
}

fn any_entry(rng: &mut Rng, index: u64, term: u64) -> Entry {
    let kind = [EntryKind::Change, EntryKind::Membership, EntryKind::JointMembership][rng.usize(..3)];
    Entry { index, term, kind, data: (0..rng.usize(..150)).map(|_| rng.u8(..)).collect() }
}

/// The log opens, holds one of the possible contents, and takes more.
fn check(folder: &SimulatedFolder, possible: &[Contents], what: &str) {
    let (mut log, contents) = open(folder, SMALL).unwrap_or_else(|error| panic!("{what}: {error}"));
    let fits = possible.iter().any(|other| other.from(log.first_index()) == contents);
    assert!(
        fits,
        "{what}: {} is none of {:?}",
        contents.summary(),
        possible.iter().map(Contents::summary).collect::<Vec<_>>()
    );
    let next = Entry { index: log.last_index() + 1, term: 1 << 40, kind: EntryKind::Change, data: b"more".to_vec() };
    log.append(std::slice::from_ref(&next), None).expect("it goes on");
    log.sync().expect("it goes on");
    let (_, later) = open(folder, SMALL).unwrap_or_else(|error| panic!("{what}, and again: {error}"));
    assert_eq!(later.entries.last(), Some(&next), "{what}");
    assert_eq!(later.entries.len(), contents.entries.len() + 1, "{what}: what was cut off does not come back");
}

#[test]
fn what_was_appended_comes_back() {
    for seed in 0..histories() {
        let (folder, mut rng) = (SimulatedFolder::default(), Rng::with_seed(seed));
        for round in 0..4 {
            let possible = work(&folder, &mut rng, 40);
            // Killed: everything that was written is there.
            check(&folder.after_kill(), &possible[possible.len() - 1..], &format!("seed {seed}, round {round}"));
        }
    }
}

#[test]
fn a_kill_at_any_operation_loses_nothing_synced() {
    for seed in 0..histories() {
        let (folder, mut rng) = (SimulatedFolder::default(), Rng::with_seed(seed));
        folder.fail_at(1 + seed % 90, Fault::End);
        let possible = work(&folder, &mut rng, 40);
        check(&folder.after_kill(), &possible, &format!("seed {seed}"));
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_synced() {
    for seed in 0..histories() {
        let (mut folder, mut rng) = (SimulatedFolder::default(), Rng::with_seed(seed));
        // One cut after another: what recovery does is cut into as well.
        for round in 0..4 {
            folder.fail_at(rng.u64(1..60), Fault::End);
            let possible = work(&folder, &mut rng, 40);
            for _ in 0..3 {
                check(&folder.after_power_cut(&mut rng), &possible, &format!("seed {seed}, round {round}"));
            }
            folder = folder.after_power_cut(&mut rng);
        }
    }
}

#[test]
fn a_failed_operation_is_final_and_loses_nothing_synced() {
    for seed in 0..histories() {
        let (folder, mut rng) = (SimulatedFolder::default(), Rng::with_seed(seed));
        folder.fail_at(1 + seed % 90, Fault::Error);
        let possible = work(&folder, &mut rng, 40);
        check(&folder.after_kill(), &possible, &format!("seed {seed}"));
    }
}

#[test]
fn after_a_failed_sync_nothing_is_accepted() {
    let folder = SimulatedFolder::default();
    let (mut log, _) = open(&folder, SMALL).expect("a new log");
    log.append(&[any_entry(&mut Rng::with_seed(1), 1, 1)], None).expect("appended");
    folder.fail_at(1, Fault::Error);
    let error = log.sync().expect_err("the disk fails");
    assert_eq!(log.sync(), Err(error.clone()), "the system would call this one good");
    assert_eq!(log.append(&[], Some(HardState { term: 9, ..HardState::default() })), Err(error.clone()));
    assert_eq!(log.mark(), Err(error));
}

/// A log of some synced frames, and the last one's place; the file it is in.
fn synced_log(marked: bool) -> (SimulatedFolder, Contents, String) {
    let folder = SimulatedFolder::default();
    let (mut log, mut contents) = open(&folder, Options { segment_bytes: 1 << 20, ..SMALL }).expect("a new log");
    let mut rng = Rng::with_seed(7);
    for index in 1..=5 {
        let entry = any_entry(&mut rng, index, 1);
        contents.append(std::slice::from_ref(&entry), None);
        log.append(&[entry], None).expect("appended");
        log.sync().expect("synced");
    }
    if marked {
        log.mark().expect("marked");
    }
    let name = folder.names().expect("a list").pop().expect("a segment");
    (folder, contents, name)
}

#[test]
fn a_log_cut_at_any_length_is_a_prefix() {
    let (folder, contents, name) = synced_log(false);
    let length = folder.read(&name).expect("the segment").len();
    let header = length
        - folder
            .read(&name)
            .expect("the segment")
            .split(|byte| *byte == b'\n')
            .next()
            .map_or(0, |line| length - line.len() - 1);
    let prefixes: Vec<_> =
        (0..=5).map(|count| Contents { entries: contents.entries[..count].to_vec(), ..contents.clone() }).collect();
    for cut in header..length {
        let folder = folder.copy();
        folder.alter(&name, |bytes| bytes.truncate(cut));
        check(&folder, &prefixes, &format!("cut at {cut}"));
    }
}

#[test]
fn any_flipped_byte_that_was_vouched_for_is_refused() {
    for marked in [false, true] {
        let (folder, contents, name) = synced_log(marked);
        let length = folder.read(&name).expect("the segment").len();
        let mut accepted = 0;
        for at in 0..length {
            let folder = folder.copy();
            folder.alter(&name, |bytes| bytes[at] ^= 0x10);
            match open(&folder, SMALL) {
                Err(OpenError::Damaged { .. }) => {}
                Err(error) => panic!("byte {at}: {error}"),
                Ok((_, read)) => {
                    // Nothing says yet that the last frame was synced: it may as well be torn.
                    assert!(
                        contents.entries.starts_with(&read.entries) && read.entries.len() >= 4 + usize::from(marked),
                        "byte {at}"
                    );
                    accepted += 1;
                }
            }
        }
        assert!(accepted > 0 && accepted < length / 2, "{accepted} of {length} flips went unnoticed");
    }
}

#[test]
fn a_missing_segment_is_damage() {
    let (folder, mut rng) = (SimulatedFolder::default(), Rng::with_seed(3));
    let (mut log, _) = open(&folder, SMALL).expect("a new log");
    (1..40).for_each(|index| log.append(&[any_entry(&mut rng, index, 1)], None).expect("appended"));
    log.sync().expect("synced");
    let names = folder.names().expect("a list");
    assert!(names.len() > 3, "{names:?}");
    folder.remove(&names[1]).expect("removed");
    assert!(matches!(open(&folder, SMALL), Err(OpenError::Damaged { .. })));
}

#[test]
fn stored_content_cannot_pose_as_a_frame() {
    let (folder, contents, name) = synced_log(false);
    let stolen = folder.read(&name).expect("the segment");
    // A client stores the bytes of another store's log, and the last write is torn in the middle of them.
    let other = SimulatedFolder::default();
    let (mut log, _) = open(&other, Options { segment_bytes: 1 << 20, ..SMALL }).expect("a new log");
    log.append(&[Entry { index: 1, term: 1, kind: EntryKind::Change, data: stolen }], None).expect("appended");
    let other_name = other.names().expect("a list").pop().expect("a segment");
    other.alter(&other_name, |bytes| bytes.truncate(bytes.len() - 1));
    let (_, read) = open(&other, SMALL).expect("a torn tail");
    assert_eq!((read.entries.len(), contents.entries.len()), (0, 5));
}

#[test]
fn a_full_disk_is_survived_by_giving_up_the_ballast() {
    let folder = SimulatedFolder::default();
    let options = Options { ballast_bytes: 3000, ..SMALL };
    let (mut log, mut contents) = open(&folder, options).expect("a new log");
    assert!(!log.is_short_of_space());
    folder.set_room(1000);
    let mut rng = Rng::with_seed(5);
    for index in 1.. {
        let entry = any_entry(&mut rng, index, 1);
        contents.append(std::slice::from_ref(&entry), None);
        log.append(&[entry], None).expect("there is room, or ballast");
        log.sync().expect("synced");
        if log.is_short_of_space() {
            break;
        }
    }
    let (log, read) = open(&folder.after_kill(), options).expect("it opens");
    assert_eq!(read.entries, contents.entries);
    assert!(!log.is_short_of_space(), "there is room again, and new ballast");
}

#[test]
fn one_sync_serves_all_that_was_appended() {
    let folder = SimulatedFolder::default();
    let (mut log, _) = open(&folder, SMALL).expect("a new log");
    let before = folder.syncs();
    let mut rng = Rng::with_seed(5);
    log.append(&[any_entry(&mut rng, 1, 1)], None).expect("appended");
    log.append(&[any_entry(&mut rng, 2, 1)], None).expect("appended");
    for _ in 0..3 {
        log.sync().expect("synced");
    }
    assert_eq!(folder.syncs() - before, 1);
}

/// Found by the power cuts above: a torn tail took along the state that a segment began with, and then the older segments
/// that still had it were discarded.
#[test]
fn the_state_outlives_the_segments_that_said_it() {
    let (folder, mut rng) = (SimulatedFolder::default(), Rng::with_seed(1));
    let state = HardState { term: 6, vote: 1, commit: 0 };
    let (mut log, _) = open(&folder, SMALL).expect("a new log");
    log.append(&[], Some(state)).expect("appended");
    for index in 1..60 {
        log.append(&[any_entry(&mut rng, index, 6)], None).expect("appended");
    }
    log.discard_before(50).expect("discarded");
    assert!(log.first_index() > 1 && log.first_index() <= 50, "{}", log.first_index());
    let (log, contents) = open(&folder.after_power_cut(&mut rng), SMALL).expect("in order");
    assert_eq!((log.state(), contents.state), (state, state));
}
