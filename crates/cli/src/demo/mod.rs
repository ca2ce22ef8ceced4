//! `demo`: real files go into a store of real processes, its leader and a Dstore are killed meanwhile, and every byte comes back.
//!
//! What is told is what was seen. Both kills happen during puts, however few and small the files are: the thread whose put reaches
//! the mark waits within that put until the process is gone.

mod processes;

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use argh::FromArgs;
use depot::client::{
    CheckSummary, Cluster, ClusterOptions, ControllerRole, ControllerStatus, DstoreState, Error, Files, PutOptions,
    ReadAt, SEARCH, Source, Status,
};
use depot::namespace::change::Condition;
use depot::path::Path;
use depot::wire::Address;
use indicatif::{HumanBytes, ProgressBar};
use parking_lot::{Condvar, Mutex};
use stevedore::program::output::say;
use stevedore::program::{self, Failure, progress, signals};

use crate::cluster::{CLUSTER_FILE, ClientFile};
use crate::commands::put::{Plan, Upload, own_name};
use crate::failure::{about, of_store};
use crate::show::count;
use crate::transfer::{Summary, local};
use processes::{Processes, STARTING, folder_name};

const CONTROLLERS: usize = 3;
const DSTORES: usize = 5;
const REPLICAS: u64 = 3;

/// So long a Dstore may be away before its copies are made elsewhere: less than in a store that is to last.
const GRACE: Duration = Duration::from_secs(2);

/// How long another leader may take to be elected, on a machine that has much else to do.
const ELECTION: Duration = Duration::from_secs(60);

/// How long it may take until every file has its copies again.
const HEALING: Duration = Duration::from_secs(600);

/// So many files at a time.
const JOBS: usize = 4;

/// Store files in a store of eight processes, kill two of them meanwhile, and get every byte back.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "demo",
    note = "It starts three Controllers and five Dstores, each a process of its own, in a temporary folder and on this\nmachine only. While it stores the files, it kills the Controller that leads, and then a Dstore, with kill -9. It says what\nhappens then. It loads every file and compares it with yours, and waits until every file has all its copies again. The exit\ncode is 0 only if all of that has worked.",
    note = "Your files are only read. It needs room for four times their size, in TMPDIR or else /tmp. In the end, after Ctrl-C,\ntoo, no process is left, and the folder is removed.",
    example = "stevedore demo ~/Documents\nstevedore demo --keep *.jpg"
)]
pub struct Demo {
    /// leave the temporary folder behind, with the logs of all processes
    #[argh(switch)]
    pub keep: bool,
    /// files, and folders with all that is in them
    #[argh(positional, arg_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

impl Demo {
    /// Does it.
    pub fn run(&self) -> Result<(), Failure> {
        let _log = program::start_log("error")?;
        let plan = gather(&self.paths)?;
        // A copy each, and those of the Dstore that is killed once more.
        let processes = Arc::new(Processes::new(plan.bytes.saturating_mul(REPLICAS + 1), self.keep)?);
        let end = AtTheEnd(&processes);
        let of_signals = Arc::clone(&processes);
        signals::on_first(signals::GRACE, move |signal| {
            let _ = of_signals.end(); // there is nothing that could still be said
            signals::die_of(signal);
        })?;
        let outcome = play(&processes, &plan);
        if outcome.is_err() && processes.is_over() {
            // The processes were killed because of a signal, of which this one dies next.
            thread::sleep(signals::GRACE);
        }
        drop(end);
        outcome?;
        processes.end()?;
        let folder = processes.folder().display();
        say(format_args!(
            "All processes have ended, and {folder} {}.\nIt held: the leader and a Dstore were lost, and no byte was.",
            if self.keep { "stays, with their logs" } else { "is removed" }
        ))
    }
}

/// Ends the processes also where this one panics.
struct AtTheEnd<'a>(&'a Processes);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        let _ = self.0.end(); // asked again where it is to be said
    }
}

/// The files to be stored: below a directory for each word of the command line.
fn gather(paths: &[PathBuf]) -> Result<Plan, Failure> {
    if paths.is_empty() {
        return Err(Failure::usage("demo of which files? As in: stevedore demo ~/Documents"));
    }
    let (mut plan, mut left_out) = (Plan::default(), Summary::default());
    for (number, path) in (1..).zip(paths) {
        let metadata = fs::metadata(path).map_err(local("read", path))?;
        let to = format!("/{number}/{}", own_name(path)?);
        let to: Path = to.parse().map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        if metadata.is_dir() {
            plan.add_tree(path, &to, metadata, &mut left_out);
        } else if metadata.is_file() {
            plan.add_file(path.clone(), to, &metadata);
        } else {
            left_out.leave_out(path, "a special file");
        }
    }
    match left_out.code {
        Some(code) => Err(Failure { message: String::new(), code }), // told already
        None if plan.files.is_empty() => Err(Failure::new("there is no file to store")),
        None => Ok(plan),
    }
}

/// All of it but the end.
fn play(processes: &Processes, plan: &Plan) -> Result<(), Failure> {
    say(format_args!(
        "Starting {CONTROLLERS} Controllers and {DSTORES} Dstores, each a process of its own, in {}",
        processes.folder().display()
    ))?;
    let store = Store::start(processes)?;
    let leader = store.leader().ok_or_else(|| Failure::new("no Controller leads"))?;
    say(format_args!(
        "All are there, and {leader} leads. Each Controller keeps all metadata; each file goes to {REPLICAS} of the Dstores."
    ))?;
    let lost = Storing::new(&store, processes, plan).run()?;
    load_all(&store, plan)?;
    say(format_args!(
        "Loaded {} with {} and {} still gone: every byte is the same.",
        count(plan.files.len() as u64, "file", "files"),
        lost.leader,
        lost.dstore
    ))?;
    wait_until_healed(&store, processes, plan, &lost.dstore)
}

/// The store of the demonstration.
struct Store {
    cluster: Cluster,
    /// Where the Controllers listen, in the order in which they were started.
    addresses: Vec<Address>,
}

impl Store {
    /// Starts all its processes. The first Controller makes the store, and the others are added.
    fn start(processes: &Processes) -> Result<Self, Failure> {
        let home = |name: &str| processes.folder().join(folder_name(name));
        let start = |name: &str, role: &str, more: &[&str]| {
            let data = home(name).display().to_string();
            processes.start(name, &[&[role, "--data", &data, "--port", "0"], more].concat())
        };
        let (grace, replicas) = (GRACE.as_secs().to_string(), REPLICAS.to_string());
        let names: Vec<String> = (1..=CONTROLLERS).map(controller).collect();
        start(&names[0], "controller", &["--name", "demo", "--grace", &grace, "--replicas", &replicas])?;
        let mut addresses = vec![processes.address_of(&names[0])?];
        let (first, home) = (addresses[0].to_string(), home(&names[0]));
        let cluster_file = home.join(CLUSTER_FILE).display().to_string();
        for name in &names[1..] {
            start(name, "controller", &["--join", "--grace", &grace, "--cluster", &cluster_file])?;
        }
        for name in (1..=DSTORES).map(dstore) {
            // The status knows it by its host; and copies go to different ones.
            let host = folder_name(&name);
            start(&name, "dstore", &["--host", &host, "--controllers", &first, "--cluster", &cluster_file])?;
        }
        for name in &names[1..] {
            addresses.push(processes.address_of(name)?);
        }
        let file = ClientFile::read(&home)?;
        let file = file.ok_or_else(|| Failure::new("the first Controller has written no client.toml"))?;
        let ClientFile { cluster, client, key, .. } = file;
        let controllers = addresses.clone();
        let cluster = Cluster::new(ClusterOptions { controllers, cluster, client, key, search: SEARCH });
        for address in &addresses[1..] {
            cluster.add_controller(address).map_err(of_store)?;
        }
        let store = Self { cluster, addresses };
        processes.wait_until(STARTING, "all servers are there", || {
            let votes = |one: &&ControllerStatus| matches!(one.role, ControllerRole::Leader | ControllerRole::Follower);
            let are_there = |status: Status| {
                status.controllers.iter().filter(votes).count() == CONTROLLERS
                    && status.dstores.iter().filter(|dstore| dstore.state == DstoreState::Present).count() == DSTORES
            };
            store.status().is_some_and(are_there)
        })?;
        Ok(store)
    }

    /// What it says of itself; `None` while no Controller answers.
    fn status(&self) -> Option<Status> {
        self.cluster.status().ok()
    }

    /// The Controller that leads, if one does.
    fn leader(&self) -> Option<String> {
        let status = self.status()?;
        let leader = status.controllers.iter().find(|one| one.role == ControllerRole::Leader)?;
        let at = self.addresses.iter().position(|address| address.to_string() == leader.address)?;
        Some(controller(at + 1))
    }

    /// The Dstore that has most objects.
    fn fullest_dstore(&self) -> Option<String> {
        let status = self.status()?;
        let fullest = status.dstores.iter().max_by_key(|dstore| dstore.objects)?;
        (1..=DSTORES).map(dstore).find(|name| folder_name(name) == fullest.host)
    }
}

fn controller(number: usize) -> String {
    format!("Controller {number}")
}

fn dstore(number: usize) -> String {
    format!("Dstore {number}")
}

/// Which processes were killed.
struct Lost {
    leader: String,
    dstore: String,
}

/// The files are being stored, and processes are killed meanwhile.
struct Storing<'a> {
    store: &'a Store,
    processes: &'a Processes,
    plan: &'a Plan,
    bar: ProgressBar,
    kills: Kills,
    longest: Mutex<Duration>,
}

impl<'a> Storing<'a> {
    fn new(store: &'a Store, processes: &'a Processes, plan: &'a Plan) -> Self {
        let bar = progress::of_files("storing", plan.files.len());
        let kills = Kills::at_thirds_of(plan.bytes + plan.files.len() as u64);
        Self { store, processes, plan, bar, kills, longest: Mutex::default() }
    }

    fn run(self) -> Result<Lost, Failure> {
        let begun = Instant::now();
        let files = &self.plan.files;
        let (stored, killed) = thread::scope(|scope| {
            let killing = scope.spawn(|| {
                let killed = self.kill_two();
                self.kills.give_up();
                killed
            });
            let stored = for_each(files, |upload| self.put(upload));
            self.kills.give_up();
            (stored, killing.join().expect("it panics as little as this thread"))
        });
        self.bar.finish_and_clear();
        let lost = killed?;
        stored?;
        say(format_args!(
            "Stored {}, {}, in {:.1} s. No put has failed; the longest took {:.1} s.",
            count(files.len() as u64, "file", "files"),
            HumanBytes(self.plan.bytes),
            begun.elapsed().as_secs_f64(),
            self.longest.lock().as_secs_f64()
        ))?;
        lost.ok_or_else(|| Failure::new("the puts have ended before the kills"))
    }

    fn put(&self, upload: &Upload) -> Result<(), Failure> {
        let Upload { from, to, .. } = upload;
        let file = File::open(from).map_err(local("read", from))?;
        let source = Watched { file: &file, kills: &self.kills, counted: AtomicU64::new(0) };
        let options = PutOptions { parents: true, ..PutOptions::default() };
        let begun = Instant::now();
        self.store.cluster.put(to, Source::File(&source), &options).map_err(about(from.display()))?;
        let mut longest = self.longest.lock();
        *longest = longest.max(begun.elapsed());
        self.bar.inc(1);
        Ok(())
    }

    /// Kills the leader and a Dstore when it is time. `None` if the puts end before.
    fn kill_two(&self) -> Result<Option<Lost>, Failure> {
        let none = |what: &str| Failure::new(format!("no {what} is to be found that could be killed"));
        if !self.kills.comes_due(0) {
            return Ok(None);
        }
        let leader = self.store.leader().ok_or_else(|| none("leader"))?;
        let process = self.processes.kill(&leader)?;
        let killed = Instant::now();
        self.say(format_args!(
            "Killed {leader} (process {process}) with kill -9 during the puts. It led: until another one does, puts wait."
        ))?;
        self.kills.is_done();
        let mut next = None;
        self.processes.wait_until(ELECTION, "another Controller leads", || {
            next = self.store.leader().filter(|next| *next != leader);
            next.is_some()
        })?;
        self.say(format_args!(
            "{} leads, {:.1} s after that. The puts go on by themselves.",
            next.unwrap_or_default(),
            killed.elapsed().as_secs_f64()
        ))?;
        if !self.kills.comes_due(1) {
            return Ok(None);
        }
        let dstore = self.store.fullest_dstore().ok_or_else(|| none("Dstore"))?;
        let process = self.processes.kill(&dstore)?;
        self.say(format_args!(
            "Killed {dstore} (process {process}) with kill -9 during the puts. It has most copies; new ones go to the other Dstores."
        ))?;
        self.kills.is_done();
        Ok(Some(Lost { leader, dstore }))
    }

    fn say(&self, text: std::fmt::Arguments<'_>) -> Result<(), Failure> {
        self.bar.suspend(|| say(text))
    }
}

/// When processes are to be killed: when so much of the files was read. A put that makes a kill due waits until it is done, so each
/// happens during a put.
struct Kills {
    due_at: [u64; 2],
    state: Mutex<KillState>,
    changed: Condvar,
}

#[derive(Default)]
struct KillState {
    read: u64,
    done: usize,
    /// No more will come due, or none will be done.
    is_over: bool,
}

impl Kills {
    fn at_thirds_of(all: u64) -> Self {
        let due_at = [all.div_ceil(3), all - all / 3];
        Self { due_at, state: Mutex::default(), changed: Condvar::new() }
    }

    fn due(&self, read: u64) -> usize {
        self.due_at.iter().filter(|at| read >= **at).count()
    }

    /// So much more was read. Waits until all kills that are due are done.
    fn pass(&self, amount: u64) {
        let mut state = self.state.lock();
        state.read += amount;
        self.changed.notify_all();
        while state.done < self.due(state.read) && !state.is_over {
            self.changed.wait(&mut state);
        }
    }

    /// Waits until the kill of this number is due; false if it never is.
    fn comes_due(&self, number: usize) -> bool {
        let mut state = self.state.lock();
        while self.due(state.read) <= number && !state.is_over {
            self.changed.wait(&mut state);
        }
        self.due(state.read) > number
    }

    fn is_done(&self) {
        self.state.lock().done += 1;
        self.changed.notify_all();
    }

    fn give_up(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_all();
    }
}

/// A file that is being put. Its first byte counts as two: a file without bytes is read, too.
struct Watched<'a> {
    file: &'a File,
    kills: &'a Kills,
    counted: AtomicU64,
}

impl Watched<'_> {
    fn reach(&self, place: u64) {
        let before = self.counted.fetch_max(place, Ordering::Relaxed);
        if place > before {
            self.kills.pass(place - before);
        }
    }
}

impl ReadAt for Watched<'_> {
    fn size(&self) -> io::Result<u64> {
        self.reach(1);
        ReadAt::size(self.file)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = ReadAt::read_at(self.file, buffer, offset)?;
        self.reach(1 + offset + read as u64);
        Ok(read)
    }
}

/// Does `work` for each, some at a time, until one fails: then with that failure.
fn for_each(files: &[Upload], work: impl Fn(&Upload) -> Result<(), Failure> + Sync) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let one_after_another = || {
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.lock().is_some() {
                return;
            }
            if let Err(failure) = work(file) {
                failed.lock().get_or_insert(failure);
            }
        }
    };
    thread::scope(|scope| (0..JOBS.min(files.len())).for_each(|_| drop(scope.spawn(one_after_another))));
    failed.into_inner().map_or(Ok(()), Err)
}

/// Loads every file, and compares it with the original as it comes.
fn load_all(store: &Store, plan: &Plan) -> Result<(), Failure> {
    let bar = progress::of_files("comparing", plan.files.len());
    let compared = for_each(&plan.files, |Upload { from, to, .. }| {
        let original = File::open(from).map_err(local("read", from))?;
        let mut comparison = Comparison { original: BufReader::new(original), at: 0 };
        let loaded = store.cluster.get(to, Condition::Any).and_then(|mut file| {
            file.copy_to(0..u64::MAX, &mut comparison)?;
            comparison.expect_end().map_err(Error::Sink)
        });
        loaded.map_err(|error| match error {
            Error::Sink(error) => Failure::new(format!("{}: {error}", from.display())),
            error => about(from.display())(error),
        })?;
        bar.inc(1);
        Ok(())
    });
    bar.finish_and_clear();
    compared
}

/// Takes content, and compares it with the original as it comes.
struct Comparison<R> {
    original: R,
    /// So many bytes were the same.
    at: u64,
}

impl<R: Read> Comparison<R> {
    /// There is no more of the original than has come.
    fn expect_end(&mut self) -> io::Result<()> {
        match self.original.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(self.differs()),
        }
    }

    fn differs(&self) -> io::Error {
        let at = self.at;
        io::Error::other(format!(
            "what came back differs from it, from byte {at} on. Was it changed while the demo ran?"
        ))
    }
}

impl<R: Read> Write for Comparison<R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut expected = Vec::with_capacity(bytes.len());
        self.original.by_ref().take(bytes.len() as u64).read_to_end(&mut expected)?;
        let same = bytes.iter().zip(&expected).take_while(|(one, other)| one == other).count();
        self.at += same as u64;
        if same == bytes.len() { Ok(same) } else { Err(self.differs()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until the Dstores that are there have all copies that there should be, and have read and verified each.
fn wait_until_healed(store: &Store, processes: &Processes, plan: &Plan, lost: &str) -> Result<(), Failure> {
    let begun = Instant::now();
    let check = |deep| store.cluster.check(&Path::root(), deep, &mut |_| ());
    let CheckSummary { objects, faulty, .. } = check(false).map_err(of_store)?;
    say(format_args!(
        "Of {}, {faulty} lack a copy that {lost} had. Such copies are made anew on other Dstores: here within seconds, in a store of \
         your own when a Dstore has been away for a minute.",
        count(objects, "object", "objects")
    ))?;
    let mut copies = 0;
    processes.wait_until(HEALING, "every file has all its copies", || {
        let is_whole = |deep| {
            let summary = check(deep).ok()?;
            (summary.faulty == 0 && summary.files == plan.files.len() as u64).then_some(summary.copies)
        };
        // The second reads all bytes of all copies.
        let verified = is_whole(false).and_then(|_| is_whole(true));
        copies = verified.unwrap_or_default();
        verified.is_some()
    })?;
    say(format_args!(
        "Healed after {:.1} s: there are {} on the Dstores that are left, {REPLICAS} of each object, and each was read and verified.",
        begun.elapsed().as_secs_f64(),
        count(copies, "copy", "copies")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(original: &[u8], pieces: &[&[u8]]) -> Result<(), String> {
        let mut comparison = Comparison { original, at: 0 };
        let compared = pieces.iter().try_for_each(|piece| comparison.write_all(piece));
        compared.and_then(|()| comparison.expect_end()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_comparison_says_where_the_first_difference_is() {
        assert_eq!(compare(b"", &[]), Ok(()));
        assert_eq!(compare(b"stowed", &[b"sto", b"wed"]), Ok(()));
        for (original, place) in [("stoned", 3), ("stow", 4), ("stowed more", 6), ("", 0)] {
            let said = compare(original.as_bytes(), &[b"sto", b"wed"]).unwrap_err();
            assert!(said.contains(&format!("from byte {place} on")), "{original}: {said}");
        }
    }

    #[test]
    fn a_put_waits_for_the_kill_that_it_makes_due() {
        for all in [1, 2, 3, 100] {
            let kills = Kills::at_thirds_of(all);
            let done = Mutex::new(Vec::new());
            thread::scope(|scope| {
                scope.spawn(|| {
                    for number in 0..2 {
                        assert!(kills.comes_due(number));
                        done.lock().push(number);
                        kills.is_done();
                    }
                });
                (0..all).for_each(|_| kills.pass(1));
            });
            assert_eq!(*done.lock(), [0, 1], "{all}");
        }
        let kills = Kills::at_thirds_of(3);
        kills.give_up();
        assert!(!kills.comes_due(0), "the puts have ended before");
        kills.pass(3); // does not wait
    }
}
