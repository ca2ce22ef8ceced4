//! All records at one sequence, written down beside ongoing changes. (depot 4.4)
//!
//! Millions of records take seconds to write, and no change may wait for that. So a walk goes on in small steps, with
//! changes in between, and still yields the state at the sequence it began at: before a change touches a record that the
//! walk has not come to, it saves that record's old line, which the walk later yields instead of the new one. It costs
//! memory for what changes meanwhile, and nothing for what does not.
//!
//! ```text
//! records   a   b   c   d   e          the walk began at 40 and has yielded a, b
//!                 ▲                     change 41 removes d: d's line is saved
//!               walk                    change 42 adds dd: saved as absent
//!                                       then the walk yields c, d as saved, nothing for dd, e
//! ```
//!
//! The lines' hashes must add up to the namespace's hash at the beginning: that is checked where they are read back.

use std::collections::BTreeMap;
use std::fmt;

use super::records::{RecordId, hash};
use super::{Head, Namespace};
use crate::identity::{ClusterId, History};
use crate::words::{ParseError, Reader, Words};

/// A walk over all records. Snapshots and backups are made of it.
#[derive(Debug)]
pub(super) struct Walk {
    /// The last record that was yielded or passed.
    after: Option<RecordId>,
    /// What records that were changed since the beginning, and lie ahead, were then.
    saved: BTreeMap<RecordId, Option<String>>,
}

impl Walk {
    /// A record is about to change.
    pub(super) fn save(&mut self, id: &RecordId, line: Option<String>) {
        if self.after.as_ref().is_none_or(|after| id > after) && !self.saved.contains_key(id) {
            self.saved.insert(id.clone(), line);
        }
    }

    /// How many records were changed ahead of the walk.
    #[cfg(test)]
    pub(super) fn saved_count(&self) -> usize {
        self.saved.len()
    }
}

/// What a walk was begun at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The last change that the records contain.
    pub sequence: u64,
    /// What the hashes of the lines add up to.
    pub hash: u128,
}

/// Why lines are no snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// One of them cannot be read.
    Line {
        /// Which, from 1 on; one more than there are for what shows at the end only.
        number: u64,
        /// What is wrong with it.
        error: ParseError,
    },
    /// They are not what was written: something is missing, or was altered.
    Hash,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { number, error } => write!(f, "record {number}: {error}"),
            Self::Hash => f.write_str("the records are not those that were written: their hash differs"),
        }
    }
}

impl std::error::Error for RestoreError {}

impl Namespace {
    /// Begins a walk over all records as they are now; one that is under way ends.
    pub fn begin_walk(&mut self) -> Beginning {
        self.walk = Some(Walk { after: None, saved: BTreeMap::new() });
        Beginning { sequence: self.sequence, hash: self.hash }
    }

    /// The walk's next lines, at most `most`; none once it has come to its end. Without a walk there are none.
    pub fn walk_on(&mut self, most: usize) -> Vec<String> {
        let Some(mut walk) = self.walk.take() else { return Vec::new() };
        let mut lines = Vec::new();
        while lines.len() < most {
            let live = self.next_record(walk.after.as_ref());
            let is_saved =
                walk.saved.first_key_value().is_some_and(|(saved, _)| live.as_ref().is_none_or(|live| saved <= live));
            if is_saved {
                let (id, line) = walk.saved.pop_first().expect("one was found");
                lines.extend(line);
                walk.after = Some(id);
            } else if let Some(id) = live {
                lines.push(self.line_of(&id).expect("the walk has just found it"));
                walk.after = Some(id);
            } else {
                break;
            }
        }
        if !lines.is_empty() {
            self.walk = Some(walk);
        }
        lines
    }

    /// Ends a walk early.
    pub fn end_walk(&mut self) {
        self.walk = None;
    }
}

/// A namespace being read back from a walk's lines.
#[derive(Debug)]
pub struct Restore {
    namespace: Namespace,
    beginning: Beginning,
    lines: u64,
}

impl Restore {
    /// The lines of a walk that was begun like this follow.
    pub fn new(beginning: Beginning) -> Self {
        Self { namespace: Namespace::without_records(), beginning, lines: 0 }
    }

    /// The walk's next line.
    pub fn enter(&mut self, line: &str) -> Result<(), RestoreError> {
        self.lines += 1;
        self.namespace.enter(line).map_err(|error| RestoreError::Line { number: self.lines, error })
    }

    /// After the last line.
    pub fn finish(mut self) -> Result<Namespace, RestoreError> {
        if self.namespace.hash != self.beginning.hash {
            return Err(RestoreError::Hash);
        }
        self.namespace.complete().map_err(|error| RestoreError::Line { number: self.lines + 1, error })?;
        self.namespace.sequence = self.beginning.sequence;
        Ok(self.namespace)
    }
}

/// The lines of a walk being checked, without the memory that a namespace of them takes.
#[derive(Debug)]
pub struct Check {
    beginning: Beginning,
    hash: u128,
    lines: u64,
    entries: u64,
    head: Option<Head>,
}

/// Of which store a walk's lines are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The last change that they contain.
    pub sequence: u64,
    /// The store's identity.
    pub cluster: ClusterId,
    /// What people call it.
    pub name: String,
    /// How many files and directories there are.
    pub entries: u64,
    /// Every history of the store, the first one first.
    pub lineage: Vec<History>,
}

impl Check {
    /// The lines of a walk that was begun like this follow.
    pub fn new(beginning: Beginning) -> Self {
        Self { beginning, hash: 0, lines: 0, entries: 0, head: None }
    }

    /// The walk's next line.
    pub fn enter(&mut self, line: &str) -> Result<(), RestoreError> {
        self.lines += 1;
        self.hash = self.hash.wrapping_add(hash(line));
        self.entries += u64::from(line.starts_with("file ") || line.starts_with("directory "));
        if let Some(head) = line.strip_prefix("head ") {
            let mut reader = Reader::new(head);
            let head = Head::read(&mut reader).map_err(|error| RestoreError::Line { number: self.lines, error })?;
            self.head = Some(head);
        }
        Ok(())
    }

    /// After the last line.
    pub fn finish(self) -> Result<Contents, RestoreError> {
        let Head { cluster, name, lineage, .. } = self.head.ok_or(RestoreError::Hash)?;
        if self.hash != self.beginning.hash {
            return Err(RestoreError::Hash);
        }
        Ok(Contents {
            sequence: self.beginning.sequence,
            cluster,
            name,
            entries: self.entries.saturating_sub(1), // without the root
            lineage: lineage.iter().map(|(history, _)| *history).collect(),
        })
    }
}
