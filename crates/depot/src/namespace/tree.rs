//! Directories and files, and the few ways to change them.
//!
//! A directory is known by a number, and its entries lie under that number: renaming a directory of a million files
//! changes one record. An entry is ordered by its bytes, where a directory's name counts as `name/`: so a walk through
//! the tree yields full paths in the order of their bytes, which is what S3 lists.

use std::collections::BTreeMap;

use super::change::{Condition, Details, Refusal};
use super::objects::Place;
use super::records::RecordId;
use super::{Namespace, Released};
use crate::checksum::Checksum;
use crate::path::Path;
use crate::words::{Line, ParseError, Reader, Words};

/// The number of a directory; never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct DirectoryId(pub(super) u64);

impl Words for DirectoryId {
    fn write(&self, line: &mut Line) {
        line.number(self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        reader.plain("directory").map(Self)
    }
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    /// The directory it is in; `None` for the root, and for one that was removed and is not yet taken apart.
    pub(super) parent: Option<DirectoryId>,
    /// Its name there.
    pub(super) name: Box<str>,
    /// It was made by name or given attributes, and stays when it is empty. One that a put made on its way does not.
    pub(super) is_explicit: bool,
    /// When it was made, or last given attributes.
    pub(super) version: u64,
    /// When it was last changed in any way; an entry that comes or goes is a change, a changed entry is none.
    pub(super) changed: u64,
    pub(super) modified_ms: u64,
    pub(super) details: Option<Box<Details>>,
    /// A file under its name, a directory under its name and `/`.
    pub(super) entries: BTreeMap<Box<str>, Entry>,
}

#[derive(Clone, Debug)]
pub(super) enum Entry {
    File(File),
    Directory(DirectoryId),
}

/// There may be a hundred million: what few files have is boxed.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) content: Content,
    /// The last change of the content.
    pub(super) version: u64,
    /// The last change of any kind.
    pub(super) changed: u64,
    pub(super) modified_ms: u64,
    pub(super) details: Option<Box<Details>>,
}

/// Which objects, in order. Size and checksum of a single one are the file's.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Empty,
    One(Place),
    Many(Box<Chunks>),
}

#[derive(Clone, Debug)]
pub(super) struct Chunks {
    size: u64,
    checksum: Checksum,
    places: Vec<Place>,
}

impl Content {
    /// Content of these objects, of which size and checksum are known.
    pub(super) fn new(places: Vec<Place>, size: u64, checksum: Checksum) -> Self {
        match places[..] {
            [] => Self::Empty,
            [place] => Self::One(place),
            _ => Self::Many(Box::new(Chunks { size, checksum, places })),
        }
    }

    pub(super) fn places(&self) -> &[Place] {
        match self {
            Self::Empty => &[],
            Self::One(place) => std::slice::from_ref(place),
            Self::Many(chunks) => &chunks.places,
        }
    }
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    File,
    Directory(DirectoryId),
}

/// Where a path ends: in which directory, with how much of the way to it missing.
#[derive(Debug)]
pub(super) struct Spot<'p> {
    /// The last directory on the way that exists.
    pub(super) directory: DirectoryId,
    /// The directories below it that would have to be made.
    pub(super) missing: Vec<&'p str>,
    pub(super) name: &'p str,
    /// What has the path.
    pub(super) found: Option<Found>,
}

impl Spot<'_> {
    /// How many entries there are more once something new has the path.
    pub(super) fn additions(&self) -> usize {
        self.missing.len() + usize::from(self.found.is_none())
    }
}

impl Namespace {
    /// Where a path ends. The root is in no directory, and refused; so is a way through a file.
    pub(super) fn spot<'p>(&self, path: &'p Path) -> Result<Spot<'p>, Refusal> {
        let mut components = path.components();
        let name = components.next_back().ok_or(Refusal::InvalidPath)?;
        let mut directory = self.head.root;
        let mut missing = Vec::new();
        for component in components {
            if !missing.is_empty() {
                missing.push(component);
                continue;
            }
            match self.entry(directory, component) {
                Some(Found::Directory(next)) => directory = next,
                Some(Found::File) => return Err(Refusal::NotADirectory),
                None => missing.push(component),
            }
        }
        let found = if missing.is_empty() { self.entry(directory, name) } else { None };
        Ok(Spot { directory, missing, name, found })
    }

    /// What a path that must exist leads to, and where that is.
    pub(super) fn existing<'p>(&self, path: &'p Path) -> Result<(Spot<'p>, Found), Refusal> {
        let spot = self.spot(path)?;
        let found = spot.found.ok_or(Refusal::NotFound)?;
        Ok((spot, found))
    }

    /// The directory of this path; the root has one, too.
    pub(super) fn directory_at(&self, path: &Path) -> Result<DirectoryId, Refusal> {
        if path.is_root() {
            return Ok(self.head.root);
        }
        match self.existing(path)?.1 {
            Found::Directory(id) => Ok(id),
            Found::File => Err(Refusal::NotADirectory),
        }
    }

    pub(super) fn entry(&self, directory: DirectoryId, name: &str) -> Option<Found> {
        let entries = &self.directory(directory).entries;
        match entries.get(name) {
            Some(_) => Some(Found::File),
            None => match entries.get(&*directory_key(name)) {
                Some(Entry::Directory(id)) => Some(Found::Directory(*id)),
                _ => None,
            },
        }
    }

    pub(super) fn directory(&self, id: DirectoryId) -> &Directory {
        &self.directories[&id]
    }

    pub(super) fn file(&self, directory: DirectoryId, name: &str) -> Option<&File> {
        match self.directory(directory).entries.get(name) {
            Some(Entry::File(file)) => Some(file),
            _ => None,
        }
    }

    pub(super) fn size(&self, file: &File) -> u64 {
        match &file.content {
            Content::Empty => 0,
            Content::One(place) => self.objects.get(*place).length,
            Content::Many(chunks) => chunks.size,
        }
    }

    pub(super) fn checksum(&self, file: &File) -> Checksum {
        match &file.content {
            Content::Empty => Checksum::EMPTY,
            Content::One(place) => self.objects.get(*place).checksum,
            Content::Many(chunks) => chunks.checksum,
        }
    }

    /// Whether what a client asks to hold does.
    pub(super) fn check(&self, condition: Condition, spot: &Spot<'_>) -> Result<(), Refusal> {
        let last = match spot.found {
            None => None,
            Some(Found::File) => self.file(spot.directory, spot.name).map(|file| (file.version, file.changed)),
            Some(Found::Directory(id)) => Some((self.directory(id).version, self.directory(id).changed)),
        };
        self.check_versions(condition, last)
    }

    pub(super) fn check_versions(&self, condition: Condition, last: Option<(u64, u64)>) -> Result<(), Refusal> {
        let holds = match (condition, last) {
            (Condition::Any, _) => true,
            (Condition::Absent, None) => true,
            (Condition::Absent, Some(_)) => return Err(Refusal::AlreadyExists),
            (_, None) => false,
            (Condition::Version { version }, Some((content, _))) => self.version(content) == version,
            (Condition::Changed { version }, Some((_, any))) => self.version(any) == version,
        };
        if holds { Ok(()) } else { Err(Refusal::ConditionFailed) }
    }

    /// Makes the directories that are missing on the way to a spot; the directory that its name goes into.
    pub(super) fn make_way(&mut self, spot: &Spot<'_>, sequence: u64, now_ms: u64) -> DirectoryId {
        let mut directory = spot.directory;
        for name in &spot.missing {
            directory = self.make_directory(directory, name, false, sequence, now_ms, None);
        }
        directory
    }

    pub(super) fn make_directory(
        &mut self,
        parent: DirectoryId,
        name: &str,
        is_explicit: bool,
        sequence: u64,
        modified_ms: u64,
        details: Option<Box<Details>>,
    ) -> DirectoryId {
        let id = self.number_directory();
        let made = Directory {
            parent: Some(parent),
            name: name.into(),
            is_explicit,
            version: sequence,
            changed: sequence,
            modified_ms,
            details,
            entries: BTreeMap::new(),
        };
        self.record(RecordId::Directory(id), |namespace| namespace.directories.insert(id, made));
        self.enter_directory(parent, name, id);
        id
    }

    pub(super) fn number_directory(&mut self) -> DirectoryId {
        self.record(RecordId::Head, |namespace| {
            let id = namespace.head.next_directory;
            namespace.head.next_directory = DirectoryId(id.0 + 1);
            id
        })
    }

    /// Shows a directory in the one it is in. Its own record says so already: no record changes.
    pub(super) fn enter_directory(&mut self, parent: DirectoryId, name: &str, id: DirectoryId) {
        self.entries += 1;
        self.entries_of(parent).insert(directory_key(name), Entry::Directory(id));
    }

    /// Shows a directory no more in the one it is in; its own record is the caller's.
    fn leave_directory(&mut self, parent: DirectoryId, name: &str) {
        self.entries -= 1;
        self.entries_of(parent).remove(&*directory_key(name));
    }

    /// Gives a directory another place. Its own record is the only one that changes.
    pub(super) fn move_directory(&mut self, id: DirectoryId, to: DirectoryId, name: &str, sequence: u64) {
        let Directory { parent, name: old, .. } = self.directory(id);
        let (parent, old) = (parent.expect("the root is never moved"), old.clone());
        self.leave_directory(parent, &old);
        self.record(RecordId::Directory(id), |namespace| {
            let directory = namespace.directory_mut(id);
            directory.parent = Some(to);
            directory.name = name.into();
            directory.changed = sequence;
        });
        self.enter_directory(to, name, id);
    }

    /// Takes a directory, with all that is in it, out of the tree in one step. What is in it is taken apart later, a bounded
    /// number of records at a time. (depot 3.6)
    pub(super) fn detach(&mut self, id: DirectoryId) {
        let Directory { parent, name, .. } = self.directory(id);
        let (parent, name) = (*parent, name.clone());
        if let Some(parent) = parent {
            self.leave_directory(parent, &name);
            self.entries += 1; // it counts until it is taken apart
        }
        if self.directory(id).entries.is_empty() {
            self.record(RecordId::Directory(id), |namespace| namespace.directories.remove(&id));
            self.entries -= 1;
        } else {
            self.record(RecordId::Directory(id), |namespace| namespace.directory_mut(id).parent = None);
            self.detached.insert(id);
        }
    }

    /// Puts a file in place of what is there, or nothing in place of a file. Objects that no file names any more are released.
    pub(super) fn set_file(
        &mut self,
        directory: DirectoryId,
        name: &str,
        file: Option<File>,
        released: &mut Vec<Released>,
    ) {
        if let Some(file) = &file {
            let replicas = file.details.as_ref().and_then(|details| details.replicas);
            file.content.places().iter().for_each(|place| self.objects.refer(*place, replicas));
        }
        let is_there = file.is_some();
        let before = self.record(RecordId::File(directory, name.into()), |namespace| {
            let entries = namespace.entries_of(directory);
            match file {
                Some(file) => entries.insert(name.into(), Entry::File(file)),
                None => entries.remove(name),
            }
        });
        self.entries = self.entries + u64::from(is_there) - u64::from(before.is_some());
        if let Some(Entry::File(before)) = before {
            for place in before.content.places() {
                if let Some(object) = self.objects.release(*place) {
                    released.push(Released { key: object.key, length: object.length });
                }
            }
        }
    }

    /// Records that an entry of the directory has come or gone.
    pub(super) fn touch(&mut self, id: DirectoryId, sequence: u64, now_ms: u64) {
        self.record(RecordId::Directory(id), |namespace| {
            let directory = namespace.directory_mut(id);
            directory.changed = sequence;
            directory.modified_ms = now_ms;
        });
    }

    /// An entry of this directory has gone: if it was the last, and the directory was made only for it, that goes, too; and
    /// so on upwards. (depot 3.2)
    pub(super) fn tidy(&mut self, mut id: DirectoryId, sequence: u64, now_ms: u64) {
        loop {
            let directory = self.directory(id);
            let Some(parent) = directory.parent else { break };
            if directory.is_explicit || !directory.entries.is_empty() {
                break;
            }
            self.detach(id);
            id = parent;
        }
        self.touch(id, sequence, now_ms);
    }

    /// Whether a directory is another one, or lies below it.
    pub(super) fn is_within(&self, mut inner: DirectoryId, outer: DirectoryId) -> bool {
        loop {
            if inner == outer {
                return true;
            }
            match self.directory(inner).parent {
                Some(parent) => inner = parent,
                None => return false,
            }
        }
    }

    pub(super) fn directory_mut(&mut self, id: DirectoryId) -> &mut Directory {
        self.directories.get_mut(&id).expect("a number is only ever taken from a directory that is there")
    }

    fn entries_of(&mut self, id: DirectoryId) -> &mut BTreeMap<Box<str>, Entry> {
        &mut self.directory_mut(id).entries
    }
}

/// What a directory of this name is ordered by.
pub(super) fn directory_key(name: &str) -> Box<str> {
    [name, "/"].concat().into()
}
