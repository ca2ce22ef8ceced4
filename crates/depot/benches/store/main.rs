//! Puts and gets of a whole store beside floors: one Controller and three Dstores in this process, over loopback. (depot 11)
//!
//! The floor's programs move the same bytes, append and sync the same amounts, and decide nothing. Rounds of both are
//! interleaved; each figure is the median of the rounds, with the ratio of the medians.
//!
//! Words on the command line choose rows: `cargo bench -p depot --bench store -- "put 1 KB" never`. All of them must be in a row's name.

#[path = "../cluster/mod.rs"]
mod cluster;
mod floor;

use std::env;
use std::io::{Cursor, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use cluster::{Store, StoreOptions};
use depot::client::{Cluster, Files, PutOptions, SmallFile, Source, TOGETHER};
use depot::log::SyncMode;
use depot::namespace::change::Condition;
use depot::path::Path;
use depot::words::Words;
use floor::{Connection, Floor};
use kit::{TempFolder, bytes};

const SMALL: usize = 1000;
/// So many operations a second, done by so many threads at a time; `prepare` makes what each thread does.
fn rate<F: FnMut(u64) + Send>(clients: u64, operations: u64, prepare: impl Fn(u64) -> F + Sync) -> f64 {
    // Connections are made off the clock. A thread that fails ends the bench: none waits for it.
    let mut prepared: Vec<F> = thread::scope(|scope| {
        let prepare = &prepare;
        let threads: Vec<_> = (0..clients)
            .map(|client| {
                scope.spawn(move || {
                    let mut operate = prepare(client);
                    operate(0);
                    operate
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("an operation")).collect()
    });
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    thread::scope(|scope| {
        for operate in &mut prepared {
            let next = &next;
            scope.spawn(move || {
                while let number @ 1.. = next.fetch_add(1, Ordering::Relaxed) + 1
                    && number <= operations
                {
                    operate(number);
                }
            });
        }
    });
    operations as f64 / begun.elapsed().as_secs_f64()
}

fn path(text: String) -> Path {
    text.parse().expect("a path")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(what: &str, ours: Vec<f64>, floor: Vec<f64>, unit: &str) {
    let spread = |values: &[f64]| {
        let most = values.iter().copied().fold(0.0, f64::max);
        let least = values.iter().copied().fold(f64::MAX, f64::min);
        format!("{least:.0}-{most:.0}")
    };
    let (range, floor_range) = (spread(&ours), spread(&floor));
    let (ours, floor) = (median(ours), median(floor));
    println!("{what:44} {ours:9.0} {unit} ({range}), floor {floor:9.0} ({floor_range}), ratio {:.2}", ours / floor);
}

/// Whether a row was asked for.
fn is_wanted(row: &str) -> bool {
    env::args().skip(1).filter(|arg| !arg.starts_with("--")).all(|word| row.contains(&word))
}

fn main() {
    // `cargo bench` passes --bench; a test run does not, and only checks that this still works.
    let is_bench = env::args().any(|arg| arg == "--bench");
    let rounds = if is_bench { 5 } else { 1 };
    let large = if is_bench { 256 << 20 } else { 1 << 20 };
    let content = bytes(1, SMALL);
    for sync in [SyncMode::Never, SyncMode::Interval, SyncMode::Always] {
        let syncs = sync == SyncMode::Always;
        // If nothing is ever synced, in memory, so that the disk has no say.
        let folder = if sync == SyncMode::Never { TempFolder::in_memory() } else { TempFolder::new() };
        let store = Store::start(folder.path(), StoreOptions { sync, ..StoreOptions::default() });
        let floor = Floor::start(folder.path(), syncs);
        let client = store.client();
        let options = PutOptions { parents: true, ..PutOptions::default() };
        let put = |name: String, content: &[u8]| {
            client.put(&path(name), Source::Once(&mut Cursor::new(content)), &options).expect("a put")
        };
        let name = sync.to_line();
        for clients in [1, 8, 32] {
            let row = format!("put 1 KB, --sync {name}, {clients} clients");
            if !is_wanted(&row) {
                continue;
            }
            let operations = match (is_bench, syncs) {
                (false, _) => clients * 2,
                (true, false) => 1_500 + clients * 150,
                (true, true) => 100 + clients * 40,
            };
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..rounds {
                ours.push(rate(clients, operations, |client| {
                    let content = &content;
                    move |number| {
                        put(format!("/{round}-{clients}/{client}-{number}"), content);
                    }
                }));
                theirs.push(rate(clients, operations, |_| {
                    let mut dstores: Vec<Connection> = floor.dstores.iter().map(Connection::to).collect();
                    let mut controller = Connection::to(&floor.controller);
                    let content = &content;
                    move |_| {
                        dstores.iter_mut().for_each(|dstore| dstore.send(content, 20));
                        dstores.iter_mut().for_each(|dstore| dstore.receive(20));
                        controller.send(&content[..200], 60);
                        controller.receive(60);
                    }
                }));
            }
            report(&row, ours, theirs, "/s");
        }
        for jobs in [1, 4] {
            let row = format!("10^5 files of 1 KB, --sync {name}, {jobs} jobs");
            if is_wanted(&row) {
                let files = if is_bench { 100_000 / rounds } else { 300 };
                put_together(&client, &row, jobs, files, rounds);
            }
        }
        if sync != SyncMode::Never {
            continue;
        }
        put("/read".into(), &content);
        for clients in [1, 8, 32] {
            let row = format!("get 1 KB, {clients} clients");
            if !is_wanted(&row) {
                continue;
            }
            let operations = if is_bench { 2_000 + clients * 200 } else { clients * 2 };
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                ours.push(rate(clients, operations, |reader| {
                    let (client, content) = (&client, &content);
                    move |_| {
                        let name = path("/read".into());
                        let mut out = Vec::with_capacity(SMALL);
                        let mut file = client.get(&name, Condition::Any).expect("it was put");
                        file.copy_to(0..u64::MAX, &mut out).expect("it is whole");
                        assert!(out == *content, "reader {reader} got other bytes");
                    }
                }));
                theirs.push(rate(clients, operations, |reader| {
                    let mut dstore = Connection::to(&floor.dstores[reader as usize % 3]);
                    let mut controller = Connection::to(&floor.controller);
                    move |_| {
                        controller.send(&[], 250);
                        controller.receive(250);
                        dstore.send(&[], SMALL + 40);
                        dstore.receive(SMALL + 40);
                    }
                }));
            }
            report(&row, ours, theirs, "/s");
        }
        let rows = ["put", "get"].map(|what| format!("{what} {} MB, R = 3", large / 1_000_000));
        if !rows.iter().any(|row| is_wanted(row)) {
            continue;
        }
        let content = bytes(2, large);
        let file = folder.path().join("large");
        std::fs::File::create(&file).and_then(|mut file| file.write_all(&content)).expect("a file");
        let (mut puts, mut put_floors, mut gets, mut get_floors) = (vec![], vec![], vec![], vec![]);
        // Both gets write to the same memory, which the system has given before the clock runs.
        let mut out = content.clone();
        out.reserve(1);
        let megabytes = large as f64 / 1e6;
        for _ in 0..rounds.min(3) {
            let source = std::fs::File::open(&file).expect("a file");
            puts.push(
                megabytes
                    * rate_of_one(|| {
                        client.put(&path("/large".into()), Source::File(&source), &options).expect("a put");
                    }),
            );
            put_floors.push(
                megabytes
                    * rate_of_one(|| {
                        thread::scope(|scope| {
                            for dstore in &floor.dstores {
                                let content = &content;
                                scope.spawn(move || {
                                    let mut connection = Connection::to(dstore);
                                    connection.send(content, 20);
                                    connection.receive(20);
                                });
                            }
                        });
                    }),
            );
            out.clear();
            gets.push(
                megabytes
                    * rate_of_one(|| {
                        let mut file = client.get(&path("/large".into()), Condition::Any).expect("it was put");
                        file.copy_to(0..u64::MAX, &mut out).expect("it is whole");
                    }),
            );
            assert!(out == content, "other bytes came back");
            out.clear();
            get_floors.push(
                megabytes
                    * rate_of_one(|| {
                        let mut connection = Connection::to(&floor.dstores[0]);
                        connection.send(&[], large);
                        connection.receive_into(large, |bytes| out.extend_from_slice(bytes));
                    }),
            );
        }
        report(&rows[0], puts, put_floors, "MB/s");
        report(&rows[1], gets, get_floors, "MB/s");
    }
    beside_many(is_bench, rounds);
}

/// Puts so many files in each round one by one, and so many together, as `put -r` does with so many jobs.
fn put_together(client: &Cluster, row: &str, jobs: usize, files: usize, rounds: usize) {
    let options = PutOptions { parents: true, ..PutOptions::default() };
    let (mut singly, mut together) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for (way, rates) in [("singly", &mut singly), ("together", &mut together)] {
            let file = |number: usize| SmallFile {
                path: path(format!("/{way}/{jobs}/{round}/{}/{number}", number / 1000)),
                content: bytes(number as u64, SMALL),
                options: options.clone(),
            };
            let all: Vec<SmallFile> = (0..files).map(file).collect();
            let batches: Vec<&[SmallFile]> = all.chunks(if way == "singly" { 1 } else { TOGETHER }).collect();
            let next = AtomicUsize::new(0);
            let begun = Instant::now();
            thread::scope(|scope| {
                for _ in 0..jobs {
                    scope.spawn(|| {
                        while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                            client.put_many(batch).into_iter().for_each(|put| assert!(put.is_ok(), "{put:?}"));
                        }
                    });
                }
            });
            rates.push(files as f64 / begun.elapsed().as_secs_f64());
            for file in all.iter().step_by(97) {
                let mut out = Vec::with_capacity(SMALL);
                let mut read = client.get(&file.path, Condition::Any).expect("it was put");
                read.copy_to(0..u64::MAX, &mut out).expect("it is whole");
                assert!(out == file.content, "{} has other bytes", file.path);
            }
        }
    }
    let ratios = together.iter().zip(&singly).map(|(together, singly)| together / singly).collect();
    let (singly, together, ratio) = (median(singly), median(together), median(ratios));
    println!("{row:44} one by one {singly:6.0} /s, together {together:6.0} /s, ratio {ratio:.2}");
}

/// Puts and gets in a store of many files beside those in a store of a thousand.
fn beside_many(is_bench: bool, rounds: usize) {
    const CLIENTS: u64 = 8;
    let rows = ["put 1 KB beside 10^6 files, 8 clients", "get 1 KB of 10^6 files, 8 clients"];
    if !rows.iter().any(|row| is_wanted(row)) {
        return;
    }
    let (few, many) = if is_bench { (1_000, 1_000_000) } else { (100, 300) };
    let options = PutOptions { parents: true, ..PutOptions::default() };
    let name = |number: u64| path(format!("/{}/{number}", number / 1_000));
    let stores = [few, many].map(|files| {
        let folder = TempFolder::in_memory();
        let store = Store::start(folder.path(), StoreOptions::default());
        let client = store.client();
        let next = AtomicU64::new(0);
        let together = TOGETHER as u64;
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let first = next.fetch_add(together, Ordering::Relaxed)
                        && first < files
                    {
                        let file = |number| SmallFile {
                            path: name(number),
                            content: bytes(number, 100),
                            options: options.clone(),
                        };
                        let batch: Vec<SmallFile> = (first..files.min(first + together)).map(file).collect();
                        client.put_many(&batch).into_iter().for_each(|put| assert!(put.is_ok(), "{put:?}"));
                    }
                });
            }
        });
        (files, folder, store, client)
    });
    let operations = if is_bench { 20_000 } else { CLIENTS * 2 };
    let content = bytes(1, SMALL);
    let [mut puts, mut gets] = [(); 2].map(|()| [Vec::new(), Vec::new()]);
    for round in 0..rounds {
        for (at, (files, _, _, client)) in stores.iter().enumerate() {
            let (files, content, options) = (*files, &content, &options);
            puts[at].push(rate(CLIENTS, operations, |caller| {
                move |number| {
                    let name = path(format!("/new/{round}-{caller}/{number}"));
                    client.put(&name, Source::Once(&mut Cursor::new(content)), options).expect("a put");
                }
            }));
            gets[at].push(rate(CLIENTS, operations * 4, |caller| {
                let mut random = fastrand::Rng::with_seed(caller);
                move |_| {
                    let number = random.u64(..files);
                    let mut out = Vec::with_capacity(100);
                    let mut file = client.get(&name(number), Condition::Any).expect("it was put");
                    file.copy_to(0..u64::MAX, &mut out).expect("it is whole");
                    assert!(out == bytes(number, 100), "file {number} has other bytes");
                }
            }));
        }
    }
    for (row, [few, many]) in rows.into_iter().zip([puts, gets]) {
        let ratios: Vec<f64> = many.iter().zip(&few).map(|(many, few)| many / few).collect();
        let (few, many, ratio) = (median(few), median(many), median(ratios));
        println!("{row:44} {many:9.0} /s, beside 1,000 files {few:9.0} /s, ratio {ratio:.2}");
    }
}

fn rate_of_one(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    1.0 / begun.elapsed().as_secs_f64()
}
