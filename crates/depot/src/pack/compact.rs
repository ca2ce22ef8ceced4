//! Space for what is removed: what is left of some packs moves into a new one.
//!
//! ```text
//! 1  choose    sealed packs that are half empty
//! 2  copy      their objects, each verified, into a file that has no name yet; requests go on
//! 3  settle    what was removed meanwhile gets a mark for its new place, which is synced
//! 4  rename    the new pack has its name, which is synced: from here on it replaces the others, also after a crash
//! 5  switch    the index, some entries at a time: readers find each object at the old place or at the new one
//! 6  remove    the old packs
//! ```
//!
//! From 3 to 5 no object loses its record: removals wait. Puts and reads do not.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use super::file::{self, PackFile, PackHeader};
use super::index::{Entry, Index, Pack, weight};
use super::record::{Header, Mark, Salt};
use super::{Disk, DiskError, open, remove_if_there};
use crate::disk::Appender;
use crate::identity::Key;

/// What compaction has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// So many packs were replaced by one.
    pub packs: usize,
    /// How many bytes of objects were moved, about.
    pub moved_bytes: u64,
    /// How many bytes are free again, about.
    pub freed_bytes: u64,
}

/// Why nothing has come of it. All is as it was.
#[derive(Debug)]
enum Obstacle {
    Io(io::Error),
    Disk(DiskError),
    /// An object of these packs is not what it was, or not where it was.
    Damage,
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<DiskError> for Obstacle {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

/// A pack is made of at most so many.
const MOST_SOURCES: usize = 16;
/// So many packs that are half empty are merged, however little that frees.
const MANY: usize = 8;
/// So much is written in one piece.
const PIECE: usize = 1 << 20;
/// So many entries of the index are switched while others wait.
const STEP: usize = 1000;
const NEW_COMPACTED: &str = "new-compacted";

/// An object that has been copied: from where to where.
struct Moved {
    key: Key,
    from: (u32, u32),
    to: u32,
    length: u32,
}

impl Disk {
    /// Moves what is left of some packs into a new one, if that frees enough; `None` if not, or if damage is in the way.
    ///
    /// `pace` is called with the bytes that were read since the call before: it may wait, to leave the disk to others. If
    /// it fails with [`ErrorKind::Interrupted`], the work ends, and all is as it was.
    pub fn compact_if_due(&self, pace: &mut dyn FnMut(u64) -> io::Result<()>) -> Result<Option<Compacted>, DiskError> {
        self.compact_with(PIECE as u64, pace)
    }

    /// The same, with a pace after so many bytes.
    pub(super) fn compact_with(
        &self,
        pace_bytes: u64,
        pace: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> Result<Option<Compacted>, DiskError> {
        let mut unpaced = 0;
        let pace = &mut |bytes: u64| {
            unpaced += bytes;
            if unpaced < pace_bytes { Ok(()) } else { pace(std::mem::take(&mut unpaced)) }
        };
        let _one_at_a_time = self.compacting.lock();
        self.check()?;
        let sources = self.choose();
        if sources.is_empty() {
            return Ok(None);
        }
        let result = if sources.values().all(|pack| pack.needed_records() == 0) {
            self.discard(&sources, 0).map_err(Obstacle::Disk) // also on a disk that has no room for a new pack
        } else {
            self.compact(&sources, pace)
        };
        if result.is_err() {
            let _ = self.folder.remove(NEW_COMPACTED); // or at the next start
        }
        match result {
            Ok(compacted) => Ok(Some(compacted)),
            Err(Obstacle::Io(error)) if error.kind() == ErrorKind::Interrupted => Ok(None),
            Err(Obstacle::Io(error)) => Err(self.failed(&error)),
            Err(Obstacle::Disk(error)) => Err(error),
            Err(Obstacle::Damage) => {
                let mut state = self.state.lock();
                let packs = &mut state.index.packs;
                let is_known = sources.keys().any(|number| packs.get(number).is_none_or(|pack| pack.damaged > 0));
                for number in sources.keys().filter(|_| !is_known) {
                    if let Some(pack) = packs.get_mut(number) {
                        pack.is_left_alone = true; // until the next start, which reads it anew
                    }
                }
                Ok(None)
            }
        }
    }

    /// The packs to be replaced.
    fn choose(&self) -> BTreeMap<u32, Pack> {
        // The lock: what is appended to a pack is entered before it is let go, so that a sealed pack is complete.
        let writer = self.writer.lock();
        let state = self.state.lock();
        let share = |bytes: u64, records: u32| {
            let of = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
            of(bytes, self.options.pack_bytes.into()).max(of(records.into(), self.options.pack_records.into()))
        };
        let needed = |pack: &Pack| share(pack.needed_bytes(), pack.needed_records());
        let mut candidates: Vec<_> = state
            .index
            .packs
            .iter()
            .filter(|(number, pack)| **number != writer.number && pack.is_sealed)
            .filter(|(_, pack)| pack.damaged == 0 && !pack.is_left_alone)
            .filter(|(_, pack)| needed(pack) <= 0.5 || !pack.has_footer)
            .collect();
        candidates.sort_by(|(_, a), (_, b)| needed(a).total_cmp(&needed(b)));
        let mut sum = 0.0;
        candidates.retain(|(_, pack)| {
            sum += needed(pack);
            sum <= 1.0
        });
        candidates.truncate(MOST_SOURCES);
        let total: u64 = candidates.iter().map(|(_, pack)| pack.bytes).sum();
        let left: u64 = candidates.iter().map(|(_, pack)| pack.needed_bytes()).sum();
        let is_worth_it =
            left * 2 <= total || candidates.len() >= MANY || candidates.iter().any(|(_, pack)| !pack.has_footer);
        if !is_worth_it {
            return BTreeMap::new();
        }
        candidates.into_iter().map(|(number, pack)| (*number, pack.clone())).collect()
    }

    fn compact(
        &self,
        sources: &BTreeMap<u32, Pack>,
        pace: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> Result<Compacted, Obstacle> {
        let replaces: Vec<Salt> = sources.values().map(|pack| pack.salt).collect();
        let number = {
            let mut writer = self.writer.lock();
            writer.next_pack += 1;
            writer.next_pack - 1
        };
        let header = PackHeader::new(self.disk, self.start, replaces)?;
        let salt = header.salt;
        remove_if_there(&*self.folder, NEW_COMPACTED)?;
        let file = file::create(&*self.folder, NEW_COMPACTED, &header)?;
        let mut copy =
            Copy { salt, file, piece: Vec::new(), footer: String::new(), moved: Vec::new(), marks: Vec::new() };
        for source in sources.keys() {
            self.copy(*source, sources, &mut copy, pace)?;
        }
        let offset = copy.end();
        copy.piece.extend_from_slice(&file::encode_end(salt, offset, &copy.footer));
        copy.flush()?;
        copy.file.sync()?;
        let Copy { moved, marks: moved_marks, .. } = copy;

        let marks = self.marks.lock();
        // All objects of the old packs must have been found there, and none may have turned out to be damaged since.
        let mut found = BTreeMap::new();
        let mut gone = Vec::new();
        for step in moved.chunks(STEP) {
            let state = self.state.lock();
            for one in step {
                if is_at(&state.index, &one.key, one.from) {
                    *found.entry(one.from.0).or_default() += 1;
                } else {
                    gone.push(one);
                }
            }
        }
        {
            let state = self.state.lock();
            for number in sources.keys() {
                let pack = state.index.packs.get(number);
                if pack.is_none_or(|pack| pack.damaged > 0 || pack.live != found.get(number).copied().unwrap_or(0)) {
                    return Err(Obstacle::Damage);
                }
            }
        }
        self.state.lock().index.packs.insert(number, Pack { is_sealed: true, has_footer: true, ..Pack::new(salt) });
        let result = self
            .mark_gone(&gone, number, salt)
            .and_then(|()| self.folder.rename(NEW_COMPACTED, &file::name(number)).map_err(|error| self.failed(&error)));
        if let Err(error) = result {
            self.state.lock().index.remove_pack(number);
            return Err(error.into());
        }
        // From here on there is no way back: what is removed from now on is removed from the new pack.
        let mut moved_bytes = 0;
        for step in moved.chunks(STEP) {
            let mut state = self.state.lock();
            for one in step {
                let weight = weight(one.length);
                moved_bytes += weight;
                if let Some(pack) = state.index.packs.get_mut(&number) {
                    pack.bytes += weight;
                }
                if let Some(entry) = state.index.get(&one.key).filter(|entry| entry.is_at(one.from.0, one.from.1)) {
                    state.index.insert(one.key, Entry { pack: number, offset: one.to, ..entry });
                }
            }
        }
        {
            let mut state = self.state.lock();
            moved_marks.iter().for_each(|target| state.index.count_mark(number, *target));
        }
        // Before a removal is acknowledged that only the new pack knows of.
        self.folder.sync().map_err(|error| self.failed_for_good(error.to_string()))?;
        drop(marks);
        Ok(self.discard(sources, moved_bytes)?)
    }

    /// Takes packs away of which nothing is needed any more.
    ///
    /// A failure is final. The next start removes a pack that has stayed only while the pack that replaces it, or the marks
    /// about its objects, are there; a later compaction would drop them, and what was removed would come back.
    fn discard(&self, packs: &BTreeMap<u32, Pack>, moved_bytes: u64) -> Result<Compacted, DiskError> {
        for number in packs.keys() {
            self.state.lock().index.remove_pack(*number);
            self.handles.forget(*number);
            remove_if_there(&*self.folder, &file::name(*number))
                .map_err(|error| self.failed_for_good(error.to_string()))?;
        }
        let before: u64 = packs.values().map(|pack| pack.bytes).sum();
        Ok(Compacted { packs: packs.len(), moved_bytes, freed_bytes: before.saturating_sub(moved_bytes) })
    }

    /// Copies what still counts of a pack.
    fn copy(
        &self,
        source: u32,
        sources: &BTreeMap<u32, Pack>,
        copy: &mut Copy,
        pace: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> Result<(), Obstacle> {
        let name = file::name(source);
        let opened = PackFile::open(&*self.folder, &name).map_err(|_| Obstacle::Damage)?;
        let file = opened.ok_or(Obstacle::Damage)?;
        let mut damaged = None;
        file.scan(|offset, header, content| {
            pace(content.map_or(0, <[u8]>::len) as u64)?;
            match header {
                Header::Object { key, length, .. } => {
                    let is_live = is_at(&self.state.lock().index, &key, (source, offset));
                    match content {
                        _ if !is_live => {}
                        Some(content) => {
                            let to = copy.add(&header, content)?;
                            copy.moved.push(Moved { key, from: (source, offset), to, length });
                        }
                        None => damaged = Some((key, offset)),
                    }
                }
                Header::Removed { mark } | Header::Damaged { mark } => {
                    let state = self.state.lock();
                    let target = state.index.packs.iter().find(|(_, pack)| pack.salt == mark.salt);
                    let target = target.map(|(number, _)| *number).filter(|number| !sources.contains_key(number));
                    drop(state);
                    if let Some(target) = target {
                        copy.add(&header, &[])?;
                        copy.marks.push(target);
                    }
                }
                Header::Footer { .. } => {}
            }
            if damaged.is_some() { Err(ErrorKind::InvalidData.into()) } else { Ok(()) }
        })
        .map(|_| ())
        .map_err(|error| match damaged {
            Some((key, offset)) => {
                self.mark_damaged(key, source, offset);
                Obstacle::Damage
            }
            None => Obstacle::Io(error),
        })
    }

    /// What was removed while it was copied: the new pack's record of it does not count either. On the disk when this
    /// returns, before the new pack has its name.
    fn mark_gone(&self, gone: &[&Moved], number: u32, salt: Salt) -> Result<(), DiskError> {
        if gone.is_empty() {
            return Ok(());
        }
        let mut writer = self.writer.lock();
        for one in gone {
            let header = Header::Removed { mark: Mark { key: one.key, salt, offset: one.to } };
            self.append(&mut writer, &header, &mut super::no_content())?;
            self.state.lock().index.count_mark(writer.number, number);
        }
        drop(writer);
        // By another way than puts go: whatever the mode, this must be on the disk.
        self.commit()
    }
}

fn is_at(index: &Index, key: &Key, (pack, offset): (u32, u32)) -> bool {
    index.get(key).is_some_and(|entry| entry.is_at(pack, offset))
}

/// The new pack.
struct Copy {
    salt: Salt,
    file: Box<dyn Appender>,
    /// What is not written yet.
    piece: Vec<u8>,
    footer: String,
    moved: Vec<Moved>,
    /// For each mark, the pack that it is about.
    marks: Vec<u32>,
}

impl Copy {
    fn end(&self) -> u32 {
        (self.file.length() + self.piece.len() as u64) as u32 // as large as any pack
    }

    /// Adds a record; where it begins.
    fn add(&mut self, header: &Header, content: &[u8]) -> io::Result<u32> {
        let offset = self.end();
        self.piece.extend_from_slice(&header.encode(self.salt, offset));
        self.piece.extend_from_slice(content);
        if let Some(listed) = header.listed(offset) {
            open::list(&mut self.footer, &listed);
        }
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.append(&std::mem::take(&mut self.piece))
    }
}
