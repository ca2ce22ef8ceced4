//! A Controller and its Dstores in one process, to look at and to break.

use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Failure;
use super::output::say;
use super::prompt::Commands;
use crate::protocol::Address;
use crate::{controller, dstore};

/// What a cluster is started with.
#[derive(Clone)]
pub struct Config {
    /// N: how many Dstores to begin with.
    pub dstores: usize,
    /// The Controller's settings, R among them. The Dstores listen on the same address, and have the same timeout.
    pub controller: controller::Config,
    /// The first Dstore's port, those of the next following; 0 takes any free ones.
    pub first_dstore_port: u16,
    /// Where the Dstores' folders are; a fresh temporary folder, removed at the end, unless given.
    pub folder: Option<PathBuf>,
    /// Can end it from elsewhere, at any time.
    pub shutdown: ShutdownHandle,
}

/// A running cluster. Dropping it ends all of it.
pub struct Cluster {
    dstores: Vec<Dstore>,
    controller: controller::Handle,
    root: PathBuf,
    shutdown: ShutdownHandle,
    config: Config,
}

/// Ends a cluster's Dstores from any thread and removes its temporary folder: for a signal that arrives while the thread
/// that owns the cluster is busy. After that no Dstore can be started in it.
#[derive(Clone, Default)]
pub struct ShutdownHandle(Arc<Mutex<Running>>);

/// What would leave traces in the file system.
#[derive(Default)]
struct Running {
    /// By number, from 1; `None` where killed.
    dstores: Vec<Option<dstore::Handle>>,
    temporary_folder: Option<PathBuf>,
    is_ended: bool,
}

impl ShutdownHandle {
    /// Returns when the Dstores have ended and the folder is gone.
    pub fn shut_down(&self) {
        let mut running = self.0.lock();
        running.is_ended = true;
        running.dstores.clear();
        if let Some(folder) = running.temporary_folder.take() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// One Dstore of a cluster, alive or killed.
pub struct Dstore {
    /// Where it listens, or did.
    pub address: Address,
    /// Where its files are; a killed Dstore's stay there.
    pub folder: PathBuf,
    is_alive: bool,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Before the Controller: Dstores would only log that their Controller has ended.
        self.shutdown.shut_down();
    }
}

/// How long the joins and the rebalance that they cause may take.
const START_UP: Duration = Duration::from_secs(30);

impl Cluster {
    /// Starts the Controller and the Dstores, and waits until they are ready to serve.
    pub fn start(config: Config) -> Result<Self, Failure> {
        let controller = controller::start(config.controller.clone()).map_err(Failure::new)?;
        let root = match &config.folder {
            Some(path) => path.clone(),
            None => {
                let mut running = config.shutdown.0.lock();
                let path = fresh_folder().map_err(Failure::new)?;
                running.temporary_folder.insert(path).clone()
            }
        };
        let shutdown = config.shutdown.clone();
        let mut cluster = Self { dstores: Vec::new(), controller, root, shutdown, config };
        for _ in 0..cluster.config.dstores {
            cluster.start_dstore()?;
        }
        let expected = cluster.config.dstores;
        cluster
            .controller
            .wait_until(START_UP, |status| status.members.len() == expected && status.is_at_rest)
            .ok_or_else(|| Failure::new("the Dstores have started but not joined"))?;
        Ok(cluster)
    }

    /// Where the Controller listens.
    pub fn controller_address(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], self.controller.address()?.port())))
    }

    /// The Controller.
    pub fn controller(&self) -> &controller::Handle {
        &self.controller
    }

    /// R.
    pub fn replicas(&self) -> usize {
        self.config.controller.replicas
    }

    /// The folder that holds the Dstores' folders.
    pub fn folder(&self) -> &Path {
        &self.root
    }

    /// All Dstores there have been; the first is number 1.
    pub fn dstores(&self) -> &[Dstore] {
        &self.dstores
    }

    /// The folders of the Dstores that are alive.
    pub fn live_folders(&self) -> Vec<&Path> {
        self.dstores.iter().filter(|dstore| dstore.is_alive()).map(|dstore| dstore.folder.as_path()).collect()
    }

    /// Starts another Dstore, which joins; returns its number.
    pub fn start_dstore(&mut self) -> Result<usize, Failure> {
        let number = self.dstores.len() + 1;
        let port = self.controller.address().map_err(Failure::new)?.port();
        let mut config = dstore::Config::new(port, self.root.join(format!("dstore-{number}")));
        config.bind = self.config.controller.bind;
        config.timeout = self.config.controller.timeout;
        if self.config.first_dstore_port > 0 {
            config.port = u16::try_from(usize::from(self.config.first_dstore_port) + number - 1)
                .map_err(|_| Failure::new(format!("there is no port left for Dstore {number}")))?;
        }
        let folder = config.folder.clone();
        let mut running = self.shutdown.0.lock();
        if running.is_ended {
            return Err(Failure::new("the cluster is ending"));
        }
        let handle = dstore::start(config).map_err(|error| Failure::new(format!("Dstore {number}: {error}")))?;
        self.dstores.push(Dstore { address: handle.address().clone(), folder, is_alive: true });
        running.dstores.push(Some(handle));
        drop(running);
        Ok(number)
    }

    /// Ends a Dstore without a word to the Controller: its connections are closed, transfers are abandoned, and its folder
    /// stays as it is. To the others it is as if its process had been killed.
    pub fn kill(&mut self, number: usize) -> Result<&Dstore, Failure> {
        let count = self.dstores.len();
        let dstore = number
            .checked_sub(1)
            .and_then(|at| self.dstores.get_mut(at))
            .ok_or_else(|| Failure::usage(format!("there is no Dstore {number}; they are numbered 1 to {count}")))?;
        if !std::mem::take(&mut dstore.is_alive) {
            return Err(Failure::usage(format!("Dstore {number} is dead already")));
        }
        drop(self.shutdown.0.lock().dstores.get_mut(number - 1).and_then(Option::take));
        Ok(dstore)
    }

    /// A table of the Dstores and what is on them, as the index has it and as their folders show it.
    pub fn status(&self) -> String {
        let controller::Status { members, files, rebalances, .. } = self.controller.status();
        let mut text = String::from("Dstore   port  index  folder       bytes  state\n");
        let mut copies = Vec::new();
        for (number, dstore) in (1..).zip(&self.dstores) {
            let member = members.iter().find(|member| member.address == dstore.address).filter(|_| dstore.is_alive());
            let index = member.map_or("-".to_owned(), |member| member.files.to_string());
            let (stored, bytes) = contents(&dstore.folder);
            let state = match (dstore.is_alive(), member) {
                (true, Some(_)) => "alive",
                (true, None) => "joining",
                (false, _) => "dead",
            };
            copies.extend(member.map(|member| member.files));
            let port = dstore.address.to_string();
            writeln!(text, "{number:>6}  {port:>5}  {index:>5}  {stored:>6}  {bytes:>10}  {state}")
                .expect("a String takes all");
        }
        let spread = Spread { files, replicas: self.replicas(), copies };
        write!(text, "{spread}\n{rebalances} rebalances so far").expect("a String takes all");
        text
    }
}

impl Dstore {
    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        self.is_alive
    }
}

/// How many copies there are, and how evenly they lie on the Dstores. (spec 4.6.3)
pub struct Spread {
    /// F: how many files there are.
    pub files: usize,
    /// R.
    pub replicas: usize,
    /// How many copies each Dstore has.
    pub copies: Vec<usize>,
}

impl Spread {
    /// Whether there are R copies of each file in all, and each Dstore has between floor(RF/N) and ceil(RF/N).
    pub fn is_as_it_should_be(&self) -> bool {
        let (least, most) = self.range();
        self.copies.iter().sum::<usize>() == self.replicas * self.files && most - least <= 1
    }

    fn range(&self) -> (usize, usize) {
        (self.copies.iter().copied().min().unwrap_or(0), self.copies.iter().copied().max().unwrap_or(0))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = self.range();
        let Self { files, replicas, copies } = self;
        let total: usize = copies.iter().sum();
        write!(
            f,
            "{files} files, R = {replicas}: {total} of {} copies, {least} to {most} on a Dstore",
            files * replicas
        )?;
        f.write_str(if self.is_as_it_should_be() { ": as it should be" } else { ": for the next rebalance to mend" })
    }
}

/// The prompt's commands to look and to break things.
impl Commands for Cluster {
    fn help(&self) -> &str {
        "\
status              the Dstores, their files, the spread
kill N              end Dstore N: its connections close at once, its folder stays
join                start another Dstore"
    }

    fn run(&mut self, words: &[&str]) -> Option<Result<(), Failure>> {
        Some(match words {
            ["status"] => say(format_args!("{}", self.status())),
            ["kill", number] => match number.parse() {
                Ok(number) => self
                    .kill(number)
                    .map(|dstore| dstore.address.clone())
                    .and_then(|address| say(format_args!("Dstore {number} (port {address}) is dead; see status"))),
                Err(_) => Err(Failure::usage(format!("{number:?} is not the number of a Dstore"))),
            },
            ["join"] => {
                self.start_dstore().and_then(|number| say(format_args!("Dstore {number} has been started; see status")))
            }
            _ => return None,
        })
    }
}

/// How many files a folder holds, and their bytes. A Dstore at work may change it meanwhile: what is gone is passed over.
fn contents(folder: &Path) -> (usize, u64) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len());
    sizes.fold((0, 0), |(files, bytes), size| (files + 1, bytes + size))
}

fn fresh_folder() -> io::Result<PathBuf> {
    let base = std::env::temp_dir();
    for attempt in 0.. {
        let path = base.join(format!("stevedore-{}-{attempt}", std::process::id()));
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            outcome => return outcome.map(|()| path),
        }
    }
    unreachable!("some number is free")
}
