//! Connections between the Controllers of a group. (depot 4.2, 4.7, 4.8)
//!
//! Raft's library decides what one member has to tell another. It expects little of the way there: a message may be lost, late,
//! or come twice, for everything is repeated that matters. So a message never waits. It goes into the queue for its member; when
//! that is full, because the member is away or slow, it is dropped. The thread that decides changes is never held up.
//!
//! ```text
//!  Replica ── send ──▶ queue for B ── thread ── connection ──▶ B: a thread that steps what comes
//!          ── send ──▶ queue for C ── thread ── connection ──▶ C
//!          ── send_snapshot ─────────▶ a thread and a connection for this one file
//! ```
//!
//! Each Controller opens a connection to each other one, and only sends on it. On connections that others have opened it only
//! answers. So no two threads write to one socket, and a connection that stands in one direction only is used in that one. A
//! `PING` every second asks whether the other end is still there: behind a cut cable a socket takes messages for minutes.
//!
//! # Which Controller is at the other end?
//!
//! A Controller is its log's folder, and the id in it. All peers that know the store's secret are Controllers of the store, but not
//! all belong to the group. The first line of a connection says who speaks and which Controller it means to reach. It is refused
//! if the one that speaks does not belong to the group, or the one that listens is another: one that has lost its disk has
//! forgotten for whom it voted, and must not vote again in the old one's name. The sentence says what an operator can do.
//!
//! A Controller that was away cannot know which Controllers were added meanwhile, and one of those may lead. So the first line
//! says, too, how much the one that speaks has applied: where it is ahead in the same history, it is let in, and answered, until
//! the other one has caught up and knows.
//!
//! Where a Controller listens is in the namespace. One that was started elsewhere says so in its first line: the others then find
//! it there, and the leader enters it. One that waits to be added knows nothing of the others but what they say.
//!
//! # Threads
//!
//! | thread | waits on | ended by |
//! |---|---|---|
//! | one for each other Controller | its queue; the connection | [`Peers::follow`] when that one leaves; the end of this one |
//! | one for each snapshot on its way | the connection | its end; the end of this Controller |

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use stevedore::complaint::complain;
use stevedore::server::{ThreadGroup, Tracked};
use stevedore::socket::Wait;

use super::Shared;
use crate::identity::{ClusterId, ControllerId, Version};
use crate::log::{Backup, Message, Post};
use crate::wire::message::{Failure, PeerAnswer, PeerRequest};
use crate::wire::{Access, Address, Connection, HandshakeError, ReceiveError, Role, Secret, connect};

/// How long connecting and each answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// So often the other end is asked whether it is there.
const PING: Duration = Duration::from_secs(1);

/// A connection on which nothing comes for so long is closed by the end that answers.
const SILENCE: Duration = Duration::from_secs(10);

/// After a failure it is tried again after so long, then twice as long, up to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// So many messages may wait for a Controller, and so many bytes; what is beyond is dropped.
const MOST_QUEUED: usize = 4096;
const MOST_QUEUED_BYTES: usize = 64 << 20;

/// The largest message: the library puts as many changes in one as have 1 MiB together, or one that is larger.
const MOST_MESSAGE: u64 = 16 << 20;

/// The largest message that announces a snapshot: it has no more than the group's members.
const MOST_TICKET: u64 = 1 << 20;

/// So much of a snapshot is read and sent at a time.
const PIECE: usize = 256 << 10;

/// A Controller may take so long to install a snapshot, and as long again for each 16 MiB of it.
const INSTALL: Duration = Duration::from_secs(30);

/// The connections to the other Controllers.
#[derive(Default)]
pub(super) struct Peers {
    links: Mutex<BTreeMap<ControllerId, Arc<Link>>>,
    /// Where Controllers have said that they listen, and what they had applied then.
    introduced: Mutex<BTreeMap<ControllerId, (Address, Version)>>,
    /// Held while a snapshot comes: one at a time.
    receiving: Mutex<()>,
}

/// What this Controller has for another one.
struct Link {
    id: ControllerId,
    address: Mutex<Address>,
    queue: Sender<Vec<u8>>,
    queued: Receiver<Vec<u8>>,
    queued_bytes: AtomicUsize,
    /// At most one waits; the library sends no second before it has heard of the first.
    snapshots: Sender<(Message, Backup)>,
    waiting_snapshots: Receiver<(Message, Backup)>,
    /// The other one has connected: it can be reached again.
    is_called: AtomicBool,
    /// It belongs to the group no more.
    has_left: AtomicBool,
    /// Why there is no connection, if that is so.
    trouble: Mutex<Option<String>>,
    /// Of a snapshot under way: so many bytes are sent, of so many.
    sent: AtomicU64,
    to_send: AtomicU64,
}

/// How the connection to another Controller is.
pub(super) struct PeerState {
    /// Why there is none, if that is so.
    pub(super) trouble: Option<String>,
    /// Of a snapshot under way: so many bytes are sent, of so many.
    pub(super) snapshot: Option<(u64, u64)>,
}

/// Why a connection has ended.
enum End {
    /// The other end is not reached, or has gone.
    Broken(String),
    /// The other end refuses this Controller.
    Refused(Failure),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => f.write_str(why),
            Self::Refused(failure) => failure.fmt(f),
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<ReceiveError> for End {
    fn from(error: ReceiveError) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<HandshakeError> for End {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Refused(failure) => Self::Refused(failure),
            other => Self::Broken(other.to_string()),
        }
    }
}

impl Post for Peers {
    fn send(&self, messages: Vec<Message>) {
        let links = self.links.lock();
        for message in messages {
            let Some(link) = links.get(&message.to()) else { continue };
            let bytes = message.encode();
            let length = bytes.len();
            if link.queued_bytes.fetch_add(length, Ordering::Relaxed) + length > MOST_QUEUED_BYTES
                || link.queue.try_send(bytes).is_err()
            {
                link.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            }
        }
    }

    fn send_snapshot(&self, message: Message, file: Backup) {
        let link = self.links.lock().get(&message.to()).cloned();
        // Where another one waits, that one's end is told to the replica, and it sends anew.
        if let Some(link) = link {
            drop(link.snapshots.try_send((message, file)));
        }
    }
}

impl Peers {
    /// Keeps a connection to each of these Controllers, and no others.
    pub(super) fn follow(&self, shared: &Arc<Shared>, table: &[(ControllerId, Address)]) {
        let ours = shared.replica.id();
        let introduced = self.introduced.lock().clone();
        // One that waits to be added answers all that speak to it. One that was removed is a member until a majority with it has
        // agreed.
        let members: BTreeSet<ControllerId> = shared.replica.members().all().collect();
        let is_wanted =
            |id: &ControllerId, applied| table.is_empty() || members.contains(id) || shared.is_behind(applied);
        let mut wanted: BTreeMap<ControllerId, Address> = table.iter().cloned().collect();
        let introduced = introduced.into_iter().filter(|(id, (_, applied))| is_wanted(id, *applied));
        wanted.extend(introduced.map(|(id, (address, _))| (id, address)));
        let mut links = self.links.lock();
        links.retain(|id, link| {
            let stays = wanted.contains_key(id) || members.contains(id);
            link.has_left.store(!stays, Ordering::Release);
            stays
        });
        for (id, address) in wanted.into_iter().filter(|(id, _)| *id != ours) {
            if let Some(link) = links.get(&id) {
                *link.address.lock() = address;
                continue;
            }
            let link = Arc::new(Link::new(id, address));
            let (of_thread, shared_too) = (Arc::clone(&link), Arc::clone(shared));
            if shared.threads.spawn(move || of_thread.keep(&shared_too)).is_ok() {
                links.insert(id, link);
            }
        }
    }

    /// Where a Controller has said that it listens, if it has spoken to this one.
    pub(super) fn introduced(&self, id: ControllerId) -> Option<Address> {
        self.introduced.lock().get(&id).map(|(address, _)| address.clone())
    }

    /// Where one of those listens that have said it.
    pub(super) fn any_introduced(&self) -> Option<Address> {
        self.introduced.lock().values().next().map(|(address, _)| address.clone())
    }

    /// A Controller has said where it listens, and what it has applied.
    pub(super) fn introduce(&self, id: ControllerId, address: Address, applied: Version) {
        self.introduced.lock().insert(id, (address, applied));
        if let Some(link) = self.links.lock().get(&id) {
            link.is_called.store(true, Ordering::Release);
        }
    }

    /// How the connection to another Controller is; `None` if there is none to be.
    pub(super) fn state(&self, id: ControllerId) -> Option<PeerState> {
        let link = self.links.lock().get(&id).cloned()?;
        let (sent, to_send) = (link.sent.load(Ordering::Relaxed), link.to_send.load(Ordering::Relaxed));
        let trouble = link.trouble.lock().clone();
        Some(PeerState { trouble, snapshot: (to_send > 0).then_some((sent, to_send)) })
    }
}

impl Link {
    fn new(id: ControllerId, address: Address) -> Self {
        let (queue, queued) = bounded(MOST_QUEUED);
        let (snapshots, waiting_snapshots) = bounded(1);
        Self {
            id,
            address: Mutex::new(address),
            queue,
            queued,
            queued_bytes: AtomicUsize::new(0),
            snapshots,
            waiting_snapshots,
            is_called: AtomicBool::new(false),
            has_left: AtomicBool::new(false),
            trouble: Mutex::new(Some("it is not connected yet".into())),
            sent: AtomicU64::new(0),
            to_send: AtomicU64::new(0),
        }
    }

    /// Keeps a connection to the other Controller for as long as it belongs to the group.
    fn keep(self: &Arc<Self>, shared: &Arc<Shared>) {
        let mut retry = FIRST_RETRY;
        let mut last_said = String::new();
        while !self.is_over(shared) {
            let address = self.address.lock().clone();
            let begun = Instant::now();
            let end = self.talk(shared, &address);
            let Err(end) = end else { return };
            if self.is_over(shared) {
                return;
            }
            if begun.elapsed() > SILENCE {
                (retry, last_said) = (FIRST_RETRY, String::new());
            }
            let said = end.to_string();
            if said != last_said {
                log::warn!("Controller {} at {address}: {said}", self.id);
                last_said.clone_from(&said);
            }
            if let End::Refused(Failure::NotPermitted { why }) = &end {
                shared.note_expulsion(why);
            }
            *self.trouble.lock() = Some(said);
            while let Ok((message, _)) = self.waiting_snapshots.try_recv() {
                shared.replica.snapshot_sent(message.to(), false);
            }
            let deadline = Instant::now() + retry;
            retry = (2 * retry).min(LONGEST_RETRY);
            // Messages that come meanwhile are old before they can be sent.
            while !self.is_over(shared) && !self.is_called.swap(false, Ordering::AcqRel) {
                match self.queued.recv_deadline(deadline.min(Instant::now() + FIRST_RETRY)) {
                    Ok(bytes) => self.forget(&bytes),
                    Err(_) if Instant::now() >= deadline => break,
                    Err(_) => {}
                }
            }
        }
    }

    fn is_over(&self, shared: &Shared) -> bool {
        shared.is_stopping() || self.has_left.load(Ordering::Acquire) || shared.fatal.lock().is_some()
    }

    fn forget(&self, bytes: &[u8]) {
        self.queued_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
    }

    /// Sends what is queued until the connection ends; without an error if nothing is to be sent any more.
    fn talk(self: &Arc<Self>, shared: &Arc<Shared>, address: &Address) -> Result<(), End> {
        let (mut connection, _tracked) = shared.reach(address)?;
        introduce(shared, &mut connection, self.id)?;
        while let Ok(bytes) = self.queued.try_recv() {
            self.forget(&bytes);
        }
        *self.trouble.lock() = None;
        log::info!("Controller {} at {address} is there", self.id);
        let mut asked: Option<Instant> = None;
        let mut due = Instant::now() + PING;
        while !self.is_over(shared) {
            match self.queued.recv_deadline(due.min(Instant::now() + PING / 10)) {
                Ok(bytes) => {
                    self.forget(&bytes);
                    connection.send_with_content(&PeerRequest::Raft { length: bytes.len() as u64 }, &bytes)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if let Ok((message, file)) = self.waiting_snapshots.try_recv() {
                self.start_snapshot(shared, address.clone(), message, file);
            }
            if asked.is_some() && connection.has_news() {
                answered(&mut connection)?;
                asked = None;
            }
            if asked.is_some_and(|at| at.elapsed() > PATIENCE) {
                return Err(End::Broken("it does not answer".into()));
            }
            if Instant::now() >= due {
                if asked.is_none() {
                    connection.send(&PeerRequest::Ping)?;
                    asked = Some(Instant::now());
                }
                due = Instant::now() + PING;
            }
        }
        Ok(())
    }

    fn start_snapshot(self: &Arc<Self>, shared: &Arc<Shared>, address: Address, message: Message, file: Backup) {
        let (link, of_thread) = (Arc::clone(self), Arc::clone(shared));
        let job = move || {
            let id = link.id;
            log::info!("Controller {id} is sent a snapshot of all up to change {}", file.sequence);
            let sent = link.send_snapshot(&of_thread, &address, &message, &file);
            link.to_send.store(0, Ordering::Relaxed);
            match &sent {
                Ok(()) => log::info!("Controller {id} has installed the snapshot"),
                Err(end) => log::warn!("Controller {id} at {address} has not installed a snapshot: {end}"),
            }
            of_thread.replica.snapshot_sent(id, sent.is_ok());
        };
        if shared.threads.spawn(job).is_err() {
            shared.replica.snapshot_sent(self.id, false);
        }
    }

    fn send_snapshot(&self, shared: &Shared, address: &Address, message: &Message, file: &Backup) -> Result<(), End> {
        self.sent.store(0, Ordering::Relaxed);
        self.to_send.store(file.length, Ordering::Relaxed);
        let (mut connection, _tracked) = shared.reach(address)?;
        introduce(shared, &mut connection, self.id)?;
        connection.limit_stalls(INSTALL)?;
        let ticket = message.encode();
        let request = PeerRequest::Snapshot { message: ticket.len() as u64, length: file.length };
        connection.send_with_content(&request, &ticket)?;
        let mut buffer = vec![0; PIECE.min(file.length as usize)];
        let mut at = 0;
        while at < file.length {
            let piece = &mut buffer[..PIECE.min((file.length - at) as usize)];
            file.file.read_at(piece, at)?;
            connection.send_content(piece)?;
            at += piece.len() as u64;
            self.sent.store(at, Ordering::Relaxed);
        }
        let patience = INSTALL * (1 + u32::try_from(file.length >> 24).unwrap_or(u32::MAX));
        match connection.receive(Wait::deadline(patience))? {
            PeerAnswer::Ok => Ok(()),
            PeerAnswer::Error { failure } => Err(End::Refused(failure)),
            PeerAnswer::Controller { .. } => Err(End::Broken("an answer to another question".into())),
        }
    }
}

/// Says which Controller speaks, and to which.
fn introduce(shared: &Shared, connection: &mut Connection, to: ControllerId) -> Result<(), End> {
    connection.limit_stalls(PATIENCE)?;
    let (from, address, applied) = (shared.replica.id(), shared.address.clone(), shared.applied());
    connection.send(&PeerRequest::Peer { from, address, to, applied })?;
    answered(connection)
}

fn answered(connection: &mut Connection) -> Result<(), End> {
    match connection.receive(Wait::deadline(PATIENCE))? {
        PeerAnswer::Ok => Ok(()),
        PeerAnswer::Error { failure } => Err(End::Refused(failure)),
        PeerAnswer::Controller { .. } => Err(End::Broken("an answer to another question".into())),
    }
}

/// A Controller, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Which one.
    pub id: ControllerId,
    /// It has no log, and waits until it is added to a group.
    pub waits: bool,
    /// The Controllers of its store, as far as it knows.
    pub controllers: Vec<(ControllerId, Address)>,
}

/// Asks which Controller is at an address.
pub fn who_is_at(address: &Address, cluster: ClusterId, secret: &Secret) -> Result<Who, String> {
    let access = Access::Server { role: Role::Controller, secret: secret.clone() };
    let connection = connect(address, &access, cluster, Role::Controller, PATIENCE, |_| ());
    ask_who(connection.map_err(|error| error.to_string())?)
}

fn ask_who(mut connection: Connection) -> Result<Who, String> {
    connection.send(&PeerRequest::Who).map_err(|error| error.to_string())?;
    match connection.receive(Wait::deadline(PATIENCE)).map_err(|error| error.to_string())? {
        PeerAnswer::Controller { id, waits, controllers } => Ok(Who { id, waits, controllers }),
        PeerAnswer::Error { failure } => Err(failure.to_string()),
        PeerAnswer::Ok => Err("an answer to another question".into()),
    }
}

/// Serves a connection that another Controller has opened, until it ends.
pub(super) fn serve(shared: &Shared, connection: &mut Connection) -> Result<(), ReceiveError> {
    let mut from: Option<(ControllerId, Address, Version)> = None;
    let refuse = |connection: &Connection, failure| Ok(connection.send(&PeerAnswer::Error { failure })?);
    let bad = |why: &str| Failure::BadRequest { why: why.into() };
    loop {
        match (connection.receive(Wait::deadline(SILENCE))?, &from) {
            (PeerRequest::Who, _) => {
                let (id, waits) = (shared.replica.id(), shared.waits());
                connection.send(&PeerAnswer::Controller { id, waits, controllers: shared.controllers() })?;
            }
            (PeerRequest::Peer { from: id, address, to, applied }, _) => {
                if let Err(failure) = shared.check_peer(id, &address, to, applied) {
                    complain(format_args!("{}: Controller {id} at {address} is refused: {failure}", connection.peer()));
                    return refuse(connection, failure);
                }
                shared.peers.introduce(id, address.clone(), applied);
                connection.send(&PeerAnswer::Ok)?;
                from = Some((id, address, applied));
            }
            (_, None) => return refuse(connection, bad("the first line of a Controller is PEER or WHO")),
            (PeerRequest::Ping, Some((id, address, applied))) => {
                // It may have been removed meanwhile.
                if let Err(failure) = shared.check_peer(*id, address, shared.replica.id(), *applied) {
                    return refuse(connection, failure);
                }
                connection.send(&PeerAnswer::Ok)?;
            }
            (PeerRequest::Raft { length }, Some((id, ..))) => {
                let Some(message) = receive_message(connection, length, MOST_MESSAGE)?.filter(|it| it.from() == *id)
                else {
                    return refuse(connection, bad("a message of another Controller, or none"));
                };
                shared.replica.step(message);
            }
            (PeerRequest::Snapshot { message, length }, Some((id, ..))) => {
                let Some(ticket) = receive_message(connection, message, MOST_TICKET)?.filter(|it| it.from() == *id)
                else {
                    return refuse(connection, bad("a message of another Controller, or none"));
                };
                if let Err(error) = receive_snapshot(shared, connection, ticket, length) {
                    log::warn!("a snapshot of Controller {id} is not installed: {error}");
                    return refuse(connection, Failure::Unavailable { what: error.to_string() });
                }
                log::info!("installed a snapshot of Controller {id}");
                connection.send(&PeerAnswer::Ok)?;
            }
        }
    }
}

/// A message, if these bytes are one.
fn receive_message(connection: &mut Connection, length: u64, most: u64) -> Result<Option<Message>, ReceiveError> {
    if length > most {
        return Ok(None);
    }
    // Grows with what comes, not with what is announced.
    let mut bytes = Vec::new();
    connection.content(length, SILENCE).read_to_end(&mut bytes)?;
    Ok(Message::decode(&bytes).ok())
}

fn receive_snapshot(shared: &Shared, connection: &mut Connection, ticket: Message, length: u64) -> io::Result<()> {
    let busy = || io::Error::new(io::ErrorKind::WouldBlock, "another snapshot is on its way here");
    let _one_at_a_time = shared.peers.receiving.try_lock().ok_or_else(busy)?;
    if ticket.snapshot().is_none() || ticket.to() != shared.replica.id() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the message announces no snapshot for this Controller",
        ));
    }
    let mut incoming = shared.replica.incoming_snapshot()?;
    let mut content = connection.content(length, SILENCE);
    let mut buffer = vec![0; PIECE.min(length as usize)];
    while content.left() > 0 {
        let count = content.read(&mut buffer)?;
        incoming.append(&buffer[..count])?;
    }
    shared.replica.install_snapshot(ticket, incoming)
}

impl Shared {
    /// A connection to another Controller, which is shut down when this one stops.
    pub(super) fn reach(&self, address: &Address) -> Result<(Connection, Option<Tracked>), HandshakeError> {
        reach(&self.threads, address, self.cluster, &self.secret)
    }

    /// Which Controller is at an address.
    pub(super) fn who(&self, address: &Address) -> Result<Who, String> {
        let (connection, _tracked) = self.reach(address).map_err(|error| error.to_string())?;
        ask_who(connection)
    }

    /// Whether this Controller has no log yet, and waits until it is added to a group.
    pub(super) fn waits(&self) -> bool {
        self.replica.members().voters.is_empty()
    }

    /// The Controllers of the store, as the namespace has them.
    pub(super) fn table(&self) -> Vec<(ControllerId, Address)> {
        self.replica.look(|namespace| namespace.controllers().map(|(id, address)| (id, address.clone())).collect())
    }

    /// The Controllers of the store, each where it was last heard of.
    pub(super) fn controllers(&self) -> Vec<(ControllerId, Address)> {
        let mut controllers = self.table();
        for (id, address) in &mut controllers {
            let is_ours = *id == self.replica.id();
            if let Some(now) = if is_ours { Some(self.address.clone()) } else { self.peers.introduced(*id) } {
                *address = now;
            }
        }
        controllers
    }

    /// The last change that is applied here.
    fn applied(&self) -> Version {
        self.replica.look(|namespace| namespace.version(namespace.sequence()))
    }

    /// Whether this Controller lacks changes that another one has applied. In another history nothing follows from numbers.
    fn is_behind(&self, theirs: Version) -> bool {
        let ours = self.applied();
        theirs.history == ours.history && theirs.sequence > ours.sequence
    }

    /// Whether a Controller that has applied so much may speak to this one, which it takes for `to`.
    fn check_peer(
        &self,
        from: ControllerId,
        address: &Address,
        to: ControllerId,
        applied: Version,
    ) -> Result<(), Failure> {
        let ours = self.replica.id();
        let refused = |why: String| Err(Failure::NotPermitted { why });
        if to != ours {
            let here = &self.address;
            let advice = match self.waits() {
                true => format!(". If the disk of Controller {to} is lost: stevedore controllers replace {to} {here}"),
                false => String::new(), // it has a place of its own
            };
            return refused(format!("the Controller at {here} is {ours}, not {to}: its folder is another one{advice}"));
        }
        let members = self.replica.members();
        let table = self.table();
        let is_known = |id| table.iter().any(|(known, _)| *known == id) || members.all().any(|known| known == id);
        if members.voters.is_empty() || is_known(from) || self.is_behind(applied) {
            return Ok(());
        }
        match table.iter().find(|(_, known)| known == address) {
            Some((owner, _)) => refused(format!(
                "{address} is the address of Controller {owner}, and this one is {from}: its folder is another one. If the disk of \
                 Controller {owner} is lost: stevedore controllers replace {owner} {address}"
            )),
            None => refused(format!(
                "Controller {from} does not belong to this store. If its folder is empty: stevedore controllers add {address}. If it \
                 was removed: give it an empty folder first"
            )),
        }
    }
}

fn reach(
    threads: &Arc<ThreadGroup>,
    address: &Address,
    cluster: ClusterId,
    secret: &Secret,
) -> Result<(Connection, Option<Tracked>), HandshakeError> {
    let access = Access::Server { role: Role::Controller, secret: secret.clone() };
    let tracked = RefCell::new(None);
    let announce = |stream: &_| drop(tracked.replace(Some(threads.track(stream))));
    let connection = connect(address, &access, cluster, Role::Controller, PATIENCE, announce)?;
    Ok((connection, tracked.into_inner()))
}
