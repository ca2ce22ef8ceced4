//! What the store says about itself: to a tired person first. (depot 10)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::group::AWAY;
use super::{Shared, State};
use crate::client::{
    ControllerRole, ControllerStatus, DstoreState, DstoreStatus, Election, ObjectCopies, PlaceOfCopy, Status,
};
use crate::identity::{ControllerId, DstoreId, Key};
use crate::log::{self, SyncMode};
use crate::namespace::Namespace;
use crate::namespace::change::{DstoreRecord, Duty, Replicas};
use crate::path::Path;
use crate::placement::CopyState;
use crate::wire::message::{Answer, Failure};
use crate::words::Words;

/// So many objects are counted at a time, under one hold of the lock.
const COUNTED: usize = 1_000;

/// A Dstore that has not verified all that it has for so long is a problem: what has decayed since is not known. (depot 5.4)
const LATE_SCRUB: Duration = Duration::from_secs(30 * 24 * 3600);

/// So many times at a call: up to a hundred thousand objects a second, and a few hundredths of a processor's time.
const STEPS: usize = 10;

/// How long at least from one count's begin to that of the next.
const COUNT_PERIOD: Duration = Duration::from_secs(1);

/// How many objects have too few copies: counted in small steps, over and over.
#[derive(Debug, Default)]
pub(super) struct Census {
    begun: Option<Instant>,
    /// Where in the namespace's table of objects it goes on.
    from: usize,
    running: Count,
    /// The last count that was completed.
    last: Option<Count>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    too_few: u64,
    none: u64,
}

impl Census {
    /// Where to count on; `None` if the next count is not due.
    fn next(&mut self, now: Instant) -> Option<usize> {
        if self.from == 0 {
            if self.begun.is_some_and(|begun| now.duration_since(begun) < COUNT_PERIOD) {
                return None;
            }
            self.begun = Some(now);
        }
        Some(self.from)
    }

    fn complete(&mut self) {
        *self = Self { begun: self.begun, last: Some(self.running), ..Self::default() };
    }
}

/// What the namespace says of the store's state.
struct Seen {
    status: Status,
    dstores: Vec<(DstoreId, DstoreRecord)>,
}

impl Seen {
    fn of(namespace: &Namespace) -> Self {
        let dstores = namespace.dstores().map(|(id, record)| (id, record.clone())).collect();
        Self { status: Status::of(namespace), dstores }
    }
}

impl Shared {
    /// Counts on. To be called about every 100 ms.
    pub(super) fn take_census(&self) {
        for _ in 0..STEPS {
            if self.is_stopping() || self.epoch().is_err() {
                return;
            }
            let begun = Instant::now();
            let Some(from) = self.state.lock().census.next(begun) else { return };
            let Some(named) = self.replica.look(|namespace| namespace.walk_objects(from, COUNTED)) else {
                self.state.lock().census.complete();
                return;
            };
            // The copies of an object are known before a file names it, so those of each of these are known by now.
            let state = self.state.lock();
            let found = named.into_iter().map(|(key, wanted)| (key, wanted, state.good_copies(key)));
            let lacking: Vec<_> = found.filter(|(_, wanted, good)| good < wanted).collect();
            drop(state);
            // The copies of one that no file names any more may be gone.
            let lacking = self.replica.look(|namespace| {
                let still = lacking.into_iter().filter(|(key, ..)| namespace.object(*key).is_some());
                still.collect::<Vec<_>>()
            });
            let mut state = self.state.lock();
            let census = &mut state.census;
            if census.from != from {
                return; // a new leadership counts anew
            }
            census.from += COUNTED;
            census.running.too_few += lacking.len() as u64;
            census.running.none += lacking.iter().filter(|(.., good)| *good == 0).count() as u64;
            drop(state);
            thread::park_timeout(begun.elapsed()); // as long again is left to requests
        }
    }

    /// How the store is, as a majority confirms it, or as this Controller knows it where there is none.
    pub(super) fn status(&self) -> Status {
        // Without a majority, too, there is much to say.
        let confirmed = self.replica.leader().and_then(|_| self.replica.read(Seen::of).ok());
        self.tell(confirmed.unwrap_or_else(|| self.replica.look(Seen::of)))
    }

    /// How the store is, as this Controller knows it: no other one is asked, so it is said at once.
    pub(super) fn status_here(&self) -> Status {
        self.tell(self.replica.look(Seen::of))
    }

    fn tell(&self, Seen { mut status, dstores: records }: Seen) -> Status {
        status.controllers = self.controllers_status();
        let of = |it: log::Election| Election { leader: it.leader, term: it.term, ago: it.at.elapsed(), gap: it.gap };
        status.elections = self.replica.elections().into_iter().map(of).collect();
        let mut state = self.state.lock();
        status.healing = state.healing.status();
        status.dstores = records
            .iter()
            .filter(|(_, record)| record.duty != Duty::Removed)
            .map(|(id, record)| state.status_of(*id, record))
            .collect();
        if let Some(count) = state.census.last {
            status.too_few_copies = count.too_few;
            status.no_copy = count.none;
        }
        let has_reported = |dstore: &DstoreStatus| state.links.get(&dstore.id).is_some_and(|link| link.has_reported);
        let is_settling = state.since.elapsed() < self.settling;
        let is_learning = is_settling && !status.dstores.iter().all(has_reported);
        drop(state);
        status.problems = self.problems(&status, is_settling, is_learning);
        status.limits = limits(&status, self.options.sync);
        status
    }

    fn controllers_status(&self) -> Vec<ControllerStatus> {
        let (ours, leader) = (self.replica.id(), self.replica.leader());
        let (members, progress) = (self.replica.members(), self.replica.progress());
        let epoch = self.replica.look(|namespace| namespace.leadership().map(|(epoch, _)| epoch)).unwrap_or_default();
        let mut all: BTreeMap<ControllerId, String> = members.all().map(|id| (id, String::new())).collect();
        all.extend(self.controllers().into_iter().map(|(id, address)| (id, address.to_string())));
        let last = self.replica.last_index();
        let of = |(id, address): (ControllerId, String)| {
            let is_ours = id == ours;
            let known = progress.iter().find(|known| known.id == id);
            let last_index = known.map(|known| known.last_index).filter(|_| is_ours || leader == Some(ours));
            ControllerStatus {
                id,
                address: if is_ours { self.address.to_string() } else { address },
                role: match id {
                    _ if leader == Some(id) => ControllerRole::Leader,
                    _ if members.voters.contains(&id) => ControllerRole::Follower,
                    _ if members.learners.contains(&id) => ControllerRole::Learner,
                    _ => ControllerRole::Outside,
                },
                epoch,
                sync: if is_ours { self.options.sync.to_line() } else { String::new() },
                last_index,
                lag: last_index.map_or(0, |index| last.saturating_sub(index)),
                agreed: known.and_then(|known| known.agreed),
                silence: known.and_then(|known| known.silence),
                snapshot: self.peers.state(id).and_then(|state| state.snapshot),
                up: is_ours.then(|| self.started.elapsed()),
            }
        };
        all.into_iter().map(of).collect()
    }

    /// What is wrong with the Controllers, worst first.
    fn problems_of_group(&self, status: &Status) -> Vec<String> {
        let mut problems = Vec::new();
        if self.waits() {
            let here = &self.address;
            problems.push(format!("this Controller waits to be added to the store: stevedore controllers add {here}"));
            return problems;
        }
        let is_away = |controller: &ControllerStatus| {
            let is_silent = controller.silence.is_none_or(|silence| silence >= AWAY);
            is_silent && controller.id != self.replica.id()
        };
        let votes = |controller: &&ControllerStatus| {
            matches!(controller.role, ControllerRole::Leader | ControllerRole::Follower)
        };
        let voters: Vec<&ControllerStatus> = status.controllers.iter().filter(votes).collect();
        let leads = self.epoch().is_ok();
        if !leads && self.replica.leader().is_none() {
            problems.push(format!(
                "no Controller leads: of {}, {} must be there and reach each other. Nothing can be changed, and what is said here \
                 may be old. If so many are lost for good: stevedore recover --data DIR makes one of them go on alone",
                count(voters.len() as u64, "Controller", "Controllers"),
                voters.len() / 2 + 1
            ));
        }
        // A follower hears of the leader only.
        for controller in status.controllers.iter().filter(|controller| leads && is_away(controller)) {
            let trouble = self.peers.state(controller.id).and_then(|state| state.trouble);
            let why = trouble.unwrap_or_else(|| "it does not answer".into());
            problems.push(format!("Controller {} at {} is away: {why}", controller.id, controller.address));
        }
        for controller in status.controllers.iter().filter(|controller| controller.role == ControllerRole::Learner) {
            problems.push(format!("Controller {} is catching up, and has no vote yet", controller.id));
        }
        if leads && voters.len() == 2 {
            problems.push("there are two Controllers: if either is away, nothing can be changed. Add a third".into());
        }
        if let Some(sequence) = self.replica.doubt() {
            problems.push(format!(
                "the Controllers' copies of the metadata differ behind change {sequence}, and no majority says which is right: see \
                 their logs"
            ));
        }
        if !leads && self.replica.leader().is_some() {
            problems.push("this Controller follows: how copies are repaired is known by the leader".into());
        }
        problems
    }

    /// Copies are not missed while Dstores are still about to say what they have.
    fn problems(&self, status: &Status, is_settling: bool, is_learning: bool) -> Vec<String> {
        if let Some(why) = &*self.fatal.lock() {
            return vec![why.clone()]; // whatever else there is, it comes from this
        }
        let mut problems = self.problems_of_group(status);
        if self.is_short_of_space.load(Ordering::Acquire) || self.replica.is_short_of_space() {
            problems.push(format!(
                "the Controller's disk is nearly full ({}): only removals are accepted until it has room",
                self.data.display()
            ));
        }
        if status.settings.is_read_only {
            problems.push("the store is set read-only: stevedore set read-only off".into());
        }
        if status.no_copy > 0 && !is_learning {
            problems.push(format!(
                "{} no sound copy at a Dstore that is there: the files may not be readable until one returns, or until they are \
                 put again",
                count(status.no_copy, "object has", "objects have")
            ));
        }
        for dstore in status.dstores.iter().filter(|dstore| dstore.state == DstoreState::Away) {
            let hint = if is_settling { "the Controller has just started" } else { "start it, or see its log" };
            problems.push(format!("Dstore {} is away (last on {}): {hint}", dstore.id, dstore.host));
        }
        let few = status.too_few_copies.saturating_sub(status.no_copy);
        if few > 0 && !is_learning {
            problems.push(format!("{} fewer copies than there should be", count(few, "object has", "objects have")));
        }
        let there = status.dstores.iter().filter(|dstore| dstore.state == DstoreState::Present).count();
        if let Replicas::Number(wanted) = status.settings.replicas
            && there < usize::from(wanted)
        {
            let there = count(there as u64, "Dstore is", "Dstores are");
            problems.push(format!("{} set, and {there} there", count(wanted.into(), "replica is", "replicas are")));
        }
        let shipped = *self.shipped.lock();
        if let Some(since) = shipped.overdue(status.version.sequence, self.backup_period) {
            problems.push(format!(
                "no Dstore has taken a backup of the metadata for {} minutes: the Controller's log says why",
                since.as_secs() / 60
            ));
        }
        for dstore in &status.dstores {
            if dstore.damaged > 0 {
                let damaged = count(dstore.damaged, "damaged object", "damaged objects");
                problems.push(format!("Dstore {} has {damaged}: its disk may be failing", dstore.id));
            }
            if dstore.total_bytes > 0 && dstore.free_bytes < dstore.total_bytes / 20 {
                problems.push(format!("the disk of Dstore {} is full: it takes no more", dstore.id));
            }
            if dstore.objects > 0 && dstore.scrubbed_ago > LATE_SCRUB {
                problems.push(format!(
                    "Dstore {} last verified all of its objects {} days ago: stevedore check --deep reads them now",
                    dstore.id,
                    dstore.scrubbed_ago.as_secs() / 86_400
                ));
            }
        }
        problems
    }

    pub(super) fn copies(&self, path: &Path) -> Result<Answer, Failure> {
        let opened = self.replica.read(|namespace| {
            let opened = namespace.open(path)?;
            Ok((opened, namespace.settings().replicas))
        });
        let ((stat, objects), replicas) = opened
            .map_err(|error| Failure::Unavailable { what: error.to_string() })?
            .map_err(|refusal| Failure::Refused { refusal })?;
        let wanted = stat.details.replicas.unwrap_or(replicas);
        // What a Dstore has not reported yet is not missing.
        let dstores: Vec<DstoreId> = self.replica.look(|namespace| {
            let belong = namespace.dstores().filter(|(_, record)| record.duty != Duty::Removed);
            belong.map(|(id, _)| id).collect()
        });
        self.wait_for_dstores(|| {
            let state = self.state.lock();
            dstores.iter().all(|id| state.links.get(id).is_some_and(|link| link.has_reported))
        });
        let state = self.state.lock();
        let objects = objects.iter().map(|object| {
            let copies = state.holdings.holders(object.key).into_iter().map(|(dstore, kind)| {
                let link = state.links.get(&dstore);
                PlaceOfCopy {
                    dstore,
                    address: link.map(|link| link.address.to_string()).unwrap_or_default(),
                    is_present: link.is_some(),
                    is_certain: kind == CopyState::Certain,
                    is_damaged: kind == CopyState::Damaged,
                    location: None, // the client asks the Dstore
                }
            });
            let (key, length, checksum) = (object.key, object.length, object.checksum);
            ObjectCopies { key, length, checksum, wanted, copies: copies.collect() }
        });
        Ok(Answer::Copies { objects: objects.collect() })
    }
}

impl State {
    /// How many copies can be read.
    fn good_copies(&self, key: Key) -> usize {
        self.holdings.count(key, |dstore, kind| kind != CopyState::Damaged && self.links.contains_key(&dstore))
    }

    fn status_of(&self, id: DstoreId, record: &DstoreRecord) -> DstoreStatus {
        let link = self.links.get(&id);
        let load = link.map(|link| link.load).unwrap_or_default();
        // Where this Controller leads, one that does not follow it yet takes no part.
        let is_there = link.is_some_and(|link| link.is_fenced || self.epoch.is_none());
        DstoreStatus {
            id,
            address: link.map(|link| link.address.to_string()).unwrap_or_default(),
            host: record.host.clone(),
            zone: record.zone.clone(),
            state: if is_there { DstoreState::Present } else { DstoreState::Away },
            duty: record.duty,
            sync: link.map(|link| link.sync.to_line()).unwrap_or_default(),
            objects: load.objects,
            used_bytes: load.used_bytes,
            free_bytes: load.free_bytes,
            total_bytes: load.total_bytes,
            load_percent: (load.cpu_percent, load.memory_percent, load.disk_percent),
            damaged: load.damaged,
            scrubbed_ago: load.scrubbed_ago,
        }
    }
}

/// A number of things.
fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// What a store like this does not survive.
fn limits(status: &Status, sync: SyncMode) -> Vec<String> {
    let voters = status.controllers.iter().filter(|controller| controller.role != ControllerRole::Learner).count();
    let mut limits = vec![match (voters, status.dstores.is_empty()) {
        (0 | 1, true) => "the loss of the Controller's disk: there is no Dstore that keeps a backup".to_owned(),
        (0 | 1, false) => {
            "the loss of the Controller's disk, for what was changed since the last backup at the Dstores: up to an \
                           hour"
                .to_owned()
        }
        (2, _) => "the loss of one of its two Controllers, until it is recovered from the other one".to_owned(),
        (voters, _) => format!(
            "the loss of {} of its {voters} Controllers at a time, until it is recovered from one that is left",
            voters / 2 + 1
        ),
    }];
    match status.settings.replicas {
        Replicas::Number(1) => limits.push("the loss of any disk: there is one replica of each file".into()),
        Replicas::Number(replicas) => {
            let hosts: BTreeSet<&str> = status.dstores.iter().map(|dstore| dstore.host.as_str()).collect();
            match status.dstores.len() {
                0 => {}
                1 => limits.push("the loss of any disk: there is one Dstore".into()),
                _ if hosts.len() == 1 => limits.push("the loss of the machine: all Dstores are on one".into()),
                dstores if dstores < usize::from(replicas) => limits.push(format!(
                    "the loss of {dstores} disks at a time: there are no more Dstores, though {replicas} replicas are set"
                )),
                _ => {}
            }
        }
        Replicas::All => {}
    }
    let late = status.dstores.iter().any(|dstore| !dstore.sync.is_empty() && dstore.sync != "always");
    if sync != SyncMode::Always || late {
        limits.push("a power cut, for what was acknowledged last: --sync is not always".into());
    }
    limits
}
