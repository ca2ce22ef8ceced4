//! Puts and gets while the store heals or removes a large tree, and while it does nothing else: one Controller and five Dstores
//! in this process. (depot 1.4, 3.6)
//!
//! Each round loses another Dstore, with a third or more of all objects: requests are timed until every object has its copies
//! again. The same clients are timed before, when there is nothing to heal. The figures are medians of the rounds; the ratio is
//! that of the two parts of one round.

mod cluster;

use std::cell::Cell;
use std::env;
use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cluster::{Store, StoreOptions};
use depot::client::{Cluster, Files, PutOptions, Source};
use depot::controller::HealingOptions;
use depot::dstore::COPY_RATE;
use depot::namespace::change::{Condition, RemovalExtent, Replicas, Settings};
use depot::path::Path;
use kit::{TempFolder, bytes};

const CLIENTS: usize = 8;
const DSTORES: usize = 5;
const SMALL: usize = 1000;

fn main() {
    // `cargo bench` passes --bench; a test run does not, and only checks that this still works.
    let is_bench = env::args().any(|arg| arg == "--bench");
    let (rounds, objects, quiet) =
        if is_bench { (5, 20_000, Duration::from_secs(5)) } else { (1, 100, Duration::ZERO) };
    // `cargo bench -p depot --bench housekeeping removal` has a million files, each with an object of its own.
    if env::args().any(|arg| arg == "removal") || !is_bench {
        removal(if is_bench { 1_000_000 } else { 300 }, quiet);
    }
    if env::args().any(|arg| arg == "removal") {
        return;
    }
    for (name, copy_rate) in [("unlimited", u64::MAX), ("default limit", COPY_RATE)] {
        let healing = HealingOptions { grace: Duration::ZERO, ..HealingOptions::default() };
        let options = StoreOptions { dstores: DSTORES, healing, copy_rate, ..StoreOptions::default() };
        let folder = TempFolder::in_memory();
        let mut store = Store::start(folder.path(), options);
        let client = store.client();
        let size = 64 << 10;
        fill(&client, objects, size);
        let (mut before, mut during, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            wait_until_healed(&client, DSTORES);
            let at = Instant::now();
            before.push(measure(&client, || at.elapsed() >= quiet));
            let lost = client.status().expect("a status").dstores[round % DSTORES].used_bytes;
            let begun = Instant::now();
            store.stop_dstore(round % DSTORES);
            // What is missing is counted once a second: the count from before the loss says nothing.
            let has_begun = Cell::new(false);
            during.push(measure(&client, || {
                has_begun.set(has_begun.get() || client.status().expect("a status").too_few_copies > 0);
                has_begun.get() && is_healed(&client, DSTORES - 1)
            }));
            rates.push(lost as f64 / begun.elapsed().as_secs_f64() / 1e6);
            store.start_dstore(round % DSTORES);
        }
        wait_until_healed(&client, DSTORES);
        verify(&client, objects, size);
        let rate = median(rates);
        println!("repair of objects of 64 KiB, {name}: {rate:.0} MB/s of copies");
        for (what, of) in [("put 1 KB", 0), ("get 1 KB", 1)] {
            for (percentile, at) in [("p50", 0.5), ("p99", 0.99)] {
                let ms =
                    |times: &[[Vec<f64>; 2]]| times.iter().map(|round| quantile(&round[of], at)).collect::<Vec<_>>();
                let (quiet, healing) = (ms(&before), ms(&during));
                let ratios = quiet.iter().zip(&healing).map(|(quiet, healing)| healing / quiet).collect();
                let (quiet, healing, ratio) = (median(quiet), median(healing), median(ratios));
                println!("  {what} {percentile}: {quiet:.2} ms, during a repair {healing:.2} ms, ratio {ratio:.2}");
            }
            let count = |times: &[[Vec<f64>; 2]]| times.iter().map(|round| round[of].len()).sum::<usize>();
            println!("  {what}: {} and {} times", count(&before), count(&during));
        }
    }
}

/// A tree of so many files is removed, and all of its objects are collected, while clients put and get.
fn removal(files: u64, quiet: Duration) {
    let healing = HealingOptions { keep_removed: Duration::ZERO, margin: Duration::ZERO, ..HealingOptions::default() };
    let folder = TempFolder::in_memory();
    let store = Store::start(folder.path(), StoreOptions { dstores: 2, healing, ..StoreOptions::default() });
    let client = store.client();
    let settings = client.settings().expect("it says");
    client.set(&Settings { replicas: Replicas::Number(1), ..settings }).expect("it is set");
    thread::scope(|scope| {
        for first in 0..CLIENTS as u64 {
            let client = &client;
            scope.spawn(move || {
                for number in (first..files).step_by(CLIENTS) {
                    put(client, format!("/tree/{}/{number}", number / 1000), &number.to_le_bytes());
                }
                put(client, format!("/small/{first}"), &bytes(first, SMALL));
            });
        }
    });
    let at = Instant::now();
    let before = measure(&client, || at.elapsed() >= quiet);
    let begun = Instant::now();
    let tree = path("/tree".into());
    client.remove_directory(&tree, Condition::Any, RemovalExtent::Tree).expect("it is removed");
    let answered = begun.elapsed();
    assert!(client.stat(&tree).is_err(), "it is gone for readers at once");
    let kept = || client.status().expect("a status").dstores.iter().map(|dstore| dstore.objects).sum::<u64>();
    // What the clients put is replaced all the time, and collected in turn.
    let during = measure(&client, || kept() < 1000.min(files));
    println!("rm -r of {files} files: answered in {answered:.1?}, all objects collected in {:.1?}", begun.elapsed());
    for (what, of) in [("put 1 KB", 0), ("get 1 KB", 1)] {
        for (percentile, at) in [("p50", 0.5), ("p99", 0.99), ("the longest", 1.0)] {
            let (quiet, removing) = (quantile(&before[of], at), quantile(&during[of], at));
            let ratio = removing / quiet;
            println!("  {what} {percentile}: {quiet:.2} ms, meanwhile {removing:.2} ms, ratio {ratio:.2}");
        }
        println!("  {what}: {} and {} times", before[of].len(), during[of].len());
    }
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

fn fill(client: &Cluster, objects: u64, size: usize) {
    thread::scope(|scope| {
        for first in 0..CLIENTS as u64 {
            scope.spawn(move || {
                for number in (first..objects).step_by(CLIENTS) {
                    put(client, format!("/large/{number}"), &bytes(number, size));
                }
                put(client, format!("/small/{first}"), &bytes(first, SMALL));
            });
        }
    });
}

/// Everything is there with its bytes.
fn verify(client: &Cluster, objects: u64, size: usize) {
    for number in (0..objects).step_by(7) {
        assert!(get(client, format!("/large/{number}")) == bytes(number, size), "object {number}");
    }
}

/// How long puts and gets take, in milliseconds, until something has happened; each client does both in turn.
fn measure(client: &Cluster, is_over: impl Fn() -> bool) -> [Vec<f64>; 2] {
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
        while !is_over() {
            thread::sleep(Duration::from_millis(50)); // from one look to the next
        }
        has_ended.store(true, Ordering::Relaxed);
        let mut all = [Vec::new(), Vec::new()];
        for times in clients.into_iter().flat_map(|client| client.join().expect("a client").into_iter().enumerate()) {
            all[times.0].extend(times.1);
        }
        all
    })
}

fn is_healed(client: &Cluster, there: usize) -> bool {
    let status = client.status().expect("a status");
    let present = status.dstores.iter().filter(|dstore| dstore.state == depot::client::DstoreState::Present).count();
    (present, status.healing.objects, status.healing.surplus, status.healing.moving, status.too_few_copies)
        == (there, 0, 0, 0, 0)
}

fn wait_until_healed(client: &Cluster, there: usize) {
    while !is_healed(client, there) {
        thread::sleep(Duration::from_millis(50));
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
