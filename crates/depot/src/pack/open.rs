//! The memory of a disk, rebuilt from what it holds.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use stevedore::sync::group_commit::GroupCommit;
use stevedore::sync::{Condvar, Mutex};

use super::file::{self, FIRST_RECORD, PackFile};
use super::identity::{self, Identity};
use super::index::{Entry, FILE, Index, Pack, weight};
use super::record::{Listed, Mark, Salt};
use super::{Disk, Handles, NEW, Options, State, Writer, large, make_pack};
use crate::disk::Folder;
use crate::identity::Key;
use crate::words::{Line, Words};

/// Why a disk cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// What the system says.
    Io(io::Error),
    /// Another process has opened it.
    InUse,
    /// A file is not what it was, and no object can be read without it.
    Damaged {
        /// The file.
        file: String,
    },
    /// It was written by a later release.
    Format {
        /// The file.
        file: String,
    },
    /// There are objects, but the file that says which disk this is, is missing.
    NoIdentity,
    /// A file belongs to another disk: two folders were mixed.
    OtherDisk {
        /// The file.
        file: String,
    },
    /// A file is younger than the identity: that is an old copy, and what was said since is forgotten.
    OldIdentity {
        /// The file.
        file: String,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the disk cannot be read: {error}"),
            Self::InUse => write!(f, "another process uses this folder"),
            Self::Damaged { file } => write!(
                f,
                "{file} is damaged. Nothing was changed. Restore the file from a copy, or let the other Dstores replace this \
                 one: start a new one with an empty folder"
            ),
            Self::Format { file } => write!(f, "{file} was written by a later release, or is none of ours"),
            Self::NoIdentity => write!(
                f,
                "there are objects here, but the file {:?} is missing. Nothing was changed. Restore the file, or start with \
                 an empty folder",
                identity::NAME
            ),
            Self::OtherDisk { file } => {
                write!(f, "{file} belongs to another disk. Nothing was changed. Put it back where it came from")
            }
            Self::OldIdentity { file } => write!(
                f,
                "the file {:?} is older than {file}: it was restored from an old copy. Nothing was changed. Start a new Dstore \
                 with an empty folder, and remove this one from the cluster",
                identity::NAME
            ),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What a start has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The folder was empty.
    pub is_new: bool,
    /// How many objects there are.
    pub objects: u64,
    /// How many of them are damaged.
    pub damaged: u64,
    /// Bytes at the end of the open pack that were written but never acknowledged: they were cut off.
    pub torn_bytes: u64,
    /// Bytes in packs that are in no record: what was in them is lost.
    pub lost_bytes: u64,
    /// Packs without a footer that could be read: they were read as a whole.
    pub scanned_packs: u32,
    /// Packs of which nothing can be read. They are left as they are.
    pub unreadable_packs: Vec<String>,
}

/// So many of the newest packs may not have been synced by the process that wrote them.
const UNSYNCED_PACKS: usize = 16;

impl Disk {
    /// Opens the disk in a folder, and makes it if the folder is empty.
    pub fn open(folder: Arc<dyn Folder>, options: Options) -> Result<(Self, Recovered), OpenError> {
        let options = Options { pack_bytes: options.pack_bytes.min(1 << 30), ..options };
        let lock = folder.lock().map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => OpenError::InUse,
            _ => OpenError::Io(error),
        })?;
        let names = folder.names()?;
        let packs: BTreeMap<u32, &str> = names.iter().filter_map(|name| Some((file::number(name)?, &**name))).collect();
        let objects: Vec<_> =
            names.iter().filter_map(|name| large::parse_name(name).map(|(key, entry)| (key, entry, name))).collect();
        let found = Identity::peek(&*folder)?;
        if found.is_none() && (!packs.is_empty() || !objects.is_empty()) {
            return Err(OpenError::NoIdentity);
        }
        let mut recovered = Recovered { is_new: found.is_none(), ..Recovered::default() };
        let mut identity = found.map_or_else(Identity::new, Ok)?;
        // All is looked at before anything is changed.
        let mut files = BTreeMap::new();
        for (number, name) in &packs {
            match PackFile::open(&*folder, name)? {
                Some(file) => {
                    let header = file.header.as_ref();
                    if header.is_some_and(|header| header.disk != identity.disk) {
                        return Err(OpenError::OtherDisk { file: (*name).to_owned() });
                    }
                    if header.is_some_and(|header| header.start > identity.start) {
                        return Err(OpenError::OldIdentity { file: (*name).to_owned() });
                    }
                    files.insert(*number, file);
                }
                None => recovered.unreadable_packs.push((*name).to_owned()),
            }
        }
        for name in names.iter().filter(|name| name.starts_with(NEW)) {
            folder.remove(name)?; // its making was interrupted, or its removal
        }
        identity.start += 1;
        identity.write(&*folder)?;

        let mut recovery = Recovery::default();
        recovery.read_packs(&*folder, &mut files, &mut recovered)?;
        let (mut index, found_damaged) = recovery.finish();
        let mut next_file = 0;
        for (key, entry, name) in objects {
            next_file += 1;
            match index.get(&key) {
                // A repair of a damaged one was interrupted before that was removed.
                Some(there) if !there.is_damaged => folder.remove(name)?,
                Some(there) if there.pack == FILE => {
                    folder.remove(&large::name(&key, &there))?;
                    index.insert(key, Entry { offset: next_file, ..entry });
                }
                _ => index.insert(key, Entry { offset: next_file, ..entry }),
            }
        }

        let next_pack = packs.keys().last().map_or(1, |last| last + 1);
        let open = recovery.open;
        let writer = match open {
            Some(open) => {
                let name = file::name(open.number);
                let mut file = folder.open(&name)?;
                let torn = file.length() - u64::from(open.end);
                if torn > 0 {
                    // Synced before anything is written behind it: what was cut off must not come back.
                    file.truncate(open.end.into())?;
                    file.sync()?;
                }
                recovered.torn_bytes = torn;
                let (handle, salt, number) = (folder.handle(&name)?, open.salt, open.number);
                let (footer, records, is_sealed) = (open.footer, open.records, false);
                Writer { number, salt, file, handle, footer, records, is_sealed, next_pack, next_file }
            }
            None => {
                let (number, salt, file, handle) = make_pack(&*folder, identity.disk, identity.start, next_pack)?;
                index.packs.insert(number, Pack::new(salt));
                let (footer, records, is_sealed, next_pack) = (String::new(), 0, false, number + 1);
                Writer { number, salt, file, handle, footer, records, is_sealed, next_pack, next_file }
            }
        };
        // What was read may not have been synced by the process that wrote it.
        for number in index.packs.keys().rev().take(UNSYNCED_PACKS) {
            folder.handle(&file::name(*number))?.sync()?;
        }
        folder.sync()?;
        (recovered.objects, recovered.damaged) = (index.objects, index.damaged + found_damaged.len() as u64);
        let handles = Handles::new(Arc::clone(&folder), options.open_packs);
        handles.keep(writer.number, Arc::clone(&writer.handle));
        let state = State {
            index,
            dirty: BTreeMap::new(),
            is_folder_dirty: false,
            durable: 0,
            failure: None,
            followers: 0,
            space: None,
        };
        let disk = Self {
            disk: identity.disk,
            start: identity.start,
            folder,
            options,
            identity: Mutex::new(identity),
            keeping: Mutex::new(()),
            compacting: Mutex::new(()),
            marks: Mutex::new(()),
            writer: Mutex::new(writer),
            state: Mutex::new(state),
            has_changed: Condvar::new(),
            commits: GroupCommit::default(),
            handles,
            _lock: lock,
        };
        for (key, pack, offset) in found_damaged {
            disk.mark_damaged(key, pack, offset);
        }
        Ok((disk, recovered))
    }
}

/// What has been read so far.
#[derive(Default)]
struct Recovery {
    index: Index,
    /// Objects of which another record was found before.
    others: Vec<(Key, Entry)>,
    /// What marks say: records that do not count, and those that are damaged.
    removed: Vec<(u32, Mark)>,
    damaged: Vec<(u32, Mark)>,
    /// Records that a scan has found to be damaged.
    found_damaged: Vec<(Key, u32, u32)>,
    /// The pack to go on with.
    open: Option<Open>,
}

struct Open {
    number: u32,
    salt: Salt,
    /// Where its last whole record ends.
    end: u32,
    footer: String,
    records: u32,
}

impl Recovery {
    fn read_packs(
        &mut self,
        folder: &dyn Folder,
        files: &mut BTreeMap<u32, PackFile>,
        recovered: &mut Recovered,
    ) -> io::Result<()> {
        // Compaction was interrupted after its pack got its name: those that it replaces go now.
        let mut replaced = HashSet::new();
        for file in files.values() {
            let replaces = file.header.as_ref().map_or(&[][..], |header| &header.replaces);
            if !replaces.is_empty() && file.listed().is_some() {
                replaced.extend(replaces.iter().copied());
            }
        }
        for number in files.iter().filter(|(_, file)| replaced.contains(&file.salt)).map(|(number, _)| *number) {
            folder.remove(&file::name(number))?;
        }
        files.retain(|_, file| !replaced.contains(&file.salt));
        // Compaction's packs are whole when they get their name; of the others only the last one may be open.
        let is_moved = |file: &PackFile| file.header.as_ref().is_none_or(|header| !header.replaces.is_empty());
        let last = files.iter().rev().find(|(_, file)| !is_moved(file)).map(|(number, _)| *number);
        for (number, file) in files {
            let mut pack = Pack::new(file.salt);
            if let Some(listed) = file.listed() {
                (pack.is_sealed, pack.has_footer) = (true, true);
                self.index.packs.insert(*number, pack);
                listed.iter().for_each(|listed| self.enter(*number, listed));
                continue;
            }
            let is_last = last == Some(*number);
            pack.is_sealed = !is_last;
            self.index.packs.insert(*number, pack);
            recovered.scanned_packs += u32::from(!is_last);
            let mut records = Vec::new();
            let scanned = file.scan(|offset, header, content| {
                if let Some(listed) = header.listed(offset) {
                    records.push((listed, content.is_some()));
                }
                Ok(())
            })?;
            let end = if is_last { scanned.end } else { u32::MAX };
            let mut open = Open { number: *number, salt: file.salt, end, footer: String::new(), records: 0 };
            for (listed, is_whole) in records {
                if let Listed::Object { offset, key, .. } = &listed
                    && !is_whole
                {
                    if *offset >= end {
                        continue; // torn, and about to be cut off
                    }
                    self.found_damaged.push((*key, *number, *offset));
                }
                self.enter(*number, &listed);
                list(&mut open.footer, &listed);
                open.records += 1;
            }
            recovered.lost_bytes += scanned.lost;
            // One that has lost part of its beginning is left as it is.
            if is_last && file.length >= u64::from(FIRST_RECORD) {
                self.open = Some(open);
            }
        }
        Ok(())
    }

    fn enter(&mut self, pack: u32, listed: &Listed) {
        match *listed {
            Listed::Object { offset, key, length, checksum } => {
                let entry = Entry { checksum, length, pack, offset, is_damaged: false };
                if let Some(pack) = self.index.packs.get_mut(&pack) {
                    pack.bytes += weight(length);
                }
                if let Some(before) = self.index.get(&key) {
                    self.others.push((key, before));
                }
                self.index.insert(key, entry);
            }
            Listed::Removed { mark } => self.removed.push((pack, mark)),
            Listed::Damaged { mark } => self.damaged.push((pack, mark)),
        }
    }

    /// The objects that are there, and those that a scan has found to be damaged and no mark says so.
    fn finish(&mut self) -> (Index, Vec<(Key, u32, u32)>) {
        let mut index = std::mem::take(&mut self.index);
        let numbers: BTreeMap<Salt, u32> = index.packs.iter().map(|(number, pack)| (pack.salt, *number)).collect();
        let mut removed = HashSet::new();
        for (lies_in, mark) in &self.removed {
            if let Some(number) = numbers.get(&mark.salt) {
                index.count_mark(*lies_in, *number);
                removed.insert((*number, mark.offset));
                if index.get(&mark.key).is_some_and(|entry| entry.is_at(*number, mark.offset)) {
                    index.remove(&mark.key);
                }
            }
        }
        let mut damaged = HashSet::new();
        for (lies_in, mark) in &self.damaged {
            if let Some(number) = numbers.get(&mark.salt) {
                index.count_mark(*lies_in, *number);
                damaged.insert((*number, mark.offset));
                if let Some(entry) = index.get(&mark.key).filter(|entry| entry.is_at(*number, mark.offset)) {
                    index.insert(mark.key, Entry { is_damaged: true, ..entry });
                }
            }
        }
        for (key, entry) in &self.others {
            let place = (entry.pack, entry.offset);
            let is_damaged = damaged.contains(&place);
            let is_better = index.get(key).is_none_or(|there| there.is_damaged && !is_damaged);
            if is_better && !removed.contains(&place) {
                index.insert(*key, Entry { is_damaged, ..*entry });
            }
        }
        let mut found = std::mem::take(&mut self.found_damaged);
        found.retain(|(key, pack, offset)| {
            index.get(key).is_some_and(|entry| entry.is_at(*pack, *offset) && !entry.is_damaged)
        });
        (index, found)
    }
}

/// Adds a record to the lines of a footer.
pub(super) fn list(footer: &mut String, listed: &Listed) {
    let mut line = Line::default();
    listed.write(&mut line);
    footer.push_str(line.as_str());
    footer.push('\n');
}
