//! Another beginning: a store goes on from what can be read of its log, or from a backup. (depot 2.1, 4.9)
//!
//! The log's folder is that of a Controller that is stopped. What is in it is not changed, but given other names; beside it
//! a snapshot is made of what the store shall go on from. Two things in that snapshot are new: the group is one Controller,
//! and a history of its own begins, which descends from all others, so that Dstores follow it.
//!
//! # Old or new, at any instant
//!
//! The snapshot is written under a name that means nothing, and synced. One rename makes it count. What then remains to be
//! done, `complete` does, here or in the next start, as often as it is interrupted.
//!
//! ```text
//! new-restored            nothing has happened
//!    │ rename
//! restored-8f31-70124     the store goes on from this: log-… and snapshot-… are yet to be put aside
//!    │ complete
//! snapshot-70124         and, as they were before, before-8f31-log-…, before-8f31-snapshot-…, before-8f31-controller-id
//! ```
//!
//! The Controller is another one then, with an id of its own: what is left of the group that it was in does not know it, and
//! neither can draw the other into its log.

#[cfg(test)]
mod tests;

use std::io;

use super::frame::{Entry, EntryKind};
use super::replica::{ID, INCOMING};
use super::segments::{self, OpenError, Run};
use super::snapshots::{self, Members, Meta};
use crate::disk::{Folder, random};
use crate::identity::{Epoch, History};
use crate::namespace::Namespace;
use crate::namespace::change::Change;
use crate::words::Words;

/// A snapshot that a store shall go on from, while it is made.
const NEW: &str = "new-restored";
/// Once it counts; then the history and the sequence follow.
const RESTORED: &str = "restored-";
/// A snapshot of another member, once it is whole.
const RECEIVED: &str = "received-";
/// What was there before has the history in its name that took its place.
const BEFORE: &str = "before-";

/// A state that a store can go on from.
#[derive(Debug)]
pub struct Found {
    namespace: Namespace,
    /// The term of the last change; a later one begins.
    term: u64,
    /// The highest index that was seen; the next ones are higher.
    last_index: u64,
    /// When the last change was made, in milliseconds since 1970, if the log says it.
    last_change_ms: Option<u64>,
    /// What could not be read.
    damage: Option<Damage>,
}

/// Where a log cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where.
    pub place: String,
    /// The last change that can still be made out behind it.
    pub last_index: Option<u64>,
}

impl Found {
    /// The state that a backup has. The bytes are those of the file called `name`.
    pub fn in_backup(bytes: &[u8], name: &str) -> Result<Self, OpenError> {
        let (Meta { index, term, .. }, namespace) = snapshots::parse(bytes, name)?;
        Ok(Self { namespace, term, last_index: index, last_change_ms: None, damage: None })
    }

    /// The state that can be read of a log, up to its end or to damage; `None` if there is no log. An error if none can.
    pub fn in_log(folder: &dyn Folder) -> Result<Option<Self>, OpenError> {
        complete(folder)?;
        if !has_log(folder)? {
            return Ok(None);
        }
        let (meta, namespace) = newest_snapshot(folder)?;
        let mut found = Self { namespace, term: meta.term, last_index: meta.index, last_change_ms: None, damage: None };
        let runs = segments::scan(folder, meta.index)?;
        found.term = runs.iter().map(|run| run.term).fold(found.term, u64::max);
        let seen = runs.iter().flat_map(|run| run.entries.last()).map(|last| last.index).max();
        // Damage before this run does no harm: the snapshot has what was there.
        let follows = |run: &Run| run.first_index.is_some_and(|first| first <= meta.index + 1);
        let at = runs.iter().rposition(follows);
        let entries = at.map_or(&[][..], |at| &runs[at].entries);
        let unread = entries.iter().find(|entry| !found.apply(entry)).map(|entry| format!("change {}", entry.index));
        let damage = unread.or_else(|| runs[at.unwrap_or(0)..].iter().find_map(|run| run.damage.clone()));
        let is_missing = !has_segments(folder)? && !is_beginning(&found.namespace);
        let damage = damage.or_else(|| is_missing.then(|| "its end: all files of it are missing".to_owned()));
        let is_cut = seen.is_some_and(|seen| seen > found.last_index);
        if damage.is_some() || is_cut {
            let place = damage.unwrap_or_else(|| format!("change {}", found.last_index + 1));
            found.damage = Some(Damage { place, last_index: seen.filter(|_| is_cut) });
        }
        found.last_index = found.last_index.max(seen.unwrap_or(0));
        Ok(Some(found))
    }

    /// False if it cannot be read, or does not follow.
    fn apply(&mut self, entry: &Entry) -> bool {
        if entry.index != self.last_index + 1 {
            return false;
        }
        if entry.kind == EntryKind::Change && !entry.data.is_empty() {
            let change = str::from_utf8(&entry.data).ok().and_then(|line| Change::from_line(line).ok());
            let Some(change) = change else { return false };
            self.namespace.apply(entry.index, &change);
            if change.now_ms > 0 {
                self.last_change_ms = Some(change.now_ms);
            }
        }
        self.last_index = entry.index;
        self.term = self.term.max(entry.term);
        true
    }

    /// The files and directories of this state.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// When its last change was made, in milliseconds since 1970, if the log says it.
    pub fn last_change_ms(&self) -> Option<u64> {
        self.last_change_ms
    }

    /// What could not be read behind it.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// Has the store in `folder` go on from this state, in a history of its own: that history. It descends from the histories
    /// of this state, and from `others`. What was in the folder is kept, with `before-` and the history in front of each name.
    ///
    /// When this returns, it is on the disk. If it is interrupted, the folder is what it was, or what it shall be.
    pub fn restore_to(mut self, folder: &dyn Folder, others: &[History]) -> io::Result<History> {
        complete_restore(folder)?;
        let history = History(u64::from_le_bytes(random()?).max(1));
        let epoch = Epoch { history, term: self.term, nonce: u64::from_le_bytes(random()?) };
        self.namespace.begin_history(&epoch, others.iter().copied(), self.last_index + 1);
        self.namespace.forget_controllers();
        let beginning = self.namespace.begin_walk();
        let voter = u64::from_le_bytes(random()?).max(1);
        let members = Members { voters: vec![voter], learners: Vec::new() };
        let sequence = beginning.sequence;
        let meta = Meta { index: sequence, term: self.term, sequence, members };
        snapshots::write(folder, NEW, &meta, beginning.hash, || Ok(self.namespace.walk_on(1000)))?;
        folder.rename(NEW, &format!("{RESTORED}{history}-{}", meta.index))?;
        folder.sync()?;
        complete_restore(folder)?;
        Ok(history)
    }
}

/// Whether there is a log in the folder, or what one is made from.
pub fn has_log(folder: &dyn Folder) -> io::Result<bool> {
    let prefixes = [segments::PREFIX, snapshots::PREFIX, RESTORED];
    Ok(folder.names()?.iter().any(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))))
}

/// Whether there is a part of the log itself.
pub(super) fn has_segments(folder: &dyn Folder) -> io::Result<bool> {
    Ok(folder.names()?.iter().any(|name| name.starts_with(segments::PREFIX)))
}

/// Whether nothing was changed since the store was created or restored: then there may be no log yet.
pub(super) fn is_beginning(namespace: &Namespace) -> bool {
    namespace.epochs().next_back().is_none_or(|(sequence, _)| sequence == namespace.sequence())
}

/// What another member's snapshot is called once it is whole and on the disk: the log says whether it counts.
pub(super) fn received_name(index: u64) -> String {
    format!("{RECEIVED}{index:020}")
}

/// Carries out what an interrupted [`Found::restore_to`] has left to be done, or an interrupted
/// [`install_snapshot`](super::Replica::install_snapshot).
pub(super) fn complete(folder: &dyn Folder) -> Result<(), OpenError> {
    complete_restore(folder)?;
    let names = folder.names()?;
    for name in names.iter().filter(|name| name.starts_with(INCOMING)) {
        folder.remove(name)?;
    }
    let received = |name: &String| Some((name.clone(), name.strip_prefix(RECEIVED)?.parse().ok()?));
    for (name, index) in names.iter().filter_map(received) {
        let log = segments::scan(folder, index)?;
        // What is behind damage, or behind a torn tail, does not count: the log is read up to there.
        match log.first().is_some_and(|run| run.snapshot == Some(index)) {
            true => snapshots::adopt(folder, &name, index)?,
            false => folder.remove(&name)?,
        }
    }
    Ok(())
}

fn complete_restore(folder: &dyn Folder) -> io::Result<()> {
    let names = folder.names()?;
    let parse = |name: &str| {
        let (history, sequence) = name.strip_prefix(RESTORED)?.split_once('-')?;
        Some((history.to_owned(), sequence.parse().ok()?))
    };
    let restored = names.iter().find_map(|name| Some((name, parse(name)?)));
    let Some((restored, (history, sequence))) = restored else { return Ok(()) };
    let old = [segments::PREFIX, snapshots::PREFIX, ID];
    for name in names.iter().filter(|name| old.iter().any(|of| name.starts_with(of))) {
        folder.rename(name, &format!("{BEFORE}{history}-{name}"))?;
    }
    // Before there is a snapshot of the new history: the old log must not be taken for what follows it.
    folder.sync()?;
    folder.rename(restored, &snapshots::name(sequence))?;
    folder.sync()
}

/// The newest snapshot that can be read.
fn newest_snapshot(folder: &dyn Folder) -> Result<(Meta, Namespace), OpenError> {
    let missing = OpenError::Damaged { file: "log".into(), offset: 0, reason: "a log without its snapshot" };
    let mut error = missing;
    for sequence in snapshots::indices(folder)?.into_iter().rev() {
        match snapshots::read(folder, sequence) {
            Ok(read) => return Ok(read),
            Err(damaged @ OpenError::Damaged { .. }) => error = damaged,
            Err(other) => return Err(other),
        }
    }
    Err(error)
}
