//! A name server and its storages: the frames that end in `][`. (docs/wires.md, section 3)
//!
//! A client's shell keeps one connection, on which it sends requests of 2,048 characters. Content travels apart: the server names
//! a port, the client listens there, and the server connects to it.
//!
//! ```text
//!   client                          name server's port
//!     |-- rdf][a.txt][  ... blanks ------->|
//!     |<- rdf][7][3504][5 -----------------|
//!     |-- y ------------------------------>|
//!     | listens on 3504                    |
//!     |<================ connects, sends 5 bytes, closes
//!     |<- rdf][12][5 bytes sent -----------|
//! ```
//!
//! Each session has its own current directory, below the directory that the façade offers. Files are put on all Dstores, as the
//! original did. What a client's shell cannot say is percent-escaped, in both directions.
//!
//! | file | what |
//! |---|---|
//! | `frame` | requests, answers, and how names are said |
//! | `session` | what each request does |
//! | `transfer` | content, in blocks that the client's `recv` does not cut |
//! | `ports` | which port a client is told to listen on |
//! | `discovery` | the datagrams by which storages are found |

mod discovery;
mod frame;
mod ports;
mod session;
mod transfer;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use depot::client::Files;
use stevedore::server::{Server, ThreadGroup};

use crate::facade::{Running, Seats};
use crate::monitoring::Record;
use crate::server::Limits;
use discovery::Broadcast;
pub use discovery::{ANSWERS, Answering, DISCOVERY};
use ports::Ports;

/// So many sessions at a time.
const MOST_SESSIONS: usize = 1_000;

/// How the façade is run.
pub struct Options {
    /// The ports that clients are told to listen on: four digits each.
    pub ports: RangeInclusive<u16>,
    /// So long the same client is not told a port again.
    pub rest: Duration,
    /// `init` empties the directory that the façade offers.
    pub allows_format: bool,
    /// How storages are looked for; `None` if they are not.
    pub discovery: Option<DiscoveryOptions>,
    /// How slowly content may move.
    pub limits: Limits,
}

/// How storages are looked for.
pub struct DiscoveryOptions {
    /// Where the question is sent.
    pub to: SocketAddr,
    /// The port that answers come to.
    pub answers: u16,
    /// How often it is asked.
    pub period: Duration,
}

impl Default for DiscoveryOptions {
    fn default() -> Self {
        Self { to: (Ipv4Addr::BROADCAST, DISCOVERY).into(), answers: ANSWERS, period: Duration::from_secs(5) }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ports: 3_504..=3_599,
            rest: Duration::from_secs(60),
            allows_format: false,
            discovery: Some(DiscoveryOptions::default()),
            limits: Limits::default(),
        }
    }
}

/// The façade while it runs.
pub struct Names {
    server: Server,
    threads: Arc<ThreadGroup>,
    ports: Arc<Ports>,
    address: SocketAddr,
    _broadcast: Option<Broadcast>,
}

/// What its threads share.
struct Shared {
    files: Arc<dyn Files>,
    ports: Arc<Ports>,
    threads: Arc<ThreadGroup>,
    allows_format: bool,
    sessions: Seats,
    limits: Limits,
    record: Record,
}

impl Names {
    /// Serves sessions at `listener`.
    pub fn start(
        listener: TcpListener,
        options: Options,
        files: Arc<dyn Files>,
        record: Record,
    ) -> io::Result<Box<dyn Running>> {
        let address = listener.local_addr()?;
        let threads = ThreadGroup::new("names");
        let ports = Ports::new(options.ports, options.rest);
        let broadcast = options.discovery.and_then(|discovery| {
            // It is only a hint: another gateway of this machine may have the port.
            let started = Broadcast::start(&discovery);
            started.inspect_err(|error| log::warn!("names: storages are not looked for: {error}")).ok()
        });
        let shared = Arc::new(Shared {
            files,
            ports: Arc::clone(&ports),
            threads: Arc::clone(&threads),
            allows_format: options.allows_format,
            sessions: Seats::new(MOST_SESSIONS),
            limits: options.limits,
            record,
        });
        let serve = move |stream: Arc<TcpStream>| session::serve(&shared, stream);
        let server = Server::start(listener, &threads, None, serve)?;
        Ok(Box::new(Self { server, threads, ports, address, _broadcast: broadcast }))
    }
}

impl Running for Names {
    fn places(&self) -> String {
        self.address.to_string()
    }

    /// Sessions last for as long as their clients like: none is waited for.
    fn stop(self: Box<Self>, _grace: Duration) {}
}

impl Drop for Names {
    fn drop(&mut self) {
        self.server.stop();
        self.ports.close();
        self.threads.stop();
    }
}
