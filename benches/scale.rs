//! Does the store stay as fast, as responsive and as small with very many files, bytes, connections and operations?
//!
//! Parts: `files`, `rebalance`, `giant`, `idle`, `memory`, `large`. Without a word those run that end within minutes, in a
//! brief form; a part that is asked for has its full size, or that fraction of it which follows: `memory 0.1`.
//!
//! Controller and Dstores are processes, the clients are threads of this one.

mod cluster;
mod common;
mod floor;

use std::collections::{BTreeMap, VecDeque};
use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cluster::rebalances::Rebalance;
use cluster::{Cluster, Log, Setup, time_together};
use common::{Figures, Names, Rng, Run, Size, Table, digits, measure};
use kit::TempFolder;
use kit::folder::place_in_memory;
use rustix::fs::{Advice, fadvise, statvfs};
use rustix::process::{Resource, getrlimit, setrlimit};
use stevedore::client::{Client, Error};

/// A size where a part is asked for, in a brief run of all, and in a test.
struct Extent<T> {
    asked_for: T,
    brief: T,
    tiny: T,
}

/// The clients that are at work, where nothing else is said.
const CLIENTS: Size<usize> = Size { full: 8, tiny: 2 };
const SMALL_BYTES: usize = 1_000;
const ROUNDS: Size<usize> = Size { full: 7, tiny: 1 };
/// Files stored, loaded and removed in a round, by all clients together.
const FILES_A_ROUND: Size<usize> = Size { full: 4_096, tiny: 4 };

/// Files that are there already, empty ones: few, and how many for comparison.
const FEW_FILES: Size<usize> = Size { full: 1_000, tiny: 10 };
const MANY_FILES: Extent<&[usize]> = Extent { asked_for: &[100_000, 1_000_000], brief: &[100_000], tiny: &[30] };
/// How many clients store them.
const FILLERS: Size<usize> = Size { full: 16, tiny: 2 };

const TIMEOUTS: Extent<&[u64]> = Extent { asked_for: &[1, 5], brief: &[1], tiny: &[1] };
const MOVED_FILES: Size<usize> = Size { full: 100_000, tiny: 100 };
/// Joins and deaths with no client at work, each beside the floor.
const QUIET_ROUNDS: Extent<usize> = Extent { asked_for: 3, brief: 1, tiny: 1 };
/// From one rebalance to the next: what ends the wait after a death.
const PERIOD: Size<Duration> = Size { full: Duration::from_secs(5), tiny: Duration::from_secs(2) };
/// As many as a Dstore has.
const SENDERS: usize = 4;

/// Files of the giant rebalance. Half of them move.
const GIANT_FILES: Size<usize> = Size { full: 2_400, tiny: 4 };
const GIANT_BYTES: Size<usize> = Size { full: 16 << 20, tiny: 100_000 };
const GIANT_TIMEOUT: Duration = Duration::from_secs(5);

const IDLE_CONNECTIONS: Size<usize> = Size { full: 10_000, tiny: 20 };
/// Descriptors that are needed besides those for idle connections.
const OTHER_DESCRIPTORS: usize = 500;

const MEMORY_TIME: Extent<Duration> =
    Extent { asked_for: Duration::from_secs(600), brief: Duration::from_secs(20), tiny: Duration::from_millis(500) };
/// Files that a client of the memory part has at a time, at most.
const OWN_FILES: usize = 50;
/// How large they are: small ones are stored nine times out of ten.
const MEDIUM_BYTES: usize = 1_000_000;

const LARGE_CLIENTS: Size<usize> = Size { full: 32, tiny: 2 };
const LARGE_BYTES: Size<usize> = Size { full: 1 << 30, tiny: 300_000 };

fn main() -> io::Result<()> {
    floor::serve_if_asked()?;
    let run = Run::new();
    for (name, play) in BRIEF_PARTS {
        if run.wants(name) {
            play(&run)?;
        }
    }
    for (name, play, what) in PARTS_TO_ASK_FOR {
        if run.is_asked_for(name) || !run.is_full() && run.wants(name) {
            play(&run)?;
        } else if run.wants(name) {
            println!("only when asked for: `{name}`, {what}");
        }
    }
    Ok(())
}

type Part = fn(&Run) -> io::Result<()>;

const BRIEF_PARTS: [(&str, Part); 4] =
    [("files", files), ("rebalance", rebalances), ("idle", idle), ("memory", memory)];
const PARTS_TO_ASK_FOR: [(&str, Part, &str); 2] = [
    ("giant", giant, "20 GB moved, with 45 GB of disk in the folder for temporary files"),
    ("large", large, "32 files of 1 GB, with as much disk in the folder for temporary files"),
];

fn extent<T>(run: &Run, part: &str, extent: Extent<T>) -> T {
    match (run.is_full(), run.is_asked_for(part)) {
        (false, _) => extent.tiny,
        (true, false) => extent.brief,
        (true, true) => extent.asked_for,
    }
}

/// `size`, or the fraction of it that was asked for.
fn fraction(run: &Run, size: usize) -> usize {
    (size as f64 * run.fraction()).ceil() as usize
}

/// The same work with more and more files in the index.
fn files(run: &Run) -> io::Result<()> {
    let parent = place_in_memory();
    let title = format!(
        "{SMALL_BYTES} bytes a file, {} clients, 4 Dstores with folders in {}, R = 2",
        run.size(CLIENTS),
        parent.display()
    );
    for &many in extent(run, "files", MANY_FILES) {
        let counts = [run.size(FEW_FILES), if run.is_full() { fraction(run, many) } else { many }];
        require_inodes(&parent, 2 * (counts.iter().sum::<usize>() + 2 * run.size(FILES_A_ROUND)))?;
        let mut clusters = Vec::new();
        for count in counts {
            let cluster = Cluster::start(&parent, 2, 4)?;
            let before = cluster::memory(&cluster.controller);
            let begun = Instant::now();
            fill(run, &cluster, count, 0);
            println!(
                "{count} empty files stored: {}/s, the Controller has grown by {} MB",
                digits(count as f64 / begun.elapsed().as_secs_f64()),
                digits((cluster::memory(&cluster.controller) - before) as f64 / 1e6),
            );
            clusters.push((format!("{count} files"), cluster));
        }
        println!();
        let contenders: Vec<_> = clusters.iter().map(|(label, cluster)| (label.as_str(), cluster)).collect();
        print_throughput(&title, &contenders, &throughput(run, &contenders));
    }
    Ok(())
}

/// Fails unless `folder` has room for `files` more files. A file system in memory bounds the number of files, however
/// small they are, and a checksum takes some of that room as well.
fn require_inodes(folder: &Path, files: usize) -> io::Result<()> {
    let needed = files + files / 4;
    let file_system = statvfs(folder)?;
    if file_system.f_files > 0 && file_system.f_favail < needed as u64 {
        let (folder, free) = (folder.display(), file_system.f_favail);
        return Err(io::Error::other(format!(
            "{folder} has room for {free} more files, and {needed} are needed: set TMPDIR, or ask for a fraction"
        )));
    }
    Ok(())
}

/// The same work with and without connections on which nothing is said.
fn idle(run: &Run) -> io::Result<()> {
    let count = if run.is_full() { fraction(run, run.size(IDLE_CONNECTIONS)) } else { run.size(IDLE_CONNECTIONS) };
    allow_descriptors(count + OTHER_DESCRIPTORS)?;
    let parent = place_in_memory();
    let (alone, besieged) = (Cluster::start(&parent, 3, 4)?, Cluster::start(&parent, 3, 4)?);
    let before = cluster::memory(&besieged.controller);
    let connections = (0..count).map(|_| ask_once(besieged.controller.port)).collect::<io::Result<Vec<_>>>()?;
    let with = cluster::memory(&besieged.controller);
    let label = format!("{count} idle connections");
    let contenders = [("none idle", &alone), (label.as_str(), &besieged)];
    let figures = throughput(run, &contenders);
    println!(
        "the Controller's memory: {} MB before, {} MB with {count} idle connections and {} threads, {} MB after the work \
         beside them\n",
        digits(before as f64 / 1e6),
        digits(with as f64 / 1e6),
        besieged.controller.status("Threads:").expect("Linux says"),
        digits(cluster::memory(&besieged.controller) as f64 / 1e6),
    );
    let title = format!("{SMALL_BYTES} bytes a file, {} clients, 4 Dstores, R = 3", run.size(CLIENTS));
    print_throughput(&title, &contenders, &figures);
    connections.iter().for_each(|mut connection| {
        connection.write_all(b"LIST\n").expect("it is still there");
        let mut reply = [0; 5];
        connection.read_exact(&mut reply).expect("it is still served");
        assert_eq!(&reply, b"LIST\n");
    });
    Ok(())
}

/// A connection that has been used.
fn ask_once(port: u16) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(b"LOAD nothing\n")?;
    let mut reply = String::new();
    BufReader::new(&stream).read_line(&mut reply)?;
    assert_eq!(reply, "ERROR_FILE_DOES_NOT_EXIST\n");
    Ok(stream)
}

/// Of this process and those that it starts from now on.
fn allow_descriptors(needed: usize) -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    match limit.maximum {
        Some(most) if most < needed as u64 => Err(io::Error::other(format!(
            "a process may have {most} descriptors here, and {needed} are needed: raise `ulimit -n`, or ask for a fraction"
        ))),
        _ => Ok(()),
    }
}

/// What the clients do in a round on each cluster in its turn, beside the files that are there.
fn throughput(run: &Run, clusters: &[(&str, &Cluster)]) -> Figures {
    let count = run.size(FILES_A_ROUND);
    let pool = Pool::new();
    let mut turn = 0;
    let mut clients: Vec<Vec<Client>> =
        clusters.iter().map(|(_, cluster)| (0..run.size(CLIENTS)).map(|_| cluster.client()).collect()).collect();
    measure(run.size(ROUNDS), |clock| {
        let mut rng = Rng(u64::MAX / 2 + turn as u64);
        let names: Vec<String> = (0..count).map(|_| rng.name().to_string()).collect();
        for at in (0..clusters.len()).map(|at| (at + turn) % clusters.len()) {
            let (label, cluster) = clusters[at];
            let clients = &mut clients[at];
            let name = |operation| format!("{label} {operation}");
            time_together(clock, &name("store"), count, cluster, clients, |client, file| {
                pool.store(client, &names[file], SMALL_BYTES).expect("stored");
            });
            time_together(clock, &name("load"), count, cluster, clients, |client, file| {
                pool.load(client, &names[file], SMALL_BYTES).expect("loaded");
            });
            time_together(clock, &name("remove"), count, cluster, clients, |client, file| {
                client.remove(&names[file]).expect("removed");
            });
        }
        turn += 1;
    })
}

/// Prints the throughput of each cluster, beside that of the first.
fn print_throughput(title: &str, clusters: &[(&str, &Cluster)], figures: &Figures) {
    let (first, _) = clusters[0];
    let of_first = format!("of {first}");
    let mut table =
        Table::new(title, &["operation", "with", &of_first, "operations/s", "p50 us", "p99 us", "Controller CPU us"]);
    for operation in ["store", "load", "remove"] {
        for (label, _) in clusters {
            let figure = |what: &str| &figures[&format!("{label} {operation}{what}")];
            table.row([
                operation.to_owned(),
                (*label).to_owned(),
                figures[&format!("{first} {operation}")].over(figure("")).to_string(),
                figure("").rate(1.0).to_string(),
                figure(", p50").parts(1e6).brief(),
                figure(", p99").parts(1e6).brief(),
                figure(", Controller").parts(1e6).brief(),
            ]);
        }
    }
    table.print();
}

/// Stores `count` files of `bytes` each.
fn fill(run: &Run, cluster: &Cluster, count: usize, bytes: usize) -> Vec<String> {
    let fillers = run.size(FILLERS);
    let pool = Pool::new();
    let share = |filler: usize| filler * count / fillers..(filler + 1) * count / fillers;
    let names = thread::scope(|scope| {
        let store = |filler: usize| {
            let mut client = cluster.client();
            let mut rng = Rng(filler as u64 * u64::from(u32::MAX));
            let names: Vec<_> = share(filler).map(|_| rng.name().to_string()).collect();
            names.iter().for_each(|name| pool.store(&mut client, name, bytes).expect("stored"));
            names
        };
        let threads: Vec<_> = (0..fillers).map(|filler| scope.spawn(move || store(filler))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("all is stored")).collect::<Vec<_>>()
    });
    assert_eq!(cluster.client().list().expect("listed").len(), count);
    names
}

/// Joins and deaths among many small files.
fn rebalances(run: &Run) -> io::Result<()> {
    let parent = place_in_memory();
    let count = if run.is_full() { fraction(run, run.size(MOVED_FILES)) } else { run.size(MOVED_FILES) };
    for &timeout in extent(run, "rebalance", TIMEOUTS) {
        let timeout = Duration::from_secs(timeout);
        let setup = Setup { timeout, period: run.size(PERIOD), log: Log::Rebalances, ..Setup::new(&parent, 2, 3) };
        let mut trial = Trial::new(run, &setup, count, SMALL_BYTES)?;
        for _ in 0..extent(run, "rebalance", QUIET_ROUNDS) {
            trial.floor(3, true)?;
            trial.play(Change::Join, false)?;
            trial.floor(3, false)?;
            trial.play(Change::Death, false)?;
        }
        trial.play(Change::Join, true)?;
        trial.play(Change::Death, true)?;
        trial.print();
    }
    Ok(())
}

/// A join that moves half of very many bytes.
fn giant(run: &Run) -> io::Result<()> {
    let parent = env::temp_dir();
    let count =
        if run.is_full() { fraction(run, run.size(GIANT_FILES)).next_multiple_of(2) } else { run.size(GIANT_FILES) };
    let setup =
        Setup { timeout: GIANT_TIMEOUT, period: run.size(PERIOD), log: Log::Rebalances, ..Setup::new(&parent, 1, 1) };
    // Both at a time would not fit on the disk. Its speed varies, so the floor runs once before and once after.
    let floor = Floor { parent: &parent, copies: count / 2, bytes: run.size(GIANT_BYTES) };
    let before = floor.play(1, true)?;
    let mut trial = Trial::without_floor(run, &setup, count, run.size(GIANT_BYTES))?;
    trial.last_floor = Some(before);
    trial.chill()?;
    trial.play(Change::Join, true)?;
    trial.print();
    drop(trial);
    let after = floor.play(1, true)?;
    println!("the floor took {} s before and {} s after that\n", digits(before.0), digits(after.0));
    Ok(())
}

/// What happens to a cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Join,
    Death,
}

/// A cluster with Dstores that come and go, and how it bears that.
struct Trial<'a> {
    setup: Setup<'a>,
    bytes: usize,
    cluster: Cluster,
    floor: Option<Floor<'a>>,
    /// How long the last one took, and how many copies it moved.
    last_floor: Option<(f64, usize)>,
    names: Vec<String>,
    pool: Pool,
    moves: Table,
    waits: Table,
}

impl<'a> Trial<'a> {
    fn new(run: &Run, setup: &Setup<'a>, count: usize, bytes: usize) -> io::Result<Self> {
        // As many copies as a join of a fourth Dstore moves.
        let copies = setup.replicas * count / (setup.dstores + 1);
        let floor = Floor { parent: setup.parent, copies, bytes };
        Ok(Self { floor: Some(floor), ..Self::without_floor(run, setup, count, bytes)? })
    }

    fn without_floor(run: &Run, setup: &Setup<'a>, count: usize, bytes: usize) -> io::Result<Self> {
        let cluster = Cluster::start_with(setup)?;
        let names = fill(run, &cluster, count, bytes);
        let title = format!(
            "{count} files of {bytes} bytes in {}, R = {}, timeout {:?}",
            setup.parent.display(),
            setup.replicas,
            setup.timeout
        );
        let moves = Table::new(
            title,
            &[
                "what",
                "clients",
                "copies",
                "s",
                "copies/s",
                "MB/s",
                "of the floor",
                "of it, moving",
                "rounds",
                "late",
                "s: asking",
                "moving",
                "waiting for the slowest",
                "longest round",
            ],
        );
        let waits = Table::new(
            "The longest wait of a client, in timeouts",
            &["what", "store", "load", "remove", "list", "operations", "lists", "errors"],
        );
        let last_floor = None;
        Ok(Self { setup: *setup, bytes, cluster, floor: None, last_floor, names, pool: Pool::new(), moves, waits })
    }

    /// The copies to come, moved by programs that do nothing else.
    fn floor(&mut self, senders: usize, removes: bool) -> io::Result<()> {
        self.last_floor = Some(self.floor.as_ref().expect("there is one").play(senders, removes)?);
        Ok(())
    }

    fn chill(&self) -> io::Result<()> {
        self.cluster.folders.iter().try_for_each(|folder| chill(folder))
    }

    /// Has a Dstore come or go, and waits until all is well again.
    fn play(&mut self, change: Change, is_busy: bool) -> io::Result<()> {
        let stop = AtomicBool::new(false);
        let begun = Instant::now();
        let what = if change == Change::Join { "one joins" } else { "one dies" };
        let copies = match change {
            Change::Join => self.setup.replicas * self.names.len() / (self.cluster.dstores.len() + 1),
            Change::Death => cluster::count_files(&self.cluster.folders[0]),
        };
        let [mut churner, mut lister] = [(); 2].map(|()| self.cluster.client());
        let (names, pool, cluster) = (&self.names, &self.pool, &mut self.cluster);
        let (rebalance, waits) = thread::scope(|scope| -> io::Result<_> {
            let others = is_busy.then(|| {
                let churning = scope.spawn(|| churn(&mut churner, pool, &stop));
                let listing = scope.spawn(|| list(&mut lister, names.len(), &stop));
                [churning, listing]
            });
            match change {
                Change::Join => cluster.add_dstore()?,
                // The eldest: it has had all kinds of orders.
                Change::Death => cluster.kill_dstore(0)?,
            }
            let patience = self.setup.timeout + self.setup.period + Duration::from_secs(10);
            let rebalance = cluster.rebalances.as_ref().expect("it is followed").wait(begun, patience);
            stop.store(true, Ordering::Relaxed);
            let waits = others.map(|others| others.map(|thread| thread.join().expect("clients do not panic")));
            Ok((rebalance.expect("a rebalance"), waits))
        })?;
        self.verify();
        self.take_down(what, copies, &rebalance, is_busy);
        if let Some([churn, list]) = waits {
            let timeout = self.setup.timeout.as_secs_f64();
            let longest = |waits: &Waits, operation| digits(waits.longest[operation] / timeout);
            self.waits.row([
                what.to_owned(),
                longest(&churn, 0),
                longest(&churn, 1),
                longest(&churn, 2),
                longest(&list, 0),
                churn.operations.to_string(),
                list.operations.to_string(),
                (churn.errors + list.errors).to_string(),
            ]);
        }
        Ok(())
    }

    fn take_down(&mut self, what: &str, copies: usize, rebalance: &Rebalance, is_busy: bool) {
        let seconds = rebalance.took.as_secs_f64();
        let (floor, floor_copies) = self.last_floor.expect("it was played");
        let floor = floor / floor_copies as f64 * copies as f64;
        let in_seconds = |time: Duration| digits(time.as_secs_f64());
        self.moves.row([
            what.to_owned(),
            if is_busy { "2" } else { "none" }.to_owned(),
            copies.to_string(),
            digits(seconds),
            digits(copies as f64 / seconds),
            digits((copies * self.bytes) as f64 / 1e6 / seconds),
            digits(floor / seconds),
            digits(floor / rebalance.moving.as_secs_f64()),
            rebalance.rounds.to_string(),
            rebalance.late_rounds.to_string(),
            in_seconds(rebalance.asking),
            in_seconds(rebalance.moving),
            in_seconds(rebalance.waiting),
            in_seconds(rebalance.longest_round),
        ]);
    }

    /// Every file is on exactly R Dstores, as evenly as can be, and some of them load.
    fn verify(&self) {
        let mut copies: BTreeMap<String, usize> = self.names.iter().map(|name| (name.clone(), 0)).collect();
        let mut counts = Vec::new();
        for folder in &self.cluster.folders {
            let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
            let before = copies.values().sum::<usize>();
            // What is left of a store that failed goes with a later rebalance.
            let names = names.map(|name| name.into_string().expect("a name")).filter(|name| !name.starts_with(CHURN));
            for name in names {
                *copies.get_mut(&name).unwrap_or_else(|| panic!("{name} should not be there")) += 1;
            }
            counts.push(copies.values().sum::<usize>() - before);
        }
        let wrong: Vec<_> = copies.iter().filter(|(_, copies)| **copies != self.setup.replicas).take(3).collect();
        assert!(wrong.is_empty(), "not {} copies: {wrong:?}", self.setup.replicas);
        let spread = counts.iter().max().expect("some") - counts.iter().min().expect("some");
        assert!(spread <= 1 + SPREAD_BY_OTHERS, "copies on each Dstore: {counts:?}");
        let mut client = self.cluster.client();
        for name in self.names.iter().step_by(self.names.len() / SAMPLE.min(self.names.len())) {
            self.pool.load(&mut client, name, self.bytes).expect("loaded as it was stored");
        }
    }

    fn print(&self) {
        self.moves.print();
        self.waits.print();
    }
}

/// What a client's own file can add to the difference between two Dstores.
const SPREAD_BY_OTHERS: usize = 4;
/// How many files are loaded to see whether they are right.
const SAMPLE: usize = 200;

/// How long a client has waited.
#[derive(Default)]
struct Waits {
    /// In seconds, by operation.
    longest: [f64; 3],
    operations: usize,
    errors: usize,
}

impl Waits {
    /// Stores and removes on a Dstore that has just died may fail.
    fn time<T>(&mut self, operation: usize, work: impl FnOnce() -> Result<T, Error>) -> Option<T> {
        let begun = Instant::now();
        let outcome = work();
        self.longest[operation] = self.longest[operation].max(begun.elapsed().as_secs_f64());
        self.operations += 1;
        outcome
            .inspect_err(|error| {
                self.errors += 1;
                eprintln!("a client: {error}");
            })
            .ok()
    }
}

/// Begins the names of files that come and go.
const CHURN: &str = "churn-";

fn churn(client: &mut Client, pool: &Pool, stop: &AtomicBool) -> Waits {
    let mut waits = Waits::default();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let name = format!("{CHURN}{number}");
        if waits.time(0, || pool.store(client, &name, SMALL_BYTES)).is_some() {
            waits.time(1, || pool.load(client, &name, SMALL_BYTES));
            waits.time(2, || client.remove(&name));
        }
    }
    waits
}

fn list(client: &mut Client, least: usize, stop: &AtomicBool) -> Waits {
    let mut waits = Waits::default();
    while !stop.load(Ordering::Relaxed) {
        if let Some(names) = waits.time(0, || client.list()) {
            assert!(names.len() >= least, "only {} files are listed", names.len());
        }
    }
    waits
}

/// Copies sent by programs that do nothing else: from folders, one for each sender, to the floor's Dstores.
struct Floor<'a> {
    parent: &'a Path,
    copies: usize,
    bytes: usize,
}

impl Floor<'_> {
    /// Returns the seconds that it took, and how many copies were moved. If copies are removed, it plays a join: from
    /// all Dstores to a new one. If not, it plays a death: from all to all.
    fn play(&self, senders: usize, removes: bool) -> io::Result<(f64, usize)> {
        let receivers = if removes { 1 } else { senders };
        let cluster = Cluster::floor(self.parent, 1, receivers, self.bytes, 100)?;
        let folder = TempFolder::below(self.parent);
        let pool = Pool::new();
        let mut rng = Rng(0);
        let mut sources: Vec<(PathBuf, Vec<u16>)> = Vec::new();
        let share = self.copies / senders;
        for sender in 0..senders {
            let source = folder.path().join(sender.to_string());
            fs::create_dir(&source)?;
            for _ in 0..share {
                let name = rng.name().to_string();
                io::copy(&mut pool.content(&name, self.bytes), &mut File::create_new(source.join(name))?)?;
            }
            let others = cluster.dstores.iter().enumerate().filter(|(at, _)| removes || senders == 1 || *at != sender);
            sources.push((source, others.map(|(_, dstore)| dstore.port).collect()));
        }
        if self.parent != place_in_memory() {
            sources.iter().try_for_each(|(source, _)| chill(source))?;
        }
        let begun = Instant::now();
        let program = env::current_exe()?;
        let send = |(source, ports): &(PathBuf, Vec<u16>)| {
            Command::new(&program)
                .args(floor::sender_arguments(&source.to_string_lossy(), SENDERS, removes, ports))
                .spawn()
        };
        let programs = sources.iter().map(send).collect::<io::Result<Vec<Child>>>()?;
        for mut program in programs {
            assert!(program.wait()?.success(), "a sender of the floor failed");
        }
        let seconds = begun.elapsed().as_secs_f64();
        assert_eq!(cluster.files_in_folders(), share * senders);
        Ok((seconds, share * senders))
    }
}

/// Has the system forget what it remembers of a folder's files, so that they are read from the disk.
fn chill(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let file = File::open(entry?.path())?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// Whether the programs' memory grows as they work.
fn memory(run: &Run) -> io::Result<()> {
    let time = extent(run, "memory", MEMORY_TIME).mul_f64(run.fraction());
    let cluster = Cluster::start(&place_in_memory(), 2, 3)?;
    let pool = Pool::new();
    let stop = AtomicBool::new(false);
    let processes = || [&cluster.controller].into_iter().chain(&cluster.dstores);
    let mut samples: Vec<Vec<usize>> = Vec::new();
    let (mut operations, begun) = (0, Instant::now());
    thread::scope(|scope| {
        let work = |client| mix(&cluster, &pool, client, &stop);
        let clients: Vec<_> = (0..run.size(CLIENTS)).map(|client| scope.spawn(move || work(client))).collect();
        for sample in 0..=SAMPLES {
            thread::sleep((begun + time * sample / SAMPLES).saturating_duration_since(Instant::now()));
            samples.push(processes().map(cluster::memory).collect());
        }
        stop.store(true, Ordering::Relaxed);
        operations = clients.into_iter().map(|client| client.join().expect("no operation fails")).sum();
    });
    let title = format!(
        "MB of memory under {} clients that store, load and remove files of {SMALL_BYTES} and {MEDIUM_BYTES} bytes, {:.0?}, \
         {operations} operations",
        run.size(CLIENTS),
        begun.elapsed(),
    );
    let mut table = Table::new(title, &["process", "at 10%", "at 50%", "at 100%", "100% over 10%", "highest"]);
    for (at, process) in processes().enumerate() {
        let name = if at == 0 { "Controller".to_owned() } else { format!("Dstore {at}") };
        let sample = |percent: u32| samples[(SAMPLES * percent / 100) as usize][at] as f64;
        let megabytes = [10, 50, 100].map(|percent| digits(sample(percent) / 1e6));
        let [tenth, half, end] = megabytes;
        let peak = digits(cluster::peak_memory(process) as f64 / 1e6);
        table.row([name, tenth, half, end, digits(sample(100) / sample(10)), peak]);
    }
    table.print();
    Ok(())
}

/// One of many clients: half of them keep their connections, and now and then one goes and another comes. Returns how
/// many operations it has done.
fn mix(cluster: &Cluster, pool: &Pool, number: usize, stop: &AtomicBool) -> usize {
    let connect = || {
        let mut client = cluster.client();
        client.keep_connections(number.is_multiple_of(2));
        client
    };
    let mut client = connect();
    let mut rng = Rng(number as u64);
    let mut own = VecDeque::new();
    for operation in 0.. {
        if stop.load(Ordering::Relaxed) {
            return operation;
        }
        match rng.below(100) {
            0 => client = connect(),
            1..50 if own.len() < OWN_FILES => {
                let file =
                    (format!("{number}-{operation}"), if rng.below(10) == 0 { MEDIUM_BYTES } else { SMALL_BYTES });
                pool.store(&mut client, &file.0, file.1).expect("stored");
                own.push_back(file);
            }
            1..75 if !own.is_empty() => {
                let (name, bytes) = &own[rng.below(own.len())];
                pool.load(&mut client, name, *bytes).expect("loaded");
            }
            _ => {
                if let Some((name, _)) = own.pop_front() {
                    client.remove(&name).expect("removed");
                }
            }
        }
    }
    unreachable!("numbers do not end")
}

/// How often memory is looked at.
const SAMPLES: u32 = 20;

/// Many large files at the same time.
fn large(run: &Run) -> io::Result<()> {
    let bytes = if run.is_full() { fraction(run, run.size(LARGE_BYTES)) } else { run.size(LARGE_BYTES) };
    let parent = env::temp_dir();
    // A store is to be complete within the timeout, however large the file: all of them share one disk.
    let cluster = Cluster::start_with(&Setup { timeout: Duration::from_secs(600), ..Setup::new(&parent, 1, 3) })?;
    let pool = Pool::new();
    let clients = run.size(LARGE_CLIENTS);
    let title = format!(
        "{clients} clients, each with a file of {} MB in {}, R = 1",
        digits(bytes as f64 / 1e6),
        parent.display()
    );
    let mut table = Table::new(title, &["operation", "s", "MB/s", "highest memory of a Dstore, MB", "Controller"]);
    for operation in ["store", "load"] {
        let work = if operation == "store" { Pool::store } else { Pool::load };
        let begun = Instant::now();
        thread::scope(|scope| {
            for number in 0..clients {
                let (pool, cluster) = (&pool, &cluster);
                scope
                    .spawn(move || work(pool, &mut cluster.client(), &format!("large-{number}"), bytes).expect("done"));
            }
        });
        let seconds = begun.elapsed().as_secs_f64();
        let peak = cluster.dstores.iter().map(cluster::peak_memory).max().expect("some");
        table.row([
            operation.to_owned(),
            digits(seconds),
            digits((bytes * clients) as f64 / 1e6 / seconds),
            digits(peak as f64 / 1e6),
            digits(cluster::peak_memory(&cluster.controller) as f64 / 1e6),
        ]);
    }
    table.print();
    Ok(())
}

/// What all files are made of: each is these bytes, over and over again, from a place on that depends on its name.
struct Pool(Vec<u8>);

impl Pool {
    fn new() -> Self {
        let mut rng = Rng(1);
        // A length that no power of two divides.
        Self((0..(1 << 17) + 1).flat_map(|_| rng.next().to_le_bytes()).skip(1).collect())
    }

    /// Fails where the client does.
    fn store(&self, client: &mut Client, name: &str, bytes: usize) -> Result<(), Error> {
        client.store(name, bytes as u64, &mut self.content(name, bytes))
    }

    /// Fails where the client does, and where a file is not what was stored.
    fn load(&self, client: &mut Client, name: &str, bytes: usize) -> Result<(), Error> {
        let mut expected = Expected(self.content(name, bytes));
        client.load_into(name, &mut expected)?;
        if expected.0.remaining == 0 { Ok(()) } else { Err(Error::Local(io::ErrorKind::UnexpectedEof.into())) }
    }

    fn content(&self, name: &str, bytes: usize) -> Content<'_> {
        let at = name.bytes().fold(0, |sum, byte| (sum * 31 + usize::from(byte)) % self.0.len());
        Content { pool: &self.0, at, remaining: bytes }
    }
}

/// A file's content, from wherever it has been read to.
struct Content<'a> {
    pool: &'a [u8],
    at: usize,
    remaining: usize,
}

impl<'a> Content<'a> {
    /// The next bytes, at most so many; none at the end.
    fn next(&mut self, most: usize) -> &'a [u8] {
        let count = most.min(self.remaining).min(self.pool.len() - self.at);
        let bytes = &self.pool[self.at..][..count];
        self.at = (self.at + count) % self.pool.len();
        self.remaining -= count;
        bytes
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.next(buffer.len());
        buffer[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }
}

/// Takes this content and no other.
struct Expected<'a>(Content<'a>);

impl Write for Expected<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let expected = self.0.next(bytes.len());
        if !expected.is_empty() && bytes.starts_with(expected) {
            Ok(expected.len())
        } else {
            Err(io::Error::other("this is not what was stored"))
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
