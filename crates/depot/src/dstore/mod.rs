//! A Dstore: threads around the objects of one disk. (depot 2.2, 5.2, 5.6)
//!
//! It stores what clients send it and gives it back, and tells each Controller what it has. It decides nothing about files.
//! One process may run several, each with a folder and a port of its own.
//!
//! ```text
//! client                        Dstore                                Controller
//!   PUT key length checksum ──▶  received, verified, appended, synced
//!   bytes                   ──▶
//!                   STORED  ◀──                        JOIN  ──▶  which disk, which start, the newest leadership it followed
//!   GET key from length     ──▶                              ◀──  ADMITTED number, leadership
//!                   OBJECT  ◀──  verified, block by block
//!            DATA n, bytes  ◀──  is that no older one?  FENCED ──▶  recorded on the disk
//!                                INVENTORY … INVENTORY-END  ──▶  all that it has
//!                                   CHANGES, HEARTBEAT …    ──▶  from then on
//! ```
//!
//! # Whom it follows
//!
//! A Controller whose disk was replaced by an old copy would decide by a state of the past, and have objects removed that
//! are needed. So a Dstore remembers the newest leadership that it has followed, and follows another one only if that
//! knows of it: in the same history the leader's namespace contains it, or the history descends from its own. Otherwise it
//! refuses, and the Controller stops. What it follows is on its disk before it says so; orders of older leaderships are
//! dropped.
//!
//! | file | what |
//! |---|---|
//! | `objects` | a client's connection: puts and gets |
//! | `link` | the connection to a Controller, which the Dstore opens and reopens |
//! | `orders` | what Controllers order: to verify, copy and remove objects |
//! | `upkeep` | in the background: syncs, scrubbing, compaction |
//! | `load` | how busy the host is |
//! | `probe` | what the process that it runs in can learn of it, for monitoring |
//!
//! # Threads
//!
//! All of them are the Dstore's group's, are called `dstore`, and end with [`Handle::stop`].
//!
//! | thread | waits on |
//! |---|---|
//! | one for each connection | its socket; the disk |
//! | two for each Controller: reports and orders | a change of the disk; the socket |
//! | five that carry out orders: four of them fetch copies | their orders; for a copy, another Dstore |
//! | one for upkeep, and one for syncs with `--sync interval` | a clock |
//!
//! # Locks
//!
//! `following` is held while a leadership is recorded. `orders` and `state` are held for short decisions only; `state` may be
//! taken while holding one of the others, never the reverse. An orderer's outcomes may
//! be locked while holding `orders`, and no lock is taken while holding them.

mod link;
mod load;
mod objects;
mod orders;
mod probe;
mod upkeep;

use std::fmt;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stevedore::server::{Server, ThreadGroup};
use stevedore::sync::{Condvar, Mutex};

use crate::disk::RealFolder;
use crate::identity::{ClusterId, DstoreId};
use crate::pack::{self, Disk, Identity, OpenError, ScrubRound};
use crate::wire::{Address, HANDSHAKE_PATIENCE, Secret};
use orders::Orders;
pub use probe::{Figures, Probe};

/// The format of the disk that this release writes.
pub const FORMAT: u32 = 1;

/// How a Dstore is started.
#[derive(Debug)]
pub struct Options {
    /// The folder of its disk. An empty one becomes a new disk.
    pub data: PathBuf,
    /// The store. A disk of another one is refused.
    pub cluster: ClusterId,
    /// What all its servers know.
    pub secret: Secret,
    /// Where it listens.
    pub listener: TcpListener,
    /// Where others reach it.
    pub address: Address,
    /// Where Controllers are: one that is reached says where all are.
    pub controllers: Vec<Address>,
    /// The machine that it is on: copies are spread over hosts. [`host_name`] unless told otherwise.
    pub host: String,
    /// The zone of that machine; empty for none.
    pub zone: String,
    /// How it keeps its objects.
    pub disk: pack::Options,
    /// In how much time all that it has is verified once.
    pub scrub_period: Duration,
    /// A Controller that does not admit it for so long has a reason that will not go away: then it [fails](Handle::failure).
    pub gives_up_after: Duration,
    /// It fetches so many bytes a second from other Dstores, at most: [`COPY_RATE`]. An object of less than a block counts as a block.
    pub copy_rate: u64,
}

/// How many bytes a second a Dstore fetches from others, unless told otherwise. (depot 5.9)
pub const COPY_RATE: u64 = 128 << 20;

/// After how much time of not being admitted a Dstore gives up, unless told otherwise. A Controller takes a few seconds to
/// notice that a connection is gone, and admits no second one before.
pub const GIVES_UP_AFTER: Duration = Duration::from_secs(15);

/// In how much time a Dstore verifies all that it has, unless told otherwise.
pub const SCRUB_PERIOD: Duration = Duration::from_secs(14 * 24 * 3600);

/// Why a Dstore does not start. Nothing on its disk is changed then.
#[derive(Debug)]
pub enum StartError {
    /// The disk cannot be opened.
    Disk {
        /// Its folder.
        folder: PathBuf,
        /// Why.
        error: OpenError,
    },
    /// The disk belongs to another store.
    OtherStore {
        /// Its folder.
        folder: PathBuf,
        /// Whose it is.
        theirs: ClusterId,
        /// Whose it should be.
        ours: ClusterId,
    },
    /// What the system says.
    Io(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { folder, error } => write!(f, "{}: {error}", folder.display()),
            Self::OtherStore { folder, theirs, ours } => write!(
                f,
                "{} holds objects of another store: {theirs}, not {ours}. Nothing was changed. Start it with that store's \
                 cluster.toml, or give this one an empty folder",
                folder.display()
            ),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A Dstore that runs. It stops when this is dropped.
pub struct Handle {
    shared: Arc<Shared>,
    server: Server,
    threads: Arc<ThreadGroup>,
}

/// What a Dstore's threads share.
struct Shared {
    disk: Disk,
    cluster: ClusterId,
    secret: Secret,
    address: Address,
    host: String,
    zone: String,
    data: PathBuf,
    sync: crate::log::SyncMode,
    scrub_period: Duration,
    /// Where the scrub was when that was last kept.
    scrub_round: Mutex<ScrubRound>,
    gives_up_after: Duration,
    copy_rate: u64,
    /// One leadership is considered at a time.
    following: Mutex<()>,
    controllers: Mutex<link::Controllers>,
    connections: AtomicUsize,
    /// Requests that are being answered: other work leaves time to them.
    requests: AtomicUsize,
    /// What it was asked for since it was started.
    traffic: probe::Traffic,
    orders: Mutex<Orders>,
    has_orders: Condvar,
    state: Mutex<State>,
    /// Signalled when it stops.
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    is_stopping: bool,
    /// Why it cannot go on, if that is so.
    fatal: Option<String>,
}

impl Handle {
    /// Opens the disk and serves. It listens when this returns; the Controllers are connected to in the background.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let Options { data, cluster, secret, listener, address, controllers, host, zone, .. } = options;
        let Options { disk, scrub_period, gives_up_after, copy_rate, .. } = options;
        let of_disk = |error| StartError::Disk { folder: data.clone(), error };
        let folder = Arc::new(RealFolder::new(&data)?);
        // Before anything is changed there.
        let theirs = Identity::peek(&*folder).map_err(of_disk)?.and_then(|identity| identity.cluster);
        if let Some(theirs) = theirs.filter(|theirs| *theirs != cluster) {
            return Err(StartError::OtherStore { folder: data, theirs, ours: cluster });
        }
        let sync = disk.sync;
        let (disk, recovered) = Disk::open(folder, disk).map_err(of_disk)?;
        tell(&data, &recovered);
        let scrub_round = Mutex::new(disk.scrub_round());
        let shared = Arc::new(Shared {
            disk,
            cluster,
            secret,
            address,
            host,
            zone,
            data,
            sync,
            scrub_period,
            scrub_round,
            gives_up_after,
            copy_rate,
            following: Mutex::new(()),
            controllers: Mutex::default(),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            traffic: probe::Traffic::default(),
            orders: Mutex::default(),
            has_orders: Condvar::new(),
            state: Mutex::default(),
            stopped: Condvar::new(),
        });
        let threads = ThreadGroup::new("dstore");
        let of_connections = Arc::clone(&shared);
        let serve = move |stream| objects::serve(&of_connections, stream);
        let server = Server::start(listener, &threads, Some(HANDSHAKE_PATIENCE), serve)?;
        // From here on, whatever fails, dropping the handle ends what has been started.
        let handle = Self { shared, server, threads };
        let spawn = |job: fn(&Shared)| {
            let shared = Arc::clone(&handle.shared);
            handle.threads.spawn(move || job(&shared))
        };
        spawn(upkeep::run)?;
        spawn(upkeep::sync_every_second)?;
        let spawn_orderly = |job: fn(&Shared, &Arc<ThreadGroup>)| {
            let (shared, threads) = (Arc::clone(&handle.shared), Arc::clone(&handle.threads));
            handle.threads.spawn(move || job(&shared, &threads))
        };
        spawn_orderly(orders::carry_out_short_ones)?;
        for _ in 0..orders::COPIES_AT_A_TIME {
            spawn_orderly(orders::carry_out_all)?;
        }
        link::begin(&handle.shared, &handle.threads, controllers)?;
        Ok(handle)
    }

    /// Who it is; its number is known once it has been admitted.
    pub fn identity(&self) -> Identity {
        self.shared.disk.identity()
    }

    /// Why it cannot go on, if that is so: then it is to be stopped. Nothing on its disk is deleted.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure()
    }

    /// Looks at it from now on.
    pub fn probe(&self) -> Probe {
        Probe(Arc::downgrade(&self.shared))
    }

    /// False once it cannot go on.
    pub fn is_alive(&self) -> bool {
        self.failure().is_none()
    }

    /// Ends its connections and threads, and has all on the disk.
    pub fn stop(mut self) -> Result<(), String> {
        self.end()
    }

    fn end(&mut self) -> Result<(), String> {
        {
            let mut state = self.shared.state.lock();
            if std::mem::replace(&mut state.is_stopping, true) {
                return Ok(());
            }
        }
        self.shared.stopped.notify_all();
        // A thread that is about to wait for orders holds the lock until it does.
        drop(self.shared.orders.lock());
        self.shared.has_orders.notify_all();
        self.shared.disk.wake_followers();
        self.server.stop();
        self.threads.stop();
        self.shared.disk.settle().map_err(|error| error.to_string())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            log::error!("{}: {error}", self.shared.data.display());
        }
    }
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.state.lock().is_stopping
    }

    /// Waits for so long; false as soon as the Dstore stops.
    fn rest(&self, time: Duration) -> bool {
        let deadline = Instant::now().checked_add(time);
        let mut state = self.state.lock();
        while !state.is_stopping {
            match deadline {
                None => self.stopped.wait(&mut state),
                Some(deadline) => {
                    if self.stopped.wait_until(&mut state, deadline).timed_out() {
                        return !state.is_stopping;
                    }
                }
            }
        }
        false
    }

    /// Says why nothing can go on. The owner of the [`Handle`] stops it.
    fn give_up(&self, why: String) {
        log::error!("{}: {why}", self.data.display());
        self.state.lock().fatal.get_or_insert(why);
    }

    /// Why it cannot go on, if that is so.
    fn failure(&self) -> Option<String> {
        let fatal = self.state.lock().fatal.clone();
        fatal.or_else(|| self.disk.failure())
    }

    fn has_given_up(&self) -> bool {
        self.state.lock().fatal.is_some()
    }

    /// How a log line names it.
    fn number(&self) -> String {
        self.disk.identity().number.map_or_else(|| "Dstore".to_owned(), |DstoreId(number)| format!("Dstore {number}"))
    }

    /// Counts a connection until it is dropped; `None` if there are too many.
    fn count_connection(&self) -> Option<Counted<'_>> {
        let counted = Counted(&self.connections);
        (self.connections.fetch_add(1, Ordering::AcqRel) < MOST_CONNECTIONS).then_some(counted)
    }

    /// Counts a request until the count is dropped.
    fn count_request(&self) -> Counted<'_> {
        self.requests.fetch_add(1, Ordering::AcqRel);
        Counted(&self.requests)
    }
}

/// More connections at a time are refused: each may need a thread and the memory of an object.
const MOST_CONNECTIONS: usize = 4096;

struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a person should know about the disk that was opened.
fn tell(data: &std::path::Path, recovered: &pack::Recovered) {
    let pack::Recovered { objects, damaged, torn_bytes, lost_bytes, unreadable_packs, .. } = recovered;
    let folder = data.display();
    log::info!("{folder}: {objects} objects");
    if *torn_bytes > 0 {
        log::info!(
            "{folder}: the end before was not in order: {torn_bytes} bytes were cut off that were never acknowledged"
        );
    }
    if *damaged > 0 || *lost_bytes > 0 {
        log::warn!("{folder}: {damaged} objects are damaged, {lost_bytes} bytes of packs are in no record");
    }
    for pack in unreadable_packs {
        log::error!("{folder}: nothing can be read in {pack}; it is left as it is, and its objects are missing here");
    }
}

/// What this machine calls itself: its id, or else its name.
pub fn host_name() -> String {
    let read = |path| fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    read("/etc/machine-id").or_else(|| read("/proc/sys/kernel/hostname")).unwrap_or_else(|| "unknown".to_owned())
}
