//! The store under torture: Controllers and Dstores, each a process of its own on data that outlives it, with a network
//! between them and to their clients that may fail.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;
use depot::client::{Cluster, ClusterOptions};
use depot::controller::{Beginning, HealingOptions};
use depot::disk::random;
use depot::identity::{ClusterId, ControllerId};
use depot::log::{ReplicaOptions, SyncMode};
use depot::namespace::change::{Replicas, Settings};
use depot::wire::{Address, ClientId, Secret};
use depot::words::Words;
use depot::{controller, dstore, pack};
use kit::Program;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use stevedore::program::{self, Failure, signals};

use super::{Pace, Plan};
use crate::proxy::{Gates, Kind, Proxy, Weather};
use crate::role;

/// The first word of a command line that asks for a depot's Controller.
const CONTROLLER: &str = "depot-controller-role";
/// The first word of a command line that asks for a depot's Dstore.
const DSTORE: &str = "depot-dstore-role";

/// So small that large files have several objects.
const CHUNK_BYTES: u64 = 500_000;

/// How long a client may take from one object of a put to the next, unless the store is hasty.
pub const LEASE: Duration = Duration::from_secs(3);
/// So long an object is kept that no file names, unless the store is hasty.
pub const KEEP_REMOVED: Duration = Duration::from_secs(1);

/// Said of a Controller that is to be added to the store.
const WAITS: &str = "waits";

/// How a pace is said to a process.
const PACES: [(&str, Pace); 3] = [("usual", Pace::Usual), ("quick", Pace::Quick), ("hasty", Pace::Hasty)];

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
    /// No file of it may grow beyond a size.
    is_full: bool,
    /// It is about to belong to the store no longer, and may end by itself.
    pub is_leaving: bool,
}

impl Server {
    /// Starts it behind a network; `words` gets where others reach it.
    fn start(
        name: &str,
        kind: Kind,
        folder: &Path,
        (weather, gates): (&Arc<Weather>, &Arc<Gates>),
        words: impl FnOnce(u16) -> Vec<String>,
    ) -> io::Result<Self> {
        let target = Arc::new(AtomicUsize::new(0));
        let proxy = Proxy::start_with_gates(Arc::clone(&target), kind, weather, gates)?;
        let words = words(proxy.port);
        let log = folder.join(format!("{name}.log"));
        let mut server = Self {
            words,
            log,
            folder: folder.join(name),
            target,
            proxy,
            program: None,
            is_frozen: false,
            is_full: false,
            is_leaving: false,
        };
        server.restart()?;
        Ok(server)
    }

    /// Where its peers find it.
    pub fn port(&self) -> u16 {
        self.proxy.port
    }

    /// The same, as the store says it.
    pub fn address(&self) -> String {
        address(self.port()).to_string()
    }

    /// Starts it again on its data, unless it runs.
    fn restart(&mut self) -> io::Result<()> {
        if self.program.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        // What ignores the signal that goes with a file beyond its limit gets an error instead, as from a full disk.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(std::env::current_exe()?);
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

    /// Ends whatever was done to it: it runs, on its data.
    pub fn recover(&mut self) -> io::Result<()> {
        if self.is_frozen {
            self.thaw()?;
        }
        self.empty()?;
        self.restart()
    }

    /// Kills it as `kill -9` does, if it runs.
    pub fn kill(&mut self) {
        self.target.store(0, Ordering::Relaxed);
        self.is_frozen = false;
        self.is_full = false;
        self.program = None; // dropped, and so killed
    }

    /// Its folder is lost: a Controller then waits to be added, as a new one.
    pub fn lose_folder(&mut self) -> io::Result<()> {
        self.kill();
        fs::remove_dir_all(&self.folder)?;
        self.set_last_word(WAITS.to_owned());
        self.restart()
    }

    /// Which Controller it is, as its folder says.
    pub fn controller_id(&self) -> io::Result<ControllerId> {
        let text = fs::read_to_string(self.folder.join("controller-id"))?;
        let id = text.split(' ').nth(2).and_then(|word| ControllerId::from_line(word).ok());
        id.ok_or_else(|| io::Error::other(format!("this names no Controller: {text:?}")))
    }

    /// From its next start on.
    fn set_last_word(&mut self, word: String) {
        if let Some(last) = self.words.last_mut() {
            *last = word;
        }
    }

    /// Asks it to end, and waits until it has: how it has.
    pub fn end(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let ended = self.program.as_mut().map_or(Ok(ExitStatus::default()), |program| program.child.wait());
        self.kill();
        ended
    }

    /// From now on no file of it grows beyond so many bytes, as if its disk were full.
    pub fn fill(&mut self, bytes: u64) -> io::Result<()> {
        self.is_full = true;
        self.limit_files(Some(bytes))
    }

    /// There is room again. One that could not go on without has ended.
    fn empty(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_full) {
            self.limit_files(None)?;
            if self.has_ended() {
                self.kill();
            }
        }
        Ok(())
    }

    fn limit_files(&self, bytes: Option<u64>) -> io::Result<()> {
        let Some(program) = &self.program else { return Ok(()) };
        let limit = Rlimit { current: bytes, maximum: None };
        match prlimit(Some(Pid::from_child(&program.child)), Resource::Fsize, limit) {
            Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(()), // it has ended
            Err(error) => Err(error.into()),
        }
    }

    fn has_ended(&mut self) -> bool {
        self.program.as_mut().is_some_and(|program| !matches!(program.child.try_wait(), Ok(None)))
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
    fn thaw(&mut self) -> io::Result<()> {
        self.is_frozen = false;
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(program) = &self.program else { return Ok(()) };
        kill_process(Pid::from_child(&program.child), signal).map_err(io::Error::from)
    }

    /// What it said, if it has ended by itself.
    fn casualty(&mut self) -> Option<String> {
        if self.is_leaving {
            return None;
        }
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
    folder: PathBuf,
    pace: &'static str,
    replicas: u8,
    weather: Arc<Weather>,
    /// The Controllers.
    pub controllers: Vec<Server>,
    /// The Dstores.
    pub dstores: Vec<Server>,
    /// Which of them cannot reach which others just now.
    pub gates: Arc<Gates>,
    /// So many Controllers were started in new folders.
    begun: usize,
    clients: u64,
}

impl Servers {
    /// Starts a new store.
    pub fn start(plan: &Plan, weather: &Arc<Weather>) -> io::Result<Self> {
        let mut servers = Self {
            cluster: ClusterId(u128::from_le_bytes(random()?).max(1)),
            secret: Secret::draw()?,
            folder: plan.folder.clone(),
            pace: PACES.iter().find(|(_, pace)| *pace == plan.pace).map_or("usual", |(word, _)| word),
            replicas: plan.replicas,
            weather: Arc::clone(weather),
            controllers: Vec::new(),
            dstores: Vec::new(),
            gates: Arc::default(),
            begun: 0,
            clients: 0,
        };
        for _ in 1..plan.controllers {
            servers.start_controller(WAITS.to_owned())?;
        }
        // The last one creates the store, of all of them.
        servers.start_controller(ports(&servers.controllers))?;
        for number in 1..=plan.dstores {
            let controllers = ports(&servers.controllers);
            let dstore = servers.start_server(&format!("dstore-{number}"), Kind::Dstore, DSTORE, [controllers])?;
            servers.dstores.push(dstore);
        }
        Ok(servers)
    }

    /// Starts a Controller that waits to be added to the store.
    pub fn begin_controller(&mut self) -> io::Result<&Server> {
        self.start_controller(WAITS.to_owned())?;
        self.tell_dstores();
        Ok(self.controllers.last().expect("it was just started"))
    }

    /// Ends a Controller that belongs to the store no longer. Its folder is of no more use.
    pub fn end_controller(&mut self, port: u16) -> io::Result<()> {
        let Some(at) = self.controllers.iter().position(|one| one.port() == port) else { return Ok(()) };
        let mut gone = self.controllers.remove(at);
        gone.kill();
        self.tell_dstores();
        fs::remove_dir_all(&gone.folder)
    }

    /// An operator writes into their command lines where the Controllers are.
    fn tell_dstores(&mut self) {
        let controllers = ports(&self.controllers);
        self.dstores.iter_mut().for_each(|dstore| dstore.set_last_word(controllers.clone()));
    }

    fn start_controller(&mut self, others: String) -> io::Result<()> {
        self.begun += 1;
        let (name, replicas) = (format!("controller-{}", self.begun), self.replicas.to_string());
        let controller = self.start_server(&name, Kind::Controller, CONTROLLER, [replicas, others])?;
        self.controllers.push(controller);
        Ok(())
    }

    /// Starts a server in a new folder of this name. Its command line ends with these words.
    fn start_server<const N: usize>(
        &self,
        name: &str,
        kind: Kind,
        role: &str,
        last: [String; N],
    ) -> io::Result<Server> {
        Server::start(name, kind, &self.folder, (&self.weather, &self.gates), |port| {
            let data = self.folder.join(name).to_string_lossy().into_owned();
            let (cluster, secret) = (self.cluster.to_line(), self.secret.reveal());
            let words = [role, &data, &port.to_string(), &cluster, &secret, self.pace].map(str::to_owned);
            words.into_iter().chain(last).collect()
        })
    }

    /// The server that is reached here, if there still is one.
    pub fn at(&mut self, port: u16) -> Option<&mut Server> {
        self.all().find(|server| server.port() == port)
    }

    /// The id of the client that was made last; they are numbered from 1 on.
    pub fn last_client(&self) -> u64 {
        self.clients
    }

    /// A new client of the store, which looks for a Controller for so long.
    pub fn client(&mut self, search: Duration) -> Cluster {
        let controllers = self.controllers.iter().map(|controller| address(controller.port())).collect();
        self.client_of(controllers, search)
    }

    /// One for each Controller, which begins with that one.
    pub fn client_of_each(&mut self) -> Vec<Cluster> {
        let addresses: Vec<Address> = self.controllers.iter().map(|controller| address(controller.port())).collect();
        addresses.into_iter().map(|address| self.client_of(vec![address], Duration::from_secs(5))).collect()
    }

    fn client_of(&mut self, controllers: Vec<Address>, search: Duration) -> Cluster {
        self.clients += 1;
        let client = ClientId(self.clients);
        let (cluster, key) = (self.cluster, self.secret.client_key(client));
        Cluster::new(ClusterOptions { controllers, cluster, client, key, search })
    }

    /// The Controllers, and then the Dstores.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Server> {
        self.controllers.iter_mut().chain(&mut self.dstores)
    }

    /// A process that has ended although the torture did not end it.
    pub fn casualty(&mut self) -> Option<String> {
        self.all().find_map(Server::casualty)
    }
}

/// Where a server is reached.
pub fn address(port: u16) -> Address {
    std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()
}

/// Plays the role that the command line asks for; `None` if it asks for none of these.
pub fn play(words: &[&str]) -> Option<Result<(), Failure>> {
    match words[..] {
        [CONTROLLER, data, port, cluster, secret, pace, replicas, others] => {
            Some(role::begin().and_then(|_log| controller(data, port, cluster, secret, pace, replicas, others)))
        }
        [DSTORE, data, port, cluster, secret, _pace, controllers] => {
            Some(role::begin().and_then(|_log| dstore(data, port, cluster, secret, controllers)))
        }
        _ => None,
    }
}

fn controller(
    data: &str,
    port: &str,
    cluster: &str,
    secret: &str,
    pace: &str,
    replicas: &str,
    others: &str,
) -> Result<(), Failure> {
    let end = signals::requests_to_end(signals::GRACE_FOR_DISKS)?;
    let cluster = ClusterId::from_line(cluster).map_err(Failure::usage)?;
    let secret: Secret = role::number(secret)?;
    let listener = stevedore::server::listen(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), 0).map_err(Failure::new)?;
    let listening = listener.local_addr();
    let beginning = beginning(data.as_ref(), others, cluster, &secret)?;
    let handle = controller::Handle::start(controller::Options {
        data: data.into(),
        cluster,
        name: "torture".into(),
        settings: Settings {
            replicas: Replicas::Number(role::number(replicas)?),
            chunk_bytes: CHUNK_BYTES,
            ..Settings::default()
        },
        secret,
        listener,
        address: address(role::number(port)?),
        // Its history must not change: numbers of changes are what the order is told by.
        replica: ReplicaOptions { sync: SyncMode::Always, snapshot_bytes: 64 << 10, ..ReplicaOptions::default() },
        settling: controller::SETTLING,
        backup_period: Duration::from_secs(5),
        beginning,
        healing: healing(pace)?,
    });
    let handle = handle.map_err(Failure::new)?;
    program::say_listening(listening, false)?;
    watch(&end, || handle.failure())?;
    handle.stop().map_err(Failure::new)
}

/// How a Controller begins that is new; one that was there before goes on.
fn beginning(data: &Path, others: &str, cluster: ClusterId, secret: &Secret) -> Result<Beginning, Failure> {
    if others == WAITS {
        return Ok(Beginning::Join);
    }
    if data.exists() {
        return Ok(Beginning::alone());
    }
    let others = addresses(others)?.into_iter().map(|address| {
        loop {
            match controller::who_is_at(&address, cluster, secret) {
                Ok(who) => return (who.id, address),
                Err(_) => thread::sleep(Duration::from_millis(20)), // it may be about to start
            }
        }
    });
    Ok(Beginning::Create { others: others.collect() })
}

/// As [`ports`] writes them.
fn addresses(ports: &str) -> Result<Vec<Address>, Failure> {
    ports.split(',').filter(|port| !port.is_empty()).map(|port| role::number(port).map(address)).collect()
}

fn ports(servers: &[Server]) -> String {
    servers.iter().map(|server| server.port().to_string()).collect::<Vec<_>>().join(",")
}

fn dstore(data: &str, port: &str, cluster: &str, secret: &str, controllers: &str) -> Result<(), Failure> {
    let end = signals::requests_to_end(signals::GRACE_FOR_DISKS)?;
    let listener = stevedore::server::listen(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), 0).map_err(Failure::new)?;
    let listening = listener.local_addr();
    let handle = dstore::Handle::start(dstore::Options {
        data: data.into(),
        cluster: ClusterId::from_line(cluster).map_err(Failure::usage)?,
        secret: role::number(secret)?,
        listener,
        address: address(role::number(port)?),
        controllers: addresses(controllers)?,
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
    watch(&end, || handle.failure())
}

/// How a store heals that is to go at this pace. A lease of 0 would let no put succeed: a hasty one ends before many a put
/// does.
fn healing(pace: &str) -> Result<HealingOptions, Failure> {
    let pace = PACES.iter().find(|(word, _)| *word == pace).map(|(_, pace)| pace);
    let (grace, after_put, margin, keep_removed, lease) = match pace {
        None => return Err(Failure::usage("there is no such pace")),
        Some(Pace::Usual) => return Ok(HealingOptions::default()),
        Some(Pace::Quick) => (3_000, 500, 2_000, KEEP_REMOVED, LEASE),
        Some(Pace::Hasty) => (0, 0, 0, Duration::ZERO, Duration::from_millis(100)),
    };
    let [grace, after_put, margin] = [grace, after_put, margin].map(Duration::from_millis);
    Ok(HealingOptions { grace, after_put, margin, keep_removed, lease })
}

/// Waits until it is to end; a failure if the server cannot go on.
fn watch(end: &Receiver<signals::Signal>, failure: impl Fn() -> Option<String>) -> Result<(), Failure> {
    const PERIOD: Duration = Duration::from_millis(100);
    while end.recv_timeout(PERIOD).is_err() {
        if let Some(why) = failure() {
            return Err(Failure::new(why));
        }
    }
    Ok(())
}
