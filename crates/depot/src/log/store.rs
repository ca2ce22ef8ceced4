//! What Raft's library may look at: the newest entries, in memory.
//!
//! The library asks for entries under the lock that proposals need, where no disk may be touched. So the store keeps all
//! that is not applied yet, and some of what is. A member that lags further behind is sent a snapshot.

use std::collections::VecDeque;

use raft::prelude::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

/// As much of what is applied is kept, in bytes.
const KEPT_BYTES: usize = 8 << 20;

/// The newest part of the log, and what the group must not forget.
#[derive(Debug)]
pub(super) struct Store {
    state: RaftState,
    /// Index and term of the entry before the first that is kept.
    before: (u64, u64),
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Store {
    /// A log of which the entries up to one, with its term, are in a snapshot.
    pub(super) fn new(before: (u64, u64), members: ConfState) -> Self {
        let state = RaftState { hard_state: HardState::default(), conf_state: members };
        Self { state, before, entries: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn set_hard_state(&mut self, state: HardState) {
        self.state.hard_state = state;
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

    /// Lets go of what is applied, as far as there is more than enough of it.
    pub(super) fn trim(&mut self, applied: u64) {
        while self.bytes > KEPT_BYTES
            && let Some(first) = self.entries.front()
            && first.index < applied
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

    fn snapshot(&self, _: u64, _: u64) -> Result<Snapshot> {
        // Only other members ask, and there are none yet.
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
