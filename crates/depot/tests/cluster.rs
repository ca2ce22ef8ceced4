//! A Controller and clients over real sockets, with Dstores that misbehave as they are told. (depot 3.4, 5.1, 5.5)

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{BLOCK, Behaviour, CLUSTER, SOON, ScriptedDstore, Store};
use depot::checksum::Checksum;
use depot::client::{Cluster, ClusterOptions, DstoreState, Error, Files, ListOptions, MoveOptions, PutOptions, Source};
use depot::identity::{History, Key, Position, SessionId, Version};
use depot::log::backup::verify;
use depot::namespace::change::{
    Command, Condition, Details, NewObject, NewObjects, Refusal, RemovalExtent, Settings, Stamp,
};
use depot::path::Path;
use depot::wire::message::{Answer, Failure, Grants, ObjectAnswer, ObjectRequest, Request};
use depot::wire::{self, Access, ClientId, Connection, Role, Secret};
use kit::{bytes, eventually};
use stevedore::socket::Wait;

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

fn put(client: &Cluster, at: &str, content: &[u8]) -> Result<depot::identity::Version, Error> {
    let options = PutOptions { parents: true, ..PutOptions::default() };
    client.put(&path(at), Source::Once(&mut Cursor::new(content)), &options)
}

fn get(client: &Cluster, at: &str) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    let mut file = client.get(&path(at), Condition::Any)?;
    let size = file.size();
    file.copy_to(0..size, &mut content)?;
    Ok(content)
}

/// So many Dstores, which the Controller knows to be there.
fn dstores<const N: usize>(store: &Store) -> [ScriptedDstore; N] {
    let dstores = std::array::from_fn(|number| ScriptedDstore::new(store, number as u128 + 1));
    let client = store.client();
    eventually("all Dstores are there", || {
        let status = client.status().unwrap();
        status.dstores.iter().filter(|dstore| dstore.state == DstoreState::Present).count() == N
    });
    dstores
}

/// Around every size at which something changes: blocks, small objects, chunks.
fn sizes() -> Vec<usize> {
    vec![0, 1, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 20 << 20]
}

#[test]
fn files_of_all_sizes_come_back_as_they_were_put() {
    let store = Store::new(3);
    let _dstores: [_; 3] = dstores(&store);
    let client = store.client();
    for (seed, size) in sizes().into_iter().enumerate() {
        let content = bytes(seed as u64, size);
        put(&client, &format!("/dir/{size}"), &content).unwrap();
        assert!(get(&client, &format!("/dir/{size}")).unwrap() == content, "{size} bytes");
    }
    // From a file that can be read again.
    let content = bytes(99, (1 << 20) + 5);
    let mut file = tempfile(&content);
    let options = PutOptions::default();
    client.put(&path("/file"), Source::File(&file), &options).unwrap();
    assert!(get(&client, "/file").unwrap() == content);
    file.flush().unwrap();
}

fn tempfile(content: &[u8]) -> std::fs::File {
    let folder = kit::TempFolder::new();
    let place = folder.path().join("content");
    std::fs::write(&place, content).unwrap();
    std::fs::File::open(place).unwrap()
}

#[test]
fn a_range_comes_from_its_blocks_only() {
    let store = Store::new(1);
    let [dstore] = dstores(&store);
    let client = store.client();
    let content = bytes(1, 10 * BLOCK + 9);
    put(&client, "/a", &content).unwrap();
    let block = BLOCK as u64;
    let size = content.len() as u64;
    for (from, to) in [(0, 1), (5, block), (block - 1, block + 1), (3 * block, 4 * block), (size - 3, size), (7, 7)] {
        let before = dstore.bytes_sent();
        let mut out = Vec::new();
        client.get(&path("/a"), Condition::Any).unwrap().copy_to(from..to, &mut out).unwrap();
        assert!(out == content[from as usize..to as usize], "{from}..{to}");
        let needed = if from == to { 0 } else { (to.div_ceil(block) - from / block) * block };
        assert!(dstore.bytes_sent() - before <= needed, "{from}..{to} moved {}", dstore.bytes_sent() - before);
    }
}

#[test]
fn a_place_that_fails_is_replaced_while_it_is_needed() {
    let store = Store::that_waits_for_dstores(2, Duration::ZERO);
    let all: [_; 4] = dstores(&store);
    let client = store.client();
    let behaviours = [
        Behaviour { refuses: Some(Failure::NoSpace), ..Behaviour::default() },
        Behaviour { hangs_up: true, ..Behaviour::default() },
    ];
    all.iter().zip(behaviours).for_each(|(dstore, behaviour)| dstore.behave(behaviour));
    for size in [10, 5 * BLOCK] {
        for number in 0..10 {
            let content = bytes(number, size);
            put(&client, "/a", &content).unwrap();
            assert!(get(&client, "/a").unwrap() == content);
        }
    }
    let copies = client.copies(&path("/a")).unwrap();
    assert_eq!(copies[0].copies.iter().map(|copy| copy.dstore).collect::<Vec<_>>(), [all[2].number(), all[3].number()]);
    // With one good Dstore left, two copies cannot be.
    all[2].behave(Behaviour { hangs_up: true, ..Behaviour::default() });
    for size in [10, 5 * BLOCK] {
        let result = put(&client, "/b", &bytes(1, size));
        assert!(matches!(result, Err(Error::NotEnoughDstores { needed: 2, .. })), "{result:?}");
    }
    assert!(matches!(client.stat(&path("/b")), Err(Error::Refused(Refusal::NotFound))), "a failed put leaves no file");
}

#[test]
fn what_is_known_to_be_refused_is_refused_without_a_byte() {
    let store = Store::that_waits_for_dstores(1, Duration::ZERO);
    let [dstore] = dstores(&store);
    let client = store.client();
    let version = put(&client, "/a", b"content").unwrap();
    let check = |at: &str, condition| client.check_put(&path(at), &PutOptions { condition, ..PutOptions::default() });
    // However often it is asked, and whatever is granted with it, puts go on.
    for _ in 0..20 {
        check("/b", Condition::Any).unwrap();
        check("/a", Condition::Version { version }).unwrap();
    }
    put(&client, "/b", b"content").unwrap();
    assert!(matches!(check("/a", Condition::Absent), Err(Error::Refused(Refusal::AlreadyExists))));
    assert!(matches!(check("/none/a", Condition::Any), Err(Error::Refused(Refusal::NotFound))));
    let settings = client.settings().unwrap();
    client.set(&Settings { most_entries: 2, ..settings.clone() }).unwrap();
    assert!(matches!(check("/c", Condition::Any), Err(Error::Refused(Refusal::OverQuota))));
    check("/a", Condition::Any).unwrap();
    client.set(&settings).unwrap();
    dstore.behave(Behaviour { is_full: true, ..Behaviour::default() });
    eventually("it is heard", || matches!(check("/c", Condition::Any), Err(Error::NoSpace)));
}

#[test]
fn one_of_three_places_that_cannot_be_reached_stops_no_put() {
    // Wherever it comes in the order, the other two are enough.
    for at in 0..3 {
        let store = Store::that_waits_for_dstores(3, Duration::ZERO);
        let all: [_; 3] = dstores(&store);
        let client = store.client();
        all[at].behave(Behaviour { is_closed: true, ..Behaviour::default() });
        for size in [10, 5 * BLOCK] {
            for number in 0..10 {
                put(&client, &format!("/{size}-{number}"), &bytes(number, size)).unwrap();
            }
        }
    }
}

#[test]
fn a_change_whose_answer_was_lost_has_had_its_effect_or_may_have() {
    // depot 3.5: what is said of the second attempt is not said of the first, unless it is the change's own outcome.
    let version = Version { history: History(3), sequence: 9 };
    let done = || Answer::Done { version, grants: Grants::default() };
    let error = |failure| Answer::Error { failure };
    let refused = || error(Failure::Refused { refusal: Refusal::NotFound });
    let unavailable = || error(Failure::Unavailable { what: "the disk".into() });
    type Is = fn(&Result<Version, Error>) -> bool;
    let cases: [(Answer, Is); 4] = [
        (done(), |result| result.is_ok()),
        (refused(), |result| matches!(result, Err(Error::Refused(Refusal::NotFound)))),
        (unavailable(), |result| matches!(result, Err(Error::OutcomeUnknown(_)))),
        (error(Failure::NoLease), |result| matches!(result, Err(Error::OutcomeUnknown(_)))),
    ];
    for (answer, is_right) in cases {
        let result = ask_a_controller_that_answers(&[None, Some(answer.clone())]);
        assert!(is_right(&result), "after a lost answer {answer:?}: {result:?}");
    }
    let result = ask_a_controller_that_answers(&[Some(unavailable())]);
    assert!(matches!(result, Err(Error::Unavailable(_))), "it had no effect, and says so: {result:?}");
}

#[test]
fn a_client_asks_on_while_no_controller_leads() {
    // Each attempt may take twice as long as the one before: after 64 of them that is more than any number can say.
    let not_leader = || Some(Answer::Error { failure: Failure::NotLeader { leader: None } });
    let version = Version { history: History(3), sequence: 2 };
    let done = Some(Answer::Done { version, grants: Grants::default() });
    let answers: Vec<_> = (0..70).map(|_| not_leader()).chain([done]).collect();
    assert_eq!(ask_a_controller_that_answers(&answers).unwrap(), version);
}

#[test]
fn one_slow_change_stops_no_others() {
    // depot 3.5: a store keeps 1,024 outcomes of a session, and a change that is under way keeps all that follow it.
    const OTHERS: usize = 1_100;
    let (listener, secret) = (TcpListener::bind("127.0.0.1:0").unwrap(), Secret::draw().unwrap());
    let options = ClusterOptions {
        controllers: vec![listener.local_addr().unwrap().into()],
        cluster: CLUSTER,
        client: ClientId(7),
        key: secret.client_key(ClientId(7)),
        search: SOON,
    };
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let (slow_came, is_slow) = std::sync::mpsc::channel();
    let of_slow = Mutex::new((slow_came, is_done));
    let serve = |stream| {
        let mut connection = Connection::new(Arc::new(stream)).unwrap();
        wire::accept(&mut connection, Role::Controller, CLUSTER, &secret).unwrap();
        while let Ok(request) = connection.receive(Wait::deadline(SOON)) {
            let version = Version { history: History(3), sequence: 1 };
            let answer = match request {
                Request::Session => Answer::Session { born: version, settings: Settings::default() },
                Request::Change { stamp, command, .. } => {
                    assert!(stamp.number - stamp.done_below < 1_024, "{stamp:?} would be refused");
                    if matches!(&*command, Command::Remove { path: at, .. } if *at == path("/slow")) {
                        let (slow_came, is_done) = &*of_slow.lock().unwrap();
                        slow_came.send(()).unwrap();
                        is_done.recv().unwrap();
                    }
                    Answer::Done { version, grants: Grants::default() }
                }
                _ => Answer::Error { failure: Failure::Unavailable { what: "all else".into() } },
            };
            connection.send(&answer).unwrap();
        }
    };
    thread::scope(|scope| {
        let (listener, serve) = (&listener, &serve);
        // A connection for each of the two threads.
        scope.spawn(move || {
            for _ in 0..2 {
                let (stream, _) = listener.accept().unwrap();
                scope.spawn(move || serve(stream));
            }
        });
        // Its connections end with it, and the scope with them.
        let client = Arc::new(Cluster::new(options));
        let of_slow = Arc::clone(&client);
        let slow = scope.spawn(move || of_slow.remove(&path("/slow"), Condition::Any));
        is_slow.recv().unwrap();
        for _ in 0..OTHERS {
            client.remove(&path("/other"), Condition::Any).unwrap();
        }
        done.send(()).unwrap();
        slow.join().unwrap().unwrap();
    });
}

#[test]
fn a_leader_asked_about_keys_of_a_later_one_leads_no_more() {
    let store = Store::new(1);
    let history = store.client().status().unwrap().version.history;
    let mut connection = store.dial();
    let mut renew = |term| {
        connection.send(&Request::Renew { keys: vec![Key { history, term, number: 77 }] }).unwrap();
        match connection.receive(Wait::deadline(SOON)).unwrap() {
            Answer::Error { failure } => failure,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(renew(1_000_000), Failure::NotLeader { leader: None }));
    assert!(matches!(renew(store.client().status().unwrap().controllers[0].epoch.term), Failure::NoLease));
}

/// Removes a file at a Controller that answers changes like this.
fn ask_a_controller_that_answers(answers: &[Option<Answer>]) -> Result<Version, Error> {
    common::at_a_controller_that_answers(answers, |client| client.remove(&path("/file"), Condition::Any))
}

#[test]
fn a_put_into_a_new_store_waits_for_its_first_dstores() {
    let store = Store::new(2);
    let client = store.client();
    std::thread::scope(|scope| {
        let (about_to_put, is_about_to_put) = std::sync::mpsc::channel();
        let putting = scope.spawn(move || {
            client.settings().unwrap(); // it is connected
            about_to_put.send(()).unwrap();
            put(&client, "/a", b"content")
        });
        is_about_to_put.recv().unwrap();
        let _dstores: [_; 2] = dstores(&store);
        putting.join().unwrap().unwrap();
    });
}

#[test]
fn a_put_waits_for_a_slow_third_place_only_shortly() {
    let store = Store::new(3);
    let all: [_; 3] = dstores(&store);
    let client = store.client();
    kit::eventually("the Controller has all three take objects", || {
        put(&client, "/a", b"content").unwrap();
        client.copies(&path("/a")).unwrap()[0].copies.len() == 3
    });
    all[1].behave(Behaviour { is_stuck: true, ..Behaviour::default() });
    for size in [10, 5 * BLOCK] {
        let content = bytes(1, size);
        put(&client, "/a", &content).unwrap();
        let copies = client.copies(&path("/a")).unwrap();
        assert!(copies[0].copies.iter().all(|copy| copy.dstore != all[1].number()), "{copies:?}");
        assert!(get(&client, "/a").unwrap() == content);
    }
}

#[test]
fn a_get_goes_on_with_another_holder_where_one_fails() {
    let store = Store::new(3);
    let all: [_; 3] = dstores(&store);
    let client = store.client();
    let content = bytes(1, 20 * BLOCK + 77);
    put(&client, "/a", &content).unwrap();
    let key = *all[0].objects().keys().next().unwrap();
    // Each has lost other blocks, in another way: together they still have all.
    let with = |blocks: [u64; 3]| BTreeSet::from(blocks);
    all[0].behave(Behaviour { flips: with([0, 7, 19]), ..Behaviour::default() });
    all[1].behave(Behaviour { finds_damaged: with([1, 8, 20]), ..Behaviour::default() });
    all[2].behave(Behaviour { gives_up_after: Some(2), ..Behaviour::default() });
    for _ in 0..10 {
        assert!(get(&client, "/a").unwrap() == content);
    }
    let asked = || all[0].is_asked_to_verify(key) || all[1].is_asked_to_verify(key);
    kit::eventually("a damaged copy is to be verified by its Dstore", asked);
    // A block that no holder has is an error, and no wrong byte comes before it.
    all.iter().for_each(|dstore| dstore.behave(Behaviour { flips: BTreeSet::from([3]), ..Behaviour::default() }));
    let mut out = Vec::new();
    let error = client.get(&path("/a"), Condition::Any).unwrap().copy_to(0..u64::MAX, &mut out).unwrap_err();
    assert!(matches!(error, Error::Damaged(_)), "{error}");
    assert!(out == content[..3 * BLOCK], "{} bytes", out.len());
}

/// A file of several objects, each at all three Dstores, that is large enough to be read from all of them at the same time.
fn large_file(client: &Cluster) -> Vec<u8> {
    let content = bytes(1, 12 * (1 << 20) + 77);
    kit::eventually("all three have it", || {
        put(client, "/large", &content).unwrap();
        client.copies(&path("/large")).unwrap().iter().all(|object| object.copies.len() == 3)
    });
    content
}

fn withholding() -> Behaviour {
    Behaviour { withholds: true, ..Behaviour::default() }
}

#[test]
fn a_large_file_is_read_from_all_holders_at_the_same_time() {
    // depot 5.5: each of them is asked before any has given a byte.
    let store = Store::new(3);
    let all: [_; 3] = dstores(&store);
    let client = store.client();
    let content = large_file(&client);
    all.iter().for_each(|dstore| dstore.behave(withholding()));
    thread::scope(|scope| {
        let getting = scope.spawn(|| get(&client, "/large").unwrap());
        all.iter().for_each(ScriptedDstore::await_withheld);
        all.iter().for_each(|dstore| dstore.behave(Behaviour::default()));
        assert!(getting.join().unwrap() == content);
    });
    for range in [0..5 << 20, 77..9_000_000, (8 << 20) - 1..u64::MAX, 3_000_001..3_000_002] {
        let mut out = Vec::new();
        client.get(&path("/large"), Condition::Any).unwrap().copy_to(range.clone(), &mut out).unwrap();
        assert!(out == content[range.start as usize..content.len().min(range.end as usize)], "{range:?}");
    }
}

#[test]
fn what_a_slow_holder_has_not_begun_is_stolen_and_what_it_has_begun_is_read_twice() {
    // depot 5.5: one of three gives nothing at all, and is not waited for.
    let store = Store::new(3);
    let all: [_; 3] = dstores(&store);
    let client = store.client();
    let content = large_file(&client);
    all[1].behave(withholding());
    thread::scope(|scope| {
        // Neither of the others reads all of it before the slow one has begun.
        [&all[0], &all[2]].iter().for_each(|dstore| dstore.behave(withholding()));
        let getting = scope.spawn(|| get(&client, "/large").unwrap());
        all.iter().for_each(ScriptedDstore::await_withheld);
        [&all[0], &all[2]].iter().for_each(|dstore| dstore.behave(Behaviour::default()));
        assert!(getting.join().unwrap() == content);
    });
    let counts = client.parallel_reads();
    assert!(counts.stolen >= 1 && counts.doubled >= 1 && counts.stolen < counts.pieces, "{counts:?}");
}

#[test]
fn a_large_file_comes_whole_from_holders_that_fail_or_not_at_all() {
    let store = Store::new(3);
    let all: [_; 3] = dstores(&store);
    let client = store.client();
    let content = large_file(&client);
    // Each has lost other blocks of the objects, in another way: together they still have all.
    let with = |blocks: [u64; 3]| BTreeSet::from(blocks);
    all[0].behave(Behaviour { flips: with([0, 40, 120]), ..Behaviour::default() });
    all[1].behave(Behaviour { finds_damaged: with([1, 41, 121]), ..Behaviour::default() });
    all[2].behave(Behaviour { gives_up_after: Some(2), ..Behaviour::default() });
    for _ in 0..5 {
        assert!(get(&client, "/large").unwrap() == content);
    }
    // A block that no holder has is an error, and no wrong byte comes before it.
    all.iter().for_each(|dstore| dstore.behave(Behaviour { flips: BTreeSet::from([50]), ..Behaviour::default() }));
    let mut out = Vec::new();
    let error = client.get(&path("/large"), Condition::Any).unwrap().copy_to(0..u64::MAX, &mut out).unwrap_err();
    assert!(matches!(error, Error::Damaged(_)), "{error}");
    assert!(out == content[..50 * BLOCK], "{} bytes", out.len());
}

#[test]
fn a_reader_that_takes_no_more_waits_for_no_holder() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let store = Store::new(3);
    let all: [_; 3] = dstores(&store);
    let client = store.client();
    large_file(&client);
    all[1].behave(withholding());
    let result = client.get(&path("/large"), Condition::Any).unwrap().copy_to(0..u64::MAX, &mut Full);
    assert!(matches!(result, Err(Error::Sink(_))), "{result:?}");
}

#[test]
fn a_preferred_dstore_is_read_from_for_as_long_as_it_can() {
    let store = Store::new(3);
    let all: [_; 3] = dstores(&store);
    let client = store.client();
    let content = bytes(1, 10 * BLOCK + 77);
    kit::eventually("all three have it", || {
        put(&client, "/a", &content).unwrap();
        client.copies(&path("/a")).unwrap()[0].copies.len() == 3
    });
    let get_from = |dstore: &ScriptedDstore| {
        let mut got = Vec::new();
        let mut file = client.get(&path("/a"), Condition::Any).unwrap();
        assert_eq!(file.holders(), all.iter().map(ScriptedDstore::number).collect());
        file.prefer(dstore.number());
        file.copy_to(0..u64::MAX, &mut got).unwrap();
        assert!(got == content);
    };
    for dstore in &all {
        let before = all.each_ref().map(ScriptedDstore::bytes_sent);
        (0..5).for_each(|_| get_from(dstore));
        for (other, before) in all.iter().zip(before) {
            let sent = other.bytes_sent() - before;
            let expected = if other.number() == dstore.number() { 5 * content.len() as u64 } else { 0 };
            assert_eq!(sent, expected, "by {:?}, while {:?} is preferred", other.number(), dstore.number());
        }
    }
    all[1].behave(Behaviour { gives_up_after: Some(2), ..Behaviour::default() });
    get_from(&all[1]);
}

#[test]
fn names_survive_a_restart_and_copies_are_learned_again() {
    let mut store = Store::new(2);
    let all: [_; 2] = dstores(&store);
    let client = store.client();
    let content = bytes(1, 3 * BLOCK);
    let version = put(&client, "/a/b", &content).unwrap();
    client.rename(&path("/a"), &path("/c"), &MoveOptions::default()).unwrap();
    store.stop();
    store.start();
    let client = store.client();
    assert_eq!(client.stat(&path("/c/b")).unwrap().version, version);
    all.iter().for_each(|dstore| dstore.join(&store));
    assert!(get(&client, "/c/b").unwrap() == content);
    // A Dstore that comes back empty has nothing, whatever was claimed.
    all[0].cut_link();
    all[0].lose_everything();
    all[0].join(&store);
    kit::eventually("the copies that are gone are known to be gone", || {
        let copies = client.copies(&path("/c/b")).unwrap();
        copies[0].copies.iter().map(|copy| copy.dstore).eq([all[1].number()])
    });
    assert!(get(&client, "/c/b").unwrap() == content);
}

#[test]
fn conditions_are_checked_before_any_byte_is_sent() {
    let store = Store::new(1);
    let [dstore] = dstores(&store);
    let client = store.client();
    let first = put(&client, "/a", b"one").unwrap();
    put(&client, "/a", b"two").unwrap();
    let stored = dstore.objects().len();
    for (condition, refusal) in
        [(Condition::Absent, Refusal::AlreadyExists), (Condition::Version { version: first }, Refusal::ConditionFailed)]
    {
        let options = PutOptions { condition, ..PutOptions::default() };
        let result = client.put(&path("/a"), Source::Once(&mut Cursor::new(b"three")), &options);
        assert!(matches!(&result, Err(Error::Refused(why)) if *why == refusal), "{result:?}");
    }
    let missing = client.put(&path("/no/where"), Source::Once(&mut Cursor::new(b"x")), &PutOptions::default());
    assert!(matches!(missing, Err(Error::Refused(Refusal::NotFound))), "{missing:?}");
    assert_eq!(get(&client, "/a").unwrap(), b"two");
    assert!(dstore.objects().len() <= stored + 1, "only the put without a condition may have sent its byte");
}

#[test]
fn every_operation_works_over_the_wire() {
    let store = Store::new(1);
    let [_dstore] = dstores(&store);
    let client = store.client();
    let beginning = client.watch(None, Duration::ZERO).unwrap().next;
    put(&client, "/a b/%/ü\n", b"12345").unwrap();
    let version = put(&client, "/x", b"67").unwrap();
    client.copy(&path("/x"), &path("/y"), &Default::default()).unwrap();
    let sources = [(path("/x"), version), (path("/y"), client.stat(&path("/y")).unwrap().version)];
    client.compose(&path("/z"), &sources, true, &PutOptions::default()).unwrap();
    assert_eq!(get(&client, "/z").unwrap(), b"6767");
    client.make_directory(&path("/d"), false, &Details::default(), None).unwrap();
    let attributes = BTreeMap::from([("colour".to_owned(), Some("red".to_owned()))]);
    client.set_attributes(&path("/d"), Condition::Any, &attributes, None, Some(5)).unwrap();
    assert_eq!(client.stat(&path("/d")).unwrap().details.attributes["colour"], "red");
    let listed = |recursive| {
        let options = ListOptions { is_recursive: recursive, limit: 1, ..ListOptions::default() };
        let mut names = Vec::new();
        let mut options = options;
        loop {
            let page = client.list(&path("/"), &options).unwrap();
            names.extend(page.entries.into_iter().map(|entry| entry.name));
            match page.after {
                Some(after) => options.after = after,
                None => return names,
            }
        }
    };
    assert_eq!(listed(false), ["a b/", "d/", "z"]);
    assert_eq!(listed(true), ["a b/", "a b/%/", "a b/%/ü\n", "d/", "z"]);
    let found = client.find(&path("/"), "[%z]", "").unwrap();
    assert_eq!(found.entries.iter().map(|entry| &*entry.name).collect::<Vec<_>>(), ["a b/%/", "z"]);
    client.remove_directory(&path("/a b"), Condition::Any, RemovalExtent::Tree).unwrap();
    client.remove(&path("/z"), Condition::Any).unwrap();
    assert!(matches!(client.remove(&path("/z"), Condition::Any), Err(Error::Refused(Refusal::NotFound))));
    let page = client.watch(Some(beginning), Duration::ZERO).unwrap();
    let verbs: Vec<&str> = page.events.iter().map(|event| &*event.verb).collect();
    let expected = ["put", "put", "copy", "compose", "make-directory", "set-attributes", "remove-directory", "remove"];
    assert_eq!(verbs, expected, "what was refused is not told");
    let status = client.status().unwrap();
    assert_eq!((status.name.as_str(), status.dstores.len(), status.controllers.len()), ("test", 1, 1));
    let mut settings = client.settings().unwrap();
    settings.chunk_bytes = 1 << 20;
    client.set(&settings).unwrap();
    assert_eq!(client.settings().unwrap(), settings);
    settings.chunk_bytes = 1;
    assert!(client.set(&settings).is_err(), "a chunk of one byte");
    assert!(matches!(client.format("another"), Err(Error::Refused(Refusal::NotPermitted))));
    client.format("test").unwrap();
    assert_eq!(listed(true), [""; 0]);
}

#[test]
fn a_watch_is_told_of_a_change_as_it_comes() {
    let store = Store::new(1);
    let client = store.client();
    let next = client.watch(None, Duration::ZERO).unwrap().next;
    thread::scope(|scope| {
        let watching = scope.spawn(|| client.watch(Some(next), common::SOON).unwrap());
        let other = store.client();
        other.make_directory(&path("/d"), false, &Details::default(), None).unwrap();
        assert_eq!(watching.join().unwrap().events[0].paths, [path("/d")]);
    });
    let foreign = depot::identity::Version { sequence: next.sequence, history: depot::identity::History(1) };
    assert!(matches!(client.watch(Some(foreign), Duration::ZERO), Err(Error::TooOld)), "a cursor of another history");
}

#[test]
fn a_commit_counts_only_copies_that_may_be_there() {
    // depot 4.6, 5.3: the Dstore has said since what it has, and the object is not in it
    let store = Store::new(1);
    let [dstore] = dstores(&store);
    let client = store.client();
    put(&client, "/a", b"content").unwrap();
    let mut connection = store.dial();
    let mut ask = |request: Request| -> Answer {
        connection.send(&request).unwrap();
        connection.receive(Wait::deadline(common::SOON)).unwrap()
    };
    let Answer::Session { born, .. } = ask(Request::Session) else { panic!("no session") };
    let mut commit = |number: u64, position: Position| {
        let places =
            Request::Places { path: path("/b"), condition: Condition::Any, parents: false, replicas: None, objects: 1 };
        let Answer::Granted { grants } = ask(places) else { panic!("nothing is granted") };
        let holders = vec![(dstore.number(), position)];
        let key = grants.objects[0].number;
        let object = NewObject { term: grants.term, number: key, length: 5, checksum: Checksum::of(b"bytes"), holders };
        let objects = NewObjects { history: grants.history, objects: vec![object] };
        let command = Command::Put {
            path: path("/b"),
            condition: Condition::Any,
            parents: false,
            objects,
            checksum: Checksum::of(b"bytes"),
            modified_ms: None,
            details: Details::default(),
        };
        let stamp = Stamp { session: SessionId(9), born, number, done_below: number };
        ask(Request::Change { stamp, more: 0, command: Box::new(command) })
    };
    // Its inventory, which ended at this position, did not have the object.
    let answer = commit(1, Position { start: 1, number: 0 });
    let refused = matches!(answer, Answer::Error { failure: Failure::NotEnoughDstores { there: 0, needed: 1 } });
    assert!(refused, "{answer:?}");
    assert!(matches!(client.stat(&path("/b")), Err(Error::Refused(Refusal::NotFound))));
    // What it has not reported yet may be there.
    let answer = commit(2, Position { start: 1, number: 100 });
    assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
}

/// Asks over a connection of its own.
fn ask(connection: &mut Connection, request: &Request) -> Answer {
    connection.send(request).unwrap();
    connection.receive(Wait::deadline(SOON)).unwrap()
}

#[test]
fn all_repeats_of_a_put_are_told_of_the_same_change() {
    // depot 3.5: the leases end with the change, and a repeat may just have been let in
    const ROUNDS: u64 = 16;
    let mut store = Store::new(1);
    let [dstore] = dstores(&store);
    let places = Request::Places {
        path: path("/0"),
        condition: Condition::Any,
        parents: false,
        replicas: None,
        objects: ROUNDS as u32,
    };
    let Answer::Granted { grants } = ask(&mut store.dial(), &places) else { panic!("nothing is granted") };
    let Grants { history, term, .. } = grants;
    // Keys of an earlier leadership: a put with one of them waits until its copy is reported, and so do its repeats.
    store.stop();
    store.start();
    dstore.join(&store);
    let keys: Vec<Key> = grants.objects.iter().map(|grant| Key { history, term, number: grant.number }).collect();
    assert_eq!(ask(&mut store.dial(), &Request::Renew { keys: keys.clone() }), Answer::Ok);
    let Answer::Session { born, .. } = ask(&mut store.dial(), &Request::Session) else { panic!("no session") };
    let mut repeats: Vec<Connection> = (0..32).map(|_| store.dial()).collect();
    for (key, number) in keys.into_iter().zip(1..) {
        let (content, at) = (b"bytes", path(&format!("/{number}")));
        let checksum = Checksum::of(content);
        let holders = vec![(dstore.number(), Position { start: 1, number })];
        let object = NewObject { term, number: key.number, length: content.len() as u64, checksum, holders };
        let command = Command::Put {
            path: at,
            condition: Condition::Any,
            parents: false,
            objects: NewObjects { history, objects: vec![object] },
            checksum,
            modified_ms: None,
            details: Details::default(),
        };
        let stamp = Stamp { session: SessionId(9), born, number, done_below: number };
        let change = Request::Change { stamp, more: 0, command: Box::new(command) };
        repeats.iter_mut().for_each(|connection| connection.send(&change).unwrap());
        let access = Access::Client { id: ClientId(7), key: store.secret.client_key(ClientId(7)) };
        let mut to = wire::connect(&dstore.address, &access, CLUSTER, Role::Dstore, SOON, |_| ()).unwrap();
        let length = content.len() as u64;
        to.send_with_content(&ObjectRequest::Put { key, length, checksum }, content).unwrap();
        let stored = ObjectAnswer::Stored { position: Position { start: 1, number } };
        assert_eq!(to.receive::<ObjectAnswer>(Wait::deadline(SOON)).unwrap(), stored);
        let mut versions =
            repeats.iter_mut().map(|connection| match connection.receive(Wait::deadline(SOON)).unwrap() {
                Answer::Done { version, .. } => version,
                other => panic!("round {number}: {other:?}"),
            });
        let first = versions.next().unwrap();
        assert!(versions.all(|version| version == first), "round {number}");
    }
}

#[test]
fn lines_that_are_no_requests_are_answered_and_survived() {
    let store = Store::new(1);
    let mut connection = store.dial();
    for line in ["", "NONSENSE", "STAT", "STAT relative", "LIST / % %", "CHANGE 1 1 1 1 1 0 reap", "STAT /x/../y"] {
        connection.send_content(format!("{line}\n").as_bytes()).unwrap();
        let answer: Answer = connection.receive(Wait::deadline(common::SOON)).unwrap();
        assert!(matches!(answer, Answer::Error { .. }), "{line}: {answer:?}");
    }
    connection.send_content(b"STAT /\n").unwrap();
    let answer: Answer = connection.receive(Wait::deadline(common::SOON)).unwrap();
    assert!(matches!(answer, Answer::Stat { .. }), "{answer:?}");
}

#[test]
fn a_controller_whose_disk_is_an_old_copy_is_told_so() {
    // depot 2.2
    let mut store = Store::new(1);
    let [dstore] = dstores(&store);
    store.stop();
    let log = store.folder.path().join("log");
    let copy = store.folder.path().join("copy");
    copy_folder(&log, &copy);
    store.start();
    dstore.join(&store); // it acknowledges a leadership that the copy knows nothing of
    store.stop();
    std::fs::remove_dir_all(&log).unwrap();
    std::fs::rename(&copy, &log).unwrap();
    store.start();
    let (disk, number) = (dstore.disk, dstore.number());
    thread::scope(|scope| {
        scope.spawn(|| dstore.try_join(&store));
        kit::eventually("the Controller gives up", || store.controller().failure().is_some());
    });
    let why = store.controller().failure().unwrap();
    assert!(why.contains("old copy"), "{why} {disk} {number}");
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_backup_has_what_was_acknowledged_and_is_sent_when_something_changed() {
    // depot 4.9
    let mut store = Store::new(1);
    store.stop();
    store.backup_period = Duration::from_millis(10);
    store.start();
    let [dstore] = dstores(&store);
    let client = store.client();
    for number in 0..5 {
        let version = put(&client, &format!("/{number}"), b"content").unwrap();
        let mut bytes = Vec::new();
        let made = client.backup(&mut bytes).unwrap();
        assert_eq!(made.contents, verify(&bytes[..]).unwrap());
        assert!(made.contents.sequence >= version.sequence && made.contents.entries == number + 1);
        let has_it = |backup: &Vec<u8>| verify(&backup[..]).unwrap().sequence >= version.sequence;
        kit::eventually("the Dstore has it, too", || dstore.backups().iter().any(has_it));
    }
    let up = || client.status().unwrap().controllers[0].up.unwrap();
    let then = up();
    kit::eventually("twenty periods pass", || up() > then + Duration::from_millis(200));
    let sequences: Vec<u64> = dstore.backups().iter().map(|backup| verify(&backup[..]).unwrap().sequence).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "no two without a change between them: {sequences:?}");
}

/// Passes connections on to `to`, and counts the bytes of both directions.
fn counting_proxy(to: &depot::wire::Address) -> (depot::wire::Address, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().into();
    let to = to.resolve().unwrap()[0];
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (near, far) = (Arc::new(stream.unwrap()), Arc::new(TcpStream::connect(to).unwrap()));
            for (from, to) in [(Arc::clone(&near), Arc::clone(&far)), (far, near)] {
                let counted = Arc::clone(&counted);
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = (&*from).read(&mut buffer) {
                        counted.fetch_add(count as u64, Ordering::SeqCst);
                        if (&*to).write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    (address, count)
}

#[test]
fn what_the_controller_hears_does_not_grow_with_files() {
    let mut store = Store::new(2);
    // Clients and Dstores alike come by the proxy.
    let (address, count) = counting_proxy(&store.address);
    store.address = address;
    let dstores: [_; 2] = dstores(&store);
    let client = store.client();
    put(&client, "/warm-up", b"x").unwrap();
    let mut counts = Vec::new();
    for size in [1000, BLOCK, 8 << 20] {
        let content = bytes(1, size);
        let before = count.load(Ordering::SeqCst);
        put(&client, "/file", &content).unwrap();
        assert!(get(&client, "/file").unwrap() == content);
        let is_reported = || {
            let copies = client.copies(&path("/file")).unwrap();
            copies.iter().all(|object| object.copies.iter().filter(|copy| copy.is_certain).count() == 2)
        };
        kit::eventually("both Dstores have reported", is_reported);
        counts.push(count.load(Ordering::SeqCst) - before);
    }
    drop(dstores);
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    // Heartbeats and the questions of this test come in between: a few kilobytes, where files have megabytes.
    assert!(most - least < 20_000 && *most < 40_000, "{counts:?}");
}

#[test]
fn keys_that_were_granted_ahead_do_not_pile_up() {
    let store = Store::new(1);
    let [dstore] = dstores(&store);
    let client = store.client();
    // Many puts at a time, each answered with keys for the next ones: more than a client may have on lease at once.
    thread::scope(|scope| {
        for thread in 0..8 {
            let client = &client;
            scope.spawn(move || {
                for number in 0..100 {
                    put(client, &format!("/{thread}/{number}"), b"x").unwrap();
                }
            });
        }
    });
    let last = dstore.objects().keys().last().map(|key| key.number).unwrap();
    assert!(last < 2 * 800, "{last} keys were granted for 800 puts");
}
