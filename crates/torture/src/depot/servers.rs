//! The store under torture: a Controller and Dstores, each a process of its own on data that outlives it, with a network
//! between them and to their clients that may fail.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use depot::client::{Cluster, ClusterOptions};
use depot::controller::HealingOptions;
use depot::disk::random;
use depot::identity::ClusterId;
use depot::log::{ReplicaOptions, SyncMode};
use depot::namespace::change::{Replicas, Settings};
use depot::wire::{Address, ClientId, Secret};
use depot::words::Words;
use depot::{controller, dstore, pack};
use kit::Program;
use rustix::process::{Pid, Signal, kill_process};
use stevedore::program::{self, Failure};

use crate::proxy::{Kind, Proxy, Weather};
use crate::role;

/// The first word of a command line that asks for a depot's Controller.
const CONTROLLER: &str = "depot-controller-role";
/// The first word of a command line that asks for a depot's Dstore.
const DSTORE: &str = "depot-dstore-role";

/// The pace of a store without delays.
const HASTY: &str = "hasty";

/// A server, and where its peers find it: they never notice that it gets another port.
pub struct Server {
    /// The words of its command line, but for the port.
    words: Vec<String>,
    log: PathBuf,
    /// Where its data are.
    pub folder: PathBuf,
    target: Arc<AtomicUsize>,
    proxy: Proxy,
    program: Option<Program>,
    /// It has been stopped, and not been continued.
    pub is_frozen: bool,
}

impl Server {
    /// Starts it behind a network; `words` gets where others reach it.
    fn start(
        name: &str,
        kind: Kind,
        folder: &Path,
        weather: &Arc<Weather>,
        words: impl FnOnce(u16) -> Vec<String>,
    ) -> io::Result<Self> {
        let target = Arc::new(AtomicUsize::new(0));
        let proxy = Proxy::start(Arc::clone(&target), kind, weather)?;
        let words = words(proxy.port);
        let log = folder.join(format!("{name}.log"));
        let mut server = Self { words, log, folder: folder.join(name), target, proxy, program: None, is_frozen: false };
        server.restart()?;
        Ok(server)
    }

    /// Where its peers find it.
    fn port(&self) -> u16 {
        self.proxy.port
    }

    /// The same, as the store says it.
    pub fn address(&self) -> String {
        address(self.port()).to_string()
    }

    /// Starts it again on its data, unless it runs.
    pub fn restart(&mut self) -> io::Result<()> {
        if self.program.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(&self.words).stdin(Stdio::null()).stderr(log);
        let mut program = Program::spawn_with_own_stderr(command);
        if !program.comes_to_listen() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            return Err(io::Error::other(format!("{} does not start: {log}", self.words[0])));
        }
        self.target.store(program.port.into(), Ordering::Relaxed);
        self.program = Some(program);
        Ok(())
    }

    /// Kills it as `kill -9` does, if it runs.
    pub fn kill(&mut self) {
        self.target.store(0, Ordering::Relaxed);
        self.is_frozen = false;
        self.program = None; // dropped, and so killed
    }

    /// Whether it runs, as far as the torture is concerned.
    pub fn is_up(&self) -> bool {
        self.program.is_some()
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
        let Some(program) = &self.program else { return Ok(()) };
        kill_process(Pid::from_child(&program.child), signal).map_err(io::Error::from)
    }

    /// What it said, if it has ended by itself.
    fn casualty(&mut self) -> Option<String> {
        let status = self.program.as_mut()?.child.try_wait().ok()??;
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        Some(format!("{} has ended by itself: {status}; its last words, newest first: {last:?}", self.words[0]))
    }
}

/// The store.
pub struct Servers {
    cluster: ClusterId,
    secret: Secret,
    /// The Controller.
    pub controller: Server,
    /// The Dstores.
    pub dstores: Vec<Server>,
    clients: u64,
}

impl Servers {
    /// Starts a new store. If `is_hasty`, every delay is 0 that only affects availability and space. (depot 1.7)
    pub fn start(
        folder: &Path,
        dstores: usize,
        replicas: u8,
        is_hasty: bool,
        weather: &Arc<Weather>,
    ) -> io::Result<Self> {
        let cluster = ClusterId(u128::from_le_bytes(random()?).max(1));
        let secret = Secret::draw()?;
        let common = |role: &str, name: &str, port: u16| {
            let data = folder.join(name).to_string_lossy().into_owned();
            let pace = if is_hasty { HASTY } else { "usual" };
            [role, &data, &port.to_string(), &cluster.to_line(), &secret.reveal(), pace].map(str::to_owned).to_vec()
        };
        let controller = Server::start("controller", Kind::Controller, folder, weather, |port| {
            let mut words = common(CONTROLLER, "controller", port);
            words.push(replicas.to_string());
            words
        })?;
        let dstores = (1..=dstores).map(|number| {
            let name = format!("dstore-{number}");
            Server::start(&name, Kind::Dstore, folder, weather, |port| {
                let mut words = common(DSTORE, &name, port);
                words.push(controller.port().to_string());
                words
            })
        });
        let dstores = dstores.collect::<io::Result<_>>()?;
        Ok(Self { cluster, secret, controller, dstores, clients: 0 })
    }

    /// A new client of the store.
    pub fn client(&mut self) -> Cluster {
        self.clients += 1;
        let client = ClientId(self.clients);
        Cluster::new(ClusterOptions {
            controllers: vec![address(self.controller.port())],
            cluster: self.cluster,
            client,
            key: self.secret.client_key(client),
            search: Duration::from_secs(5),
        })
    }

    /// The Controller and the Dstores.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Server> {
        std::iter::once(&mut self.controller).chain(&mut self.dstores)
    }

    /// A process that has ended although the torture did not end it.
    pub fn casualty(&mut self) -> Option<String> {
        self.all().find_map(Server::casualty)
    }
}

fn address(port: u16) -> Address {
    std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()
}

/// Plays the role that the command line asks for; `None` if it asks for none of these.
pub fn play(words: &[&str]) -> Option<Result<(), Failure>> {
    match words[..] {
        [CONTROLLER, data, port, cluster, secret, pace, replicas] => {
            Some(role::begin().and_then(|_log| controller(data, port, cluster, secret, pace, replicas)))
        }
        [DSTORE, data, port, cluster, secret, _pace, controller] => {
            Some(role::begin().and_then(|_log| dstore(data, port, cluster, secret, controller)))
        }
        _ => None,
    }
}

fn controller(data: &str, port: &str, cluster: &str, secret: &str, pace: &str, replicas: &str) -> Result<(), Failure> {
    let listener = stevedore::server::listen(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), 0).map_err(Failure::new)?;
    let listening = listener.local_addr();
    let handle = controller::Handle::start(controller::Options {
        data: data.into(),
        cluster: ClusterId::from_line(cluster).map_err(Failure::usage)?,
        name: "torture".into(),
        settings: Settings { replicas: Replicas::Number(role::number(replicas)?), ..Settings::default() },
        secret: role::number(secret)?,
        listener,
        address: address(role::number(port)?),
        // Its history must not change: numbers of changes are what the order is told by.
        replica: ReplicaOptions { sync: SyncMode::Always, snapshot_bytes: 64 << 10, ..ReplicaOptions::default() },
        settling: controller::SETTLING,
        backup_period: Duration::from_secs(5),
        healing: healing(pace == HASTY),
    });
    let handle = handle.map_err(Failure::new)?;
    program::say_listening(listening, false)?;
    watch(|| handle.failure())
}

fn dstore(data: &str, port: &str, cluster: &str, secret: &str, controller: &str) -> Result<(), Failure> {
    let listener = stevedore::server::listen(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), 0).map_err(Failure::new)?;
    let listening = listener.local_addr();
    let handle = dstore::Handle::start(dstore::Options {
        data: data.into(),
        cluster: ClusterId::from_line(cluster).map_err(Failure::usage)?,
        secret: role::number(secret)?,
        listener,
        address: address(role::number(port)?),
        controllers: vec![address(role::number(controller)?)],
        host: data.to_owned(),
        zone: String::new(),
        disk: pack::Options { sync: SyncMode::Never, ..pack::Options::default() },
        // What is damaged is found soon.
        scrub_period: Duration::from_secs(5),
        gives_up_after: Duration::from_secs(3600),
        copy_rate: dstore::COPY_RATE,
    });
    let handle = handle.map_err(Failure::new)?;
    program::say_listening(listening, false)?;
    watch(|| handle.failure())
}

/// Everything happens soon enough to happen in a storm; or without any delay that only affects availability and space. A
/// lease of 0 would let no put succeed: here it ends before many a put does.
fn healing(is_hasty: bool) -> HealingOptions {
    let unless_hasty = |ms| Duration::from_millis(if is_hasty { 0 } else { ms });
    HealingOptions {
        grace: unless_hasty(3_000),
        after_put: unless_hasty(500),
        margin: unless_hasty(2_000),
        keep_removed: unless_hasty(1_000),
        lease: Duration::from_millis(if is_hasty { 100 } else { 3_000 }),
    }
}

/// Ends when the server cannot go on.
fn watch(failure: impl Fn() -> Option<String>) -> Result<(), Failure> {
    loop {
        if let Some(why) = failure() {
            return Err(Failure::new(why));
        }
        thread::sleep(Duration::from_millis(100));
    }
}
