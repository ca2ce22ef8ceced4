//! What Controllers order: to verify, to fetch and to remove copies. (depot 5.2 to 5.4, 5.9)
//!
//! An order comes over a link, under the leadership of the Controller there. It waits in a queue, is carried out by one of a few
//! threads, and its outcome goes back over the same link, behind the report of its effect. Each order can be given again: what
//! is done already is done.
//!
//! A Controller counts copies by what is reported over the link that is open. An order of an earlier link must not take
//! effect after that report. So a link ends only when its orders are dropped and those that run have ended; and what a
//! newer leadership finds, orders of older ones do not change.
//!
//! Orders about one object are carried out one after another, in the order in which they came.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stevedore::server::{ThreadGroup, Tracked};
use stevedore::socket::Wait;
use stevedore::sync::Mutex;

use super::Shared;
use crate::checksum::BLOCK_BYTES;
use crate::identity::{Epoch, Key};
use crate::pack::{Announced, DiskError, GetError, PutError};
use crate::wire::message::{CopyOrder, Failure, ObjectAnswer, ObjectRequest, OrderKind, OrderOutcome};
use crate::wire::{Access, Address, Connection, HandshakeError, ReceiveError, Role, connect};

/// So many copies are fetched at a time.
pub(super) const COPIES_AT_A_TIME: usize = 4;

/// So many orders may wait. What is beyond fails, and is given again.
const MOST_ORDERS: usize = 10_000;

/// So many objects are removed with one sync.
const REMOVED_TOGETHER: usize = 256;

/// Objects of up to so many bytes are copied together, if they come from the same Dstore: so many, of so many bytes in all. One
/// by one, each would wait for its question and its answer.
const SMALL_COPY: u64 = 64 << 10;
const COPIED_TOGETHER: usize = 64;
const COPIED_TOGETHER_BYTES: u64 = 1 << 20;

/// How long another Dstore may take to begin, and to go on.
const STALL: Duration = Duration::from_secs(10);

/// How long to connect to it.
const CONNECT: Duration = Duration::from_secs(3);

/// A thread keeps connections to so many other Dstores.
const MOST_CONNECTIONS: usize = 16;

/// A smaller object counts as so many bytes: it costs processors and disks about as much as a block does.
const LEAST_COUNTED: usize = BLOCK_BYTES;

/// So much may come ahead of its time, as the time it takes at the full rate.
const BURST: Duration = Duration::from_millis(50);

/// While requests are answered, a copy rests for as long as its last piece took, at most for so long.
const LONGEST_YIELD: Duration = Duration::from_millis(100);

/// A leadership that the Dstore follows, over one link: orders come from it, outcomes go back to it.
pub(super) struct Orderer {
    epoch: Epoch,
    has_ended: AtomicBool,
    /// Each with the number of the change up to which its effect is reported.
    outcomes: Mutex<VecDeque<(u64, OrderOutcome)>>,
}

/// What is to be done with one object.
pub(super) enum Job {
    Verify(Key),
    Copy(CopyOrder),
    Remove(Key),
}

struct Item {
    orderer: Arc<Orderer>,
    job: Job,
}

/// What Controllers want the Dstore to do.
#[derive(Default)]
pub(super) struct Orders {
    waiting: VecDeque<Item>,
    /// What the threads are doing.
    running: Vec<(Arc<Orderer>, Key)>,
    /// From when on the next bytes may be fetched.
    next_fetch: Option<Instant>,
}

impl Orderer {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self { epoch, has_ended: AtomicBool::new(false), outcomes: Mutex::default() }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The Controller leads no more, or has closed the connection.
    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Whether there is something to tell.
    pub(super) fn has_outcomes(&self) -> bool {
        !self.outcomes.lock().is_empty()
    }

    /// What became of orders, as far as their effects are reported: changes up to `number`.
    pub(super) fn take_outcomes(&self, number: u64, most: usize) -> Vec<OrderOutcome> {
        let mut outcomes = self.outcomes.lock();
        let ready = outcomes.iter().take(most).take_while(|(after, _)| *after <= number).count();
        outcomes.drain(..ready).map(|(_, outcome)| outcome).collect()
    }
}

impl Job {
    fn key(&self) -> Key {
        match self {
            Self::Verify(key) | Self::Remove(key) => *key,
            Self::Copy(order) => order.key,
        }
    }

    /// How many bytes it fetches.
    fn bytes(&self) -> u64 {
        if let Self::Copy(order) = self { order.length } else { 0 }
    }

    fn kind(&self) -> OrderKind {
        match self {
            Self::Verify(_) => OrderKind::Verify,
            Self::Copy(_) => OrderKind::Copy,
            Self::Remove(_) => OrderKind::Remove,
        }
    }
}

impl Item {
    /// Whether it is carried out together with another one, which was first.
    fn goes_with(&self, first: &Self) -> bool {
        match (&self.job, &first.job) {
            (Job::Remove(_), Job::Remove(_)) => true,
            (Job::Copy(order), Job::Copy(other)) => {
                order.length.max(other.length) <= SMALL_COPY
                    && order.from == other.from
                    && order.purpose == other.purpose
                    && Arc::ptr_eq(&self.orderer, &first.orderer)
            }
            _ => false,
        }
    }
}

impl Orders {
    /// The next order that may be begun, without the copies if it says so. Removals come together, and so do copies of small
    /// objects from one Dstore.
    fn take(&mut self, takes_copies: bool) -> Vec<Item> {
        let mut busy: HashSet<Key> = self.running.iter().map(|(_, key)| *key).collect();
        let mut taken: Vec<usize> = Vec::new();
        let mut bytes = 0;
        for (at, item) in self.waiting.iter().enumerate() {
            let kind = item.job.kind();
            let is_oldest = busy.insert(item.job.key());
            let fits = match taken.first() {
                None => takes_copies || kind != OrderKind::Copy,
                Some(first) => item.goes_with(&self.waiting[*first]),
            };
            if is_oldest && fits {
                taken.push(at);
                bytes += item.job.bytes();
                let is_enough = match kind {
                    OrderKind::Verify => true,
                    OrderKind::Copy => taken.len() == COPIED_TOGETHER || bytes >= COPIED_TOGETHER_BYTES,
                    OrderKind::Remove => taken.len() == REMOVED_TOGETHER,
                };
                if is_enough {
                    break;
                }
            }
        }
        let mut items: Vec<Item> = taken.into_iter().rev().filter_map(|at| self.waiting.remove(at)).collect();
        items.reverse();
        self.running.extend(items.iter().map(|item| (Arc::clone(&item.orderer), item.job.key())));
        items
    }
}

/// Carries out orders until the Dstore stops.
pub(super) fn carry_out_all(shared: &Shared, threads: &Arc<ThreadGroup>) {
    carry_out(shared, threads, true);
}

/// The same, but no copies: these take long, and other orders shall not wait for them.
pub(super) fn carry_out_short_ones(shared: &Shared, threads: &Arc<ThreadGroup>) {
    carry_out(shared, threads, false);
}

fn carry_out(shared: &Shared, threads: &Arc<ThreadGroup>, takes_copies: bool) {
    let mut sources = Sources { shared, threads, connections: BTreeMap::new() };
    loop {
        let items = {
            let mut orders = shared.orders.lock();
            loop {
                if shared.is_stopping() {
                    return;
                }
                let items = orders.take(takes_copies);
                if !items.is_empty() {
                    break items;
                }
                shared.has_orders.wait(&mut orders);
            }
        };
        let failures: Vec<Option<Failure>> = match &items[..] {
            [Item { job: Job::Verify(key), .. }] => vec![shared.verify(key)],
            [Item { job: Job::Copy(order), orderer }] => vec![sources.copy(order, orderer)],
            [Item { job: Job::Copy(_), orderer }, ..] => {
                let order = |item: &Item| if let Job::Copy(order) = &item.job { Some(order.clone()) } else { None };
                sources.copy_small(&items.iter().filter_map(order).collect::<Vec<_>>(), orderer)
            }
            removals => {
                let keys: Vec<Key> = removals.iter().map(|item| item.job.key()).collect();
                shared.disk.remove_all(&keys).into_iter().map(|outcome| outcome.err().map(of_disk)).collect()
            }
        };
        let number = shared.disk.position().number;
        for (item, failure) in items.iter().zip(failures) {
            let outcome = OrderOutcome { kind: item.job.kind(), key: item.job.key(), failure };
            item.orderer.outcomes.lock().push_back((number, outcome));
        }
        let mut orders = shared.orders.lock();
        for item in &items {
            let is_it =
                |(orderer, key): &(Arc<Orderer>, Key)| Arc::ptr_eq(orderer, &item.orderer) && *key == item.job.key();
            if let Some(at) = orders.running.iter().position(is_it) {
                orders.running.swap_remove(at);
            }
        }
        drop(orders);
        shared.has_orders.notify_all();
        shared.disk.wake_followers();
    }
}

impl Shared {
    /// Takes orders of a link, unless they are of a leadership that is over.
    pub(super) fn enter_orders(&self, orderer: &Arc<Orderer>, epoch: Epoch, jobs: impl Iterator<Item = Job>) {
        let mut orders = self.orders.lock();
        // Looked at under the lock: the thread that follows a newer leadership then drops what was entered before.
        if epoch != orderer.epoch || self.disk.identity().epoch != Some(epoch) {
            return;
        }
        for job in jobs {
            if orders.waiting.len() < MOST_ORDERS {
                orders.waiting.push_back(Item { orderer: Arc::clone(orderer), job });
            } else {
                let failure = Some(Failure::Unavailable { what: "too many orders wait here".into() });
                let outcome = OrderOutcome { kind: job.kind(), key: job.key(), failure };
                orderer.outcomes.lock().push_back((0, outcome));
            }
        }
        drop(orders);
        self.has_orders.notify_all();
        self.disk.wake_followers();
    }

    /// Drops orders of other leaderships, and waits for those that run.
    pub(super) fn drop_orders_before(&self, epoch: Epoch) {
        let mut orders = self.orders.lock();
        orders.waiting.retain(|item| item.orderer.epoch == epoch);
        while orders.running.iter().any(|(orderer, _)| orderer.epoch != epoch) && !self.is_stopping() {
            self.has_orders.wait(&mut orders);
        }
    }

    /// The leadership has ended, or the link's connection: nothing that it ordered is begun any more.
    pub(super) fn end_orders(&self, orderer: &Arc<Orderer>) {
        let mut orders = self.orders.lock();
        orderer.has_ended.store(true, Ordering::Release);
        orders.waiting.retain(|item| !Arc::ptr_eq(&item.orderer, orderer));
        drop(orders);
        self.has_orders.notify_all();
    }

    /// Waits until nothing that it ordered runs any more.
    pub(super) fn wait_for_end(&self, orderer: &Arc<Orderer>) {
        let mut orders = self.orders.lock();
        let runs = |orders: &Orders| orders.running.iter().any(|(other, _)| Arc::ptr_eq(other, orderer));
        while (!orderer.has_ended() || runs(&orders)) && !self.is_stopping() {
            self.has_orders.wait(&mut orders);
        }
    }

    fn verify(&self, key: &Key) -> Option<Failure> {
        match self.disk.verify_on_disk(key) {
            Ok(()) => {
                log::debug!("{}: object {key} is sound", self.number());
                None
            }
            Err(GetError::Missing) => Some(Failure::NotHere),
            Err(GetError::Damaged) => {
                log::warn!("{}: object {key} is damaged", self.number());
                Some(Failure::Damaged { what: format!("this copy of object {key} is damaged") })
            }
            Err(GetError::Io(error)) => {
                log::warn!("{}: object {key} cannot be read now: {error}", self.number());
                Some(Failure::Unavailable { what: format!("object {key} cannot be read now: {error}") })
            }
        }
    }

    /// Rests so that copies, all together, fetch no more bytes a second than they may, and requests have their share. False
    /// if the copy shall not go on.
    fn pace(&self, orderer: &Orderer, bytes: usize, begun: Instant) -> bool {
        let now = Instant::now();
        let time = Duration::from_secs_f64(bytes as f64 / self.copy_rate.max(1) as f64);
        let until = {
            let mut orders = self.orders.lock();
            let until = orders.next_fetch.map_or(now, |next| next.max(now)) + time;
            orders.next_fetch = Some(until);
            until
        };
        let mut rest = until.saturating_duration_since(now + BURST);
        if self.requests.load(Ordering::Acquire) > 0 {
            rest = rest.max(begun.elapsed().min(LONGEST_YIELD));
        }
        (rest.is_zero() || self.rest(rest)) && !orderer.has_ended()
    }
}

fn of_disk(error: DiskError) -> Failure {
    match error {
        DiskError::Full => Failure::NoSpace,
        DiskError::Failed(what) => Failure::Unavailable { what },
    }
}

/// The Dstores that a thread fetches from.
struct Sources<'a> {
    shared: &'a Shared,
    threads: &'a Arc<ThreadGroup>,
    connections: BTreeMap<Address, Source>,
}

/// A connection to another Dstore, which ends when this one stops.
struct Source {
    connection: Connection,
    _tracked: Option<Tracked>,
}

impl Sources<'_> {
    /// Fetches an object and keeps it; why not, if so.
    fn copy(&mut self, order: &CopyOrder, orderer: &Orderer) -> Option<Failure> {
        let CopyOrder { key, length, checksum, purpose, from } = order;
        if *length == 0 {
            return Some(no_bytes());
        }
        let mut source = match self.connect(from) {
            Ok(source) => source,
            Err(error) => return Some(not_reached(order, &error)),
        };
        let mut fetched = match source.connection.send(&question(order)) {
            Ok(()) => match Fetched::begin(&mut source.connection, order) {
                Ok(fetched) => fetched,
                Err(Refusal::NotGiven(failure)) => {
                    self.keep(from, source);
                    return Some(failure);
                }
                Err(Refusal::Broken(failure)) => return Some(failure),
            },
            Err(error) => return Some(not_reached(order, &error)),
        };
        let mut paced = Paced { shared: self.shared, orderer, fetched: &mut fetched, begun: Instant::now() };
        let result = self.shared.disk.put(*key, *length, *checksum, &mut paced, *purpose);
        let (left, failure) = (fetched.left, fetched.failure);
        if left == 0 || failure.is_some() {
            self.keep(from, source);
        }
        result.err().map(|error| failure.unwrap_or_else(|| of_put(order, error)))
    }

    /// Fetches small objects from one Dstore, and then keeps them; of each, why not, if so. All are asked for before the first
    /// answer is waited for.
    fn copy_small(&mut self, orders: &[CopyOrder], orderer: &Orderer) -> Vec<Option<Failure>> {
        let begun = Instant::now();
        let mut contents = Vec::with_capacity(orders.len());
        if let Err(failure) = self.fetch_small(orders, &mut contents) {
            contents.resize(orders.len(), Err(failure)); // the connection is of no more use
        }
        let bytes = contents.iter().flatten().map(|content| content.len().max(LEAST_COUNTED)).sum();
        if !self.shared.pace(orderer, bytes, begun) {
            return orders.iter().map(|order| Some(not_reached(order, &"the copy shall not go on"))).collect();
        }
        let fetched: Vec<(&CopyOrder, &Vec<u8>)> =
            orders.iter().zip(&contents).filter_map(|(order, content)| Some((order, content.as_ref().ok()?))).collect();
        let is_kept = self.keep_together(&fetched).is_ok();
        let keep = |(order, content): (&CopyOrder, Result<Vec<u8>, Failure>)| match content {
            Err(failure) => Some(failure),
            Ok(_) if is_kept => None,
            Ok(content) => {
                let CopyOrder { key, length, checksum, purpose, .. } = order;
                let result = self.shared.disk.put(*key, *length, *checksum, &mut &content[..], *purpose);
                result.err().map(|error| of_put(order, error))
            }
        };
        orders.iter().zip(contents).map(keep).collect()
    }

    /// Keeps objects with one sync. After an error some may be kept: which ones failed, and why, is found out one by one.
    fn keep_together(&self, fetched: &[(&CopyOrder, &Vec<u8>)]) -> Result<(), PutError> {
        let Some((CopyOrder { purpose, .. }, _)) = fetched.first() else { return Ok(()) };
        let announced = fetched.iter().map(|(order, _)| {
            let CopyOrder { key, length, checksum, .. } = **order;
            Announced { key, length, checksum }
        });
        let content = fetched.iter().map(|(_, content)| &content[..]).collect::<Vec<_>>().concat();
        self.shared.disk.put_many(&announced.collect::<Vec<_>>(), &content, *purpose).map(drop)
    }

    /// Appends what each answer has. An error is of the first one that is not appended, and of all behind it.
    fn fetch_small(
        &mut self,
        orders: &[CopyOrder],
        contents: &mut Vec<Result<Vec<u8>, Failure>>,
    ) -> Result<(), Failure> {
        let Some(first) = orders.first() else { return Ok(()) };
        let mut source = self.connect(&first.from).map_err(|error| not_reached(first, &error))?;
        let questions: Vec<ObjectRequest> = orders.iter().map(question).collect();
        source.connection.send_all(&questions, &[]).map_err(|error| not_reached(first, &error))?;
        for order in orders {
            let mut fetched = match Fetched::begin(&mut source.connection, order) {
                Ok(fetched) => fetched,
                Err(Refusal::NotGiven(failure)) => {
                    contents.push(Err(failure));
                    continue;
                }
                Err(Refusal::Broken(failure)) => return Err(failure),
            };
            let mut content = Vec::with_capacity(order.length as usize);
            let result = fetched.read_to_end(&mut content);
            let failure = fetched.failure.take();
            contents.push(match (result, failure) {
                (Ok(_), _) => Ok(content),
                (Err(_), Some(failure)) => Err(failure),
                (Err(error), None) => return Err(not_reached(order, &error)),
            });
        }
        self.keep(&first.from, source);
        Ok(())
    }

    fn connect(&mut self, address: &Address) -> Result<Source, HandshakeError> {
        if let Some(source) = self.connections.remove(address).filter(|source| !source.connection.has_news()) {
            return Ok(source);
        }
        let shared = self.shared;
        let access = Access::Server { role: Role::Dstore, secret: shared.secret.clone() };
        let tracked = RefCell::new(None);
        let announce = |stream: &_| drop(tracked.replace(Some(self.threads.track(stream))));
        let connection = connect(address, &access, shared.cluster, Role::Dstore, CONNECT, announce)?;
        connection.limit_stalls(STALL)?;
        Ok(Source { connection, _tracked: tracked.into_inner() })
    }

    fn keep(&mut self, address: &Address, source: Source) {
        if self.connections.len() < MOST_CONNECTIONS {
            self.connections.insert(address.clone(), source);
        }
    }
}

/// What another Dstore is asked for.
fn question(order: &CopyOrder) -> ObjectRequest {
    ObjectRequest::Get { key: order.key, from: 0, length: order.length }
}

fn no_bytes() -> Failure {
    Failure::BadRequest { why: "an object has at least one byte".into() }
}

fn not_reached(order: &CopyOrder, error: &dyn fmt::Display) -> Failure {
    Failure::Unavailable { what: format!("the Dstore at {} does not give it: {error}", order.from) }
}

fn of_put(order: &CopyOrder, error: PutError) -> Failure {
    match error {
        PutError::Source(error) => not_reached(order, &error),
        // Its blocks were sound there, and are not what was ordered: it is another object.
        PutError::Mismatch { .. } => Failure::Mismatch,
        PutError::Conflict => Failure::Conflict,
        PutError::Full => Failure::NoSpace,
        error @ PutError::TooLarge => Failure::BadRequest { why: error.to_string() },
        PutError::Disk(error) => of_disk(error),
    }
}

/// Why another Dstore does not give an object.
enum Refusal {
    /// It says so. It can be asked for others.
    NotGiven(Failure),
    /// The connection is of no more use.
    Broken(Failure),
}

/// The bytes of an object, as another Dstore sends them. They are verified by what reads them.
struct Fetched<'a> {
    connection: &'a mut Connection,
    /// What is left of the piece that was announced.
    piece: u64,
    /// What is left of the object, that piece included.
    left: u64,
    /// What the other Dstore says in place of a piece.
    failure: Option<Failure>,
}

impl<'a> Fetched<'a> {
    /// Waits for the answer to a question.
    fn begin(connection: &'a mut Connection, order: &CopyOrder) -> Result<Self, Refusal> {
        match connection.receive(Wait::deadline(STALL)) {
            Ok(ObjectAnswer::Object { length, .. }) if length == order.length => {
                Ok(Self { connection, piece: 0, left: length, failure: None })
            }
            Ok(ObjectAnswer::Error { failure }) => {
                // It is asked for blocks of an object of this length: it has another one.
                let is_other = matches!(failure, Failure::BadRequest { .. });
                Err(Refusal::NotGiven(if is_other { Failure::Mismatch } else { failure }))
            }
            Ok(ObjectAnswer::Object { .. }) => Err(Refusal::Broken(Failure::Mismatch)),
            Ok(other) => Err(Refusal::Broken(not_reached(order, &format!("an answer to another question: {other:?}")))),
            Err(error) => Err(Refusal::Broken(not_reached(order, &error))),
        }
    }
}

impl Read for Fetched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        if self.piece == 0 {
            self.piece = match self.connection.receive(Wait::deadline(STALL)) {
                Ok(ObjectAnswer::Data { length }) if (1..=self.left).contains(&length) => length,
                Ok(ObjectAnswer::Error { failure }) => {
                    let error = io::Error::new(ErrorKind::InvalidData, failure.to_string());
                    self.failure = Some(failure);
                    return Err(error);
                }
                Ok(other) => return Err(io::Error::other(format!("an answer to another question: {other:?}"))),
                Err(ReceiveError::Io(error)) => return Err(error),
                Err(error) => return Err(io::Error::other(error.to_string())),
            };
        }
        let count = self.connection.content(self.piece, STALL).read(buffer)?;
        self.piece -= count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// A large object: between its pieces it rests.
struct Paced<'a, 'b> {
    shared: &'a Shared,
    orderer: &'a Orderer,
    fetched: &'a mut Fetched<'b>,
    /// When the last bytes were asked for.
    begun: Instant,
}

impl Read for Paced<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fetched.read(buffer)?;
        if count > 0 && !self.shared.pace(self.orderer, count, self.begun) {
            return Err(io::Error::other("the copy shall not go on"));
        }
        self.begun = Instant::now();
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Checksum;
    use crate::identity::History;
    use crate::pack::Purpose;

    fn key(number: u64) -> Key {
        Key { history: History(1), term: 1, number }
    }

    fn copy_of(number: u64, length: u64, from: &str) -> Job {
        let (checksum, purpose, from) = (Checksum::EMPTY, Purpose::Repair, from.parse().expect("an address"));
        Job::Copy(CopyOrder { key: key(number), length, checksum, purpose, from })
    }

    fn copy(number: u64) -> Job {
        copy_of(number, SMALL_COPY + 1, "h:1")
    }

    #[test]
    fn orders_about_one_object_come_one_after_another() {
        let orderer = Arc::new(Orderer::new(Epoch::default()));
        let mut orders = Orders::default();
        let jobs =
            [copy(1), Job::Remove(key(1)), Job::Verify(key(2)), Job::Remove(key(3)), Job::Remove(key(4)), copy(5)];
        orders.waiting.extend(jobs.map(|job| Item { orderer: Arc::clone(&orderer), job }));
        let mut take = |takes_copies, expected: &[(OrderKind, u64)]| {
            let taken = orders.take(takes_copies);
            let taken: Vec<_> = taken.iter().map(|item| (item.job.kind(), item.job.key().number)).collect();
            assert_eq!(taken, expected);
        };
        take(false, &[(OrderKind::Verify, 2)]);
        take(false, &[(OrderKind::Remove, 3), (OrderKind::Remove, 4)]); // with one sync
        take(false, &[]); // the removal of 1 waits for its copy
        take(true, &[(OrderKind::Copy, 1)]);
        take(true, &[(OrderKind::Copy, 5)]);
        take(true, &[]);
        orders.running.clear();
        orders.take(false);
        assert!(orders.waiting.is_empty());
    }

    #[test]
    fn small_objects_of_one_dstore_are_copied_together() {
        let orderer = Arc::new(Orderer::new(Epoch::default()));
        let mut orders = Orders::default();
        let small = |number| copy_of(number, 10, "h:1");
        let jobs = [small(1), small(2), copy_of(3, 10, "h:2"), Job::Remove(key(2)), copy(4), small(2), small(5)];
        orders.waiting.extend(jobs.map(|job| Item { orderer: Arc::clone(&orderer), job }));
        let another = Arc::new(Orderer::new(Epoch::default()));
        orders.waiting.push_back(Item { orderer: another, job: small(6) });
        orders.waiting.extend((7..200).map(|number| Item { orderer: Arc::clone(&orderer), job: small(number) }));
        let mut take = || orders.take(true).iter().map(|item| item.job.key().number).collect::<Vec<_>>();
        let first: Vec<u64> = [1, 2, 5].into_iter().chain(7..).take(COPIED_TOGETHER).collect();
        assert_eq!(take(), first, "neither the second copy of 2 nor another's orders");
        assert_eq!(take(), [3], "of another Dstore");
        assert_eq!(take(), [4], "a large one");
        assert_eq!(take(), [6], "of another leadership");
        assert_eq!(take().len(), COPIED_TOGETHER);
    }

    #[test]
    fn an_outcome_is_told_once_its_effect_is_reported() {
        let orderer = Orderer::new(Epoch::default());
        let outcome = |number| OrderOutcome { kind: OrderKind::Remove, key: key(number), failure: None };
        orderer.outcomes.lock().extend([(5, outcome(1)), (7, outcome(2)), (9, outcome(3))]);
        assert_eq!(orderer.take_outcomes(4, 9), []);
        assert_eq!(orderer.take_outcomes(7, 1), [outcome(1)]);
        assert_eq!(orderer.take_outcomes(8, 9), [outcome(2)]);
        assert!(orderer.has_outcomes());
    }
}
