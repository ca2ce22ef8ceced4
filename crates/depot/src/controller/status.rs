//! What the store says about itself: to a tired person first. (depot 10)

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::{Shared, State};
use crate::client::{ControllerStatus, DstoreState, DstoreStatus, ObjectCopies, PlaceOfCopy, Status};
use crate::identity::{DstoreId, Epoch, Key};
use crate::log::SyncMode;
use crate::namespace::change::{DstoreRecord, Duty, Replicas};
use crate::path::Path;
use crate::placement::CopyState;
use crate::wire::message::{Answer, Failure};
use crate::words::Words;

/// So many objects are counted at a time, under one hold of the lock.
const COUNTED: usize = 1_000;

/// So many times a second.
const STEPS: usize = 50;

/// How many objects have too few copies: counted in small steps, over and over.
#[derive(Debug, Default)]
pub(super) struct Census {
    after: Option<Key>,
    running: Count,
    /// The last count that was completed.
    last: Option<Count>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    named: u64,
    too_few: u64,
    none: u64,
}

impl Shared {
    /// Counts on.
    pub(super) fn take_census(&self) {
        for _ in 0..STEPS {
            if self.is_stopping() {
                return;
            }
            let after = self.state.lock().census.after;
            let keys = self.state.lock().holdings.keys(after, COUNTED);
            let looked = self.replica.read(|namespace| {
                let named: Vec<(Key, usize)> =
                    keys.iter().filter_map(|key| Some((*key, namespace.wanted(*key)?.1))).collect();
                (named, namespace.object_count() as u64)
            });
            let Ok((named, all)) = looked else { return };
            let mut state = self.state.lock();
            let mut count = state.census.running;
            for (key, wanted) in named {
                let good = state.good_copies(key);
                count.named += 1;
                count.too_few += u64::from(good < wanted);
                count.none += u64::from(good == 0);
            }
            if keys.len() == COUNTED {
                state.census.after = keys.last().copied();
                state.census.running = count;
                continue;
            }
            // Objects that no Dstore has are not among the holdings at all.
            let unknown = all.saturating_sub(count.named);
            count.too_few += unknown;
            count.none += unknown;
            state.census = Census { after: None, running: Count::default(), last: Some(count) };
            return;
        }
    }

    pub(super) fn status(&self) -> Result<Status, Failure> {
        let epoch = self.epoch_or_default();
        let (mut status, records) = self
            .replica
            .read(|namespace| {
                let records: Vec<_> = namespace.dstores().map(|(id, record)| (id, record.clone())).collect();
                let status = Status {
                    name: namespace.name().to_owned(),
                    cluster: namespace.cluster().to_string(),
                    settings: namespace.settings().clone(),
                    entries: namespace.entry_count(),
                    objects: namespace.object_count() as u64,
                    version: namespace.version(namespace.sequence()),
                    hash: format!("{:x}", namespace.hash()),
                    ..Status::default()
                };
                (status, records)
            })
            .map_err(|error| Failure::Unavailable { what: error.to_string() })?;
        status.controllers.push(ControllerStatus {
            address: self.address.to_string(),
            is_leader: true,
            epoch,
            sync: self.options.sync.to_line(),
            last_index: self.replica.last_index(),
            up: self.started.elapsed(),
        });
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
        let is_learning = self.started.elapsed() < self.settling && !status.dstores.iter().all(has_reported);
        drop(state);
        status.problems = self.problems(&status, is_learning);
        status.limits = limits(&status, self.options.sync);
        Ok(status)
    }

    fn epoch_or_default(&self) -> Epoch {
        self.replica.epoch().unwrap_or_default()
    }

    /// Copies are not missed while Dstores are still about to say what they have.
    fn problems(&self, status: &Status, is_learning: bool) -> Vec<String> {
        if let Some(why) = &*self.fatal.lock() {
            return vec![why.clone()]; // whatever else there is, it comes from this
        }
        let mut problems = Vec::new();
        if self.is_short_of_space.load(Ordering::Acquire) || self.replica.is_short_of_space() {
            problems.push(format!(
                "the Controller's disk is nearly full ({}): only removals are accepted until it has room",
                self.data.display()
            ));
        }
        if status.settings.is_read_only {
            problems.push("the store is set read-only: stevedore set read-only off".into());
        }
        let is_settling = self.started.elapsed() < self.settling;
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
        let is_good = |(dstore, kind): &(_, CopyState)| *kind != CopyState::Damaged && self.links.contains_key(dstore);
        self.holdings.holders(key).iter().filter(|copy| is_good(copy)).count()
    }

    fn status_of(&self, id: DstoreId, record: &DstoreRecord) -> DstoreStatus {
        let link = self.links.get(&id);
        let load = link.map(|link| link.load).unwrap_or_default();
        DstoreStatus {
            id,
            address: link.map(|link| link.address.to_string()).unwrap_or_default(),
            host: record.host.clone(),
            zone: record.zone.clone(),
            state: if link.is_some() { DstoreState::Present } else { DstoreState::Away },
            duty: record.duty,
            sync: link.map(|link| link.sync.to_line()).unwrap_or_default(),
            objects: load.objects,
            used_bytes: load.used_bytes,
            free_bytes: load.free_bytes,
            total_bytes: load.total_bytes,
            load_percent: (load.cpu_percent, load.memory_percent, load.disk_percent),
            damaged: load.damaged,
        }
    }
}

/// A number of things.
fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// What a store like this does not survive.
fn limits(status: &Status, sync: SyncMode) -> Vec<String> {
    let mut limits = vec![
        match status.dstores.is_empty() {
            true => "the loss of the Controller's disk: there is no Dstore that keeps a backup",
            false => "the loss of the Controller's disk, for what was changed since the last backup at the Dstores: up to an hour",
        }
        .to_owned(),
    ];
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
