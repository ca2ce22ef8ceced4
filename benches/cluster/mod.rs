//! A cluster of processes, the real programs or the floor's, what each of them uses, and clients that keep it busy.

#![allow(dead_code, reason = "no bench uses all of it")]

pub mod rebalances;

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use kit::{Program, TempFolder};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use stevedore::client::Client;

use crate::common::Clock;
use crate::floor;
use rebalances::Rebalances;

/// How long clients and servers wait for each other: longer than any bench makes them.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// How our own programs are started.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// Where the Dstores' folders are made.
    pub parent: &'a Path,
    pub replicas: usize,
    pub dstores: usize,
    pub timeout: Duration,
    /// From one rebalance to the next.
    pub period: Duration,
    pub log: Log,
}

/// What our own programs log, and where.
#[derive(Clone, Copy, PartialEq)]
pub enum Log {
    /// Warnings, to this process's stderr.
    Quiet,
    /// The Controller's rebalances, which are followed; that costs it a little.
    Rebalances,
    /// Every message, as they do it without `RUST_LOG`, to a file beside the Dstores' folders.
    Messages,
}

impl<'a> Setup<'a> {
    /// With a long timeout, and no rebalance except after a join.
    pub fn new(parent: &'a Path, replicas: usize, dstores: usize) -> Self {
        Self { parent, replicas, dstores, timeout: TIMEOUT, period: Duration::ZERO, log: Log::Quiet }
    }
}

/// A Controller and its Dstores, each a process. Dropped, even by a panic, it leaves nothing behind.
pub struct Cluster {
    // Dropped in this order: the folder once no process uses it any more.
    pub dstores: Vec<Program>,
    pub controller: Program,
    /// Where each of `dstores` keeps its files.
    pub folders: Vec<PathBuf>,
    /// What the Controller's log says, if it is followed.
    pub rebalances: Option<Rebalances>,
    timeout: Duration,
    log: Log,
    started: usize,
    folder: TempFolder,
}

impl Cluster {
    /// Our own programs, as they are with no options but a quiet log, with folders in `parent`.
    pub fn start(parent: &Path, replicas: usize, dstores: usize) -> io::Result<Self> {
        Self::start_with(&Setup::new(parent, replicas, dstores))
    }

    /// The same, in another way than usual.
    pub fn start_with(setup: &Setup<'_>) -> io::Result<Self> {
        let numbers = [setup.replicas, setup.timeout.as_millis() as usize, setup.period.as_secs() as usize];
        let arguments: Vec<_> = [0].into_iter().chain(numbers).map(|number| number.to_string()).collect();
        let folder = TempFolder::below(setup.parent);
        let mut command = command(env!("CARGO_BIN_EXE_controller"), &arguments);
        let (controller, rebalances) = match setup.log {
            Log::Quiet => (listening(command), None),
            Log::Messages => {
                log_messages(&mut command, &folder.path().join("controller.log"))?;
                (listening(command), None)
            }
            Log::Rebalances => {
                command.env("RUST_LOG", rebalances::LOG);
                let mut controller = Program::spawn(command);
                controller.wait_until_it_listens();
                let rebalances = Rebalances::follow(&mut controller);
                (controller, Some(rebalances))
            }
        };
        let mut cluster = Self {
            dstores: Vec::new(),
            controller,
            folders: Vec::new(),
            rebalances,
            timeout: setup.timeout,
            log: setup.log,
            started: 0,
            folder,
        };
        for _ in 0..setup.dstores {
            cluster.add_dstore()?;
        }
        cluster.wait_until_all_have_joined();
        Ok(cluster)
    }

    /// Starts another Dstore, and does not wait until it has joined.
    pub fn add_dstore(&mut self) -> io::Result<()> {
        let folder = self.new_folder();
        let numbers = [0, self.controller.port.into(), self.timeout.as_millis()].map(|number| number.to_string());
        let arguments: Vec<_> = numbers.into_iter().chain([folder.to_string_lossy().into_owned()]).collect();
        let mut command = command(env!("CARGO_BIN_EXE_dstore"), &arguments);
        if self.log == Log::Messages {
            log_messages(&mut command, &folder.with_extension("log"))?;
        }
        self.dstores.push(listening(command));
        self.folders.push(folder);
        Ok(())
    }

    /// Kills a Dstore; its files are gone with it.
    pub fn kill_dstore(&mut self, at: usize) -> io::Result<()> {
        drop(self.dstores.remove(at));
        fs::remove_dir_all(self.folders.remove(at))
    }

    /// The floor's programs, for files of `size` bytes and a LIST of `list_bytes`.
    pub fn floor(parent: &Path, replicas: usize, dstores: usize, size: usize, list_bytes: usize) -> io::Result<Self> {
        let program = env::current_exe()?;
        let arguments = floor::controller_arguments(dstores, replicas, size, list_bytes);
        let controller = listening(command(&program, &arguments));
        let mut cluster = Self {
            dstores: Vec::new(),
            controller,
            folders: Vec::new(),
            rebalances: None,
            timeout: TIMEOUT,
            log: Log::Quiet,
            started: 0,
            folder: TempFolder::below(parent),
        };
        for _ in 0..dstores {
            let folder = cluster.new_folder();
            let arguments = floor::dstore_arguments(cluster.controller.port, &folder.to_string_lossy());
            cluster.dstores.push(listening(command(&program, &arguments)));
            cluster.folders.push(folder);
        }
        Ok(cluster)
    }

    pub fn client(&self) -> Client {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.controller.port));
        Client::connect(address, self.timeout.max(TIMEOUT)).expect("the Controller accepts")
    }

    pub fn floor_client(&self, style: floor::Style) -> floor::Client {
        floor::Client::connect(style, self.controller.port).expect("the Controller accepts")
    }

    pub fn files_in_folders(&self) -> usize {
        self.folders.iter().map(|folder| count_files(folder)).sum()
    }

    /// The processor time in seconds of Controller and Dstores so far.
    pub fn processor_time(&self) -> [f64; 2] {
        [processor_time(&self.controller), self.dstores.iter().map(processor_time).sum()]
    }

    /// Stores files until every Dstore has got one, as each is chosen when it has fewest.
    fn wait_until_all_have_joined(&self) {
        let mut client = self.client();
        let mut probes = Vec::new();
        while self.folders.iter().any(|folder| count_files(folder) == 0) {
            let probe = format!("probe-{}", probes.len());
            if client.store_bytes(&probe, b"").is_ok() {
                probes.push(probe);
            }
        }
        probes.iter().for_each(|probe| client.remove(probe).expect("removed"));
    }

    fn new_folder(&mut self) -> PathBuf {
        self.started += 1;
        self.folder.path().join(format!("dstore-{}", self.started))
    }
}

/// What starts a server with a quiet log.
fn command(program: impl AsRef<OsStr>, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env("RUST_LOG", "warn").stdin(Stdio::null());
    command
}

/// Has a server log what it logs unless it is told otherwise, to this file.
fn log_messages(command: &mut Command, file: &Path) -> io::Result<()> {
    command.env_remove("RUST_LOG").stderr(File::create(file)?);
    Ok(())
}

/// Starts a server, and waits until it listens.
fn listening(command: Command) -> Program {
    let mut program = Program::spawn_with_own_stderr(command);
    program.wait_until_it_listens();
    program
}

/// In seconds, of all its threads, those that have ended included.
pub fn processor_time(program: &Program) -> f64 {
    let clock = clock_getcpuclockid(Pid::from_raw(program.child.id() as i32)).expect("it runs");
    Duration::from(clock.now().expect("it runs")).as_secs_f64()
}

/// Bytes of memory that it occupies now.
pub fn memory(program: &Program) -> usize {
    program.status("VmRSS:").expect("Linux says") << 10
}

/// The most bytes of memory that it has occupied so far.
pub fn peak_memory(program: &Program) -> usize {
    program.status("VmHWM:").expect("Linux says") << 10
}

/// This process's own processor time in seconds.
pub fn own_processor_time() -> f64 {
    Duration::from(ClockId::CLOCK_PROCESS_CPUTIME_ID.now().expect("every process has one")).as_secs_f64()
}

pub fn count_files(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// Has every client do its share of `count` operations, all clients at the same time. Takes down the time for each
/// operation with many at once, the time of the whole divided by their number, and what they cost each program.
pub fn time_together<C: Send>(
    clock: &mut Clock,
    name: &str,
    count: usize,
    cluster: &Cluster,
    clients: &mut [C],
    operation: impl Fn(&mut C, usize) + Sync,
) {
    let share = count / clients.len();
    let start = Barrier::new(clients.len());
    let mut latencies = Vec::with_capacity(count);
    let mut span: Option<(Instant, Instant)> = None;
    let (own_before, servers_before) = (own_processor_time(), cluster.processor_time());
    thread::scope(|scope| {
        let mut threads = Vec::with_capacity(clients.len());
        for (at, client) in clients.iter_mut().enumerate() {
            let (start, operation) = (&start, &operation);
            threads.push(scope.spawn(move || {
                let mut times = Vec::with_capacity(share);
                start.wait();
                for number in at * share..(at + 1) * share {
                    let begun = Instant::now();
                    operation(client, number);
                    times.push((begun, Instant::now()));
                }
                times
            }));
        }
        for (begun, ended) in threads.into_iter().flat_map(|thread| thread.join().expect("no operation fails")) {
            latencies.push((ended - begun).as_secs_f64());
            let (first, last) = span.unwrap_or((begun, ended));
            span = Some((first.min(begun), last.max(ended)));
        }
    });
    let (own, servers) = (own_processor_time(), cluster.processor_time());
    let (first, last) = span.expect("at least one operation");
    latencies.sort_by(f64::total_cmp);
    let operations = latencies.len() as f64;
    clock.record(name, (last - first).as_secs_f64() / operations);
    clock.record(&format!("{name}, p50"), latencies[latencies.len() / 2]);
    clock.record(&format!("{name}, p99"), latencies[latencies.len() * 99 / 100]);
    clock.record(&format!("{name}, client"), (own - own_before) / operations);
    for (role, at) in [("Controller", 0), ("Dstores", 1)] {
        clock.record(&format!("{name}, {role}"), (servers[at] - servers_before[at]) / operations);
    }
}
