//! A cluster of processes, the real programs or the floor's, and what each of them uses.

#![allow(dead_code, reason = "no bench uses all of it")]

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use stevedore::client::Client;

use crate::floor;

/// How long clients and servers wait for each other: longer than any bench makes them.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A Controller and its Dstores, each a process. Dropped, even by a panic, it leaves nothing behind.
pub struct Cluster {
    // Dropped in this order: the folder once nobody uses it any more.
    pub dstores: Vec<Process>,
    pub controller: Process,
    pub folder: Folder,
}

impl Cluster {
    /// Our own programs, as they are with no options but a quiet log, with folders in `parent`.
    pub fn start(parent: &Path, replicas: usize, dstores: usize) -> io::Result<Self> {
        Self::start_with(parent, replicas, dstores, TIMEOUT)
    }

    /// The same with another timeout than usual.
    pub fn start_with(parent: &Path, replicas: usize, dstores: usize, timeout: Duration) -> io::Result<Self> {
        let timeout = timeout.as_millis().to_string();
        let controller =
            Process::start(env!("CARGO_BIN_EXE_controller"), &["0", &replicas.to_string(), &timeout, "1000000"])?;
        let mut cluster = Self { dstores: Vec::new(), controller, folder: Folder::create(parent)? };
        for _ in 0..dstores {
            cluster.add_dstore(&timeout)?;
        }
        cluster.wait_until_all_have_joined();
        Ok(cluster)
    }

    /// Starts another Dstore, and does not wait until it has joined.
    pub fn add_dstore(&mut self, timeout: &str) -> io::Result<()> {
        let port = self.controller.port.to_string();
        let folder = self.folder.dstore(self.dstores.len());
        let arguments = ["0", &port, timeout, &folder.to_string_lossy()];
        self.dstores.push(Process::start(env!("CARGO_BIN_EXE_dstore"), &arguments)?);
        Ok(())
    }

    /// The floor's programs, for files of `size` bytes and a LIST of `list_bytes`.
    pub fn floor(parent: &Path, replicas: usize, dstores: usize, size: usize, list_bytes: usize) -> io::Result<Self> {
        let program = env::current_exe()?;
        let arguments = floor::controller_arguments(dstores, replicas, size, list_bytes);
        let controller = Process::start(&program, &arguments)?;
        let mut cluster = Self { dstores: Vec::new(), controller, folder: Folder::create(parent)? };
        for number in 0..dstores {
            let folder = cluster.folder.dstore(number);
            let arguments = floor::dstore_arguments(cluster.controller.port, &folder.to_string_lossy());
            cluster.dstores.push(Process::start(&program, &arguments)?);
        }
        Ok(cluster)
    }

    pub fn client(&self) -> Client {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.controller.port));
        Client::connect(address, TIMEOUT).expect("the Controller accepts")
    }

    pub fn floor_client(&self, style: floor::Style) -> floor::Client {
        floor::Client::connect(style, self.controller.port).expect("the Controller accepts")
    }

    pub fn files_in_folders(&self) -> usize {
        (0..self.dstores.len()).map(|number| self.folder.files(number)).sum()
    }

    /// The processor time in seconds of Controller and Dstores so far.
    pub fn processor_time(&self) -> [f64; 2] {
        [self.controller.processor_time(), self.dstores.iter().map(Process::processor_time).sum()]
    }

    /// Stores files until every Dstore has got one, as each is chosen when it has fewest.
    fn wait_until_all_have_joined(&self) {
        let mut client = self.client();
        let mut probes = Vec::new();
        while (0..self.dstores.len()).any(|number| self.folder.files(number) == 0) {
            let probe = format!("probe-{}", probes.len());
            if client.store_bytes(&probe, b"").is_ok() {
                probes.push(probe);
            }
        }
        probes.iter().for_each(|probe| client.remove(probe).expect("removed"));
    }
}

/// A server that has said where it listens.
pub struct Process {
    child: Child,
    pub port: u16,
}

impl Process {
    fn start(program: impl AsRef<std::ffi::OsStr>, arguments: &[impl AsRef<std::ffi::OsStr>]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Self { child: command.spawn()?, port: 0 };
        let mut line = String::new();
        BufReader::new(process.child.stdout.take().expect("piped")).read_line(&mut line)?;
        let said = line.trim().strip_prefix("listening on ").and_then(|port| port.parse().ok());
        process.port = said.ok_or_else(|| io::Error::other(format!("no port in {line:?}")))?;
        Ok(process)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// In seconds, of all its threads, those that have ended included.
    pub fn processor_time(&self) -> f64 {
        let clock = clock_getcpuclockid(Pid::from_raw(self.child.id() as i32)).expect("it runs");
        Duration::from(clock.now().expect("it runs")).as_secs_f64()
    }

    /// Bytes of memory: what it occupies now, and the most so far.
    pub fn memory(&self) -> [usize; 2] {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let kilobytes = |field| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("Linux says");
            line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number")
        };
        ["VmRSS:", "VmHWM:"].map(|field| kilobytes(field) << 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This process's own processor time in seconds.
pub fn own_processor_time() -> f64 {
    Duration::from(ClockId::CLOCK_PROCESS_CPUTIME_ID.now().expect("every process has one")).as_secs_f64()
}

/// Where files are made and removed at little cost, if there is such a place and TMPDIR asks for no other.
///
/// On a disk the file system would be most of what is measured. Ext4, for one, never takes the inode of a file that was
/// removed in the last minutes: after some thousands of those, looking for another takes longer than all the rest of
/// a store.
pub fn folder_in_memory() -> PathBuf {
    let in_memory = Path::new("/dev/shm");
    if env::var_os("TMPDIR").is_none() && in_memory.is_dir() { in_memory.to_owned() } else { env::temp_dir() }
}

/// A folder for those of the Dstores, removed with all that is in it when dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn create(parent: &Path) -> io::Result<Self> {
        for number in 0.. {
            let path = parent.join(format!("stevedore-bench-{}-{number}", process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("numbers do not end")
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn dstore(&self, number: usize) -> PathBuf {
        self.0.join(format!("dstore-{number}"))
    }

    fn files(&self, number: usize) -> usize {
        fs::read_dir(self.dstore(number)).map_or(0, Iterator::count)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}
