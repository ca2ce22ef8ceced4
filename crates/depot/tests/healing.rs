//! A store that heals: a Controller and real Dstores in one process. (depot 5.3, 5.4, 6)
#![allow(missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::net::TcpListener;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{CLUSTER, SOON, ScriptedDstore, Store};
use depot::checksum::Checksum;
use depot::client::{Cluster, CopyOptions, DstoreState, DstoreStatus, Error, Files, MoveOptions, PutOptions, Source};
use depot::controller::HealingOptions;
use depot::disk::RealFolder;
use depot::dstore::{self, COPY_RATE, GIVES_UP_AFTER, SCRUB_PERIOD};
use depot::identity::{DiskId, DstoreId, History, Key, SessionId};
use depot::log::SyncMode;
use depot::log::recovery::Found;
use depot::namespace::change::{
    Command, Condition, Details, NewObject, NewObjects, Refusal, RemovalExtent, Replicas, Settings, Stamp,
};
use depot::pack;
use depot::path::Path;
use depot::wire::message::{Answer, CopyReport, Failure, ObjectAnswer, ObjectRequest, Order, Report, Request};
use depot::wire::{Access, Address, ClientId, Connection, ReceiveError, Role, connect};
use kit::{TempFolder, bytes};
use stevedore::socket::Wait;

/// Everything at once: what is kept safe must not rest on a delay. (depot 1.7)
const AT_ONCE: HealingOptions = HealingOptions {
    grace: Duration::ZERO,
    after_put: Duration::ZERO,
    margin: Duration::ZERO,
    keep_removed: Duration::ZERO,
    lease: Duration::from_secs(60),
};

/// A Dstore that can be stopped and started again.
struct Dstore {
    folder: TempFolder,
    host: String,
    capacity: Option<u64>,
    handle: Option<dstore::Handle>,
}

impl Dstore {
    fn new(store: &Store, host: &str) -> Self {
        Self::with_capacity(store, host, None)
    }

    /// One that uses so many bytes of the disk at most.
    fn with_capacity(store: &Store, host: &str, capacity: Option<u64>) -> Self {
        let mut dstore = Self { folder: TempFolder::new(), host: host.to_owned(), capacity, handle: None };
        dstore.start(store);
        dstore
    }

    fn start(&mut self, store: &Store) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = dstore::Options {
            data: self.folder.path().to_owned(),
            cluster: CLUSTER,
            secret: store.secret.clone(),
            address: listener.local_addr().unwrap().into(),
            listener,
            controllers: vec![store.address.clone()],
            host: self.host.clone(),
            zone: String::new(),
            disk: pack::Options { sync: SyncMode::Never, capacity: self.capacity, ..pack::Options::default() },
            scrub_period: SCRUB_PERIOD,
            gives_up_after: GIVES_UP_AFTER,
            copy_rate: COPY_RATE,
        };
        self.handle = Some(dstore::Handle::start(options).unwrap());
    }

    fn stop(&mut self) {
        self.handle.take().unwrap().stop().unwrap();
    }

    fn id(&self) -> DstoreId {
        kit::eventually("the Dstore is admitted", || self.handle.as_ref().unwrap().identity().number.is_some());
        self.handle.as_ref().unwrap().identity().number.unwrap()
    }
}

/// Dstores on machines of their own, all of them admitted.
fn dstores(store: &Store, count: usize) -> Vec<Dstore> {
    let dstores: Vec<Dstore> = (1..=count).map(|number| Dstore::new(store, &format!("host-{number}"))).collect();
    wait_for_all(&store.client(), count);
    dstores
}

fn wait_for_all(client: &Cluster, count: usize) {
    kit::eventually("all Dstores are there", || {
        let status = client.status().unwrap();
        // It says how it is once it follows.
        let is_there = |dstore: &&DstoreStatus| dstore.state == DstoreState::Present && dstore.total_bytes > 0;
        status.dstores.iter().filter(is_there).count() == count
    });
}

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

fn put(client: &Cluster, at: &str, content: &[u8]) -> Result<(), Error> {
    put_with(client, at, content, None)
}

fn put_with(client: &Cluster, at: &str, content: &[u8], replicas: Option<u8>) -> Result<(), Error> {
    let details = Details { replicas: replicas.map(Replicas::Number), ..Details::default() };
    let options = PutOptions { parents: true, details, ..PutOptions::default() };
    client.put(&path(at), Source::Once(&mut Cursor::new(content)), &options).map(drop)
}

fn get(client: &Cluster, at: &str) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    client.get(&path(at), Condition::Any)?.copy_to(0..u64::MAX, &mut content)?;
    Ok(content)
}

/// Files of many sizes, in packs and in files of their own.
fn fill(client: &Cluster, count: u64) -> BTreeMap<String, Vec<u8>> {
    let file = |number: u64| {
        let size = [1, 1000, 70_000, 1_500_000][number as usize % 4];
        (format!("/files/{number}"), bytes(number, size))
    };
    let files: BTreeMap<String, Vec<u8>> = (0..count).map(file).collect();
    files.iter().for_each(|(path, content)| put(client, path, content).unwrap());
    files
}

/// Whether every object of the files has so many certain copies, and no others.
fn is_healed(client: &Cluster, files: &BTreeMap<String, Vec<u8>>, copies: usize) -> bool {
    files.keys().all(|at| {
        let objects = client.copies(&path(at)).unwrap();
        objects.iter().all(|object| {
            let good = |copy: &&depot::client::PlaceOfCopy| copy.is_present && copy.is_certain && !copy.is_damaged;
            let present = object.copies.iter().filter(|copy| copy.is_present).count();
            object.copies.iter().filter(good).count() == copies && present == copies
        })
    })
}

fn eventually_healed(client: &Cluster, files: &BTreeMap<String, Vec<u8>>, copies: usize) {
    let deadline = Instant::now() + 3 * SOON;
    while !is_healed(client, files, copies) {
        if Instant::now() > deadline {
            let status = client.status().unwrap();
            let objects: Vec<_> = files.keys().map(|at| client.copies(&path(at)).unwrap()).collect();
            panic!("not healed to {copies} copies: {status:#?}\n{objects:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn all_are_readable(client: &Cluster, files: &BTreeMap<String, Vec<u8>>) {
    for (path, content) in files {
        assert!(get(client, path).unwrap() == *content, "{path}");
    }
}

/// How many objects all Dstores have together, as they say.
fn objects_kept(client: &Cluster) -> u64 {
    client.status().unwrap().dstores.iter().map(|dstore| dstore.objects).sum()
}

#[test]
fn copies_of_a_dead_dstore_are_made_elsewhere() {
    let store = Store::that_heals(2, AT_ONCE);
    let mut all = dstores(&store, 4);
    let client = store.client();
    let files = fill(&client, 40);
    eventually_healed(&client, &files, 2);
    all[0].stop();
    eventually_healed(&client, &files, 2);
    all_are_readable(&client, &files);
    // It returns with copies that are not needed any more.
    all[0].start(&store);
    wait_for_all(&client, 4);
    eventually_healed(&client, &files, 2);
    kit::eventually("no Dstore keeps more", || objects_kept(&client) == 2 * 40);
    all_are_readable(&client, &files);
    let status = client.status().unwrap();
    assert_eq!((status.too_few_copies, status.healing.objects), (0, 0), "{status:?}");
}

#[test]
fn status_misses_the_copies_that_are_not_there() {
    let store = Store::that_heals(3, AT_ONCE);
    let mut all = dstores(&store, 3);
    let client = store.client();
    let files = fill(&client, 20);
    let once: Vec<String> = (0..5).map(|number| format!("/once/{number}")).collect();
    once.iter().for_each(|at| put_with(&client, at, b"x", Some(1)).unwrap());
    eventually_healed(&client, &files, 3);
    let told = || {
        let status = client.status().unwrap();
        (status.too_few_copies, status.no_copy)
    };
    for away in 1..=3 {
        all[away - 1].stop();
        wait_for_all(&client, 3 - away);
        let is_lost = |at: &&String| {
            let objects = client.copies(&path(at)).unwrap();
            !objects.iter().flat_map(|object| &object.copies).any(|copy| copy.is_present)
        };
        let lost = once.iter().filter(is_lost).count() as u64;
        let expected = if away < 3 { (20 + lost, lost) } else { (25, 25) };
        kit::eventually("all that are lacking are counted", || told() == expected);
    }
    all.iter_mut().for_each(|dstore| dstore.start(&store));
    kit::eventually("none is lacking", || told() == (0, 0));
}

#[test]
fn beside_changes_status_misses_no_copy_that_is_there() {
    let seed = fastrand::u64(..1 << 32);
    println!("seed {seed}");
    let store = Store::that_heals(2, AT_ONCE);
    let _all = dstores(&store, 3);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..6 {
            let (store, is_over) = (&store, &is_over);
            scope.spawn(move || write(&store.client(), writer, seed, is_over));
        }
        let told = (0..50).map(|_| {
            thread::sleep(Duration::from_millis(100)); // five counts, one each second: that none is wrong cannot be awaited
            let status = store.client().status().unwrap();
            (status.too_few_copies, status.no_copy)
        });
        let wrong = told.into_iter().find(|told| *told != (0, 0));
        is_over.store(true, Ordering::SeqCst);
        assert_eq!(wrong, None, "(too few, none)");
    });
}

#[test]
fn a_client_follows_a_dstore_to_its_new_address() {
    let store = Store::that_heals(3, AT_ONCE);
    let mut all = dstores(&store, 3);
    let client = store.client();
    // A put that one of them does not take fails.
    client.set(&Settings { write_quorum: Some(3), ..client.settings().unwrap() }).unwrap();
    for round in 0..6 {
        (0..10).for_each(|number| put(&client, &format!("/{round}/{number}"), b"x").unwrap());
        all[round % 3].stop();
        wait_for_all(&client, 2);
        all[round % 3].start(&store); // on another port
        wait_for_all(&client, 3);
        // What was granted ahead goes to where it was.
        (0..10).for_each(|number| put(&client, &format!("/{round}/{number}"), b"y").unwrap());
    }
}

#[test]
fn a_short_absence_copies_nothing() {
    let grace = Duration::from_secs(60);
    let mut store = Store::that_heals(2, HealingOptions { grace, ..AT_ONCE });
    let all: [_; 4] = std::array::from_fn(|number| ScriptedDstore::new(&store, number as u128 + 1));
    let client = store.client();
    wait_for_all(&client, 4);
    let files = fill(&client, 12);
    eventually_healed(&client, &files, 2);
    // A file that is removed now is collected by a round that sees how things are now.
    let wait_for_a_round = |store: &Store, present: &ScriptedDstore| {
        let client = store.client();
        put_with(&client, "/round", b"round", Some(4)).ok();
        let held = || present.objects().values().filter(|content| *content == b"round").count();
        kit::eventually("all have it", || held() == 1);
        client.remove(&path("/round"), Condition::Any).unwrap();
        kit::eventually("it is collected", || held() == 0);
    };
    all[0].cut_link();
    kit::eventually("its absence is noticed", || {
        let status = client.status().unwrap();
        status.dstores.iter().any(|dstore| dstore.state == DstoreState::Away)
    });
    wait_for_a_round(&store, &all[1]);
    all[0].join(&store);
    wait_for_a_round(&store, &all[1]);
    // A restart of the Controller: it knows of no copy until the Dstores have reported, which come one after another.
    store.stop();
    store.start();
    all[2].join(&store);
    all[1].join(&store);
    all[3].join(&store);
    wait_for_a_round(&store, &all[1]);
    all[0].join(&store);
    wait_for_a_round(&store, &all[1]);
    let client = store.client();
    eventually_healed(&client, &files, 2);
    let named: Vec<Key> =
        files.keys().flat_map(|at| client.copies(&path(at)).unwrap()).map(|object| object.key).collect();
    for dstore in &all {
        let copied: Vec<Key> = dstore.copies_ordered().into_iter().filter(|key| named.contains(key)).collect();
        assert_eq!(copied, [], "Dstore {}", dstore.number());
    }
}

#[test]
fn the_grace_can_be_set_while_a_dstore_is_away() {
    // depot 6.2
    let store = Store::that_heals(2, HealingOptions { grace: Duration::from_secs(3600), ..AT_ONCE });
    let mut all = dstores(&store, 3);
    let client = store.client();
    let files = fill(&client, 8);
    eventually_healed(&client, &files, 2);
    all[0].stop();
    let settings = Settings { grace_s: Some(0), ..client.settings().unwrap() };
    client.set(&settings).unwrap();
    eventually_healed(&client, &files, 2);
    assert_eq!(client.settings().unwrap().grace_s, Some(0));
}

#[test]
fn a_flipped_byte_is_healed_where_it_is() {
    let store = Store::that_heals(2, AT_ONCE);
    let all = dstores(&store, 2);
    let client = store.client();
    let content = bytes(7, 100_000);
    put(&client, "/a", &content).unwrap();
    let pack = all[0].folder.path().join("pack-0000000001");
    let mut stored = std::fs::read(&pack).unwrap();
    let start = stored.windows(100).position(|window| window == &content[..100]).unwrap();
    stored[start + 5] ^= 1;
    std::fs::write(&pack, stored).unwrap();
    // A reader finds it sooner or later: it reads from either.
    kit::eventually("the Dstore has found the damage, and has got it right again", || {
        assert!(get(&client, "/a").unwrap() == content);
        let stored = std::fs::read(&pack).unwrap();
        stored.windows(100).any(|window| window == &content[..100])
    });
    eventually_healed(&client, &BTreeMap::from([("/a".to_owned(), content)]), 2);
}

#[test]
fn a_check_finds_what_is_damaged_and_has_it_repaired() {
    let store = Store::that_heals(2, HealingOptions { grace: Duration::from_secs(60), ..AT_ONCE });
    let mut all = dstores(&store, 3);
    let client = store.client();
    let files = fill(&client, 12);
    eventually_healed(&client, &files, 2);
    let check = |at: &str, deep: bool| {
        let mut faults = Vec::new();
        let summary = client.check(&path(at), deep, &mut |fault| faults.push(fault.clone())).unwrap();
        (summary, faults)
    };
    let (summary, faults) = check("/", true);
    assert_eq!((summary.files, summary.objects, summary.copies, summary.faulty, faults.len()), (12, 12, 24, 0, 0));
    let (at, content) = files.iter().find(|(_, content)| content.len() == 70_000).unwrap();
    let holder = client.copies(&path(at)).unwrap()[0].copies[0].dstore;
    let folder = all.iter().find(|dstore| dstore.id() == holder).unwrap().folder.path().join("pack-0000000001");
    let mut stored = std::fs::read(&folder).unwrap();
    let start = stored.windows(100).position(|window| window == &content[..100]).unwrap();
    stored[start + 5] ^= 1;
    std::fs::write(&folder, stored).unwrap();
    assert_eq!(check("/", false).0.faulty, 0, "the Dstore does not know it yet");
    assert_eq!(check("/files", true).1[0].damaged, [holder]);
    // The Dstore has told the client, and tells the Controller a moment later.
    kit::eventually("it is repaired", || check(at, true).0.faulty == 0);
    eventually_healed(&client, &files, 2);
    // One that is away for a moment is no reason to copy, and what it has cannot be vouched for.
    let away = all[0].id();
    all[0].stop();
    kit::eventually("its absence is noticed", || {
        let status = client.status().unwrap();
        status.dstores.iter().any(|dstore| dstore.id == away && dstore.state == DstoreState::Away)
    });
    let (summary, faults) = check("/", false);
    assert!(summary.faulty > 0 && summary.lost == 0, "{summary:?}");
    assert!(faults.iter().all(|fault| fault.good == 1 && fault.silent == [away]), "{faults:?}");
    assert!(client.check(&path("/no"), false, &mut |_| ()).is_err());
}

#[test]
fn a_dstore_that_drains_becomes_empty_and_can_be_removed() {
    let store = Store::that_heals(2, AT_ONCE);
    let mut all = dstores(&store, 3);
    let client = store.client();
    let files = fill(&client, 30);
    let id = all[0].id();
    let refused = client.discharge(id, true).unwrap_err();
    assert!(refused.to_string().contains("is there"), "{refused}");
    client.drain(id, true).unwrap();
    kit::eventually("no file has a copy there", || {
        let objects = files.keys().flat_map(|at| client.copies(&path(at)).unwrap());
        objects.flat_map(|object| object.copies).all(|copy| copy.dstore != id)
    });
    assert!(is_healed(&client, &files, 2));
    kit::eventually("it has nothing left", || {
        let status = client.status().unwrap();
        status.dstores.iter().any(|dstore| dstore.id == id && dstore.objects == 0)
    });
    all_are_readable(&client, &files);
    client.discharge(id, false).unwrap();
    kit::eventually("it ends", || all[0].handle.as_ref().unwrap().failure().is_some());
    assert_eq!(client.status().unwrap().dstores.len(), 2);
    assert!(client.drain(id, true).is_err(), "it is none of this store's");
    all[0].stop();
    // With one of the two others gone, the last one is needed.
    all[1].stop();
    let last = all[2].id();
    let refused = client.discharge(last, false).unwrap_err();
    assert!(refused.to_string().contains("30 objects"), "{refused}");
    client.discharge(all[1].folder_id(&client), true).unwrap();
    all_are_readable(&client, &files);
}

impl Dstore {
    /// The number of one that is stopped: the only one that is away.
    fn folder_id(&self, client: &Cluster) -> DstoreId {
        assert!(self.handle.is_none());
        let mut id = None;
        kit::eventually("its absence is noticed", || {
            let status = client.status().unwrap();
            id = status.dstores.iter().find(|dstore| dstore.state == DstoreState::Away).map(|dstore| dstore.id);
            id.is_some()
        });
        id.unwrap()
    }
}

#[test]
fn a_new_dstore_is_filled_like_the_others() {
    // depot 6.4
    const CAPACITY: u64 = 16 << 20;
    const SIZE: usize = 200_000;
    let store = Store::that_heals(2, AT_ONCE);
    let new = |number: u32| Dstore::with_capacity(&store, &format!("host-{number}"), Some(CAPACITY));
    let mut all: Vec<Dstore> = (1..=3).map(new).collect();
    let client = store.client();
    wait_for_all(&client, 3);
    let files: BTreeMap<String, Vec<u8>> =
        (0..40).map(|number| (format!("/files/{number}"), bytes(number, SIZE))).collect();
    files.iter().for_each(|(path, content)| put(&client, path, content).unwrap());
    eventually_healed(&client, &files, 2);
    all.push(new(4));
    let id = all[3].id();
    kit::eventually("copies move to it", || {
        let status = client.status().unwrap();
        let is_moving = status.healing.moving > 0 && status.healing.points_apart > 5;
        is_moving || status.dstores.iter().any(|dstore| dstore.id == id && dstore.objects > 0)
    });
    // Meanwhile all can be read, and never has an object fewer copies.
    let deadline = Instant::now() + 3 * SOON;
    let used = loop {
        all_are_readable(&client, &files);
        let status = client.status().unwrap();
        assert_eq!(status.too_few_copies, 0, "{status:?}");
        let used: Vec<u64> = status.dstores.iter().map(|dstore| dstore.used_bytes).collect();
        let apart = used.iter().max().unwrap() - used.iter().min().unwrap();
        if apart <= CAPACITY / 20 && status.healing.moving == 0 && status.healing.points_apart == 0 {
            break used;
        }
        assert!(Instant::now() < deadline, "{status:#?}");
    };
    eventually_healed(&client, &files, 2);
    assert_eq!(used.iter().sum::<u64>(), 2 * 40 * SIZE as u64);
    // As little as possible: what makes it as full as the others, less 5 points, and not more than that.
    let fair = used.iter().sum::<u64>() / 4;
    assert!(used[3] <= fair, "{used:?}");
}

#[test]
fn what_cannot_be_evened_out_is_said() {
    // Both Dstores have a copy of each object: nothing can move, though the smaller one is fuller.
    let store = Store::that_heals(2, AT_ONCE);
    let small = Dstore::with_capacity(&store, "host-1", Some(4 << 20));
    let large = Dstore::with_capacity(&store, "host-2", Some(40 << 20));
    let client = store.client();
    wait_for_all(&client, 2);
    for number in 0..10 {
        put(&client, &format!("/{number}"), &bytes(number, 200_000)).unwrap();
    }
    kit::eventually("status says so", || {
        let healing = client.status().unwrap().healing;
        healing.points_apart > 40 && healing.is_as_even_as_can_be && healing.moving == 0
    });
    assert_eq!(objects_kept(&client), 20, "Dstores {} and {}", small.id(), large.id());
}

#[test]
fn removed_files_give_their_space_back() {
    let store = Store::that_heals(2, AT_ONCE);
    let _all = dstores(&store, 3);
    let client = store.client();
    let mut files = fill(&client, 20);
    // Replaced, removed one by one, and with their directory.
    for (path, content) in files.iter_mut().take(10) {
        *content = bytes(99, 1234);
        put(&client, path, content).unwrap();
    }
    put(&client, "/d/x", b"x").unwrap();
    put(&client, "/one", b"y").unwrap();
    client.remove(&path("/one"), Condition::Any).unwrap();
    client.remove_directory(&path("/d"), Condition::Any, RemovalExtent::Tree).unwrap();
    kit::eventually("only what files name is kept", || objects_kept(&client) == 2 * 20);
    all_are_readable(&client, &files);
    client.format("test").unwrap();
    kit::eventually("nothing is kept", || objects_kept(&client) == 0);
}

#[test]
fn a_large_tree_goes_while_others_work() {
    // depot 3.6: it is gone for readers at once. Its records and objects go little by little, with the changes of others.
    let store = Store::that_heals(2, AT_ONCE);
    let _all = dstores(&store, 2);
    let client = store.client();
    let files = fill(&client, 8);
    for number in 0..10 {
        put(&client, &format!("/tree/0/{number}"), &bytes(number, 100)).unwrap();
    }
    let copy = |from: &str, to: String| {
        client.copy(&path(from), &path(&to), &CopyOptions::default()).unwrap();
    };
    (1..100).for_each(|number| copy("/tree/0", format!("/tree/{number}")));
    client.make_directory(&path("/trees"), false, &Details::default(), None).unwrap();
    (0..20).for_each(|number| copy("/tree", format!("/trees/{number}")));
    client.rename(&path("/tree"), &path("/trees/20"), &MoveOptions::default()).unwrap();
    assert!(client.status().unwrap().entries > 21 * 1_000);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                put(&client, "/other", b"other").unwrap();
                assert_eq!(get(&client, "/other").unwrap(), b"other");
                all_are_readable(&client, &files);
            }
        });
        client.remove_directory(&path("/trees"), Condition::Any, RemovalExtent::Tree).unwrap();
        for gone in ["/trees", "/trees/3", "/trees/20/7/1"] {
            assert!(matches!(client.stat(&path(gone)), Err(Error::Refused(Refusal::NotFound))), "{gone}");
        }
        kit::eventually("its records go", || client.status().unwrap().entries < 20);
        kit::eventually("its objects go", || client.status().unwrap().objects == 9);
        is_over.store(true, Ordering::Relaxed);
    });
    kit::eventually("their copies go", || objects_kept(&client) == 2 * 9);
}

#[test]
fn a_file_has_as_many_copies_as_it_asks_for() {
    let store = Store::that_heals(2, AT_ONCE);
    let _all = dstores(&store, 4);
    let client = store.client();
    let one = |at: &str| BTreeMap::from([(at.to_owned(), Vec::new())]);
    put_with(&client, "/one", b"1", Some(1)).unwrap();
    put_with(&client, "/three", b"3", Some(3)).unwrap();
    put(&client, "/as-set", b"2").unwrap();
    for (at, copies) in [("/one", 1), ("/three", 3), ("/as-set", 2)] {
        eventually_healed(&client, &one(at), copies);
    }
    let mut settings = client.settings().unwrap();
    for (replicas, copies) in [(Replicas::Number(3), 3), (Replicas::All, 4), (Replicas::Number(1), 1)] {
        settings.replicas = replicas;
        client.set(&settings).unwrap();
        eventually_healed(&client, &one("/as-set"), copies);
    }
    eventually_healed(&client, &one("/three"), 3);
    eventually_healed(&client, &one("/one"), 1);
}

#[test]
fn what_a_stopped_dstore_has_is_surplus_two_leaderships_later() {
    let mut store = Store::that_heals(2, AT_ONCE);
    let mut all = dstores(&store, 3);
    let client = store.client();
    let mut files = fill(&client, 12);
    eventually_healed(&client, &files, 2);
    all[0].stop();
    eventually_healed(&client, &files, 2);
    let gone = files.pop_first().unwrap().0;
    client.remove(&path(&gone), Condition::Any).unwrap();
    for _ in 0..2 {
        all[1..].iter_mut().for_each(Dstore::stop);
        store.stop();
        store.start();
        all[1..].iter_mut().for_each(|dstore| dstore.start(&store));
        wait_for_all(&store.client(), 2);
    }
    let client = store.client();
    all[0].start(&store);
    wait_for_all(&client, 3);
    eventually_healed(&client, &files, 2);
    kit::eventually("neither surplus copies nor the removed file's are kept", || objects_kept(&client) == 2 * 11);
    all_are_readable(&client, &files);
}

/// Has a store that is stopped go on from a backup, and its Dstores with it.
fn restore(store: &mut Store, dstores: &mut [Dstore], backup: &[u8]) {
    // The Controller first: without grace, it would copy what the first Dstore to stop has.
    store.stop();
    dstores.iter_mut().for_each(Dstore::stop);
    let log = RealFolder::new(&store.folder.path().join("log")).unwrap();
    let there = Found::in_log(&log).unwrap().unwrap();
    let others: Vec<History> = there.namespace().lineage().collect();
    Found::in_backup(backup, "backup").unwrap().restore_to(&log, &others).unwrap();
    store.start();
    dstores.iter_mut().for_each(|dstore| dstore.start(store));
    wait_for_all(&store.client(), dstores.len());
}

#[test]
fn what_a_restored_store_knows_nothing_of_is_kept() {
    // depot 4.9, 5.3
    let mut store = Store::that_heals(2, AT_ONCE);
    let mut dstores = dstores(&store, 3);
    let client = store.client();
    let mut files = fill(&client, 8);
    let backup = || {
        let mut bytes = Vec::new();
        client.backup(&mut bytes).map(|_| bytes)
    };
    let earlier = backup().unwrap();
    put(&client, "/later", b"of which the first backup knows nothing").unwrap();
    let later = backup().unwrap();
    let lost = client.copies(&path("/later")).unwrap()[0].key;
    let kept = 2 * (8 + 1);
    kit::eventually("all have their copies", || objects_kept(&client) == kept);
    restore(&mut store, &mut dstores, &earlier);
    let client = store.client();
    all_are_readable(&client, &files);
    assert!(get(&client, "/later").is_err());
    // What is garbage goes, now as before. Its key is of another history than those that were issued in the lost time.
    put(&client, "/gone", b"a file that is removed").unwrap();
    let issued = client.copies(&path("/gone")).unwrap()[0].key;
    assert_ne!(issued.history, lost.history);
    kit::eventually("it is there", || objects_kept(&client) > kept);
    client.remove(&path("/gone"), Condition::Any).unwrap();
    kit::eventually("it is collected, and nothing else", || objects_kept(&client) == kept);
    restore(&mut store, &mut dstores, &later);
    files.insert("/later".into(), b"of which the first backup knows nothing".to_vec());
    all_are_readable(&store.client(), &files);
}

#[test]
fn unclaimed_objects_go_when_an_operator_says_so() {
    // depot 4.9
    let mut store = Store::that_heals(2, AT_ONCE);
    let mut dstores = dstores(&store, 3);
    let client = store.client();
    let files = fill(&client, 4);
    let mut backup = Vec::new();
    client.backup(&mut backup).unwrap();
    put(&client, "/later", &bytes(1, 1000)).unwrap();
    put(&client, "/also-later", &bytes(2, 2000)).unwrap();
    eventually_healed(&client, &BTreeMap::from([("/later".into(), Vec::new()), ("/also-later".into(), Vec::new())]), 2);
    eventually_healed(&client, &files, 2);
    restore(&mut store, &mut dstores, &backup);
    let client = store.client();
    let unclaimed = || {
        let healing = client.status().unwrap().healing;
        (healing.unclaimed, healing.unclaimed_bytes)
    };
    kit::eventually("it is known what is unclaimed", || unclaimed() == (2, 3000));
    // One comes back only later with what it has of them.
    dstores[0].stop();
    client.collect_unclaimed().unwrap();
    let kept_there = |dstore: &Dstore| {
        let id = dstore.id();
        client.status().unwrap().dstores.iter().find(|status| status.id == id).unwrap().objects
    };
    kit::eventually("those that are there remove it", || {
        dstores[1..].iter().map(kept_there).sum::<u64>() <= 2 * 4 && unclaimed() == (0, 0)
    });
    dstores[0].start(&store);
    wait_for_all(&client, 3);
    kit::eventually("all of it is gone", || objects_kept(&client) == 2 * 4 && unclaimed() == (0, 0));
    eventually_healed(&client, &files, 2);
    all_are_readable(&client, &files);
}

#[test]
fn garbage_at_a_dstore_that_is_away_goes_when_it_returns() {
    // depot 5.3: of an earlier history, that its last file was removed in this leadership must not be forgotten meanwhile.
    let mut store = Store::that_heals(2, AT_ONCE);
    let mut dstores = dstores(&store, 2);
    let client = store.client();
    put(&client, "/a", b"of an earlier history").unwrap();
    put(&client, "/b", b"of an earlier history, too").unwrap();
    let mut backup = Vec::new();
    client.backup(&mut backup).unwrap();
    restore(&mut store, &mut dstores, &backup);
    let client = store.client();
    dstores[0].stop();
    client.remove(&path("/a"), Condition::Any).unwrap();
    kit::eventually("the Dstore that is there removes it", || objects_kept(&client) == 1);
    dstores[0].start(&store);
    wait_for_all(&client, 2);
    kit::eventually("and so does the other one, once it is back", || objects_kept(&client) == 2);
    assert_eq!(get(&client, "/b").unwrap(), b"of an earlier history, too");
}

#[test]
fn one_dstore_full_of_orders_stops_only_its_own_collection() {
    let store = Store::that_heals(2, AT_ONCE);
    let (stuck, other) = (ScriptedDstore::new(&store, 1), ScriptedDstore::new(&store, 2));
    let client = store.client();
    wait_for_all(&client, 2);
    put(&client, "/a", b"a").unwrap();
    let named = client.copies(&path("/a")).unwrap()[0].key;
    // It never says what became of an order. 2,000 may be under way; one may be to verify the file's object.
    stuck.cut_link();
    (0..2_100)
        .for_each(|number| stuck.find(Key { number: (1 << 40) + number, ..named }, b"left from a put that failed"));
    stuck.join(&store);
    kit::eventually("it has as many orders as it can have", || stuck.objects().len() <= 100 + 2);
    client.remove(&path("/a"), Condition::Any).unwrap();
    kit::eventually("the other one removes what is garbage", || other.objects().is_empty());
    assert!(stuck.objects().len() > 100, "what it is still to remove waits for it");
}

/// Whether a Dstore has an object.
fn has(store: &Store, address: &Address, key: Key) -> bool {
    let access = Access::Client { id: ClientId(7), key: store.secret.client_key(ClientId(7)) };
    let mut dstore = connect(address, &access, CLUSTER, Role::Dstore, SOON, |_| ()).unwrap();
    dstore.send(&ObjectRequest::Locate { keys: vec![key] }).unwrap();
    match dstore.receive(Wait::deadline(SOON)).unwrap() {
        ObjectAnswer::Located { places } => places[0].is_some(),
        other => panic!("{other:?}"),
    }
}

/// Grants one object, and stores it at its places, of which one is told.
fn store_object(store: &Store, content: &[u8]) -> (NewObjects, Address) {
    let mut connection = store.dial();
    let places =
        Request::Places { path: path("/late"), condition: Condition::Any, parents: true, replicas: None, objects: 1 };
    connection.send(&places).unwrap();
    let Answer::Granted { grants } = connection.receive(Wait::deadline(SOON)).unwrap() else { panic!("no grants") };
    let grant = &grants.objects[0];
    let (checksum, length) = (Checksum::of(content), content.len() as u64);
    let key = Key { history: grants.history, term: grants.term, number: grant.number };
    let mut object = NewObject { term: grants.term, number: grant.number, length, checksum, holders: Vec::new() };
    for place in &grant.places {
        let (_, address) = grants.addresses.iter().find(|(id, _)| id == place).unwrap();
        let access = Access::Client { id: ClientId(7), key: store.secret.client_key(ClientId(7)) };
        let mut dstore = connect(address, &access, CLUSTER, Role::Dstore, SOON, |_| ()).unwrap();
        dstore.send_with_content(&ObjectRequest::Put { key, length, checksum }, content).unwrap();
        match dstore.receive(Wait::deadline(SOON)).unwrap() {
            ObjectAnswer::Stored { position } => object.holders.push((*place, position)),
            other => panic!("{other:?}"),
        }
    }
    (NewObjects { history: grants.history, objects: vec![object] }, grants.addresses[0].1.clone())
}

/// Commits it as a file.
fn commit(store: &Store, objects: NewObjects) -> Answer {
    let mut connection = store.dial();
    connection.send(&Request::Session).unwrap();
    let Answer::Session { born, .. } = connection.receive(Wait::deadline(SOON)).unwrap() else { panic!("no session") };
    let stamp = Stamp { session: SessionId(fastrand::u128(1..)), born, number: 1, done_below: 1 };
    let checksum = objects.objects[0].checksum;
    let command = Command::Put {
        path: path("/late"),
        condition: Condition::Any,
        parents: true,
        objects,
        checksum,
        modified_ms: None,
        details: Details::default(),
    };
    connection.send(&Request::Change { stamp, more: 0, command: Box::new(command) }).unwrap();
    connection.receive(Wait::deadline(SOON)).unwrap()
}

#[test]
fn what_is_leased_is_kept_and_can_be_committed() {
    let store = Store::that_heals(2, AT_ONCE);
    let _all = dstores(&store, 2);
    let client = store.client();
    let (objects, address) = store_object(&store, b"late");
    // What was removed after that is collected: the leased object has been passed over.
    for _ in 0..3 {
        put(&client, "/other", b"o").unwrap();
        let other = client.copies(&path("/other")).unwrap()[0].key;
        client.remove(&path("/other"), Condition::Any).unwrap();
        kit::eventually("the removed object is collected", || !has(&store, &address, other));
    }
    assert!(has(&store, &address, objects.key(&objects.objects[0])));
    let done = commit(&store, objects);
    assert!(matches!(done, Answer::Done { .. }), "{done:?}");
    assert_eq!(get(&client, "/late").unwrap(), b"late");
}

#[test]
fn an_object_longer_than_any_is_not_committed() {
    let store = Store::that_heals(2, AT_ONCE);
    let _all = dstores(&store, 2);
    let (mut objects, _) = store_object(&store, b"late");
    objects.objects[0].length = pack::MOST_BYTES + 1;
    let refused = commit(&store, objects.clone());
    assert!(matches!(refused, Answer::Error { failure: Failure::BadRequest { .. } }), "{refused:?}");
    objects.objects[0].length = 4;
    assert!(matches!(commit(&store, objects), Answer::Done { .. }), "its lease is as it was");
}

#[test]
fn of_two_dstores_removed_at_once_one_keeps_the_last_copies() {
    // depot 6.4
    for round in 0..5 {
        let store = Store::that_heals(2, HealingOptions { grace: Duration::from_secs(60), ..AT_ONCE });
        let all = [ScriptedDstore::new(&store, 1), ScriptedDstore::new(&store, 2)];
        let client = store.client();
        wait_for_all(&client, 2);
        put(&client, "/a", b"a").unwrap();
        eventually_healed(&client, &BTreeMap::from([("/a".to_owned(), Vec::new())]), 2);
        let barrier = Barrier::new(2);
        let removed: Vec<bool> = thread::scope(|scope| {
            let remove = |dstore: &ScriptedDstore| {
                let (id, client, barrier) = (dstore.number(), store.client(), &barrier);
                scope.spawn(move || {
                    client.status().unwrap(); // it has its connection
                    barrier.wait();
                    client.discharge(id, false).is_ok()
                })
            };
            let removing = all.each_ref().map(remove);
            removing.map(|thread| thread.join().unwrap()).to_vec()
        });
        assert_eq!(removed.iter().filter(|is_removed| **is_removed).count(), 1, "round {round}");
        assert_eq!(get(&client, "/a").unwrap(), b"a");
    }
}

#[test]
fn a_copy_that_a_dstore_has_an_order_about_is_no_last_copy() {
    // depot 6.4: it may be told to remove it.
    let store = Store::that_heals(2, AT_ONCE);
    let all = [ScriptedDstore::new(&store, 1), ScriptedDstore::new(&store, 2)];
    let client = store.client();
    wait_for_all(&client, 2);
    put(&client, "/a", b"a").unwrap();
    eventually_healed(&client, &BTreeMap::from([("/a".to_owned(), Vec::new())]), 2);
    let key = client.copies(&path("/a")).unwrap()[0].key;
    // One copy is surplus. The one that stays is to be verified first, and its Dstore does not answer.
    let settings = Settings { replicas: Replicas::Number(1), ..client.settings().unwrap() };
    client.set(&settings).unwrap();
    let mut asked = None;
    kit::eventually("one is asked to verify its copy", || {
        asked = all.iter().position(|dstore| dstore.is_asked_to_verify(key));
        asked.is_some()
    });
    let other = &all[1 - asked.unwrap()];
    let refused = client.discharge(other.number(), false).unwrap_err();
    assert!(refused.to_string().contains("1 objects have no good copy"), "{refused}");
    assert_eq!(get(&client, "/a").unwrap(), b"a");
}

/// The line by which a Dstore without objects asks to be let in, and its connection.
fn knock(store: &Store, disk: u128) -> Connection {
    let access = Access::Server { role: Role::Dstore, secret: store.secret.clone() };
    let connection = connect(&store.address, &access, CLUSTER, Role::Controller, SOON, |_| ()).unwrap();
    let join = Report::Join {
        disk: DiskId(disk),
        format: 1,
        number: None,
        start: 1,
        epoch: None,
        address: "127.0.0.1:1".parse().unwrap(),
        host: "host".into(),
        zone: String::new(),
        sync: SyncMode::Never,
    };
    connection.send(&join).unwrap();
    connection
}

#[test]
fn what_an_older_connection_of_a_dstore_says_is_not_heard() {
    let store = Store::that_heals(1, HealingOptions { grace: Duration::from_secs(60), ..AT_ONCE });
    let holder = ScriptedDstore::new(&store, 1);
    let client = store.client();
    wait_for_all(&client, 1);
    put(&client, "/a", b"a").unwrap();
    let object = client.copies(&path("/a")).unwrap().remove(0);
    assert_eq!(object.copies[0].dstore, holder.number());
    let mut older = knock(&store, 2);
    assert!(matches!(older.receive(Wait::deadline(SOON)), Ok(Order::Admitted { .. })));
    // It says nothing for so long that another connection is let in.
    let mut newer = None;
    kit::eventually("another connection is let in", || {
        let mut connection = knock(&store, 2);
        let is_in = matches!(connection.receive(Wait::deadline(SOON)), Ok(Order::Admitted { .. }));
        newer = is_in.then_some(connection);
        is_in
    });
    let copy = CopyReport { key: object.key, length: 1, checksum: Checksum::of(b"a"), is_damaged: false };
    let copies = vec![copy];
    older.send(&Report::Inventory { copies: copies.clone() }).unwrap();
    let mut ended = Ok(());
    while ended.is_ok() {
        ended = older.receive::<Order>(Wait::deadline(SOON)).map(drop);
    }
    assert!(matches!(ended, Err(ReceiveError::Ended)), "{ended:?}");
    let known = || client.copies(&path("/a")).unwrap()[0].copies.len();
    assert_eq!(known(), 1);
    newer.unwrap().send(&Report::Inventory { copies }).unwrap();
    kit::eventually("what the newer one says is heard", || known() == 2);
}

#[test]
fn a_lease_that_has_ended_leaves_garbage_and_no_file() {
    let store = Store::that_heals(2, HealingOptions { lease: Duration::ZERO, ..AT_ONCE });
    let _all = dstores(&store, 2);
    let client = store.client();
    let (objects, address) = store_object(&store, b"late");
    kit::eventually("its object is collected", || !has(&store, &address, objects.key(&objects.objects[0])));
    let refused = commit(&store, objects);
    assert!(matches!(refused, Answer::Error { failure: Failure::NoLease }), "{refused:?}");
    assert!(get(&client, "/late").is_err());
}

#[test]
fn keys_of_an_earlier_leadership_are_leased_again_until_it_collects() {
    // depot 5.3: the put goes on after the Controller has started again.
    for margin in [Duration::from_secs(600), Duration::ZERO] {
        let mut store = Store::that_heals(2, HealingOptions { margin, ..AT_ONCE });
        let mut all = dstores(&store, 2);
        let (objects, _) = store_object(&store, b"late");
        let key = objects.key(&objects.objects[0]);
        store.stop();
        store.start();
        all.iter_mut().for_each(|dstore| {
            dstore.stop();
            dstore.start(&store);
        });
        wait_for_all(&store.client(), all.len());
        let refused = commit(&store, objects.clone());
        assert!(matches!(refused, Answer::Error { failure: Failure::NoLease }), "{refused:?}");
        let renew = || -> Answer {
            let mut connection = store.dial();
            connection.send(&Request::Renew { keys: vec![key] }).unwrap();
            connection.receive(Wait::deadline(SOON)).unwrap()
        };
        if margin.is_zero() {
            assert_eq!(renew(), Answer::Error { failure: Failure::NoLease }, "it may be garbage");
            continue;
        }
        assert_eq!(renew(), Answer::Ok);
        let done = commit(&store, objects);
        assert!(matches!(done, Answer::Done { .. }), "{done:?}");
        assert_eq!(get(&store.client(), "/late").unwrap(), b"late");
        assert_eq!(renew(), Answer::Error { failure: Failure::NoLease }, "it is committed once");
    }
}

#[test]
fn a_commit_of_an_earlier_leaderships_key_waits_for_its_dstores() {
    // depot 5.3: what the client was told then may not be there any more. The Dstore says so when it is back.
    for is_lost in [true, false] {
        let margin = Duration::from_secs(600);
        let mut store = Store::that_heals(2, HealingOptions { margin, ..AT_ONCE });
        let all = [ScriptedDstore::new(&store, 1), ScriptedDstore::new(&store, 2)];
        wait_for_all(&store.client(), 2);
        let (objects, _) = store_object(&store, b"late");
        let key = objects.key(&objects.objects[0]);
        store.stop();
        store.start();
        all[0].join(&store);
        let mut connection = store.dial();
        connection.send(&Request::Renew { keys: vec![key] }).unwrap();
        assert_eq!(connection.receive::<Answer>(Wait::deadline(SOON)).unwrap(), Answer::Ok);
        if is_lost {
            all[1].lose_everything();
        }
        let answer = thread::scope(|scope| {
            let committing = scope.spawn(|| commit(&store, objects));
            // It was asked for: the connections of the two clients are served by threads of their own.
            let client = store.client();
            (0..20).for_each(|_| drop(client.status().unwrap()));
            all[1].join(&store);
            committing.join().unwrap()
        });
        if is_lost {
            let failure = Failure::NotEnoughDstores { there: 1, needed: 2 };
            assert_eq!(answer, Answer::Error { failure });
            assert!(get(&store.client(), "/late").is_err());
        } else {
            assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
            assert_eq!(get(&store.client(), "/late").unwrap(), b"late");
        }
    }
}

#[test]
fn a_put_whose_source_pauses_keeps_its_leases() {
    let lease = Duration::from_millis(1500);
    let store = Store::that_heals(2, HealingOptions { lease, ..AT_ONCE });
    let _all = dstores(&store, 2);
    let client = store.client();
    // Two objects: the first waits for the second.
    let content = bytes(1, 9 << 20);
    let (first, second) = content.split_at(8 << 20);
    let pause = Pause(Some(3 * lease));
    let mut source = first.chain(pause).chain(second);
    client.put(&path("/slow"), Source::Once(&mut source), &PutOptions::default()).unwrap();
    assert!(get(&client, "/slow").unwrap() == content);
}

/// Nothing to read, after a while: how leases last is what is tested.
struct Pause(Option<Duration>);

impl Read for Pause {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        self.0.take().into_iter().for_each(thread::sleep);
        Ok(0)
    }
}

/// Clients put, replace, copy, move and remove on few names, while Dstores are stopped and started and everything that waits
/// waits for nothing. What was acknowledged is readable at all times, and in the end each object has its copies, and no other
/// object is kept.
#[test]
fn nothing_that_a_file_names_is_ever_removed() {
    for seed in 1..=2 {
        let store = Store::that_heals(2, HealingOptions { lease: Duration::from_secs(3), ..AT_ONCE });
        let mut all = dstores(&store, 4);
        let is_over = AtomicBool::new(false);
        let mut files: BTreeMap<String, Vec<u8>> = thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|writer| {
                    let (store, is_over) = (&store, &is_over);
                    scope.spawn(move || write(&store.client(), writer, seed, is_over))
                })
                .collect();
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..6 {
                let at = random.usize(..all.len());
                all[at].stop();
                wait_for_all(&store.client(), all.len() - 1);
                thread::sleep(Duration::from_millis(random.u64(..300))); // a part of the storm, nothing is awaited
                all[at].start(&store);
                wait_for_all(&store.client(), all.len());
                // Two that are away at a time may be both holders of an object.
                kit::eventually("what it has is known, and what it lacked is made", || {
                    let status = store.client().status().unwrap();
                    status.too_few_copies == 0 && status.healing.objects == 0
                });
            }
            is_over.store(true, Ordering::SeqCst);
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
        });
        let client = store.client();
        all_are_readable(&client, &files);
        eventually_healed(&client, &files, 2);
        let mut keys: Vec<Key> =
            files.keys().flat_map(|at| client.copies(&path(at)).unwrap()).map(|object| object.key).collect();
        keys.sort();
        keys.dedup();
        // Keys granted ahead are leased, but nothing is stored under them.
        kit::eventually("nothing else is kept", || objects_kept(&client) == 2 * keys.len() as u64);
        files.clear();
    }
}

/// What one client does, on names of its own; what its files are in the end.
fn write(client: &Cluster, writer: u64, seed: u64, is_over: &AtomicBool) -> BTreeMap<String, Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(100 * seed + writer);
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    while !is_over.load(Ordering::SeqCst) {
        let at = format!("/{writer}/{}", random.u8(..6));
        let other = format!("/{writer}/{}", random.u8(..6));
        match random.u8(..10) {
            0..=4 => {
                let content = bytes(random.u64(..), random.usize(1..5_000));
                // While a Dstore is being stopped, a put may find too few.
                if put(client, &at, &content).is_ok() {
                    files.insert(at, content);
                }
            }
            5 if files.contains_key(&at) => {
                client.remove(&path(&at), Condition::Any).unwrap();
                files.remove(&at);
            }
            6 if files.contains_key(&at) && at != other => {
                let placing = depot::client::MoveOptions { replace: true, ..Default::default() };
                let options = depot::client::CopyOptions { placing, details: None };
                client.copy(&path(&at), &path(&other), &options).unwrap();
                files.insert(other, files[&at].clone());
            }
            7 if files.contains_key(&at) && at != other => {
                let options = depot::client::MoveOptions { replace: true, ..Default::default() };
                client.rename(&path(&at), &path(&other), &options).unwrap();
                let content = files.remove(&at).unwrap();
                files.insert(other, content);
            }
            _ => {
                if let Some(content) = files.get(&at) {
                    match get(client, &at) {
                        Ok(read) => assert!(read == *content, "{at}"),
                        // Its one good Dstore may be on its way back; what is gone for good is found at the end.
                        Err(Error::Unavailable(_)) => {}
                        Err(error) => panic!("{at}: {error}"),
                    }
                }
            }
        }
    }
    files
}
