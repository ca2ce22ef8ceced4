//! A process that writes to the log is killed at random instants, under load: nothing acknowledged is lost. (depot 1.1)
//!
//! Eight threads each make and remove directories, one change after the other, and say so when a change is acknowledged.
//! After each kill the log is opened, and each thread's directories must be those after its last acknowledged change, or
//! after the one that was under way. Segments and snapshots are small, so that kills come in the middle of everything.
//!
//! Some kills for each run; a thousand with `STEVEDORE_LONG`, or as many as `KILLS` says.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use depot::disk::RealFolder;
use depot::log::{Options, Replica, ReplicaOptions, Seat, SyncMode};
use depot::namespace::Namespace;
use depot::namespace::change::{Change, Command, Condition, Details, RemovalExtent};
use depot::namespace::listing::Query;
use kit::{Rng, TempFolder, hunt};

const THREADS: usize = 8;
/// So many directories of a thread are there at a time.
const KEPT: u64 = 10;

fn options(sync: SyncMode) -> ReplicaOptions {
    let log = Options { segment_bytes: 8 << 10, ballast_bytes: 0, ..Options::default() };
    ReplicaOptions { sync, log, snapshot_bytes: 12 << 10, kept_changes: 50 }
}

/// A thread's change: an even one makes a directory, an odd one removes an old one.
fn change(thread: usize, number: u64) -> Change {
    let path = |directory: u64| format!("/{thread}/{directory}").parse().expect("a path");
    let command = match number % 2 {
        0 => Command::MakeDirectory {
            path: path(number / 2),
            parents: true,
            details: Details::default(),
            modified_ms: None,
        },
        _ => Command::RemoveDirectory {
            path: path(number / 2 - KEPT),
            condition: Condition::Any,
            extent: RemovalExtent::Empty,
        },
    };
    Change { now_ms: number, stamp: None, command }
}

/// The numbers of a thread's directories.
fn directories(namespace: &Namespace, thread: usize) -> Vec<u64> {
    let path = format!("/{thread}").parse().expect("a path");
    match namespace.list(&path, Query::default(), 1000, |_| true) {
        Ok(page) => {
            let mut numbers: Vec<u64> =
                page.entries.iter().map(|entry| entry.name.trim_end_matches('/').parse().expect("ours")).collect();
            numbers.sort_unstable();
            numbers
        }
        Err(_) => Vec::new(),
    }
}

/// What is there after a thread's first changes.
fn expected(done: &[u64]) -> Vec<u64> {
    let mut there = Vec::new();
    for number in done {
        match number % 2 {
            0 => there.push(number / 2),
            _ => there.retain(|directory| *directory != number / 2 - KEPT),
        }
    }
    there
}

/// The numbers of a thread's changes, in order.
fn numbers() -> impl Iterator<Item = u64> {
    (0..).filter(|number| number % 2 == 0 || number / 2 >= KEPT)
}

fn write_until_killed(folder: &Path, begun: &[usize]) {
    let folder = Arc::new(RealFolder::new(folder).expect("a folder"));
    let replica =
        Arc::new(Replica::open(folder, options(SyncMode::Always), Seat::default()).expect("the log is whole"));
    for (thread, begun) in begun.iter().copied().enumerate() {
        let replica = Arc::clone(&replica);
        thread::spawn(move || {
            for number in numbers().skip(begun) {
                let applied = replica.propose(&change(thread, number)).expect("the log takes it");
                applied.outcome.expect("the change is right");
                let mut out = std::io::stdout().lock();
                writeln!(out, "{thread}").and_then(|()| out.flush()).expect("the parent reads");
            }
        });
    }
    loop {
        replica.snapshot_if_due().expect("a snapshot");
        replica.tick();
        replica.settle(false);
        thread::sleep(Duration::from_millis(5)); // as a Controller does this now and then, beside the changes
    }
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let [_, word, folder, begun] = &arguments[..]
        && word == "write"
    {
        let begun: Vec<usize> = begun.split(',').map(|count| count.parse().expect("a number")).collect();
        return write_until_killed(Path::new(folder), &begun);
    }
    let kills = hunt::number("KILLS").unwrap_or(if hunt::is_long() { 1000 } else { 15 });
    let seed = hunt::seed();
    println!("killing {kills} times, seed {seed}");
    let mut random = Rng(seed);
    let place = TempFolder::new();
    let mut done = [0; THREADS];
    let (mut changes, mut snapshots) = (0, std::collections::BTreeSet::new());
    for kill in 1..=kills {
        let begun: Vec<String> = done.iter().map(usize::to_string).collect();
        let mut child = Process::new(env::current_exe().expect("this program"))
            .arg("write")
            .arg(place.path())
            .arg(begun.join(","))
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        // Once in a while at once, while it opens the log; otherwise some time after its first change.
        let mut acknowledged = [0; THREADS];
        let mut count = |line: String| acknowledged[line.parse::<usize>().expect("a thread")] += 1;
        if !random.percent(20) {
            lines.next().map(|line| line.expect("a line")).into_iter().for_each(&mut count);
        }
        // Time is under test: the kill comes at any instant.
        thread::sleep(random.duration(Duration::ZERO, Duration::from_millis(60)));
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        lines.map_while(Result::ok).filter(|line| line.len() == 1).for_each(count);

        let folder = Arc::new(RealFolder::new(place.path()).expect("a folder"));
        let replica = Replica::open(folder, options(SyncMode::Always), Seat::default())
            .unwrap_or_else(|error| panic!("kill {kill}, seed {seed}: {error}"));
        for thread in 0..THREADS {
            let known = done[thread] + acknowledged[thread];
            let there = replica.read(|namespace| directories(namespace, thread)).expect("it leads");
            let after = |count: usize| expected(&numbers().take(count).collect::<Vec<_>>());
            let is_under_way = there == after(known + 1);
            assert!(
                there == after(known) || is_under_way,
                "kill {kill}, seed {seed}: thread {thread} has {there:?} after {known} acknowledged changes"
            );
            done[thread] = known + usize::from(is_under_way);
        }
        changes += acknowledged.iter().sum::<usize>();
        snapshots.extend(place.names().into_iter().filter(|name| name.starts_with("snapshot-")));
        if random.percent(30) {
            replica.close().expect("a clean end");
        }
    }
    assert!(kills < 10 || changes > 0 && snapshots.len() > 1, "{changes} changes, {snapshots:?}: nothing was tried");
    println!("{kills} kills, {changes} changes acknowledged, {} snapshots: nothing lost", snapshots.len());
}
