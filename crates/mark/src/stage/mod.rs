//! Where a check plays: fresh processes of the submission, all other parties played by `mark`, and all of it recorded.
//!
//! A check asks its [`Stage`] for one of three scenes:
//! - [`ControllerScene`](controller_scene::ControllerScene): a Controller under test, scripted Dstores and clients;
//! - [`DstoreScene`](dstore_scene::DstoreScene): a Dstore under test, a scripted Controller, clients and Dstores;
//! - [`SystemScene`](system_scene::SystemScene): a Controller and Dstores under test, and clients.

pub mod client;
pub mod controller_scene;
pub mod dstore_scene;
pub mod failure;
pub mod ports;
pub mod precedents;
pub mod process;
pub mod recorder;
pub mod stall;
pub mod submission;
pub mod system_scene;
pub mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::Signal;

use failure::Failure;
use ports::Port;
use precedents::Precedents;
use process::Process;
use recorder::Recorder;
use submission::{Submission, Values};

/// A timeout for the submission that no check waits for. A good program may still wait the whole of it, as for a Dstore that has
/// gone: patience is always longer than two of them.
pub const NO_TIMEOUT: Duration = Duration::from_secs(3);

/// A timeout for transfers of many megabytes.
pub const LARGE: Duration = Duration::from_secs(60);

/// The least patience that leaves time for a program that waits its timeout twice.
const LEAST_PATIENCE: Duration = Duration::from_secs(7);

/// How long a scripted peer takes for each answer. A real one is never quicker; a program may be one statement short of ready
/// when it has spoken.
pub const REACTION: Duration = Duration::from_millis(10);

/// A timeout for the submission that the check wants to strike.
pub const SHORT: Duration = Duration::from_millis(1_000);

/// How long silence is listened to, where nothing else can show that nothing comes.
pub const QUIET: Duration = Duration::from_millis(300);

/// No periodic rebalance, as the official validation has it. (spec 5.3)
pub const NO_PERIOD: u64 = 10_000;

/// A period in seconds that is short enough to be waited for. Some Controllers rebalance when a Dstore joins, others only after their
/// period: what a rebalance brings about is judged with this one, which suits both.
pub const SOON: u64 = 2;

/// How long it may take until a rebalance has done its work, with waits for several timeouts.
pub const LONG: Duration = Duration::from_secs(40);

/// How long a program may take to start; less with little patience.
pub const START: Duration = Duration::from_secs(30);

/// What all processes of a run together may take of the disk.
const DISK_LIMIT: u64 = 2 << 30;

/// What all processes of a run together may take of memory.
const MEMORY_LIMIT: u64 = 6 << 30;

/// How many processes a run may have.
const PROCESS_LIMIT: usize = 200;

/// With what a submission's programs are started. (spec 5)
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// R.
    pub replicas: usize,
    /// N.
    pub dstores: usize,
    /// Of the Controller and the Dstores.
    pub timeout: Duration,
    /// In seconds.
    pub period: u64,
}

impl Setup {
    /// R and N; nothing waits for the timeout, and no period ends.
    pub fn new(replicas: usize, dstores: usize) -> Self {
        Self { replicas, dstores, timeout: NO_TIMEOUT, period: NO_PERIOD }
    }

    /// With a timeout.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// With a period in seconds.
    pub fn period(self, period: u64) -> Self {
        Self { period, ..self }
    }
}

/// The check of whether a Controller starts.
pub const CONTROLLER_STARTS: &str = "controller/join/listens-on-its-port";

/// The check of whether the Controller serves once enough Dstores have joined.
pub const SERVES: &str = "controller/join/enough-dstores";

/// The check of whether a Dstore starts and joins.
pub const DSTORE_STARTS: &str = "dstore/start/joins-first";

/// The check of whether a Dstore that has joined listens.
pub const DSTORE_LISTENS: &str = "dstore/start/listens";

/// One check's world, taken down with all that is in it when dropped.
pub struct Stage {
    submission: Arc<Submission>,
    folder: PathBuf,
    keeps_folder: bool,
    run: String,
    /// What has been said so far.
    pub recorder: Recorder,
    /// For everything random in the check.
    pub seed: u64,
    /// How long to wait for an answer that is due.
    pub patience: Duration,
    /// How long to wait for a program to start.
    start_patience: Duration,
    /// The shortest timeout that a program has been told: a stall that is long beside it may have made it strike.
    pub shortest_timeout: Duration,
    cast: Arc<Cast>,
    ports: Vec<Port>,
}

/// The processes of a run, shared with the guard that watches over them.
#[derive(Default)]
struct Cast {
    processes: Mutex<Vec<(String, SharedProcess)>>,
    is_over: AtomicBool,
    broken_limit: Mutex<Option<String>>,
}

/// A process that the stage and a scene both hold.
pub type SharedProcess = Arc<Mutex<Process>>;

static RUNS: AtomicU64 = AtomicU64::new(0);

impl Stage {
    /// Below `folder`, which is made.
    pub fn new(
        submission: &Arc<Submission>,
        folder: PathBuf,
        keeps_folder: bool,
        seed: u64,
        patience: Duration,
        precedents: &Arc<Precedents>,
    ) -> Self {
        let _ = fs::create_dir_all(&folder);
        link_home(&submission.home, &folder);
        let run = format!("{}.{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let cast = Arc::new(Cast::default());
        guard(&cast, &run, &folder);
        Self {
            submission: Arc::clone(submission),
            folder,
            keeps_folder,
            run,
            recorder: Recorder::start(Arc::clone(precedents)),
            seed,
            patience: patience.max(LEAST_PATIENCE),
            start_patience: START.min(patience * 4),
            shortest_timeout: NO_TIMEOUT,
            cast,
            ports: Vec::new(),
        }
    }

    /// A port that no program listens on.
    fn port(&mut self) -> u16 {
        self.ports.push(Port::any());
        self.ports.last().map_or(0, |port| port.number)
    }

    fn start(&self, name: &str, words: &[String], values: Values) -> Result<SharedProcess, Failure> {
        self.recorder.starts(name, values);
        let process = Arc::new(Mutex::new(Process::start(words, &self.folder, &self.run)?));
        self.cast.processes.lock().push((name.into(), Arc::clone(&process)));
        Ok(process)
    }

    /// Starts the Controller under test; it listens when this returns.
    fn start_controller(&mut self, setup: Setup) -> Result<(SharedProcess, u16), Failure> {
        let port = self.port();
        self.shortest_timeout = self.shortest_timeout.min(setup.timeout);
        let values = [
            ("{cport}", port.to_string()),
            ("{r}", setup.replicas.to_string()),
            ("{timeout}", setup.timeout.as_millis().to_string()),
            ("{period}", self.submission.period(setup.period).to_string()),
        ];
        let words = self.submission.controller.fill(&values, &self.submission.home);
        let process = self.start("controller", &words, &values)?;
        self.wait_to_listen("controller", &process, port).map_err(|failure| failure.judged_by(CONTROLLER_STARTS))?;
        Ok((process, port))
    }

    /// Starts a Dstore under test, with a folder made beforehand. (spec 5.3)
    fn start_dstore(
        &mut self,
        port: u16,
        controller_port: u16,
        timeout: Duration,
        folder: &str,
    ) -> Result<SharedProcess, Failure> {
        let _ = fs::create_dir_all(self.folder.join(folder));
        self.shortest_timeout = self.shortest_timeout.min(timeout);
        let values = [
            ("{port}", port.to_string()),
            ("{cport}", controller_port.to_string()),
            ("{timeout}", timeout.as_millis().to_string()),
            ("{folder}", folder.to_owned()),
        ];
        let words = self.submission.dstore.fill(&values, &self.submission.home);
        self.start(&dstore_name(port), &words, &values)
    }

    fn wait_to_listen(&self, name: &str, process: &SharedProcess, port: u16) -> Result<(), Failure> {
        let listens = wait_until(self.start_patience, || {
            let end = process.lock().end();
            match end {
                Some(end) => Some(Err(end)),
                None => ports::is_listened_to(port).then_some(Ok(())),
            }
        });
        let came = match listens {
            Some(Ok(())) => return Ok(()),
            Some(Err(end)) => format!("it has ended ({end}); it printed: {}", last_lines(&process.lock().printed())),
            None => format!("it does not, after {} s", self.start_patience.as_secs()),
        };
        self.recorder.missing(name, name, "does not listen");
        Err(Failure::new(format!("the {name} starts and listens on port {port}"), came).marked())
    }

    /// What each program has printed last, for the report.
    pub fn printed(&self) -> Vec<(String, String)> {
        let processes = self.cast.processes.lock();
        processes.iter().map(|(name, process)| (name.clone(), process.lock().printed())).collect()
    }

    /// Ends everything. Returns what was not as usual: waits cut short, a limit that was broken, processes that had hidden.
    pub fn take_down(&self) -> Vec<String> {
        self.cast.is_over.store(true, Ordering::Relaxed);
        let sessions = self.cast.kill_all();
        let mut remarks = self.recorder.remarks();
        remarks.extend(process::sweep(&self.run, &sessions));
        remarks.extend(self.cast.broken_limit.lock().take());
        if !self.keeps_folder {
            let _ = fs::remove_dir_all(&self.folder);
        }
        remarks
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.take_down();
    }
}

impl Cast {
    /// Kills the processes; returns their sessions.
    fn kill_all(&self) -> Vec<u32> {
        let processes = self.processes.lock();
        let kill = |(_, process): &(String, SharedProcess)| {
            let mut process = process.lock();
            process.kill();
            process.id()
        };
        processes.iter().map(kill).collect()
    }
}

/// Watches what `setrlimit` cannot bound: a run's processes taken together. Ends with the check.
fn guard(cast: &Arc<Cast>, run: &str, folder: &Path) {
    let (cast, run, folder) = (Arc::clone(cast), run.to_owned(), folder.to_owned());
    thread::spawn(move || {
        while !cast.is_over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_secs(1));
            let sessions: Vec<u32> = cast.processes.lock().iter().map(|(_, process)| process.lock().id()).collect();
            let (processes, memory) = process::usage(&sessions);
            let broken = if processes > PROCESS_LIMIT {
                format!("it had {processes} processes, more than {PROCESS_LIMIT}, and was killed")
            } else if memory > MEMORY_LIMIT {
                format!("it took {} MB of memory, and was killed", memory >> 20)
            } else if disk_use(&folder) > DISK_LIMIT {
                format!("it filled more than {} MB of the disk, and was killed", DISK_LIMIT >> 20)
            } else {
                continue;
            };
            cast.broken_limit.lock().get_or_insert(broken);
            let sessions = cast.kill_all();
            process::sweep(&run, &sessions);
        }
    });
}

/// Of regular files below a folder; links are not followed.
fn disk_use(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_use(&entry.path()),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

/// The files in a folder and below it: names and contents.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut contents = Vec::new();
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => contents.extend(self::contents(&entry.path())),
            Ok(kind) if kind.is_file() => {
                let name = entry.file_name().to_string_lossy().into_owned();
                contents.push((name, fs::read(entry.path()).unwrap_or_default()));
            }
            _ => {}
        }
    }
    contents
}

/// Links to everything in the folder where `mark` was started, so that `java -cp sub ...` finds its classes while whatever
/// the program writes beside them lands in the run's own folder.
pub fn link_home(home: &Path, folder: &Path) {
    let Ok(entries) = fs::read_dir(home) else { return };
    // A Dstore empties its folder: that must never be one of theirs.
    for entry in entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().starts_with(FOLDER)) {
        let _ = std::os::unix::fs::symlink(entry.path(), folder.join(entry.file_name()));
    }
}

/// What a rebalance has to do, as it is called where it is waited for: each may be beyond a program by itself.
pub fn task(misses_copies: bool, is_uneven: bool) -> &'static str {
    match (misses_copies, is_uneven) {
        (true, _) => "missing copies to be made by a rebalance",
        (false, true) => "files to be spread by a rebalance",
        (false, false) => "surplus copies to be removed by a rebalance",
    }
}

/// Looks again and again, until there is something or `patience` is over.
pub fn wait_until<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until what is counted has not changed for a while, or the official validation would no longer wait.
pub fn wait_until_calm(count: impl Fn() -> usize) {
    let (mut last, mut since) = (count(), Instant::now());
    wait_until(SETTLING, || {
        let now = count();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() >= CALM).then_some(())
    });
}

/// How long the official validation lets Dstores join before it begins. (spec 5.3)
pub const SETTLING: Duration = Duration::from_millis(1_500);

/// A rebalance in which nothing is said for so long is over.
const CALM: Duration = Duration::from_millis(150);

/// Dstores' folders are called this and their port, as in the official validation. (spec 5.3)
const FOLDER: &str = "file_folder_";

/// What a Dstore is called in transcripts.
pub fn dstore_name(port: u16) -> String {
    format!("dstore {port}")
}

fn last_lines(printed: &str) -> String {
    let lines: Vec<&str> = printed.lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

/// Stops a process, as one that hangs, or lets it go on.
pub fn freeze(process: &SharedProcess, is_frozen: bool) {
    process.lock().signal(if is_frozen { Signal::STOP } else { Signal::CONT });
}

/// Content that looks like nothing else: every byte value, and no two files alike.
pub fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Where two contents begin to differ, in words.
pub fn difference(expected: &[u8], came: &[u8]) -> Option<String> {
    if expected == came {
        return None;
    }
    let at = expected.iter().zip(came).position(|(a, b)| a != b).unwrap_or(expected.len().min(came.len()));
    Some(format!("{} bytes that differ from byte {at} on", came.len()))
}
