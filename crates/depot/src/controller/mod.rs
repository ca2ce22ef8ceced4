//! A Controller: threads around the namespace, its log, and what is known of Dstores. (depot 4, 5)
//!
//! A Controller decides and remembers; no byte of any file passes through it. A put shows how the parts work together:
//!
//! ```text
//! client                     Controller                         Dstores
//!   PLACES /a any …  ──▶  would it be accepted? keys from `keys`,
//!                         places by `placement::choose`
//!            GRANTED ◀──
//!   PUT key length checksum, bytes  ───────────────────────────▶  to each place
//!                                                    STORED  ◀──  at a position
//!   CHANGE put /a keys, holders ──▶  leases? enough holders?
//!                         copies are claimed in `holdings`
//!                         the change goes into the log, is synced, is applied
//!               DONE ◀──
//!                                    CHANGES: the copies are certain  ◀── Dstore's link
//! ```
//!
//! | file | what |
//! |---|---|
//! | `requests` | a client's connection: requests in, answers out |
//! | `changes` | changes that clients ask for: checked, proposed, and what follows |
//! | `links` | a Dstore's connection: its reports in, orders out |
//! | `leadership` | what begins and ends with a leadership |
//! | `peers` | connections between Controllers |
//! | `group` | which Controllers belong to the store |
//! | `healing` | the thread that repairs, and removes what is surplus |
//! | `operations` | what an operator asks for: repair, to empty a Dstore, to give one up |
//! | `keys` | which keys are leased to which client |
//! | `status` | what the store says about itself |
//! | `probe` | what the process that it runs in can learn of it, for monitoring |
//! | `backups` | its metadata, sent to clients that ask and to the Dstores now and then |
//! | `housekeeping` | the thread for everything that is done now and then, and the one for snapshots |
//!
//! # Locks
//!
//! `state` is held for short decisions only: never across a disk, a socket, a wait, or a call of the log. The log takes it while it
//! tells of what it has applied. It may be taken while `membership` is held, which waits for the log; never the reverse. `shipping`
//! is held while Dstores are sent a backup; `state` may be taken while holding it, never the reverse. The locks of `peers` are
//! each taken alone.
//!
//! # Threads
//!
//! | thread | waits on | ended by |
//! |---|---|---|
//! | `controller`: one for each connection | its socket; the log; a Dstore to come | [`Handle::stop`], which shuts the sockets down |
//! | a link's writer | the orders to send | the link's end, which drops their sender |
//! | `controller-healing` | something to heal; a clock | [`Handle::stop`] |
//! | `controller-clock`, `controller-group`, `controller-housekeeping`, `controller-snapshots` | a clock | [`Handle::stop`] |
//! | `controller`: those to other Controllers (`peers`) | their queues; their sockets | [`Handle::stop`], likewise |
//! | `controller`: one that sends backups to Dstores | a clock; their sockets | [`Handle::stop`], likewise |

mod backups;
mod changes;
mod group;
mod healing;
mod housekeeping;
mod keys;
mod leadership;
mod links;
mod operations;
mod peers;
mod probe;
mod requests;
mod status;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};
use stevedore::server::{Server, ThreadGroup};

use crate::disk::RealFolder;
use crate::identity::{ClusterId, ControllerId, DstoreId, Epoch, History, Version};
use crate::log::{Observer, OpenError, Post, Replica, ReplicaOptions, Seat};
use crate::namespace::change::{Change, Command, Settings};
use crate::placement::Holdings;
use crate::wire::{Address, HANDSHAKE_PATIENCE, Secret};
use healing::Healing;
pub use healing::HealingOptions;
use keys::Keys;
use leadership::Ears;
use links::Link;
use peers::Peers;
pub use peers::{Who, who_is_at};
pub use probe::{Figures, Probe};

/// So long after its start a Controller has requests wait for Dstores that are not there yet, unless told otherwise.
/// (depot 6.2)
pub const SETTLING: Duration = Duration::from_secs(10);

/// After so many ticks without a word of the leader a Controller stands for election; each time drawn anew. A tick is about
/// 100 ms. So service resumes within 2 s even if the first election has no winner.
const ELECTION_TICKS: Range<usize> = 5..10;

/// So often Dstores are sent a backup of the metadata, unless told otherwise. (depot 4.9)
pub const BACKUP_PERIOD: Duration = Duration::from_secs(3600);

/// How a Controller is started.
pub struct Options {
    /// The folder of its log.
    pub data: PathBuf,
    /// The store. A log of another one is refused; an empty folder becomes a new store.
    pub cluster: ClusterId,
    /// What people call a new store.
    pub name: String,
    /// What a new store begins with.
    pub settings: Settings,
    /// What all its servers know.
    pub secret: Secret,
    /// Where it listens.
    pub listener: TcpListener,
    /// Where others reach it.
    pub address: Address,
    /// How it keeps its log.
    pub replica: ReplicaOptions,
    /// So long after the start requests wait for Dstores that are not there yet: [`SETTLING`].
    pub settling: Duration,
    /// So often it sends a backup to every Dstore, if something has changed: [`BACKUP_PERIOD`].
    pub backup_period: Duration,
    /// How it heals the store.
    pub healing: HealingOptions,
    /// What becomes of an empty folder.
    pub beginning: Beginning,
}

/// What a Controller does whose folder is empty. (depot 4.7)
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// It creates the store, which these Controllers are to belong to: they wait to be added, and are.
    Create {
        /// Other Controllers, and where they listen.
        others: Vec<(ControllerId, Address)>,
    },
    /// It waits until a Controller of the store adds it.
    Join,
}

impl Beginning {
    /// A store of one Controller.
    pub fn alone() -> Self {
        Self::Create { others: Vec::new() }
    }
}

/// Why a Controller does not start.
#[derive(Debug)]
pub enum StartError {
    /// The log cannot be opened.
    Log(OpenError),
    /// The log is of another store.
    OtherStore {
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
            Self::Log(error) => error.fmt(f),
            Self::OtherStore { theirs, ours } => {
                write!(
                    f,
                    "the log is of another store: {theirs}, not {ours}. Was the folder moved, or cluster.toml replaced?"
                )
            }
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        Self::Log(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A Dstore does not follow this Controller, whose disk is an old copy. (depot 2.2)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The history that the Dstore has followed, if this Controller's log knows nothing of it.
    pub unknown_history: Option<History>,
}

/// A Controller that runs. It stops when this is dropped.
pub struct Handle {
    shared: Option<Arc<Shared>>,
    server: Option<Server>,
    threads: Arc<ThreadGroup>,
    housekeeping: Vec<JoinHandle<()>>,
}

/// What the Controller's threads share.
struct Shared {
    replica: Replica,
    cluster: ClusterId,
    secret: Secret,
    address: Address,
    options: ReplicaOptions,
    data: PathBuf,
    folder: RealFolder,
    started: Instant,
    settling: Duration,
    backup_period: Duration,
    shipping: Mutex<backups::Shipping>,
    shipped: Mutex<backups::Shipped>,
    /// Held while the log is told something about a Dstore, by what it said before.
    membership: Mutex<()>,
    /// One Dstore at a time is removed from the store. Taken before `membership`.
    discharging: Mutex<()>,
    state: Mutex<State>,
    /// Told when a Dstore has come, gone, or reported, and when the Controller is to stop.
    news: News,
    /// Signalled when there may be something to heal.
    to_heal: Condvar,
    stopping: AtomicBool,
    /// All of the store is about to end: it takes no more changes from clients.
    ending: AtomicBool,
    /// A Dstore follows this leadership, or none has come in time: it answers requests. Changed while `state` is held.
    may_serve: AtomicBool,
    /// Its disk is nearly full: only removals are accepted. (depot 12)
    is_short_of_space: AtomicBool,
    /// Why it cannot go on, if that is so.
    fatal: Mutex<Option<String>>,
    peers: Arc<Peers>,
    threads: Arc<ThreadGroup>,
    /// It is because of this.
    refused: Mutex<Option<Refused>>,
}

/// What is known beside the namespace.
struct State {
    /// The leadership that decides here; `None` while this Controller follows. What is leased and ordered is of this one.
    epoch: Option<Epoch>,
    /// When it began; before the first one, when the Controller was started. Dstores have some time from then on.
    since: Instant,
    holdings: Holdings,
    links: BTreeMap<DstoreId, Link>,
    /// The highest start of each Dstore that was seen: a lower one is an old copy of its disk.
    starts: BTreeMap<DstoreId, u64>,
    keys: Keys,
    healing: Healing,
    census: status::Census,
    random: fastrand::Rng,
}

impl Handle {
    /// Opens the log and serves.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let folder = RealFolder::new(&options.data)?;
        let (peers, ears) = (Arc::new(Peers::default()), Arc::new(Ears::default()));
        let seat = Seat {
            post: Arc::clone(&peers) as Arc<dyn Post>,
            observer: Arc::clone(&ears) as Arc<dyn Observer>,
            election_ticks: ELECTION_TICKS,
            is_vouched_for: true,
        };
        let replica = match options.beginning {
            Beginning::Create { .. } => Replica::open(Arc::new(folder.clone()), options.replica, seat)?,
            Beginning::Join => Replica::open_to_join(Arc::new(folder.clone()), options.replica, seat)?,
        };
        // One of several may not have applied anything yet.
        let theirs = replica.look(|namespace| namespace.cluster());
        if theirs != options.cluster && theirs != ClusterId::default() {
            return Err(StartError::OtherStore { theirs, ours: options.cluster });
        }
        if let Beginning::Create { others } = &options.beginning
            && theirs == ClusterId::default()
            && replica.epoch().is_some()
        {
            let Options { cluster, name, settings, .. } = &options;
            let create = Command::Create { cluster: *cluster, name: name.clone(), settings: settings.clone() };
            let first = [(replica.id(), options.address.clone())];
            let enter = first.iter().chain(others).cloned();
            let enter = enter.map(|(id, address)| Command::EnterController { id, address });
            for command in std::iter::once(create).chain(enter) {
                let change = Change { now_ms: now_ms(), stamp: None, command };
                replica.propose(&change).map_err(io::Error::other)?;
            }
        }
        let threads = ThreadGroup::new("controller");
        let shared = Arc::new(Shared {
            replica,
            cluster: options.cluster,
            secret: options.secret,
            address: options.address,
            options: options.replica,
            data: options.data,
            folder,
            started: Instant::now(),
            settling: options.settling,
            backup_period: options.backup_period,
            shipping: Mutex::default(),
            shipped: Mutex::new(backups::Shipped::none()),
            membership: Mutex::new(()),
            discharging: Mutex::new(()),
            state: Mutex::new(State {
                epoch: None,
                since: Instant::now(),
                holdings: Holdings::default(),
                links: BTreeMap::new(),
                starts: BTreeMap::new(),
                keys: Keys::new(options.healing.lease),
                healing: Healing::new(options.healing, Instant::now() + options.settling),
                census: status::Census::default(),
                random: fastrand::Rng::new(),
            }),
            news: News::default(),
            to_heal: Condvar::new(),
            stopping: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            may_serve: AtomicBool::new(false),
            is_short_of_space: AtomicBool::new(false),
            fatal: Mutex::new(None),
            peers,
            threads: Arc::clone(&threads),
            refused: Mutex::new(None),
        });
        shared.measure_space();
        ears.listen(&shared);
        shared.note_leadership(shared.replica.epoch());
        let (of_connections, group) = (Arc::clone(&shared), Arc::clone(&threads));
        let serve = move |stream| requests::serve(&of_connections, &group, stream);
        let server = Server::start(options.listener, &threads, Some(HANDSHAKE_PATIENCE), serve)?;
        let housekeeping = housekeeping::start(&shared)?;
        let (of_backups, group) = (Arc::clone(&shared), Arc::clone(&threads));
        threads.spawn(move || backups::keep_shipping(&of_backups, &group))?;
        Ok(Self { shared: Some(shared), server: Some(server), threads, housekeeping })
    }

    /// Why it cannot go on, if that is so: then it is to be stopped.
    pub fn failure(&self) -> Option<String> {
        self.shared.as_ref()?.failure()
    }

    /// Looks at it from now on.
    pub fn probe(&self) -> Probe {
        Probe(self.shared.as_ref().map(Arc::downgrade).unwrap_or_default())
    }

    /// Whether it cannot go on because a Dstore does not follow it.
    pub fn refused(&self) -> Option<Refused> {
        self.shared.as_ref().and_then(|shared| *shared.refused.lock())
    }

    /// All of the store is about to end: a Dstore that leaves is no news. Takes no more changes, and sends every Dstore a backup
    /// with the last of them, as far as a second allows. For a process that ends Dstores of its own before the Controller.
    pub fn expect_end(&self) {
        if let Some(shared) = &self.shared {
            shared.ending.store(true, Ordering::Release);
            backups::ship_last(shared, &self.threads);
        }
    }

    /// Which Controller this is.
    pub fn id(&self) -> Option<ControllerId> {
        self.shared.as_ref().map(|shared| shared.replica.id())
    }

    /// Where the Controllers of the store listen, as far as this one knows; none while it waits to be added.
    pub fn controllers(&self) -> Vec<(ControllerId, Address)> {
        self.shared.as_ref().map(|shared| shared.controllers()).unwrap_or_default()
    }

    /// Whether it is the only Controller of its store.
    pub fn is_alone(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.replica.members().voters == [shared.replica.id()])
    }

    /// Another Controller listens there now: for a process that has several, which were all started elsewhere before.
    pub fn introduce(&self, id: ControllerId, address: Address) {
        if let Some(shared) = &self.shared {
            shared.peers.introduce(id, address, Version::default());
        }
    }

    /// Whether its folder is empty, and it waits to be added.
    pub fn waits(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.waits())
    }

    /// Has another Controller lead, if this one does and there are others. Without an answer in time, it goes on.
    pub fn hand_over(&self) {
        if let Some(shared) = &self.shared
            && shared.epoch().is_ok()
            && let Err(failure) = shared.hand_over(None, group::LAST_HAND_OVER)
        {
            log::info!("it ends without handing over: {failure}");
        }
    }

    /// Takes no more requests, lets none wait, and closes the log in order. A leader hands over before, unless
    /// [`expect_end`](Self::expect_end) has said that the others end, too.
    pub fn stop(mut self) -> Result<(), String> {
        self.end()
    }

    fn end(&mut self) -> Result<(), String> {
        if self.shared.as_ref().is_some_and(|shared| !shared.ending.load(Ordering::Acquire)) {
            self.hand_over();
        }
        self.expect_end();
        let Some(shared) = self.shared.take() else { return Ok(()) };
        shared.stopping.store(true, Ordering::Release);
        shared.replica.retire();
        shared.news.tell();
        drop(shared.state.lock()); // no thread is between asking whether to stop and waiting
        shared.to_heal.notify_all();
        // The threads that accept end with the others.
        if let Some(server) = &mut self.server {
            server.stop();
        }
        self.threads.stop();
        for thread in self.housekeeping.drain(..) {
            thread.thread().unpark();
            // It has said on stderr why it panicked; the rest still ends in order.
            let _ = thread.join();
        }
        self.server = None;
        match Arc::try_unwrap(shared) {
            Ok(shared) => shared.replica.close().map_err(|error| error.to_string()),
            Err(_) => Err("a thread of the Controller outlived it".to_owned()),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            log::error!("the log was not closed in order: {error}");
        }
    }
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Why it cannot go on, if that is so.
    fn failure(&self) -> Option<String> {
        let fatal = self.fatal.lock().clone();
        fatal.or_else(|| self.replica.failure().map(|failure| failure.to_string()))
    }

    /// Says why nothing can go on. The owner of the [`Handle`] stops it.
    fn give_up(&self, why: String) {
        let mut fatal = self.fatal.lock();
        if fatal.is_none() {
            log::error!("{why}");
            *fatal = Some(why);
        }
        drop(fatal);
        self.news.tell();
    }

    /// Waits until `is_there` says so, for as long as Dstores may still be about to come after a leadership has begun. It is
    /// asked again whenever something was heard, and takes the locks that it needs.
    fn wait_for_dstores(&self, mut is_there: impl FnMut() -> bool) {
        loop {
            let times = self.news.times();
            let deadline = self.state.lock().since + self.settling;
            if is_there() || self.is_stopping() || !self.news.wait_beyond(times, deadline) {
                return;
            }
        }
    }
}

/// How often something was heard, for threads that wait for it. What they wait for may be in the state, in the namespace, or in
/// both, so no lock of theirs guards it: a thread notes the count, looks, and waits for a higher one.
#[derive(Default)]
struct News {
    times: Mutex<u64>,
    heard: Condvar,
}

impl News {
    fn tell(&self) {
        *self.times.lock() += 1;
        self.heard.notify_all();
    }

    fn times(&self) -> u64 {
        *self.times.lock()
    }

    /// Waits until something more was heard; false if the deadline passes first.
    fn wait_beyond(&self, times: u64, deadline: Instant) -> bool {
        let mut now = self.times.lock();
        while *now <= times {
            if self.heard.wait_until(&mut now, deadline).timed_out() {
                return *now > times;
            }
        }
        true
    }
}

/// This machine's clock, in milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
