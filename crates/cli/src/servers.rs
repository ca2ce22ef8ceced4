//! `serve`, `controller`, `dstore`: the servers of a store. (depot 10)

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use argh::FromArgs;
use crossbeam_channel::Receiver;
use depot::client::{DstoreState, Files};
use depot::controller::{self, HealingOptions};
use depot::dstore;
use depot::log::{ReplicaOptions, SyncMode};
use depot::namespace::change::{Replicas, Settings};
use depot::pack;
use depot::wire::Address;
use stevedore::program::output::say;
use stevedore::program::signals::{self, Signal};
use stevedore::program::{self, Failure};

use crate::cluster::{self, ClusterFile, VARIABLE};
use crate::commands::put::replicas as read_replicas;
use crate::commands::store::bytes as read_bytes;
use crate::folder::{DataFolder, store_in};
use crate::recovery;
use crate::show::count;

/// Run a whole store in one process.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "serve",
    note = "A Controller, and a Dstore in each folder. The first start makes the store; each later one goes on with it. It ends\nwith SIGTERM or Ctrl-C.",
    note = "Give each disk a folder of its own, and always name them in the same order. The first folder also has the log, and\ncluster.toml and client.toml. With several folders, a file is kept in three of them, or as --replicas says.",
    example = "stevedore serve ~/store\nstevedore serve /disk1/store /disk2/store /disk3/store\nstevedore serve --controller-port 0 --dstore-port 0 /tmp/store"
)]
pub struct Serve {
    /// name of a new store (default: depot)
    #[argh(option)]
    pub name: Option<String>,
    /// on how many Dstores a new store keeps a file: a number, or all (default: 3, or as many as there are folders)
    #[argh(option, arg_name = "R", from_str_fn(read_replicas))]
    pub replicas: Option<Replicas>,
    /// port of the Controller (default 7000); 0 takes a free one
    #[argh(option, arg_name = "PORT", default = "CONTROLLER_PORT")]
    pub controller_port: u16,
    /// port of the first Dstore, the next ones following (default 7100); 0 takes free ones
    #[argh(option, arg_name = "PORT", default = "DSTORE_PORT")]
    pub dstore_port: u16,
    /// address to listen on (default 127.0.0.1: this machine only)
    #[argh(option, arg_name = "ADDRESS", default = "LOOPBACK")]
    pub listen: IpAddr,
    /// host that others reach this machine by, if it listens on all its addresses
    #[argh(option, arg_name = "HOST")]
    pub advertise: Option<String>,
    /// when something counts as kept: always (once it is on the disk; default), interval (it is within a second), never
    #[argh(option, default = "SyncMode::Always", from_str_fn(sync_mode))]
    pub sync: SyncMode,
    /// seconds for which a Dstore may be away before its copies are made elsewhere (default 60)
    #[argh(option, arg_name = "SECONDS", default = "GRACE")]
    pub grace: u64,
    /// seconds for which the bytes of removed files are kept, for those who read them still (default 600)
    #[argh(option, arg_name = "SECONDS", default = "KEEP_REMOVED")]
    pub keep_removed: u64,
    /// a folder for each Dstore
    #[argh(positional, arg_name = "DIR")]
    pub folders: Vec<PathBuf>,
}

/// Run a store's Controller alone.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "controller",
    note = "It decides, and keeps the log of all changes; Dstores keep the bytes. Each needs a copy of its\ncluster.toml.",
    example = "stevedore controller --data /srv/controller --listen 10.0.0.1\nscp /srv/controller/cluster.toml other:/srv/dstore/\nssh other stevedore dstore --data /srv/dstore --controllers 10.0.0.1:7000 --listen 10.0.0.2"
)]
pub struct RunController {
    /// folder of the log; the first start makes the store
    #[argh(option, arg_name = "DIR")]
    pub data: PathBuf,
    /// name of a new store (default: depot)
    #[argh(option)]
    pub name: Option<String>,
    /// on how many Dstores a new store keeps a file: a number, or all (default 3)
    #[argh(option, arg_name = "R", from_str_fn(read_replicas))]
    pub replicas: Option<Replicas>,
    /// port (default 7000); 0 takes a free one
    #[argh(option, default = "CONTROLLER_PORT")]
    pub port: u16,
    /// address to listen on (default 127.0.0.1: this machine only)
    #[argh(option, arg_name = "ADDRESS", default = "LOOPBACK")]
    pub listen: IpAddr,
    /// host that others reach this machine by, if it listens on all its addresses
    #[argh(option, arg_name = "HOST")]
    pub advertise: Option<String>,
    /// when a change counts as kept: always (once it is on the disk; default), interval (it is within a second), never
    #[argh(option, default = "SyncMode::Always", from_str_fn(sync_mode))]
    pub sync: SyncMode,
    /// seconds for which a Dstore may be away before its copies are made elsewhere (default 60)
    #[argh(option, arg_name = "SECONDS", default = "GRACE")]
    pub grace: u64,
    /// seconds for which the bytes of removed files are kept, for those who read them still (default 600)
    #[argh(option, arg_name = "SECONDS", default = "KEEP_REMOVED")]
    pub keep_removed: u64,
}

/// Run one or more of a store's Dstores.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "dstore",
    note = "They keep the bytes of the store's files: a Dstore in each folder, and each folder best on a disk of its\nown. A folder can move to another machine. The store's cluster.toml has to lie in the first folder, or\n--cluster names it.",
    example = "stevedore dstore --data /srv/dstore --controllers 10.0.0.1:7000 --listen 10.0.0.2\nstevedore dstore --data /disk1 --data /disk2 --controllers 10.0.0.1:7000 --listen 10.0.0.2"
)]
pub struct RunDstore {
    /// folder of a Dstore; may be given again for more of them
    #[argh(option, arg_name = "DIR")]
    pub data: Vec<PathBuf>,
    /// addresses of the Controllers, with commas in between (default: those in cluster.toml)
    #[argh(option, arg_name = "HOST:PORT,...", from_str_fn(addresses))]
    pub controllers: Option<Addresses>,
    /// port of the first Dstore, the next ones following (default 7100); 0 takes free ones
    #[argh(option, default = "DSTORE_PORT")]
    pub port: u16,
    /// address to listen on (default 127.0.0.1: this machine only)
    #[argh(option, arg_name = "ADDRESS", default = "LOOPBACK")]
    pub listen: IpAddr,
    /// host that others reach this machine by, if it listens on all its addresses
    #[argh(option, arg_name = "HOST")]
    pub advertise: Option<String>,
    /// name of this machine: copies of a file go to different ones (default: the machine's id)
    #[argh(option)]
    pub host: Option<String>,
    /// name of the room or building: copies of a file go to different ones (default: none)
    #[argh(option, default = "String::new()")]
    pub zone: String,
    /// when an object counts as kept: always (once it is on the disk; default), interval (it is within a second), never
    #[argh(option, default = "SyncMode::Always", from_str_fn(sync_mode))]
    pub sync: SyncMode,
    /// so many bytes a second a Dstore fetches from others to repair the store, as in 64M (default 128M)
    #[argh(option, arg_name = "SIZE", default = "dstore::COPY_RATE", from_str_fn(rate))]
    pub copy_rate: u64,
    /// more folders
    #[argh(positional, arg_name = "DIR")]
    pub folders: Vec<PathBuf>,
}

/// Where Controllers are.
pub type Addresses = Vec<Address>;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const CONTROLLER_PORT: u16 = 7000;
const DSTORE_PORT: u16 = 7100;
const GRACE: u64 = 60;
const KEEP_REMOVED: u64 = 600;

/// For argh.
fn addresses(words: &str) -> Result<Addresses, String> {
    words.split(',').map(|word| word.parse().map_err(|error| format!("{word:?}: {error}"))).collect()
}

/// For argh.
fn rate(word: &str) -> Result<u64, String> {
    read_bytes(word).filter(|bytes| *bytes > 0).ok_or_else(|| "expected a size, as in 64M".into())
}

fn healing(grace: u64, keep_removed: u64) -> HealingOptions {
    let (grace, keep_removed) = (Duration::from_secs(grace), Duration::from_secs(keep_removed));
    HealingOptions { grace, keep_removed, ..HealingOptions::default() }
}

/// For argh.
fn sync_mode(word: &str) -> Result<SyncMode, String> {
    match word {
        "always" => Ok(SyncMode::Always),
        "interval" => Ok(SyncMode::Interval),
        "never" => Ok(SyncMode::Never),
        _ => Err("expected always, interval or never".into()),
    }
}

impl Serve {
    /// Serves until a signal asks to end.
    pub fn run(&self) -> Result<(), Failure> {
        if self.folders.is_empty() {
            return Err(Failure::usage("serve which folder? As in: stevedore serve ~/store"));
        }
        let _log = program::start_log("warn")?;
        let end = signals::requests_to_end()?;
        let folders = DataFolder::claim_all(&self.folders)?;
        let at_most_three = Replicas::Number(folders.len().min(3) as u8);
        let new = NewStore { name: self.name.as_deref(), replicas: self.replicas, usual_replicas: at_most_three };
        let place = Place { listen: self.listen, advertise: self.advertise.as_deref() };
        let healing = healing(self.grace, self.keep_removed);
        let (controller, file) =
            start_controller(&folders, &new, &place, self.controller_port, self.sync, healing, "--controller-port")?;
        let machine = Machine { host: dstore::host_name(), zone: String::new(), copy_rate: dstore::COPY_RATE };
        let dstores = start_dstores(&folders, &file, &place, &machine, self.dstore_port, self.sync, "--dstore-port")?;
        let servers = Servers { dstores, controller: Some((controller, folders[0].path().to_owned())) };
        let client = file.write_client(folders[0].path())?;
        say(format_args!(
            "Store {:?}: a Controller and {} in this process",
            file.name,
            count(folders.len() as u64, "Dstore", "Dstores"),
        ))?;
        say(format_args!("  Controller  {:<21}  {}", file.controllers[0], folders[0].log().display()))?;
        for (dstore, folder) in servers.dstores.iter().zip(&folders) {
            say(format_args!("  Dstore      {:<21}  {}", dstore.address, folder.objects().display()))?;
        }
        if say_limits(&client, &servers, &end)? {
            say_next(&client, &place)?;
        }
        servers.wait(&end)
    }
}

impl RunController {
    /// Serves until a signal asks to end.
    pub fn run(&self) -> Result<(), Failure> {
        let _log = program::start_log("warn")?;
        let end = signals::requests_to_end()?;
        let folder = DataFolder::claim(&self.data)?;
        let new = NewStore { name: self.name.as_deref(), replicas: self.replicas, usual_replicas: Replicas::Number(3) };
        let place = Place { listen: self.listen, advertise: self.advertise.as_deref() };
        let folders = [folder];
        let healing = healing(self.grace, self.keep_removed);
        let (controller, file) = start_controller(&folders, &new, &place, self.port, self.sync, healing, "--port")?;
        let servers = Servers { dstores: Vec::new(), controller: Some((controller, folders[0].path().to_owned())) };
        let client = file.write_client(folders[0].path())?;
        let (address, cluster) = (&file.controllers[0], folders[0].cluster_file());
        say(format_args!("Controller of the store {:?} at {address}", file.name))?;
        say(format_args!("Each Dstore needs a copy of {} in its folder DIR, then:", cluster.display()))?;
        say(format_args!("  stevedore dstore --data DIR --controllers {address}"))?;
        say_next(&client, &place)?;
        servers.wait(&end)
    }
}

impl RunDstore {
    /// Serves until a signal asks to end. `cluster` is the store's `cluster.toml`, or its folder.
    pub fn run(&self, cluster: Option<&Path>) -> Result<(), Failure> {
        let paths: Vec<PathBuf> = self.data.iter().chain(&self.folders).cloned().collect();
        let Some(first) = paths.first() else { return Err(Failure::usage("--data says in which folder")) };
        let _log = program::start_log("warn")?;
        let end = signals::requests_to_end()?;
        let folders = DataFolder::claim_all(&paths)?;
        let named = cluster.unwrap_or(first);
        let mut file = ClusterFile::read(named)?.ok_or_else(|| {
            Failure::new(format!(
                "{}: there is no cluster.toml; copy it there from the Controller's folder, so that this Dstore is let in",
                named.display()
            ))
        })?;
        if let Some(controllers) = &self.controllers {
            file.controllers.clone_from(controllers);
        }
        let place = Place { listen: self.listen, advertise: self.advertise.as_deref() };
        let machine = Machine {
            host: self.host.clone().unwrap_or_else(dstore::host_name),
            zone: self.zone.clone(),
            copy_rate: self.copy_rate,
        };
        let dstores = start_dstores(&folders, &file, &place, &machine, self.port, self.sync, "--port")?;
        for (dstore, folder) in dstores.iter().zip(&folders) {
            let folder = folder.objects();
            say(format_args!("Dstore of the store {:?} at {} in {}", file.name, dstore.address, folder.display()))?;
        }
        Servers { dstores, controller: None }.wait(&end)
    }
}

/// Says what is wrong with the store, and what it does not survive, once all Dstores have joined. (depot 1.1)
/// False if the store cannot go on.
fn say_limits(client: &Path, servers: &Servers, end: &Receiver<Signal>) -> Result<bool, Failure> {
    /// Longer than Dstores take to join, unless something is wrong: then the log says it.
    const PATIENCE: Duration = Duration::from_secs(5);
    const PERIOD: Duration = Duration::from_millis(20);
    let store = cluster::connect(Some(client))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if servers.failure().is_some() {
            return Ok(false); // said at the end
        }
        let status = match store.status() {
            Ok(status) => status,
            Err(error) => {
                // Behind a translated address it may be reached from outside only.
                log::warn!("the Controller is not reached at its own address from here: {error}");
                return Ok(true);
            }
        };
        let there = status.dstores.iter().filter(|dstore| dstore.state == DstoreState::Present).count();
        if there >= servers.dstores.len() || Instant::now() >= deadline || !end.is_empty() {
            if !status.problems.is_empty() {
                say(format_args!("Problems:"))?;
                status.problems.iter().try_for_each(|problem| say(format_args!("  ! {problem}")))?;
            }
            say(format_args!("It does not survive:"))?;
            status.limits.iter().try_for_each(|limit| say(format_args!("  - {limit}")))?;
            return Ok(true);
        }
        thread::sleep(PERIOD);
    }
}

fn say_next(client: &Path, place: &Place<'_>) -> Result<(), Failure> {
    let elsewhere = if place.listen.is_loopback() { "" } else { ", or on another machine with a copy of this file" };
    say(format_args!("In another terminal{elsewhere}:"))?;
    say(format_args!("  export {VARIABLE}={}", crate::words::quote(&client.display().to_string())))?;
    say(format_args!("  stevedore put -r ~/Documents /docs"))?;
    say(format_args!("  stevedore status"))
}

/// What a store is made as, unless there is one.
struct NewStore<'a> {
    name: Option<&'a str>,
    replicas: Option<Replicas>,
    /// If the command line does not say.
    usual_replicas: Replicas,
}

impl NewStore<'_> {
    /// Where there is a store already, what was said of a new one is not obeyed. The person is told.
    fn warn_of_old(&self, file: &ClusterFile) {
        if self.name.is_some_and(|name| name != file.name) {
            log::warn!("--name is for a new store: this one is called {:?}", file.name);
        }
        if self.replicas.is_some() {
            log::warn!("--replicas is for a new store: stevedore set replicas changes it in this one");
        }
    }
}

/// Where servers listen, and where others reach them.
struct Place<'a> {
    listen: IpAddr,
    advertise: Option<&'a str>,
}

impl Place<'_> {
    fn bind(&self, port: u16, what: &str, option: &str) -> Result<(TcpListener, Address), Failure> {
        let wanted = SocketAddr::new(self.listen, port);
        let listener = stevedore::server::listen(Some(self.listen), port).map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    format!("; another process has that port, perhaps another store: {option} 0 takes a free one")
                }
                _ => String::new(),
            };
            Failure::new(format!("the {what} cannot listen on {wanted}: {error}{advice}"))
        })?;
        let bound = listener.local_addr().map_err(Failure::new)?;
        let address = match self.advertise {
            None if self.listen.is_unspecified() => {
                return Err(Failure::usage(
                    "--listen on all addresses needs --advertise HOST: where others reach this machine",
                ));
            }
            None => Address::from(bound),
            Some(host) => {
                let is_v6 = host.contains(':') && !host.starts_with('[');
                let host = if is_v6 { format!("[{host}]") } else { host.to_owned() };
                let address = format!("{host}:{}", bound.port()).parse();
                address.map_err(|error| Failure::usage(format!("--advertise {host}: {error}")))?
            }
        };
        Ok((listener, address))
    }
}

/// Starts the Controller of the store in these folders, or of a new one.
fn start_controller(
    folders: &[DataFolder],
    new: &NewStore<'_>,
    place: &Place<'_>,
    port: u16,
    sync: SyncMode,
    healing: HealingOptions,
    port_option: &str,
) -> Result<(controller::Handle, ClusterFile), Failure> {
    let mut file = store_in(folders, new.name.unwrap_or("depot"))?;
    if folders[0].has_log()? {
        new.warn_of_old(&file);
    }
    let (listener, address) = place.bind(port, "Controller", port_option)?;
    file.controllers = vec![address.clone()];
    // Before there is a log: a log without its file would be taken for a loss.
    file.write(&folders[0].cluster_file())?;
    let options = controller::Options {
        data: folders[0].log(),
        cluster: file.cluster,
        name: file.name.clone(),
        settings: Settings { replicas: new.replicas.unwrap_or(new.usual_replicas), ..Settings::default() },
        secret: file.secret.clone(),
        listener,
        address,
        replica: ReplicaOptions { sync, ..ReplicaOptions::default() },
        settling: controller::SETTLING,
        backup_period: controller::BACKUP_PERIOD,
        healing,
    };
    let controller = controller::Handle::start(options).map_err(|error| {
        let advice = recovery::advice(folders[0].path(), &error);
        Failure::new(format!("the Controller does not start: {error}{advice}"))
    })?;
    Ok((controller, file))
}

/// The machine that Dstores are on.
struct Machine {
    host: String,
    zone: String,
    /// So many bytes a second each of them fetches from others.
    copy_rate: u64,
}

/// A Dstore, and where it is reached.
struct RunningDstore {
    handle: dstore::Handle,
    address: Address,
}

/// Starts a Dstore in each folder.
fn start_dstores(
    folders: &[DataFolder],
    file: &ClusterFile,
    place: &Place<'_>,
    machine: &Machine,
    first_port: u16,
    sync: SyncMode,
    port_option: &str,
) -> Result<Vec<RunningDstore>, Failure> {
    let ports = (0..).map(|number| if first_port == 0 { 0 } else { first_port.saturating_add(number) });
    let start = |(folder, port): (&DataFolder, u16)| {
        let (listener, address) = place.bind(port, "Dstore", port_option)?;
        let options = dstore::Options {
            data: folder.objects(),
            cluster: file.cluster,
            secret: file.secret.clone(),
            controllers: file.controllers.clone(),
            listener,
            address: address.clone(),
            host: machine.host.clone(),
            zone: machine.zone.clone(),
            disk: pack::Options { sync, ..pack::Options::default() },
            scrub_period: dstore::SCRUB_PERIOD,
            gives_up_after: dstore::GIVES_UP_AFTER,
            copy_rate: machine.copy_rate,
        };
        let handle = dstore::Handle::start(options);
        let handle = handle.map_err(|error| Failure::new(format!("a Dstore does not start: {error}")))?;
        Ok(RunningDstore { handle, address })
    };
    folders.iter().zip(ports).map(start).collect()
}

/// What runs in this process.
struct Servers {
    dstores: Vec<RunningDstore>,
    /// With its folder.
    controller: Option<(controller::Handle, PathBuf)>,
}

impl Servers {
    /// Waits for a signal, or for a server that cannot go on, and ends all of them in order.
    fn wait(mut self, end: &Receiver<Signal>) -> Result<(), Failure> {
        /// How often servers are asked whether they can go on.
        const PERIOD: Duration = Duration::from_millis(500);
        let failure = loop {
            match end.recv_timeout(PERIOD) {
                Err(error) if error.is_timeout() => {
                    self.drop_failed();
                    if let Some(failure) = self.failure() {
                        break Some(failure);
                    }
                }
                _ => break None,
            }
        };
        // Dstores end before the Controller that they report to, which is not to complain, and sends them a last backup before.
        if let Some((controller, _)) = &self.controller {
            controller.expect_end();
        }
        self.dstores.clear();
        let closed = self.controller.take().map_or(Ok(()), |(controller, _)| controller.stop());
        match failure {
            Some(failure) => Err(Failure::new(failure)),
            None => closed.map_err(|error| Failure::new(format!("the log was not closed in order: {error}"))),
        }
    }

    /// Ends Dstores that cannot go on, usually for their disk. The others do.
    fn drop_failed(&mut self) {
        self.dstores.retain(|dstore| {
            let failure = dstore.handle.failure();
            if let Some(failure) = &failure {
                log::error!("the Dstore at {} ends: {failure}", dstore.address);
            }
            failure.is_none()
        });
    }

    /// Why there is nothing left to run.
    fn failure(&self) -> Option<String> {
        match &self.controller {
            Some((controller, folder)) => controller.failure().map(|failure| match controller.refused() {
                Some(refused) => format!("{failure}. {}", recovery::advice_when_refused(folder, &refused)),
                None => failure,
            }),
            None if self.dstores.is_empty() => Some("no Dstore is left that can go on".to_owned()),
            None => None,
        }
    }
}
