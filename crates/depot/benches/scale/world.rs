//! A store of many Dstores, and what becomes of its objects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::IsTerminal as _;

use depot::dstore::COPY_RATE;
use depot::identity::DstoreId;
use depot::namespace::change::Duty;
use depot::placement::{
    Balance, Candidate, CopyState, Held, Member, Need, Presence, Relocation, Room, Step, Urgency, choose,
    is_mass_failure, plan,
};

use crate::events::{Event, Events};

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;
const YEAR: f64 = 365.0 * DAY;

/// Orders are given so often. The Controller does so every 10 ms; copies take 10 s here.
const ROUND: f64 = 5.0;

/// A round ends after so many objects in a row for which nothing could be ordered, as Dstores have enough to do.
const MOST_IN_VAIN: usize = 10;

/// So often it is looked whether copies should move to emptier disks, and so many are chosen at a time, as the Controller does.
const BALANCING: f64 = 300.0;
const MOST_MOVES: usize = 1_000;

/// An empty disk is there so long after the last one was lost.
const REPLACED_AFTER: f64 = DAY;

/// How large the store is.
#[derive(Clone, Copy)]
pub struct Shape {
    pub zones: usize,
    pub hosts_in_zone: usize,
    pub dstores_on_host: usize,
    pub objects: usize,
    /// What a Dstore's disk holds.
    pub disk_bytes: u64,
    /// How much of all disks is used.
    pub used: f64,
}

impl Shape {
    pub const LARGE: Self = Self {
        zones: 20,
        hosts_in_zone: 25,
        dstores_on_host: 2,
        objects: 1_000_000,
        disk_bytes: 8_000_000_000_000,
        used: 0.5,
    };
    pub const SMALL: Self =
        Self { zones: 4, hosts_in_zone: 3, dstores_on_host: 2, objects: 500, disk_bytes: 1_000_000_000_000, used: 0.5 };

    fn hosts(&self) -> usize {
        self.zones * self.hosts_in_zone
    }

    fn dstores(&self) -> usize {
        self.hosts() * self.dstores_on_host
    }

    fn host_of(&self, dstore: usize) -> usize {
        dstore / self.dstores_on_host
    }

    fn zone_of(&self, dstore: usize) -> usize {
        self.host_of(dstore) / self.hosts_in_zone
    }

    /// Each object stands for the chunks that are at the same Dstores.
    fn object_bytes(&self, replicas: usize) -> u64 {
        (self.disk_bytes as f64 * self.dstores() as f64 * self.used / (self.objects * replicas) as f64) as u64
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { zones, objects, disk_bytes, used, .. } = self;
        let (dstores, hosts, terabytes) = (self.dstores(), self.hosts(), disk_bytes / 1_000_000_000_000);
        let percent = used * 100.0;
        write!(
            f,
            "{dstores} Dstores of {terabytes} TB on {hosts} hosts in {zones} zones, {percent} % used, {objects} objects"
        )
    }
}

/// How often things fail, each in a year, and how long they are away, in seconds.
#[derive(Clone, Copy)]
pub struct Rates {
    /// A disk, for good.
    pub disk: f64,
    /// A machine.
    pub host: f64,
    /// Of these, so many are back within minutes, and the others after repair.
    pub host_restarts: f64,
    pub restart: f64,
    pub repair: f64,
    /// A zone, and the shortest and longest that it is away.
    pub zone: f64,
    pub zone_away: (f64, f64),
}

impl Rates {
    /// docs/scale.md says where they are from.
    pub const PUBLISHED: Self = Self {
        disk: 0.0157,
        host: 1000.0 / 1800.0,
        host_restarts: 0.9,
        restart: 10.0 * 60.0,
        repair: DAY,
        zone: 20.0 / 30.0,
        zone_away: (HOUR, 6.0 * HOUR),
    };
}

/// What a run has found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub days: f64,
    pub disks_lost: u64,
    pub host_failures: u64,
    pub zone_failures: u64,
    pub bytes_repaired: f64,
    pub bytes_balanced: f64,
    pub objects_lost: u64,
    /// Of all objects together: hours with one copy that is left on any disk, and hours with none at a Dstore that is there.
    pub hours_with_one_copy: f64,
    pub hours_away: f64,
    /// The longest time that an object had fewer copies on disks than it should, in seconds.
    pub longest_short: f64,
    /// Expected losses in a year, by the time with one copy and the rate at which disks fail.
    pub losses_a_year: f64,
    /// Each hour: its day, the most copies that were missing on disks, and by how many points shares of used space differ.
    pub samples: Vec<(f64, u64, f64)>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.samples.iter().map(|(_, _, apart)| *apart).fold(0.0, f64::max);
        let mut apart: Vec<f64> = self.samples.iter().map(|(_, _, apart)| *apart).collect();
        apart.sort_by(f64::total_cmp);
        let half = apart.get(apart.len() / 2).copied().unwrap_or(0.0);
        writeln!(
            f,
            "  failures: {} disks, {} hosts, {} zones",
            self.disks_lost, self.host_failures, self.zone_failures
        )?;
        writeln!(
            f,
            "  moved: {:.1} TB by repair, {:.1} TB by balancing",
            self.bytes_repaired / 1e12,
            self.bytes_balanced / 1e12
        )?;
        writeln!(
            f,
            "  lost: {} objects; with one copy on any disk: {:.1} object hours, so {:.2e} losses a year are to be expected",
            self.objects_lost, self.hours_with_one_copy, self.losses_a_year
        )?;
        writeln!(f, "  not to be read, as all copies were away: {:.0} object hours", self.hours_away)?;
        writeln!(f, "  longest with too few copies on disks: {:.0} min", self.longest_short / 60.0)?;
        writeln!(f, "  shares of used space apart: {half:.1} points half of the time, {most:.1} at most")
    }
}

/// An object, and where its copies are.
#[derive(Clone, Default)]
struct Object {
    copies: Vec<Held>,
    /// Dstores that were told to copy it.
    coming: Vec<DstoreId>,
    moving: Option<Relocation>,
    /// Since when it has too few copies on disks.
    short_since: Option<f64>,
}

/// A copy under way.
struct CopyOrder {
    object: usize,
    from: usize,
    to: usize,
}

/// A Dstore, beside what its [`Member`] says.
#[derive(Clone, Default)]
struct Dstore {
    objects: BTreeSet<usize>,
    /// Why it is away: its disk, its machine, its zone.
    reasons: u32,
    is_lost: bool,
    absences: u32,
    /// Whether a copy goes to it, or comes from it.
    takes: bool,
    gives: bool,
}

pub struct World {
    shape: Shape,
    rates: Rates,
    replicas: usize,
    grace: f64,
    object_bytes: u64,
    now: f64,
    events: Events,
    /// What the planners draw.
    random: fastrand::Rng,
    /// What fails when: the same in all runs, whatever the planners do.
    chance: fastrand::Rng,
    members: Vec<Member>,
    dstores: Vec<Dstore>,
    objects: Vec<Object>,
    backlog: BTreeSet<(Urgency, usize)>,
    urgency: BTreeMap<usize, Urgency>,
    /// Objects of which a copy is to move.
    moving: BTreeSet<usize>,
    orders: BTreeMap<u64, CopyOrder>,
    next_order: u64,
    has_round: bool,
    is_guarded: bool,
    /// Objects with one copy on any disk, with none that is there, and copies that are missing.
    with_one: u64,
    with_none_there: u64,
    missing: u64,
    /// The most that were missing since the last sample.
    most_missing: u64,
    outcome: Outcome,
}

impl World {
    pub fn new(shape: Shape, rates: Rates, replicas: usize, grace: f64, seed: u64) -> Self {
        let object_bytes = shape.object_bytes(replicas);
        let member = |at: usize| Member {
            id: id(at),
            host: format!("host-{}", shape.host_of(at)),
            zone: format!("zone-{}", shape.zone_of(at)),
            duty: Duty::Active,
            presence: Presence::Known,
            is_away: false,
            used: 0.0,
            load: 0.0,
        };
        let mut world = Self {
            shape,
            rates,
            replicas,
            grace,
            object_bytes,
            now: 0.0,
            events: Events::default(),
            random: fastrand::Rng::with_seed(seed),
            chance: fastrand::Rng::with_seed(!seed),
            members: (0..shape.dstores()).map(member).collect(),
            dstores: vec![Dstore::default(); shape.dstores()],
            objects: vec![Object::default(); shape.objects],
            backlog: BTreeSet::new(),
            urgency: BTreeMap::new(),
            moving: BTreeSet::new(),
            orders: BTreeMap::new(),
            next_order: 0,
            has_round: false,
            is_guarded: false,
            with_one: 0,
            with_none_there: 0,
            missing: 0,
            most_missing: 0,
            outcome: Outcome::default(),
        };
        world.fill();
        for dstore in 0..shape.dstores() {
            world.enter_after(rates.disk, Event::DiskFails { dstore });
        }
        (0..shape.hosts()).for_each(|host| world.enter_after(rates.host, Event::HostFails { host }));
        (0..shape.zones).for_each(|zone| world.enter_after(rates.zone, Event::ZoneFails { zone }));
        world.events.enter(0.0, Event::Sample);
        world.events.enter(BALANCING, Event::Balance);
        world
    }

    /// All objects are put, as clients put them.
    fn fill(&mut self) {
        let members = self.members.clone();
        let mut candidates: Vec<Candidate<'_>> = members.iter().map(candidate).collect();
        for object in 0..self.objects.len() {
            let random = &mut self.random;
            for place in choose(&candidates, &[], self.replicas, |n| random.usize(..n)) {
                self.objects[object].copies.push(certain(place));
                self.dstores[at(place)].objects.insert(object);
                self.set_used(at(place));
                candidates[at(place)].used = self.members[at(place)].used;
            }
        }
    }

    fn set_used(&mut self, dstore: usize) {
        let used = self.dstores[dstore].objects.len() as u64 * self.object_bytes;
        self.members[dstore].used = used as f64 / self.shape.disk_bytes as f64;
    }

    /// It happens so often in a year: the next time is drawn.
    fn enter_after(&mut self, rate: f64, event: Event) {
        let wait = -self.chance.f64().max(f64::MIN_POSITIVE).ln() * YEAR / rate;
        self.events.enter(self.now + wait, event);
    }

    pub fn run(mut self, days: f64) -> Outcome {
        let end = days * DAY;
        let mut told = 0.0;
        while let Some((at, event)) = self.events.next_until(end) {
            if at > told && std::io::stderr().is_terminal() {
                eprint!("\rday {:.0} of {days}   ", at / DAY);
                told = at + 10.0 * DAY;
            }
            self.pass(at);
            self.happen(event);
        }
        self.pass(end);
        self.check();
        let outcome = &mut self.outcome;
        outcome.days = days;
        // With one copy left, it is lost when that disk fails.
        outcome.losses_a_year = outcome.hours_with_one_copy * HOUR / YEAR * self.rates.disk * 365.0 / days;
        self.outcome
    }

    /// What was counted is what there is.
    fn check(&self) {
        let copies: usize = self.dstores.iter().map(|dstore| dstore.objects.len()).sum();
        assert_eq!(copies, self.objects.iter().map(|object| object.copies.len()).sum::<usize>());
        for (number, object) in self.objects.iter().enumerate() {
            assert!(object.copies.iter().all(|copy| self.dstores[at(copy.dstore)].objects.contains(&number)));
        }
        let few = |count: usize| self.objects.iter().filter(move |object| object.copies.len() == count).count() as u64;
        assert_eq!(few(0), self.outcome.objects_lost);
        assert!(self.replicas == 1 || few(1) == self.with_one);
        let missing =
            self.objects.iter().map(|object| self.replicas.saturating_sub(object.copies.len())).sum::<usize>();
        assert_eq!(missing as u64, self.missing);
    }

    /// Time passes, in which nothing happens.
    fn pass(&mut self, to: f64) {
        let hours = (to - self.now) / HOUR;
        self.outcome.hours_with_one_copy += hours * self.with_one as f64;
        self.outcome.hours_away += hours * self.with_none_there as f64;
        self.now = to;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::DiskFails { dstore } => {
                self.outcome.disks_lost += 1;
                self.lose(dstore);
                self.events.enter(self.now + REPLACED_AFTER, Event::DiskReplaced { dstore });
            }
            Event::DiskReplaced { dstore } => {
                self.dstores[dstore].is_lost = false;
                self.comes(dstore);
                self.enter_after(self.rates.disk, Event::DiskFails { dstore });
            }
            Event::HostFails { host } => {
                self.outcome.host_failures += 1;
                let restarts = self.chance.f64() < self.rates.host_restarts;
                let mean = if restarts { self.rates.restart } else { self.rates.repair };
                let away = -self.chance.f64().max(f64::MIN_POSITIVE).ln() * mean;
                self.events.enter(self.now + away, Event::HostReturns { host });
                self.of_host(host).for_each(|dstore| self.goes(dstore));
            }
            Event::HostReturns { host } => {
                self.of_host(host).for_each(|dstore| self.comes(dstore));
                self.enter_after(self.rates.host, Event::HostFails { host });
            }
            Event::ZoneFails { zone } => {
                self.outcome.zone_failures += 1;
                let (least, most) = self.rates.zone_away;
                let away = least + self.chance.f64() * (most - least);
                self.events.enter(self.now + away, Event::ZoneReturns { zone });
                self.of_zone(zone).for_each(|dstore| self.goes(dstore));
            }
            Event::ZoneReturns { zone } => {
                self.of_zone(zone).for_each(|dstore| self.comes(dstore));
                self.enter_after(self.rates.zone, Event::ZoneFails { zone });
            }
            Event::GraceEnds { dstore, absence } => {
                if self.dstores[dstore].reasons > 0 && self.dstores[dstore].absences == absence {
                    self.members[dstore].presence = Presence::Gone;
                    self.look_at_all_of(dstore);
                }
            }
            Event::CopyEnds { order } => self.copied(order),
            Event::Round => {
                self.has_round = false;
                self.work_off();
            }
            Event::Balance => {
                self.balance();
                self.events.enter(self.now + BALANCING, Event::Balance);
            }
            Event::Sample => {
                let used =
                    || self.members.iter().zip(&self.dstores).filter(|(_, it)| !it.is_lost).map(|(it, _)| it.used);
                let apart = used().fold(0.0, f64::max) - used().fold(1.0, f64::min);
                self.outcome.samples.push((self.now / DAY, self.most_missing, apart * 100.0));
                self.most_missing = self.missing;
                self.events.enter(self.now + HOUR, Event::Sample);
            }
        }
        self.want_round();
    }

    fn of_host(&self, host: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.shape.dstores_on_host;
        host * count..(host + 1) * count
    }

    fn of_zone(&self, zone: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.shape.dstores_on_host * self.shape.hosts_in_zone;
        zone * count..(zone + 1) * count
    }

    /// A Dstore is away, for one more reason.
    fn goes(&mut self, dstore: usize) {
        self.dstores[dstore].reasons += 1;
        if self.dstores[dstore].reasons > 1 {
            return;
        }
        self.dstores[dstore].absences += 1;
        let absence = self.dstores[dstore].absences;
        self.set_there(dstore, Presence::Resting);
        self.events.enter(self.now + self.grace, Event::GraceEnds { dstore, absence });
    }

    /// One of the reasons for which it is away is over.
    fn comes(&mut self, dstore: usize) {
        self.dstores[dstore].reasons -= 1;
        if self.dstores[dstore].reasons == 0 {
            self.set_there(dstore, Presence::Known);
            self.look_at_all_of(dstore);
        }
    }

    fn set_there(&mut self, dstore: usize, presence: Presence) {
        let objects = std::mem::take(&mut self.dstores[dstore].objects);
        objects.iter().for_each(|object| self.count(*object, -1));
        (self.members[dstore].presence, self.members[dstore].is_away) = (presence, presence != Presence::Known);
        objects.iter().for_each(|object| self.count(*object, 1));
        self.dstores[dstore].objects = objects;
        self.is_guarded = is_mass_failure(&self.members);
        if self.members[dstore].is_away {
            self.give_up(dstore);
        }
    }

    /// Copies to it and from it end.
    fn give_up(&mut self, dstore: usize) {
        let ended = self.orders.iter().filter(|(_, order)| order.from == dstore || order.to == dstore);
        let ended: Vec<u64> = ended.map(|(number, _)| *number).collect();
        for number in ended {
            let object = self.end(number).expect("it is there").object;
            self.look(object);
        }
    }

    fn end(&mut self, number: u64) -> Option<CopyOrder> {
        let order = self.orders.remove(&number)?;
        self.dstores[order.from].gives = false;
        self.dstores[order.to].takes = false;
        self.objects[order.object].coming.retain(|coming| *coming != id(order.to));
        Some(order)
    }

    /// Its disk is gone, with all that is on it.
    fn lose(&mut self, dstore: usize) {
        self.goes(dstore);
        self.dstores[dstore].is_lost = true;
        for object in std::mem::take(&mut self.dstores[dstore].objects) {
            self.count(object, -1);
            self.objects[object].copies.retain(|copy| copy.dstore != id(dstore));
            self.count(object, 1);
            if self.objects[object].copies.is_empty() {
                self.outcome.objects_lost += 1;
            }
            self.look(object);
        }
        self.set_used(dstore);
    }

    /// Counts an object among those that have too few copies, or does so no more.
    fn count(&mut self, object: usize, by: i64) {
        let copies = &self.objects[object].copies;
        let there = copies.iter().filter(|copy| !self.members[at(copy.dstore)].is_away).count();
        let add = |count: &mut u64, is_so: bool| *count = count.wrapping_add_signed(if is_so { by } else { 0 });
        add(&mut self.with_one, copies.len() == 1 && self.replicas > 1);
        add(&mut self.with_none_there, !copies.is_empty() && there == 0);
        let missing = self.replicas.saturating_sub(copies.len());
        self.missing = self.missing.wrapping_add_signed(by * missing as i64);
        if by > 0 {
            self.most_missing = self.most_missing.max(self.missing);
        }
        if by > 0 {
            let since = self.objects[object].short_since;
            self.objects[object].short_since = (missing > 0 && !copies.is_empty()).then(|| since.unwrap_or(self.now));
            if let (0, Some(since)) = (missing, since) {
                self.outcome.longest_short = self.outcome.longest_short.max(self.now - since);
            }
        }
    }

    fn look_at_all_of(&mut self, dstore: usize) {
        let objects: Vec<usize> = self.dstores[dstore].objects.iter().copied().collect();
        objects.into_iter().for_each(|object| self.look(object));
    }

    /// Looks at an object, and enters it into the backlog if a copy of it is to be made. Verifying and removing is done at once.
    fn look(&mut self, object: usize) {
        if let Some(urgency) = self.urgency.remove(&object) {
            self.backlog.remove(&(urgency, object));
        }
        loop {
            let plan = self.plan(object);
            let Some(urgency) = plan.urgency else { break };
            let mut copies = false;
            for step in plan.steps {
                match step {
                    Step::Verify { at } => {
                        let held = self.objects[object].copies.iter_mut().find(|copy| copy.dstore == at);
                        held.expect("it was planned with it").is_verified = true;
                    }
                    Step::Remove { at } => self.remove(object, at),
                    Step::Copy { .. } => copies = true,
                }
            }
            if copies {
                self.urgency.insert(object, urgency);
                self.backlog.insert((urgency, object));
                return;
            }
        }
        // At rest.
        if self.objects[object].coming.is_empty() {
            self.objects[object].moving = None;
            self.moving.remove(&object);
        }
        self.objects[object].copies.iter_mut().for_each(|copy| copy.is_verified = false);
    }

    fn plan(&mut self, object: usize) -> depot::placement::Plan {
        let Object { copies, coming, moving, .. } = &self.objects[object];
        let (wanted, is_guarded) = (self.replicas, self.is_guarded);
        let need = Need { wanted, copies, coming, avoided: &[], moving: *moving, is_guarded };
        let random = &mut self.random;
        plan(&need, &self.members, |n| random.usize(..n))
    }

    fn remove(&mut self, object: usize, place: DstoreId) {
        self.count(object, -1);
        self.objects[object].copies.retain(|copy| copy.dstore != place);
        self.count(object, 1);
        self.dstores[at(place)].objects.remove(&object);
        self.set_used(at(place));
    }

    fn want_round(&mut self) {
        if !self.backlog.is_empty() && !self.has_round {
            self.has_round = true;
            self.events.enter(self.now + ROUND, Event::Round);
        }
    }

    /// Orders what is most urgent, as far as Dstores can take it.
    fn work_off(&mut self) {
        let first: Vec<usize> = self.backlog.iter().take(500).map(|(_, object)| *object).collect();
        let mut in_vain = 0;
        for object in first {
            let plan = self.plan(object);
            let is_balance = plan.urgency == Some(Urgency::Balance) || plan.urgency == Some(Urgency::Spread);
            let mut is_ordered = true;
            for step in plan.steps {
                if let Step::Copy { from, to, .. } = step {
                    is_ordered &= self.give(object, at(from), at(to), is_balance);
                }
            }
            if is_ordered {
                self.look(object);
                in_vain = 0;
            } else {
                in_vain += 1;
                if in_vain == MOST_IN_VAIN {
                    break;
                }
            }
        }
    }

    /// One copy at a time goes to a Dstore, and one comes from it: more than that is allowed for smaller objects only.
    fn give(&mut self, object: usize, from: usize, to: usize, is_balance: bool) -> bool {
        if self.dstores[from].gives || self.dstores[to].takes {
            return false;
        }
        (self.dstores[from].gives, self.dstores[to].takes) = (true, true);
        self.objects[object].coming.push(id(to));
        self.next_order += 1;
        self.orders.insert(self.next_order, CopyOrder { object, from, to });
        let bytes = self.object_bytes as f64;
        *(if is_balance { &mut self.outcome.bytes_balanced } else { &mut self.outcome.bytes_repaired }) += bytes;
        let ends = self.now + bytes / COPY_RATE as f64;
        self.events.enter(ends, Event::CopyEnds { order: self.next_order });
        true
    }

    fn copied(&mut self, number: u64) {
        let Some(CopyOrder { object, to, .. }) = self.end(number) else { return };
        self.count(object, -1);
        self.objects[object].copies.push(certain(id(to)));
        self.count(object, 1);
        self.dstores[to].objects.insert(object);
        self.set_used(to);
        self.look(object);
    }

    /// Chooses copies that are to move, so that Dstores are filled alike: once those that were chosen before have, and while nothing is to
    /// be repaired.
    fn balance(&mut self) {
        let is_calm = |member: &Member| member.presence != Presence::Resting;
        let repairs = self.backlog.first().is_some_and(|(urgency, _)| *urgency < Urgency::Surplus);
        let rests = self.is_guarded || repairs || !self.members.iter().all(is_calm);
        if rests {
            for object in std::mem::take(&mut self.moving) {
                self.objects[object].moving = None;
                self.look(object);
            }
        }
        if rests || !self.moving.is_empty() {
            return;
        }
        let there = |dstore: &usize| self.members[*dstore].presence == Presence::Known;
        let room = |dstore: usize| {
            let used = self.dstores[dstore].objects.len() as u64 * self.object_bytes;
            Room { id: id(dstore), used, free: self.shape.disk_bytes.saturating_sub(used) }
        };
        let rooms: Vec<Room> = (0..self.dstores.len()).filter(there).map(room).collect();
        let mut balance = Balance::of(&rooms);
        for giver in 0..self.dstores.len() {
            if balance.is_done() || !balance.gives(id(giver)) {
                continue;
            }
            for object in self.dstores[giver].objects.clone() {
                let Object { copies, coming, moving, .. } = &self.objects[object];
                let places: Vec<DstoreId> = copies.iter().map(|copy| copy.dstore).collect();
                let is_at_rest = coming.is_empty() && moving.is_none() && !self.urgency.contains_key(&object);
                if is_at_rest
                    && places.len() == self.replicas
                    && let Some(relocation) = balance.choose(self.object_bytes, &places, &self.members)
                {
                    self.objects[object].moving = Some(relocation);
                    self.moving.insert(object);
                    self.look(object);
                }
                if self.moving.len() == MOST_MOVES {
                    return;
                }
                if balance.is_done() || !balance.gives(id(giver)) {
                    break;
                }
            }
        }
    }
}

fn id(dstore: usize) -> DstoreId {
    DstoreId(dstore as u32 + 1)
}

fn at(dstore: DstoreId) -> usize {
    dstore.0 as usize - 1
}

fn certain(dstore: DstoreId) -> Held {
    Held { dstore, state: CopyState::Certain, is_leaving: false, is_verified: false }
}

fn candidate(member: &Member) -> Candidate<'_> {
    Candidate { id: member.id, host: &member.host, zone: &member.zone, used: member.used, load: 0.0, times: 0 }
}
