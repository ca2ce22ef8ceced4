//! A replica against a disk that keeps no more than it promises.

mod group;

use std::sync::Arc;
use std::thread;

use fastrand::Rng;

use super::{ProposeError, Replica, ReplicaOptions, Seat, SyncMode};
use crate::checksum::Checksum;
use crate::disk::Folder;
use crate::disk::simulated::{Fault, SimulatedFolder};
use crate::identity::ClusterId;
use crate::log::Options;
use crate::namespace::change::{Change, Command, Condition, Details, NewObjects, Settings};
use crate::path::Path;

/// Segments and snapshots so small that a short test has many.
const SMALL: ReplicaOptions = ReplicaOptions {
    sync: SyncMode::Always,
    log: Options { segment_bytes: 2000, ballast_bytes: 0, first_index: 1 },
    snapshot_bytes: 3000,
    kept_changes: 5,
};

fn open(folder: &SimulatedFolder, options: ReplicaOptions) -> Replica {
    Replica::open(Arc::new(folder.clone()), options, Seat::default()).unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn path(text: &str) -> Path {
    text.parse().expect("a path")
}

pub(super) fn put(name: &str) -> Change {
    let command = Command::Put {
        path: path(name),
        condition: Condition::Any,
        parents: true,
        objects: NewObjects::default(),
        checksum: Checksum::EMPTY,
        modified_ms: None,
        details: Details::default(),
    };
    Change { now_ms: 0, stamp: None, command }
}

fn hash(replica: &Replica) -> u128 {
    replica.read(|namespace| namespace.hash()).expect("it leads")
}

/// Puts files until the disk fails: those that were acknowledged, each with the change that made it.
fn work(folder: &SimulatedFolder, rng: &mut Rng, round: u32) -> Vec<(String, u64)> {
    let mut acknowledged = Vec::new();
    let Ok(replica) = Replica::open(Arc::new(folder.clone()), SMALL, Seat::default()) else { return acknowledged };
    for number in 0..40 {
        let name = format!("/{round}/{number}");
        match replica.propose(&put(&name)) {
            Ok(applied) => acknowledged.push((name, applied.outcome.expect("accepted"))),
            Err(_) => break,
        }
        match rng.usize(..6) {
            0 => drop(replica.snapshot_if_due()),
            1 => replica.settle(true),
            2 => replica.tick(),
            _ => {}
        }
    }
    if rng.bool() {
        let _ = replica.close();
    }
    acknowledged
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    for seed in 0..25 {
        let (mut folder, mut rng) = (SimulatedFolder::default(), Rng::with_seed(seed));
        let mut acknowledged = Vec::new();
        for round in 0..5 {
            folder.fail_at(rng.u64(1..150), Fault::End);
            acknowledged.extend(work(&folder, &mut rng, round));
            folder = folder.after_power_cut(&mut rng);
        }
        let replica = open(&folder, SMALL);
        for (name, sequence) in &acknowledged {
            let found = replica.read(|namespace| namespace.stat(&path(name))).expect("it leads");
            assert_eq!(found.map(|stat| stat.version.sequence), Ok(*sequence), "seed {seed}: {name}");
        }
    }
}

#[test]
fn a_restart_gives_the_same_namespace() {
    let folder = SimulatedFolder::default();
    let mut files = 0;
    for round in 0..6 {
        let replica = open(&folder, SMALL);
        let there = replica.read(|namespace| namespace.entry_count()).expect("it leads");
        assert_eq!(there, files, "round {round}");
        for number in 0..30 {
            replica.propose(&put(&format!("/{round}-{number}"))).expect("it leads").outcome.expect("accepted");
            files += 1;
            replica.snapshot_if_due().expect("the disk works");
        }
        let last = replica.read(|namespace| namespace.sequence()).expect("it leads");
        let before = hash(&replica);
        let again = open(&folder.after_kill(), SMALL);
        // The new leadership adds its epoch; without it, all is the same.
        assert_eq!(again.read(|namespace| namespace.entry_count()), Ok(files));
        assert!(again.read(|namespace| namespace.sequence()).expect("it leads") > last);
        assert_ne!(hash(&again), before, "an epoch is a record");
        replica.close().expect("the disk works");
    }
    let names = folder.names().expect("a list");
    assert!(names.iter().filter(|name| name.starts_with("snapshot-")).count() == 2, "{names:?}");
    assert!(names.iter().filter(|name| name.starts_with("log-")).count() < 8, "the log before goes: {names:?}");
}

#[test]
fn threads_share_their_syncs() {
    let folder = SimulatedFolder::default();
    let replica = open(&folder, ReplicaOptions::default());
    let before = folder.syncs();
    thread::scope(|scope| {
        for thread in 0..8 {
            let replica = &replica;
            scope.spawn(move || {
                for number in 0..50 {
                    let applied = replica.propose(&put(&format!("/{thread}/{number}"))).expect("it leads");
                    applied.outcome.expect("accepted");
                }
            });
        }
    });
    assert_eq!(replica.read(|namespace| namespace.entry_count()), Ok(8 * 50 + 8));
    let syncs = folder.syncs() - before;
    assert!(syncs <= 400, "{syncs} syncs for 400 changes");
}

#[test]
fn every_start_leads_in_a_later_term() {
    let folder = SimulatedFolder::default();
    let epochs: Vec<_> = (0..4).map(|_| open(&folder, SMALL).epoch().expect("it leads")).collect();
    assert!(epochs.is_sorted_by(|a, b| a.term < b.term), "{epochs:?}");
    assert!(epochs.iter().all(|epoch| epoch.history == epochs[0].history), "{epochs:?}");
}

#[test]
fn an_unclean_end_without_syncs_begins_a_history() {
    for sync in [SyncMode::Interval, SyncMode::Never] {
        let options = ReplicaOptions { sync, ..SMALL };
        let folder = SimulatedFolder::default();
        let first = open(&folder, options);
        let history = first.epoch().expect("it leads").history;
        first.close().expect("the disk works");
        let closed = open(&folder, options);
        assert_eq!(closed.epoch().expect("it leads").history, history, "after a clean end nothing was lost");
        closed.propose(&put("/a")).expect("it leads").outcome.expect("accepted");
        let cut = open(&folder.after_kill(), options);
        assert_ne!(cut.epoch().expect("it leads").history, history, "{sync:?}");
        let lineage = cut.read(|namespace| namespace.lineage().collect::<Vec<_>>()).expect("it leads");
        assert_eq!(lineage.len(), 2, "the lineage keeps both");
    }
}

#[test]
fn an_epoch_is_on_the_disk_before_it_serves() {
    for sync in [SyncMode::Always, SyncMode::Interval, SyncMode::Never] {
        let folder = SimulatedFolder::default();
        let epoch = open(&folder, ReplicaOptions { sync, ..SMALL }).epoch().expect("it leads");
        for seed in 0..20 {
            let cut = folder.after_power_cut(&mut Rng::with_seed(seed));
            let later = open(&cut, ReplicaOptions { sync, ..SMALL });
            assert!(later.read(|namespace| namespace.has_epoch(&epoch)).expect("it leads"), "{sync:?}");
            assert!(later.epoch().expect("it leads").term > epoch.term, "{sync:?}");
        }
    }
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    let folder = SimulatedFolder::default();
    let replica = open(&folder, SMALL);
    replica.propose(&put("/a")).expect("it leads").outcome.expect("accepted");
    folder.fail_at(2, Fault::Error); // the write is the first
    assert!(matches!(replica.propose(&put("/b")), Err(ProposeError::Log(_))));
    assert!(matches!(replica.propose(&put("/c")), Err(ProposeError::Log(_))), "the next sync would succeed");
    assert!(replica.failure().is_some() && replica.epoch().is_none());
    let again = open(&folder.after_kill(), SMALL);
    assert!(again.read(|namespace| namespace.stat(&path("/a"))).expect("it leads").is_ok());
}

#[test]
fn a_damaged_snapshot_falls_back_to_the_one_before() {
    let folder = SimulatedFolder::default();
    let replica = open(&folder, SMALL);
    let mut snapshots = 0;
    for number in 0.. {
        replica.propose(&put(&format!("/{number}"))).expect("it leads").outcome.expect("accepted");
        snapshots += usize::from(replica.snapshot_if_due().expect("the disk works"));
        if snapshots == 3 {
            break;
        }
    }
    let files = replica.read(|namespace| namespace.entry_count()).expect("it leads");
    let names = folder.names().expect("a list");
    let newest = names.iter().rfind(|name| name.starts_with("snapshot-")).expect("there is one");
    folder.alter(newest, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let again = open(&folder.after_kill(), SMALL);
    assert_eq!(again.read(|namespace| namespace.entry_count()), Ok(files));
}

#[test]
fn a_log_without_its_snapshot_is_refused() {
    let folder = SimulatedFolder::default();
    open(&folder, SMALL).propose(&put("/a")).expect("it leads").outcome.expect("accepted");
    let names = folder.names().expect("a list");
    names.iter().filter(|name| name.starts_with("snapshot-")).for_each(|name| folder.remove(name).expect("removed"));
    assert!(Replica::open(Arc::new(folder.clone()), SMALL, Seat::default()).is_err());
}

#[test]
fn the_first_change_creates_the_store() {
    let replica = open(&SimulatedFolder::default(), SMALL);
    let command = Command::Create { cluster: ClusterId(7), name: "test".into(), settings: Settings::default() };
    replica.propose(&Change { now_ms: 0, stamp: None, command }).expect("it leads").outcome.expect("accepted");
    assert_eq!(replica.read(|namespace| namespace.cluster()), Ok(ClusterId(7)));
}
