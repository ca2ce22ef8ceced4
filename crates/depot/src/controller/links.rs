//! A Dstore's connection: its reports come in, orders go out. (depot 2.2, 4.6, 5.2)
//!
//! The Dstore connects and says who it is. It is admitted if it belongs to this store and has not followed a leadership
//! that this Controller knows nothing of: that would mean that the Controller's disk is an old copy. The Dstore records the
//! leadership, says so, and then reports all that it has; from then on, what changes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError, bounded};
use parking_lot::MutexGuard;
use stevedore::server::ThreadGroup;
use stevedore::socket::Wait;

use super::{Refused, Shared, State, now_ms};
use crate::identity::{DiskId, DstoreId, Epoch, Position};
use crate::log::SyncMode;
use crate::namespace::change::{Change, Command, DstoreRecord, Duty};
use crate::wire::message::{CopyChange, CopyReport, Failure, Load, Order, Report};
use crate::wire::{Address, Connection, ReceiveError};

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
    followed: Option<Epoch>,
    /// It has recorded this leadership.
    pub(super) is_fenced: bool,
    /// The last change that it was told of.
    told: u64,
    /// It has reported all that it has.
    pub(super) has_reported: bool,
    orders: Sender<Order>,
}

impl Link {
    /// Sends an order, unless too many wait already.
    pub(super) fn order(&self, order: Order) -> bool {
        match self.orders.try_send(order) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
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
    let (id, number) = match shared.admit(&join, orders) {
        Ok(admitted) => admitted,
        Err(failure) => {
            log::warn!("{}: a Dstore is not admitted: {failure}", connection.peer());
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
    fn admit(&self, join: &Join, orders: Sender<Order>) -> Result<(DstoreId, u64), Failure> {
        let refused = |why: String| Failure::NotPermitted { why };
        let unavailable = |error: crate::log::ProposeError| Failure::Unavailable { what: error.to_string() };
        // An operator may change its duty meanwhile, which must not be undone by what is read here.
        let _one_at_a_time = self.membership.lock();
        let known = self.replica.read(|namespace| {
            let id = namespace.dstore_on(join.disk);
            let record = id.and_then(|id| namespace.dstores().find(|(other, _)| *other == id));
            let last = namespace.dstores().last().map_or(0, |(id, _)| id.0);
            (record.map(|(id, record)| (id, record.clone())), last)
        });
        let (known, last) = known.map_err(unavailable)?;
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
        if known.as_ref().is_none_or(|(_, known)| *known != record) {
            let change = Change { now_ms: now_ms(), stamp: None, command: Command::Dstore { record } };
            self.replica.propose(&change).map_err(unavailable)?;
        }
        let looked = self.replica.read(|namespace| {
            let has_yours = join.epoch.is_none_or(|epoch| namespace.has_epoch(&epoch));
            (namespace.dstore_on(join.disk), has_yours, namespace.lineage().collect(), namespace.leadership())
        });
        let (id, has_yours, lineage, leadership) = looked.map_err(unavailable)?;
        let id = id.ok_or_else(|| refused("the Dstore was not entered".into()))?;
        let (epoch, began) = leadership.ok_or_else(|| refused("this Controller has no leadership".into()))?;
        let after = began.saturating_sub(FIRST_ENTRIES);
        if let Some(number) = join.number.filter(|number| *number != id && has_yours) {
            return Err(refused(format!("its disk says that it is Dstore {number}, the store knows it as {id}")));
        }
        let mut state = self.state.lock();
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
        let link = Link {
            connection,
            address: join.address.clone(),
            sync: join.sync,
            load: Load::default(),
            heard: Instant::now(),
            followed: join.epoch,
            is_fenced: false,
            told: after,
            has_reported: false,
            orders,
        };
        link.order(Order::Admitted { number: id, epoch, after, has_yours, lineage });
        state.links.insert(id, link);
        state.holdings.connected(id);
        drop(state);
        log::info!("Dstore {id} at {} is there", join.address);
        Ok((id, connection))
    }

    /// Tells Dstores how far this Controller is: they will know it again if its disk is replaced by an old copy. (depot 2.2)
    pub(super) fn tell_progress(&self) {
        let looked = self.replica.read(|namespace| (namespace.leadership(), namespace.sequence()));
        let Ok((Some((epoch, _)), sequence)) = looked else { return };
        for link in self.state.lock().links.values_mut().filter(|link| link.told < sequence) {
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
                Report::Fenced { epoch, .. } => {
                    let is_current = self.replica.epoch() == Some(epoch);
                    let Some(mut state) = self.state_of(id, number) else { return Ok(()) };
                    if let Some(link) = state.links.get_mut(&id) {
                        link.is_fenced = is_current;
                    }
                    self.may_serve.fetch_or(is_current, Ordering::AcqRel);
                    drop(state);
                    self.news.tell();
                }
                Report::Inventory { mut copies } => {
                    self.judge(copies.iter_mut());
                    let Some(mut state) = self.state_of(id, number) else { return Ok(()) };
                    copies.iter().for_each(|copy| state.holdings.reported(id, copy));
                }
                Report::InventoryEnd { position } => self.end_inventory(id, number, position),
                Report::Changes { position, mut changes } => {
                    self.judge(changes.iter_mut().filter_map(|change| match change {
                        CopyChange::Stored { copy } => Some(copy),
                        CopyChange::Removed { .. } => None,
                    }));
                    let Some(mut state) = self.state_of(id, number) else { return Ok(()) };
                    state.holdings.changed(id, position, &changes);
                    state.healing.heard(&changes);
                    drop(state);
                    self.news.tell();
                }
                Report::Heartbeat { load } => {
                    let Some(mut state) = self.state_of(id, number) else { return Ok(()) };
                    if let Some(link) = state.links.get_mut(&id) {
                        link.load = load;
                    }
                }
                Report::Done { outcomes } => self.take_outcomes(id, number, outcomes),
                Report::Refuse { why } => {
                    self.note_refusal(id);
                    self.give_up(format!("Dstore {id} refuses to follow this Controller: {why}"));
                    return Ok(());
                }
                Report::Join { .. } => {
                    connection.send(&Order::Error { failure: Failure::BadRequest { why: "it has joined".into() } })?;
                    return Ok(());
                }
            }
        }
    }

    /// A Dstore refuses: this Controller's disk is an old copy, and a recovery has to know which history the Dstore is in.
    fn note_refusal(&self, id: DstoreId) {
        let followed = self.state.lock().links.get(&id).and_then(|link| link.followed);
        let unknown = followed.map(|epoch| epoch.history).filter(|history| {
            let knows = self.replica.read(|namespace| namespace.lineage().any(|known| known == *history));
            knows == Ok(false)
        });
        self.refused.lock().get_or_insert(Refused { unknown_history: unknown });
    }

    /// Copies that are not what the namespace says count as damaged, whatever their Dstore says. (depot 4.6)
    fn judge<'a>(&self, copies: impl Iterator<Item = &'a mut CopyReport>) {
        let judged = self.replica.read(|namespace| {
            for copy in copies {
                let object = namespace.object(copy.key);
                copy.is_damaged |=
                    object.is_some_and(|object| (object.length, object.checksum) != (copy.length, copy.checksum));
            }
        });
        drop(judged); // without a leadership nothing is decided by them
    }

    fn end_inventory(&self, id: DstoreId, number: u64, position: Position) {
        let Some(mut state) = self.state_of(id, number) else { return };
        state.holdings.inventory_ended(id, position);
        if let Some(link) = state.links.get_mut(&id) {
            link.has_reported = true;
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
