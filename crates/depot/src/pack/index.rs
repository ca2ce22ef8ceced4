//! Where each object of a disk is: in memory, and only ever what the disk adds up to.
//!
//! A million objects must not need more than 100 bytes each. So a key is split: objects of one leadership share history and
//! term, and are kept by number under them. Trees have no moment at which all of them is moved, as growing hash tables do,
//! and can be walked by a cursor.

use std::collections::{BTreeMap, VecDeque};

use super::record::{BLOCK_BYTES, Salt};
use crate::checksum::Checksum;
use crate::identity::{History, Key};

/// An object, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) checksum: Checksum,
    pub(super) length: u32,
    /// The number of its pack; [`FILE`] if it is a file of its own.
    pub(super) pack: u32,
    /// Where its record begins in the pack.
    pub(super) offset: u32,
    pub(super) is_damaged: bool,
}

/// No pack has this number.
pub(super) const FILE: u32 = 0;

impl Entry {
    /// Whether both are at one place.
    pub(super) fn is_at(&self, pack: u32, offset: u32) -> bool {
        (self.pack, self.offset) == (pack, offset)
    }
}

/// What a pack holds.
#[derive(Clone, Debug)]
pub(super) struct Pack {
    pub(super) salt: Salt,
    /// How many bytes its records have, about.
    pub(super) bytes: u64,
    /// The part of it that is of objects that are there.
    pub(super) live_bytes: u64,
    /// How many these are.
    pub(super) live: u32,
    /// How many of them are damaged.
    pub(super) damaged: u32,
    /// How many marks it has, by the pack whose records they are about.
    pub(super) marks: BTreeMap<u32, u32>,
    /// Nothing is appended any more.
    pub(super) is_sealed: bool,
    /// It ends with a footer that can be read.
    pub(super) has_footer: bool,
    /// Compaction has found that a record which should be there is not.
    pub(super) is_left_alone: bool,
}

impl Pack {
    pub(super) fn new(salt: Salt) -> Self {
        let (bytes, live_bytes, live, damaged, marks) = (0, 0, 0, 0, BTreeMap::new());
        let (is_sealed, has_footer, is_left_alone) = (false, false, false);
        Self { salt, bytes, live_bytes, live, damaged, marks, is_sealed, has_footer, is_left_alone }
    }

    /// What compaction would write of it, with the marks that still mean something.
    pub(super) fn needed_bytes(&self) -> u64 {
        self.live_bytes + self.marks.values().map(|count| u64::from(*count) * MARK_WEIGHT).sum::<u64>()
    }

    /// How many records that would be.
    pub(super) fn needed_records(&self) -> u32 {
        self.live + self.marks.values().sum::<u32>()
    }
}

/// What a mark counts for, in bytes.
pub(super) const MARK_WEIGHT: u64 = 80;

/// What the record of an object of this length counts for, in bytes.
pub(super) fn weight(length: u32) -> u64 {
    u64::from(length) + 80 + 17 * (length as usize).div_ceil(BLOCK_BYTES) as u64
}

/// What has happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which object.
    pub key: Key,
    /// What it is now.
    pub now: Now,
}

/// What a disk has of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Now {
    /// All of it.
    Stored {
        /// Its length.
        length: u32,
        /// Its checksum.
        checksum: Checksum,
    },
    /// A copy that is damaged. Its good blocks can be read.
    Damaged {
        /// Its length.
        length: u32,
        /// Its checksum before.
        checksum: Checksum,
    },
    /// Nothing.
    Removed,
}

impl Entry {
    pub(super) fn now(&self) -> Now {
        let (length, checksum) = (self.length, self.checksum);
        if self.is_damaged { Now::Damaged { length, checksum } } else { Now::Stored { length, checksum } }
    }
}

/// How many changes are kept for those who follow them.
const KEPT_CHANGES: usize = 1 << 16;

/// All objects of a disk.
#[derive(Debug, Default)]
pub(super) struct Index {
    leaderships: BTreeMap<(History, u64), BTreeMap<u64, Entry>>,
    pub(super) packs: BTreeMap<u32, Pack>,
    pub(super) objects: u64,
    pub(super) bytes: u64,
    pub(super) damaged: u64,
    /// How many changes there were since the start.
    pub(super) number: u64,
    /// The last of them.
    changes: VecDeque<Change>,
}

impl Index {
    pub(super) fn get(&self, key: &Key) -> Option<Entry> {
        self.leaderships.get(&(key.history, key.term))?.get(&key.number).copied()
    }

    /// The first objects after this key, in the order of keys.
    pub(super) fn after(&self, cursor: Option<Key>) -> impl Iterator<Item = (Key, Entry)> {
        let start = cursor.unwrap_or_default();
        self.leaderships.range((start.history, start.term)..).flat_map(move |((history, term), objects)| {
            let is_first = (start.history, start.term) == (*history, *term);
            let from = if is_first { start.number } else { 0 };
            objects.range(from..).filter_map(move |(number, entry)| {
                let key = Key { history: *history, term: *term, number: *number };
                (cursor != Some(key)).then_some((key, *entry))
            })
        })
    }

    /// Enters an object, in place of what is there under its key.
    pub(super) fn insert(&mut self, key: Key, entry: Entry) {
        let objects = self.leaderships.entry((key.history, key.term)).or_default();
        if let Some(before) = objects.insert(key.number, entry) {
            self.count(before, false);
        }
        self.count(entry, true);
    }

    /// Takes an object away.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Entry> {
        let leadership = (key.history, key.term);
        let objects = self.leaderships.get_mut(&leadership)?;
        let entry = objects.remove(&key.number)?;
        if objects.is_empty() {
            self.leaderships.remove(&leadership);
        }
        self.count(entry, false);
        Some(entry)
    }

    fn count(&mut self, entry: Entry, is_new: bool) {
        let add = |to: &mut u64, amount: u64| *to = if is_new { *to + amount } else { *to - amount };
        let damaged = u64::from(entry.is_damaged);
        add(&mut self.objects, 1);
        add(&mut self.bytes, u64::from(entry.length));
        add(&mut self.damaged, damaged);
        if let Some(pack) = self.packs.get_mut(&entry.pack) {
            let add = |to: &mut u32, amount: u32| *to = if is_new { *to + amount } else { *to - amount };
            add(&mut pack.live, 1);
            add(&mut pack.damaged, damaged as u32);
            let weight = weight(entry.length);
            pack.live_bytes = if is_new { pack.live_bytes + weight } else { pack.live_bytes - weight };
        }
    }

    /// A mark lies in one pack, about a record of another.
    pub(super) fn count_mark(&mut self, pack: u32, target: u32) {
        if let Some(pack) = self.packs.get_mut(&pack) {
            *pack.marks.entry(target).or_default() += 1;
            pack.bytes += MARK_WEIGHT;
        }
    }

    /// A pack is gone: marks about it mean nothing any more.
    pub(super) fn remove_pack(&mut self, number: u32) {
        self.packs.remove(&number);
        self.packs.values_mut().for_each(|pack| {
            pack.marks.remove(&number);
        });
    }

    /// Something has changed that others may follow; its number.
    pub(super) fn changed(&mut self, key: Key, now: Now) -> u64 {
        self.number += 1;
        if self.changes.len() == KEPT_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(Change { key, now });
        self.number
    }

    /// The changes after one, up to another, at most so many; `None` if some of them are not kept any more.
    pub(super) fn changes(&self, after: u64, up_to: u64, most: usize) -> Option<Vec<Change>> {
        let forgotten = self.number - self.changes.len() as u64;
        let from = usize::try_from(after.checked_sub(forgotten)?).ok()?;
        let wanted = up_to.saturating_sub(after).min(most as u64) as usize;
        Some(self.changes.iter().skip(from).take(wanted).copied().collect())
    }
}
