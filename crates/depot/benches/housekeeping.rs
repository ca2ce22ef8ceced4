//! Puts and gets while the store keeps itself in order, and while it does nothing else: one Controller and a few Dstores in
//! this process. (depot 1.4, 3.6, 11)
//!
//! `cargo bench -p depot --bench housekeeping ROW... [OBJECTS]`
//!
//! | row | what the store does meanwhile |
//! |---|---|
//! | `repair` | one of five Dstores is lost, with 64 KiB objects; each round loses another one. The row without a name |
//! | `small` | one is lost, of a million objects of 1 KB |
//! | `large` | one is lost, of objects of 64 MiB, on the disk, with `--sync always` |
//! | `balance` | an empty Dstore joins four that are half full |
//! | `compaction` | 60 % of all objects were removed, and packs are compacted |
//! | `scrub` | all objects are verified: at the rate of a disk of 8 TB, and without a limit |
//! | `removal` | `rm -r` of a million files, and the collection of their objects |
//!
//! The same clients are timed before, when there is nothing to do. The figures are medians of the rounds; the ratio is that of
//! the two parts of one round. What the store has done is looked at afterwards.

mod cluster;

use std::cell::{Cell, RefCell};
use std::env;
use std::fs;
use std::io::Cursor;
use std::path::Path as Folder;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cluster::{Store, StoreOptions};
use depot::client::{Cluster, Files, ObjectCopies, PutOptions, Source, Status};
use depot::controller::HealingOptions;
use depot::dstore::COPY_RATE;
use depot::log::SyncMode;
use depot::namespace::change::{Condition, RemovalExtent, Replicas, Settings};
use depot::path::Path;
use kit::{TempFolder, bytes};

const CLIENTS: usize = 8;
const DSTORES: usize = 5;
/// The default.
const REPLICAS: u64 = 3;
const SMALL: usize = 1000;

/// The limit of a Dstore that copies as fast as it can.
const UNLIMITED: (&str, u64) = ("unlimited", u64::MAX);
const DEFAULT: (&str, u64) = ("default limit", COPY_RATE);
/// One for a machine on which Dstores and clients share two processors.
const LOW: (&str, u64) = ("a quarter of it", COPY_RATE / 4);

/// At once, whatever is not needed any more is collected, and what is missing is copied.
const AT_ONCE: Duration = Duration::ZERO;

/// How much a row does.
#[derive(Clone, Copy)]
struct Scale {
    /// A test run only checks that this program still works.
    is_bench: bool,
    /// How many objects, if the command line says so.
    objects: Option<u64>,
}

/// What it is called on the command line, and what it does.
type Row = (&'static str, fn(Scale));

impl Scale {
    fn objects(&self, bench: u64, test: u64) -> u64 {
        self.objects.unwrap_or(if self.is_bench { bench } else { test })
    }

    fn seconds(&self, seconds: u64) -> Duration {
        Duration::from_secs(if self.is_bench { seconds } else { 0 })
    }
}

fn main() {
    let rows: [Row; 7] = [
        ("repair", repair),
        ("small", small),
        ("large", large),
        ("balance", balance),
        ("compaction", compaction),
        ("scrub", scrub),
        ("removal", removal),
    ];
    let words: Vec<String> = env::args().skip(1).collect();
    // `cargo bench` passes --bench; a test run does not.
    let scale = Scale {
        is_bench: words.iter().any(|word| word == "--bench"),
        objects: words.iter().find_map(|word| word.parse().ok()),
    };
    let is_named = |row: &str| words.iter().any(|word| word == row);
    let is_any_named = rows.iter().any(|(row, _)| is_named(row));
    for (row, run) in rows {
        if is_named(row) || !is_any_named && (!scale.is_bench || row == "repair") {
            run(scale);
        }
    }
}

fn repair(scale: Scale) {
    let rounds = if scale.is_bench { 5 } else { 1 };
    for (name, copy_rate) in [UNLIMITED, DEFAULT, LOW] {
        let folder = TempFolder::in_memory();
        let options = StoreOptions { dstores: DSTORES, copy_rate, ..StoreOptions::default() };
        lose(
            scale,
            &format!("objects of 64 KiB, {name}"),
            &folder,
            options,
            scale.objects(20_000, 100),
            64 << 10,
            rounds,
        );
    }
}

fn small(scale: Scale) {
    for (name, copy_rate) in [UNLIMITED, DEFAULT] {
        let folder = TempFolder::in_memory();
        let options = StoreOptions { dstores: DSTORES, copy_rate, ..StoreOptions::default() };
        lose(scale, &format!("objects of 1 KB, {name}"), &folder, options, scale.objects(1_000_000, 300), SMALL, 1);
    }
}

fn large(scale: Scale) {
    let size = if scale.is_bench { 64 << 20 } else { 2 << 20 };
    for (name, copy_rate) in [UNLIMITED, DEFAULT] {
        let folder = TempFolder::new();
        let options = StoreOptions { dstores: DSTORES, copy_rate, sync: SyncMode::Always, ..StoreOptions::default() };
        lose(scale, &format!("objects of 64 MiB, {name}"), &folder, options, scale.objects(32, 3), size, 1);
    }
}

/// A store whose Dstores are lost, one each round. From one round to the next they have returned, and all is as it was.
fn lose(
    scale: Scale,
    name: &str,
    folder: &TempFolder,
    options: StoreOptions,
    objects: u64,
    size: usize,
    rounds: usize,
) {
    let healing = HealingOptions { grace: AT_ONCE, ..HealingOptions::default() };
    let dstores = options.dstores;
    let mut store = Store::start(folder.path(), StoreOptions { healing, ..options });
    let client = store.client();
    wait_until("all Dstores are there", &client, |status| is_healed(status, dstores));
    fill(&client, objects, size);
    wait_until("all copies are known", &client, |status| is_healed(status, dstores));
    let (mut before, mut during, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        before.push(measure_for(&client, scale.seconds(5)));
        store.stop_dstore(round % dstores);
        let begun = Instant::now();
        // The status counts what is missing over and over, and may tell of a time before the loss. So some of the objects are
        // looked at, those that are copied first at first.
        let lacking = RefCell::new(sample(objects).into_iter().rev().collect::<Vec<u64>>());
        during.push(measure_until(&client, |status| {
            let lacking = &mut *lacking.borrow_mut();
            let has_noticed = present(status) < dstores;
            while has_noticed && lacking.last().is_some_and(|number| has_all_copies(&client, *number)) {
                lacking.pop();
            }
            lacking.is_empty()
        }));
        times.push(begun.elapsed().as_secs_f64());
        if round + 1 < rounds {
            store.start_dstore(round % dstores);
            // What the clients put before they knew of the loss is healed after 5 s, and counted within a second more.
            let returned = Instant::now();
            let is_over = |status: &Status| returned.elapsed() > Duration::from_secs(7) && is_healed(status, dstores);
            wait_until("all is as it was", &client, is_over);
        }
    }
    verify(&client, objects, size);
    // What a Dstore had of these objects, on average. What the clients have replaced is not copied.
    let (copies, seconds) = ((objects * REPLICAS) as f64 / dstores as f64, median(times));
    let (each, rate) = (copies / seconds, copies * size as f64 / seconds / 1e6);
    println!("repair of {name}: {each:.0} copies/s, {rate:.0} MB/s, {seconds:.1} s");
    compare(&before, &during);
}

/// An empty Dstore joins four that are half full: copies move until all are about as full.
fn balance(scale: Scale) {
    let large = ("64 KiB", scale.objects(20_000, 0), 64 << 10);
    let small = ("1 KB", scale.objects(200_000, 0), SMALL);
    // Disks that a test run could fill would be full of what the clients put.
    for (what, objects, size) in [large, small].into_iter().filter(|(_, objects, _)| *objects > 0) {
        let capacity = objects * size as u64 * REPLICAS / 4 * 2;
        let folder = TempFolder::in_memory();
        // What the clients replace is collected at once: the objects of the new Dstore are those that have moved.
        let healing = HealingOptions { keep_removed: AT_ONCE, margin: AT_ONCE, ..HealingOptions::default() };
        let options = StoreOptions { dstores: DSTORES, capacity: Some(capacity), healing, ..StoreOptions::default() };
        let mut store = Store::start_all_but_one(folder.path(), options);
        let client = store.client();
        wait_until("four Dstores are there", &client, |status| is_healed(status, DSTORES - 1));
        fill(&client, objects, size);
        wait_until("all copies are known", &client, |status| is_healed(status, DSTORES - 1));
        let before = measure_for(&client, scale.seconds(5));
        store.start_dstore(DSTORES - 1);
        let begun = Instant::now();
        let has_begun = Cell::new(false);
        let during = measure_until(&client, |status| {
            has_begun.set(has_begun.get() || status.healing.points_apart > 0);
            has_begun.get() && status.healing.points_apart == 0 && is_healed(status, DSTORES)
        });
        let seconds = begun.elapsed().as_secs_f64();
        let status = client.status().expect("a status");
        let moved = &status.dstores[DSTORES - 1];
        verify(&client, objects, size);
        let (copies, rate) = (moved.objects as f64 / seconds, moved.used_bytes as f64 / seconds / 1e6);
        println!("balance of objects of {what}, default limit: {copies:.0} copies/s, {rate:.0} MB/s, {seconds:.1} s");
        compare(&[before], &[during]);
    }
}

/// Six of ten objects were removed: packs are compacted until most of their space is free again.
fn compaction(scale: Scale) {
    let (objects, size) = (scale.objects(20_000, 100), 64 << 10);
    let healing = HealingOptions { keep_removed: AT_ONCE, margin: AT_ONCE, ..HealingOptions::default() };
    let folder = TempFolder::in_memory();
    let store = Store::start(folder.path(), StoreOptions { healing, ..StoreOptions::default() });
    let client = store.client();
    fill(&client, objects, size);
    let before = measure_for(&client, scale.seconds(5));
    let is_kept = |number: u64| number % 10 < 4;
    for number in (0..objects).filter(|number| !is_kept(*number)) {
        client.remove(&path(name(number)), Condition::Any).expect("it is removed");
    }
    let full = bytes_below(folder.path());
    let removed = (objects - (0..objects).filter(|number| is_kept(*number)).count() as u64) * size as u64 * REPLICAS;
    let begun = Instant::now();
    // Packs that are open are not compacted. Those of a test run are.
    let during = measure_until(&client, |_| !scale.is_bench || bytes_below(folder.path()) + removed * 2 / 3 < full);
    let seconds = begun.elapsed().as_secs_f64();
    for number in (0..objects).filter(|number| is_kept(*number)).step_by(7) {
        assert!(get(&client, name(number)) == bytes(number, size), "object {number}");
    }
    println!("compaction: {:.0} MB free again after {seconds:.1} s", removed as f64 * 2.0 / 3.0 / 1e6);
    compare(&[before], &[during]);
}

/// All objects are verified, again and again.
fn scrub(scale: Scale) {
    let (objects, size) = (scale.objects(20_000, 100), 64 << 10);
    let folder = TempFolder::in_memory();
    let mut store = Store::start(folder.path(), StoreOptions::default());
    let mut client = store.client();
    fill(&client, objects, size);
    let rate = 8e12 / depot::dstore::SCRUB_PERIOD.as_secs_f64();
    let at_that_rate = Duration::from_secs_f64(objects as f64 * size as f64 / rate);
    for (name, period) in [("at the rate of a disk of 8 TB", at_that_rate), ("without a limit", Duration::ZERO)] {
        let before = measure_for(&client, scale.seconds(5));
        client = restart_all(&mut store, &client, period);
        let begun = Instant::now();
        // At the slow rate a part of a round will do. Without a limit all is verified at least once.
        let is_through = |status: &Status| status.dstores.iter().all(|dstore| dstore.scrubbed_ago < begun.elapsed());
        let during = measure_until(&client, |status| {
            begun.elapsed() >= scale.seconds(20) && (!period.is_zero() || is_through(status))
        });
        println!("scrub {name}: for {:.1} s", begun.elapsed().as_secs_f64());
        compare(&[before], &[during]);
        client = restart_all(&mut store, &client, depot::dstore::SCRUB_PERIOD);
    }
    assert_eq!(client.status().expect("a status").dstores.iter().map(|dstore| dstore.damaged).sum::<u64>(), 0);
}

/// Its three Dstores are started anew, one after another, to verify all that they have in so much time. A client that
/// knows where they are.
fn restart_all(store: &mut Store, client: &Cluster, scrub_period: Duration) -> Cluster {
    store.set_scrub_period(scrub_period);
    for number in 0..3 {
        store.stop_dstore(number);
        wait_until("it is away", client, |status| present(status) == 2);
        store.start_dstore(number);
        wait_until("all is known again", client, |status| is_healed(status, 3));
    }
    store.client()
}

/// A tree of so many files is removed, and all of its objects are collected, while clients put and get.
fn removal(scale: Scale) {
    let files = scale.objects(1_000_000, 300);
    let healing = HealingOptions { keep_removed: AT_ONCE, margin: AT_ONCE, ..HealingOptions::default() };
    let folder = TempFolder::in_memory();
    let store = Store::start(folder.path(), StoreOptions { dstores: 2, healing, ..StoreOptions::default() });
    let client = store.client();
    let settings = client.settings().expect("it says");
    client.set(&Settings { replicas: Replicas::Number(1), ..settings }).expect("it is set");
    fill(&client, files, 8);
    let before = measure_for(&client, scale.seconds(5));
    let begun = Instant::now();
    let tree = path("/tree".into());
    client.remove_directory(&tree, Condition::Any, RemovalExtent::Tree).expect("it is removed");
    let answered = begun.elapsed();
    assert!(client.stat(&tree).is_err(), "it is gone for readers at once");
    // What the clients put is replaced all the time, and collected in turn.
    let kept = |status: &Status| status.dstores.iter().map(|dstore| dstore.objects).sum::<u64>();
    let during = measure_until(&client, |status| kept(status) < 1000.min(files));
    println!("rm -r of {files} files: answered in {answered:.1?}, all objects collected in {:.1?}", begun.elapsed());
    compare(&[before], &[during]);
}

fn path(text: String) -> Path {
    text.parse().expect("a path")
}

fn put(client: &Cluster, name: String, content: &[u8]) {
    let options = PutOptions { parents: true, ..PutOptions::default() };
    client.put(&path(name), Source::Once(&mut Cursor::new(content)), &options).expect("a put");
}

fn get(client: &Cluster, name: String) -> Vec<u8> {
    let mut read = Vec::new();
    let mut file = client.get(&path(name), Condition::Any).expect("a file");
    file.copy_to(0..u64::MAX, &mut read).expect("its bytes");
    read
}

/// The file of an object.
fn name(number: u64) -> String {
    format!("/tree/{}/{number}", number / 1000)
}

fn fill(client: &Cluster, objects: u64, size: usize) {
    thread::scope(|scope| {
        for first in 0..CLIENTS as u64 {
            scope.spawn(move || {
                for number in (first..objects).step_by(CLIENTS) {
                    put(client, name(number), &bytes(number, size));
                }
                put(client, format!("/small/{first}"), &bytes(first, SMALL));
            });
        }
    });
}

/// About a thousand of the objects, from the first to the last.
fn sample(objects: u64) -> Vec<u64> {
    (0..objects).step_by(1 + objects as usize / 1000).collect()
}

/// Whether Dstores that are there have enough copies of this object.
fn has_all_copies(client: &Cluster, number: u64) -> bool {
    let found = client.copies(&path(name(number))).expect("a file");
    let good = |object: &ObjectCopies| object.copies.iter().filter(|copy| copy.is_present && !copy.is_damaged).count();
    found.iter().all(|object| good(object) as u64 >= REPLICAS)
}

/// Some of the objects are there with their bytes.
fn verify(client: &Cluster, objects: u64, size: usize) {
    for number in sample(objects) {
        assert!(get(client, name(number)) == bytes(number, size), "object {number}");
    }
}

/// The bytes of all files below a folder.
fn bytes_below(folder: &Folder) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0, // it has just gone
    };
    entries.map(of).sum()
}

/// How long puts and gets took, in milliseconds.
type Times = [Vec<f64>; 2];

fn measure_for(client: &Cluster, time: Duration) -> Times {
    let begun = Instant::now();
    measure_until(client, |_| begun.elapsed() >= time)
}

/// How long puts and gets take until something has happened; each client does both in turn.
fn measure_until(client: &Cluster, is_over: impl Fn(&Status) -> bool) -> Times {
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS as u64)
            .map(|number| {
                let has_ended = &has_ended;
                scope.spawn(move || {
                    let content = bytes(number, SMALL);
                    let mut times = [Vec::new(), Vec::new()];
                    while !has_ended.load(Ordering::Relaxed) || times[1].is_empty() {
                        let begun = Instant::now();
                        put(client, format!("/small/{number}"), &content);
                        times[0].push(begun.elapsed().as_secs_f64() * 1e3);
                        let begun = Instant::now();
                        assert!(get(client, format!("/small/{number}")) == content);
                        times[1].push(begun.elapsed().as_secs_f64() * 1e3);
                    }
                    times
                })
            })
            .collect();
        wait_until("it is over", client, is_over);
        has_ended.store(true, Ordering::Relaxed);
        let mut all = [Vec::new(), Vec::new()];
        for times in clients.into_iter().flat_map(|client| client.join().expect("a client").into_iter().enumerate()) {
            all[times.0].extend(times.1);
        }
        all
    })
}

/// Prints requests of each round: when nothing else is done, and meanwhile.
fn compare(before: &[Times], during: &[Times]) {
    for (what, of) in [("put 1 KB", 0), ("get 1 KB", 1)] {
        for (percentile, at) in [("p50", 0.5), ("p99", 0.99), ("the longest", 1.0)] {
            let ms = |times: &[Times]| times.iter().map(|round| quantile(&round[of], at)).collect::<Vec<_>>();
            let (quiet, meanwhile) = (ms(before), ms(during));
            let ratios = quiet.iter().zip(&meanwhile).map(|(quiet, meanwhile)| meanwhile / quiet).collect();
            let (quiet, meanwhile, ratio) = (median(quiet), median(meanwhile), median(ratios));
            println!("  {what} {percentile}: {quiet:.2} ms, meanwhile {meanwhile:.2} ms, ratio {ratio:.2}");
        }
        let count = |times: &[Times]| times.iter().map(|round| round[of].len()).sum::<usize>();
        println!("  {what}: {} and {} times", count(before), count(during));
    }
}

fn present(status: &Status) -> usize {
    status.dstores.iter().filter(|dstore| dstore.state == depot::client::DstoreState::Present).count()
}

fn is_healed(status: &Status, there: usize) -> bool {
    (present(status), status.healing.objects, status.healing.surplus, status.healing.moving, status.too_few_copies)
        == (there, 0, 0, 0, 0)
}

fn wait_until(what: &str, client: &Cluster, is_so: impl Fn(&Status) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(1800);
    while !is_so(&client.status().expect("a status")) {
        assert!(Instant::now() < deadline, "it takes too long until {what}: {:?}", client.status());
        thread::sleep(Duration::from_millis(50)); // from one look to the next
    }
}

fn quantile(times: &[f64], at: f64) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * at) as usize]
}

fn median(values: Vec<f64>) -> f64 {
    quantile(&values, 0.5)
}
