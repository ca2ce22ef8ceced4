use std::net::TcpListener;
use std::time::Duration;

use kit::TempFolder;

use super::*;
use crate::checksum::Checksum;
use crate::controller::{Beginning, Handle, Options, now_ms};
use crate::identity::{ClusterId, DiskId, SessionId};
use crate::log::{ReplicaOptions, SyncMode};
use crate::namespace::change::{Change, Command, Condition, Details, NewObject, NewObjects, Settings};
use crate::wire::{ClientId, Secret};

/// A Controller without Dstores. Its folder goes with it.
fn controller() -> (Handle, TempFolder) {
    let folder = TempFolder::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut replica = ReplicaOptions { sync: SyncMode::Never, ..ReplicaOptions::default() };
    replica.log.ballast_bytes = 0;
    let options = Options {
        data: folder.path().join("log"),
        cluster: ClusterId(1),
        name: "test".into(),
        settings: Settings::default(),
        secret: Secret::draw().expect("random bytes"),
        address: listener.local_addr().expect("its address").into(),
        listener,
        replica,
        settling: Duration::ZERO,
        backup_period: Duration::from_secs(3600),
        healing: HealingOptions::default(),
        beginning: Beginning::alone(),
    };
    let controller = Handle::start(options).expect("a Controller");
    kit::eventually("it leads", || controller.shared.as_ref().is_some_and(|shared| shared.epoch().is_ok()));
    (controller, folder)
}

#[test]
fn a_round_that_began_before_a_drain_gives_no_orders() {
    let (controller, _folder) = controller();
    let shared = controller.shared.as_ref().expect("it runs");
    let record = DstoreRecord { disk: DiskId(1), host: "host".into(), zone: String::new(), duty: Duty::Active };
    let enter = Change { now_ms: now_ms(), stamp: None, command: Command::Dstore { record } };
    shared.replica.propose(&enter).expect("the log works");
    let before = shared.look_around().expect("it leads");
    shared.drain(DstoreId(1), true).expect("it is entered");
    let after = shared.look_around().expect("it leads");
    // What it knows is that the copies at this Dstore count. By now, the operator was told that it is to be emptied.
    assert_eq!(before.records[0].1.duty, Duty::Active);
    assert!(shared.act(before).is_none());
    assert!(shared.act(after).is_some_and(|records| records[0].1.duty == Duty::Draining));
}

#[test]
fn a_commit_between_the_two_questions_of_collection_is_kept() {
    // depot 5.3: the lease ends with the commit, and the name begins with it.
    let (controller, _folder) = controller();
    let shared = controller.shared.as_ref().expect("it runs");
    let (client, epoch) = (ClientId(1), shared.epoch().expect("it leads"));
    let grant = || {
        let mut state = shared.state.lock();
        state.healing.options.keep_removed = Duration::ZERO;
        let key = state.keys.grant(client, epoch, Instant::now()).expect("a key");
        assert!(state.keys.propose(client, &[key], (SessionId(1), key.number)));
        key
    };
    // The healing thread collects nothing itself, as the margin is long; but for the moment of the question.
    let ask_first = |key: Key| {
        {
            let mut state = shared.state.lock();
            state.healing.options.margin = Duration::ZERO;
            state.healing.unnamed.note(key, Instant::now());
        }
        let unleased = shared.ask_for_leases(epoch).expect("it collects");
        shared.state.lock().healing.options.margin = Duration::from_secs(600);
        unleased
    };
    let commit = |key: Key| {
        let (length, checksum, path) = (1, Checksum::of(b"a"), format!("/{}", key.number).parse().expect("a path"));
        let object = NewObject { term: key.term, number: key.number, length, checksum, holders: Vec::new() };
        let objects = NewObjects { history: key.history, objects: vec![object] };
        let (condition, parents, modified_ms, details) = (Condition::Any, true, None, Details::default());
        let command = Command::Put { path, condition, parents, objects, checksum, modified_ms, details };
        let put = Change { now_ms: now_ms(), stamp: None, command };
        shared.replica.propose(&put).expect("the log works").outcome.expect("it is put");
        shared.state.lock().keys.settle(&[key]);
    };
    let committed = grant();
    let unleased = ask_first(committed);
    commit(committed);
    assert_eq!(shared.ask_for_names(unleased), Some((vec![], vec![])));
    // One that was committed before is named; one whose lease has ended otherwise is garbage.
    let committed = grant();
    commit(committed);
    assert_eq!(shared.ask_for_names(ask_first(committed)), Some((vec![], vec![committed])));
    let left = grant();
    shared.state.lock().keys.settle(&[left]);
    assert_eq!(shared.ask_for_names(ask_first(left)), Some((vec![left], vec![])));
}
