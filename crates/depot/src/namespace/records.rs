//! The namespace as records: what its hash sums up, and what a snapshot is made of. (depot 4.1, 4.4)
//!
//! Everything that replicas must agree on is in exactly one record, and every record has one line. The namespace's hash is
//! the sum of the hashes of these lines: a change of a record subtracts its old line's and adds its new line's.
//! [`Namespace::record`] does both, and is the only way to change anything. It also saves the old line for a walk that has
//! not come to the record yet: see [`super::snapshot`].

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::ops::Bound;

use twox_hash::XxHash3_128;

use super::change::{Details, DstoreRecord, Outcome, Settings};
use super::objects::Object;
use super::sessions::Session;
use super::tree::{Content, Directory, DirectoryId, Entry, File};
use super::{Head, Namespace};
use crate::checksum::Checksum;
use crate::identity::{ClusterId, ControllerId, DstoreId, Epoch, History, SessionId};
use crate::words::{Line, ParseError, Reader, Words, invalid};

/// Which record. They are walked in this order, and each refers only to records before it, but for the parents of
/// directories.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RecordId {
    /// What there is one of.
    Head,
    /// The leadership that began with this change.
    Epoch(u64),
    /// A change that had no effect.
    Ineffective(u64),
    Dstore(DstoreId),
    Controller(ControllerId),
    Session(SessionId),
    /// What became of a session's change.
    Outcome(SessionId, u64),
    Directory(DirectoryId),
    /// A directory's file.
    File(DirectoryId, Box<str>),
}

impl Namespace {
    /// Changes one record: the only way to change anything that replicas must agree on.
    pub(super) fn record<T>(&mut self, id: RecordId, change: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.line_of(&id);
        if let Some(line) = &before {
            self.hash = self.hash.wrapping_sub(hash(line));
        }
        if let Some(walk) = &mut self.walk {
            walk.save(&id, before);
        }
        let result = change(self);
        if let Some(line) = self.line_of(&id) {
            self.hash = self.hash.wrapping_add(hash(&line));
        }
        result
    }

    /// The record as it is now; `None` if there is none.
    pub(super) fn line_of(&self, id: &RecordId) -> Option<String> {
        let mut line = Line::default();
        match id {
            RecordId::Head => {
                line.plain("head");
                self.head.write(&mut line);
            }
            RecordId::Epoch(sequence) => {
                let epoch = self.epochs.get(sequence)?;
                line.plain("epoch");
                sequence.write(&mut line);
                epoch.write(&mut line);
            }
            RecordId::Ineffective(sequence) => {
                self.ineffective.get(sequence)?;
                line.plain("ineffective");
                sequence.write(&mut line);
            }
            RecordId::Dstore(dstore) => {
                let record = self.dstores.get(dstore)?;
                line.plain("dstore");
                dstore.write(&mut line);
                record.write(&mut line);
            }
            RecordId::Controller(id) => {
                let address = self.controllers.get(id)?;
                line.plain("controller");
                id.write(&mut line);
                address.write(&mut line);
            }
            RecordId::Session(id) => {
                let session = self.sessions.by_id.get(id)?;
                line.plain("session");
                id.write(&mut line);
                session.last_use.write(&mut line);
                session.done_below.write(&mut line);
            }
            RecordId::Outcome(id, number) => {
                let outcome = self.sessions.by_id.get(id)?.outcomes.get(number)?;
                line.plain("outcome");
                id.write(&mut line);
                number.write(&mut line);
                outcome.write(&mut line);
            }
            RecordId::Directory(id) => {
                let directory = self.directories.get(id)?;
                line.plain("directory");
                id.write(&mut line);
                directory.parent.write(&mut line);
                line.text(&directory.name);
                directory.is_explicit.write(&mut line);
                directory.version.write(&mut line);
                directory.changed.write(&mut line);
                directory.modified_ms.write(&mut line);
                write_details(directory.details.as_deref(), &mut line);
            }
            RecordId::File(id, name) => {
                let Entry::File(file) = self.directories.get(id)?.entries.get(name)? else { return None };
                line.plain("file");
                id.write(&mut line);
                line.text(name);
                file.version.write(&mut line);
                file.changed.write(&mut line);
                file.modified_ms.write(&mut line);
                self.checksum(file).write(&mut line);
                write_details(file.details.as_deref(), &mut line);
                let places = file.content.places();
                line.number(places.len());
                places.iter().for_each(|place| self.objects.get(*place).write(&mut line));
            }
        }
        Some(line.into_string())
    }

    /// The record that follows in the walk; the first one after `None`.
    pub(super) fn next_record(&self, after: Option<&RecordId>) -> Option<RecordId> {
        let Some(after) = after else { return Some(RecordId::Head) };
        // The least of each kind but the first. None of them exists: all these numbers begin with 1.
        let kinds = [
            RecordId::Epoch(0),
            RecordId::Ineffective(0),
            RecordId::Dstore(DstoreId(0)),
            RecordId::Controller(ControllerId(0)),
            RecordId::Session(SessionId(0)),
            RecordId::Outcome(SessionId(0), 0),
            RecordId::Directory(DirectoryId(0)),
            RecordId::File(DirectoryId(0), "".into()),
        ];
        let remaining = kinds.iter().filter(|least| *least > after || discriminant(*least) == discriminant(after));
        remaining.map(|least| least.max(after)).find_map(|after| self.next_of_its_kind(after))
    }

    fn next_of_its_kind(&self, after: &RecordId) -> Option<RecordId> {
        fn next<'a, K: Ord, V>(map: &'a BTreeMap<K, V>, after: &K) -> Option<&'a K> {
            map.range((Bound::Excluded(after), Bound::Unbounded)).next().map(|(key, _)| key)
        }
        match after {
            RecordId::Head => None,
            RecordId::Epoch(after) => next(&self.epochs, after).map(|sequence| RecordId::Epoch(*sequence)),
            RecordId::Ineffective(after) => {
                let mut later = self.ineffective.range((Bound::Excluded(after), Bound::Unbounded));
                later.next().map(|sequence| RecordId::Ineffective(*sequence))
            }
            RecordId::Dstore(after) => next(&self.dstores, after).map(|dstore| RecordId::Dstore(*dstore)),
            RecordId::Controller(after) => next(&self.controllers, after).map(|id| RecordId::Controller(*id)),
            RecordId::Session(after) => next(&self.sessions.by_id, after).map(|session| RecordId::Session(*session)),
            RecordId::Outcome(after, number) => {
                let sessions = self.sessions.by_id.range(after..);
                sessions.into_iter().find_map(|(id, session)| {
                    let from = if id == after { Bound::Excluded(*number) } else { Bound::Unbounded };
                    let (number, _) = session.outcomes.range((from, Bound::Unbounded)).next()?;
                    Some(RecordId::Outcome(*id, *number))
                })
            }
            RecordId::Directory(after) => next(&self.directories, after).map(|id| RecordId::Directory(*id)),
            RecordId::File(after, name) => self.directories.range(after..).find_map(|(id, directory)| {
                let from = if id == after { Bound::Excluded(&**name) } else { Bound::Unbounded };
                let mut entries = directory.entries.range::<str, _>((from, Bound::Unbounded));
                let (name, _) = entries.find(|(_, entry)| matches!(entry, Entry::File(_)))?;
                Some(RecordId::File(*id, name.clone()))
            }),
        }
    }

    /// Enters a record of a snapshot; they come in the order of the walk.
    pub(super) fn enter(&mut self, line: &str) -> Result<(), ParseError> {
        let mut reader = Reader::new(line);
        match reader.raw("record")? {
            "head" => self.head = Head::read(&mut reader)?,
            "epoch" => {
                self.epochs.insert(Words::read(&mut reader)?, Epoch::read(&mut reader)?);
            }
            "ineffective" => {
                self.ineffective.insert(Words::read(&mut reader)?);
            }
            "dstore" => {
                self.dstores.insert(Words::read(&mut reader)?, DstoreRecord::read(&mut reader)?);
            }
            "controller" => {
                self.controllers.insert(Words::read(&mut reader)?, Words::read(&mut reader)?);
            }
            "session" => {
                let id = SessionId::read(&mut reader)?;
                let session = Session {
                    last_use: Words::read(&mut reader)?,
                    done_below: Words::read(&mut reader)?,
                    ..Session::default()
                };
                self.sessions.by_use.insert(session.last_use, id);
                self.sessions.by_id.insert(id, session);
            }
            "outcome" => {
                let id = SessionId::read(&mut reader)?;
                let session = self.sessions.by_id.get_mut(&id).ok_or_else(|| invalid("known session", line))?;
                session.outcomes.insert(Words::read(&mut reader)?, Outcome::read(&mut reader)?);
                self.sessions.open += 1;
            }
            "directory" => {
                let id = DirectoryId::read(&mut reader)?;
                let directory = Directory {
                    parent: Words::read(&mut reader)?,
                    name: reader.text("name")?.into(),
                    is_explicit: Words::read(&mut reader)?,
                    version: Words::read(&mut reader)?,
                    changed: Words::read(&mut reader)?,
                    modified_ms: Words::read(&mut reader)?,
                    details: Option::<Details>::read(&mut reader)?.map(Box::new),
                    entries: Default::default(),
                };
                self.directories.insert(id, directory);
            }
            "file" => {
                let id = DirectoryId::read(&mut reader)?;
                let name: Box<str> = reader.text("name")?.into();
                let version = Words::read(&mut reader)?;
                let changed = Words::read(&mut reader)?;
                let modified_ms = Words::read(&mut reader)?;
                let checksum = Checksum::read(&mut reader)?;
                let details = Option::<Details>::read(&mut reader)?.map(Box::new);
                let mut places = Vec::new();
                for object in Vec::<Object>::read(&mut reader)? {
                    let place = self.objects.find(object.key).unwrap_or_else(|| self.objects.enter(object));
                    self.objects.refer(place, details.as_ref().and_then(|details| details.replicas));
                    places.push(place);
                }
                let size = places.iter().map(|place| self.objects.get(*place).length).sum();
                let content = Content::new(places, size, checksum);
                let directory = self.directories.get_mut(&id).ok_or_else(|| invalid("known directory", line))?;
                let file = File { content, version, changed, modified_ms, details };
                directory.entries.insert(name, Entry::File(file));
            }
            other => return Err(invalid("record", other)),
        }
        reader.finish()?;
        self.hash = self.hash.wrapping_add(hash(line));
        Ok(())
    }

    /// Once all records are entered: what follows from them.
    pub(super) fn complete(&mut self) -> Result<(), ParseError> {
        let links: Vec<_> =
            self.directories.iter().map(|(id, directory)| (*id, directory.parent, directory.name.clone())).collect();
        for (id, parent, name) in links {
            match parent {
                Some(parent) => {
                    let parent = self.directories.get_mut(&parent).ok_or_else(|| invalid("known directory", &name))?;
                    parent.entries.insert(format!("{name}/").into(), Entry::Directory(id));
                }
                None if id == self.head.root => {}
                None => {
                    self.detached.insert(id);
                }
            }
        }
        if !self.directories.contains_key(&self.head.root) {
            return Err(invalid("root directory", "none"));
        }
        let entries: usize = self.directories.values().map(|directory| directory.entries.len()).sum();
        self.entries = (entries + self.detached.len()) as u64;
        Ok(())
    }
}

/// Of a record's line.
pub(super) fn hash(line: &str) -> u128 {
    XxHash3_128::oneshot(line.as_bytes())
}

fn write_details(details: Option<&Details>, line: &mut Line) {
    match details {
        Some(details) => details.write(line),
        None => line.plain("-"),
    }
}

impl Words for Head {
    fn write(&self, line: &mut Line) {
        self.cluster.write(line);
        self.name.write(line);
        self.root.write(line);
        self.next_directory.write(line);
        self.evicted.write(line);
        self.settings.write(line);
        self.lineage.write(line);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self {
            cluster: ClusterId::read(reader)?,
            name: Words::read(reader)?,
            root: Words::read(reader)?,
            next_directory: Words::read(reader)?,
            evicted: Words::read(reader)?,
            settings: Settings::read(reader)?,
            lineage: Vec::<(History, u64)>::read(reader)?,
        })
    }
}
