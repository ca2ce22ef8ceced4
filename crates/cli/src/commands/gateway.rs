//! `gateway`: people's own tools as clients of a store. (docs/gateway.md)

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use argh::FromArgs;
use depot::client::{Cluster, Files, ObjectCache};
use depot::identity::ClusterId;
use depot::path::Path as DepotPath;
use gateway::access::{Right, Secret, User, Users, random_password};
use gateway::cache::{Cache, Memory, Redis};
use gateway::coursework::{self, Coursework};
use gateway::facade::Facade;
use gateway::monitoring::{AccessLog, GatewayProbe, Watched};
use gateway::names::{self, DiscoveryOptions, Names};
use gateway::server::{Limits, Tls};
use gateway::{Gateway, Options, fluffy, tracker};
use stevedore::program::output::say;
use stevedore::program::{self, Failure, signals};

use crate::admin;
use crate::cluster::ClientFile;
use crate::commands::facades::{self, Asked, Place};
use crate::commands::store::bytes as read_bytes;
use crate::failure::of_store;

/// Where HTTP is spoken, unless the command line says otherwise.
pub const HTTP_PORT: u16 = 8080;

/// Where S3 is spoken, unless the command line says otherwise.
pub const S3_PORT: u16 = 9000;

/// Where small files that were read lately are kept, unless the command line says otherwise.
pub const CACHE: CacheChoice = CacheChoice::Memory(64 << 20);

/// Where small files are kept that were read lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheChoice {
    /// In so many bytes of memory; 0 for nowhere.
    Memory(u64),
    /// In the Redis server of this URL.
    Redis(String),
}

/// For argh.
pub fn cache_choice(word: &str) -> Result<CacheChoice, String> {
    if word.contains("://") {
        let is_server = Redis::new(word, ClusterId::default());
        return is_server.map(|_| CacheChoice::Redis(word.to_owned())).map_err(|error| error.to_string());
    }
    read_bytes_or_none(word).map(CacheChoice::Memory)
}

impl CacheChoice {
    /// The cache, for a store of this identity.
    fn open(&self, cluster: ClusterId) -> Result<Option<Arc<dyn Cache>>, Failure> {
        Ok(match self {
            Self::Memory(0) => None,
            Self::Memory(bytes) => Some(Arc::new(Memory::new(*bytes))),
            Self::Redis(url) => Some(Arc::new(Redis::new(url, cluster).map_err(Failure::new)?)),
        })
    }
}

/// The user that may do everything in a new store.
pub const FIRST_ADMIN: &str = "admin";

/// How long requests that are under way may take to end when the program is to end: less than [`signals::GRACE`].
const GRACE: Duration = Duration::from_secs(1);

/// Serve a store's files over HTTP, WebDAV and S3.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "gateway",
    note = "curl, wget, browsers and programs of any language put, read, list and remove files with it: docs/gateway.md. So\ndo aws, rclone, restic and others that speak S3: docs/s3.md. There may\nbe any number of gateways to a store. stevedore serve has one already.",
    note = "On this machine alone, clients that name no user may read and write (stevedore user grant anonymous changes that). On\nanother address users must log in (stevedore user add); --tls-cert and --tls-key encrypt what they send.",
    note = "Clients of other systems can use the store, too: --tracker, --fluffy and others, each as one user in one directory\n(docs/wires.md).",
    example = "stevedore gateway --cluster ~/store/client.toml\ncurl -T notes.txt http://127.0.0.1:8080/\ncurl http://127.0.0.1:8080/notes.txt\nsudo mount -t davfs http://127.0.0.1:8080/ /mnt\nstevedore user key add admin\naws --endpoint-url http://127.0.0.1:9000 s3 ls"
)]
pub struct RunGateway {
    /// port of HTTP (default 8080); 0 takes a free one
    #[argh(option, arg_name = "PORT", default = "HTTP_PORT")]
    pub http: u16,
    /// port of S3 (default 9000); 0 takes a free one
    #[argh(option, arg_name = "PORT")]
    pub s3: Option<u16>,
    /// do not offer S3
    #[argh(switch)]
    pub no_s3: bool,
    /// address to listen on (default 127.0.0.1: this machine only)
    #[argh(option, arg_name = "ADDRESS", default = "IpAddr::V4(Ipv4Addr::LOCALHOST)")]
    pub listen: IpAddr,
    /// certificate of this machine (PEM), for HTTPS; with those that lead to its authority behind it
    #[argh(option, arg_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// private key of the certificate (PEM)
    #[argh(option, arg_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// let all who reach the address read and write without a user
    #[argh(switch)]
    pub open: bool,
    /// be a Tracker there, as in 8081 or 10.0.0.1:8081 (default: not at all; docs/wires.md)
    #[argh(option, arg_name = "[ADDRESS:]PORT")]
    pub tracker: Option<Place>,
    /// the user that the Tracker's clients act as (default anonymous)
    #[argh(option, arg_name = "USER")]
    pub tracker_as: Option<String>,
    /// the directory that the Tracker's clients see (default /)
    #[argh(option, arg_name = "DIR")]
    pub tracker_in: Option<DepotPath>,
    /// first port of the Tracker's keepers (default 50002); 0 takes free ones
    #[argh(option, arg_name = "PORT", default = "tracker::KEEPERS")]
    pub tracker_keepers: u16,
    /// port at which the Tracker's clients hear that an upload is done (default 50020); 0 for none
    #[argh(option, arg_name = "PORT", default = "tracker::CLIENTS")]
    pub tracker_notify: u16,
    /// offer Fluffy there, as in 9000 or 10.0.0.1:9000 (default: not at all; docs/wires.md)
    #[argh(option, arg_name = "[ADDRESS:]PORT")]
    pub fluffy: Option<Place>,
    /// the user that Fluffy's clients act as (default anonymous)
    #[argh(option, arg_name = "USER")]
    pub fluffy_as: Option<String>,
    /// the directory that Fluffy's clients see (default /)
    #[argh(option, arg_name = "DIR")]
    pub fluffy_in: Option<DepotPath>,
    /// memory for small files that were read lately (default 64M), or redis://HOST:PORT for a server that keeps them for
    /// several gateways; 0 keeps none
    #[argh(option, arg_name = "SIZE", default = "CACHE", from_str_fn(cache_choice))]
    pub cache: CacheChoice,
    /// log each request there, in the common log format; - prints
    #[argh(option, arg_name = "FILE")]
    pub access_log: Option<PathBuf>,
    /// answer clients of the coursework (docs/spec.md): as a Controller there, as in 12345, and as Dstores on the ports that follow
    #[argh(option, arg_name = "[ADDRESS:]PORT")]
    pub coursework: Option<Place>,
    /// user that clients of the coursework have the rights of (default: anonymous)
    #[argh(option, arg_name = "USER")]
    pub coursework_as: Option<String>,
    /// directory that they store their files in (default: /)
    #[argh(option, arg_name = "DIR")]
    pub coursework_in: Option<DepotPath>,
    /// milliseconds after the last byte of a store in which they are told that it is complete, or not at all (default 1000)
    #[argh(option, arg_name = "MS", default = "coursework::TIMEOUT.as_millis() as u64")]
    pub coursework_timeout: u64,
    /// answer shells of the name server there, as in 6235 (docs/wires.md)
    #[argh(option, arg_name = "[ADDRESS:]PORT")]
    pub names: Option<Place>,
    /// user that they have the rights of (default: anonymous)
    #[argh(option, arg_name = "USER")]
    pub names_as: Option<String>,
    /// directory that they see as the root (default: /)
    #[argh(option, arg_name = "DIR")]
    pub names_in: Option<DepotPath>,
    /// ports that their clients are told to listen on (default 3504-3599)
    #[argh(option, arg_name = "FIRST-LAST", from_str_fn(facades::ports))]
    pub names_ports: Option<RangeInclusive<u16>>,
    /// let init remove everything in that directory
    #[argh(switch)]
    pub allow_format: bool,
    /// seconds between two broadcasts that ask for the name server's storages (default 5); 0 sends none
    #[argh(option, arg_name = "SECONDS", default = "5")]
    pub period: u64,
    /// port of UDP that storages are asked on; they answer to the next one (default 3501)
    #[argh(option, arg_name = "PORT", default = "names::DISCOVERY")]
    pub names_discovery: u16,
    /// offer metrics and health there, too, as in 7900 or 10.0.0.1:7900 (default: not at all)
    #[argh(option, arg_name = "[ADDRESS:]PORT", from_str_fn(admin::address))]
    pub admin: Option<SocketAddr>,
    /// file that says what options say; with --name, what it says of the server of that name (docs/deployment.md)
    #[argh(option, arg_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl RunGateway {
    /// Serves until a signal asks to end. `cluster` is the store's `client.toml`, or its folder.
    pub fn run(&self, cluster: Option<&Path>) -> Result<(), Failure> {
        let _log = program::start_log("warn")?;
        let end = signals::requests_to_end(signals::GRACE_FOR_DISKS)?;
        let file = ClientFile::find(cluster)?;
        let name = file.name.clone();
        let store = file.connect();
        if !self.listen.is_loopback() && !self.open && !has_users(&store)? {
            return Err(Failure::usage(format!(
                "there are no users, so none could log in at {}: stevedore user add NAME adds one, or --open lets all clients in",
                self.listen
            )));
        }
        let tls = tls(self.tls_cert.as_deref(), self.tls_key.as_deref())?;
        let log = admin::access_log(self.access_log.as_deref())?;
        let (s3, facades) = self.bind(&store)?;
        let how = How { s3, facades, tls, is_open: self.open, access_log: log, cache: self.cache.clone() };
        let running = Running::on(SocketAddr::new(self.listen, self.http), store, how)?;
        say(format_args!("Gateway of the store {name:?}"))?;
        say(format_args!("  HTTP        {}", running.url()))?;
        running.say_s3()?;
        running.say_facades()?;
        let admin = admin::start(self.admin, Watched { gateway: Some(running.probe()), ..Watched::default() })?;
        say(format_args!("In another terminal, or in a browser:"))?;
        running.say_next()?;
        let _ = end.recv();
        drop(admin);
        running.stop();
        Ok(())
    }
}

impl RunGateway {
    /// Listens for S3 and for the façades that are asked for, once it is known that no port is named twice.
    fn bind(&self, store: &dyn Files) -> Result<(S3Listener, Vec<Facade>), Failure> {
        let how = (self.listen, self.open);
        // Each façade has a line of its own here, and one below.
        let acting = (self.tracker_as.as_deref(), self.tracker_in.as_ref());
        let tracker = Asked::of("--tracker", self.tracker, acting, how)?;
        let acting = (self.fluffy_as.as_deref(), self.fluffy_in.as_ref());
        let fluffy = Asked::of("--fluffy", self.fluffy, acting, how)?;
        let acting = (self.coursework_as.as_deref(), self.coursework_in.as_ref());
        let coursework = Asked::of("--coursework", self.coursework, acting, how)?;
        let acting = (self.names_as.as_deref(), self.names_in.as_ref());
        let names = Asked::of("--names", self.names, acting, how)?;
        let asked: Vec<&Asked> = [&tracker, &fluffy, &coursework, &names].into_iter().flatten().collect();
        let mut ports = vec![("--http", SocketAddr::new(self.listen, self.http))];
        ports.extend(self.admin.map(|address| ("--admin", address)));
        ports.extend(asked.iter().map(|one| (one.option, one.address)));
        let usual_s3 = facades::usual_s3_port(&ports);
        if !self.no_s3 {
            ports.push(("--s3", SocketAddr::new(self.listen, self.s3.unwrap_or(usual_s3))));
        }
        facades::check_ports(&ports)?;
        asked.iter().try_for_each(|one| one.check_user(store))?;
        let mut facades = Vec::new();
        if let Some(asked) = &tracker {
            let (keepers, notify) = (self.tracker_keepers, self.tracker_notify);
            let options = tracker::Options { keepers, notify, limits: Limits::default() };
            facades.push(
                asked.facade("Tracker", |listener, store, record| tracker::start(listener, store, options, record))?,
            );
        }
        if let Some(asked) = &fluffy {
            let start = |listener, store, record| fluffy::start(listener, store, Limits::default(), record);
            facades.push(asked.facade("Fluffy", start)?);
        }
        if let Some(asked) = &coursework {
            let (is_any, timeout) = (asked.address.port() == 0, Duration::from_millis(self.coursework_timeout));
            let start = move |listener, store, record| Coursework::start(listener, is_any, timeout, store, record);
            facades.push(asked.facade("Coursework", start)?);
        }
        if let Some(asked) = &names {
            let usual = names::Options::default();
            let discovery = (self.period > 0).then(|| DiscoveryOptions {
                to: (Ipv4Addr::BROADCAST, self.names_discovery).into(),
                answers: self.names_discovery.saturating_add(1),
                period: Duration::from_secs(self.period),
            });
            let ports = self.names_ports.clone().unwrap_or(usual.ports);
            let options = names::Options { ports, allows_format: self.allow_format, discovery, ..usual };
            let start = move |listener, store, record| Names::start(listener, options, store, record);
            facades.push(asked.facade("Names", start)?);
        }
        Ok((S3Listener::bind(self.listen, self.s3, usual_s3, self.no_s3)?, facades))
    }
}

/// Whether there is a user who could log in, or who stands for all.
pub fn has_users(store: &dyn Files) -> Result<bool, Failure> {
    Ok(!Users::of(store).list().map_err(of_store)?.is_empty())
}

/// What a user proves to be itself by.
pub struct Credentials {
    /// Over HTTP.
    pub password: String,
    /// Over S3.
    pub key: String,
    /// The key's secret.
    pub secret: Secret,
}

/// Adds a user of a new store who may do everything.
pub fn add_first_admin(store: &dyn Files) -> Result<Credentials, Failure> {
    let password = random_password().map_err(Failure::new)?;
    let mut admin = User::new(FIRST_ADMIN).map_err(Failure::new)?;
    admin.set_password(&password).map_err(Failure::new)?;
    admin.rights.insert(DepotPath::root(), Right::Admin);
    let (key, secret) = admin.add_key().map_err(Failure::new)?;
    Users::of(store).insert(&admin).map_err(|error| Failure::new(format!("user {FIRST_ADMIN}: {error}")))?;
    Ok(Credentials { password, key, secret })
}

/// What these files prove, if they are given.
pub fn tls(certificate: Option<&Path>, key: Option<&Path>) -> Result<Option<Tls>, Failure> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Tls::from_files(certificate, key).map(Some).map_err(Failure::new),
        (None, None) => Ok(None),
        _ => Err(Failure::usage("--tls-cert and --tls-key go together")),
    }
}

/// Listens for what `option` is the port of.
pub(super) fn listen(address: SocketAddr, option: &str) -> Result<TcpListener, Failure> {
    stevedore::server::listen(Some(address.ip()), address.port()).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("; another process has that port: {option} PORT takes another one, {option} 0 a free one")
            }
            _ => String::new(),
        };
        Failure::new(format!("the gateway cannot listen on {address}: {error}{advice}"))
    })
}

/// How a gateway is run, as the command line says it.
pub struct How {
    /// Where S3 is spoken, if it is.
    pub s3: S3Listener,
    /// Further ways in.
    pub facades: Vec<Facade>,
    /// How it proves its name, if it speaks HTTPS.
    pub tls: Option<Tls>,
    /// All who reach it may read and write without a user.
    pub is_open: bool,
    /// Where requests are logged.
    pub access_log: Option<AccessLog>,
    /// The memory for small files that were read lately; 0 for none.
    pub cache: CacheChoice,
}

/// For argh.
fn read_bytes_or_none(word: &str) -> Result<u64, String> {
    read_bytes(word).ok_or_else(|| "expected a size, as in 64M, or 0".into())
}

/// Where S3 is to be spoken, or why it is not.
pub enum S3Listener {
    /// There.
    At(TcpListener),
    /// The usual port is taken, by another store for example: all else is not to fail for that.
    Taken(Failure),
    /// It is not wanted.
    Unwanted,
}

impl S3Listener {
    /// Listens on the port that was asked for, or else on the usual one if that is free.
    pub fn bind(address: IpAddr, port: Option<u16>, usual: u16, is_unwanted: bool) -> Result<Self, Failure> {
        if is_unwanted {
            return match port {
                Some(_) => Err(Failure::usage("--s3 and --no-s3 contradict each other")),
                None => Ok(Self::Unwanted),
            };
        }
        match listen(SocketAddr::new(address, port.unwrap_or(usual)), "--s3") {
            Ok(listener) => Ok(Self::At(listener)),
            Err(failure) if port.is_none() => Ok(Self::Taken(failure)),
            Err(failure) => Err(failure),
        }
    }
}

/// A gateway of this process.
pub struct Running {
    gateway: Gateway,
    scheme: &'static str,
    /// Why S3 is not spoken, although it is wanted.
    no_s3: Option<Failure>,
}

impl Running {
    /// Starts to serve a store on this address.
    pub fn on(address: SocketAddr, store: Cluster, how: How) -> Result<Self, Failure> {
        let How { s3, facades, tls, is_open, access_log, cache } = how;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let cache = cache.open(store.id())?;
        let store = match &cache {
            Some(cache) => store.with_cache(Arc::<dyn Cache>::clone(cache) as Arc<dyn ObjectCache>),
            None => store,
        };
        let (s3, no_s3) = match s3 {
            S3Listener::At(listener) => (Some(listener), None),
            S3Listener::Taken(failure) => (None, Some(failure)),
            S3Listener::Unwanted => (None, None),
        };
        let options =
            Options { s3, facades, tls, is_open, access_log, cache, ..Options::new(listen(address, "--http")?) };
        let started = Gateway::start(options, Arc::new(store));
        started
            .map(|gateway| Self { gateway, scheme, no_s3 })
            .map_err(|error| Failure::new(format!("the gateway does not start: {error}")))
    }

    /// Looks at it from now on.
    pub fn probe(&self) -> GatewayProbe {
        self.gateway.probe()
    }

    /// Where its root is.
    pub fn url(&self) -> String {
        format!("{}/", self.url_of(self.gateway.address()))
    }

    /// Says where S3 is spoken, or why it is not.
    pub fn say_s3(&self) -> Result<(), Failure> {
        match (self.gateway.s3_address(), &self.no_s3) {
            (Some(address), _) => say(format_args!("  S3          {}", self.url_of(address))),
            (None, Some(failure)) => say(format_args!("  S3          none: {}", failure.message)),
            (None, None) => Ok(()),
        }
    }

    /// Says where the further façades are reached.
    pub fn say_facades(&self) -> Result<(), Failure> {
        self.gateway.facades().try_for_each(|(name, places)| say(format_args!("  {name:<10}  {places}")))
    }

    fn url_of(&self, mut address: SocketAddr) -> String {
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(std::net::Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        format!("{}://{address}", self.scheme)
    }

    /// Says what can be done with it.
    pub fn say_next(&self) -> Result<(), Failure> {
        say(format_args!("  curl -T notes.txt {}", self.url()))?;
        say(format_args!("  sudo mount -t davfs {} /mnt", self.url()))
    }

    /// Lets requests end, for a moment, and ends.
    pub fn stop(self) {
        self.gateway.stop(GRACE);
    }
}
