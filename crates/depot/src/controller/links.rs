//! A Dstore's connection: its reports come in, orders go out. (depot 2.2, 4.6, 5.2)
//!
//! The Dstore connects to every Controller and says who it is. It is admitted if it belongs to this store, and reports all that
//! it has; from then on, what changes. So each Controller knows what the Dstore has, and any of them can lead at once.
//!
//! The one that leads tells it so, over the link that is open. The Dstore does not follow a leadership that knows nothing of one
//! that it has followed: that would mean that the Controller's disk is an old copy. Otherwise it records the leadership, and
//! says at which position of its records it did. No older order takes effect behind it: what it has reported up to there is
//! certain.
//!
//! ```text
//! Dstore      JOIN …                          to a follower            INVENTORY …  INVENTORY-END 1 20   CHANGES 1 25
//! Controller       ADMITTED 3                           begins to lead: LEADS …
//! Dstore                                                                        FENCED … 1 27   CHANGES 1 27: certain
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError, bounded};
use parking_lot::MutexGuard;
use stevedore::server::ThreadGroup;
use stevedore::socket::Wait;

use super::{Refused, Shared, State, now_ms};
use crate::identity::{DiskId, DstoreId, Epoch, History, Key, Position};
use crate::log::SyncMode;
use crate::namespace::Namespace;
use crate::namespace::change::{Change, Command, DstoreRecord, Duty};
use crate::wire::message::{CopyChange, CopyReport, Failure, Load, Order, Report};
use crate::wire::{Address, Connection, LineSender, ReceiveError};

/// A Dstore that says nothing for so long is away. It sends a heartbeat every second. (depot 6.2)
const SILENCE: Duration = Duration::from_secs(10);

/// While a Dstore was heard of so recently, another process that says it is the same is refused. (depot 5.6)
const ALIVE: Duration = Duration::from_secs(3);

/// So many orders may wait for a Dstore that reads slowly; more are not given, and their causes come again.
const MOST_ORDERS: usize = 1024;

/// Dstores are numbered up to here: holdings keep a number in two bytes.
const MOST_DSTORES: u32 = u16::MAX as u32;

/// So many copies are swept at a time.
const SWEPT: usize = 10_000;

/// A leadership begins with so many entries of the log: an empty one of Raft's, and the epoch.
const FIRST_ENTRIES: u64 = 2;

/// So many of the newest leaderships a Dstore is told: it may have followed one of them since it joined.
const MOST_KNOWN: usize = 64;

/// The format of a Dstore's disk that this release knows.
const FORMAT: u32 = 1;

/// A Dstore that is there.
pub(super) struct Link {
    /// Tells this connection from the Dstore's next one.
    pub(super) connection: u64,
    pub(super) address: Address,
    pub(super) sync: SyncMode,
    pub(super) load: Load,
    pub(super) heard: Instant,
    /// The newest leadership that it had followed when it joined.
    pub(super) followed: Option<Epoch>,
    /// It has recorded this leadership.
    pub(super) is_fenced: bool,
    /// At which of its records it did.
    fence: Option<Position>,
    /// Its inventory is complete, and what has changed since is reported up to here.
    reported: Option<Position>,
    /// The last change that it was told of.
    told: u64,
    /// It has reported all that it has, and all that earlier leaderships ordered.
    pub(super) has_reported: bool,
    orders: Sender<Order>,
    stream: LineSender,
}

impl Link {
    /// It is to follow a leadership from now on, or none.
    pub(super) fn begin(&mut self, leadership: Option<&Leadership>) {
        (self.is_fenced, self.fence) = (false, None);
        let is_told = match leadership {
            Some(leadership) => {
                self.told = leadership.after;
                self.order(leadership.order())
            }
            None => self.order(Order::Follows),
        };
        if !is_told {
            self.end(); // it reads too slowly to be led: it connects anew
        }
    }

    /// Ends the connection.
    fn end(&self) {
        self.stream.shut_down();
    }

    fn note_reported(&mut self, position: Position) {
        self.reported = Some(position);
        self.has_reported = self.fence <= self.reported;
    }

    fn note_fence(&mut self, position: Position) {
        (self.is_fenced, self.fence) = (true, Some(position));
        self.has_reported = self.fence <= self.reported;
    }

    /// Sends an order, unless too many wait already.
    pub(super) fn order(&self, order: Order) -> bool {
        match self.orders.try_send(order) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

/// What a Dstore has to know of a leadership, to follow it.
pub(super) struct Leadership {
    pub(super) epoch: Epoch,
    /// The last change before it.
    after: u64,
    /// The newest ones, this one included; and older ones that Dstores have followed.
    known: Vec<Epoch>,
    lineage: Vec<History>,
}

impl Leadership {
    /// The newest one; `None` before the first. Dstores had followed these when they joined.
    pub(super) fn newest(namespace: &Namespace, followed: &[Epoch]) -> Option<Self> {
        let (epoch, began) = namespace.leadership()?;
        let mut known: Vec<Epoch> = namespace.epochs().rev().take(MOST_KNOWN).map(|(_, epoch)| epoch).collect();
        for epoch in followed {
            if !known.contains(epoch) && namespace.has_epoch(epoch) {
                known.push(*epoch);
            }
        }
        let after = began.saturating_sub(FIRST_ENTRIES);
        Some(Self { epoch, after, known, lineage: namespace.lineage().collect() })
    }

    fn order(&self) -> Order {
        let Self { epoch, after, known, lineage } = self;
        Order::Leads { epoch: *epoch, after: *after, known: known.clone(), lineage: lineage.clone() }
    }
}

/// What a Dstore says of itself when it joins.
struct Join {
    disk: DiskId,
    number: Option<DstoreId>,
    start: u64,
    epoch: Option<Epoch>,
    address: Address,
    host: String,
    zone: String,
    sync: SyncMode,
}

/// Serves a Dstore until its connection ends.
pub(super) fn serve(
    shared: &Shared,
    threads: &Arc<ThreadGroup>,
    connection: &mut Connection,
) -> Result<(), ReceiveError> {
    let report = connection.receive(Wait::deadline(SILENCE))?;
    let Report::Join { disk, format, number, start, epoch, address, host, zone, sync } = report else {
        let why = "the first line of a Dstore is JOIN".to_owned();
        return Ok(connection.send(&Order::Error { failure: Failure::BadRequest { why } })?);
    };
    if format > FORMAT {
        let why = format!(
            "the Dstore's disk has format {format}, this Controller knows {FORMAT}: upgrade the Controllers first"
        );
        return Ok(connection.send(&Order::Error { failure: Failure::NotPermitted { why } })?);
    }
    let join = Join { disk, number, start, epoch, address, host, zone, sync };
    let (orders, outbox) = bounded(MOST_ORDERS);
    let (id, number) = match shared.admit(&join, orders, connection.sender()) {
        Ok(admitted) => admitted,
        Err(failure) => {
            // One that is new goes to the leader first, and comes again.
            let level = if matches!(failure, Failure::NotLeader { .. }) { log::Level::Debug } else { log::Level::Warn };
            log::log!(level, "{}: a Dstore is not admitted: {failure}", connection.peer());
            return Ok(connection.send(&Order::Error { failure })?);
        }
    };
    let writer = connection.sender();
    let write = move || {
        while let Ok(order) = outbox.recv() {
            if writer.send(&order).is_err() {
                writer.shut_down(); // the thread that reads then finds out
                return;
            }
        }
    };
    let result = match threads.spawn(write) {
        Ok(()) => shared.follow(id, number, connection),
        Err(error) => Err(error.into()),
    };
    shared.leave(id, number);
    if !shared.is_stopping() && !shared.ending.load(Ordering::Acquire) {
        match &result {
            Err(ReceiveError::Ended) | Ok(()) => log::warn!("Dstore {id} is away: it closed its connection"),
            Err(error) => log::warn!("Dstore {id} is away: {error}"),
        }
    }
    result
}

impl Shared {
    /// Decides whether a Dstore belongs here, enters it, and answers it.
    fn admit(&self, join: &Join, orders: Sender<Order>, stream: LineSender) -> Result<(DstoreId, u64), Failure> {
        let refused = |why: String| Failure::NotPermitted { why };
        let id = self.enter_dstore(join)?;
        let controllers = self.controllers_order();
        loop {
            let followed: Vec<Epoch> = join.epoch.into_iter().collect();
            let (has_yours, leadership) = self.replica.look(|namespace| {
                let has_yours = join.epoch.is_none_or(|epoch| namespace.has_epoch(&epoch));
                (has_yours, Leadership::newest(namespace, &followed))
            });
            if let Some(number) = join.number.filter(|number| *number != id && has_yours) {
                return Err(refused(format!("its disk says that it is Dstore {number}, the store knows it as {id}")));
            }
            let mut state = self.state.lock();
            let leadership = match (state.epoch, leadership) {
                (None, _) => None,
                (Some(epoch), Some(leadership)) if leadership.epoch == epoch => Some(leadership),
                _ => {
                    drop(state); // a leadership is just beginning or ending here
                    thread::yield_now();
                    continue;
                }
            };
            let before = state.links.get(&id);
            if before.is_some_and(|link| link.heard.elapsed() < ALIVE) {
                return Err(refused(format!(
                    "Dstore {id} is there already: another process serves a copy of its disk, or the same"
                )));
            }
            if state.starts.get(&id).is_some_and(|start| *start > join.start) {
                return Err(refused(format!(
                    "the disk of Dstore {id} is an old copy: it was started {} times, and a start {} was seen",
                    join.start, state.starts[&id]
                )));
            }
            state.starts.insert(id, join.start);
            let connection = state.random.u64(..);
            let mut link = Link {
                connection,
                address: join.address.clone(),
                sync: join.sync,
                load: Load::default(),
                heard: Instant::now(),
                followed: join.epoch,
                is_fenced: false,
                fence: None,
                reported: None,
                told: 0,
                has_reported: false,
                orders,
                stream,
            };
            link.order(Order::Admitted { number: id });
            link.order(controllers.clone());
            if let Some(leadership) = &leadership {
                link.begin(Some(leadership));
            }
            state.links.insert(id, link);
            state.holdings.connected(id);
            drop(state);
            log::info!("Dstore {id} at {} is there", join.address);
            return Ok((id, connection));
        }
    }

    /// The number of a Dstore. The leader enters it if it is new, or has moved; others know only those that were entered.
    fn enter_dstore(&self, join: &Join) -> Result<DstoreId, Failure> {
        let refused = |why: String| Failure::NotPermitted { why };
        // An operator may change its duty meanwhile, which must not be undone by what is read here.
        let _one_at_a_time = self.membership.lock();
        let (known, last) = self.replica.look(|namespace| {
            let id = namespace.dstore_on(join.disk);
            let record = id.and_then(|id| namespace.dstores().find(|(other, _)| *other == id));
            let last = namespace.dstores().last().map_or(0, |(id, _)| id.0);
            (record.map(|(id, record)| (id, record.clone())), last)
        });
        let duty = match &known {
            Some((id, record)) if record.duty == Duty::Removed => {
                return Err(refused(format!(
                    "Dstore {id} was removed from this store. Nothing on it is deleted; to use its disk again, give it an empty folder"
                )));
            }
            Some((_, record)) => record.duty,
            None if last >= MOST_DSTORES => return Err(refused(format!("the store has had {last} Dstores already"))),
            None => Duty::Active,
        };
        let record = DstoreRecord { disk: join.disk, host: join.host.clone(), zone: join.zone.clone(), duty };
        match known {
            Some((id, known)) if known == record || self.epoch().is_err() => Ok(id),
            _ => {
                self.epoch()?;
                let change = Change { now_ms: now_ms(), stamp: None, command: Command::Dstore { record } };
                self.replica.propose(&change).map_err(|error| self.failed(error))?;
                let id = self.replica.look(|namespace| namespace.dstore_on(join.disk));
                id.ok_or_else(|| refused("the Dstore was not entered".into()))
            }
        }
    }

    /// Tells Dstores how far this Controller is: they will know it again if its disk is replaced by an old copy. (depot 2.2)
    pub(super) fn tell_progress(&self) {
        let sequence = self.replica.look(|namespace| namespace.sequence());
        let mut state = self.state.lock();
        let Some(epoch) = state.epoch else { return };
        for link in state.links.values_mut().filter(|link| link.told < sequence) {
            if link.order(Order::Applied { epoch, sequence }) {
                link.told = sequence;
            }
        }
    }

    /// The state, for a report of this connection; `None` if the Dstore has a newer one. What the older one says is of the past,
    /// and its thread may have slept in between.
    fn state_of(&self, id: DstoreId, number: u64) -> Option<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        state.links.get_mut(&id).filter(|link| link.connection == number)?.heard = Instant::now();
        Some(state)
    }

    /// Takes a Dstore's reports until its connection ends, or the Dstore has a newer one.
    fn follow(&self, id: DstoreId, number: u64, connection: &mut Connection) -> Result<(), ReceiveError> {
        loop {
            let report = connection.receive(Wait::deadline(SILENCE))?;
            if self.state_of(id, number).is_none() {
                return Ok(());
            }
            match report {
                Report::Fenced { epoch, position } => {
                    let Some(mut state) = self.state_of(id, number) else { return Ok(()) };
                    if state.epoch == Some(epoch)
                        && let Some(link) = state.links.get_mut(&id)
                    {
                        link.note_fence(position);
                    }
                    drop(state);
                    self.begin_to_serve(epoch);
                    self.news.tell();
                }
                Report::Inventory { mut copies } => {
                    let strays = self.judge(copies.iter_mut());
                    let Some(mut state) = self.state_of(id, number) else { return Ok(()) };
                    state.healing.strays_reported(&strays);
                    copies.iter().for_each(|copy| state.holdings.reported(id, copy));
                }
                Report::InventoryEnd { position } => self.end_inventory(id, number, position),
                Report::Changes { position, mut changes } => {
                    let strays = self.judge(changes.iter_mut().filter_map(|change| match change {
                        CopyChange::Stored { copy } => Some(copy),
                        CopyChange::Removed { .. } => None,
                    }));
                    let Some(mut state) = self.state_of(id, number) else { return Ok(()) };
                    state.healing.strays_reported(&strays);
                    state.holdings.changed(id, position, &changes);
                    if let Some(link) = state.links.get_mut(&id) {
                        link.note_reported(position);
                    }
                    if state.epoch.is_some() {
                        state.healing.heard(&changes);
                    }
                    drop(state);
                    self.news.tell();
                }
                Report::Heartbeat { load } => {
                    let Some(mut state) = self.state_of(id, number) else { return Ok(()) };
                    if let Some(link) = state.links.get_mut(&id) {
                        link.load = load;
                    }
                }
                Report::Done { epoch, outcomes } => {
                    // What an earlier leadership ordered is no news of this one's orders.
                    if self.state.lock().epoch == Some(epoch) {
                        self.take_outcomes(id, number, outcomes);
                    }
                }
                Report::Refuse { epoch, why } => {
                    self.take_refusal(id, epoch, &why);
                    return Ok(());
                }
                Report::Join { .. } => {
                    connection.send(&Order::Error { failure: Failure::BadRequest { why: "it has joined".into() } })?;
                    return Ok(());
                }
            }
        }
    }

    /// A Dstore does not follow a leadership. If that one has ended without this Controller's knowledge, the Dstore follows a newer
    /// one. If a majority still confirms it, this Controller's disk is an old copy; a recovery then has to know which history
    /// the Dstore is in.
    fn take_refusal(&self, id: DstoreId, epoch: Epoch, why: &str) {
        let confirmed = self.replica.read(|namespace| namespace.leadership().map(|(newest, _)| newest));
        if confirmed != Ok(Some(epoch)) || self.state.lock().epoch != Some(epoch) {
            return log::info!("Dstore {id} does not follow an earlier leadership of this Controller: {why}");
        }
        let followed = self.state.lock().links.get(&id).and_then(|link| link.followed);
        let unknown_history = followed
            .map(|epoch| epoch.history)
            .filter(|history| self.replica.look(|namespace| namespace.lineage().all(|known| known != *history)));
        self.refused.lock().get_or_insert(Refused { unknown_history });
        self.give_up(format!("Dstore {id} refuses to follow this Controller: {why}"));
    }

    /// Copies that are not what the namespace says count as damaged, whatever their Dstore says. (depot 4.6)
    ///
    /// Objects of earlier histories that no file names, with their lengths.
    fn judge<'a>(&self, copies: impl Iterator<Item = &'a mut CopyReport>) -> Vec<(Key, u64)> {
        self.replica.look(|namespace| {
            let mut strays = Vec::new();
            for copy in copies {
                match namespace.object(copy.key) {
                    Some(object) => {
                        copy.is_damaged |= (object.length, object.checksum) != (copy.length, copy.checksum);
                    }
                    None if copy.key.history != namespace.history() => strays.push((copy.key, copy.length)),
                    None => {}
                }
            }
            strays
        })
    }

    fn end_inventory(&self, id: DstoreId, number: u64, position: Position) {
        let Some(mut state) = self.state_of(id, number) else { return };
        state.holdings.inventory_ended(id, position);
        if let Some(link) = state.links.get_mut(&id) {
            link.note_reported(position);
        }
        drop(state);
        self.news.tell();
        let mut after = None;
        loop {
            let Some(mut state) = self.state_of(id, number) else { return };
            after = state.holdings.sweep(id, after, SWEPT);
            if after.is_none() {
                return;
            }
        }
    }

    /// The Dstore's connection has ended; a newer one of the same Dstore is not concerned.
    fn leave(&self, id: DstoreId, connection: u64) {
        let mut state = self.state.lock();
        if state.links.get(&id).is_some_and(|link| link.connection == connection) {
            state.links.remove(&id);
        }
        drop(state);
        self.news.tell();
    }
}
