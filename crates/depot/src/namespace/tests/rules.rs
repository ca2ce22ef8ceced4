//! Rules that random histories seldom or never come to, each by itself.

use super::*;
use crate::identity::{ControllerId, DiskId};
use crate::namespace::Applied;
use crate::namespace::change::{DstoreRecord, Duty, Refusal};

/// A store that was just created, and what is done to it.
struct Store {
    namespace: Namespace,
    key: u64,
}

impl Store {
    fn new() -> Self {
        let mut store = Self { namespace: Namespace::new(), key: 0 };
        let create = Command::Create { cluster: ClusterId(1), name: "test".into(), settings: Settings::default() };
        store.ok(create);
        store.ok(Command::Lead { epoch: epoch(1, 1) });
        store
    }

    fn stamped(&mut self, command: Command, stamp: Option<Stamp>) -> Applied {
        let sequence = self.namespace.sequence() + 1;
        self.namespace.apply(sequence, &Change { now_ms: 0, stamp, command })
    }

    fn apply(&mut self, command: Command) -> Result<u64, Refusal> {
        self.stamped(command, None).outcome
    }

    fn ok(&mut self, command: Command) -> u64 {
        self.apply(command).expect("accepted")
    }

    fn put(&mut self, text: &str) -> Command {
        self.key += 1;
        let object = NewObject { term: 1, number: self.key, length: 1, checksum: Checksum(1), holders: Vec::new() };
        let objects = NewObjects { history: History(1), objects: vec![object] };
        Command::Put {
            path: path(text),
            condition: Condition::Any,
            parents: true,
            objects,
            checksum: Checksum(1),
            modified_ms: None,
            details: Details::default(),
        }
    }

    fn born(&self) -> Version {
        self.namespace.version(self.namespace.sequence())
    }
}

fn epoch(history: u64, term: u64) -> Epoch {
    Epoch { history: History(history), term, nonce: term }
}

fn stamp(session: u128, born: Version, number: u64, done_below: u64) -> Option<Stamp> {
    Some(Stamp { session: SessionId(session), born, number, done_below })
}

fn remove_tree(text: &str) -> Command {
    Command::RemoveDirectory { path: path(text), condition: Condition::Any, extent: RemovalExtent::Tree }
}

#[test]
fn a_repeat_has_the_first_outcome_and_no_effect() {
    let mut store = Store::new();
    let born = store.born();
    let put = store.put("/a");
    let first = store.stamped(put.clone(), stamp(7, born, 0, 0));
    let remove = Command::Remove { path: path("/a"), condition: Condition::Any };
    store.ok(remove);
    let again = store.stamped(put, stamp(7, born, 0, 0));
    assert_eq!((again.outcome, again.is_repeat), (first.outcome, true));
    assert_eq!(store.namespace.stat(&path("/a")), Err(Refusal::NotFound), "the file does not come back");
}

// The client has no answer, and asks another leader, whose clock is a day ahead, or behind.
#[test]
fn a_repeat_after_a_clock_has_jumped_takes_no_effect() {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    for again_ms in [0, 2 * DAY_MS] {
        let mut store = Store::new();
        let born = store.born();
        let mut at = |now_ms: u64, name: &str, stamp: Option<Stamp>| {
            let command = store.put(name);
            let sequence = store.namespace.sequence() + 1;
            store.namespace.apply(sequence, &Change { now_ms, stamp, command })
        };
        let first = at(DAY_MS, "/a", stamp(7, born, 0, 0));
        at(again_ms, "/b", stamp(8, born, 0, 0)).outcome.expect("accepted");
        let again = at(again_ms, "/a", stamp(7, born, 0, 0));
        assert_eq!((again.outcome, again.is_repeat), (first.outcome, true));
        let version = store.namespace.stat(&path("/a")).map(|stat| stat.version.sequence);
        assert_eq!(version, first.outcome, "it was put once");
        let next = store.put("/a");
        let sequence = store.namespace.sequence() + 1;
        let next = Change { now_ms: again_ms, stamp: stamp(7, born, 1, 1), command: next };
        assert!(!store.namespace.apply(sequence, &next).is_repeat, "the session goes on");
    }
}

#[test]
fn a_repeat_of_an_acknowledged_change_is_refused() {
    let mut store = Store::new();
    let born = store.born();
    for number in 0..3 {
        let put = store.put("/a");
        store.stamped(put, stamp(7, born, number, number));
    }
    let put = store.put("/a");
    assert_eq!(store.stamped(put, stamp(7, born, 1, 2)).outcome, Err(Refusal::UnknownOutcome));
}

#[test]
fn a_forgotten_session_is_refused_and_a_new_one_is_not() {
    let mut store = Store::new();
    store.namespace.limits.sessions = 2;
    let early = store.born();
    for session in 1..=3 {
        let put = store.put("/a");
        store.stamped(put, stamp(session, early, 0, 0)).outcome.expect("new sessions are accepted");
    }
    let put = store.put("/a");
    let forgotten = store.stamped(put.clone(), stamp(1, early, 0, 0));
    assert_eq!(forgotten.outcome, Err(Refusal::UnknownOutcome), "session 1 was the least recently used");
    assert_eq!(
        store.stamped(put.clone(), stamp(9, early, 0, 0)).outcome,
        Err(Refusal::UnknownOutcome),
        "it may be a forgotten one"
    );
    let other_history = Version { history: History(2), ..store.born() };
    assert_eq!(store.stamped(put.clone(), stamp(10, other_history, 0, 0)).outcome, Err(Refusal::UnknownOutcome));
    let now = store.born();
    assert!(store.stamped(put, stamp(11, now, 0, 0)).outcome.is_ok());
}

#[test]
fn a_session_has_a_limit_of_open_outcomes() {
    let mut store = Store::new();
    store.namespace.limits.open_per_session = 2;
    let born = store.born();
    for (number, done_below, expected) in [(0, 0, true), (1, 0, true), (2, 0, false), (2, 1, true)] {
        let put = store.put("/a");
        let outcome = store.stamped(put, stamp(7, born, number, done_below)).outcome;
        assert_eq!(outcome.is_ok(), expected, "number {number} with all below {done_below} acknowledged: {outcome:?}");
    }
}

#[test]
fn too_many_outcomes_in_all_forget_the_oldest_session() {
    let mut store = Store::new();
    store.namespace.limits.open_in_all = 3;
    let born = store.born();
    for (session, number) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
        let put = store.put("/a");
        store.stamped(put, stamp(session, born, number, 0)).outcome.expect("accepted");
    }
    let put = store.put("/a");
    assert_eq!(store.stamped(put.clone(), stamp(1, born, 0, 0)).outcome, Err(Refusal::UnknownOutcome));
    assert!(store.stamped(put, stamp(2, born, 0, 0)).is_repeat);
}

#[test]
fn a_removed_tree_is_taken_apart_in_bounded_steps() {
    let mut store = Store::new();
    store.namespace.limits.reaped = 10;
    for number in 0..95 {
        let put = store.put(&format!("/t/{}/{number}", number % 7));
        store.ok(put);
    }
    assert!(store.stamped(remove_tree("/t"), None).released.is_empty(), "removing takes nothing apart");
    assert_eq!(store.namespace.stat(&path("/t")), Err(Refusal::NotFound));
    let mut released = 0;
    while store.namespace.has_to_reap() {
        let step = store.stamped(Command::Reap, None).released.len();
        assert!(step <= 10, "{step} objects at once");
        released += step;
    }
    assert_eq!((released, store.namespace.entry_count(), store.namespace.object_count()), (95, 0, 0));
}

#[test]
fn a_walk_passes_every_object_that_stays_once() {
    let mut store = Store::new();
    let details = |replicas| Details { replicas: Some(replicas), ..Details::default() };
    let asks = [(Details::default(), 2), (details(Replicas::Number(5)), 5), (details(Replicas::All), 3)];
    store.namespace.head.settings.replicas = Replicas::Number(2);
    for disk in 1..=3 {
        let (host, zone) = (String::new(), String::new());
        store.ok(Command::Dstore { record: DstoreRecord { disk: DiskId(disk), host, zone, duty: Duty::Active } });
    }
    for number in 0..30 {
        let Command::Put { path, condition, parents, objects, checksum, modified_ms, .. } =
            store.put(&format!("/{}/{number}", number % 3))
        else {
            unreachable!("it is a put")
        };
        let details = asks[number % 3].0.clone();
        store.ok(Command::Put { path, condition, parents, objects, checksum, modified_ms, details });
    }
    let (mut from, mut passed) = (0, Vec::new());
    while let Some(some) = store.namespace.walk_objects(from, 4) {
        passed.extend(some);
        from += 4;
        // A third goes, half of it already passed, and others take the places.
        if from == 16 {
            store.ok(remove_tree("/1"));
            while store.namespace.has_to_reap() {
                store.ok(Command::Reap);
            }
            for number in 0..10 {
                let put = store.put(&format!("/new/{number}"));
                store.ok(put);
            }
        }
    }
    let stay = (1..=30).filter(|number| number % 3 != 2);
    let expected: Vec<(u64, usize)> = stay.map(|number| (number, asks[(number as usize - 1) % 3].1)).collect();
    let mut found: Vec<(u64, usize)> = passed.iter().map(|(key, wanted)| (key.number, *wanted)).collect();
    found.retain(|(number, _)| number % 3 != 2 && *number <= 30);
    assert_eq!(found, expected);
    assert_eq!(store.namespace.walk_objects(0, 100).unwrap().len(), store.namespace.object_count());
    assert_eq!(store.namespace.walk_objects(100, 100), None);
}

#[test]
fn a_tree_beyond_the_bound_is_not_copied() {
    let mut store = Store::new();
    store.namespace.limits.records = 10;
    let copy = |to: &str| Command::Copy {
        from: path("/t"),
        from_condition: Condition::Any,
        to: path(to),
        to_condition: Condition::Any,
        replace: false,
        parents: false,
        details: None,
    };
    for number in 0..9 {
        let put = store.put(&format!("/t/{number}"));
        store.ok(put);
    }
    store.ok(copy("/u"));
    let put = store.put("/t/another");
    store.ok(put);
    assert_eq!(store.apply(copy("/v")), Err(Refusal::TooLarge));
}

#[test]
fn a_key_is_committed_once() {
    let mut store = Store::new();
    let put = store.put("/a");
    store.ok(put.clone());
    let Command::Put { objects, checksum, .. } = put else { unreachable!("it is a put") };
    let again = |objects: NewObjects| Command::Put {
        path: path("/b"),
        condition: Condition::Any,
        parents: true,
        objects,
        checksum,
        modified_ms: None,
        details: Details::default(),
    };
    assert_eq!(store.apply(again(objects.clone())), Err(Refusal::NotPermitted));
    let mut twice = objects;
    twice.objects[0].number = 77;
    twice.objects.push(twice.objects[0].clone());
    assert_eq!(store.apply(again(twice)), Err(Refusal::NotPermitted));
    assert_eq!(store.namespace.object_count(), 1, "a refused put enters nothing");
}

#[test]
fn limits_have_errors_of_their_own() {
    let mut store = Store::new();
    let settings = Settings { most_entries: 3, ..Settings::default() };
    store.ok(Command::Set { settings: settings.clone() });
    let put = store.put("/a/b/c");
    store.ok(put);
    let put = store.put("/d");
    assert_eq!(store.apply(put), Err(Refusal::OverQuota));
    let put = store.put("/a/b/c");
    store.ok(put); // a replacement adds nothing
    store.ok(Command::Set { settings: Settings { is_read_only: true, ..settings } });
    let put = store.put("/a/b/c");
    assert_eq!(store.apply(put), Err(Refusal::ReadOnly));
    store.ok(Command::Remove { path: path("/a/b/c"), condition: Condition::Any });
    assert_eq!(store.namespace.entry_count(), 0, "the directories made for it went with it");
    let deep = path(&"/x".repeat(2049));
    let put = Command::MakeDirectory { path: deep, parents: true, details: Details::default(), modified_ms: None };
    store.ok(Command::Set { settings: Settings::default() });
    assert_eq!(store.apply(put), Err(Refusal::InvalidPath));
    let attributes = [("x".to_owned(), Some("y".repeat(16 * 1024)))].into();
    let set = Command::SetAttributes {
        path: Path::root(),
        condition: Condition::Any,
        attributes,
        content_type: None,
        owner: None,
        modified_ms: None,
    };
    assert_eq!(store.apply(set), Err(Refusal::TooLarge));
}

#[test]
fn versions_name_the_history_they_were_made_in() {
    let mut store = Store::new();
    let put = store.put("/a");
    store.ok(put);
    let before = store.namespace.stat(&path("/a")).expect("it is there").version;
    store.ok(Command::Lead { epoch: epoch(2, 5) });
    let put = store.put("/b");
    store.ok(put);
    let after = store.namespace.stat(&path("/b")).expect("it is there").version;
    assert_eq!((before.history, after.history), (History(1), History(2)));
    // What another branch of history had under the same number is not what is there now.
    let lost = Version { history: History(1), ..after };
    let remove = Command::Remove { path: path("/b"), condition: Condition::Version { version: lost } };
    assert_eq!(store.apply(remove), Err(Refusal::ConditionFailed));
    assert_eq!(store.namespace.lineage().collect::<Vec<_>>(), [History(1), History(2)]);
}

#[test]
fn the_last_epochs_are_known() {
    let mut store = Store::new();
    store.namespace.limits.epochs = 3;
    for term in 2..=4 {
        store.ok(Command::Lead { epoch: epoch(1, term) });
    }
    assert!(!store.namespace.has_epoch(&epoch(1, 1)) && store.namespace.has_epoch(&epoch(1, 2)));
    assert!(!store.namespace.has_epoch(&Epoch { nonce: 99, ..epoch(1, 4) }), "the nonce counts");
    assert_eq!(store.namespace.leadership().map(|(epoch, _)| epoch), Some(epoch(1, 4)));
}

#[test]
fn a_disk_keeps_its_number() {
    let mut store = Store::new();
    let record = |disk, host: &str, duty| Command::Dstore {
        record: DstoreRecord { disk: DiskId(disk), host: host.into(), zone: String::new(), duty },
    };
    store.ok(record(11, "x", Duty::Active));
    store.ok(record(12, "x", Duty::Active));
    store.ok(record(11, "y", Duty::Draining));
    assert_eq!(store.namespace.dstore_on(DiskId(11)), Some(DstoreId(1)));
    assert_eq!(store.namespace.dstore_on(DiskId(12)), Some(DstoreId(2)));
    let hosts: Vec<_> = store.namespace.dstores().map(|(_, record)| record.host.as_str()).collect();
    assert_eq!(hosts, ["y", "x"]);
}

#[test]
fn it_is_known_where_each_controller_is_reached() {
    let mut store = Store::new();
    let address = |text: &str| text.parse::<crate::wire::Address>().expect("an address");
    let (first, second) = (ControllerId(0xa), ControllerId(7));
    let before = store.namespace.hash();
    store.ok(Command::EnterController { id: first, address: address("a:7000") });
    store.ok(Command::EnterController { id: second, address: address("b:7000") });
    store.ok(Command::EnterController { id: second, address: address("c:7000") });
    let known: Vec<_> = store.namespace.controllers().map(|(id, address)| (id, address.to_string())).collect();
    assert_eq!(known, [(second, "c:7000".to_owned()), (first, "a:7000".to_owned())]);
    assert_ne!(store.namespace.hash(), before);
    let restored = written_and_read(&mut store.namespace, |_| ());
    assert_eq!(restored.controller(second), Some(&address("c:7000")));
    store.ok(Command::LeaveController { id: second });
    store.ok(Command::LeaveController { id: second });
    assert_eq!((store.namespace.controller(second), store.namespace.controller(first).is_some()), (None, true));
    store.namespace.forget_controllers();
    assert_eq!((store.namespace.controllers().count(), store.namespace.hash()), (0, before));
}

#[test]
fn a_format_needs_the_name_and_keeps_the_rest() {
    let mut store = Store::new();
    let put = store.put("/a/b");
    store.ok(put);
    assert_eq!(store.apply(Command::Format { name: "other".into() }), Err(Refusal::NotPermitted));
    store.ok(Command::Format { name: "test".into() });
    assert_eq!(store.namespace.stat(&path("/a")), Err(Refusal::NotFound));
    assert_eq!((store.namespace.cluster(), store.namespace.history()), (ClusterId(1), History(1)));
}

#[test]
fn renaming_a_directory_changes_one_record_of_it() {
    let mut store = Store::new();
    for number in 0..1000 {
        let put = store.put(&format!("/t/{number}"));
        store.ok(put);
    }
    let inside = store.namespace.stat(&path("/t/1"));
    store.namespace.begin_walk();
    store.ok(Command::Move {
        from: path("/t"),
        from_condition: Condition::Any,
        to: path("/u"),
        to_condition: Condition::Any,
        replace: false,
        parents: false,
    });
    let touched = store.namespace.walk.as_ref().expect("a walk has begun").saved_count();
    assert_eq!(touched, 2, "the directory, and the root that it is in");
    assert_eq!(store.namespace.stat(&path("/u/1")), inside);
}

#[test]
fn a_listing_is_cut_and_goes_on() {
    let mut store = Store::new();
    for name in ["/b", "/a/x", "/a/y/z", "/a!", "/aa", "/.stevedore/uploads/1"] {
        let put = store.put(name);
        store.ok(put);
    }
    let list = |prefix, after, is_recursive, limit| {
        let query = Query { prefix, after, is_recursive };
        let page = store.namespace.list(&Path::root(), query, limit, |_| true).expect("the root");
        (page.entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>().join(" "), page.after)
    };
    let cut = |name: &str| Some(name.to_owned());
    assert_eq!(list("", "", false, 9), ("a! a/ aa b".into(), None), "the reserved directory is not listed");
    assert_eq!(list("", "", true, 9), ("a! a/ a/x a/y/ a/y/z aa b".into(), None));
    assert_eq!(list("a", "", false, 2), ("a! a/".into(), cut("a/")));
    assert_eq!(list("a", "a/", false, 9), ("aa".into(), None));
    assert_eq!(list("a", "a/", true, 9), ("a/x a/y/ a/y/z aa".into(), None));
    assert_eq!(list("", "a/w", true, 1), ("a/x".into(), cut("a/x")));
    assert_eq!(list("b", "a/y/z", true, 9), ("b".into(), None));
    assert_eq!(list("", "zz", true, 9), (String::new(), None));
    assert_eq!(list("a!", "a/w", true, 9), (String::new(), None), "it lies behind all that begin so");
    let found = store
        .namespace
        .list(&Path::root(), Query { is_recursive: true, ..Query::default() }, 9, |name| name.contains('y'));
    assert_eq!(found.expect("the root").entries.len(), 2);
}

#[test]
fn altered_or_missing_records_are_not_restored() {
    let mut store = Store::new();
    let put = store.put("/a");
    store.ok(put);
    let beginning = store.namespace.begin_walk();
    let lines = store.namespace.walk_on(usize::MAX);
    for left_out in 0..lines.len() {
        let mut restore = Restore::new(beginning);
        let read =
            lines.iter().enumerate().filter(|(at, _)| *at != left_out).try_for_each(|(_, line)| restore.enter(line));
        assert!(read.is_err() || restore.finish().is_err(), "without {:?}", lines[left_out]);
    }
    let mut restore = Restore::new(beginning);
    let altered = lines.iter().map(|line| line.replace("/a", "/b").replace("file 1 a", "file 1 b"));
    let read = altered.into_iter().try_for_each(|line| restore.enter(&line));
    assert!(read.is_err() || restore.finish().is_err(), "another name");
}

#[test]
fn it_is_known_which_of_the_last_changes_had_no_effect() {
    // depot 3.4, watch
    let mut store = Store::new();
    store.namespace.limits.watched = 4;
    let missing = || Command::Remove { path: path("/missing"), condition: Condition::Any };
    let refused: Vec<u64> = (0..6)
        .map(|_| {
            assert_eq!(store.apply(missing()), Err(Refusal::NotFound));
            store.namespace.sequence()
        })
        .collect();
    assert!(!store.namespace.was_effective(refused[5]) && !store.namespace.was_effective(refused[2]));
    assert!(store.namespace.remembers_effects_from(refused[2]) && !store.namespace.remembers_effects_from(refused[1]));
    store.ok(Command::MakeDirectory {
        path: path("/a"),
        parents: false,
        details: Details::default(),
        modified_ms: None,
    });
    assert!(store.namespace.was_effective(store.namespace.sequence()));
    assert_eq!(store.namespace.ineffective.len(), 4, "no more are kept than are asked for");
}
