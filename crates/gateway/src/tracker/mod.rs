//! Tracker: a Master Tracker and its Data Keepers, over gRPC, for the clients of that system. (docs/wires.md, section 1)
//!
//! A client asks the tracker where to, and then sends a file to a keeper, or has it sent by one. Here the gateway is the tracker
//! and all keepers: each Dstore has a keeper, with a port of its own, that reads from that Dstore for as long as it can. So
//! readers that are spread over the keepers are spread over the Dstores.
//!
//! ```text
//!   client                        gateway                                   store
//!     │ clientToMasterUpload ──▶ tracker, port 8081: "keeper 2"
//!     │ clientToDataKeeperUpload ─▶ keeper 2 ── put, 3 copies ────────────▶ committed
//!     │ ◀── MasterToClientSuccessNotify, to port 50020 (if it listens there)
//!     │ ◀── the answer, and only now: the client exits when it has it
//! ```
//!
//! The table of the original (which keeper has which file) is the store's own knowledge of copies; nothing of it is kept here.
//! Each step of a transfer is logged with the next number of one sequence.
//!
//! A message of these clients holds a whole file. It is never kept whole: `unary` reads and writes such messages piece by piece.
//! Methods of our own stream (proto/stevedore_tracker.proto), also parts of a file, so that one client can read from all
//! holders at a time: examples/tracker.py.
//!
//! | file | what |
//! |---|---|
//! | `keepers` | which Dstore has a keeper where |
//! | `services` | the original's methods |
//! | `unary` | the two of them that carry a file |
//! | `streams` | our own methods |

mod keepers;
mod services;
mod streams;
mod unary;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use depot::client::{Error, Files, PutOptions, Source};
use depot::identity::{DstoreId, Version};
use depot::namespace::change::Details;
use depot::path::Path;
use tonic::Status;
use tonic::transport::Endpoint;

use crate::facade::Running;
use crate::grpc::{Calls, Connection, Runtime, Services, status_of};
use crate::monitoring::Record;
use crate::server::Limits;
use keepers::{Keepers, Watcher};
use proto::Nothing;
use proto::services_client::ServicesClient;
use proto::services_server::ServicesServer;
use streams::proto::keeper_server::KeeperServer;
use streams::proto::table_server::TableServer;

/// What the .proto file of the original's methods says.
#[allow(missing_docs, clippy::all, reason = "generated")]
mod proto {
    tonic::include_proto!("services");
}

/// The .proto files, for reflection.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tracker.descriptors"));

/// The first port of the original's keepers.
pub const KEEPERS: u16 = 50_002;

/// The port of its clients.
pub const CLIENTS: u16 = 50_020;

/// No longer name is answered, or logged. (depot 3.1)
const LONGEST_NAME: usize = 1_024;

/// How long a client may take to hear of its upload.
const NOTICE: Duration = Duration::from_secs(2);

/// What can be said of a tracker besides where it listens.
#[derive(Clone, Debug)]
pub struct Options {
    /// The first port that a keeper takes; the next ones are behind it. 0 for any free ones.
    pub keepers: u16,
    /// Where clients are told that their upload is done; 0 to tell none.
    pub notify: u16,
    /// What its clients may make last or grow.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self { keepers: KEEPERS, notify: CLIENTS, limits: Limits::default() }
    }
}

/// Starts to serve `files`: the tracker on the listener's port, and a keeper for each Dstore.
pub fn start(
    listener: TcpListener,
    files: Arc<dyn Files>,
    options: Options,
    record: Record,
) -> io::Result<Box<dyn Running>> {
    let address = listener.local_addr()?;
    let runtime = Arc::new(Runtime::start(options.limits.clone(), record)?);
    let tracker = Arc::new(Tracker {
        files,
        calls: runtime.calls(),
        keepers: Keepers::default(),
        notify: options.notify,
        steps: AtomicU64::new(0),
        has_missed_a_client: AtomicBool::new(false),
    });
    let watcher = Watcher::start(Arc::clone(&runtime), Arc::clone(&tracker), address.ip(), options)?;
    let node = Arc::new(Node { tracker: Arc::clone(&tracker), keeper: None });
    runtime.serve(listener, node.services(&runtime))?;
    Ok(Box::new(Server { watcher, runtime, tracker, address }))
}

/// The façade while it runs.
struct Server {
    /// Dropped first: it opens ports.
    watcher: Watcher,
    runtime: Arc<Runtime>,
    tracker: Arc<Tracker>,
    address: SocketAddr,
}

impl Running for Server {
    fn places(&self) -> String {
        let keepers: Vec<_> =
            self.tracker.keepers.all().iter().map(|keeper| keeper.address.port().to_string()).collect();
        if keepers.is_empty() {
            self.address.to_string()
        } else {
            format!("{}, keepers on {}", self.address, keepers.join(" "))
        }
    }

    fn stop(self: Box<Self>, grace: Duration) {
        drop(self.watcher);
        self.runtime.stop(grace);
    }
}

/// What all ports share.
struct Tracker {
    files: Arc<dyn Files>,
    calls: Arc<Calls>,
    keepers: Keepers,
    notify: u16,
    /// The number of the last step.
    steps: AtomicU64,
    /// Whether it was said that no client listens for notices.
    has_missed_a_client: AtomicBool,
}

/// What answers at one port: the tracker, or a keeper. The protocol has one service for both roles, and so each port answers all
/// of it.
struct Node {
    tracker: Arc<Tracker>,
    /// The Dstore to read from; `None` at the tracker's port.
    keeper: Option<DstoreId>,
}

impl Node {
    fn services(self: &Arc<Self>, runtime: &Runtime) -> Services {
        let original = ServicesServer::from_arc(Arc::clone(self)).max_decoding_message_size(SMALL);
        runtime
            .services(DESCRIPTORS)
            .with(unary::Unary { node: Arc::clone(self), others: original })
            .with(TableServer::from_arc(Arc::clone(self)).max_decoding_message_size(SMALL))
            .with(KeeperServer::from_arc(Arc::clone(self)))
    }

    /// Which keeper this is, for the log.
    fn role(&self) -> String {
        self.keeper.map_or_else(|| "the tracker".to_owned(), |dstore| format!("keeper {dstore}"))
    }
}

/// The largest message that is no file, in bytes.
const SMALL: usize = 64 << 10;

impl Tracker {
    /// Logs a step of a transfer, with the next number.
    fn step(&self, what: fmt::Arguments<'_>) {
        let number = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        log::info!("tracker, step {number}: {what}");
    }

    /// Puts a file in as many copies as the original promises. It blocks.
    fn put(&self, path: &Path, source: Source<'_>) -> Result<Version, Error> {
        let details = Details { replicas: self.keepers.replicas(), ..Details::default() };
        self.files.put(path, source, &PutOptions { details, ..PutOptions::default() })
    }

    /// Tells the client at this address that its upload is done, if it listens for that.
    async fn notify(&self, client: IpAddr) {
        if self.notify == 0 {
            return;
        }
        let listener = SocketAddr::new(client, self.notify);
        let told = tokio::time::timeout(NOTICE, async {
            let endpoint = Endpoint::from_shared(format!("http://{listener}")).map_err(|error| error.to_string())?;
            let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
            let told = ServicesClient::new(channel).master_to_client_success_notify(Nothing {}).await;
            told.map(drop).map_err(|status| status.to_string())
        });
        let told = told.await.unwrap_or_else(|_| Err("it took too long".into()));
        match told {
            Ok(()) => self.step(format_args!("the client at {listener} was told of its upload")),
            Err(error) if self.has_missed_a_client.swap(true, Ordering::Relaxed) => {
                log::debug!("no client hears of its upload at {listener}: {error}");
            }
            Err(error) => log::warn!("no client hears of its upload at {listener}: {error}; this is said once"),
        }
    }
}

/// A file's path: its name in the directory that the façade has for its root.
fn path_of(name: &str) -> Result<Path, Status> {
    if name.len() > LONGEST_NAME {
        return Err(Status::invalid_argument(format!("this is no file's name: it has more than {LONGEST_NAME} bytes")));
    }
    if name.is_empty() || name.contains('/') || name.contains("..") {
        return Err(Status::invalid_argument(format!("{name:?} is no file's name: it has neither / nor .. in it")));
    }
    Path::root().join(name).map_err(|error| Status::invalid_argument(format!("{name:?} is no file's name: {error}")))
}

/// As a client can dial it: one that is reached at `address` is given the same address, in brackets if it is of IPv6.
fn dialled(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Where a request came to, and where it came from.
fn ends(extensions: &tonic::codegen::http::Extensions) -> Result<(IpAddr, IpAddr), Status> {
    let (here, client) = extensions.get::<Connection>().ok_or_else(|| Status::internal("no connection"))?.ends;
    Ok((here.ip(), client.ip().to_canonical()))
}

/// What the store has said of a file.
fn failed(name: &str, error: &Error) -> Status {
    status_of(name, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_component_without_dots_in_a_row() {
        for good in ["a", "a.txt", ".a", "a b", "naïve", "%2F", "-rf"] {
            assert_eq!(path_of(good).unwrap().as_str(), format!("/{good}"));
        }
        let long = "x".repeat(1025);
        for bad in ["", "/", "/a", "a/b", "..", "a..b", "../a", ".", "a\0", &long] {
            assert_eq!(path_of(bad).unwrap_err().code(), tonic::Code::InvalidArgument, "{bad:?}");
        }
    }

    #[test]
    fn an_address_is_one_that_the_client_can_dial() {
        for (address, expected) in
            [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("::ffff:10.0.0.7", "10.0.0.7"), ("fe80::1", "[fe80::1]")]
        {
            assert_eq!(dialled(address.parse().unwrap()), expected);
        }
    }
}
