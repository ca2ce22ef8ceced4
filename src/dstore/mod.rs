//! A Dstore: its threads around its folder. (spec 1.2, 4)
//!
//! | thread | does | ends when |
//! |---|---|---|
//! | one per connection | one transfer after another: a client's, or another Dstore's | the socket ends |
//! | at least one more | waits for the next connection, to serve it | the listener is shut down |
//! | one for the Controller | reads what it wants; removes at once, leaves the rest to the next | the socket ends |
//! | one for rebalances | answers LIST and carries out REBALANCE, in the order they came | the one before ends |
//! | one for removes, with `sync` | acknowledges those that are on the disk | the Controller's reader ends |
//! | one that scrubs, if asked to | reads all copies to find bad ones | the handle is dropped |
//! | a few during a rebalance | send copies to other Dstores | there is none left to send |

pub mod checksum;
mod controller_link;
mod defect;
pub mod folder;
mod rebalancer;
mod replacement;
mod scrub;
mod transfers;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::protocol::connection::{DSTORE_LINE_LIMIT, KEEPALIVE};
use crate::protocol::{Address, Connection, Message, Outgoing};
use crate::server::{Server, ThreadGroup, listen};
use crate::sync::Mutex;

use folder::Folder;

pub use defect::Defect;
use replacement::Replacements;

/// What a Dstore is started with. (spec 5)
#[derive(Clone, Debug)]
pub struct Config {
    /// The address to listen on; every address unless given. (spec 7.14)
    pub bind: Option<IpAddr>,
    /// The port to listen on; 0 takes any free one. It is what the Controller is told.
    pub port: u16,
    /// Where the Controller listens.
    pub controller: SocketAddr,
    /// How long to wait for content that is due and for a peer's ACK. (spec 2.7)
    pub timeout: Duration,
    /// Where the files are kept; made if missing, and emptied at the start. Files that no Dstore has written are moved
    /// into a folder beside it. (spec 5.1, 7.15)
    pub folder: PathBuf,
    /// Delete all that the folder holds, also folders, and files that no Dstore has written. (spec 7.15)
    pub force: bool,
    /// The longest line in bytes taken from the Controller.
    pub line_limit: usize,
    /// After how long a Controller's machine that answers nothing any more counts as dead; see
    /// [`Outgoing::notice_death`]. A Controller that takes nothing it is sent for as long counts as dead, too.
    pub keepalive: Duration,
    /// Whether what is acknowledged has to be on the disk, where a power cut does not reach it. Without it, it may still
    /// be on its way there from the system's memory.
    pub sync: bool,
    /// In how much time to read all copies once, again and again, to find those that have gone bad.
    pub scrub: Option<Duration>,
}

impl Config {
    /// Any free port, a Controller on this machine, and a second's patience.
    pub fn new(controller_port: u16, folder: impl Into<PathBuf>) -> Self {
        Self {
            bind: None,
            port: 0,
            controller: SocketAddr::from((Ipv4Addr::LOCALHOST, controller_port)),
            timeout: Duration::from_secs(1),
            folder: folder.into(),
            force: false,
            line_limit: DSTORE_LINE_LIMIT,
            keepalive: KEEPALIVE,
            sync: false,
            scrub: None,
        }
    }
}

/// Why a Dstore cannot start.
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
    /// The folder cannot be made or emptied.
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The folder holds a folder: it may be a person's home. (spec 7.15)
    FolderInUse {
        /// The folder.
        path: PathBuf,
        /// A folder in it.
        inner: PathBuf,
    },
    /// The folder holds files that no Dstore has written, and they cannot be moved out of it. (spec 7.15)
    ForeignFiles {
        /// The folder.
        path: PathBuf,
        /// One of the files.
        example: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another Dstore keeps its files in the folder.
    FolderTaken {
        /// The folder.
        path: PathBuf,
    },
    /// There is no Controller to join.
    Controller {
        /// Where it should be.
        address: SocketAddr,
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
            Self::Folder { path, source } => write!(f, "cannot prepare the folder {}: {source}", path.display()),
            Self::FolderInUse { path, inner } => write!(
                f,
                "the folder {} holds a folder, {:?}, and a Dstore deletes everything in its folder when it starts; \
                 choose another one, or say --force if all of it may go",
                path.display(),
                inner.file_name().unwrap_or(inner.as_os_str()),
            ),
            Self::ForeignFiles { path, example, source } => write!(
                f,
                "the folder {} holds files that no Dstore has written, such as {:?}, and they cannot be moved to a folder \
                 beside it ({source}); choose another one, or say --force to have all of it deleted",
                path.display(),
                example.file_name().unwrap_or(example.as_os_str()),
            ),
            Self::FolderTaken { path } => {
                write!(f, "the folder {} is another Dstore's; each needs one of its own", path.display())
            }
            Self::Controller { address, source } => {
                write!(f, "cannot reach the Controller at {address} (is it running?): {source}")
            }
            Self::Thread(source) => write!(f, "cannot start a thread: {source}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A running Dstore. Dropping it ends its threads and closes its sockets before it returns; to the others that is
/// as if the process had died.
pub struct Handle {
    dstore: Arc<Dstore>,
    server: Server,
    address: Address,
    /// Gets the reason when the Controller has gone.
    controller_gone: Receiver<io::Error>,
    /// Dropped, it ends the scrub.
    scrubbing: Option<Sender<()>>,
}

/// Starts a Dstore; it listens and has sent its JOIN when this returns.
pub fn start(config: Config) -> Result<Handle, StartError> {
    if config.timeout.is_zero() {
        return Err(StartError::Config("the timeout must be more than nothing"));
    }
    let listener =
        listen(config.bind, config.port).map_err(|source| StartError::Listen { port: config.port, source })?;
    let port = listener.local_addr().map_or(config.port, |address| address.port());
    let address = Address::local(port).expect("a listener has a port");
    if let Ok(listening) = listener.local_addr()
        && !is_reachable(listening.ip(), &address)
    {
        log::warn!(
            "listens on {} only, but others will look for it at {}: it can join, but not be reached",
            listening.ip(),
            address.socket()
        );
    }
    let unreachable = |source| StartError::Controller { address: config.controller, source };
    let mut controller =
        Connection::connect(config.controller, config.timeout.max(LEAST_PATIENCE)).map_err(unreachable)?;
    controller.limit_lines(config.line_limit);
    controller.outgoing().notice_death(config.keepalive);
    controller.outgoing().limit_stalls(config.keepalive.max(LEAST_PATIENCE)).map_err(unreachable)?;
    // Only now, with the port and a Controller secured, may anything be deleted: a start by mistake must harm nothing.
    let mut folder = Folder::open_empty(&config.folder, config.force)?;
    if config.sync {
        folder = folder.synced()?;
    }
    let dstore = Arc::new(Dstore {
        folder,
        timeout: config.timeout,
        controller: Mutex::new(controller.outgoing().clone()),
        replacements: Replacements::new(config.controller, config.timeout),
        threads: ThreadGroup::new(format!("dstore-{port}")),
    });
    // It listens before it joins: a client that is told of it can connect. (spec 4.1)
    let server = Server::start(listener, &dstore.threads, None, {
        let dstore = Arc::clone(&dstore);
        move |stream| transfers::serve(&dstore, stream)
    })
    .map_err(StartError::Thread)?;
    let (going, controller_gone) = bounded(1);
    // From here on, whatever fails, dropping the handle ends what has been started.
    let (scrubbing, stop) = bounded(0);
    let handle = Handle { dstore, server, address, controller_gone, scrubbing: Some(scrubbing) };
    if let Some(period) = config.scrub {
        let dstore = Arc::clone(&handle.dstore);
        handle.dstore.threads.spawn(move || scrub::run(&dstore, period, &stop)).map_err(StartError::Thread)?;
    }
    handle.dstore.tell_controller(&Message::Join { address: handle.address.clone() }).map_err(unreachable)?;
    controller_link::start(&handle.dstore, controller, going).map_err(StartError::Thread)?;
    Ok(handle)
}

/// Whether a Dstore that listens on `ip` is found by a peer that is told `address`.
fn is_reachable(ip: IpAddr, address: &Address) -> bool {
    ip.is_unspecified() || ip == address.socket().ip()
}

/// However short the timeout for replies, a connection to a busy Controller gets this long.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);

impl Handle {
    /// The address it has joined with.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Where it listens; an unspecified address means all of them.
    pub fn listening_on(&self) -> io::Result<SocketAddr> {
        self.server.address()
    }

    /// Waits until the Controller's connection has dropped, and says why: it is not connected again. (spec 4.1)
    pub fn wait_for_controllers_end(&self) -> io::Error {
        self.controller_gone.recv().unwrap_or_else(|_| io::Error::other("said before"))
    }

    /// Gets the reason when the Controller's connection has dropped, for a thread that waits for something else as well.
    pub fn controller_gone(&self) -> &Receiver<io::Error> {
        &self.controller_gone
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.scrubbing = None;
        self.server.stop();
        self.dstore.threads.stop();
    }
}

/// What a Dstore's threads share.
///
/// The lock on `controller` is held while one message is written, and no other is taken meanwhile.
struct Dstore {
    folder: Folder,
    timeout: Duration,
    controller: Mutex<Outgoing>,
    replacements: Replacements,
    threads: Arc<ThreadGroup>,
}

impl Dstore {
    fn tell_controller(&self, message: &Message) -> io::Result<()> {
        let controller = self.controller.lock();
        // What comes after half a message would be taken for its end.
        controller.send(message).inspect_err(|_| controller.shut_down())
    }
}
