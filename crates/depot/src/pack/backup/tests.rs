//! Backups on a disk that keeps no more than it promises.

use std::sync::Arc;

use fastrand::Rng;

use super::super::{Disk, OpenError, Options};
use super::{BACKUPS, KeepError};
use crate::disk::simulated::{Fault, SimulatedFolder};
use crate::disk::{Folder, Space};
use crate::identity::{ClusterId, DstoreId, Epoch, History};
use crate::log::backup::verify;
use crate::log::{Replica, ReplicaOptions, Seat};
use crate::namespace::change::{Change, Command, Details, Settings};

const CLUSTER: ClusterId = ClusterId(7);
const EPOCH: Epoch = Epoch { history: History(5), term: 3, nonce: 1 };

/// Backups of one store, each with one change more.
fn backups(cluster: ClusterId, count: usize) -> Vec<Vec<u8>> {
    let mut options = ReplicaOptions::default();
    options.log.ballast_bytes = 0;
    let replica = Replica::open(Arc::new(SimulatedFolder::default()), options, Seat::default()).expect("a new store");
    let change = |command| {
        let change = Change { now_ms: 0, stamp: None, command };
        replica.propose(&change).expect("it leads").outcome.expect("accepted");
    };
    change(Command::Create { cluster, name: "test".into(), settings: Settings::default() });
    let make = |number| {
        let path = format!("/{number}").parse().expect("a path");
        change(Command::MakeDirectory { path, parents: false, details: Details::default(), modified_ms: None });
        let backup = replica.backup(None).expect("the disk works");
        let mut bytes = vec![0; backup.length as usize];
        backup.file.read_at(&mut bytes, 0).expect("it is there");
        bytes
    };
    (0..count).map(make).collect()
}

fn open(folder: &SimulatedFolder) -> Result<Disk, OpenError> {
    Ok(Disk::open(Arc::new(folder.clone()), Options::default())?.0)
}

/// A disk that follows a leadership.
fn following(folder: &SimulatedFolder) -> Disk {
    let disk = open(folder).expect("a disk");
    disk.follow(CLUSTER, DstoreId(1), EPOCH, 0).expect("the disk works");
    disk
}

/// What is kept, the newest first.
fn kept(folder: &SimulatedFolder) -> Vec<Vec<u8>> {
    BACKUPS.iter().filter_map(|name| folder.read(name).ok()).collect()
}

#[test]
fn the_last_two_backups_are_kept() {
    let folder = SimulatedFolder::default();
    let disk = following(&folder);
    let backups = backups(CLUSTER, 4);
    for (at, backup) in backups.iter().enumerate() {
        for _sent_twice in 0..2 {
            disk.keep_backup(EPOCH, &mut &backup[..]).expect("a backup");
        }
        let newest: Vec<_> = backups[..=at].iter().rev().take(2).cloned().collect();
        assert_eq!(kept(&folder), newest);
    }
    drop(disk);
    following(&folder.after_power_cut(&mut Rng::with_seed(1)));
    assert_eq!(kept(&folder).len(), 2, "a start leaves them alone");
}

#[test]
fn what_is_no_backup_of_this_leadership_changes_nothing() {
    let folder = SimulatedFolder::default();
    let disk = following(&folder);
    let [first, next] = &backups(CLUSTER, 2)[..] else { panic!("two") };
    disk.keep_backup(EPOCH, &mut &first[..]).expect("a backup");
    let names = folder.names().expect("a list");
    let later = Epoch { term: 4, ..EPOCH };
    assert!(matches!(disk.keep_backup(later, &mut &next[..]), Err(KeepError::NotFollowed)));
    let mut altered = next.clone();
    altered[next.len() / 2] ^= 1;
    let foreign = backups(ClusterId(8), 1).remove(0);
    for bytes in [&altered[..], &next[..next.len() - 1], &foreign, b"hello\n", b""] {
        assert!(matches!(disk.keep_backup(EPOCH, &mut &*bytes), Err(KeepError::Damaged)), "{} bytes", bytes.len());
    }
    folder.set_space(Space { total: 100, available: 2 });
    assert!(matches!(disk.keep_backup(EPOCH, &mut &next[..]), Err(KeepError::Full)));
    assert_eq!(kept(&folder), std::slice::from_ref(first));
    assert_eq!(folder.names().expect("a list"), names, "and nothing is left of them");
}

#[test]
fn a_power_cut_at_any_operation_leaves_the_last_backup() {
    let backups = backups(CLUSTER, 3);
    let [first, second, third] = &backups[..] else { panic!("three") };
    for operation in 1.. {
        let folder = SimulatedFolder::default();
        let disk = following(&folder);
        for backup in [first, second] {
            disk.keep_backup(EPOCH, &mut &backup[..]).expect("a backup");
        }
        folder.fail_at(operation, Fault::End);
        let is_kept = disk.keep_backup(EPOCH, &mut &third[..]).is_ok();
        for seed in 0..20 {
            let cut = folder.after_power_cut(&mut Rng::with_seed(seed));
            open(&cut).expect("in order");
            let there = kept(&cut);
            there.iter().for_each(|backup| drop(verify(&backup[..]).expect("whole")));
            let has = |backup| there.contains(backup);
            assert!(has(second) && (has(third) || !is_kept), "operation {operation}, seed {seed}");
        }
        if is_kept {
            return;
        }
    }
}
