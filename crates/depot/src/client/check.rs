//! Proof that a store has what it should have: every holder is asked for every object of every file. (depot 6.5)

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stevedore::socket::Wait;

use super::cluster::Cluster;
use super::{CheckSummary, CheckedObject, Error, Files, ListOptions, ObjectCopies};
use crate::identity::{DstoreId, Key};
use crate::namespace::change::{Duty, Refusal, Replicas};
use crate::namespace::listing::Kind;
use crate::path::Path;
use crate::wire::message::{CopyReport, ObjectAnswer, ObjectRequest, Request};
use crate::wire::{Address, Role};

/// So many objects are asked for at a time, and if they are read so many bytes.
const MOST_OBJECTS: usize = 1_000;
const MOST_DEEP_BYTES: u64 = 64 << 20;

/// A Dstore may take so long to read that.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is being checked.
struct Check<'a> {
    cluster: &'a Cluster,
    deep: bool,
    /// How many Dstores are to hold objects.
    active: usize,
    found: &'a mut dyn FnMut(&CheckedObject),
    summary: CheckSummary,
    /// Objects that are to be asked for, with their files.
    pending: Vec<(Path, ObjectCopies)>,
    bytes: u64,
}

/// See [`Files::check`].
pub(super) fn check(
    cluster: &Cluster,
    path: &Path,
    deep: bool,
    found: &mut dyn FnMut(&CheckedObject),
) -> Result<CheckSummary, Error> {
    let active = cluster.status()?.dstores.iter().filter(|dstore| dstore.duty == Duty::Active).count();
    let summary = CheckSummary::default();
    let mut check = Check { cluster, deep, active, found, summary, pending: Vec::new(), bytes: 0 };
    match cluster.stat(path)?.kind {
        Kind::File { .. } => check.add(path)?,
        Kind::Directory { .. } => {
            let mut options = ListOptions { is_recursive: true, ..ListOptions::default() };
            loop {
                let page = cluster.list(path, &options)?;
                for entry in page.entries.iter().filter(|entry| matches!(entry.stat.kind, Kind::File { .. })) {
                    let below = format!("{}/{}", path.as_str().trim_end_matches('/'), entry.name);
                    let below =
                        below.parse().map_err(|_| Error::Protocol(format!("{below:?} is listed, and no path")))?;
                    check.add(&below)?;
                }
                match page.after {
                    Some(after) => options.after = after,
                    None => break,
                }
            }
        }
    }
    check.ask()?;
    if check.summary.faulty > 0 {
        cluster.repair(false)?;
    }
    Ok(check.summary)
}

impl Check<'_> {
    /// A file is to be checked.
    fn add(&mut self, path: &Path) -> Result<(), Error> {
        let objects = match self.cluster.where_copies_are(path) {
            Ok(objects) => objects,
            Err(Error::Refused(Refusal::NotFound | Refusal::IsADirectory)) => return Ok(()), // gone meanwhile
            Err(error) => return Err(error),
        };
        self.summary.files += 1;
        for object in objects {
            self.bytes += object.length;
            self.pending.push((path.clone(), object));
            if self.pending.len() >= MOST_OBJECTS || self.deep && self.bytes >= MOST_DEEP_BYTES {
                self.ask()?;
            }
        }
        Ok(())
    }

    /// Asks the holders of what is pending.
    fn ask(&mut self) -> Result<(), Error> {
        let pending = std::mem::take(&mut self.pending);
        self.bytes = 0;
        self.summary.objects += pending.len() as u64;
        let mut wanted: BTreeMap<String, BTreeSet<Key>> = BTreeMap::new();
        for (_, object) in &pending {
            for copy in object.copies.iter().filter(|copy| copy.is_present) {
                wanted.entry(copy.address.clone()).or_default().insert(object.key);
            }
        }
        let mut answers: BTreeMap<String, BTreeMap<Key, Option<CopyReport>>> = BTreeMap::new();
        for (address, keys) in wanted {
            let keys: Vec<Key> = keys.into_iter().collect();
            match self.ask_dstore(&address, &keys) {
                Ok(copies) => drop(answers.insert(address, keys.into_iter().zip(copies).collect())),
                Err(error) => log::warn!("the Dstore at {address} does not answer: {error}"),
            }
        }
        for (path, object) in &pending {
            let checked = self.judge(path, object, &answers);
            let is_faulty = checked.good < checked.wanted || !checked.damaged.is_empty();
            // A file that is replaced or removed meanwhile has no fault.
            if !is_faulty || !self.is_still_named(path, object.key)? {
                continue;
            }
            self.summary.faulty += 1;
            self.summary.lost += u64::from(checked.good == 0);
            for dstore in checked.damaged.iter().chain(&checked.absent) {
                // Only the Dstore's own finding counts: it is asked again, by the Controller.
                self.cluster.ask(&Request::Suspect { key: object.key, dstore: *dstore })?;
            }
            (self.found)(&checked);
        }
        Ok(())
    }

    fn ask_dstore(&self, address: &str, keys: &[Key]) -> Result<Vec<Option<CopyReport>>, String> {
        let address: Address = address.parse().map_err(|error| format!("{error}"))?;
        let mut connection = self.cluster.pool.take(&address, Role::Dstore).map_err(|error| error.to_string())?;
        let check = ObjectRequest::Check { deep: self.deep, keys: keys.to_vec() };
        connection.send(&check).map_err(|error| error.to_string())?;
        match connection.receive(Wait::deadline(PATIENCE)) {
            Ok(ObjectAnswer::Checked { copies }) if copies.len() == keys.len() => {
                self.cluster.pool.give_back(&address, connection);
                Ok(copies)
            }
            Ok(other) => Err(format!("an answer to another question: {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn judge(
        &mut self,
        path: &Path,
        object: &ObjectCopies,
        answers: &BTreeMap<String, BTreeMap<Key, Option<CopyReport>>>,
    ) -> CheckedObject {
        let wanted = match object.wanted {
            Replicas::Number(number) => usize::from(number),
            Replicas::All => self.active,
        };
        let (mut good, mut damaged, mut absent, mut silent): (usize, Vec<DstoreId>, Vec<_>, Vec<_>) =
            Default::default();
        for copy in &object.copies {
            let answer = answers.get(&copy.address).filter(|_| copy.is_present).and_then(|keys| keys.get(&object.key));
            self.summary.copies += u64::from(answer.is_some());
            match answer {
                None => silent.push(copy.dstore),
                Some(None) => absent.push(copy.dstore),
                Some(Some(found)) => {
                    let is_it = (found.length, found.checksum) == (object.length, object.checksum);
                    if is_it && !found.is_damaged { good += 1 } else { damaged.push(copy.dstore) }
                }
            }
        }
        CheckedObject { path: path.clone(), key: object.key, wanted, good, damaged, absent, silent }
    }

    fn is_still_named(&self, path: &Path, key: Key) -> Result<bool, Error> {
        match self.cluster.where_copies_are(path) {
            Ok(objects) => Ok(objects.iter().any(|object| object.key == key)),
            Err(Error::Refused(Refusal::NotFound | Refusal::IsADirectory)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
