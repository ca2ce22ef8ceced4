//! A store that is reached over the network. (depot 5.1, 5.5)
//!
//! A [`Cluster`] knows the Controllers' addresses and a key that proves which client it is. It keeps connections that it may
//! need again, to the Controller and to Dstores, and may be used by many threads at a time.
//!
//! What may be repeated is repeated: a question always; a change under its stamp, which has its effect once however often it
//! is sent. Only when that does not help within the deadline is an error returned, and it says whether the change may have
//! had an effect.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stevedore::socket::Wait;

use super::controllers::Controllers;
use super::parallel::{ParallelReads, Permits};
use super::pool::Pool;
use super::{
    CheckSummary, CheckedObject, Content, CopyOptions, Error, Files, FindPage, ListOptions, MoveOptions, ObjectCopies,
    PutOptions, SmallFile, Source, Status, WatchPage,
};
use crate::disk::random;
use crate::identity::{ClusterId, ControllerId, DstoreId, Key, SessionId, Version};
use crate::log::backup::Verifier;
use crate::namespace::change::{Command, Condition, Details, Refusal, RemovalExtent, Settings, Stamp};
use crate::namespace::listing::{Page, Stat};
use crate::namespace::snapshot::Contents;
use crate::path::Path;
use crate::wire::message::{
    Answer, Failure, Grant, Grants, ObjectAnswer, ObjectRequest, Outcome, Request, StampedCommand,
};
use crate::wire::{Access, Address, ClientId, ClientKey, HandshakeError, ReceiveError, Role};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a Controller may take to make a backup: it writes all metadata to its disk first.
const BACKUP: Duration = Duration::from_secs(600);

/// How long to look for a Controller that can be reached, unless told otherwise.
pub const SEARCH: Duration = Duration::from_secs(5);

/// Between two rounds of asking every Controller, at first; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A Controller that does not answer for so long may have stopped: others are asked. Doubled each time, as some answers take long.
const FIRST_ATTEMPT: Duration = Duration::from_secs(2);

/// So many leases are renewed with one line.
const MOST_RENEWED: usize = 10_000;

/// A change that takes long keeps the outcomes of all that are made after it in the store. When there are so many, the next
/// ones are made under a new session; the store refuses more than 1,024. (depot 3.5)
const MOST_BEHIND_ONE: u64 = 512;

/// While one file is committed, so many leaders in turn are asked to lease its keys again.
const MOST_RENEWALS: usize = 10;

/// So many keys are asked for ahead when there are only a few left.
const AHEAD: u32 = 8;
const FEW: usize = 4;

/// How a client reaches a store.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Where Controllers are: one that is reached says where all are.
    pub controllers: Vec<Address>,
    /// The store.
    pub cluster: ClusterId,
    /// Which client this is.
    pub client: ClientId,
    /// The key that proves it.
    pub key: ClientKey,
    /// How long to look for a Controller that can be reached: [`SEARCH`].
    pub search: Duration,
}

/// A backup that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// What it is of.
    pub contents: Contents,
    /// Its size.
    pub bytes: u64,
    /// So long the objects of a file that is removed are kept: while it lasts, every file of the backup can be restored.
    pub keep_removed: Duration,
}

/// Where objects that were read are kept for the next reader. Objects never change, so what is kept is never stale.
pub trait ObjectCache: Send + Sync {
    /// Objects of more bytes are not offered to it.
    fn largest(&self) -> u64;

    /// An object's bytes, if they are kept. They are verified by the reader.
    fn get(&self, key: &Key) -> Option<Arc<[u8]>>;

    /// Takes an object's bytes, which were verified. It may keep them.
    fn keep(&self, key: Key, bytes: Arc<[u8]>);
}

/// A store that is reached over the network.
pub struct Cluster {
    options: ClusterOptions,
    pub(super) pool: Pool,
    pub(super) cache: Option<Arc<dyn ObjectCache>>,
    pub(super) parallel: Permits,
    controllers: Mutex<Controllers>,
    session: Mutex<Option<Session>>,
    /// The last search for a Controller was in vain: the next one tries each address once, until one is reached.
    is_lost: AtomicBool,
    granted: Mutex<Granted>,
}

/// What marks this client's changes. (depot 3.5)
#[derive(Debug)]
struct Session {
    id: SessionId,
    born: Version,
    /// Content is cut into objects of this many bytes.
    chunk_bytes: u64,
    next: u64,
    /// Changes whose outcomes are not known yet.
    open: BTreeSet<u64>,
}

impl Session {
    /// Whether one change has been under way for so many others that these need another session.
    fn is_long(&self) -> bool {
        self.open.first().is_some_and(|first| self.next - first >= MOST_BEHIND_ONE)
    }
}

/// Keys and places for puts to come.
#[derive(Debug, Default)]
struct Granted {
    /// What all of them have in common; without objects and addresses.
    common: Grants,
    /// Where Dstores listen, as it was said last: one that was away may have returned elsewhere.
    addresses: BTreeMap<DstoreId, Address>,
    /// The oldest first, each with the time it came.
    ahead: VecDeque<(Instant, Grant)>,
}

impl Cluster {
    /// A client of this store. Connects when there is something to ask.
    pub fn new(options: ClusterOptions) -> Self {
        let access = Access::Client { id: options.client, key: options.key.clone() };
        Self {
            pool: Pool::new(access, options.cluster),
            cache: None,
            parallel: Permits::default(),
            controllers: Mutex::new(Controllers::new(options.controllers.clone())),
            options,
            session: Mutex::new(None),
            is_lost: AtomicBool::new(false),
            granted: Mutex::default(),
        }
    }

    /// Which store it is.
    pub fn id(&self) -> ClusterId {
        self.options.cluster
    }

    /// What it has read from several Dstores at the same time.
    pub fn parallel_reads(&self) -> ParallelReads {
        self.parallel.counts()
    }

    /// The same client, which reads small objects by way of a cache.
    pub fn with_cache(self, cache: Arc<dyn ObjectCache>) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// Asks a Controller, again and others if it must be, for as long as an answer may take.
    pub(super) fn ask(&self, request: &Request) -> Result<Answer, Error> {
        self.ask_within(request, PATIENCE).map_err(|unanswered| unanswered.why.into())
    }

    fn ask_within(&self, request: &Request, patience: Duration) -> Result<Answer, Unanswered> {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut attempt = FIRST_ATTEMPT;
        let mut is_uncertain = false;
        let mut missed = 0;
        let unanswered = |why, is_uncertain| Err(Unanswered { why, is_uncertain });
        let unavailable = |why: String| Why::Failed(Error::Unavailable(why));
        let Some(mut address) = self.controllers.lock().first(request) else {
            return unanswered(unavailable("no Controller is known".into()), false);
        };
        loop {
            let left = patience.saturating_sub(begun.elapsed());
            // Another one may lead by now, or answer at once. That what is asked may be slow is not held against this one twice.
            let wait = if self.controllers.lock().has_several() { left.min(attempt + request.waits()) } else { left };
            attempt = attempt.saturating_mul(2); // Controllers may be asked many times before one leads
            let (why, is_reached, next) = match self.ask_once(&address, request, Wait::deadline(wait)) {
                Ok(Answer::Error { failure: Failure::NotLeader { leader } }) => {
                    let is_new = leader.as_ref().is_some_and(|leader| *leader != address);
                    let next = self.controllers.lock().not_leader(&address, leader);
                    if is_new && missed == 0 {
                        missed += 1;
                        address = next;
                        continue; // at once
                    }
                    (format!("{address} does not lead the store just now"), true, next)
                }
                Ok(Answer::Error { failure: failure @ Failure::OutcomeUnknown { .. } }) => {
                    is_uncertain = true;
                    (format!("{address}: {failure}"), true, self.controllers.lock().other(&address))
                }
                Ok(Answer::Error { failure }) => {
                    self.learn_from(&address, Controllers::asks);
                    return unanswered(Why::Answered(failure), is_uncertain);
                }
                Ok(answer) => {
                    self.is_lost.store(false, Ordering::Relaxed);
                    self.learn_from(&address, |controllers, now| controllers.answered(&address, request, now));
                    return Ok(answer);
                }
                Err(Missed::NotReached(refused))
                    if !matches!(refused, HandshakeError::Io(_)) && self.controllers.lock().belongs(&address) =>
                {
                    return unanswered(Why::Failed(Error::NotPermitted(refused.to_string())), is_uncertain);
                }
                Err(Missed::NotReached(error)) => {
                    let next = self.controllers.lock().other(&address);
                    (format!("no Controller is reached at {address}: {error}"), false, next)
                }
                Err(Missed::NoAnswer(error)) => {
                    is_uncertain = true;
                    let next = self.controllers.lock().other(&address);
                    (format!("{address} did not answer: {error}"), true, next)
                }
            };
            if is_reached {
                self.is_lost.store(false, Ordering::Relaxed);
            }
            missed += 1;
            address = next;
            let has_tried_all = missed >= self.controllers.lock().all.len();
            let is_lost = !is_reached && has_tried_all && self.is_lost.load(Ordering::Relaxed);
            let limit = if is_reached { patience } else { self.options.search.min(patience) };
            if is_lost || begun.elapsed() + pause > limit {
                self.is_lost.store(!is_reached, Ordering::Relaxed);
                return unanswered(unavailable(why), is_uncertain);
            }
            // The next one is asked at once, unless all have been.
            if has_tried_all {
                thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Asks every Controller once what not all of them can answer: the first that does is the one that is asked from now on.
    fn ask_all(&self, request: &Request, otherwise: Failure) -> Result<Answer, Error> {
        let all = self.controllers.lock().all.clone();
        for address in all {
            match self.ask_once(&address, request, Wait::deadline(FIRST_ATTEMPT + request.waits())) {
                Ok(Answer::Error { .. }) | Err(_) => {}
                Ok(answer) => {
                    self.controllers.lock().prefer(address);
                    return Ok(answer);
                }
            }
        }
        Err(otherwise.into())
    }

    fn ask_once(&self, address: &Address, request: &Request, wait: Wait) -> Result<Answer, Missed> {
        let is_change = matches!(request, Request::Change { .. } | Request::ChangeMany { .. });
        let take = if is_change { Pool::take_seen } else { Pool::take };
        let mut connection = take(&self.pool, address, Role::Controller).map_err(Missed::NotReached)?;
        let answer = connection.send(request).map_err(ReceiveError::Io).and_then(|()| connection.receive(wait));
        let answer = answer.map_err(Missed::NoAnswer)?;
        self.pool.give_back(address, connection);
        Ok(answer)
    }

    /// A Controller has answered. It is asked where all of them are, if it should be.
    fn learn_from(&self, address: &Address, asks: impl FnOnce(&mut Controllers, Instant) -> bool) {
        let asks = asks(&mut self.controllers.lock(), Instant::now());
        if asks
            && let Ok(Answer::Controllers { leader, controllers }) =
                self.ask_once(address, &Request::Controllers, Wait::deadline(FIRST_ATTEMPT))
        {
            self.controllers.lock().learn(leader, controllers);
        }
    }

    /// Makes a change that takes effect once, however often it must be sent. `more` keys are asked for with it.
    pub(super) fn change(&self, command: Command, more: u32) -> Result<Version, Error> {
        self.commit(command, more, &[])
    }

    /// The same, with objects under these keys. Another leader than the one that granted them leases them again.
    pub(super) fn commit(&self, command: Command, more: u32, keys: &[Key]) -> Result<Version, Error> {
        self.commit_as(self.stamp()?, command, more, keys, false)
    }

    /// The same under a stamp. `was_sent` says whether the change may have been made under it already.
    pub(super) fn commit_as(
        &self,
        stamp: Stamp,
        command: Command,
        more: u32,
        keys: &[Key],
        mut was_sent: bool,
    ) -> Result<Version, Error> {
        let mut request = Request::Change { stamp, more, command: Box::new(command) };
        let mut renewals = 0;
        loop {
            let Request::Change { stamp, .. } = &request else { unreachable!("made above") };
            let stamp = *stamp;
            let result = self.ask_within(&request, PATIENCE);
            was_sent |= result.as_ref().err().is_some_and(|unanswered| unanswered.is_uncertain);
            if matches!(&result, Err(Unanswered { why: Why::Answered(Failure::NoLease), .. }))
                && !keys.is_empty()
                && renewals < MOST_RENEWALS
                && self.renew(keys).is_ok()
            {
                renewals += 1;
                continue;
            }
            self.close(&stamp);
            match result {
                Ok(Answer::Done { version, grants }) => {
                    if !grants.objects.is_empty() {
                        self.keep_granted(grants);
                    }
                    return Ok(version);
                }
                Ok(other) => return Err(unexpected(&other)),
                Err(Unanswered {
                    why: Why::Answered(Failure::Refused { refusal: Refusal::UnknownOutcome }), ..
                }) => {
                    // The session is forgotten.
                    if was_sent {
                        return Err(Error::OutcomeUnknown("the store has forgotten this session".into()));
                    }
                    // It was not made: a new one may make it.
                    self.session.lock().take_if(|session| session.id == stamp.session);
                    if let Request::Change { stamp, .. } = &mut request {
                        *stamp = self.stamp()?;
                    }
                }
                // A refusal is the outcome of this stamp, however often it was sent. Whatever else is said is of this attempt, and
                // an earlier one may still have its effect.
                Err(Unanswered { why: why @ Why::Answered(Failure::Refused { .. }), .. }) => return Err(why.into()),
                Err(Unanswered { why, .. }) if was_sent => {
                    return Err(Error::OutcomeUnknown(Error::from(why).to_string()));
                }
                Err(Unanswered { why, .. }) => return Err(why.into()),
            }
        }
    }

    /// Has keys leased for longer; by a leader that did not grant them, anew.
    pub(super) fn renew(&self, keys: &[Key]) -> Result<(), Error> {
        keys.chunks(MOST_RENEWED).try_for_each(|keys| self.ask_for(&Request::Renew { keys: keys.to_vec() }))
    }

    /// Makes several changes with one request, each under its stamp. Tried once, at the Controller that led last: what it does
    /// not answer may have had an effect or not, unless it was not reached.
    pub(super) fn change_many(&self, changes: &[StampedCommand]) -> Attempt {
        let request = Request::ChangeMany { changes: changes.to_vec() };
        let (address, has_several) = {
            let controllers = self.controllers.lock();
            (controllers.first(&request), controllers.has_several())
        };
        let Some(address) = address else { return Attempt::NotMade };
        let patience = if has_several { FIRST_ATTEMPT } else { PATIENCE };
        match self.ask_once(&address, &request, Wait::deadline(patience)) {
            Ok(Answer::Outcomes { outcomes }) if outcomes.len() == changes.len() => Attempt::Answered(outcomes),
            Ok(Answer::Error { .. }) | Err(Missed::NotReached(_)) => Attempt::NotMade,
            Ok(_) | Err(Missed::NoAnswer(_)) => Attempt::Unknown,
        }
    }

    /// The outcome of a change is known, or it is not asked for again.
    pub(super) fn close(&self, stamp: &Stamp) {
        if let Some(session) = self.session.lock().as_mut().filter(|session| session.id == stamp.session) {
            session.open.remove(&stamp.number);
        }
    }

    /// Marks the next change.
    pub(super) fn stamp(&self) -> Result<Stamp, Error> {
        self.session.lock().take_if(|session| session.is_long());
        self.with_session(|session| {
            let number = session.next;
            session.next += 1;
            session.open.insert(number);
            let done_below = session.open.first().copied().unwrap_or(number);
            Stamp { session: session.id, born: session.born, number, done_below }
        })
    }

    /// Into how large objects content is cut.
    pub(super) fn chunk_bytes(&self) -> Result<u64, Error> {
        self.with_session(|session| session.chunk_bytes)
    }

    fn with_session<T>(&self, use_it: impl FnOnce(&mut Session) -> T) -> Result<T, Error> {
        let mut session = self.session.lock();
        if session.is_none() {
            let (born, settings) = match self.ask(&Request::Session)? {
                Answer::Session { born, settings } => (born, settings),
                other => return Err(unexpected(&other)),
            };
            let id = SessionId(u128::from_le_bytes(random().map_err(Error::Source)?).max(1));
            let chunk_bytes = settings.chunk_bytes.max(1);
            *session = Some(Session { id, born, chunk_bytes, next: 1, open: BTreeSet::new() });
        }
        Ok(use_it(session.as_mut().expect("made above")))
    }

    /// A key and places that were granted ahead, if there are any that are still good.
    pub(super) fn take_granted(&self) -> Option<Grants> {
        let mut granted = self.granted.lock();
        // The put must reach its commit, or the first renewal, before the lease ends.
        let usable = Duration::from_millis(granted.common.lease_ms) / 3;
        granted.ahead.retain(|(since, _)| since.elapsed() < usable);
        let (_, object) = granted.ahead.pop_front()?;
        let place = |id: &DstoreId| Some((*id, granted.addresses.get(id)?.clone()));
        let addresses = object.places.iter().filter_map(place).collect();
        Some(Grants { addresses, objects: vec![object], ..granted.common })
    }

    /// A Dstore took no object: those that were granted ahead go to it no more. It may be elsewhere, as the next grants say.
    pub(super) fn forget_granted(&self, dstore: DstoreId) {
        self.granted.lock().ahead.retain(|(_, object)| !object.places.contains(&dstore));
    }

    /// How many keys to ask for with a commit, so that the next puts need not ask. Few are kept: a key that is not used is
    /// leased in vain.
    pub(super) fn wants_more(&self) -> u32 {
        if self.granted.lock().ahead.len() < FEW { AHEAD } else { 0 }
    }

    fn keep_granted(&self, grants: Grants) {
        let mut granted = self.granted.lock();
        let common = &mut granted.common;
        if (common.history, common.term, common.write_quorum) != (grants.history, grants.term, grants.write_quorum) {
            *common = Grants { objects: Vec::new(), addresses: Vec::new(), ..grants };
            granted.ahead.clear();
        }
        granted.addresses.extend(grants.addresses);
        let now = Instant::now();
        granted.ahead.extend(grants.objects.into_iter().map(|object| (now, object)));
    }

    /// Writes all metadata at one sequence to `sink`: what the store's Controller is restored from. The bytes were verified when
    /// this returns, and not before. (depot 4.9)
    pub fn backup(&self, sink: &mut dyn Write) -> Result<Backup, Error> {
        self.ask(&Request::Session)?; // waits for a Controller that leads
        let mut last = Error::Unavailable("no Controller is known".into());
        let all = self.controllers.lock().all.clone();
        for address in &all {
            match self.backup_from(address, sink) {
                Err(Error::Unavailable(why)) => last = Error::Unavailable(why),
                result => return result,
            }
        }
        Err(last)
    }

    fn backup_from(&self, address: &Address, sink: &mut dyn Write) -> Result<Backup, Error> {
        let unavailable = |error: String| Error::Unavailable(format!("{address}: {error}"));
        let mut connection =
            self.pool.take(address, Role::Controller).map_err(|error| unavailable(error.to_string()))?;
        connection.send(&Request::Backup).map_err(|error| unavailable(error.to_string()))?;
        let answer = connection.receive(Wait::deadline(BACKUP)).map_err(|error| unavailable(error.to_string()))?;
        let (length, keep_removed) = match answer {
            Answer::Backup { length, keep_removed_ms, .. } => (length, Duration::from_millis(keep_removed_ms)),
            Answer::Error { failure } => return Err(failure.into()),
            other => return Err(unexpected(&other)),
        };
        let mut content = connection.content(length, PATIENCE);
        let mut verifier = Verifier::default();
        let mut buffer = vec![0; 256 << 10];
        // Not tried again: a part of it is written.
        let broken = |error: io::Error| Error::Protocol(format!("the backup of {address} breaks off: {error}"));
        while content.left() > 0 {
            let count = content.read(&mut buffer).map_err(broken)?;
            verifier.write_all(&buffer[..count]).map_err(|error| Error::Damaged(error.to_string()))?;
            sink.write_all(&buffer[..count]).map_err(Error::Sink)?;
        }
        let contents = verifier.finish().map_err(|error| Error::Damaged(error.to_string()))?;
        self.pool.give_back(address, connection);
        Ok(Backup { contents, bytes: length, keep_removed })
    }

    /// Which Dstores have an object, as the Controller knows now.
    pub(super) fn holders(&self, key: Key) -> Result<Vec<(DstoreId, Address)>, Error> {
        match self.ask(&Request::Holders { key })? {
            Answer::Holders { holders } => Ok(holders),
            other => Err(unexpected(&other)),
        }
    }

    /// Where each object of a file is, as the Controller knows.
    pub(super) fn where_copies_are(&self, path: &Path) -> Result<Vec<ObjectCopies>, Error> {
        match self.ask(&Request::Copies { path: path.clone() })? {
            Answer::Copies { objects } => Ok(objects),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for something that can be asked for again.
    fn ask_for(&self, request: &Request) -> Result<(), Error> {
        match self.ask(request)? {
            Answer::Ok => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn ask_settings(&self) -> Result<Settings, Error> {
        match self.ask(&Request::Session)? {
            Answer::Session { settings, .. } => Ok(settings),
            other => Err(unexpected(&other)),
        }
    }
}

/// Why a Controller gave no answer.
enum Missed {
    /// No connection was made: the request was not sent.
    NotReached(HandshakeError),
    /// The request may have been received.
    NoAnswer(ReceiveError),
}

/// What came of several changes that were sent once.
pub(super) enum Attempt {
    /// What became of each.
    Answered(Vec<Outcome>),
    /// None had an effect.
    NotMade,
    /// They may have had effects.
    Unknown,
}

/// Why a request failed.
struct Unanswered {
    why: Why,
    /// It was sent, and that it had no effect was not said.
    is_uncertain: bool,
}

enum Why {
    /// A Controller says so.
    Answered(Failure),
    /// None could be asked, or none has answered.
    Failed(Error),
}

impl From<Why> for Error {
    fn from(why: Why) -> Self {
        match why {
            Why::Answered(failure) => failure.into(),
            Why::Failed(error) => error,
        }
    }
}

pub(super) fn unexpected(answer: &Answer) -> Error {
    Error::Protocol(format!("an answer to another question: {answer:?}"))
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused { refusal } => Self::Refused(refusal),
            Failure::NoSpace => Self::NoSpace,
            Failure::NotEnoughDstores { there, needed } => {
                Self::NotEnoughDstores { there: there as usize, needed: needed as usize, why: String::new() }
            }
            Failure::Unavailable { what } => Self::Unavailable(what),
            Failure::Damaged { what } => Self::Damaged(what),
            Failure::NotPermitted { why } => Self::NotPermitted(why),
            Failure::OutcomeUnknown { why } => Self::OutcomeUnknown(why),
            Failure::NotLeader { .. } | Failure::NoLease | Failure::NotHere => Self::Unavailable(failure.to_string()),
            Failure::TooOld => Self::TooOld,
            Failure::Conflict | Failure::Mismatch | Failure::BadRequest { .. } => Self::Protocol(failure.to_string()),
        }
    }
}

impl Files for Cluster {
    fn put(&self, path: &Path, source: Source<'_>, options: &PutOptions) -> Result<Version, Error> {
        super::upload::put(self, path, source, options)
    }

    fn put_many(&self, files: &[SmallFile]) -> Vec<Result<Version, Error>> {
        super::batch::put_many(self, files)
    }

    fn check_put(&self, path: &Path, options: &PutOptions) -> Result<(), Error> {
        let PutOptions { condition, parents, details, .. } = options;
        let (path, condition, parents, replicas) = (path.clone(), *condition, *parents, details.replicas);
        match self.ask(&Request::Places { path, condition, parents, replicas, objects: 1 })? {
            Answer::Granted { grants } => {
                // For this put, or another one.
                if replicas.is_none() && self.wants_more() > 0 {
                    self.keep_granted(grants);
                }
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }

    fn get(&self, path: &Path, condition: Condition) -> Result<Box<dyn Content + Send + '_>, Error> {
        match self.ask(&Request::Open { path: path.clone(), condition })? {
            Answer::File { stat, addresses, objects } => {
                Ok(Box::new(super::download::Download::new(self, stat, addresses, objects)?))
            }
            other => Err(unexpected(&other)),
        }
    }

    fn stat(&self, path: &Path) -> Result<Stat, Error> {
        match self.ask(&Request::Stat { path: path.clone() })? {
            Answer::Stat { stat } => Ok(stat),
            other => Err(unexpected(&other)),
        }
    }

    fn list(&self, path: &Path, options: &ListOptions) -> Result<Page, Error> {
        let ListOptions { prefix, after, is_recursive, limit } = options.clone();
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        match self.ask(&Request::List { path: path.clone(), prefix, after, is_recursive, limit })? {
            Answer::Page { entries, after } => Ok(Page { entries, after }),
            other => Err(unexpected(&other)),
        }
    }

    fn find(&self, path: &Path, pattern: &str, after: &str) -> Result<FindPage, Error> {
        let (pattern, after) = (pattern.to_owned(), after.to_owned());
        match self.ask(&Request::Find { path: path.clone(), pattern, after })? {
            Answer::Page { entries, after } => Ok(FindPage { entries, after }),
            other => Err(unexpected(&other)),
        }
    }

    fn rename(&self, from: &Path, to: &Path, options: &MoveOptions) -> Result<Version, Error> {
        let MoveOptions { from_condition, to_condition, replace, parents } = *options;
        let (from, to) = (from.clone(), to.clone());
        self.change(Command::Move { from, from_condition, to, to_condition, replace, parents }, 0)
    }

    fn copy(&self, from: &Path, to: &Path, options: &CopyOptions) -> Result<Version, Error> {
        let MoveOptions { from_condition, to_condition, replace, parents } = options.placing;
        let (from, to, details) = (from.clone(), to.clone(), options.details.clone());
        self.change(Command::Copy { from, from_condition, to, to_condition, replace, parents, details }, 0)
    }

    fn remove(&self, path: &Path, condition: Condition) -> Result<Version, Error> {
        self.change(Command::Remove { path: path.clone(), condition }, 0)
    }

    fn make_directory(
        &self,
        path: &Path,
        parents: bool,
        details: &Details,
        modified_ms: Option<u64>,
    ) -> Result<Version, Error> {
        let details = details.clone();
        self.change(Command::MakeDirectory { path: path.clone(), parents, details, modified_ms }, 0)
    }

    fn remove_directory(&self, path: &Path, condition: Condition, extent: RemovalExtent) -> Result<Version, Error> {
        self.change(Command::RemoveDirectory { path: path.clone(), condition, extent }, 0)
    }

    fn set_attributes(
        &self,
        path: &Path,
        condition: Condition,
        attributes: &BTreeMap<String, Option<String>>,
        content_type: Option<&str>,
        modified_ms: Option<u64>,
    ) -> Result<Version, Error> {
        let attributes = attributes.clone();
        let content_type = content_type.map(str::to_owned);
        let path = path.clone();
        self.change(Command::SetAttributes { path, condition, attributes, content_type, owner: None, modified_ms }, 0)
    }

    fn compose(
        &self,
        path: &Path,
        sources: &[(Path, Version)],
        remove_sources: bool,
        options: &PutOptions,
    ) -> Result<Version, Error> {
        let PutOptions { condition, parents, modified_ms, details } = options.clone();
        let (path, sources) = (path.clone(), sources.to_vec());
        self.change(Command::Compose { path, condition, parents, sources, remove_sources, modified_ms, details }, 0)
    }

    fn watch(&self, after: Option<Version>, wait: Duration) -> Result<WatchPage, Error> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Watch { after, wait_ms };
        let answer = match self.ask_within(&request, PATIENCE + wait.min(PATIENCE)) {
            // It may have been sent a snapshot in place of older changes; others have them.
            Err(Unanswered { why: Why::Answered(Failure::TooOld), .. }) => self.ask_all(&request, Failure::TooOld)?,
            answer => answer.map_err(|unanswered| Error::from(unanswered.why))?,
        };
        match answer {
            Answer::Changes { events, next } => Ok(WatchPage { events, next }),
            other => Err(unexpected(&other)),
        }
    }

    fn status(&self) -> Result<Status, Error> {
        let mut answer = self.ask(&Request::Controllers)?;
        // One that waits to be added knows none, and nothing of the store. Is there one that knows more?
        if matches!(&answer, Answer::Controllers { controllers, .. } if controllers.is_empty())
            && self.ask_all(&Request::Session, Failure::NotLeader { leader: None }).is_ok()
        {
            answer = self.ask(&Request::Controllers)?;
        }
        if let Answer::Controllers { leader, controllers } = answer {
            self.controllers.lock().learn(leader, controllers); // the leader is asked, which knows most
        }
        match self.ask(&Request::Status)? {
            Answer::Status { status } => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    fn settings(&self) -> Result<Settings, Error> {
        self.ask_settings()
    }

    fn set(&self, settings: &Settings) -> Result<Version, Error> {
        self.change(Command::Set { settings: settings.clone() }, 0)
    }

    fn copies(&self, path: &Path) -> Result<Vec<ObjectCopies>, Error> {
        let mut objects = self.where_copies_are(path)?;
        let mut addresses: BTreeSet<String> = BTreeSet::new();
        for copy in objects.iter().flat_map(|object| &object.copies).filter(|copy| copy.is_present) {
            addresses.insert(copy.address.clone());
        }
        for text in addresses {
            let Ok(address) = text.parse::<Address>() else { continue };
            let is_there = |copy: &&mut super::PlaceOfCopy| copy.address == text;
            let keys: Vec<Key> = objects
                .iter()
                .filter(|object| object.copies.iter().any(|copy| copy.address == text))
                .map(|object| object.key)
                .collect();
            // A Dstore that does not say where its copies are has them all the same.
            let Ok(mut connection) = self.pool.take(&address, Role::Dstore) else { continue };
            let asked = connection.send(&ObjectRequest::Locate { keys }).map_err(ReceiveError::Io);
            let answer = asked.and_then(|()| connection.receive::<ObjectAnswer>(Wait::deadline(PATIENCE)));
            let Ok(ObjectAnswer::Located { places }) = answer else { continue };
            self.pool.give_back(&address, connection);
            let copies = objects.iter_mut().filter_map(|object| object.copies.iter_mut().find(is_there));
            copies.zip(places).for_each(|(copy, place)| copy.location = place);
        }
        Ok(objects)
    }

    fn check(&self, path: &Path, deep: bool, found: &mut dyn FnMut(&CheckedObject)) -> Result<CheckSummary, Error> {
        super::check::check(self, path, deep, found)
    }

    fn repair(&self, all: bool) -> Result<(), Error> {
        self.ask_for(&Request::Repair { all })
    }

    fn drain(&self, dstore: DstoreId, drains: bool) -> Result<(), Error> {
        self.ask_for(&Request::Drain { dstore, drains })
    }

    fn discharge(&self, dstore: DstoreId, is_lost: bool) -> Result<(), Error> {
        self.ask_for(&Request::Discharge { dstore, is_lost })
    }

    fn collect_unclaimed(&self) -> Result<(), Error> {
        self.ask_for(&Request::CollectUnclaimed)
    }

    fn add_controller(&self, address: &Address) -> Result<(), Error> {
        self.ask_for(&Request::AddController { address: address.clone() })
    }

    fn remove_controller(&self, controller: ControllerId) -> Result<(), Error> {
        self.ask_for(&Request::RemoveController { controller })
    }

    fn hand_over(&self, to: Option<ControllerId>) -> Result<(), Error> {
        self.ask_for(&Request::HandOver { to })
    }

    fn format(&self, name: &str) -> Result<Version, Error> {
        self.change(Command::Format { name: name.to_owned() }, 0)
    }
}
