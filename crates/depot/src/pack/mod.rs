//! Objects on one disk. (depot 4.6, 5.6)
//!
//! A disk is a folder. Small objects lie behind each other in packs, since a file of its own would cost each of them a
//! creation, a sync and a folder entry. Larger ones are files. Which object is where is kept in memory and rebuilt at each
//! start from what the disk holds.
//!
//! ```text
//! identity                           who this disk is
//! pack-0000000001                    sealed: a footer lists its records
//! pack-0000000002                    open: scanned at each start
//! object-1f.3.77-8388608-9ae01c…     an object above 1 MiB: its bytes, then the checksum of each 64 KiB block
//! damaged-1f.3.80-8388608-5bd2f3…    one of which some bytes are not what they were
//! backup, backup-before              the store's metadata, for the case that its Controllers lose their disks
//! scrub                              how far the verification of all objects is
//! new-…                              something that is being made
//! ```
//!
//! # Packs
//!
//! A pack only grows. To remove an object is to append a mark, which says in which pack and where the record is that does
//! not count any more. So marks have no order to keep: a mark in one pack, about a record in another, means the same
//! wherever compaction has moved it, until that other pack is gone.
//!
//! ```text
//! pack 1: [object A] [object B] [object C]        pack 2: [object D] [removed A: pack 1, 8192] [object E]
//! ```
//!
//! # What is known to be good
//!
//! A record's header has a checksum with the pack's salt and the record's place in it, and holds the checksum of each 64
//! KiB block of the content. A reader gets verified blocks, of any range, without the rest being read. A bad block is an error;
//! the object is then marked as damaged, which those who asked to follow the [changes](Disk::changes) learn.
//!
//! The data decides: a footer says where records are, and what is there must prove it. Without a footer the pack is scanned.
//! Behind a record that does not check, the next one is found by the salt. Content that a client stores cannot pose as a
//! record: it would have to know the salt, and lie where it says it lies.
//!
//! # Crashes
//!
//! A put is acknowledged when its record was synced; one sync serves all puts that wait. What a crash leaves behind the last
//! whole record of the open pack was never acknowledged, and is cut off. New packs, large objects and the identity are
//! written under another name, synced and renamed, so that they are there as a whole or not at all.
//!
//! A failed sync is final, as it is for the log: the disk takes nothing more until the next start. It still can be read.
//!
//! # Compaction
//!
//! When much of some packs is removed, what is left of them moves into a new pack, which names those it replaces. Once
//! that has its name they go, at once or, if a crash comes between, at the next start.
//!
//! The modules: `record` and `file` are the bytes of a pack, `large` of an object's own file; `index` is the memory, `open`
//! rebuilds it; `read` verifies what is asked for, `scrub` all of it by and by, `compact` makes room; `backup` is apart from all that.

mod backup;
mod compact;
mod file;
mod identity;
mod index;
mod large;
mod open;
mod read;
mod record;
mod scrub;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stevedore::sync::group_commit::GroupCommit;
use stevedore::sync::{Condvar, Mutex, MutexGuard};

use crate::checksum::{Checksum, combined};
use crate::disk::{Appender, Folder, FolderLock, Handle, Space, is_full};
use crate::identity::{ClusterId, DiskId, DstoreId, Epoch, Key, Position};
use crate::log::SyncMode;
use crate::words::words;
use file::PackHeader;
use index::{Entry, FILE, Index, Pack};
use record::{HEAD, Header, MOST_HEADER, Mark, Salt};

pub use backup::{BACKUPS, KeepError};
pub use compact::Compacted;
pub use identity::Identity;
pub use index::{Change, Now};
pub use open::{OpenError, Recovered};
pub use read::{GetError, ObjectReader};
pub use record::BLOCK_BYTES;
pub use scrub::{ScrubRound, Scrubbed};

/// How a disk is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// When a put is acknowledged.
    pub sync: SyncMode,
    /// Objects up to this length lie in packs. At most 1 MiB.
    pub most_small: u32,
    /// A pack that would grow beyond this size is followed by another. Less than 2 GiB.
    pub pack_bytes: u32,
    /// So is one with so many records.
    pub pack_records: u32,
    /// So many packs are kept open to be read.
    pub open_packs: usize,
    /// Objects take no more than so many bytes of the disk; `None` if they may take all of it.
    pub capacity: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        let (most_small, pack_bytes) = (MOST_SMALL, 256 << 20);
        Self { sync: SyncMode::Always, most_small, pack_bytes, pack_records: 1 << 16, open_packs: 256, capacity: None }
    }
}

const MOST_SMALL: u32 = 1 << 20;

/// So long after it was asked for the folder's space, the system is not asked again.
const SPACE_IS_KNOWN: Duration = Duration::from_millis(100);

/// What a copy is stored for: the fuller a disk, the less of it is taken. (depot 5.6)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client's put.
    Put,
    /// Another disk is fuller.
    Balance,
    /// A copy was lost.
    Repair,
}

impl Purpose {
    /// A disk of which so much is used, in percent, takes no more.
    pub fn most_percent(self) -> u8 {
        match self {
            Self::Put => 95,
            Self::Balance => 90,
            Self::Repair => 97,
        }
    }
}

words!(enum Purpose, "purpose of a copy" { "put" => Put, "balance" => Balance, "repair" => Repair });

/// An object whose bytes come: only what matches is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Its name.
    pub key: Key,
    /// In bytes, at least 1.
    pub length: u64,
    /// Of its bytes.
    pub checksum: Checksum,
}

words!(struct Announced { key, length, checksum });

/// An object is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// A report up to this position includes it.
    pub position: Position,
    /// It was there before, and nothing was read or written.
    pub was_there: bool,
}

/// Why an object was not stored.
#[derive(Debug)]
pub enum PutError {
    /// Another object has this key.
    Conflict,
    /// The bytes are not what was announced.
    Mismatch {
        /// The checksum that was announced.
        expected: Checksum,
        /// That of what came.
        found: Checksum,
    },
    /// The bytes could not be read to their end.
    Source(io::Error),
    /// No object has so many bytes.
    TooLarge,
    /// The disk is too full for this purpose.
    Full,
    /// The disk does not work.
    Disk(DiskError),
}

impl fmt::Display for PutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict => write!(f, "another object has this key"),
            Self::Mismatch { expected, found } => {
                write!(f, "the bytes have the checksum {found}, announced was {expected}")
            }
            Self::Source(error) => write!(f, "the bytes do not come: {error}"),
            Self::TooLarge => write!(f, "an object has at most {MOST_BYTES} bytes"),
            Self::Full => write!(f, "the disk is full"),
            Self::Disk(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for PutError {}

impl From<DiskError> for PutError {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Full => Self::Full,
            error => Self::Disk(error),
        }
    }
}

/// No object is longer.
pub const MOST_BYTES: u64 = 1 << 30;

/// Why something was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// There is no room left. Once there is, writing works again.
    Full,
    /// The disk takes nothing more until the next start.
    Failed(String),
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(f, "the disk is full"),
            Self::Failed(reason) => write!(f, "the disk takes nothing more until the next start: {reason}"),
        }
    }
}

impl std::error::Error for DiskError {}

/// An object is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// A report up to this position does not include it.
    pub position: Position,
    /// It was there before.
    pub was_there: bool,
}

/// An object that is out of the index.
struct TakenAway {
    /// Of the change that says so.
    number: u64,
    was_there: bool,
    /// What its file is called now, if it has one: that goes once the change is on the disk.
    name: Option<String>,
}

/// A page of what a disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of keys.
    pub objects: Vec<(Key, Now)>,
    /// None follow.
    pub is_last: bool,
}

/// How much a disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// How many objects.
    pub objects: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many of them are damaged.
    pub damaged: u64,
    /// The file system that the folder is on.
    pub space: Space,
}

/// The objects in one folder. Any thread may call anything.
///
/// Lock order: `keeping`, `identity`; and `compacting`, `marks`, `writer`, `state`. The last is held for a look or an entry only, never across a disk; `writer` while
/// something is appended to the open pack; `marks` while an object loses its record, or compaction changes places.
pub struct Disk {
    folder: Arc<dyn Folder>,
    options: Options,
    disk: DiskId,
    start: u64,
    identity: Mutex<Identity>,
    /// Held while a backup comes.
    keeping: Mutex<()>,
    compacting: Mutex<()>,
    marks: Mutex<()>,
    writer: Mutex<Writer>,
    state: Mutex<State>,
    /// Signalled when there are more changes to follow.
    has_changed: Condvar,
    commits: GroupCommit,
    handles: Handles,
    _lock: FolderLock,
}

/// Where the next record goes.
struct Writer {
    /// The open pack.
    number: u32,
    salt: Salt,
    file: Box<dyn Appender>,
    handle: Arc<dyn Handle>,
    /// What its footer will say.
    footer: String,
    records: u32,
    /// It has its footer, and waits for a successor.
    is_sealed: bool,
    next_pack: u32,
    /// Numbers what is made under another name, and objects' files.
    next_file: u32,
}

/// What the disk holds, and what of it may still be lost.
struct State {
    index: Index,
    /// What has grown since it was synced: packs, by their number, and with [`SyncMode::Interval`] the files of objects.
    dirty: BTreeMap<(u32, u32), Arc<dyn Handle>>,
    /// Names have changed since the folder was synced.
    is_folder_dirty: bool,
    /// Changes up to this one are on the disk.
    durable: u64,
    /// Nothing more is written.
    failure: Option<String>,
    /// So many threads wait for more changes to follow. To wake none costs a system call, too.
    followers: usize,
    /// What the system said last of the folder's space, and when.
    space: Option<(Instant, Space)>,
}

impl Disk {
    /// Who this disk is.
    pub fn identity(&self) -> Identity {
        self.identity.lock().clone()
    }

    /// It belongs to this cluster, has this number there, and obeys no leadership that is older than this one, which has
    /// applied the changes up to `sequence`. On the disk when this returns.
    pub fn follow(&self, cluster: ClusterId, number: DstoreId, epoch: Epoch, sequence: u64) -> io::Result<()> {
        self.become_known_as(|identity| Identity {
            cluster: Some(cluster),
            number: Some(number),
            epoch: Some(epoch),
            sequence,
            ..identity.clone()
        })
    }

    /// The leadership `epoch` has applied the changes up to `sequence`. On the disk when this returns; without effect if the
    /// disk follows another one by now, or has heard of a later change.
    pub fn hear_of(&self, epoch: Epoch, sequence: u64) -> io::Result<()> {
        self.become_known_as(|identity| match identity {
            Identity { epoch: Some(ours), sequence: heard, .. } if *ours == epoch && *heard < sequence => {
                Identity { sequence, ..identity.clone() }
            }
            _ => identity.clone(),
        })
    }

    fn become_known_as(&self, next: impl FnOnce(&Identity) -> Identity) -> io::Result<()> {
        let mut identity = self.identity.lock();
        let next = next(&identity);
        if next != *identity {
            next.write(&*self.folder)?;
            *identity = next;
        }
        Ok(())
    }

    /// Stores an object: `length` bytes of `source`, if they have the checksum. If it is there already, nothing is read.
    pub fn put(
        &self,
        key: Key,
        length: u64,
        checksum: Checksum,
        source: &mut dyn Read,
        purpose: Purpose,
    ) -> Result<Stored, PutError> {
        if length > MOST_BYTES {
            return Err(PutError::TooLarge);
        }
        let length = length as u32; // fits, as said above
        let found = self.find_same(&self.state.lock().index, &key, length, checksum)?;
        if let Some(number) = found {
            return self.stored(number, true);
        }
        self.check()?;
        if !self.has_space(purpose)? {
            return Err(PutError::Full);
        }
        if length <= self.options.most_small.min(MOST_SMALL) {
            self.put_small(key, length, checksum, source)
        } else {
            self.put_large(key, length, checksum, source)
        }
    }

    /// The number of the last change, if this object is there and sound.
    fn find_same(&self, index: &Index, key: &Key, length: u32, checksum: Checksum) -> Result<Option<u64>, PutError> {
        match index.get(key) {
            Some(there) if (there.length, there.checksum) != (length, checksum) => Err(PutError::Conflict),
            Some(there) if !there.is_damaged => Ok(Some(index.number)),
            _ => Ok(None),
        }
    }

    fn stored(&self, number: u64, was_there: bool) -> Result<Stored, PutError> {
        self.make_durable(number)?;
        Ok(Stored { position: self.position_at(number), was_there })
    }

    fn put_small(&self, key: Key, length: u32, checksum: Checksum, source: &mut dyn Read) -> Result<Stored, PutError> {
        // The content first, and before any lock is taken: a client may be slow. Room for the header in front of it.
        let mut record = vec![0; RECORD_ROOM + length as usize];
        source.read_exact(&mut record[RECORD_ROOM..]).map_err(PutError::Source)?;
        let object = Small::verified(key, checksum, &record[RECORD_ROOM..])?;
        let (number, was_there) = self.keep_small(&mut self.writer.lock(), object, &mut record)?;
        self.stored(number, was_there)
    }

    /// Stores several small objects with one sync: their bytes are behind each other in `content`. If one of them cannot be
    /// stored, those before it may be there.
    pub fn put_many(&self, objects: &[Announced], content: &[u8], purpose: Purpose) -> Result<Position, PutError> {
        self.check()?;
        if !self.has_space(purpose)? {
            return Err(PutError::Full);
        }
        let most = u64::from(self.options.most_small.min(MOST_SMALL));
        let mut rest = content;
        let mut small = Vec::with_capacity(objects.len());
        for Announced { key, length, checksum } in objects {
            let parts = if *length <= most { rest.split_at_checked(*length as usize) } else { None };
            let bytes;
            (bytes, rest) = parts.ok_or(PutError::TooLarge)?;
            small.push((Small::verified(*key, *checksum, bytes)?, bytes));
        }
        let mut last = 0;
        let mut record = Vec::new();
        let mut writer = self.writer.lock();
        for (object, bytes) in small {
            record.resize(RECORD_ROOM, 0);
            record.extend_from_slice(bytes);
            let (number, _) = self.keep_small(&mut writer, object, &mut record)?;
            last = last.max(number);
            record.clear();
        }
        drop(writer);
        self.make_durable(last)?;
        Ok(self.position_at(last))
    }

    /// Appends a small object's record, unless the object is there: the number of the change that has it, which may not be on the
    /// disk yet, and whether it was there.
    fn keep_small(&self, writer: &mut Writer, object: Small, record: &mut [u8]) -> Result<(u64, bool), PutError> {
        let Small { key, length, checksum, blocks } = object;
        let before = {
            let state = self.state.lock();
            match self.find_same(&state.index, &key, length, checksum)? {
                Some(number) => return Ok((number, true)),
                None => state.index.get(&key),
            }
        };
        let offset = self.append(writer, &Header::Object { key, length, checksum, blocks }, record)?;
        let entry = Entry { checksum, length, pack: writer.number, offset, is_damaged: false };
        Ok((self.enter(writer, key, entry, before)?, false))
    }

    /// Enters an object that has just been written; the place of a damaged copy that it replaces is given up.
    fn enter(&self, writer: &mut Writer, key: Key, entry: Entry, before: Option<Entry>) -> Result<u64, DiskError> {
        match before {
            Some(before) if before.pack == FILE => {
                let _ = self.folder.remove(&large::name(&key, &before)); // if it fails, the next start sees to it
            }
            Some(before) => self.append_mark(writer, key, before, |mark| Header::Removed { mark })?,
            None => {}
        }
        let mut state = self.state.lock();
        state.index.insert(key, entry);
        let number = state.index.changed(key, entry.now());
        self.tell_followers(state);
        Ok(number)
    }

    /// Takes an object away. Large ones free their space at once, small ones when their pack is compacted.
    pub fn remove(&self, key: &Key) -> Result<Removed, DiskError> {
        let taken = self.take_away(key)?;
        let was_there = taken.was_there;
        let position = self.finish_removal(vec![taken])?;
        Ok(Removed { position, was_there })
    }

    /// The same for many objects, with one sync for all of them. Says of each, in order, whether its removal is durable:
    /// one that fails keeps none of the others from being removed.
    pub fn remove_all(&self, keys: &[Key]) -> Vec<Result<(), DiskError>> {
        let mut all_taken = Vec::with_capacity(keys.len());
        let outcomes: Vec<_> = keys.iter().map(|key| self.take_away(key).map(|taken| all_taken.push(taken))).collect();
        match self.finish_removal(all_taken) {
            Ok(_) => outcomes,
            Err(error) => outcomes.into_iter().map(|outcome| outcome.and(Err(error.clone()))).collect(),
        }
    }

    fn take_away(&self, key: &Key) -> Result<TakenAway, DiskError> {
        self.check()?;
        let _marks = self.marks.lock();
        let mut writer = self.writer.lock();
        let (entry, number) = {
            let state = self.state.lock();
            (state.index.get(key), state.index.number)
        };
        let Some(entry) = entry else {
            return Ok(TakenAway { number, was_there: false, name: None });
        };
        let mut moved = None;
        if entry.pack == FILE {
            // Deleting a large file takes long; so it only loses its name while others wait.
            let name = writer.new_name();
            match self.folder.rename(&large::name(key, &entry), &name) {
                Ok(()) => moved = Some(name),
                Err(error) if error.kind() == ErrorKind::NotFound => {} // taken away by another program
                Err(error) => return Err(self.failed(&error)),
            }
        } else {
            self.append_mark(&mut writer, *key, entry, |mark| Header::Removed { mark })?;
        }
        let mut state = self.state.lock();
        state.is_folder_dirty |= moved.is_some();
        state.index.remove(key);
        let number = state.index.changed(*key, Now::Removed);
        Ok(TakenAway { number, was_there: true, name: moved })
    }

    fn finish_removal(&self, taken: Vec<TakenAway>) -> Result<Position, DiskError> {
        self.tell_followers(self.state.lock());
        let number = taken.iter().map(|taken| taken.number).max().unwrap_or(0);
        self.make_durable(number)?;
        for name in taken.into_iter().filter_map(|taken| taken.name) {
            // If it fails, the next start sees to it.
            let _ = self.folder.remove(&name);
        }
        Ok(self.position_at(number))
    }

    /// The object at this place is not what it was.
    fn mark_damaged(&self, key: Key, pack: u32, offset: u32) {
        let marks = self.marks.lock();
        let mut writer = self.writer.lock();
        let found = self.state.lock().index.get(&key);
        let Some(entry) = found.filter(|entry| entry.is_at(pack, offset) && !entry.is_damaged) else { return };
        let damaged = Entry { is_damaged: true, ..entry };
        // What cannot be written down is found again after the next start.
        if pack == FILE {
            let _ = self.folder.rename(&large::name(&key, &entry), &large::name(&key, &damaged));
        } else {
            let _ = self.append_mark(&mut writer, key, entry, |mark| Header::Damaged { mark });
        }
        let mut state = self.state.lock();
        state.is_folder_dirty |= pack == FILE;
        state.index.insert(key, damaged);
        let number = state.index.changed(key, damaged.now());
        self.tell_followers(state);
        drop(writer);
        drop(marks);
        let _ = self.make_durable(number);
    }

    /// What it holds after this key. A [change](Self::changes) that is made meanwhile may be in it or not.
    pub fn inventory(&self, after: Option<Key>, most: usize) -> Result<Page, DiskError> {
        let state = self.state.lock();
        let mut objects: Vec<_> =
            state.index.after(after).take(most.saturating_add(1)).map(|(key, entry)| (key, entry.now())).collect();
        let number = state.index.number;
        drop(state);
        let is_last = objects.len() <= most;
        objects.truncate(most);
        // What is reported must be on the disk.
        self.make_durable(number)?;
        Ok(Page { objects, is_last })
    }

    /// The changes after this one, of those that are on the disk, at most so many; the first has the number `after` + 1.
    /// `None` if it was so long ago that they are not kept any more: then an [inventory](Self::inventory) tells.
    pub fn changes(&self, after: u64, most: usize) -> Option<Vec<Change>> {
        let state = self.state.lock();
        state.index.changes(after, self.durable(&state), most)
    }

    /// Waits until there are changes after this one, at most until the deadline, or until it is over: that is looked at
    /// again after each [`wake_followers`](Self::wake_followers).
    pub fn wait_for_changes(&self, after: u64, deadline: Instant, is_over: &dyn Fn() -> bool) {
        let mut state = self.state.lock();
        while self.durable(&state) <= after && !is_over() {
            state.followers += 1;
            let is_late = self.has_changed.wait_until(&mut state, deadline).timed_out();
            state.followers -= 1;
            if is_late {
                return;
            }
        }
    }

    /// Has those who wait for changes look whether it is over.
    pub fn wake_followers(&self) {
        // One that is about to wait holds the lock until it does.
        drop(self.state.lock());
        self.has_changed.notify_all();
    }

    /// What it has of an object, as far as it knows without reading it; `None` if it has nothing.
    pub fn look(&self, key: &Key) -> Option<Now> {
        self.state.lock().index.get(key).map(|entry| entry.now())
    }

    /// The file that has the object, and where it begins there.
    pub fn locate(&self, key: &Key) -> Option<(String, u64)> {
        let entry = self.state.lock().index.get(key)?;
        let is_file = entry.pack == FILE;
        Some(if is_file { (large::name(key, &entry), 0) } else { (file::name(entry.pack), entry.offset.into()) })
    }

    /// Up to where all is on the disk, as far as [`SyncMode`] asks for it.
    pub fn position(&self) -> Position {
        let number = self.durable(&self.state.lock());
        self.position_at(number)
    }

    /// How much it holds.
    pub fn usage(&self) -> io::Result<Usage> {
        let space = self.space()?;
        let state = self.state.lock();
        let Index { objects, bytes, damaged, .. } = state.index;
        Ok(Usage { objects, bytes, damaged, space })
    }

    /// Whether what is stored for this purpose may still be stored. The system is asked now and then only: a disk that has
    /// become full since refuses what is written to it.
    fn has_space(&self, purpose: Purpose) -> Result<bool, DiskError> {
        let has_space = |space: Space| space.used_percent() < purpose.most_percent();
        let now = Instant::now();
        let known = self.state.lock().space;
        if let Some((asked, space)) = known
            && now.duration_since(asked) < SPACE_IS_KNOWN
            && has_space(self.as_far_as_it_may_be_used(space))
        {
            return Ok(true);
        }
        let space = self.folder.space().map_err(|error| DiskError::Failed(error.to_string()))?;
        self.state.lock().space = Some((now, space));
        Ok(has_space(self.as_far_as_it_may_be_used(space)))
    }

    /// The disk's space, as far as it may be used.
    fn space(&self) -> io::Result<Space> {
        Ok(self.as_far_as_it_may_be_used(self.folder.space()?))
    }

    fn as_far_as_it_may_be_used(&self, space: Space) -> Space {
        let Some(capacity) = self.options.capacity else { return space };
        let left = capacity.saturating_sub(self.state.lock().index.bytes);
        Space { total: space.total.min(capacity), available: space.available.min(left) }
    }

    /// Why nothing more is written, if so.
    pub fn failure(&self) -> Option<String> {
        self.state.lock().failure.clone()
    }

    /// Has all on the disk, whatever [`SyncMode`] says: every second for [`SyncMode::Interval`], and at the end.
    pub fn settle(&self) -> Result<(), DiskError> {
        self.check()?;
        self.commit()
    }

    fn position_at(&self, number: u64) -> Position {
        Position { start: self.start, number }
    }

    fn durable(&self, state: &State) -> u64 {
        if self.options.sync == SyncMode::Always { state.durable } else { state.index.number }
    }

    /// Returns when changes up to this one are on the disk, as far as the mode asks for it.
    fn make_durable(&self, number: u64) -> Result<(), DiskError> {
        if self.durable(&self.state.lock()) >= number {
            return Ok(());
        }
        self.commit()
    }

    /// Has all that was written before on the disk, together with others who wait for that. To fail is final: the system
    /// may have dropped what it could not write.
    fn commit(&self) -> Result<(), DiskError> {
        self.commits.commit(|| self.sync()).map_err(|error| self.failed_for_good(error.to_string()))
    }

    /// Brings to the disk what was written before.
    fn sync(&self) -> io::Result<()> {
        let (number, files, names) = {
            let mut state = self.state.lock();
            let dirty = std::mem::take(&mut state.dirty);
            (state.index.number, dirty, std::mem::take(&mut state.is_folder_dirty))
        };
        files.values().try_for_each(|file| file.sync())?;
        if names {
            self.folder.sync()?;
        }
        self.state.lock().durable = number;
        self.has_changed.notify_all();
        Ok(())
    }

    fn tell_followers(&self, state: MutexGuard<'_, State>) {
        let is_followed = state.followers > 0;
        drop(state);
        if is_followed && self.options.sync != SyncMode::Always {
            self.has_changed.notify_all();
        }
    }

    fn check(&self) -> Result<(), DiskError> {
        self.state.lock().failure.clone().map_or(Ok(()), |reason| Err(DiskError::Failed(reason)))
    }

    /// What an error of the system means for the disk: a full one works again later, any other failure is final.
    fn failed(&self, error: &io::Error) -> DiskError {
        if is_full(error) {
            return DiskError::Full;
        }
        self.failed_for_good(error.to_string())
    }

    fn failed_for_good(&self, reason: String) -> DiskError {
        DiskError::Failed(self.state.lock().failure.get_or_insert(reason).clone())
    }

    /// Appends a record to the open pack, and enters the bytes; where it begins. `record` has the content behind
    /// [`RECORD_ROOM`].
    fn append(&self, writer: &mut Writer, header: &Header, record: &mut [u8]) -> Result<u32, DiskError> {
        self.check()?;
        let full = u64::from(self.options.pack_bytes);
        let is_full = writer.file.length() + record.len() as u64 > full && writer.records > 0;
        if is_full || writer.records >= self.options.pack_records || writer.is_sealed {
            self.rotate(writer)?;
        }
        let offset = writer.file.length();
        let place = offset as u32; // a pack has less than 2 GiB and one record
        let head = header.encode(writer.salt, place);
        let start = RECORD_ROOM - head.len();
        record[start..RECORD_ROOM].copy_from_slice(&head);
        self.write(writer, &record[start..], offset)?;
        writer.records += 1;
        if let Some(listed) = header.listed(place) {
            open::list(&mut writer.footer, &listed);
        }
        if let (Header::Object { length, .. }, Some(pack)) =
            (header, self.state.lock().index.packs.get_mut(&writer.number))
        {
            pack.bytes += index::weight(*length);
        }
        Ok(place)
    }

    /// Writes at the end of the open pack, which is `offset`. If that fails, its end is where it was.
    fn write(&self, writer: &mut Writer, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        if let Err(error) = writer.file.append(bytes) {
            return Err(match writer.file.truncate(offset) {
                Ok(()) => self.failed(&error),
                // Half a record in the middle of a pack would be taken for damage.
                Err(worse) => self.failed_for_good(format!("{error}, and then: {worse}")),
            });
        }
        // Only now: a sync that took it before would not have synced these bytes.
        let mut state = self.state.lock();
        if self.options.sync == SyncMode::Never {
            state.dirty.clear(); // or there would be more and more of them
        }
        state.dirty.insert((writer.number, 0), Arc::clone(&writer.handle));
        Ok(())
    }

    /// Appends a mark about the object's record.
    fn append_mark(
        &self,
        writer: &mut Writer,
        key: Key,
        entry: Entry,
        header: impl FnOnce(Mark) -> Header,
    ) -> Result<(), DiskError> {
        let salt = self.state.lock().index.packs.get(&entry.pack).map(|pack| pack.salt);
        let Some(salt) = salt else { return Ok(()) }; // the pack is gone, and the record with it
        let header = header(Mark { key, salt, offset: entry.offset });
        self.append(writer, &header, &mut no_content())?;
        self.state.lock().index.count_mark(writer.number, entry.pack);
        Ok(())
    }

    /// Seals the open pack and opens another.
    fn rotate(&self, writer: &mut Writer) -> Result<(), DiskError> {
        if !writer.is_sealed {
            let offset = writer.file.length();
            let end = file::encode_end(writer.salt, offset as u32, &writer.footer);
            self.write(writer, &end, offset)?;
            writer.is_sealed = true;
            if let Some(pack) = self.state.lock().index.packs.get_mut(&writer.number) {
                (pack.is_sealed, pack.has_footer) = (true, true);
            }
        }
        let (number, salt, file, handle) =
            make_pack(&*self.folder, self.disk, self.start, writer.next_pack).map_err(|error| self.failed(&error))?;
        self.handles.keep(number, Arc::clone(&handle));
        self.state.lock().index.packs.insert(number, Pack::new(salt));
        let (next_pack, next_file) = (number + 1, writer.next_file);
        let (footer, records, is_sealed) = (String::new(), 0, false);
        *writer = Writer { number, salt, file, handle, footer, records, is_sealed, next_pack, next_file };
        Ok(())
    }
}

/// A small object whose bytes are what was announced.
struct Small {
    key: Key,
    length: u32,
    checksum: Checksum,
    blocks: Vec<Checksum>,
}

impl Small {
    fn verified(key: Key, checksum: Checksum, content: &[u8]) -> Result<Self, PutError> {
        let (length, blocks) = (content.len() as u32, record::block_sums(content)); // at most 1 MiB
        let found = combined(&blocks, length.into());
        if found != checksum {
            return Err(PutError::Mismatch { expected: checksum, found });
        }
        Ok(Self { key, length, checksum, blocks })
    }
}

/// In front of a record's content there is room for what precedes it.
const RECORD_ROOM: usize = HEAD + MOST_HEADER;

/// The bytes of a record that is a header only.
fn no_content() -> [u8; RECORD_ROOM] {
    [0; RECORD_ROOM]
}

/// What is being made has a name that begins so.
const NEW: &str = "new-";
const NEW_PACK: &str = "new-pack";

impl Writer {
    /// A name for something that is made, or on its way out.
    fn new_name(&mut self) -> String {
        self.next_file += 1;
        format!("{NEW}{}", self.next_file)
    }
}

type MadePack = (u32, Salt, Box<dyn Appender>, Arc<dyn Handle>);

/// A new pack with this number. It is on the disk with its name.
fn make_pack(folder: &dyn Folder, disk: DiskId, start: u64, number: u32) -> io::Result<MadePack> {
    remove_if_there(folder, NEW_PACK)?; // its making was interrupted
    let header = PackHeader::new(disk, start, Vec::new())?;
    let file = file::create(folder, NEW_PACK, &header)?;
    let name = file::name(number);
    folder.rename(NEW_PACK, &name)?;
    folder.sync()?;
    let handle = folder.handle(&name)?;
    Ok((number, header.salt, file, handle))
}

fn remove_if_there(folder: &dyn Folder, name: &str) -> io::Result<()> {
    match folder.remove(name) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Packs that are open to be read: the ones that were used last.
struct Handles {
    folder: Arc<dyn Folder>,
    most: usize,
    open: Mutex<OpenHandles>,
}

#[derive(Default)]
struct OpenHandles {
    /// By the pack's number, with the time of its last use.
    handles: BTreeMap<u32, (u64, Arc<dyn Handle>)>,
    /// Counts uses.
    now: u64,
}

impl Handles {
    fn new(folder: Arc<dyn Folder>, most: usize) -> Self {
        Self { folder, most: most.max(1), open: Mutex::default() }
    }

    fn get(&self, number: u32) -> io::Result<Arc<dyn Handle>> {
        {
            let mut open = self.open.lock();
            open.now += 1;
            let now = open.now;
            if let Some((used, handle)) = open.handles.get_mut(&number) {
                *used = now;
                return Ok(Arc::clone(handle));
            }
        }
        let handle = self.folder.handle(&file::name(number))?;
        self.keep(number, Arc::clone(&handle));
        Ok(handle)
    }

    fn keep(&self, number: u32, handle: Arc<dyn Handle>) {
        let mut open = self.open.lock();
        open.now += 1;
        let now = open.now;
        open.handles.insert(number, (now, handle));
        if open.handles.len() > self.most
            && let Some(oldest) = open.handles.iter().min_by_key(|(_, (used, _))| *used).map(|(number, _)| *number)
        {
            open.handles.remove(&oldest);
        }
    }

    fn forget(&self, number: u32) {
        self.open.lock().handles.remove(&number);
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("disk", &self.disk).field("start", &self.start).finish_non_exhaustive()
    }
}
