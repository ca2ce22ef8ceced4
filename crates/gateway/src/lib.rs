//! Gateways: people's own tools as clients of a store. (docs/gateway.md)
//!
//! Each façade translates a protocol that these tools speak to [`Files`], and decides nothing that
//! the store can decide. The modules, in reading order:
//!
//! - [`server`]: connections that speak HTTP/1.1: a thread for each, with limits on all that a client can make last or grow
//! - [`access`]: users and their rights
//! - [`http`]: files and folders by GET, PUT and DELETE
//! - `dav`: WebDAV, which lets a file manager mount a store; `locks`: what its clients keep others from changing
//! - `s3`: buckets and objects, for the tools that speak S3
//! - [`facade`]: what all further façades have in common: whom they act as, and a store that is bounded to that
//! - `grpc`: what those share that speak gRPC; [`fluffy`] and [`tracker`], for the clients of these systems
//! - [`coursework`]: chapter one's protocol
//! - [`names`]: a name server's shell
//! - [`console`]: a page for people: the files, and how the store is
//! - [`cache`]: small objects that were read lately
//! - [`monitoring`]: metrics, health and a log of requests, also of processes that are no gateway

pub mod access;
pub mod cache;
pub mod console;
pub mod coursework;
mod dav;
pub mod facade;
pub mod fluffy;
mod grpc;
pub mod http;
mod locks;
pub mod monitoring;
pub mod names;
mod s3;
pub mod server;
pub mod tracker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use depot::client::Files;

use facade::{Facade, Running};

/// How a gateway is run.
pub struct Options {
    /// Where HTTP is spoken.
    pub http: TcpListener,
    /// Where S3 is spoken, if it is.
    pub s3: Option<TcpListener>,
    /// Further ways in, in the order in which they are started.
    pub facades: Vec<Facade>,
    /// How the gateway proves its name, if it speaks HTTPS.
    pub tls: Option<server::Tls>,
    /// What a client may make last or grow.
    pub limits: server::Limits,
    /// Uploads together keep at most so many bytes in memory.
    pub upload_memory: u64,
    /// A client that names no user may read and write, unless there is a user `anonymous`, which has rights of its own. On
    /// loopback that holds in any case.
    pub is_open: bool,
    /// Where each request is logged, besides the program's own log.
    pub access_log: Option<monitoring::AccessLog>,
    /// The cache that the store reads by way of, for the metrics.
    pub cache: Option<Arc<dyn cache::Cache>>,
}

impl Options {
    /// The usual ones.
    pub fn new(http: TcpListener) -> Self {
        let limits = server::Limits::default();
        Self {
            http,
            s3: None,
            facades: Vec::new(),
            tls: None,
            limits,
            upload_memory: 512 << 20,
            is_open: false,
            access_log: None,
            cache: None,
        }
    }
}

/// A gateway that runs until it is dropped.
pub struct Gateway {
    /// Dropped first: streams of events keep their threads until it ends them.
    console: Ending,
    /// HTTP and S3.
    servers: Vec<Box<dyn Running>>,
    /// The others, with their names.
    facades: Vec<(&'static str, Box<dyn Running>)>,
    _expiry: Option<s3::Expiry>,
    journal: Arc<monitoring::Journal>,
    address: SocketAddr,
    s3_address: Option<SocketAddr>,
}

/// Has a console's streams of events end when it is dropped.
struct Ending(Arc<console::Console>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Gateway {
    /// Starts to serve a store. A gateway that listens on loopback answers only to names that no other site can have.
    pub fn start(options: Options, store: Arc<dyn Files>) -> io::Result<Self> {
        let Options { http, s3, facades, tls, limits, upload_memory, is_open, access_log, cache } = options;
        let address = http.local_addr()?;
        let s3_address = s3.as_ref().map(TcpListener::local_addr).transpose()?;
        let is_private = address.ip().is_loopback() && s3_address.is_none_or(|address| address.ip().is_loopback());
        let access = Arc::new(access::Access::new(Arc::clone(&store), is_private || is_open)?);
        let locks = Arc::new(locks::Locks::new(Arc::clone(&store), locks::Pauses::default()));
        let console = console::Console::start(Arc::clone(&store), Arc::clone(&locks))?;
        let journal = Arc::new(monitoring::Journal::new(Arc::clone(&console), access_log, cache));
        let uploads = Arc::new(http::Budget::new(upload_memory));
        let expiry = s3.as_ref().map(|_| s3::Expiry::start(Arc::clone(&store))).transpose()?;
        let of_s3 = |listener| {
            let facade = s3::S3 {
                store: Arc::clone(&store),
                access: Arc::clone(&access),
                locks: Arc::clone(&locks),
                console: Arc::clone(&console),
                journal: Arc::clone(&journal),
                uploads: Arc::clone(&uploads),
                is_private,
            };
            server::Server::start(listener, tls.clone(), limits.clone(), Arc::new(facade))
        };
        let mut servers: Vec<Box<dyn Running>> = Vec::new();
        if let Some(listener) = s3 {
            servers.push(Box::new(of_s3(listener)?));
        }
        let (of_access, of_locks, of_uploads) = (Arc::clone(&access), Arc::clone(&locks), Arc::clone(&uploads));
        let of_journal = Arc::clone(&journal);
        let common = facade::Common { access: of_access, locks: of_locks, uploads: of_uploads, journal: of_journal };
        let start = |facade: Facade| Ok((facade.name, facade.start(&store, &common)?));
        let facades = facades.into_iter().map(start).collect::<io::Result<_>>()?;
        let (of_http, options) = (Arc::clone(&journal), http::Options { is_private });
        let facade = http::Http::new(store, access, locks, Arc::clone(&console), of_http, uploads, options);
        servers.push(Box::new(server::Server::start(http, tls, limits, Arc::new(facade))?));
        Ok(Self { console: Ending(console), servers, facades, _expiry: expiry, journal, address, s3_address })
    }

    /// Where HTTP is spoken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Looks at it from now on.
    pub fn probe(&self) -> monitoring::GatewayProbe {
        monitoring::GatewayProbe(Arc::clone(&self.journal))
    }

    /// Where S3 is spoken, if it is.
    pub fn s3_address(&self) -> Option<SocketAddr> {
        self.s3_address
    }

    /// The names of the further façades, and where each is reached.
    pub fn facades(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        self.facades.iter().map(|(name, facade)| (*name, facade.places()))
    }

    /// Takes no more requests, and gives those under way so long to end.
    pub fn stop(self, grace: Duration) {
        drop(self.console);
        let facades = self.facades.into_iter().map(|(_, facade)| facade);
        // All at a time: they have the same time to end.
        std::thread::scope(|scope| {
            for one in self.servers.into_iter().chain(facades) {
                scope.spawn(move || one.stop(grace));
            }
        });
    }
}
