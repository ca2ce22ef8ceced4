//! What a store can do, as one interface.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::Error;
use crate::checksum::Checksum;
use crate::identity::{ControllerId, DstoreId, Epoch, Key, Version};
use crate::namespace::Namespace;
use crate::namespace::change::{Change, Command, Condition, Details, Duty, RemovalExtent, Replicas, Settings};
use crate::namespace::listing::{Listed, Page, Stat};
use crate::path::Path;
use crate::wire::Address;
use crate::words::words;

/// The bytes of a put.
pub enum Source<'a> {
    /// They can be read once, in order: a pipe, a socket. A part of them is kept in memory until enough Dstores have it.
    Once(&'a mut (dyn Read + Send)),
    /// As `Once`. When all was read, it says which digests the content has, and the file carries these, too.
    Digested(&'a mut dyn Digested),
    /// They can be read again, at any place. A change between two reads fails the put.
    File(&'a dyn ReadAt),
}

/// What can be read once, and has its digests computed meanwhile. A read that fails, even the one that finds the end, fails the
/// put: so content that is not what was announced is never kept.
pub trait Digested: Read + Send {
    /// The digests by algorithm; asked for once, after the end was read. (depot 3.3)
    fn digests(&mut self) -> BTreeMap<String, String>;
}

/// What can be read at any place, as often as needed: a file, or what counts how much of a file was read.
pub trait ReadAt: Send + Sync {
    /// Its size in bytes now.
    fn size(&self) -> io::Result<u64>;

    /// Reads bytes at `offset`, as [`Read::read`] does: some of those asked for, and none only at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

/// How a put is done.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// What must hold for what is at the path: checked before any byte is sent, and again, bindingly, at the end.
    pub condition: Condition,
    /// Whether directories that are missing on the way to the path are made.
    pub parents: bool,
    /// The modification time in milliseconds since 1970; `None` for the time at which the put ends.
    pub modified_ms: Option<u64>,
    /// What else the file carries; in it, the number of replicas if it is not the cluster's.
    pub details: Details,
}

/// So many files are put together at most: with a few threads that do so, a client has not too many changes under way. (depot 3.5)
pub const TOGETHER: usize = 64;

/// They have so many bytes at most: what one Dstore is sent fits its socket's buffers.
pub const TOGETHER_BYTES: u64 = 64 << 10;

/// One of several files that are put together.
#[derive(Clone, Debug)]
pub struct SmallFile {
    /// Where it goes.
    pub path: Path,
    /// All of it.
    pub content: Vec<u8>,
    /// How it is put.
    pub options: PutOptions,
}

/// How a move is done.
#[derive(Clone, Debug, Default)]
pub struct MoveOptions {
    /// What must hold for what is moved.
    pub from_condition: Condition,
    /// What must hold for what is at the target.
    pub to_condition: Condition,
    /// Whether what is at the target is replaced.
    pub replace: bool,
    /// Whether directories that are missing on the way to the target are made.
    pub parents: bool,
}

/// How a copy is made.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// As for a move.
    pub placing: MoveOptions,
    /// A file's details instead of the source's.
    pub details: Option<Details>,
}

/// Which entries a page of a listing has.
#[derive(Clone, Debug)]
pub struct ListOptions {
    /// Only entries whose path below the directory begins so; without `/`.
    pub prefix: String,
    /// Only entries behind this one: where the last page said that the next begins.
    pub after: String,
    /// Whether entries of directories below are listed, too.
    pub is_recursive: bool,
    /// At most so many entries, and never more than 1,000.
    pub limit: usize,
}

impl Default for ListOptions {
    fn default() -> Self {
        Self { prefix: String::new(), after: String::new(), is_recursive: false, limit: 1_000 }
    }
}

/// A part of what a search has found. A page may be empty although others follow: each looks at a bounded number of
/// entries.
#[derive(Clone, Debug, Default)]
pub struct FindPage {
    /// What matches, in the order of the paths' bytes.
    pub entries: Vec<Listed>,
    /// Where the next page begins; `None` after the last.
    pub after: Option<String>,
}

/// One change, as `watch` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeEvent {
    /// Its place in the one order of all changes.
    pub version: Version,
    /// When it was proposed, in milliseconds since 1970.
    pub now_ms: u64,
    /// What it did: `put`, `move`, `copy`, `remove`, `make-directory`, and so on.
    pub verb: String,
    /// The paths that it is about: the file, or source and target.
    pub paths: Vec<Path>,
}

words!(struct ChangeEvent { version, now_ms, verb, paths });

impl ChangeEvent {
    /// What watchers are told of a change that was applied and took effect; `None` for what is the store's own business.
    pub fn of(version: Version, change: &Change) -> Option<Self> {
        let (verb, paths): (_, Vec<&Path>) = match &change.command {
            Command::Put { path, .. } => ("put", vec![path]),
            Command::Compose { path, .. } => ("compose", vec![path]),
            Command::Move { from, to, .. } => ("move", vec![from, to]),
            Command::Copy { from, to, .. } => ("copy", vec![from, to]),
            Command::Remove { path, .. } => ("remove", vec![path]),
            Command::MakeDirectory { path, .. } => ("make-directory", vec![path]),
            Command::RemoveDirectory { path, .. } => ("remove-directory", vec![path]),
            Command::SetAttributes { path, .. } => ("set-attributes", vec![path]),
            Command::Format { .. } => ("format", Vec::new()),
            Command::Set { .. } => ("set", Vec::new()),
            Command::Create { .. }
            | Command::Lead { .. }
            | Command::Dstore { .. }
            | Command::EnterController { .. }
            | Command::LeaveController { .. }
            | Command::Reap => return None,
        };
        let paths = paths.into_iter().cloned().collect();
        Some(Self { version, now_ms: change.now_ms, verb: verb.to_owned(), paths })
    }
}

/// A part of the changes from a cursor on.
#[derive(Clone, Debug, Default)]
pub struct WatchPage {
    /// In order.
    pub events: Vec<ChangeEvent>,
    /// Where to go on.
    pub next: Version,
}

/// A file that is being read: the version it had when it was opened, whatever happens to the path meanwhile.
pub trait Content {
    /// What the file has.
    fn stat(&self) -> &Stat;

    /// Its size in bytes.
    fn size(&self) -> u64;

    /// The Dstores that are known to have a part of it; none for a store without Dstores.
    fn holders(&self) -> BTreeSet<DstoreId> {
        BTreeSet::new()
    }

    /// From now on reads what this Dstore has from there, as long as it can, and nothing by way of a cache. A store without
    /// Dstores has nothing to prefer.
    fn prefer(&mut self, _dstore: DstoreId) {}

    /// Hands the bytes of a range over, in order, each verified before. The range is cut to the size.
    fn copy_to(&mut self, range: Range<u64>, sink: &mut dyn Write) -> Result<(), Error>;
}

/// A store, as its users see it. Each operation is atomic: others see all of it or nothing, also after a crash. (depot 3.4)
///
/// Methods block. A store may be used by many threads at a time.
pub trait Files: Send + Sync {
    /// Creates a file, or replaces its content.
    fn put(&self, path: &Path, source: Source<'_>, options: &PutOptions) -> Result<Version, Error>;

    /// Puts several files, each for itself; what became of each, in order. A store may need fewer messages and syncs for
    /// [`TOGETHER`] small ones than by one put after another.
    fn put_many(&self, files: &[SmallFile]) -> Vec<Result<Version, Error>> {
        let put = |file: &SmallFile| self.put(&file.path, Source::Once(&mut &file.content[..]), &file.options);
        files.iter().map(put).collect()
    }

    /// Fails if a put would be refused now, as far as that can be known without its bytes: for its condition, or since there is no
    /// room. It is for a caller with a reason not to read the bytes in vain: a put asks the same once it has read the first of them.
    fn check_put(&self, path: &Path, options: &PutOptions) -> Result<(), Error>;

    /// Opens a file to read it, if `condition` holds for it.
    fn get(&self, path: &Path, condition: Condition) -> Result<Box<dyn Content + Send + '_>, Error>;

    /// What a path has.
    fn stat(&self, path: &Path) -> Result<Stat, Error>;

    /// A page of a directory's entries, or of all entries below it.
    fn list(&self, path: &Path, options: &ListOptions) -> Result<Page, Error>;

    /// A page of the entries below a directory whose name (its last component) matches a glob (`*`, `?`, `[a-z]`), or
    /// contains the pattern where that has none of these.
    fn find(&self, path: &Path, pattern: &str, after: &str) -> Result<FindPage, Error>;

    /// Gives a file or directory another path.
    fn rename(&self, from: &Path, to: &Path, options: &MoveOptions) -> Result<Version, Error>;

    /// Has a second file of the same content, or a directory of them. No byte moves.
    fn copy(&self, from: &Path, to: &Path, options: &CopyOptions) -> Result<Version, Error>;

    /// Removes a file.
    fn remove(&self, path: &Path, condition: Condition) -> Result<Version, Error>;

    /// Makes a directory, or an implicit one explicit.
    fn make_directory(
        &self,
        path: &Path,
        parents: bool,
        details: &Details,
        modified_ms: Option<u64>,
    ) -> Result<Version, Error>;

    /// Removes a directory.
    fn remove_directory(&self, path: &Path, condition: Condition, extent: RemovalExtent) -> Result<Version, Error>;

    /// Sets attributes of a file or directory, or removes those without a value; others stay.
    fn set_attributes(
        &self,
        path: &Path,
        condition: Condition,
        attributes: &BTreeMap<String, Option<String>>,
        content_type: Option<&str>,
        modified_ms: Option<u64>,
    ) -> Result<Version, Error>;

    /// Makes a file of the contents of others, one behind the other. No byte moves.
    fn compose(
        &self,
        path: &Path,
        sources: &[(Path, Version)],
        remove_sources: bool,
        options: &PutOptions,
    ) -> Result<Version, Error>;

    /// The changes behind a cursor, in order; waits for the first one at most so long, and is then empty. Without a cursor
    /// it is empty at once, and says where to begin.
    fn watch(&self, after: Option<Version>, wait: Duration) -> Result<WatchPage, Error>;

    /// How the store is.
    fn status(&self) -> Result<Status, Error>;

    /// What is the same for the whole store.
    fn settings(&self) -> Result<Settings, Error>;

    /// Replaces the settings.
    fn set(&self, settings: &Settings) -> Result<Version, Error>;

    /// Where each object of a file is.
    fn copies(&self, path: &Path) -> Result<Vec<ObjectCopies>, Error>;

    /// Asks every holder for every object of a file, or of all files below a directory; with `deep`, the holders read and
    /// verify them. `found` is told of what is not as it should be, which is repaired after that.
    fn check(&self, path: &Path, deep: bool, found: &mut dyn FnMut(&CheckedObject)) -> Result<CheckSummary, Error>;

    /// Has all objects looked at, and repaired where that is needed; with `all`, also while so many Dstores are away that only
    /// last copies are repaired.
    fn repair(&self, all: bool) -> Result<(), Error>;

    /// Empties a Dstore: what it has goes elsewhere, and it gets nothing new. With `drains` false it is used again.
    fn drain(&self, dstore: DstoreId, drains: bool) -> Result<(), Error>;

    /// Has a Dstore belong to the store no longer. Refused if it may have the last good copy of an object, unless `is_lost`
    /// says that it will not come back.
    fn discharge(&self, dstore: DstoreId, is_lost: bool) -> Result<(), Error>;

    /// Has the objects removed that belong to histories before the store's last restore or recovery, and that no file names.
    /// They are kept until then: see [`HealingStatus::unclaimed`]. (depot 4.9)
    fn collect_unclaimed(&self) -> Result<(), Error>;

    /// Has the Controller at an address, whose folder is empty, belong to the store, and waits until it votes. (depot 4.7)
    fn add_controller(&self, address: &Address) -> Result<(), Error>;

    /// Has a Controller belong to the store no longer; a leader hands over first. (depot 4.7)
    fn remove_controller(&self, controller: ControllerId) -> Result<(), Error>;

    /// Has another Controller lead: this one, or the one that is best prepared.
    fn hand_over(&self, to: Option<ControllerId>) -> Result<(), Error>;

    /// Empties the store: every path goes, settings and Dstores stay. `name` is what the store is called, as a confirmation.
    fn format(&self, name: &str) -> Result<Version, Error>;
}

/// How a store is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What people call it.
    pub name: String,
    /// Its identity.
    pub cluster: String,
    /// What an operator should know or do, worst first; empty if all is well.
    pub problems: Vec<String>,
    /// What this store does not survive, said plainly: it follows from its size and settings.
    pub limits: Vec<String>,
    /// The Controllers.
    pub controllers: Vec<ControllerStatus>,
    /// The last leaders that were elected, the latest last.
    pub elections: Vec<Election>,
    /// The Dstores, by number.
    pub dstores: Vec<DstoreStatus>,
    /// Settings of the store.
    pub settings: Settings,
    /// Files and directories.
    pub entries: u64,
    /// Objects that files name.
    pub objects: u64,
    /// Of these, how many have fewer certain or claimed copies than they should.
    pub too_few_copies: u64,
    /// Of these, how many have no copy at a Dstore that is present.
    pub no_copy: u64,
    /// How far healing is.
    pub healing: HealingStatus,
    /// The last change.
    pub version: Version,
    /// The sum of the hashes of all records, in hexadecimal: equal on all Controllers.
    pub hash: String,
}

impl Status {
    /// What the namespace says; the rest is empty.
    pub(crate) fn of(namespace: &Namespace) -> Self {
        Self {
            name: namespace.name().to_owned(),
            cluster: namespace.cluster().to_string(),
            settings: namespace.settings().clone(),
            entries: namespace.entry_count(),
            objects: namespace.object_count() as u64,
            version: namespace.version(namespace.sequence()),
            hash: format!("{:x}", namespace.hash()),
            ..Self::default()
        }
    }
}

words!(struct Status {
    name, cluster, problems, limits, controllers, elections, dstores, settings, entries, objects, too_few_copies, no_copy, healing,
    version, hash
});

/// What is being healed, counted from what Dstores report. (depot 6.5)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealingStatus {
    /// Objects of which copies are being made, or are to be.
    pub objects: u64,
    /// The bytes of these copies.
    pub bytes: u64,
    /// So many bytes a second became certain in the last moments.
    pub bytes_per_second: u64,
    /// Objects of which surplus copies are to be removed.
    pub surplus: u64,
    /// Objects that no file names, which are to be removed.
    pub unnamed: u64,
    /// Objects of which a copy moves to an emptier Dstore. (depot 6.4)
    pub moving: u64,
    /// By how many points the Dstores' shares of used space differ, if that is more than 5; else 0.
    pub points_apart: u64,
    /// They do, and no copy can be moved so that they differ less: disks, machines or zones do not allow it.
    pub is_as_even_as_can_be: bool,
    /// Objects of earlier histories that no file names: they are kept until an operator says that they can go. (depot 4.9)
    pub unclaimed: u64,
    /// The bytes of these.
    pub unclaimed_bytes: u64,
    /// So many Dstores are away that only objects with one good copy are repaired. (depot 6.2)
    pub is_guarded: bool,
}

words!(struct HealingStatus {
    objects, bytes, bytes_per_second, surplus, unnamed, moving, points_apart, is_as_even_as_can_be, unclaimed,
    unclaimed_bytes, is_guarded
});

/// How a Controller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerStatus {
    /// Which one.
    pub id: ControllerId,
    /// Where it listens.
    pub address: String,
    /// Whether it leads, votes, or is still catching up.
    pub role: ControllerRole,
    /// The leadership that it was last known to be in.
    pub epoch: Epoch,
    /// When a change counts: `always`, `interval` or `never` synced. Empty if the Controller that answers does not know.
    pub sync: String,
    /// The last entry that its log is known to have; absent if the Controller that answers does not know.
    pub last_index: Option<u64>,
    /// So many entries it lacks of what the leader has.
    pub lag: u64,
    /// Behind this change it is known to have the same metadata as the Controller that answers; absent if nothing is known.
    /// (depot 4.8)
    pub agreed: Option<u64>,
    /// So long it was not heard of; absent if never.
    pub silence: Option<Duration>,
    /// It is being sent a snapshot: so many bytes are sent, of so many.
    pub snapshot: Option<(u64, u64)>,
    /// For how long the Controller that answers has run; absent for the others.
    pub up: Option<Duration>,
}

words!(struct ControllerStatus { id, address, role, epoch, sync, last_index, lag, agreed, silence, snapshot, up });

/// A leader that was elected, as the Controller that answers has seen it since its own start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// Which one leads since then.
    pub leader: ControllerId,
    /// In which term.
    pub term: u64,
    /// How long ago that was.
    pub ago: Duration,
    /// So long nothing had been heard of the leader before; absent if none was known.
    pub gap: Option<Duration>,
}

words!(struct Election { leader, term, ago, gap });

/// What a Controller is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControllerRole {
    /// It decides.
    Leader,
    /// It votes, and follows the leader.
    Follower,
    /// It is sent what it lacks, and gets a vote then.
    Learner,
    /// It was entered, and is about to become one of the group; or was removed, and is about to leave it.
    Outside,
}

words!(enum ControllerRole, "role of a Controller" {
    "leader" => Leader,
    "follower" => Follower,
    "learner" => Learner,
    "outside" => Outside,
});

/// Whether a Dstore is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DstoreState {
    /// It has a connection to the Controller, is heard of, and follows it if it leads.
    Present,
    /// It has none, or is silent.
    Away,
}

words!(enum DstoreState, "state of a Dstore" { "present" => Present, "away" => Away });

/// How a Dstore is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DstoreStatus {
    /// Its number.
    pub id: DstoreId,
    /// Where it listens; empty if it was never seen in this leadership.
    pub address: String,
    /// The machine it is on.
    pub host: String,
    /// The zone of that machine; empty for none.
    pub zone: String,
    /// Whether it is there.
    pub state: DstoreState,
    /// Whether it is to hold objects.
    pub duty: Duty,
    /// When a put counts: `always`, `interval` or `never` synced.
    pub sync: String,
    /// How many objects it has.
    pub objects: u64,
    /// Bytes of objects.
    pub used_bytes: u64,
    /// Bytes free on its disk.
    pub free_bytes: u64,
    /// The size of its disk in bytes.
    pub total_bytes: u64,
    /// Its host's use of processors, memory and disk, in percent.
    pub load_percent: (u8, u8, u8),
    /// Objects it has that are damaged.
    pub damaged: u64,
    /// How long ago it had verified all that it has; if it never has, since when its disk is used.
    pub scrubbed_ago: Duration,
}

words!(struct DstoreStatus {
    id, address, host, zone, state, duty, sync, objects, used_bytes, free_bytes, total_bytes, load_percent, damaged, scrubbed_ago
});

/// Where an object of a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectCopies {
    /// Its name.
    pub key: Key,
    /// In bytes.
    pub length: u64,
    /// Of its bytes.
    pub checksum: Checksum,
    /// On how many Dstores it should be.
    pub wanted: Replicas,
    /// Where it is.
    pub copies: Vec<PlaceOfCopy>,
}

words!(struct ObjectCopies { key, length, checksum, wanted, copies });

/// What was found of an object that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedObject {
    /// Its file.
    pub path: Path,
    /// Its name.
    pub key: Key,
    /// On how many Dstores it should be.
    pub wanted: usize,
    /// How many have a good copy, by what they say now.
    pub good: usize,
    /// Dstores whose copy is damaged.
    pub damaged: Vec<DstoreId>,
    /// Dstores that should have it and do not.
    pub absent: Vec<DstoreId>,
    /// Dstores that had it and did not answer.
    pub silent: Vec<DstoreId>,
}

/// What a check has looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckSummary {
    /// Files.
    pub files: u64,
    /// Their objects.
    pub objects: u64,
    /// The copies that Dstores have answered for.
    pub copies: u64,
    /// Objects with fewer good copies than they should have, or with a damaged one.
    pub faulty: u64,
    /// Of these, how many have no good copy at a Dstore that answers.
    pub lost: u64,
}

/// One copy of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceOfCopy {
    /// The Dstore.
    pub dstore: DstoreId,
    /// Where that listens.
    pub address: String,
    /// Whether the Dstore is there.
    pub is_present: bool,
    /// Whether the Dstore has said itself that it has the copy. (depot 4.6)
    pub is_certain: bool,
    /// Whether the Dstore has found it damaged.
    pub is_damaged: bool,
    /// The file on that Dstore's disk, and the offset there; `None` if it is not reached.
    pub location: Option<(String, u64)>,
}

words!(struct PlaceOfCopy { dstore, address, is_present, is_certain, is_damaged, location });
