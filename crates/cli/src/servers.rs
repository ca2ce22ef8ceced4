//! `serve`, `controller`, `dstore`: the servers of a store. (depot 10)

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use argh::FromArgs;
use crossbeam_channel::Receiver;
use depot::client::{ControllerRole, ControllerStatus, DstoreState, Files};
use depot::controller::{self, Beginning, HealingOptions};
use depot::discovery::{self, Responder};
use depot::dstore;
use depot::log::{ReplicaOptions, SyncMode};
use depot::namespace::change::{Replicas, Settings};
use depot::pack;
use depot::wire::Address;
use gateway::monitoring::{Admin, Watched};
use gateway::names;
use rustix::process::{Signal as SystemSignal, getpid, kill_process};
use stevedore::program::output::say;
use stevedore::program::signals::{self, Signal};
use stevedore::program::{self, Failure};

use crate::admin;
use crate::cluster::{self, ClusterFile, VARIABLE};
use crate::commands::gateway::{self as gateways, Credentials, FIRST_ADMIN, HTTP_PORT, Running, S3Listener};
use crate::commands::put::replicas as read_replicas;
use crate::commands::store::bytes as read_bytes;
use crate::discover;
use crate::folder::{DataFolder, store_in};
use crate::recovery;
use crate::show::count;

/// Run a whole store in one process.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "serve",
    note = "A Controller, a Dstore in each folder, and a gateway for HTTP and S3. The first start makes the store; each later one goes on with it. It ends\nwith SIGTERM or Ctrl-C.",
    note = "Give each disk a folder of its own, and always name them in the same order. The first folder also has the log, and\ncluster.toml and client.toml. With several folders, a file is kept in three of them, or as --replicas says; with three\nor more, the metadata is kept in three as well, by three Controllers.",
    example = "stevedore serve ~/store\nstevedore serve /disk1/store /disk2/store /disk3/store\nstevedore serve --controller-port 0 --dstore-port 0 /tmp/store"
)]
pub struct Serve {
    /// name of a new store (default: depot)
    #[argh(option)]
    pub name: Option<String>,
    /// on how many Dstores a new store keeps a file: a number, or all (default: 3, or as many as there are folders)
    #[argh(option, arg_name = "R", from_str_fn(read_replicas))]
    pub replicas: Option<Replicas>,
    /// how many Controllers a new store has (default: 3 with three folders and more, else 1)
    #[argh(option, arg_name = "N")]
    pub controllers: Option<usize>,
    /// port of the first Controller, the next ones following (default 7000); 0 takes free ones
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
    /// seconds after its start for which a Controller keeps what no file names: puts may be under way (default 600)
    #[argh(option, arg_name = "SECONDS", default = "MARGIN")]
    pub margin: u64,
    /// seconds for which a client's unfinished put is kept without a sign of life (default 60)
    #[argh(option, arg_name = "SECONDS", default = "LEASE")]
    pub lease: u64,
    /// port of UDP on which Controllers that listen beyond this machine answer --discover (default 7000)
    #[argh(option, arg_name = "PORT", default = "discovery::PORT")]
    pub discovery_port: u16,
    /// port of HTTP (default 8080); 0 takes a free one
    #[argh(option, arg_name = "PORT")]
    pub http: Option<u16>,
    /// port of S3 (default 9000); 0 takes a free one
    #[argh(option, arg_name = "PORT")]
    pub s3: Option<u16>,
    /// do not offer S3
    #[argh(switch)]
    pub no_s3: bool,
    /// offer neither HTTP nor S3
    #[argh(switch)]
    pub no_gateway: bool,
    /// certificate of this machine (PEM): the gateway speaks HTTPS
    #[argh(option, arg_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// private key of the certificate (PEM)
    #[argh(option, arg_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// let all who reach the gateway read and write without a user, also on an address that others reach
    #[argh(switch)]
    pub open: bool,
    /// memory for small files that were read lately (default 64M), or redis://HOST:PORT for a server that keeps them for
    /// several gateways; 0 keeps none
    #[argh(option, arg_name = "SIZE", default = "gateways::CACHE", from_str_fn(gateways::cache_choice))]
    pub cache: gateways::CacheChoice,
    /// log each request to the gateway there, in the common log format; - prints
    #[argh(option, arg_name = "FILE")]
    pub access_log: Option<PathBuf>,
    /// offer metrics and health there, as in 7900 or 10.0.0.1:7900 (default: not at all)
    #[argh(option, arg_name = "[ADDRESS:]PORT", from_str_fn(admin::address))]
    pub admin: Option<SocketAddr>,
    /// file that says what options say; with --name, what it says of the server of that name (docs/deployment.md)
    #[argh(option, arg_name = "FILE")]
    pub config: Option<PathBuf>,
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
    note = "Three Controllers go on when one of them is lost. To begin with three, name all of them with --peers, the same way on\neach machine: the first one makes the store and writes cluster.toml; copy that to the folders of the others before they\nare started. To add one later, start it with --join and a copy of cluster.toml, then: stevedore controllers add.",
    example = "stevedore controller --data /srv/controller --listen 10.0.0.1\nscp /srv/controller/cluster.toml other:/srv/dstore/\nssh other stevedore dstore --data /srv/dstore --controllers 10.0.0.1:7000 --listen 10.0.0.2"
)]
pub struct RunController {
    /// folder of the log; the first start makes the store
    #[argh(option, arg_name = "DIR")]
    pub data: PathBuf,
    /// all Controllers that a new store begins with, with commas in between; this one is among them
    #[argh(option, arg_name = "HOST:PORT,...", from_str_fn(addresses))]
    pub peers: Option<Addresses>,
    /// wait to be added to a store that there is, with an empty folder
    #[argh(switch)]
    pub join: bool,
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
    /// seconds after its start for which a Controller keeps what no file names: puts may be under way (default 600)
    #[argh(option, arg_name = "SECONDS", default = "MARGIN")]
    pub margin: u64,
    /// seconds for which a client's unfinished put is kept without a sign of life (default 60)
    #[argh(option, arg_name = "SECONDS", default = "LEASE")]
    pub lease: u64,
    /// port of UDP on which Controllers that listen beyond this machine answer --discover (default 7000)
    #[argh(option, arg_name = "PORT", default = "discovery::PORT")]
    pub discovery_port: u16,
    /// offer metrics and health there, as in 7900 or 10.0.0.1:7900 (default: not at all)
    #[argh(option, arg_name = "[ADDRESS:]PORT", from_str_fn(admin::address))]
    pub admin: Option<SocketAddr>,
    /// end when stdin ends, as it does when the program that has started this one is gone
    #[argh(switch)]
    pub ends_with_stdin: bool,
    /// file that says what options say; with --name, what it says of the server of that name (docs/deployment.md)
    #[argh(option, arg_name = "FILE")]
    pub config: Option<PathBuf>,
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
    /// so many bytes a second a Dstore fetches from others to repair the store, as in 64M; an object of less than 64 KiB counts
    /// as 64 KiB (default 128M)
    #[argh(option, arg_name = "SIZE", default = "dstore::COPY_RATE", from_str_fn(rate))]
    pub copy_rate: u64,
    /// so many bytes of its disk a Dstore uses at most, as in 500G (default: all)
    #[argh(option, arg_name = "SIZE", from_str_fn(rate))]
    pub capacity: Option<u64>,
    /// answer the broadcasts by which a name server looks for storages (docs/wires.md)
    #[argh(switch)]
    pub names: bool,
    /// port of UDP that they come to; the answer goes to the next one (default 3501)
    #[argh(option, arg_name = "PORT", default = "names::DISCOVERY")]
    pub names_discovery: u16,
    /// offer metrics and health there, as in 7900 or 10.0.0.1:7900 (default: not at all)
    #[argh(option, arg_name = "[ADDRESS:]PORT", from_str_fn(admin::address))]
    pub admin: Option<SocketAddr>,
    /// end when stdin ends, as it does when the program that has started this one is gone
    #[argh(switch)]
    pub ends_with_stdin: bool,
    /// file that says what options say; with --name, what it says of the server of that name (docs/deployment.md)
    #[argh(option, arg_name = "FILE")]
    pub config: Option<PathBuf>,
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
const MARGIN: u64 = 600;
const LEASE: u64 = 60;

/// For argh.
pub fn addresses(words: &str) -> Result<Addresses, String> {
    words.split(',').map(|word| word.parse().map_err(|error| format!("{word:?}: {error}"))).collect()
}

/// For argh.
fn rate(word: &str) -> Result<u64, String> {
    read_bytes(word).filter(|bytes| *bytes > 0).ok_or_else(|| "expected a size, as in 64M".into())
}

fn healing(grace: u64, keep_removed: u64, margin: u64, lease: u64) -> HealingOptions {
    let [grace, keep_removed, margin, lease] = [grace, keep_removed, margin, lease].map(Duration::from_secs);
    HealingOptions { grace, keep_removed, margin, lease, ..HealingOptions::default() }
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
        let end = signals::requests_to_end(signals::GRACE_FOR_DISKS)?;
        let folders = DataFolder::claim_all(&self.folders)?;
        let is_new = DataFolder::first_with_log(&folders)?.is_none();
        let at_most_three = Replicas::Number(folders.len().min(3) as u8);
        let new = NewStore { name: self.name.as_deref(), replicas: self.replicas, usual_replicas: at_most_three };
        let place = Place { listen: self.listen, advertise: self.advertise.as_deref() };
        let healing = healing(self.grace, self.keep_removed, self.margin, self.lease);
        let mut file = store_in(&folders, self.name.as_deref().unwrap_or("depot"))?;
        let setup = Setup { new: &new, place: &place, sync: self.sync, healing };
        let controllers = start_controllers(&folders, &mut file, &setup, self.controllers, self.controller_port)?;
        let machine =
            Machine { host: dstore::host_name(), zone: String::new(), copy_rate: dstore::COPY_RATE, capacity: None };
        let dstores = start_dstores(&folders, &file, &place, &machine, self.dstore_port, self.sync, "--dstore-port")?;
        let client = file.write_client(folders[0].path())?;
        say(format_args!(
            "Store {:?}: {} and {} in this process",
            file.name,
            if controllers.len() == 1 { "a Controller".into() } else { format!("{} Controllers", controllers.len()) },
            count(folders.len() as u64, "Dstore", "Dstores"),
        ))?;
        for controller in &controllers {
            say(format_args!("  Controller  {:<21}  {}", controller.address, controller.log.display()))?;
        }
        let homes = folders.iter().map(|folder| folder.path().to_owned()).collect();
        let mut servers = Servers { dstores, controllers, gateway: None, admin: None, responder: None, file, homes };
        for (dstore, folder) in servers.dstores.iter().zip(&folders) {
            say(format_args!("  Dstore      {:<21}  {}", dstore.address, folder.objects().display()))?;
        }
        servers.respond(self.listen, self.discovery_port);
        servers.gateway = self.start_gateway(&servers.file, is_new)?;
        servers.admin = admin::start(self.admin, servers.watched())?;
        if say_limits(&client, &servers, &end)? {
            say_next(&client, &place, servers.gateway.as_ref())?;
        }
        servers.wait(&end)
    }

    /// Starts the gateway, if there is to be one, and says where it is.
    ///
    /// A port that was not asked for may be taken, by another store for example: the store itself is not to fail for that.
    fn start_gateway(&self, file: &ClusterFile, is_new: bool) -> Result<Option<Running>, Failure> {
        if self.no_gateway {
            return Ok(None);
        }
        let store = file.new_client().map_err(Failure::new)?.connect();
        let is_here = self.listen.is_loopback();
        let admin = if is_new && is_here { Some(gateways::add_first_admin(&store)?) } else { None };
        let lets_in = is_here || self.open || gateways::has_users(&store)?;
        let address = if lets_in { self.listen } else { LOOPBACK };
        let s3 = S3Listener::bind(address, self.s3, gateways::S3_PORT, self.no_s3)?;
        let address = SocketAddr::new(address, self.http.unwrap_or(HTTP_PORT));
        let tls = gateways::tls(self.tls_cert.as_deref(), self.tls_key.as_deref())?;
        let access_log = admin::access_log(self.access_log.as_deref())?;
        let how =
            gateways::How { s3, facades: Vec::new(), tls, is_open: self.open, access_log, cache: self.cache.clone() };
        let gateway = match Running::on(address, store, how) {
            Ok(gateway) => Some(gateway),
            Err(failure) if self.http.is_none() => {
                say(format_args!("  HTTP        none: {}", failure.message))?;
                None
            }
            Err(failure) => return Err(failure),
        };
        if let Some(gateway) = &gateway {
            say(format_args!("  HTTP        {}", gateway.url()))?;
            gateway.say_s3()?;
            if !lets_in {
                say(format_args!(
                    "    on this machine only: there are no users (stevedore user add), nor does --open say otherwise"
                ))?;
            }
        }
        if let Some(Credentials { password, key, secret }) = admin {
            say(format_args!(
                "    user {FIRST_ADMIN}, password {password}: said only now; stevedore user password changes it"
            ))?;
            say(format_args!(
                "    access key {key}, secret {}: for S3; stevedore user key add draws another one",
                secret.as_str()
            ))?;
        }
        Ok(gateway)
    }
}

impl RunController {
    /// Serves until a signal asks to end. `cluster` is the store's `cluster.toml`, or its folder, for a new Controller of it.
    pub fn run(&self, cluster: Option<&Path>) -> Result<(), Failure> {
        let _log = program::start_log("warn")?;
        let end = requests_to_end(self.ends_with_stdin)?;
        let folder = DataFolder::claim(&self.data)?;
        let place = Place { listen: self.listen, advertise: self.advertise.as_deref() };
        let new = NewStore { name: self.name.as_deref(), replicas: self.replicas, usual_replicas: Replicas::Number(3) };
        let has_log = folder.has_log()?;
        let (listener, address) = place.bind(self.port, "Controller", "--port")?;
        let peers = self.peers.as_deref().filter(|_| !has_log).unwrap_or_default();
        if !peers.is_empty() && !peers.contains(&address) {
            let why = format!(
                "this Controller is at {address}, which is not among --peers: see --listen, --advertise and --port"
            );
            return Err(Failure::usage(why));
        }
        let joins = !has_log && (self.join || peers.first().is_some_and(|first| *first != address));
        if let Some(named) = cluster {
            let none = || Failure::new(format!("{}: there is no cluster.toml", named.display()));
            let given = ClusterFile::read(named)?.ok_or_else(none)?;
            match ClusterFile::read(&folder.cluster_file())? {
                None => given.write(&folder.cluster_file())?,
                Some(known) if known.cluster == given.cluster && known.secret != given.secret => {
                    ClusterFile { secret: given.secret, ..known }.write(&folder.cluster_file())?;
                }
                Some(_) => {}
            }
        }
        if joins && ClusterFile::read(folder.path())?.is_none() {
            return Err(Failure::new(format!(
                "{}: there is no cluster.toml; copy it there from the first Controller's folder, so that this one is let in",
                folder.path().display()
            )));
        }
        let folders = [folder];
        let mut file = store_in(&folders, new.name.unwrap_or("depot"))?;
        if has_log {
            new.warn_of_old(&file);
        }
        if file.controllers.is_empty() {
            file.controllers = if peers.is_empty() { vec![address.clone()] } else { peers.to_vec() };
        }
        // Before there is a log: a log without its file would be taken for a loss.
        file.write(&folders[0].cluster_file())?;
        let beginning = match peers {
            _ if joins => Beginning::Join,
            [] => Beginning::alone(),
            _ => match wait_for_peers(&file, &address, peers, &folders[0], &end)? {
                Some(beginning) => beginning,
                None => return Ok(()),
            },
        };
        let healing = healing(self.grace, self.keep_removed, self.margin, self.lease);
        let setup = Setup { new: &new, place: &place, sync: self.sync, healing };
        let controller = start_controller(folders[0].log(), &file, &setup, (listener, address.clone()), beginning)?;
        let waits = controller.handle.waits();
        if controller.handle.is_alone() && peers.is_empty() {
            file.controllers = vec![address.clone()]; // it may have been elsewhere before, or one of several
            file.write(&folders[0].cluster_file())?;
        }
        let homes = vec![folders[0].path().to_owned()];
        let name = file.name.clone();
        let dstores = Vec::new();
        let mut servers = Servers {
            dstores,
            controllers: vec![controller],
            gateway: None,
            admin: None,
            responder: None,
            file,
            homes,
        };
        servers.refresh_addresses()?;
        servers.respond(self.listen, self.discovery_port);
        let client = servers.file.write_client(folders[0].path())?;
        let cluster = folders[0].cluster_file();
        say(format_args!("{}", announcement(&name, &address)))?;
        servers.admin = admin::start(self.admin, servers.watched())?;
        if waits {
            say(format_args!(
                "It waits to be added to the store. Unless it is one of those that the store begins with:"
            ))?;
            say(format_args!("  stevedore controllers add {address}"))?;
            say(format_args!("or, in place of one whose disk is lost, which stevedore controllers list names:"))?;
            say(format_args!("  stevedore controllers replace ID {address}"))?;
        } else {
            say(format_args!("Each Dstore needs a copy of {} in its folder DIR, then:", cluster.display()))?;
            say(format_args!("  stevedore dstore --data DIR --controllers {address}"))?;
        }
        say_next(&client, &place, None)?;
        servers.wait(&end)
    }
}

/// What a Controller says once it takes connections; [`announced`] reads it.
fn announcement(name: &str, address: &Address) -> String {
    format!("Controller of the store {name:?} at {address}")
}

/// Where the Controller is that says this line; `None` if it is another line.
pub fn announced(line: &str) -> Option<Address> {
    let (_, address) = line.strip_prefix("Controller of the store ")?.rsplit_once(" at ")?;
    address.parse().ok()
}

/// For a server's main: a signal to end, or, where that is asked for, the end of stdin.
fn requests_to_end(ends_with_stdin: bool) -> Result<Receiver<Signal>, Failure> {
    let asked = signals::requests_to_end(signals::GRACE_FOR_DISKS)?;
    if ends_with_stdin {
        let read_to_end = || {
            let _ = io::copy(&mut io::stdin(), &mut io::sink()); // one that cannot be read has ended
            let _ = kill_process(getpid(), SystemSignal::TERM); // this process is there
        };
        let reader = thread::Builder::new().name("stdin".into()).spawn(read_to_end);
        reader.map_err(|error| Failure::new(format!("cannot start a thread: {error}")))?;
    }
    Ok(asked)
}

/// Waits until all other Controllers of a new store are there, with empty folders. `None` if it is to end before. (depot 4.7)
fn wait_for_peers(
    file: &ClusterFile,
    ours: &Address,
    peers: &[Address],
    folder: &DataFolder,
    end: &Receiver<Signal>,
) -> Result<Option<Beginning>, Failure> {
    const PERIOD: Duration = Duration::from_millis(500);
    let mut last_said = String::new();
    loop {
        let mut others = Vec::new();
        let mut missing = Vec::new();
        for address in peers.iter().filter(|address| *address != ours) {
            match controller::who_is_at(address, file.cluster, &file.secret) {
                Ok(who) if who.waits => others.push((who.id, address.clone())),
                Ok(_) => {
                    say(format_args!(
                        "The Controller at {address} has a log: the store was made before, and this folder is empty. If the disk of \
                         this Controller was lost: stevedore controllers list, then stevedore controllers replace ID {ours}"
                    ))?;
                    return Ok(Some(Beginning::Join));
                }
                Err(why) => missing.push(format!("{address}: {why}")),
            }
        }
        if missing.is_empty() {
            return Ok(Some(Beginning::Create { others }));
        }
        let said = missing.join("; ");
        if said != last_said {
            let cluster = folder.cluster_file();
            say(format_args!("The store is made when all are there. Each needs a copy of {}", cluster.display()))?;
            missing.iter().try_for_each(|missing| say(format_args!("  {missing}")))?;
            last_said = said;
        }
        if end.recv_timeout(PERIOD).is_ok() {
            return Ok(None);
        }
    }
}

impl RunDstore {
    /// Serves until a signal asks to end. `cluster` is the store's `cluster.toml`, or its folder.
    pub fn run(&self, cluster: Option<&Path>) -> Result<(), Failure> {
        let paths: Vec<PathBuf> = self.data.iter().chain(&self.folders).cloned().collect();
        let Some(first) = paths.first() else { return Err(Failure::usage("--data says in which folder")) };
        let _log = program::start_log("warn")?;
        let end = requests_to_end(self.ends_with_stdin)?;
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
        discover::for_dstore(&mut file)?;
        let place = Place { listen: self.listen, advertise: self.advertise.as_deref() };
        let machine = Machine {
            host: self.host.clone().unwrap_or_else(dstore::host_name),
            zone: self.zone.clone(),
            copy_rate: self.copy_rate,
            capacity: self.capacity,
        };
        let dstores = start_dstores(&folders, &file, &place, &machine, self.port, self.sync, "--port")?;
        for (dstore, folder) in dstores.iter().zip(&folders) {
            let folder = folder.objects();
            say(format_args!("Dstore of the store {:?} at {} in {}", file.name, dstore.address, folder.display()))?;
        }
        let _answering = self.names.then(|| answer_discovery(self.names_discovery)).transpose()?;
        let homes = Vec::new(); // it does not write the store's files
        let mut servers =
            Servers { dstores, controllers: Vec::new(), gateway: None, admin: None, responder: None, file, homes };
        servers.admin = admin::start(self.admin, servers.watched())?;
        servers.wait(&end)
    }
}

/// Answers the broadcasts of a name server until what is returned is dropped.
fn answer_discovery(port: u16) -> Result<names::Answering, Failure> {
    let started = names::Answering::start(port, port.saturating_add(1));
    started.map_err(|error| Failure::new(format!("--names: port {port} of UDP: {error}")))
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
        let votes = |controller: &&ControllerStatus| {
            matches!(controller.role, ControllerRole::Leader | ControllerRole::Follower)
        };
        let voters = status.controllers.iter().filter(votes).count();
        let are_there = there >= servers.dstores.len() && voters >= servers.controllers.len();
        if are_there || Instant::now() >= deadline || !end.is_empty() {
            if !status.problems.is_empty() {
                say(format_args!("Problems:"))?;
                status.problems.iter().try_for_each(|problem| say(format_args!("  ! {problem}")))?;
            }
            say(format_args!("It does not survive:"))?;
            status.limits.iter().try_for_each(|limit| say(format_args!("  - {limit}")))?;
            say_replacements(servers, &status.controllers)?;
            return Ok(true);
        }
        thread::sleep(PERIOD);
    }
}

/// Where a folder has lost the log of a Controller: what to type. The folder may also be that of a disk that is not mounted, so it
/// is not done without a word.
fn say_replacements(servers: &Servers, known: &[ControllerStatus]) -> Result<(), Failure> {
    let is_lost = |one: &&ControllerStatus| {
        let is_here = |controller: &RunningController| controller.handle.id() == Some(one.id);
        !servers.controllers.iter().any(is_here) && one.silence.is_none()
    };
    let waiting = servers.controllers.iter().filter(|controller| controller.handle.waits());
    for (new, lost) in waiting.zip(known.iter().filter(is_lost)) {
        say(format_args!("The log of Controller {} is not in {}. If its disk is lost:", lost.id, new.log.display()))?;
        say(format_args!("  stevedore controllers replace {} {}", lost.id, new.address))?;
    }
    Ok(())
}

fn say_next(client: &Path, place: &Place<'_>, gateway: Option<&Running>) -> Result<(), Failure> {
    let elsewhere = if place.listen.is_loopback() { "" } else { ", or on another machine with a copy of this file" };
    say(format_args!("In another terminal{elsewhere}:"))?;
    say(format_args!("  export {VARIABLE}={}", crate::words::quote(&client.display().to_string())))?;
    say(format_args!("  stevedore put -r ~/Documents /docs"))?;
    gateway.map_or(Ok(()), Running::say_next)?;
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
    /// The host by which others reach servers here, without brackets.
    fn host(&self) -> String {
        let host = self.advertise.map_or_else(|| self.listen.to_string(), str::to_owned);
        host.trim_start_matches('[').trim_end_matches(']').to_owned()
    }

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

/// What all Controllers of a process are started with.
struct Setup<'a> {
    new: &'a NewStore<'a>,
    place: &'a Place<'a>,
    sync: SyncMode,
    healing: HealingOptions,
}

/// A Controller, where it is reached, and where its log is.
struct RunningController {
    handle: controller::Handle,
    address: Address,
    log: PathBuf,
}

/// Starts a Controller on a log of its own.
fn start_controller(
    log: PathBuf,
    file: &ClusterFile,
    setup: &Setup<'_>,
    (listener, address): (TcpListener, Address),
    beginning: Beginning,
) -> Result<RunningController, Failure> {
    let Setup { new, sync, healing, .. } = *setup;
    let options = controller::Options {
        data: log.clone(),
        cluster: file.cluster,
        name: file.name.clone(),
        settings: Settings { replicas: new.replicas.unwrap_or(new.usual_replicas), ..Settings::default() },
        secret: file.secret.clone(),
        listener,
        address: address.clone(),
        replica: ReplicaOptions { sync, ..ReplicaOptions::default() },
        settling: controller::SETTLING,
        backup_period: controller::BACKUP_PERIOD,
        beginning,
        healing,
    };
    let handle = controller::Handle::start(options).map_err(|error| {
        let advice = recovery::advice(log.parent().unwrap_or(&log), &error);
        Failure::new(format!("the Controller does not start: {error}{advice}"))
    })?;
    Ok(RunningController { handle, address, log })
}

/// Starts the Controllers of the store in these folders, or of a new one. The logs that there are say how many; where a folder has
/// lost its log, a new Controller waits to take the lost one's place.
fn start_controllers(
    folders: &[DataFolder],
    file: &mut ClusterFile,
    setup: &Setup<'_>,
    wanted: Option<usize>,
    first_port: u16,
) -> Result<Vec<RunningController>, Failure> {
    const MOST: usize = 9;
    if wanted.is_some_and(|wanted| !(1..=MOST).contains(&wanted)) {
        return Err(Failure::usage(format!("a store has 1 to {MOST} Controllers")));
    }
    let is_new = DataFolder::first_with_log(folders)?.is_none();
    let mut places: Vec<(usize, PathBuf)> =
        (0..MOST).map(|k| (k, folders[k % folders.len()].log_at(k / folders.len()))).collect();
    if is_new {
        places.truncate(wanted.unwrap_or(if folders.len() >= 3 { 3 } else { 1 }));
    } else {
        setup.new.warn_of_old(file);
        let is_here = |address: &&Address| address.host() == setup.place.host();
        let before = file.controllers.iter().filter(is_here).count().min(folders.len());
        let (mut there, mut lost) = (Vec::new(), Vec::new());
        for (k, log) in places {
            if DataFolder::has_log_in(&log)? {
                there.push((k, log));
            } else if k < before {
                lost.push((k, log));
            }
        }
        // A log first: it knows whether there are others.
        there.extend(lost);
        places = there;
        if wanted.is_some_and(|wanted| wanted != places.len()) {
            log::warn!("--controllers is for a new store: stevedore controllers add and remove change it in this one");
        }
    }
    let port = |k: usize| if first_port == 0 { 0 } else { first_port.saturating_add(k as u16) };
    let bound = places.iter().map(|(k, _)| setup.place.bind(port(*k), "Controller", "--controller-port"));
    let bound: Vec<(TcpListener, Address)> = bound.collect::<Result<_, _>>()?;
    file.controllers = bound.iter().map(|(_, address)| address.clone()).collect();
    // Before there is a log: a log without its file would be taken for a loss.
    for (k, _) in places.iter().take(folders.len()) {
        file.write(&folders[*k % folders.len()].cluster_file())?;
    }
    let mut rows = places.into_iter().map(|(_, log)| log).zip(bound);
    let (log, first) = rows.next().expect("there is a first place");
    let mut controllers = Vec::new();
    if !is_new {
        let controller = start_controller(log.clone(), file, setup, first, Beginning::Join)?;
        let is_alone = controller.handle.is_alone();
        controllers.push(controller);
        for (other, at) in rows {
            match DataFolder::has_log_in(&other)? {
                true if is_alone => {
                    return Err(Failure::new(format!(
                        "{} has the log of another Controller, which the one in {} knows nothing of: it was removed, or this one was \
                         recovered alone. Move {} away",
                        other.display(),
                        log.display(),
                        other.display()
                    )));
                }
                false if is_alone => {} // there are no others any more
                _ => controllers.push(start_controller(other, file, setup, at, Beginning::Join)?),
            }
        }
        file.controllers.truncate(controllers.len());
    } else {
        for (log, at) in rows {
            controllers.push(start_controller(log, file, setup, at, Beginning::Join)?);
        }
        let others = controllers.iter().filter_map(|other| Some((other.handle.id()?, other.address.clone()))).collect();
        controllers.insert(0, start_controller(log, file, setup, first, Beginning::Create { others })?);
    }
    // They may have had other addresses when they were last there.
    for one in &controllers {
        for other in controllers.iter().filter(|other| other.address != one.address) {
            if let Some(id) = other.handle.id() {
                one.handle.introduce(id, other.address.clone());
            }
        }
    }
    Ok(controllers)
}

/// The machine that Dstores are on.
struct Machine {
    host: String,
    zone: String,
    /// So many bytes a second each of them fetches from others.
    copy_rate: u64,
    /// So many bytes each of them uses at most.
    capacity: Option<u64>,
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
            disk: pack::Options { sync, capacity: machine.capacity, ..pack::Options::default() },
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
    controllers: Vec<RunningController>,
    gateway: Option<Running>,
    /// Looks at all of them.
    admin: Option<Admin>,
    /// Answers those who look for the Controllers.
    responder: Option<Responder>,
    file: ClusterFile,
    /// The folders that have the store's files, where this process has to keep them true.
    homes: Vec<PathBuf>,
}

impl Servers {
    /// Answers those who look for the Controllers, unless only this machine reaches them.
    fn respond(&mut self, listen: IpAddr, port: u16) {
        if !listen.is_loopback() {
            self.responder = discover::respond(port, &self.file);
        }
    }

    fn watched(&self) -> Watched {
        Watched {
            controllers: self.controllers.iter().map(|controller| controller.handle.probe()).collect(),
            dstores: self.dstores.iter().map(|dstore| dstore.handle.probe()).collect(),
            gateway: self.gateway.as_ref().map(Running::probe),
        }
    }

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
                    if let Err(failure) = self.refresh_addresses() {
                        log::warn!("{}", failure.message);
                    }
                }
                _ => break None,
            }
        };
        if let Some(admin) = self.admin.take() {
            admin.stop(); // what it looks at is about to end
        }
        if let Some(gateway) = self.gateway.take() {
            gateway.stop(); // its requests need all the others
        }
        // Dstores end before the Controller that they report to, which is not to complain, and sends them a last backup before.
        // One that leaves others behind hands over first.
        let known = self.controllers.iter().map(|controller| controller.handle.controllers().len()).max();
        if known <= Some(self.controllers.len()) {
            self.controllers.iter().for_each(|controller| controller.handle.expect_end());
        }
        self.dstores.clear();
        let mut closed = Ok(());
        for controller in self.controllers.drain(..) {
            closed = closed.and(controller.handle.stop());
        }
        match failure {
            Some(failure) => Err(Failure::new(failure)),
            None => closed.map_err(|error| Failure::new(format!("the log was not closed in order: {error}"))),
        }
    }

    /// Writes down where the Controllers are, if that has changed.
    fn refresh_addresses(&mut self) -> Result<(), Failure> {
        let known = self.controllers.iter().map(|controller| controller.handle.controllers()).max_by_key(Vec::len);
        let addresses: Vec<Address> = known.into_iter().flatten().map(|(_, address)| address).collect();
        let is_new = |address: &Address| !self.file.controllers.contains(address);
        if addresses.is_empty() || addresses.len() == self.file.controllers.len() && !addresses.iter().any(is_new) {
            return Ok(());
        }
        self.file.controllers = addresses;
        if let Some(responder) = &self.responder {
            responder.set(self.file.controllers.clone());
        }
        for (place, home) in self.homes.iter().enumerate() {
            let path = home.join(cluster::CLUSTER_FILE);
            // Its secret may have been replaced since this process has read it.
            let known = ClusterFile::read(&path)?.filter(|known| known.cluster == self.file.cluster);
            let secret = known.as_ref().map_or(&self.file.secret, |known| &known.secret).clone();
            let file = ClusterFile { secret, ..self.file.clone() };
            if known.is_some() {
                file.write(&path)?;
            }
            if place == 0 {
                file.write_client(home)?;
            }
        }
        Ok(())
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
        // The store goes on without a Controller as long as there is a majority.
        while self.controllers.len() > 1
            && let Some(at) = self.controllers.iter().position(|controller| controller.handle.failure().is_some())
        {
            let failed = self.controllers.remove(at);
            let why = failed.handle.failure().unwrap_or_default();
            log::error!("the Controller at {} ends: {why}", failed.address);
        }
    }

    /// Why there is nothing left to run.
    fn failure(&self) -> Option<String> {
        match self.controllers.first() {
            Some(RunningController { handle, log, .. }) => handle.failure().map(|failure| match handle.refused() {
                Some(refused) => {
                    let folder = log.parent().unwrap_or(log);
                    format!("{failure}. {}", recovery::advice_when_refused(folder, &refused))
                }
                None => failure,
            }),
            None if self.dstores.is_empty() => Some("no Dstore is left that can go on".to_owned()),
            None => None,
        }
    }
}
