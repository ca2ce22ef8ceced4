//! Snapshots: the namespace at one sequence, in a file, so that the log before it can go. (depot 4.4)
//!
//! ```text
//! stevedore-snapshot 1 70123 4 9f0c…e1 1 8f31 0 5e21…09     format, index, term, hash, voters, learners; its own sum
//! head 5d… test 1 …                                         the records of a walk
//! file 1 notes.txt …
//! ```
//!
//! A file appears under its name only when all of it is on the disk. What was damaged later shows, since the records' hashes
//! must add up to the hash in the first line. A backup is such a file that has left the folder.

use std::io;

use raft::prelude::{ConfState, SnapshotMetadata};

use super::segments::OpenError;
use crate::disk::{Appender, Folder, remove_if_there};
use crate::namespace::Namespace;
use crate::namespace::snapshot::{Beginning, Restore};
use crate::words::{Line, ParseError, Reader, Words, words};

/// What a snapshot is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    /// The last entry of the log that it contains.
    pub(super) index: u64,
    /// That entry's term.
    pub(super) term: u64,
    /// The last change: entries behind it are none.
    pub(super) sequence: u64,
    pub(super) members: Members,
}

/// The group of Controllers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    pub(super) voters: Vec<u64>,
    pub(super) learners: Vec<u64>,
}

words!(struct Members { voters, learners });

impl Members {
    pub(super) fn from_library(members: &ConfState) -> Self {
        Self { voters: members.voters.clone(), learners: members.learners.clone() }
    }
}

impl Meta {
    pub(super) fn to_library(&self) -> SnapshotMetadata {
        let Members { voters, learners } = self.members.clone();
        let mut meta = SnapshotMetadata { index: self.index, term: self.term, ..Default::default() };
        meta.set_conf_state(ConfState { voters, learners, ..Default::default() });
        meta
    }
}

const FORMAT: &str = "stevedore-snapshot";
const VERSION: u64 = 1;
pub(super) const PREFIX: &str = "snapshot-";
/// A snapshot's name while it is made.
const NEW: &str = "new-snapshot";
/// The newest one, and the one before in case the disk damages the newest.
const KEPT: usize = 2;
/// Lines are written in pieces of about this size.
const PIECE: usize = 1 << 20;

/// A snapshot being written.
#[derive(Debug)]
struct Writer {
    file: Box<dyn Appender>,
    piece: Vec<u8>,
}

impl Writer {
    fn new(folder: &dyn Folder, name: &str, meta: &Meta, hash: u128) -> io::Result<Self> {
        remove_if_there(folder, name)?; // its making was interrupted
        let mut line = Line::default();
        line.plain(FORMAT);
        line.number(VERSION);
        meta.index.write(&mut line);
        meta.term.write(&mut line);
        line.hexadecimal(hash);
        meta.members.write(&mut line);
        if meta.sequence != meta.index {
            meta.sequence.write(&mut line);
        }
        let mut writer = Self { file: folder.create(name)?, piece: Vec::new() };
        writer.write(&format!("{} {:016x}", line.as_str(), sum(line.as_str())))?;
        Ok(writer)
    }

    /// Adds a record.
    fn write(&mut self, line: &str) -> io::Result<()> {
        self.piece.extend_from_slice(line.as_bytes());
        self.piece.push(b'\n');
        if self.piece.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    /// After the last record: all of it is on the disk, under the name that it was made with.
    fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.append(&std::mem::take(&mut self.piece))
    }
}

/// Writes a snapshot; `walk` yields the next lines of a walk that began with this hash, and none after the last. Older ones
/// than the one before it go.
pub(super) fn make(
    folder: &dyn Folder,
    meta: &Meta,
    hash: u128,
    walk: impl FnMut() -> io::Result<Vec<String>>,
) -> io::Result<()> {
    write(folder, NEW, meta, hash, walk)?;
    folder.rename(NEW, &name(meta.index))?;
    folder.sync()?;
    let kept = indices(folder)?;
    for old in kept.iter().rev().skip(KEPT) {
        folder.remove(&name(*old))?;
    }
    Ok(())
}

/// Writes a snapshot under another name; when this returns, its bytes are on the disk.
pub(super) fn write(
    folder: &dyn Folder,
    name: &str,
    meta: &Meta,
    hash: u128,
    mut walk: impl FnMut() -> io::Result<Vec<String>>,
) -> io::Result<()> {
    let mut writer = Writer::new(folder, name, meta, hash)?;
    loop {
        let lines = walk()?;
        if lines.is_empty() {
            return writer.finish();
        }
        lines.iter().try_for_each(|line| writer.write(line))?;
    }
}

/// Has a snapshot that has come from another member take the place of all others. It is on the disk under this name already.
pub(super) fn adopt(folder: &dyn Folder, received: &str, index: u64) -> io::Result<()> {
    folder.rename(received, &name(index))?;
    folder.sync()?;
    let others = indices(folder)?.into_iter().filter(|other| *other != index);
    others.into_iter().try_for_each(|other| folder.remove(&name(other)))
}

/// The indices of the snapshots that there are, ascending.
pub(super) fn indices(folder: &dyn Folder) -> io::Result<Vec<u64>> {
    let names = folder.names()?;
    let mut indices: Vec<u64> = names.iter().filter_map(|name| name.strip_prefix(PREFIX)?.parse().ok()).collect();
    indices.sort_unstable();
    Ok(indices)
}

/// The snapshot up to this entry.
pub(super) fn read(folder: &dyn Folder, index: u64) -> Result<(Meta, Namespace), OpenError> {
    let file = name(index);
    parse(&folder.read(&file)?, &file)
}

/// The snapshot that these bytes of a file are.
pub(super) fn parse(bytes: &[u8], file: &str) -> Result<(Meta, Namespace), OpenError> {
    let damaged = |reason| OpenError::Damaged { file: file.to_owned(), offset: 0, reason };
    let text = str::from_utf8(bytes).map_err(|_| damaged("a snapshot that is no text"))?;
    let mut lines = text.lines();
    let first = lines.next().ok_or_else(|| damaged("an empty snapshot"))?;
    let (meta, hash) = match parse_first(first) {
        Ok(found) => found,
        Err(FirstLine::Later) => return Err(OpenError::Format { file: file.to_owned() }),
        Err(FirstLine::Foreign) => return Err(damaged("a snapshot without its first line")),
        Err(FirstLine::Damaged) => return Err(damaged("a snapshot with a bad first line")),
    };
    let mut restore = Restore::new(Beginning { sequence: meta.sequence, hash });
    for line in lines {
        restore.enter(line).map_err(|_| damaged("a snapshot with a bad record"))?;
    }
    let namespace = restore.finish().map_err(|_| damaged("a snapshot that lacks records, or has altered ones"))?;
    Ok((meta, namespace))
}

/// Why a line is not the first of a snapshot.
pub(super) enum FirstLine {
    /// It is of a later release.
    Later,
    /// It is of no snapshot.
    Foreign,
    /// It has been altered.
    Damaged,
}

/// What the first line says: what the snapshot is of, and its hash.
pub(super) fn parse_first(line: &str) -> Result<(Meta, u128), FirstLine> {
    let words = line.strip_prefix(FORMAT).ok_or(FirstLine::Foreign)?;
    let is_whole = line.rsplit_once(' ').is_some_and(|(words, expected)| format!("{:016x}", sum(words)) == expected);
    match is_whole {
        true if !words.starts_with(&format!(" {VERSION} ")) => Err(FirstLine::Later),
        true => parse_words(line).map_err(|_| FirstLine::Damaged),
        false => Err(FirstLine::Damaged),
    }
}

fn parse_words(line: &str) -> Result<(Meta, u128), ParseError> {
    let (words, _sum) = line.rsplit_once(' ').ok_or(ParseError::Missing("sum"))?;
    let mut reader = Reader::new(words);
    let _format = (reader.raw("format")?, u64::read(&mut reader)?);
    let (index, term) = (Words::read(&mut reader)?, Words::read(&mut reader)?);
    let hash = reader.hexadecimal("hash")?;
    let members = Words::read(&mut reader)?;
    let is_all = reader.clone().finish().is_ok();
    let sequence = if is_all { index } else { Words::read(&mut reader)? };
    reader.finish()?;
    Ok((Meta { index, term, sequence, members }, hash))
}

/// What the snapshot up to this entry is called.
pub(super) fn name(index: u64) -> String {
    format!("{PREFIX}{index:020}")
}

fn sum(words: &str) -> u64 {
    twox_hash::XxHash3_64::oneshot(words.as_bytes())
}
