//! The processes under torture: one Controller, and Dstores that come and go.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kit::{Program, comes_true};
use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};

use crate::proxy::{Kind, Link, Proxy, Weather};
use crate::role;
use crate::watcher::Watcher;

/// Long enough for anything that a loaded machine does.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How the cluster is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// R.
    pub replicas: usize,
    /// The timeout of every program.
    pub timeout: Duration,
    /// From one rebalance to the next.
    pub period: Duration,
    /// Where the folders are made.
    pub folder: PathBuf,
}

/// What the Controller says of itself.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Rounds of rebalances so far.
    pub rebalances: u64,
    /// Files in the index, whatever their state.
    pub files: usize,
    /// The ports of its members.
    pub members: Vec<u16>,
}

/// A Controller and its Dstores; all of them die when dropped.
pub struct Cluster {
    settings: Settings,
    weather: Arc<Weather>,
    watcher: Arc<Watcher>,
    controller: Program,
    /// Where the Controller listens.
    pub port: u16,
    status: Arc<(Mutex<Status>, Condvar)>,
    /// Those that should be alive, in order of starting.
    pub dstores: Vec<Dstore>,
    started: usize,
}

/// A living Dstore.
pub struct Dstore {
    /// How many were started before it.
    pub number: usize,
    /// Where its files are.
    pub folder: PathBuf,
    /// Where its peers find it.
    pub port: u16,
    program: Program,
    /// With a network in between that may fail; not all have one.
    network: Option<(Proxy, Link)>,
    /// It has been stopped, and not been continued.
    pub is_frozen: bool,
}

impl Cluster {
    /// Starts a Controller; it has no Dstores yet.
    pub fn start(settings: Settings, weather: &Arc<Weather>, watcher: &Arc<Watcher>) -> io::Result<Self> {
        let Settings { replicas, timeout, period, ref folder } = settings;
        let words = [role::CONTROLLER.into(), replicas.to_string(), in_ms(timeout), in_ms(period)];
        let mut controller = spawn(&words, &folder.join("controller.log"))?;
        let port = controller.port;
        let status = Arc::new((Mutex::new(Status::default()), Condvar::new()));
        let heard = Arc::clone(&status);
        controller.follow(move |line| {
            let mut words = line.split_whitespace().filter_map(|word| word.parse().ok());
            *heard.0.lock() = Status {
                rebalances: words.next().unwrap_or_default() as u64,
                files: words.next().unwrap_or_default(),
                members: words.map(|port: usize| port as u16).collect(),
            };
            heard.1.notify_all();
        });
        let (weather, watcher) = (Arc::clone(weather), Arc::clone(watcher));
        Ok(Self { settings, weather, watcher, controller, port, status, dstores: Vec::new(), started: 0 })
    }

    /// What the Controller has said last.
    pub fn status(&self) -> Status {
        self.status.0.lock().clone()
    }

    /// Waits until what the Controller says is so; false if it is not in time.
    pub fn wait_until(&self, patience: Duration, condition: impl Fn(&Status) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut status = self.status.0.lock();
        while !condition(&status) {
            if self.status.1.wait_until(&mut status, deadline).timed_out() {
                return condition(&status);
            }
        }
        true
    }

    /// Starts a Dstore with an empty folder, behind a network that may fail or not. It joins in its own time.
    pub fn join(&mut self, has_network: bool) -> io::Result<u16> {
        let number = self.started;
        self.started += 1;
        let folder = self.settings.folder.join(format!("dstore-{number}"));
        let target = Arc::new(AtomicUsize::new(0));
        let network = match has_network {
            true => {
                let proxy = Proxy::start(Arc::clone(&target), Kind::Dstore, &self.weather)?;
                let link = Link::start(self.port, proxy.port, Arc::clone(&target))?;
                Some((proxy, link))
            }
            false => None,
        };
        let controller = network.as_ref().map_or(self.port, |(_, link)| link.port);
        let words = [
            role::DSTORE.into(),
            controller.to_string(),
            in_ms(self.settings.timeout),
            folder.to_string_lossy().into_owned(),
        ];
        let program = spawn(&words, &self.settings.folder.join(format!("dstore-{number}.log")))?;
        target.store(program.port.into(), Ordering::Relaxed);
        let port = network.as_ref().map_or(program.port, |(proxy, _)| proxy.port);
        self.watcher.opened(port, &folder);
        self.dstores.push(Dstore { number, folder, port, program, network, is_frozen: false });
        Ok(port)
    }

    /// Kills the Dstore at this place as `kill -9` does.
    pub fn kill(&mut self, at: usize) {
        let dstore = self.dstores.remove(at);
        self.watcher.closed(dstore.port);
        // Dropped, and so killed.
    }

    /// Cuts a Dstore's connection to the Controller in the middle of a message, which ends it; it must have a network.
    pub fn cut(&mut self, at: usize) -> io::Result<()> {
        let mut dstore = self.dstores.remove(at);
        self.watcher.closed(dstore.port);
        dstore.network.as_ref().expect("it has a network").1.cut();
        if dstore.is_frozen {
            dstore.thaw()?;
        }
        // It may take its time, but it has to end by itself.
        thread::Builder::new().name("farewell".into()).spawn(move || {
            comes_true(PATIENCE, || matches!(dstore.program.child.try_wait(), Ok(Some(_))));
        })?;
        Ok(())
    }

    /// Removes the folders of those that are dead.
    pub fn bury(&self) -> io::Result<()> {
        for number in 0..self.started {
            if self.dstores.iter().all(|dstore| dstore.number != number) {
                let folder = self.settings.folder.join(format!("dstore-{number}"));
                match fs::remove_dir_all(folder) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// A process that has ended although the torture did not end it.
    pub fn casualty(&mut self) -> Option<String> {
        if let Ok(Some(status)) = self.controller.child.try_wait() {
            return Some(format!("the Controller has ended by itself: {status}"));
        }
        self.dstores.iter_mut().find_map(|dstore| {
            let status = dstore.program.child.try_wait().ok()??;
            Some(format!("Dstore {} has ended by itself: {status}", dstore.number))
        })
    }

    /// What lies in the folders of the living, whole: for each Dstore its files.
    pub fn contents(&self) -> io::Result<Vec<BTreeMap<String, Vec<u8>>>> {
        self.dstores.iter().map(|dstore| read_folder(&dstore.folder)).collect()
    }
}

impl Dstore {
    /// Whether there is a network in between that may fail.
    pub fn has_network(&self) -> bool {
        self.network.is_some()
    }

    /// Stops it.
    pub fn freeze(&mut self) -> io::Result<()> {
        self.is_frozen = true;
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn thaw(&mut self) -> io::Result<()> {
        self.is_frozen = false;
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        kill_process(Pid::from_child(&self.program.child), signal).map_err(io::Error::from)
    }
}

/// Starts this program in a role, and waits for it to say where it listens.
fn spawn(words: &[String], log: &Path) -> io::Result<Program> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words).stdin(Stdio::null()).stderr(File::create(log)?);
    let mut program = Program::spawn_with_own_stderr(command);
    if !program.comes_to_listen() {
        let log = fs::read_to_string(log).unwrap_or_default();
        return Err(io::Error::other(format!("{} does not start: {log}", words[0])));
    }
    Ok(program)
}

fn read_folder(folder: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Files that are gone by now are left out.
        if let Ok(bytes) = fs::read(entry.path()) {
            files.insert(entry.file_name().to_string_lossy().into_owned(), bytes);
        }
    }
    Ok(files)
}

fn in_ms(duration: Duration) -> String {
    duration.as_millis().to_string()
}
