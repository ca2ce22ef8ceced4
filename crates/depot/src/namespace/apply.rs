//! What each command does. (depot 3.4 to 3.6)
//!
//! A command is checked before anything is touched: what is refused leaves no trace. The order of the checks is part of the
//! contract, since every replica must refuse for the same reason: whether changes are accepted, the path and the way to it,
//! the condition, what is there, the room, and last what is new.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{
    Change, Command, Condition, Details, DstoreRecord, MOST_OBJECTS, NewObject, NewObjects, Outcome, Refusal,
    RemovalExtent, Settings,
};
use super::records::RecordId;
use super::tree::{Content, Directory, DirectoryId, Entry, File, Found, Spot};
use super::{Namespace, Object, Released};
use crate::checksum::Checksum;
use crate::identity::{ClusterId, DstoreId, Epoch, History, Version};
use crate::path::{LONGEST_NEW_PATH, Path};

impl Namespace {
    pub(super) fn execute(&mut self, sequence: u64, change: &Change, released: &mut Vec<Released>) -> Outcome {
        let now_ms = change.now_ms;
        match &change.command {
            Command::Create { cluster, name, settings } => self.create(*cluster, name, settings)?,
            Command::Lead { epoch } => self.lead(sequence, epoch),
            Command::Set { settings } => {
                self.record(RecordId::Head, |namespace| namespace.head.settings = settings.clone())
            }
            Command::Dstore { record } => self.set_dstore(record),
            Command::EnterController { id, address } => self.record(RecordId::Controller(*id), |namespace| {
                namespace.controllers.insert(*id, address.clone());
            }),
            Command::LeaveController { id } => self.record(RecordId::Controller(*id), |namespace| {
                namespace.controllers.remove(id);
            }),
            Command::Put { path, condition, parents, objects, checksum, modified_ms, details } => {
                self.check_writable()?;
                let spot = self.file_spot(path, *condition, *parents)?;
                self.check_room(spot.additions())?;
                let content = self.new_content(objects, *checksum, details)?;
                let modified_ms = modified_ms.unwrap_or(now_ms);
                let file = File { content, version: sequence, changed: sequence, modified_ms, details: boxed(details) };
                self.place_file(&spot, file, sequence, now_ms, released);
            }
            Command::Move { from, from_condition, to, to_condition, replace, parents } => {
                self.check_writable()?;
                let (source, found) = self.existing(from)?;
                self.check(*from_condition, &source)?;
                let target = self.target_spot(to, *to_condition, *replace, *parents)?;
                if target.missing.is_empty() && target.directory == source.directory && target.name == source.name {
                    return Ok(sequence); // it is there already
                }
                self.check_apart(&source, found, &target)?;
                self.check_room(target.missing.len())?;
                self.move_entry(&source, found, &target, sequence, now_ms, released);
            }
            Command::Copy { from, from_condition, to, to_condition, replace, parents, details } => {
                self.check_writable()?;
                let (source, found) = self.existing(from)?;
                self.check(*from_condition, &source)?;
                let target = self.target_spot(to, *to_condition, *replace, *parents)?;
                let is_itself =
                    target.missing.is_empty() && target.directory == source.directory && target.name == source.name;
                if details.as_ref().is_some_and(Details::is_too_large) {
                    return Err(Refusal::TooLarge);
                }
                match found {
                    Found::File => {
                        if !is_itself {
                            self.check_apart(&source, found, &target)?;
                        }
                        self.check_room(target.additions())?;
                        let mut file = self.file(source.directory, source.name).expect("it was found").clone();
                        (file.version, file.changed, file.modified_ms) = (sequence, sequence, now_ms);
                        if let Some(details) = details {
                            file.details = boxed(details);
                        }
                        self.place_file(&target, file, sequence, now_ms, released);
                    }
                    Found::Directory(id) => {
                        self.check_apart(&source, found, &target)?;
                        if is_itself || details.is_some() {
                            return Err(Refusal::InvalidPath);
                        }
                        let records = self.count_records(id, self.limits.records)?;
                        self.check_room(target.missing.len() + records)?;
                        self.clear(&target, released);
                        let parent = self.make_way(&target, sequence, now_ms);
                        self.copy_directory(id, parent, target.name, sequence, now_ms, released);
                        self.touch(parent, sequence, now_ms);
                    }
                }
            }
            Command::Remove { path, condition } => {
                let (spot, found) = self.existing(path)?;
                self.check(*condition, &spot)?;
                if found != Found::File {
                    return Err(Refusal::IsADirectory);
                }
                self.set_file(spot.directory, spot.name, None, released);
                self.tidy(spot.directory, sequence, now_ms);
            }
            Command::MakeDirectory { path, parents, details, modified_ms } => {
                self.check_writable()?;
                check_new(path)?;
                if details.is_too_large() {
                    return Err(Refusal::TooLarge);
                }
                let spot = self.spot(path)?;
                self.check_way(&spot, *parents)?;
                let modified_ms = modified_ms.unwrap_or(now_ms);
                match spot.found {
                    Some(Found::Directory(id)) if !self.directory(id).is_explicit => {
                        self.record(RecordId::Directory(id), |namespace| {
                            let directory = namespace.directory_mut(id);
                            directory.is_explicit = true;
                            (directory.version, directory.changed) = (sequence, sequence);
                            directory.modified_ms = modified_ms;
                            directory.details = boxed(details);
                        });
                    }
                    Some(_) => return Err(Refusal::AlreadyExists),
                    None => {
                        self.check_room(spot.additions())?;
                        let parent = self.make_way(&spot, sequence, now_ms);
                        self.make_directory(parent, spot.name, true, sequence, modified_ms, boxed(details));
                        self.touch(parent, sequence, now_ms);
                    }
                }
            }
            Command::RemoveDirectory { path, condition, extent } => {
                let (spot, found) = self.existing(path)?;
                self.check(*condition, &spot)?;
                let Found::Directory(id) = found else { return Err(Refusal::NotADirectory) };
                let is_empty = self.directory(id).entries.is_empty();
                match extent {
                    RemovalExtent::Empty if !is_empty => return Err(Refusal::NotEmpty),
                    RemovalExtent::Mark if !is_empty => self.record(RecordId::Directory(id), |namespace| {
                        let directory = namespace.directory_mut(id);
                        directory.is_explicit = false;
                        directory.changed = sequence;
                        directory.details = None;
                    }),
                    _ => {
                        self.detach(id);
                        self.tidy(spot.directory, sequence, now_ms);
                    }
                }
            }
            Command::SetAttributes { path, condition, attributes, content_type, owner, modified_ms } => {
                self.check_writable()?;
                self.set_attributes(sequence, path, *condition, attributes, content_type, owner, *modified_ms)?;
            }
            Command::Compose { path, condition, parents, sources, remove_sources, modified_ms, details } => {
                self.check_writable()?;
                let spot = self.file_spot(path, *condition, *parents)?;
                self.check_room(spot.additions())?;
                let content = self.composed(sources, details)?;
                let modified_ms = modified_ms.unwrap_or(now_ms);
                let file = File { content, version: sequence, changed: sequence, modified_ms, details: boxed(details) };
                self.place_file(&spot, file, sequence, now_ms, released);
                if *remove_sources {
                    self.remove_composed(path, sources, sequence, now_ms, released);
                }
            }
            Command::Format { name } => {
                if *name != self.head.name {
                    return Err(Refusal::NotPermitted);
                }
                self.format(sequence, now_ms);
            }
            Command::Reap => self.reap(released),
        }
        Ok(sequence)
    }

    fn create(&mut self, cluster: ClusterId, name: &str, settings: &Settings) -> Result<(), Refusal> {
        if self.head.cluster != ClusterId::default() {
            return Err(Refusal::AlreadyExists);
        }
        self.record(RecordId::Head, |namespace| {
            namespace.head.cluster = cluster;
            namespace.head.name = name.to_owned();
            namespace.head.settings = settings.clone();
        });
        Ok(())
    }

    fn lead(&mut self, sequence: u64, epoch: &Epoch) {
        if self.history() != epoch.history {
            self.record(RecordId::Head, |namespace| namespace.head.lineage.push((epoch.history, sequence)));
        }
        self.record(RecordId::Epoch(sequence), |namespace| namespace.epochs.insert(sequence, *epoch));
        while self.epochs.len() > self.limits.epochs {
            let Some((&oldest, _)) = self.epochs.first_key_value() else { break };
            self.record(RecordId::Epoch(oldest), |namespace| namespace.epochs.remove(&oldest));
        }
    }

    /// After a restore: what follows is in a history of its own, which `epoch` begins. It descends from all histories of these
    /// records, and from `others`, of which the records know nothing. Its first change has at least this sequence. (depot 2.1)
    pub fn begin_history(&mut self, epoch: &Epoch, others: impl IntoIterator<Item = History>, at_least: u64) {
        self.sequence = at_least.max(self.sequence + 1);
        let sequence = self.sequence;
        for other in others {
            if self.lineage().all(|known| known != other) {
                // No change of it is kept, so none has a version in it: the next history begins at the same sequence.
                self.record(RecordId::Head, |namespace| namespace.head.lineage.push((other, sequence)));
            }
        }
        self.lead(sequence, epoch);
    }

    /// After a restore: the group is one Controller, and where the others were reached is forgotten.
    pub fn forget_controllers(&mut self) {
        while let Some((&id, _)) = self.controllers.first_key_value() {
            self.record(RecordId::Controller(id), |namespace| namespace.controllers.remove(&id));
        }
    }

    fn set_dstore(&mut self, record: &DstoreRecord) {
        let next = DstoreId(self.dstores.last_key_value().map_or(1, |(last, _)| last.0 + 1));
        let id = self.dstore_on(record.disk).unwrap_or(next);
        self.record(RecordId::Dstore(id), |namespace| namespace.dstores.insert(id, record.clone()));
    }

    pub(super) fn check_writable(&self) -> Result<(), Refusal> {
        if self.head.settings.is_read_only { Err(Refusal::ReadOnly) } else { Ok(()) }
    }

    pub(super) fn check_room(&self, entries: usize) -> Result<(), Refusal> {
        let total = self.entries.saturating_add(entries as u64);
        if total > self.head.settings.most_entries { Err(Refusal::OverQuota) } else { Ok(()) }
    }

    fn check_way(&self, spot: &Spot<'_>, parents: bool) -> Result<(), Refusal> {
        if spot.missing.is_empty() || parents { Ok(()) } else { Err(Refusal::NotFound) }
    }

    /// Where a file's content is to go.
    pub(super) fn file_spot<'p>(
        &self,
        path: &'p Path,
        condition: Condition,
        parents: bool,
    ) -> Result<Spot<'p>, Refusal> {
        check_new(path)?;
        let spot = self.spot(path)?;
        self.check_way(&spot, parents)?;
        self.check(condition, &spot)?;
        match spot.found {
            Some(Found::Directory(_)) => Err(Refusal::IsADirectory),
            _ => Ok(spot),
        }
    }

    /// Where something is to be moved or copied to.
    fn target_spot<'p>(
        &self,
        to: &'p Path,
        condition: Condition,
        replace: bool,
        parents: bool,
    ) -> Result<Spot<'p>, Refusal> {
        check_new(to)?;
        let spot = self.spot(to)?;
        self.check_way(&spot, parents)?;
        self.check(condition, &spot)?;
        if spot.found.is_some() && !replace { Err(Refusal::AlreadyExists) } else { Ok(spot) }
    }

    /// Neither may a directory go into itself, nor anything replace a directory that it is in.
    fn check_apart(&self, source: &Spot<'_>, found: Found, target: &Spot<'_>) -> Result<(), Refusal> {
        let goes_into_itself = matches!(found, Found::Directory(id) if self.is_within(target.directory, id));
        let replaces_its_own =
            matches!(target.found, Some(Found::Directory(id)) if self.is_within(source.directory, id));
        if goes_into_itself || replaces_its_own { Err(Refusal::InvalidPath) } else { Ok(()) }
    }

    /// Enters a put's objects; nothing is entered if they are refused.
    fn new_content(&mut self, new: &NewObjects, checksum: Checksum, details: &Details) -> Result<Content, Refusal> {
        if new.objects.len() > MOST_OBJECTS || details.is_too_large() {
            return Err(Refusal::TooLarge);
        }
        let mut size = 0_u64;
        let mut keys = BTreeSet::new();
        for object in &new.objects {
            // A key is committed once. (depot 5.3)
            let is_known = self.objects.find(new.key(object)).is_some() || !keys.insert(new.key(object));
            if is_known || object.length == 0 {
                return Err(Refusal::NotPermitted);
            }
            size = size.checked_add(object.length).ok_or(Refusal::TooLarge)?;
        }
        match &new.objects[..] {
            [] if checksum != Checksum::EMPTY => return Err(Refusal::NotPermitted),
            [only] if checksum != only.checksum => return Err(Refusal::NotPermitted),
            _ => {}
        }
        let enter =
            |object: &NewObject| Object { key: new.key(object), length: object.length, checksum: object.checksum };
        let places = new.objects.iter().map(|object| self.objects.enter(enter(object))).collect();
        Ok(Content::new(places, size, checksum))
    }

    /// The contents of the sources, one after another.
    fn composed(&self, sources: &[(Path, Version)], details: &Details) -> Result<Content, Refusal> {
        if sources.len() >= self.limits.records || details.is_too_large() {
            return Err(Refusal::TooLarge);
        }
        let mut places = Vec::new();
        let (mut size, mut checksum) = (0_u64, Checksum::EMPTY);
        for (path, version) in sources {
            let (spot, _) = self.existing(path)?;
            let file = self.file(spot.directory, spot.name).ok_or(Refusal::IsADirectory)?;
            self.check(Condition::Version { version: *version }, &spot)?;
            checksum = checksum.followed_by(self.checksum(file), self.size(file));
            size = size.checked_add(self.size(file)).ok_or(Refusal::TooLarge)?;
            places.extend_from_slice(file.content.places());
            if places.len() > MOST_OBJECTS {
                return Err(Refusal::TooLarge);
            }
        }
        Ok(Content::new(places, size, checksum))
    }

    fn remove_composed(
        &mut self,
        target: &Path,
        sources: &[(Path, Version)],
        sequence: u64,
        now_ms: u64,
        released: &mut Vec<Released>,
    ) {
        for (path, _) in sources.iter().filter(|(path, _)| path != target) {
            // A source that is named twice is gone by now.
            if let Ok((spot, Found::File)) = self.existing(path) {
                self.set_file(spot.directory, spot.name, None, released);
                self.tidy(spot.directory, sequence, now_ms);
            }
        }
    }

    /// Puts a file where there is a file, a directory that may be replaced, or nothing.
    fn place_file(&mut self, spot: &Spot<'_>, file: File, sequence: u64, now_ms: u64, released: &mut Vec<Released>) {
        let is_new = spot.found != Some(Found::File);
        if let Some(Found::Directory(id)) = spot.found {
            self.detach(id);
        }
        let directory = self.make_way(spot, sequence, now_ms);
        self.set_file(directory, spot.name, Some(file), released);
        if is_new {
            self.touch(directory, sequence, now_ms);
        }
    }

    /// Takes away what is to be replaced.
    fn clear(&mut self, target: &Spot<'_>, released: &mut Vec<Released>) {
        match target.found {
            Some(Found::File) => self.set_file(target.directory, target.name, None, released),
            Some(Found::Directory(id)) => self.detach(id),
            None => {}
        }
    }

    fn move_entry(
        &mut self,
        source: &Spot<'_>,
        found: Found,
        target: &Spot<'_>,
        sequence: u64,
        now_ms: u64,
        released: &mut Vec<Released>,
    ) {
        match found {
            Found::File => {
                let mut file = self.file(source.directory, source.name).expect("it was found").clone();
                file.changed = sequence;
                self.place_file(target, file, sequence, now_ms, released);
                self.set_file(source.directory, source.name, None, released);
            }
            Found::Directory(id) => {
                self.clear(target, released);
                let parent = self.make_way(target, sequence, now_ms);
                self.move_directory(id, parent, target.name, sequence);
                self.touch(parent, sequence, now_ms);
            }
        }
        self.tidy(source.directory, sequence, now_ms);
    }

    /// How many records a directory's copy makes; refused beyond `most`.
    fn count_records(&self, id: DirectoryId, most: usize) -> Result<usize, Refusal> {
        let mut count = 0;
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            let entries = &self.directory(id).entries;
            count += 1 + entries.len();
            if count > most {
                return Err(Refusal::TooLarge);
            }
            let directories: Vec<_> = entries
                .values()
                .filter_map(|entry| match entry {
                    Entry::Directory(id) => Some(*id),
                    Entry::File(_) => None,
                })
                .collect();
            count -= directories.len(); // each counts itself
            open.extend(directories);
        }
        Ok(count)
    }

    fn copy_directory(
        &mut self,
        id: DirectoryId,
        to: DirectoryId,
        name: &str,
        sequence: u64,
        now_ms: u64,
        released: &mut Vec<Released>,
    ) {
        let mut open = vec![(id, to, Box::<str>::from(name))];
        while let Some((id, to, name)) = open.pop() {
            let Directory { is_explicit, details, .. } = self.directory(id);
            let (is_explicit, details) = (*is_explicit, details.clone());
            let copy = self.make_directory(to, &name, is_explicit, sequence, now_ms, details);
            let entries: Vec<_> =
                self.directory(id).entries.iter().map(|(key, entry)| (key.clone(), entry.clone())).collect();
            for (key, entry) in entries {
                match entry {
                    Entry::File(mut file) => {
                        (file.version, file.changed, file.modified_ms) = (sequence, sequence, now_ms);
                        self.set_file(copy, &key, Some(file), released);
                    }
                    Entry::Directory(id) => open.push((id, copy, key.trim_end_matches('/').into())),
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "they are the command's fields")]
    fn set_attributes(
        &mut self,
        sequence: u64,
        path: &Path,
        condition: Condition,
        attributes: &BTreeMap<String, Option<String>>,
        content_type: &Option<String>,
        owner: &Option<String>,
        modified_ms: Option<u64>,
    ) -> Result<(), Refusal> {
        let updated = |before: Option<&Details>| {
            let mut details = before.cloned().unwrap_or_default();
            for (name, value) in attributes {
                match value {
                    Some(value) => details.attributes.insert(name.clone(), value.clone()),
                    None => details.attributes.remove(name),
                };
            }
            if let Some(content_type) = content_type {
                details.content_type.clone_from(content_type);
            }
            if let Some(owner) = owner {
                details.owner.clone_from(owner);
            }
            if details.is_too_large() { Err(Refusal::TooLarge) } else { Ok(boxed(&details)) }
        };
        let id = if path.is_root() {
            let root = self.directory(self.head.root);
            self.check_versions(condition, Some((root.version, root.changed)))?;
            self.head.root
        } else {
            let (spot, found) = self.existing(path)?;
            self.check(condition, &spot)?;
            match found {
                Found::Directory(id) => id,
                Found::File => {
                    let mut file = self.file(spot.directory, spot.name).expect("it was found").clone();
                    file.details = updated(file.details.as_deref())?;
                    file.changed = sequence;
                    file.modified_ms = modified_ms.unwrap_or(file.modified_ms);
                    self.set_file(spot.directory, spot.name, Some(file), &mut Vec::new());
                    return Ok(());
                }
            }
        };
        let details = updated(self.directory(id).details.as_deref())?;
        self.record(RecordId::Directory(id), |namespace| {
            let directory = namespace.directory_mut(id);
            directory.details = details;
            directory.is_explicit = true;
            (directory.version, directory.changed) = (sequence, sequence);
            directory.modified_ms = modified_ms.unwrap_or(directory.modified_ms);
        });
        Ok(())
    }

    fn format(&mut self, sequence: u64, now_ms: u64) {
        let old = self.head.root;
        let root = self.number_directory();
        self.record(RecordId::Head, |namespace| namespace.head.root = root);
        let directory = Directory {
            is_explicit: true,
            version: sequence,
            changed: sequence,
            modified_ms: now_ms,
            ..Directory::default()
        };
        self.record(RecordId::Directory(root), |namespace| namespace.directories.insert(root, directory));
        self.entries += 1; // the old root counts now, until it is taken apart
        self.detach(old);
    }

    fn reap(&mut self, released: &mut Vec<Released>) {
        let mut left = self.limits.reaped;
        while left > 0
            && let Some(&id) = self.detached.first()
        {
            let entries = self.directory(id).entries.iter().take(left);
            let entries: Vec<_> = entries.map(|(key, entry)| (key.clone(), entry.clone())).collect();
            left -= entries.len().max(1);
            for (key, entry) in entries {
                match entry {
                    Entry::File(_) => self.set_file(id, &key, None, released),
                    Entry::Directory(inner) => self.detach(inner),
                }
            }
            if self.directory(id).entries.is_empty() {
                self.record(RecordId::Directory(id), |namespace| namespace.directories.remove(&id));
                self.detached.remove(&id);
                self.entries -= 1;
            }
        }
    }
}

/// Creating allows shorter paths than a line can hold. (depot 3.1)
fn check_new(path: &Path) -> Result<(), Refusal> {
    if path.as_str().len() > LONGEST_NEW_PATH { Err(Refusal::InvalidPath) } else { Ok(()) }
}

fn boxed(details: &Details) -> Option<Box<Details>> {
    if details.is_empty() { None } else { Some(Box::new(details.clone())) }
}
