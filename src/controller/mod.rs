//! The Controller: its threads around the index. (spec 1.1, 3, 4)
//!
//! | thread | does | ends when |
//! |---|---|---|
//! | one per connection | reads a client's requests and answers them, or a Dstore's reports | the socket ends |
//! | at least one more | waits for the next connection, to serve it | the listener is shut down |
//! | one more per Dstore | writes what the others have for it, so that a Dstore that stops reading delays no other peer | its outbox is dropped |
//! | `rebalance` | decides when to rebalance, and does it | its stop channel closes |

mod coordinator;
mod gate;
mod link;
mod listing;
mod membership;
mod requests;
#[cfg(all(test, shuttle))]
mod schedules;
mod session;
mod shared;
mod state;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::index::MemberStatus;
use crate::protocol::connection::{CLIENT_LINE_LIMIT, KEEPALIVE};
use crate::server::{Server, listen};

use shared::Running;
use state::State;

/// By how many bytes all Dstores' lists together may be longer than expected, unless told otherwise: room for the names of a
/// million copies that are left over from failed stores.
pub const LIST_ALLOWANCE: usize = 64 << 20;

/// What a Controller is started with. (spec 5)
#[derive(Clone, Debug)]
pub struct Config {
    /// The address to listen on; every address unless given. (spec 7.14)
    pub bind: Option<IpAddr>,
    /// The port to listen on; 0 takes any free one.
    pub port: u16,
    /// R: on how many Dstores each file is kept; at least 1.
    pub replicas: usize,
    /// How long to wait for acknowledgements, lists and reports. (spec 2.7)
    pub timeout: Duration,
    /// From the end of one rebalance to the next; `None` for no periodic rebalance. (spec 4.6, 7.27)
    pub rebalance_period: Option<Duration>,
    /// The longest line in bytes taken from a client.
    pub client_line_limit: usize,
    /// How many bytes the lists of all Dstores together may be longer than expected of the files that they hold. What goes
    /// beyond is skipped, and its Dstore takes no part in the rebalance.
    pub dstore_line_limit: usize,
    /// After how long a peer's machine that answers nothing any more counts as dead; see
    /// [`Outgoing::notice_death`](crate::protocol::Outgoing::notice_death).
    pub keepalive: Duration,
}

impl Config {
    /// Any free port, R copies, and otherwise what suits tests and trials: a second's patience, no periodic rebalance.
    pub fn new(replicas: usize) -> Self {
        Self {
            bind: None,
            port: 0,
            replicas,
            timeout: Duration::from_secs(1),
            rebalance_period: None,
            client_line_limit: CLIENT_LINE_LIMIT,
            dstore_line_limit: LIST_ALLOWANCE,
            keepalive: KEEPALIVE,
        }
    }
}

/// Why a Controller cannot start.
#[derive(Debug)]
pub enum StartError {
    /// A setting makes no sense.
    Config(&'static str),
    /// It cannot listen on its port.
    Listen {
        /// The port.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// There can be no more threads.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(reason) => write!(f, "cannot start: {reason}"),
            Self::Listen { port, source } => write!(f, "cannot listen on port {port}: {source}"),
            Self::Thread(source) => write!(f, "cannot start a thread: {source}"),
        }
    }
}

impl std::error::Error for StartError {}

/// For callers to which all that is an I/O error.
impl From<StartError> for io::Error {
    fn from(error: StartError) -> Self {
        Self::other(error)
    }
}

/// What can be seen of a Controller at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The Dstores that have joined, in order of joining.
    pub members: Vec<MemberStatus>,
    /// How many files the index knows, those in progress included.
    pub files: usize,
    /// How many rebalances have ended since the start, each round of a large one counted. (spec 7.19)
    pub rebalances: u64,
    /// Whether no rebalance runs, and none is due to a Dstore that has joined.
    pub is_at_rest: bool,
}

/// A running Controller. Dropping it ends its threads and closes its sockets before it returns.
pub struct Handle {
    // Dropped in this order: no new peers, then those that are there.
    server: Server,
    running: Running,
}

/// Starts a Controller; it listens when this returns.
pub fn start(config: Config) -> Result<Handle, StartError> {
    if config.replicas == 0 {
        return Err(StartError::Config("R must be at least 1"));
    }
    if config.timeout.is_zero() {
        return Err(StartError::Config("the timeout must be more than nothing"));
    }
    let listen_error = |port| move |source| StartError::Listen { port, source };
    let listener = listen(config.bind, config.port).map_err(listen_error(config.port))?;
    let port = listener.local_addr().map_err(listen_error(config.port))?.port();
    let running = Running::start(Config { port, ..config }).map_err(StartError::Thread)?;
    let server = Server::start(listener, &running.controller.threads, None, {
        let controller = Arc::clone(&running.controller);
        move |stream| session::serve(&controller, stream)
    })
    .map_err(StartError::Thread)?;
    Ok(Handle { server, running })
}

impl Handle {
    /// Where it listens; an unspecified address means all of them.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.server.address()
    }

    /// What it looks like just now.
    pub fn status(&self) -> Status {
        status(&self.running.controller.state.lock())
    }

    /// Waits until `condition` holds; `None` if it does not within `timeout`. Looks after every join, departure and
    /// rebalance.
    pub fn wait_until(&self, timeout: Duration, condition: impl Fn(&Status) -> bool) -> Option<Status> {
        let deadline = Instant::now() + timeout;
        let controller = &self.running.controller;
        let mut state = controller.state.lock();
        loop {
            let status = status(&state);
            if condition(&status) {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            controller.changed.wait_until(&mut state, deadline);
        }
    }
}

fn status(state: &State) -> Status {
    Status {
        members: state.index.members(),
        files: state.index.len(),
        rebalances: state.rebalances,
        is_at_rest: !state.is_unsettled,
    }
}
