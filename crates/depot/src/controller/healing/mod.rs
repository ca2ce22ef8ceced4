//! Keeps as many good copies of each object as it should have, and no others. (depot 5.3, 5.4, 6)
//!
//! One thread looks at objects about which something was heard: a put, a report, the outcome of an order, an hour that has
//! come. For each it asks [`plan`] what is to be done next, and orders it. What comes of that is reported, and the object
//! is looked at again.
//!
//! ```text
//! reports, puts, outcomes ──▶ agenda ──▶ plan ──▶ backlog ──▶ orders ──▶ Dstores
//! a Dstore came or went   ──▶ sweep  ──▶                                    │
//!          ▲                              CHANGES, DONE                     │
//!          └────────────────────────────────────────────────────────────────┘
//! ```
//!
//! When a Dstore comes, is gone for good, or is to be emptied, a *sweep* looks at all objects, a few hundred at a time. The
//! *backlog* has those for which something is to be done, by urgency: orders under way are limited, so that what is more
//! urgent does not wait behind what was found first.
//!
//! # Why nothing that is needed is removed
//!
//! Holdings change only by what Dstores report. A copy that a Dstore was told to remove does not count from then on: the
//! order is entered under the same lock under which it was decided, and stays entered until the Dstore has said what became of
//! it, or its link has ended. Then the Dstore has dropped it, before it reports anew what it has.
//!
//! | file | what |
//! |---|---|
//! | `agenda` | which objects are to be looked at, and when |
//! | `presence` | which Dstores are there, and how long one may be away |
//! | `collection` | objects that no file names |
//! | `balancing` | copies that move to emptier Dstores |
//! | `under_way` | which orders Dstores have, and how many more each takes |

mod agenda;
mod balancing;
mod collection;
mod presence;
#[cfg(test)]
mod tests;
mod under_way;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::{Bound, RangeInclusive};
use std::thread;
use std::time::{Duration, Instant};

use super::{Shared, State};
use crate::client::HealingStatus;
use crate::identity::{DstoreId, Epoch, Key};
use crate::namespace::Object;
use crate::namespace::change::{DstoreRecord, Duty, Replicas};
use crate::placement::{CopyState, Held, Member, Need, Plan, Presence, Step, Urgency, is_mass_failure, plan};
use crate::wire::message::{CopyChange, CopyOrder, Failure, Order, OrderKind, OrderOutcome};
use agenda::Agenda;
use balancing::Balancing;
use collection::Unnamed;
use presence::Presences;
use under_way::{Task, UnderWay};

/// How a Controller heals its store. No safety rests on any of these times: at 0 there is only more work. (depot 1.7)
#[derive(Clone, Copy, Debug)]
pub struct HealingOptions {
    /// For so long a Dstore may be away before its copies are made elsewhere, unless the store's settings say another time.
    /// (depot 6.2)
    pub grace: Duration,
    /// So long after a put its missing copies are made, and claims are asked about. (depot 4.6, 5.1)
    pub after_put: Duration,
    /// A Controller has led for so long before it collects objects that no file names. (depot 5.3)
    pub margin: Duration,
    /// An object is kept for so long after its last file is gone, for those who read it still. (depot 5.3)
    pub keep_removed: Duration,
    /// A key is leased for so long without renewal. (depot 5.3)
    pub lease: Duration,
}

impl Default for HealingOptions {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(60),
            after_put: Duration::from_secs(5),
            margin: Duration::from_secs(600),
            keep_removed: Duration::from_secs(600),
            lease: Duration::from_secs(60),
        }
    }
}

/// At least so often it is looked which Dstores are there.
const PERIOD: Duration = Duration::from_millis(100);

/// What becomes due within so long is looked at together.
const BREATH: Duration = Duration::from_millis(10);

/// So many objects are looked at in one round, and twice as many are ordered for.
const STEP: usize = 250;

/// For so long the lock is held at a time, about: requests wait for it.
const MOMENT: Duration = Duration::from_millis(1);

/// All objects are looked at so often although nothing was heard of them.
const BACKSTOP: Duration = Duration::from_secs(600);

/// A sweep pauses while so many objects are in the backlog.
const MOST_BACKLOG: usize = 1_000_000;

/// An order that failed is given again after so long, then twice as long, up to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// The rate is of the copies of so long.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// What the healing thread knows. It is part of the Controller's [`State`].
pub(super) struct Healing {
    options: HealingOptions,
    started: Instant,
    agenda: Agenda,
    backlog: Backlog,
    under_way: UnderWay,
    /// The links that were open when it was last looked which orders have ended with theirs.
    open: Vec<(DstoreId, u64)>,
    /// Copies that were verified so that others can be removed, with the link over which that was said.
    verified: BTreeMap<(Key, DstoreId), u64>,
    /// Objects for which orders have failed.
    failed: HashMap<Key, Failed>,
    presences: Presences,
    unnamed: Unnamed,
    balancing: Balancing,
    /// What the last sweep was for. When it changes, another one is due.
    situation: Situation,
    /// Where the sweep is; `None` if none is under way.
    sweep: Option<Option<Key>>,
    last_sweep: Instant,
    /// How often an operator has changed whether a Dstore is to hold objects.
    duties: u64,
    is_guarded: bool,
    /// An operator has said that all is to be repaired, although many Dstores are away.
    repairs_all: bool,
    /// When how many bytes became certain by copies.
    copied: VecDeque<(Instant, u64)>,
}

#[derive(Default)]
struct Failed {
    times: u32,
    /// Dstores that could not take it.
    avoided: Vec<DstoreId>,
}

/// What the plans for all objects depend on: among other things, over which connection each Dstore has said what it has. One that
/// comes back at once may have something else than before.
type Situation = (Replicas, Vec<(DstoreId, Duty, Presence)>, Vec<Option<u64>>, bool);

/// Objects for which something is to be done.
#[derive(Default)]
struct Backlog {
    entries: HashMap<Key, Waiting>,
    order: BTreeSet<(Urgency, Key)>,
    /// The bytes of all missing copies.
    bytes: u64,
    /// Objects with missing copies.
    objects: u64,
}

#[derive(Clone, Copy)]
struct Waiting {
    object: Object,
    wanted: usize,
    urgency: Urgency,
    missing: u64,
}

impl Backlog {
    fn insert(&mut self, waiting: Waiting) {
        self.remove(waiting.object.key);
        self.order.insert((waiting.urgency, waiting.object.key));
        self.bytes += waiting.missing * waiting.object.length;
        self.objects += u64::from(waiting.missing > 0);
        self.entries.insert(waiting.object.key, waiting);
    }

    fn remove(&mut self, key: Key) {
        let Some(waiting) = self.entries.remove(&key) else { return };
        self.order.remove(&(waiting.urgency, key));
        self.bytes -= waiting.missing * waiting.object.length;
        self.objects -= u64::from(waiting.missing > 0);
    }
}

/// What one Dstore is to be told.
#[derive(Default)]
struct Batch {
    verify: Vec<Key>,
    copies: Vec<CopyOrder>,
    remove: Vec<Key>,
}

/// What Dstores are to be told.
type Orders = BTreeMap<DstoreId, Batch>;

impl Healing {
    /// `settled` is when Dstores have had time to come after the start.
    pub(super) fn new(options: HealingOptions, settled: Instant) -> Self {
        let now = Instant::now();
        Self {
            options,
            started: now,
            agenda: Agenda::default(),
            backlog: Backlog::default(),
            under_way: UnderWay::default(),
            open: Vec::new(),
            verified: BTreeMap::new(),
            failed: HashMap::new(),
            presences: Presences::new(settled, options.grace),
            unnamed: Unnamed::default(),
            balancing: Balancing::new(),
            situation: (Replicas::All, Vec::new(), Vec::new(), false),
            sweep: None,
            last_sweep: now,
            duties: 0,
            is_guarded: false,
            repairs_all: false,
            copied: VecDeque::new(),
        }
    }

    /// A put of this object was accepted, or a Dstore has stored it: it is looked at once others may have stored it, too.
    pub(super) fn stored(&mut self, key: Key) {
        self.agenda.add(key, Instant::now() + self.options.after_put);
    }

    /// Whether a Dstore has been told something about an object, and has not answered yet.
    pub(super) fn has_order(&self, key: Key, dstore: DstoreId) -> bool {
        self.under_way.get(key, dstore).is_some()
    }

    /// Whether this leadership has lasted long enough to remove what no file names.
    pub(super) fn collects(&self, now: Instant) -> bool {
        now.duration_since(self.started) >= self.options.margin
    }

    /// Something is the matter with the object.
    pub(super) fn look_at(&mut self, key: Key) {
        self.agenda.add(key, Instant::now());
    }

    /// A Dstore has reported changes.
    pub(super) fn heard(&mut self, changes: &[CopyChange]) {
        for change in changes {
            match change {
                CopyChange::Stored { copy } if !copy.is_damaged => self.stored(copy.key),
                CopyChange::Stored { copy } => self.look_at(copy.key),
                CopyChange::Removed { key } => self.look_at(*key),
            }
        }
    }

    /// No file names these objects any more, by a change of this leadership.
    pub(super) fn released(&mut self, keys: impl Iterator<Item = Key>) {
        let now = Instant::now();
        keys.for_each(|key| self.unnamed.release(key, now));
    }

    /// Takes out what Dstores have reported of earlier histories: that outlasts a leadership.
    pub(super) fn take_strays(&mut self) -> Vec<(Key, u64)> {
        self.unnamed.take_unclaimed().into_iter().collect()
    }

    /// A Dstore has objects of earlier histories that no file names, of these lengths.
    pub(super) fn strays_reported(&mut self, strays: &[(Key, u64)]) {
        strays.iter().for_each(|(key, length)| self.unnamed.reported(*key, *length));
    }

    /// Unclaimed objects can go: how many there are.
    pub(super) fn release_unclaimed(&mut self) -> u64 {
        self.unnamed.release_unclaimed(Instant::now())
    }

    /// The namespace says something else of a Dstore than it did: a round that began before gives no orders.
    pub(super) fn duties_changed(&mut self) {
        self.duties += 1;
    }

    /// All objects are looked at.
    pub(super) fn look_at_all(&mut self) {
        self.sweep = Some(None);
        self.last_sweep = Instant::now();
    }

    /// All objects are repaired, although many Dstores are away, until that is over.
    pub(super) fn repair_all(&mut self) {
        self.repairs_all = true;
        self.look_at_all();
    }

    /// How it heals.
    pub(super) fn options(&self) -> HealingOptions {
        self.options
    }

    /// For how long an object is kept after its last file is gone.
    pub(super) fn keep_removed(&self) -> Duration {
        self.options.keep_removed
    }

    /// How far it is.
    pub(super) fn status(&mut self) -> HealingStatus {
        let now = Instant::now();
        while self.copied.front().is_some_and(|(at, _)| now.duration_since(*at) > RATE_WINDOW) {
            self.copied.pop_front();
        }
        let copies = || self.under_way.copies();
        let waiting: BTreeSet<Key> =
            copies().map(|(key, _)| key).filter(|key| !self.backlog.entries.contains_key(key)).collect();
        let copied: u64 = self.copied.iter().map(|(_, bytes)| bytes).sum();
        let waits = |key: &&Key| self.backlog.entries.get(key).is_some_and(|waiting| waiting.missing == 0);
        let moves_waiting = self.balancing.moving().filter(waits).count();
        let (points_apart, is_as_even_as_can_be) = self.balancing.unevenness();
        let (unclaimed, unclaimed_bytes) = self.unnamed.unclaimed();
        HealingStatus {
            objects: self.backlog.objects + waiting.len() as u64,
            bytes: self.backlog.bytes + copies().map(|(_, task)| task.bytes).sum::<u64>(),
            bytes_per_second: copied / RATE_WINDOW.as_secs(),
            surplus: self.backlog.entries.len() as u64 - self.backlog.objects - moves_waiting as u64,
            moving: self.balancing.moving().len() as u64,
            points_apart,
            is_as_even_as_can_be,
            unnamed: self.unnamed.len() as u64,
            unclaimed,
            unclaimed_bytes,
            is_guarded: self.is_guarded && !self.repairs_all,
        }
    }

    /// An order has failed: the object is looked at again, later and later.
    fn try_later(&mut self, key: Key, avoided: Option<DstoreId>) {
        let failed = self.failed.entry(key).or_default();
        failed.times += 1;
        failed.avoided.extend(avoided);
        let wait = FIRST_RETRY.saturating_mul(1 << failed.times.min(16)).min(LONGEST_RETRY);
        self.agenda.add(key, Instant::now() + wait);
    }
}

/// Heals until the Controller stops.
pub(super) fn run(shared: &Shared) {
    while !shared.is_stopping() {
        let begun = Instant::now();
        if shared.heal() {
            // There is more to do: as long again is left to requests.
            thread::park_timeout(begun.elapsed());
            continue;
        }
        let mut state = shared.state.lock();
        let due = state.healing.agenda.next().unwrap_or(begun + PERIOD);
        let next = due.clamp(begun + BREATH, begun + PERIOD);
        if next > Instant::now() && !shared.is_stopping() {
            shared.to_heal.wait_until(&mut state, next);
        }
    }
}

/// What a round looks at.
struct Round {
    epoch: Epoch,
    records: Vec<(DstoreId, DstoreRecord)>,
    /// [`Healing::duties`] before the records were read.
    duties: u64,
    looked: Vec<(Key, Option<(Object, usize)>)>,
    is_more: bool,
}

impl Shared {
    /// One round. True if there is more to do at once.
    fn heal(&self) -> bool {
        let Some(round) = self.look_around() else { return false };
        let (is_more, duties) = (round.is_more, round.duties);
        let Some(records) = self.act(round) else { return true };
        let Ok(epoch) = self.epoch() else { return false };
        let is_balancing = self.balance(&records, duties);
        self.collect(epoch, &records) || is_balancing || is_more
    }

    /// What is to be looked at, and what the namespace says of it.
    fn look_around(&self) -> Option<Round> {
        let epoch = self.epoch().ok()?;
        let duties = self.state.lock().healing.duties;
        let looked = self.replica.read(|namespace| {
            let records: Vec<_> = namespace.dstores().map(|(id, record)| (id, record.clone())).collect();
            (records, namespace.settings().clone())
        });
        let (records, settings) = looked.ok()?;
        let keys = {
            let mut state = self.state.lock();
            if state.epoch != Some(epoch) {
                return None;
            }
            state.healing.set_grace(settings.grace_s);
            let members = state.members(&records);
            let connections = state.connections(&members);
            state.healing.notice(settings.replicas, &members, connections);
            state.due()
        };
        let is_more = keys.len() >= STEP || self.state.lock().is_sweeping();
        let looked = self.replica.read(|namespace| keys.iter().map(|key| (*key, namespace.wanted(*key))).collect());
        Some(Round { epoch, records, duties, looked: looked.ok()?, is_more })
    }

    /// Gives orders, and returns the records of Dstores that they rest on. `None` if these are of the past: then what was
    /// not looked at yet is left to the next round, and nothing more is ordered. An operator's command that has been answered must
    /// not be followed by an order that knows nothing of it.
    fn act(&self, mut round: Round) -> Option<Vec<(DstoreId, DstoreRecord)>> {
        let mut looked = std::mem::take(&mut round.looked).into_iter();
        let has_looked = self.by_moments(&round, |state, members, end| {
            while Instant::now() < end {
                let Some((key, wanted)) = looked.next() else { return false };
                state.look(key, wanted, members);
            }
            true
        });
        let (mut after, mut left) = (None, 2 * STEP);
        let has_acted = has_looked
            && self.by_moments(&round, |state, members, end| {
                let mut orders = Orders::new();
                while left > 0 && Instant::now() < end {
                    after = state.work_off_next(after, members, &mut orders);
                    left = if after.is_some() { left - 1 } else { 0 };
                }
                state.send(orders, round.epoch);
                left > 0
            });
        if has_acted {
            return Some(round.records);
        }
        let mut state = self.state.lock();
        if state.epoch == Some(round.epoch) {
            looked.for_each(|(key, _)| state.healing.look_at(key));
        }
        None
    }

    /// Works under the lock, a moment at a time, until there is no more to do; as long again is left to requests. False if what
    /// the round knows of Dstores is of the past.
    fn by_moments(&self, round: &Round, mut work: impl FnMut(&mut State, &[Member], Instant) -> bool) -> bool {
        loop {
            let begun = Instant::now();
            {
                let mut state = self.state.lock();
                if state.epoch != Some(round.epoch) || state.healing.duties != round.duties {
                    return false;
                }
                let members = state.members(&round.records);
                if !work(&mut state, &members, Instant::now() + MOMENT) {
                    return true;
                }
            }
            thread::park_timeout(begun.elapsed());
        }
    }

    /// A Dstore says what became of orders. Their effects were reported before.
    pub(super) fn take_outcomes(&self, id: DstoreId, connection: u64, outcomes: Vec<OrderOutcome>) {
        let Ok((mut state, epoch)) = self.lead() else { return };
        for outcome in outcomes {
            state.take_outcome(id, connection, &outcome, epoch);
        }
        drop(state);
        self.to_heal.notify_all();
    }
}

impl Healing {
    /// What is set for the store goes before what this Controller was told when it was started.
    fn set_grace(&mut self, grace_s: Option<u64>) {
        self.presences.set_grace(grace_s.map_or(self.options.grace, Duration::from_secs));
    }

    /// Sees what has changed for all objects.
    fn notice(&mut self, replicas: Replicas, members: &[Member], connections: Vec<Option<u64>>) {
        self.is_guarded = is_mass_failure(members);
        self.repairs_all &= self.is_guarded;
        let held_back = self.is_guarded && !self.repairs_all;
        let of = |member: &Member| (member.id, member.duty, member.presence);
        let situation = (replicas, members.iter().map(of).collect(), connections, held_back);
        if situation != self.situation || self.last_sweep.elapsed() > BACKSTOP {
            self.situation = situation;
            self.balancing.look_again();
            self.look_at_all();
        }
    }
}

impl State {
    /// Over which connections Dstores have reported all that they have.
    fn connections(&self, members: &[Member]) -> Vec<Option<u64>> {
        let known = |member: &Member| (member.presence == Presence::Known).then_some(member.id);
        members.iter().map(|member| Some(self.links.get(&known(member)?)?.connection)).collect()
    }

    /// The Dstores as they are now.
    fn members(&mut self, records: &[(DstoreId, DstoreRecord)]) -> Vec<Member> {
        let now = Instant::now();
        let of = |(id, record): &(DstoreId, DstoreRecord)| {
            let link = self.links.get(id);
            let has_reported = link.map(|link| link.is_fenced && link.has_reported);
            let load = link.map(|link| link.load).unwrap_or_default();
            let free = load.free_bytes as f64 / load.total_bytes.max(1) as f64;
            Member {
                id: *id,
                host: record.host.clone(),
                zone: record.zone.clone(),
                duty: record.duty,
                presence: self.healing.presences.look(*id, has_reported, now),
                is_away: link.is_none(),
                used: if load.total_bytes == 0 { 0.0 } else { 1.0 - free },
                load: f64::from(load.cpu_percent.max(load.disk_percent)) / 100.0,
            }
        };
        let members = records.iter().filter(|(_, record)| record.duty != Duty::Removed).map(of).collect();
        let links = &self.links;
        let open = links.iter().map(|(id, link)| (*id, link.connection));
        if !open.clone().eq(self.healing.open.iter().copied()) {
            self.healing.open = open.collect();
            // With a link, the orders that were given over it have ended.
            let is_open = |id: DstoreId, connection| links.get(&id).is_some_and(|link| link.connection == connection);
            for (key, at) in self.healing.under_way.ended(is_open) {
                self.healing.under_way.remove(key, at);
                self.healing.look_at(key);
            }
            self.healing.verified.retain(|(_, id), connection| is_open(*id, *connection));
        }
        members
    }

    /// The objects to look at now: those that are due, and a part of a sweep.
    fn due(&mut self) -> Vec<Key> {
        let mut keys = self.healing.agenda.take_due(Instant::now(), STEP);
        if let Some(after) = self.healing.sweep
            && keys.len() < STEP
            && self.is_sweeping()
        {
            let swept = self.holdings.keys(after, STEP);
            self.healing.sweep = swept.last().map(|last| Some(*last));
            // What is due later is left until then: a put may be under way.
            keys.extend(swept.into_iter().filter(|key| !self.healing.agenda.contains(*key)));
        }
        keys
    }

    fn is_sweeping(&self) -> bool {
        self.healing.sweep.is_some() && self.healing.backlog.entries.len() < MOST_BACKLOG
    }

    /// What an object needs next.
    fn plan(&mut self, key: Key, wanted: usize, members: &[Member]) -> Plan {
        let healing = &self.healing;
        let held = |(dstore, state): (DstoreId, CopyState)| Held {
            dstore,
            state,
            is_leaving: healing.under_way.get(key, dstore).is_some_and(|task| task.kind == OrderKind::Remove),
            is_verified: healing.verified.contains_key(&(key, dstore)),
        };
        let copies: Vec<Held> = self.holdings.holders(key).into_iter().map(held).collect();
        let coming = healing.under_way.of(key).filter(|(_, task)| task.kind == OrderKind::Copy);
        let coming: Vec<DstoreId> = coming.map(|(dstore, _)| dstore).collect();
        let avoided = healing.failed.get(&key).map_or(&[][..], |failed| &failed.avoided);
        let is_guarded = healing.is_guarded && !healing.repairs_all;
        let moving = healing.balancing.of(key);
        let need = Need { wanted, copies: &copies, coming: &coming, avoided, moving, is_guarded };
        let random = &mut self.random;
        plan(&need, members, |n| random.usize(..n))
    }

    /// Looks at an object, and enters it into the backlog if something is to be done.
    fn look(&mut self, key: Key, wanted: Option<(Object, usize)>, members: &[Member]) {
        self.healing.backlog.remove(key);
        let Some((object, wanted)) = wanted else {
            self.healing.failed.remove(&key);
            self.healing.balancing.ended(key);
            if self.keys.is_leased(key) {
                self.healing.agenda.add(key, Instant::now() + self.healing.options.lease.max(PERIOD));
            } else if self.holdings.holders(key).is_empty() {
                self.forget_if_gone(key, members);
            } else {
                self.healing.unnamed.note(key, Instant::now());
            }
            return;
        };
        let plan = self.plan(key, wanted, members);
        if let Some(urgency) = plan.urgency {
            self.healing.backlog.insert(Waiting { object, wanted, urgency, missing: plan.missing as u64 });
        } else if self.healing.under_way.of(key).next().is_none() {
            // At rest: what was found out on the way is not needed any more.
            self.healing.balancing.ended(key);
            let verified: Vec<_> = self.healing.verified.range(at_all(key)).map(|(place, _)| *place).collect();
            for place in verified {
                self.healing.verified.remove(&place);
            }
            if let Some(failed) = self.healing.failed.remove(&key)
                && plan.missing > 0
                && !failed.avoided.is_empty()
            {
                self.healing.agenda.add(key, Instant::now() + LONGEST_RETRY); // a Dstore may have room by then
            }
        }
    }

    /// Orders what the most urgent object behind this place of the backlog needs, as far as Dstores can take it. Its place;
    /// `None` if there is none.
    fn work_off_next(
        &mut self,
        after: Option<(Urgency, Key)>,
        members: &[Member],
        orders: &mut Orders,
    ) -> Option<(Urgency, Key)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let place = *self.healing.backlog.order.range((from, Bound::Unbounded)).next()?;
        let key = place.1;
        let Waiting { object, wanted, .. } = *self.healing.backlog.entries.get(&key)?;
        let plan = self.plan(key, wanted, members);
        let mut is_ordered = true;
        for step in &plan.steps {
            is_ordered &= self.give(step, &object, orders);
        }
        if plan.steps.is_empty() {
            self.healing.balancing.ended(key); // it cannot be moved any more
        }
        if is_ordered {
            self.healing.backlog.remove(key);
        }
        Some(place)
    }

    /// Enters an order. False if a Dstore has enough to do.
    fn give(&mut self, step: &Step, object: &Object, orders: &mut Orders) -> bool {
        let key = object.key;
        let (at, kind, from, bytes) = match *step {
            Step::Copy { from, to, .. } => (to, OrderKind::Copy, Some(from), object.length),
            Step::Verify { at } => (at, OrderKind::Verify, None, 0),
            Step::Remove { at } => (at, OrderKind::Remove, None, 0),
        };
        if self.healing.under_way.get(key, at).is_some() {
            return true; // its outcome is waited for
        }
        let has_room = |id: DstoreId| self.healing.under_way.has_room(id, kind, bytes);
        if !has_room(at) || !from.is_none_or(has_room) {
            return false;
        }
        let Some(link) = self.links.get(&at) else { return false };
        let task = Task { kind, connection: link.connection, from, bytes };
        let batch = orders.entry(at).or_default();
        match *step {
            Step::Copy { from, purpose, .. } => {
                let Some(source) = self.links.get(&from) else { return false };
                let (length, checksum, from) = (object.length, object.checksum, source.address.clone());
                batch.copies.push(CopyOrder { key, length, checksum, purpose, from });
            }
            Step::Verify { .. } => batch.verify.push(key),
            Step::Remove { .. } => batch.remove.push(key),
        }
        self.healing.under_way.insert(key, at, task);
        true
    }

    /// Sends what was entered. What a link does not take is taken back.
    fn send(&mut self, orders: Orders, epoch: Epoch) {
        for (id, Batch { verify, copies, remove }) in orders {
            let copied: Vec<Key> = copies.iter().map(|copy| copy.key).collect();
            for (keys, order) in [
                (verify.clone(), Order::Verify { epoch, keys: verify }),
                (copied, Order::Copy { epoch, copies }),
                (remove.clone(), Order::Remove { epoch, keys: remove }),
            ] {
                let is_sent = keys.is_empty() || self.links.get(&id).is_some_and(|link| link.order(order));
                if !is_sent {
                    for key in keys {
                        self.healing.under_way.remove(key, id);
                        self.healing.try_later(key, None);
                    }
                }
            }
        }
    }

    fn take_outcome(&mut self, id: DstoreId, connection: u64, outcome: &OrderOutcome, epoch: Epoch) {
        let OrderOutcome { kind, key, failure } = outcome;
        let key = *key;
        // Something else may be under way: a client's suspicion has a copy verified, too.
        let is_it = |task: &Task| task.kind == *kind && task.connection == connection;
        let is_ours = self.healing.under_way.get(key, id).is_some_and(is_it);
        let task = if is_ours { self.healing.under_way.remove(key, id) } else { None };
        let is_news = match (kind, failure) {
            (OrderKind::Verify, None) => self.holdings.confirmed(key, id),
            (OrderKind::Verify, Some(Failure::NotHere)) => self.holdings.denied(key, id),
            _ => false,
        };
        if let Some(failure) = failure {
            log::info!("Dstore {id} did not {} object {key}: {failure}", verb(*kind));
        }
        let Some(task) = task else {
            // A client suspected the copy, or this Controller did as a source. What the Dstore has found wrong it has reported
            // before; if nothing is wrong, the order that failed is not given again at once.
            if is_news {
                self.healing.look_at(key);
            }
            return;
        };
        let Some(failure) = failure else {
            match task.kind {
                OrderKind::Verify => {
                    // It may have ended since: what is verified counts as long as its link is open.
                    if self.links.get(&id).is_some_and(|link| link.connection == connection) {
                        self.healing.verified.insert((key, id), connection);
                    }
                }
                OrderKind::Copy => self.healing.copied.push_back((Instant::now(), task.bytes)),
                OrderKind::Remove => {}
            }
            self.healing.failed.remove(&key);
            return self.healing.look_at(key);
        };
        let avoided = match failure {
            // The source is not what it was held for: only its own finding changes what is known.
            Failure::Damaged { .. } | Failure::NotHere | Failure::Mismatch if task.from.is_some() => {
                if let Some(link) = task.from.and_then(|id| self.links.get(&id)) {
                    link.order(Order::Verify { epoch, keys: vec![key] }); // if it has too much to do, later
                }
                None
            }
            // That is an answer, and agrees with what it has reported.
            Failure::Damaged { .. } | Failure::NotHere if self.holdings.state(key, id) != Some(CopyState::Certain) => {
                return self.healing.look_at(key);
            }
            Failure::NoSpace | Failure::Conflict => Some(id),
            _ => None,
        };
        self.healing.balancing.ended(key); // it is none of the urgent things
        self.healing.try_later(key, avoided);
    }
}

/// An object at any Dstore.
fn at_all(key: Key) -> RangeInclusive<(Key, DstoreId)> {
    (key, DstoreId(0))..=(key, DstoreId(u32::MAX))
}

fn verb(kind: OrderKind) -> &'static str {
    match kind {
        OrderKind::Verify => "find sound",
        OrderKind::Copy => "copy",
        OrderKind::Remove => "remove",
    }
}
