//! What Raft's library may look at: the newest entries, in memory.
//!
//! The library asks for entries under the lock that proposals need, where no disk may be touched. So the store keeps all
//! that is not applied yet, and some of what is. A member that lags further behind is sent a snapshot; so while there are
//! other members, all that follows the newest snapshot is kept, or that follows one that is being sent.

use std::cell::Cell;
use std::collections::VecDeque;

use raft::prelude::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

/// As much of what is applied is kept, in bytes. Little in tests, so that members are sent snapshots.
const KEPT_BYTES: usize = if cfg!(test) { 2000 } else { 8 << 20 };

/// The newest part of the log, and what the group must not forget.
#[derive(Debug)]
pub(super) struct Store {
    state: RaftState,
    /// Index and term of the entry before the first that is kept.
    before: (u64, u64),
    entries: VecDeque<Entry>,
    bytes: usize,
    /// What the newest snapshot in the folder is of.
    newest: SnapshotMetadata,
    /// A member needs a newer snapshot.
    is_snapshot_wanted: Cell<bool>,
}

impl Store {
    /// A log that goes on behind this snapshot.
    pub(super) fn new(newest: SnapshotMetadata) -> Self {
        let state = RaftState { hard_state: HardState::default(), conf_state: newest.get_conf_state().clone() };
        let (before, entries) = ((newest.index, newest.term), VecDeque::new());
        Self { state, before, entries, bytes: 0, newest, is_snapshot_wanted: Cell::new(false) }
    }

    /// A snapshot of another member takes the place of everything.
    pub(super) fn replace(&mut self, snapshot: SnapshotMetadata) {
        let hard_state = self.state.hard_state.clone();
        *self = Self::new(snapshot);
        self.state.hard_state = hard_state;
    }

    /// There is a newer snapshot in the folder.
    pub(super) fn set_newest(&mut self, newest: SnapshotMetadata) {
        if newest.index > self.newest.index {
            self.newest = newest;
        }
        self.is_snapshot_wanted.set(false);
    }

    /// Up to which entry the newest snapshot in the folder is.
    pub(super) fn newest(&self) -> u64 {
        self.newest.index
    }

    /// Whether a member needs a newer snapshot.
    pub(super) fn is_snapshot_wanted(&self) -> bool {
        self.is_snapshot_wanted.get()
    }

    pub(super) fn set_hard_state(&mut self, state: HardState) {
        self.state.hard_state = state;
    }

    pub(super) fn set_members(&mut self, members: ConfState) {
        self.state.conf_state = members;
    }

    pub(super) fn members(&self) -> &ConfState {
        &self.state.conf_state
    }

    /// Adds entries; the first takes the place of all from its index on.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        while self.entries.back().is_some_and(|last| last.index >= first.index) {
            self.bytes -= self.entries.pop_back().map_or(0, |entry| entry.data.len());
        }
        assert_eq!(first.index, self.last() + 1, "entries are gapless");
        self.bytes += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Entries from `low` on, before `high`, about `most_bytes` of them; `None` if the first is not kept any more.
    pub(super) fn recent(&self, low: u64, high: u64, most_bytes: usize) -> Option<Vec<Entry>> {
        let from = self.position(low).ok()?;
        let mut bytes = 0;
        let wanted = self.entries.range(from..).take_while(|entry| entry.index < high);
        let fit = wanted.take_while(|entry| {
            let is_due = bytes < most_bytes;
            bytes += entry.data.len();
            is_due
        });
        Some(fit.cloned().collect())
    }

    /// Lets go of what is applied, as far as there is more than enough of it; what follows `needed` is kept.
    pub(super) fn trim(&mut self, applied: u64, needed: u64) {
        while self.bytes > KEPT_BYTES
            && let Some(first) = self.entries.front()
            && first.index < applied
            && first.index <= needed
        {
            self.before = (first.index, first.term);
            self.bytes -= first.data.len();
            self.entries.pop_front();
        }
    }

    fn last(&self) -> u64 {
        self.before.0 + self.entries.len() as u64
    }

    /// Where an entry is among those that are kept.
    fn position(&self, index: u64) -> Result<usize> {
        match index.checked_sub(self.before.0 + 1) {
            None => Err(Error::Store(StorageError::Compacted)),
            Some(at) if at >= self.entries.len() as u64 => Err(Error::Store(StorageError::Unavailable)),
            Some(at) => Ok(at as usize),
        }
    }
}

impl Storage for Store {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(self.state.clone())
    }

    fn entries(&self, low: u64, high: u64, most: impl Into<Option<u64>>, _: GetEntriesContext) -> Result<Vec<Entry>> {
        let from = self.position(low)?;
        let most = most.into().unwrap_or(u64::MAX);
        let mut bytes = 0;
        let wanted = self.entries.range(from..from + (high - low) as usize);
        let fit = wanted.take_while(|entry| {
            bytes += entry.data.len() as u64;
            bytes <= most || entry.index == low
        });
        Ok(fit.cloned().collect())
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.before.0 {
            return Ok(self.before.1);
        }
        Ok(self.entries[self.position(index)?].term)
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.before.0 + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    /// Only what it is of: the file itself travels beside. (depot 4.8)
    fn snapshot(&self, at_least: u64, to: u64) -> Result<Snapshot> {
        let group = self.newest.get_conf_state();
        let knows = group.voters.contains(&to) || group.learners.contains(&to);
        if self.newest.index < self.before.0.max(at_least) || !knows {
            // What follows it is not kept here any more, or the member would not take it: it was added later.
            self.is_snapshot_wanted.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        snapshot.set_metadata(self.newest.clone());
        Ok(snapshot)
    }
}
