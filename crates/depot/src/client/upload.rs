//! A put: content is cut into objects, each goes to its places, and one change commits them all. (depot 5.1)
//!
//! ```text
//! read a chunk, compute its checksum ─▶ send it to R places at the same time ─▶ the next chunk … ─▶ commit
//!                                            │
//!                                            ├─ a place fails while fewer than W have it: another one is asked for
//!                                            └─ W have it: the others get a little longer, and are then left
//! ```

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};
use parking_lot::{Condvar, Mutex, MutexGuard};
use stevedore::socket::Wait;

use super::answers::{Asked, next_answer};
use super::cluster::{Cluster, unexpected};
use super::{Error, PutOptions, ReadAt, Source};
use crate::checksum::{Checksum, Hasher};
use crate::identity::{DstoreId, Key, Position, Version};
use crate::namespace::change::{Command, Condition, MOST_OBJECTS, NewObject, NewObjects, Refusal};
use crate::path::Path;
use crate::wire::message::{Answer, Failure, Grants, ObjectAnswer, ObjectRequest, Request};
use crate::wire::{Address, ReceiveError, Role};

/// A chunk of what can be read once: it is kept in memory until it is stored.
const CHUNK_IN_MEMORY: u64 = 8 << 20;

/// A larger object is sent by a thread for each place; smaller ones fit the sockets' buffers.
const SMALL: u64 = 64 << 10;

/// The room that is made for a file's bytes before they come: most files are small, and it need not grow for them.
const SMALL_FILE: usize = 4 << 10;

/// How much is read and sent at a time.
const PIECE: usize = 256 << 10;

/// How long a Dstore may take to store what it has received.
pub(super) const STORING: Duration = Duration::from_secs(60);

/// When enough Dstores have an object, the others get so long, and twice the time that it took until then. (depot 5.1)
pub(super) const GRACE: Duration = Duration::from_millis(100);

/// Where an object's bytes are.
#[derive(Clone, Copy)]
enum Bytes<'a> {
    Memory(&'a [u8]),
    File { file: &'a dyn ReadAt, offset: u64 },
}

/// One object to be stored.
#[derive(Clone, Copy)]
struct Object<'a> {
    key: Key,
    length: u64,
    checksum: Checksum,
    bytes: Bytes<'a>,
}

/// A put under way.
struct Upload<'a> {
    cluster: &'a Cluster,
    path: &'a Path,
    options: &'a PutOptions,
    /// What was granted and is not used yet.
    grants: Grants,
    /// That was granted ahead, without a question about this put.
    is_granted_ahead: bool,
    /// Keys may be taken that were granted ahead, without asking.
    may_use_granted: bool,
    objects: NewObjects,
    checksum: Checksum,
    leases: Arc<Leases>,
}

pub(super) fn put(cluster: &Cluster, path: &Path, source: Source<'_>, options: &PutOptions) -> Result<Version, Error> {
    let mut upload = Upload {
        cluster,
        path,
        options,
        grants: Grants::default(),
        is_granted_ahead: false,
        may_use_granted: options.condition == Condition::Any && options.details.replicas.is_none(),
        objects: NewObjects::default(),
        checksum: Checksum::EMPTY,
        leases: Arc::default(),
    };
    let mut details = options.details.clone();
    match source {
        Source::Once(reader) => upload.send_stream(reader)?,
        Source::Digested(reader) => {
            upload.send_stream(reader)?;
            details.digests.extend(reader.digests());
        }
        Source::File(file) => upload.send_file(file)?,
    }
    let keys: Vec<Key> = upload.objects.objects.iter().map(|object| upload.objects.key(object)).collect();
    let more = if upload.may_use_granted { cluster.wants_more() } else { 0 };
    let command = Command::Put {
        path: path.clone(),
        condition: options.condition,
        parents: options.parents,
        checksum: upload.checksum,
        modified_ms: options.modified_ms,
        details,
        objects: upload.objects,
    };
    cluster.commit(command, more, &keys)
}

impl Grants {
    fn is_left(&self) -> bool {
        !self.objects.is_empty()
    }
}

impl Upload<'_> {
    fn send_stream(&mut self, reader: &mut dyn Read) -> Result<(), Error> {
        let chunk_bytes = self.cluster.chunk_bytes()?.min(CHUNK_IN_MEMORY);
        let mut chunk = Vec::with_capacity(SMALL_FILE);
        let mut read = |chunk: &mut Vec<u8>| {
            chunk.clear();
            reader.take(chunk_bytes).read_to_end(chunk).map_err(Error::Source)
        };
        read(&mut chunk)?;
        let is_short = chunk.len() as u64 <= SMALL.min(chunk_bytes - 1);
        self.with_leases(is_short, |upload| {
            while !chunk.is_empty() {
                let (length, checksum) = (chunk.len() as u64, Checksum::of(&chunk));
                let is_last = length < chunk_bytes;
                upload.send(length, checksum, Bytes::Memory(&chunk), if is_last { 1 } else { 2 })?;
                if is_last {
                    break;
                }
                read(&mut chunk)?;
            }
            Ok(())
        })
    }

    fn send_file(&mut self, file: &dyn ReadAt) -> Result<(), Error> {
        let size = file.size().map_err(Error::Source)?;
        let chunk_bytes = self.cluster.chunk_bytes()?;
        if size.div_ceil(chunk_bytes) > MOST_OBJECTS as u64 {
            return Err(Error::Refused(Refusal::TooLarge));
        }
        self.with_leases(size <= SMALL.min(chunk_bytes), |upload| {
            let mut offset = 0;
            while offset < size {
                let length = chunk_bytes.min(size - offset);
                let checksum = checksum_of(file, offset, length)?;
                let to_come = u32::try_from((size - offset).div_ceil(chunk_bytes)).unwrap_or(u32::MAX);
                upload.send(length, checksum, Bytes::File { file, offset }, to_come)?;
                offset += length;
            }
            Ok(())
        })?;
        if file.size().map_err(Error::Source)? != size {
            return Err(changed());
        }
        Ok(())
    }

    /// Sends, and keeps the leases meanwhile, unless it takes a moment only.
    fn with_leases(&mut self, is_short: bool, send: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        if is_short {
            return send(self);
        }
        let (leases, cluster) = (Arc::clone(&self.leases), self.cluster);
        thread::scope(|scope| {
            let _end = EndOfLeases(&leases);
            scope.spawn(|| leases.keep(cluster));
            send(self)
        })
    }

    /// Stores the next object; `to_come` of them are known to come, this one among them.
    fn send(&mut self, length: u64, checksum: Checksum, bytes: Bytes<'_>, to_come: u32) -> Result<(), Error> {
        if self.objects.objects.len() == MOST_OBJECTS {
            return Err(Error::Refused(Refusal::TooLarge));
        }
        self.leases.check()?;
        let (number, places) = self.next_grant(to_come)?;
        let key = Key { history: self.grants.history, term: self.grants.term, number };
        let object = Object { key, length, checksum, bytes };
        let holders = match self.store(object, places) {
            Err(Error::NotEnoughDstores { .. }) if self.is_granted_ahead => {
                // A Dstore may have come back at another address since: the places of now may all take it.
                self.may_use_granted = false;
                self.grants = Grants::default();
                return self.send(length, checksum, bytes, to_come);
            }
            stored => stored?,
        };
        self.objects.objects.push(NewObject { term: key.term, number, length, checksum, holders });
        self.checksum = self.checksum.followed_by(checksum, length);
        Ok(())
    }

    fn next_grant(&mut self, to_come: u32) -> Result<(u64, Vec<DstoreId>), Error> {
        if !self.grants.is_left() {
            let ahead = if self.may_use_granted && to_come == 1 { self.cluster.take_granted() } else { None };
            self.is_granted_ahead = ahead.is_some();
            self.grants = match ahead {
                Some(grants) => grants,
                None => self.ask_for_places(to_come)?,
            };
            if !self.objects.objects.is_empty() && self.objects.history != self.grants.history {
                return Err(Error::Unavailable("the store was restored while the file was sent: put it again".into()));
            }
            self.objects.history = self.grants.history;
            self.leases.add(&self.grants);
        }
        let grant = self.grants.objects.pop().ok_or_else(|| Error::Protocol("nothing was granted".into()))?;
        Ok((grant.number, grant.places))
    }

    fn ask_for_places(&self, objects: u32) -> Result<Grants, Error> {
        let PutOptions { condition, parents, details, .. } = self.options;
        let (path, condition, parents) = (self.path.clone(), *condition, *parents);
        let request = Request::Places { path, condition, parents, replicas: details.replicas, objects };
        match self.cluster.ask(&request)? {
            Answer::Granted { grants } => Ok(grants),
            other => Err(unexpected(&other)),
        }
    }

    /// Where a Dstore listens, as far as this put was told.
    fn address(&self, dstore: DstoreId) -> Result<Address, Error> {
        let known = self.grants.addresses.iter().rev().find(|(id, _)| *id == dstore); // what was said last
        known.map(|(_, address)| address.clone()).ok_or_else(|| Error::Protocol(format!("where is Dstore {dstore}?")))
    }

    /// Has an object stored by enough Dstores; which ones, with their positions.
    fn store(&mut self, object: Object<'_>, places: Vec<DstoreId>) -> Result<Vec<(DstoreId, Position)>, Error> {
        let quorum = self.grants.write_quorum as usize;
        let mut tally = Tally {
            quorum,
            begun: Instant::now(),
            reached: None,
            holders: Vec::new(),
            tried: places.clone(),
            last_failure: String::new(),
        };
        if object.length <= SMALL {
            self.store_small(object, &places, &mut tally)?;
        } else {
            self.store_large(object, &places, &mut tally)?;
        }
        Ok(tally.holders)
    }

    /// The bytes fit the sockets' buffers: this thread sends to all, and then waits for all.
    fn store_small(&mut self, object: Object<'_>, places: &[DstoreId], tally: &mut Tally) -> Result<(), Error> {
        let mut read = Vec::new();
        let content = match object.bytes {
            Bytes::Memory(bytes) => bytes,
            Bytes::File { .. } => {
                read.resize(object.length as usize, 0);
                object.bytes.read(0, &mut read)?;
                &read
            }
        };
        let put = ObjectRequest::Put { key: object.key, length: object.length, checksum: object.checksum };
        let mut waiting: Vec<Asked> = Vec::with_capacity(places.len());
        let mut due: VecDeque<DstoreId> = places.iter().copied().collect();
        loop {
            while let Some(dstore) = due.pop_front() {
                let address = self.address(dstore)?;
                let sent = self.cluster.pool.take(&address, Role::Dstore).map_err(|error| error.to_string()).and_then(
                    |connection| match connection.send_with_content(&put, content) {
                        Ok(()) => Ok(connection),
                        Err(error) => Err(error.to_string()),
                    },
                );
                match sent {
                    Ok(connection) => waiting.push(Asked::new(dstore, address, connection)),
                    Err(why) => {
                        let under_way = waiting.len() + due.len();
                        due.extend(self.replacement(object.key, dstore, &why, tally, under_way)?);
                    }
                }
            }
            let Some(left) = tally.time_left() else { return Ok(()) };
            if waiting.is_empty() {
                return tally.is_enough();
            }
            let Some((Asked { dstore, address, connection, .. }, answer)) = next_answer(&mut waiting, left)? else {
                if tally.holders.len() >= tally.quorum {
                    return Ok(()); // the others had their time
                }
                let silent = waiting.remove(0).dstore;
                due.extend(self.replacement(object.key, silent, "it does not answer", tally, waiting.len())?);
                continue;
            };
            match outcome(answer)? {
                Ok(position) => {
                    self.cluster.pool.give_back(&address, connection);
                    tally.has(dstore, position);
                }
                Err(why) => due.extend(self.replacement(object.key, dstore, &why, tally, waiting.len())?),
            }
        }
    }

    /// A thread for each place.
    fn store_large(&mut self, object: Object<'_>, places: &[DstoreId], tally: &mut Tally) -> Result<(), Error> {
        let cluster = self.cluster;
        let sockets: Mutex<Vec<Arc<TcpStream>>> = Mutex::default();
        let (results, outcomes) = unbounded();
        thread::scope(|scope| {
            let start = |dstore: DstoreId, address: Address, results: Sender<_>| {
                let sockets = &sockets;
                scope.spawn(move || {
                    let outcome = send_to(cluster, &address, object, sockets);
                    let _ = results.send((dstore, outcome)); // it may be too late to be counted
                });
            };
            let mut under_way = 0;
            for dstore in places {
                start(*dstore, self.address(*dstore)?, results.clone());
                under_way += 1;
            }
            let result = loop {
                if under_way == 0 {
                    break tally.is_enough();
                }
                let Some(left) = tally.time_left() else { break Ok(()) };
                match outcomes.recv_timeout(left) {
                    Ok((dstore, outcome)) => {
                        under_way -= 1;
                        match outcome {
                            Ok(Ok(position)) => tally.has(dstore, position),
                            Ok(Err(why)) => match self.replacement(object.key, dstore, &why, tally, under_way) {
                                Ok(Some(other)) => {
                                    start(other, self.address(other)?, results.clone());
                                    under_way += 1;
                                }
                                Ok(None) => {}
                                Err(error) => break Err(error),
                            },
                            Err(error) => break Err(error),
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {} // asked again how long to wait
                    Err(RecvTimeoutError::Disconnected) => break tally.is_enough(),
                }
            };
            // Those that are still sending are not waited for.
            for socket in sockets.lock().iter() {
                let _ = socket.shutdown(Shutdown::Both);
            }
            result
        })
    }

    /// A Dstore did not take an object. Another place for it, if it is needed.
    fn replacement(
        &mut self,
        key: Key,
        dstore: DstoreId,
        why: &str,
        tally: &mut Tally,
        under_way: usize,
    ) -> Result<Option<DstoreId>, Error> {
        log::info!("Dstore {dstore} did not take object {key}: {why}");
        tally.last_failure = format!("; Dstore {dstore}: {why}");
        self.cluster.forget_granted(dstore);
        if tally.holders.len() + under_way >= tally.quorum {
            return Ok(None);
        }
        let answer = match self.cluster.ask(&Request::Replace { key, tried: tally.tried.clone() }) {
            Ok(answer) => answer,
            Err(Error::NotEnoughDstores { .. }) => return Err(tally.too_few(under_way)),
            Err(error) => return Err(error),
        };
        let Answer::Granted { grants } = answer else { return Err(unexpected(&answer)) };
        let place = grants.objects.first().and_then(|grant| grant.places.first()).copied();
        let place = place.ok_or_else(|| Error::Protocol("no place was granted".into()))?;
        self.grants.addresses.extend(grants.addresses);
        tally.tried.push(place);
        Ok(Some(place))
    }
}

/// The leases of a put's keys, renewed by a thread of their own: the source may pause, and a Dstore may be slow.
#[derive(Default)]
struct Leases {
    state: Mutex<LeaseState>,
    /// Signalled when there is a first key, and when the put is over.
    changed: Condvar,
}

#[derive(Default)]
struct LeaseState {
    keys: Vec<Key>,
    /// When they are to be renewed; `None` while there are no keys.
    due: Option<Instant>,
    /// So often they are renewed.
    period: Duration,
    is_over: bool,
    /// Why they could not be renewed.
    failure: Option<Error>,
}

impl Leases {
    fn add(&self, grants: &Grants) {
        let (history, term) = (grants.history, grants.term);
        let mut state = self.state.lock();
        state.keys.extend(grants.objects.iter().map(|grant| Key { history, term, number: grant.number }));
        state.period = Duration::from_millis(grants.lease_ms) / 3;
        if state.due.is_none() {
            state.due = Some(Instant::now() + state.period);
            self.changed.notify_all();
        }
    }

    /// An error if they could not be renewed: then the put cannot be committed any more.
    fn check(&self) -> Result<(), Error> {
        self.state.lock().failure.take().map_or(Ok(()), Err)
    }

    /// Renews them in time, until the put is over.
    fn keep(&self, cluster: &Cluster) {
        let mut state = self.state.lock();
        while !state.is_over && state.failure.is_none() {
            match state.due {
                None => self.changed.wait(&mut state),
                Some(due) if due > Instant::now() => drop(self.changed.wait_until(&mut state, due)),
                Some(_) => {
                    let keys = state.keys.clone();
                    let renewed = MutexGuard::unlocked(&mut state, || cluster.renew(&keys));
                    state.failure = renewed.err();
                    state.due = Some(Instant::now() + state.period);
                }
            }
        }
    }
}

struct EndOfLeases<'a>(&'a Leases);

impl Drop for EndOfLeases<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_over = true;
        self.0.changed.notify_all();
    }
}

/// Which Dstores have stored an object, and until when the others are waited for.
struct Tally {
    quorum: usize,
    begun: Instant,
    /// When the last that was needed had it.
    reached: Option<Instant>,
    holders: Vec<(DstoreId, Position)>,
    /// Dstores it was sent to, with success or without.
    tried: Vec<DstoreId>,
    /// Why the last one failed that did.
    last_failure: String,
}

impl Tally {
    fn has(&mut self, dstore: DstoreId, position: Position) {
        self.holders.push((dstore, position));
        if self.holders.len() == self.quorum {
            self.reached = Some(Instant::now());
        }
    }

    /// How long to wait for others; `None` when it has been long enough.
    fn time_left(&self) -> Option<Duration> {
        let Some(reached) = self.reached else { return Some(STORING) };
        let limit = GRACE + 2 * (reached - self.begun);
        limit.checked_sub(reached.elapsed()).filter(|left| !left.is_zero())
    }

    fn is_enough(&self) -> Result<(), Error> {
        if self.holders.len() >= self.quorum {
            return Ok(());
        }
        Err(self.too_few(0))
    }

    fn too_few(&self, under_way: usize) -> Error {
        let (there, why) = (self.holders.len() + under_way, self.last_failure.clone());
        Error::NotEnoughDstores { there, needed: self.quorum, why }
    }
}

impl Bytes<'_> {
    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), Error> {
        match self {
            Self::Memory(bytes) => buffer.copy_from_slice(&bytes[at as usize..at as usize + buffer.len()]),
            Self::File { file, offset } => read_exact(*file, offset + at, buffer)?,
        }
        Ok(())
    }
}

fn read_exact(file: &dyn ReadAt, mut offset: u64, mut buffer: &mut [u8]) -> Result<(), Error> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => return Err(changed()),
            Ok(count) => {
                offset += count as u64;
                buffer = &mut buffer[count..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Source(error)),
        }
    }
    Ok(())
}

fn checksum_of(file: &dyn ReadAt, offset: u64, length: u64) -> Result<Checksum, Error> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; PIECE.min(length as usize)];
    let mut done = 0;
    while done < length {
        let piece = (length - done).min(PIECE as u64) as usize;
        read_exact(file, offset + done, &mut buffer[..piece])?;
        hasher.update(&buffer[..piece]);
        done += piece as u64;
    }
    Ok(hasher.checksum())
}

fn changed() -> Error {
    Error::Source(io::Error::other("it changed while it was being put"))
}

/// Sends an object to one Dstore. The outer error is ours, the inner one the Dstore's.
fn send_to(
    cluster: &Cluster,
    address: &Address,
    object: Object<'_>,
    sockets: &Mutex<Vec<Arc<TcpStream>>>,
) -> Result<Result<Position, String>, Error> {
    let mut connection = match cluster.pool.take(address, Role::Dstore) {
        Ok(connection) => connection,
        Err(error) => return Ok(Err(error.to_string())),
    };
    sockets.lock().push(Arc::clone(connection.stream()));
    let put = ObjectRequest::Put { key: object.key, length: object.length, checksum: object.checksum };
    let mut sent = connection.send(&put);
    let mut buffer = vec![0; PIECE.min(object.length as usize)];
    let mut done = 0;
    while done < object.length && sent.is_ok() {
        let piece = (object.length - done).min(PIECE as u64) as usize;
        object.bytes.read(done, &mut buffer[..piece])?;
        sent = connection.send_content(&buffer[..piece]);
        done += piece as u64;
    }
    // A Dstore that refuses says why before it closes, and may close before everything is sent.
    let answer = connection.receive(Wait::deadline(if sent.is_ok() { STORING } else { GRACE }));
    let result = match (outcome(answer)?, sent) {
        (Ok(position), _) => Ok(position),
        (Err(_), Err(error)) => Err(error.to_string()),
        (Err(why), Ok(())) => Err(why),
    };
    let mut sockets = sockets.lock();
    sockets.retain(|socket| !Arc::ptr_eq(socket, connection.stream()));
    drop(sockets);
    if result.is_ok() {
        cluster.pool.give_back(address, connection);
    }
    Ok(result)
}

/// What a Dstore's answer to a put means. The outer error ends the put, the inner one is this Dstore's.
pub(super) fn outcome(answer: Result<ObjectAnswer, ReceiveError>) -> Result<Result<Position, String>, Error> {
    Ok(match answer {
        Ok(ObjectAnswer::Stored { position } | ObjectAnswer::Have { position }) => Ok(position),
        Ok(ObjectAnswer::Error { failure: Failure::Mismatch }) => {
            return Err(Error::Source(io::Error::other(
                "it changed while it was being put, or was altered on its way",
            )));
        }
        Ok(ObjectAnswer::Error { failure }) => Err(failure.to_string()),
        Ok(other) => Err(format!("an answer to another question: {other:?}")),
        Err(error) => Err(error.to_string()),
    })
}
