//! Which files exist, with which objects: the store's metadata as a pure state machine. (depot 2, 3, 4.1)
//!
//! The log is the truth: a gapless sequence of changes that every Controller has, in the same order. A namespace is what
//! the changes add up to. [`Namespace::apply`] reads no clock, draws no random number and depends on no hash table's order:
//! equal logs give equal namespaces, on every Controller and after every restart. That is checked all the time: each
//! namespace keeps a [hash](Namespace::hash) of all its records, and replicas compare theirs.
//!
//! ```text
//!  change 17: put /a/x    change 18: move /a /b      change 19: remove /b/x
//!
//!  1 ─ a ─▶ 2 ─ x         1 ─ b ─▶ 2 ─ x             1        (2 was made only for x, and went with it)
//! ```
//!
//! A change has an effect as a whole or not at all: everything that can refuse it is checked before anything is touched.
//! The modules: [`change`] says what can be done, `apply` does it, `tree` holds directories and files, `objects` what files consist of,
//! `sessions` sees to it that a repeated change has one effect, `records` is the form in which all of it is hashed and
//! written down, [`snapshot`] writes it down beside ongoing changes, [`listing`] answers questions.

mod apply;
pub mod change;
pub mod listing;
mod objects;
mod records;
mod sessions;
pub mod snapshot;
mod tree;

#[cfg(test)]
mod tests;

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};

use change::{Change, Condition, DstoreRecord, Duty, Outcome, Refusal, Settings};
pub use objects::Object;
use objects::Objects;
use records::RecordId;
use sessions::{Sessions, Standing};
use snapshot::Walk;
use tree::{Directory, DirectoryId};

use crate::identity::{ClusterId, ControllerId, DiskId, DstoreId, Epoch, History, Key, Version};
use crate::path::Path;
use crate::wire::Address;

/// Which files exist, with which objects.
#[derive(Debug)]
pub struct Namespace {
    head: Head,
    /// The last leaderships, by the change that each began with.
    epochs: BTreeMap<u64, Epoch>,
    /// Which of the last changes had no effect: they were refused, or repeats. `watch` leaves them out.
    ineffective: BTreeSet<u64>,
    dstores: BTreeMap<DstoreId, DstoreRecord>,
    /// Where the Controllers are reached.
    controllers: BTreeMap<ControllerId, Address>,
    sessions: Sessions,
    directories: BTreeMap<DirectoryId, Directory>,
    /// Directories that were removed with all that is in them, and are still to be taken apart.
    detached: BTreeSet<DirectoryId>,
    objects: Objects,
    /// Files and directories, the detached ones among them.
    entries: u64,
    /// The last change that was applied.
    sequence: u64,
    hash: u128,
    /// The walk over all records that is under way.
    walk: Option<Walk>,
    limits: Limits,
}

/// What there is one of.
#[derive(Debug)]
struct Head {
    cluster: ClusterId,
    name: String,
    root: DirectoryId,
    next_directory: DirectoryId,
    /// The highest last use of a session that was forgotten. (depot 3.5)
    evicted: u64,
    settings: Settings,
    /// Every history of the store, with the first change made in it.
    lineage: Vec<(History, u64)>,
}

/// How much is kept and done at most. The same on every Controller: tests alone use others.
#[derive(Clone, Copy, Debug)]
struct Limits {
    epochs: usize,
    /// Of so many last changes it is known whether they had an effect.
    watched: u64,
    sessions: usize,
    open_per_session: usize,
    open_in_all: usize,
    /// The records that one change may touch. (depot 3.6)
    records: usize,
    /// The records that one change takes apart.
    reaped: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            epochs: 65_536,
            watched: 100_000,
            sessions: 65_536,
            open_per_session: 1_024,
            open_in_all: 1_000_000,
            records: 10_000,
            reaped: 1_000,
        }
    }
}

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What the client is told.
    pub outcome: Outcome,
    /// The change was applied before, and this is what it did then.
    pub is_repeat: bool,
    /// Objects that no file names any more.
    pub released: Vec<Released>,
}

/// An object that no file names any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// Its name; no file will name it again. (depot 5.3)
    pub key: Key,
    /// In bytes.
    pub length: u64,
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Namespace {
    /// Before the first change.
    pub fn new() -> Self {
        let mut namespace = Self::without_records();
        let root = namespace.head.root;
        namespace.hash = records::hash(&namespace.line_of(&RecordId::Head).expect("there is always a head"));
        let directory = Directory { is_explicit: true, ..Directory::default() };
        namespace.record(RecordId::Directory(root), |namespace| namespace.directories.insert(root, directory));
        namespace
    }

    /// What a snapshot is read into.
    fn without_records() -> Self {
        let root = DirectoryId(1);
        Self {
            head: Head {
                cluster: ClusterId::default(),
                name: String::new(),
                root,
                next_directory: DirectoryId(root.0 + 1),
                evicted: 0,
                settings: Settings::default(),
                lineage: Vec::new(),
            },
            epochs: BTreeMap::new(),
            ineffective: BTreeSet::new(),
            dstores: BTreeMap::new(),
            controllers: BTreeMap::new(),
            sessions: Sessions::default(),
            directories: BTreeMap::new(),
            detached: BTreeSet::new(),
            objects: Objects::default(),
            entries: 0,
            sequence: 0,
            hash: 0,
            walk: None,
            limits: Limits::default(),
        }
    }

    /// Takes the next change of the log. Sequences ascend; the log may hold other things than changes in between.
    pub fn apply(&mut self, sequence: u64, change: &Change) -> Applied {
        assert!(sequence > self.sequence, "change {sequence} after {}", self.sequence);
        self.sequence = sequence;
        let mut released = Vec::new();
        let (outcome, is_repeat) = match change.stamp.as_ref().map(|stamp| (stamp, self.standing(stamp))) {
            None => (self.execute(sequence, change, &mut released), false),
            Some((stamp, Standing::New)) => {
                let outcome = self.execute(sequence, change, &mut released);
                self.remember(sequence, stamp, outcome);
                (outcome, false)
            }
            Some((_, Standing::Made(outcome))) => (outcome, true),
            Some((_, Standing::Refused(refusal))) => (Err(refusal), false),
        };
        if is_repeat || outcome.is_err() {
            self.note_ineffective(sequence);
        }
        Applied { outcome, is_repeat, released }
    }

    fn note_ineffective(&mut self, sequence: u64) {
        self.record(RecordId::Ineffective(sequence), |namespace| namespace.ineffective.insert(sequence));
        while let Some(&oldest) = self.ineffective.first()
            && oldest + self.limits.watched <= sequence
        {
            self.record(RecordId::Ineffective(oldest), |namespace| namespace.ineffective.remove(&oldest));
        }
    }

    /// Whether it is still known which changes from `sequence` on had an effect, and which had none.
    pub fn remembers_effects_from(&self, sequence: u64) -> bool {
        sequence + self.limits.watched > self.sequence
    }

    /// Whether this change, one of the last 100,000, had an effect.
    pub fn was_effective(&self, sequence: u64) -> bool {
        !self.ineffective.contains(&sequence)
    }

    /// Whether a put would be accepted now: what can be refused before any byte is sent. Apply decides again, bindingly.
    pub fn check_put(&self, path: &Path, condition: Condition, parents: bool) -> Result<(), Refusal> {
        self.check_writable()?;
        let spot = self.file_spot(path, condition, parents)?;
        self.check_room(spot.additions())
    }

    /// The last change that was applied.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The sum of the hashes of all records. Namespaces that are equal have equal hashes. (depot 4.1)
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// What a broken memory does.
    #[cfg(test)]
    pub(crate) fn damage(&mut self) {
        self.hash = self.hash.wrapping_add(1);
    }

    /// The store's identity; the default before it is created.
    pub fn cluster(&self) -> ClusterId {
        self.head.cluster
    }

    /// What people call the store.
    pub fn name(&self) -> &str {
        &self.head.name
    }

    /// What is the same for the whole store.
    pub fn settings(&self) -> &Settings {
        &self.head.settings
    }

    /// The history that changes are made in now; the default before the first leadership.
    pub fn history(&self) -> History {
        self.head.lineage.last().map(|(history, _)| *history).unwrap_or_default()
    }

    /// Every history of the store, the first one first.
    pub fn lineage(&self) -> impl Iterator<Item = History> {
        self.head.lineage.iter().map(|(history, _)| *history)
    }

    /// The version that this change makes, or made.
    pub fn version(&self, sequence: u64) -> Version {
        let later = self.head.lineage.partition_point(|(_, first)| *first <= sequence);
        let history = later.checked_sub(1).map(|at| self.head.lineage[at].0).unwrap_or_default();
        Version { history, sequence }
    }

    /// Whether this leadership is one of the last 65,536. (depot 2.2)
    pub fn has_epoch(&self, epoch: &Epoch) -> bool {
        self.epochs.values().rev().any(|known| known == epoch)
    }

    /// The last leadership, and the change that it began with.
    pub fn leadership(&self) -> Option<(Epoch, u64)> {
        self.epochs.last_key_value().map(|(sequence, epoch)| (*epoch, *sequence))
    }

    /// The last leaderships, each with the change that it began with.
    pub fn epochs(&self) -> impl DoubleEndedIterator<Item = (u64, Epoch)> {
        self.epochs.iter().map(|(sequence, epoch)| (*sequence, *epoch))
    }

    /// Every Dstore that was ever admitted.
    pub fn dstores(&self) -> impl Iterator<Item = (DstoreId, &DstoreRecord)> {
        self.dstores.iter().map(|(id, record)| (*id, record))
    }

    /// Where each Controller of the group is reached.
    pub fn controllers(&self) -> impl Iterator<Item = (ControllerId, &Address)> {
        self.controllers.iter().map(|(id, address)| (*id, address))
    }

    /// Where a Controller is reached, if it is known.
    pub fn controller(&self, id: ControllerId) -> Option<&Address> {
        self.controllers.get(&id)
    }

    /// The Dstore on this disk.
    pub fn dstore_on(&self, disk: DiskId) -> Option<DstoreId> {
        self.dstores.iter().find(|(_, record)| record.disk == disk).map(|(id, _)| *id)
    }

    /// The object of this key, if a file names it.
    pub fn object(&self, key: Key) -> Option<Object> {
        self.objects.find(key).map(|place| *self.objects.get(place))
    }

    /// The object of this key, if a file names it, and on how many Dstores it should be: as the file says that wants the
    /// most, `All` being all that are to hold objects.
    pub fn wanted(&self, key: Key) -> Option<(Object, usize)> {
        let place = self.objects.find(key)?;
        let active = || self.active_dstores(); // seldom asked for, and there may be a thousand
        Some((*self.objects.get(place), self.objects.wanted(place, self.head.settings.replicas, active)))
    }

    /// The keys of some of the objects that files name, each with the number that [`wanted`](Self::wanted) has: those in
    /// `places` places of the table from place `from` on, or `None` if the table ends before it. An object keeps its place
    /// for as long as a file names it, so a walk from place 0, step by step, passes it once, whatever else changes
    /// meanwhile.
    pub fn walk_objects(&self, from: usize, places: usize) -> Option<Vec<(Key, usize)>> {
        let active = LazyCell::new(|| self.active_dstores());
        self.objects.walk(from, places, self.head.settings.replicas, || *active)
    }

    fn active_dstores(&self) -> usize {
        self.dstores.values().filter(|record| record.duty == Duty::Active).count()
    }

    /// Every object that a file names, in no particular order.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter()
    }

    /// How many objects files name.
    pub fn object_count(&self) -> usize {
        self.objects.len()
    }

    /// How many files and directories there are, those that are still to be taken apart among them.
    pub fn entry_count(&self) -> u64 {
        self.entries
    }

    /// Whether something that was removed is still to be taken apart: then a leader proposes [`change::Command::Reap`].
    pub fn has_to_reap(&self) -> bool {
        !self.detached.is_empty()
    }
}
