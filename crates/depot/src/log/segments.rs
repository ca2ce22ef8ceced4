//! The files that the log consists of.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::frame::{Entry, EntryKind, Frame, HardState, MOST_BYTES, find_salt};
use crate::disk::{Appender, Folder, is_full, random};
use crate::words::{Reader, Words};

/// How the log is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment that has reached this size is followed by another.
    pub segment_bytes: u64,
    /// Kept free for a full disk: it is given up to write what is under way. (depot 4.8)
    pub ballast_bytes: usize,
    /// The index that a new log begins with.
    pub first_index: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, ballast_bytes: 64 << 20, first_index: 1 }
    }
}

/// Why a log cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// What the system says.
    Io(io::Error),
    /// Something that was written and synced is not there any more.
    Damaged {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// It was written by a later release.
    Format {
        /// The file.
        file: String,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the log cannot be read: {error}"),
            Self::Damaged { file, offset, reason } => write!(
                f,
                "the log is damaged: {reason} at byte {offset} of {file}, where it was on the disk before. What follows may hold \
                 acknowledged changes"
            ),
            Self::Format { file } => write!(f, "{file} was written by a later release, or is no log of ours"),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Why nothing more is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// A write or a sync has failed.
    Disk(String),
    /// The namespace here differs from that of most Controllers. (depot 4.8)
    Diverged {
        /// Behind this change.
        sequence: u64,
    },
    /// Entries are missing that this Controller has confirmed to others. (depot 2.2)
    OldCopy,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(why) => write!(f, "the log takes nothing more until the next start: {why}"),
            Self::Diverged { sequence } => write!(
                f,
                "the metadata of this Controller differs from that of most others behind change {sequence}. Remove it from the \
                 group, and add it again with an empty folder"
            ),
            Self::OldCopy => f.write_str(
                "the disk of this Controller is an old copy, or has lost what was written: entries are missing that the other \
                 Controllers count on. Remove it from the group, and add it again with an empty folder",
            ),
        }
    }
}

impl std::error::Error for LogError {}

/// The log's files. Places are counted through all of them: `start` is the place of a segment's first byte.
#[derive(Debug)]
pub struct Segments {
    folder: Arc<dyn Folder>,
    options: Options,
    segments: Vec<Segment>,
    places: Places,
    open: Box<dyn Appender>,
    /// Up to this place it is on the disk.
    synced: u64,
    /// The last mark that was written says so much.
    marked: u64,
    state: HardState,
    /// The last frame that says the state.
    state_place: u64,
    has_ballast: bool,
    was_closed: bool,
    poison: Option<LogError>,
}

#[derive(Debug)]
struct Segment {
    name: String,
    salt: u64,
    start: u64,
}

/// Where to begin to read: frames about every 64 KiB, by the index of their first entry. An entry is in the frame that the
/// last place with an index up to its own leads to, or in one behind that and before the next place.
#[derive(Debug, Default)]
struct Places {
    /// In ascending order, both of indices and of places in the log.
    frames: Vec<(u64, u64)>,
    last_index: u64,
}

impl Places {
    /// A frame with entries is at this place.
    fn enter(&mut self, entries: &[Entry], place: u64, is_first_of_segment: bool) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        // It takes the place of entries from its first index on.
        let is_beginning = first.kind == EntryKind::Snapshot;
        self.frames.retain(|(index, _)| *index < first.index && !is_beginning);
        let is_far = self.frames.last().is_none_or(|(_, last)| place - last >= STRIDE);
        if is_far || is_first_of_segment || first.index != self.last_index + 1 {
            self.frames.push((first.index, place));
        }
        self.last_index = last.index;
    }

    /// The place to read an entry from, and the frame to stop at, with its first index.
    fn around(&self, index: u64) -> Option<(u64, (u64, u64))> {
        let next = self.frames.partition_point(|(first, _)| *first <= index);
        let (_, place) = self.frames[next.checked_sub(1)?];
        Some((place, self.frames.get(next).copied().unwrap_or((u64::MAX, u64::MAX))))
    }
}

const FORMAT: &str = "stevedore-log";
const VERSION: u64 = 1;
pub(super) const PREFIX: &str = "log-";
/// A segment's name while it is made.
const NEW: &str = "new-log";
const BALLAST: &str = "ballast";
/// How far apart places to read from are.
const STRIDE: u64 = 64 << 10;
/// Room for a header and the frame that a segment begins with.
const LEAST_SEGMENT: u64 = 512;

impl Segments {
    /// Opens the log in a folder, and makes it if there is none; `visit` gets every entry that is in it, in the order of
    /// writing: each takes the place of earlier ones from its index on. A torn tail is cut off.
    pub fn open(folder: Arc<dyn Folder>, options: Options, mut visit: impl FnMut(Entry)) -> Result<Self, OpenError> {
        let mut names = folder.names()?;
        let has_ballast = names.iter().any(|name| name == BALLAST);
        if names.iter().any(|name| name == NEW) {
            folder.remove(NEW)?; // its making was interrupted
        }
        names.retain(|name| name.starts_with(PREFIX));
        if names.is_empty() {
            names.push(make(&*folder, 0, options.first_index)?);
        }
        let mut recovery = Recovery::default();
        let mut open = None;
        for (at, name) in names.iter().enumerate() {
            let bytes = folder.read(name)?;
            let end = recovery.read(name, &bytes, &mut visit)?;
            if end < bytes.len() {
                recovery.judge(name, &bytes, end, at + 1 == names.len())?;
                // Cut, and synced before anything is written behind it: what was cut off must not come back.
                let mut file = folder.open(name)?;
                file.truncate(end as u64)?;
                file.sync()?;
                for later in &names[at + 1..] {
                    folder.remove(later)?;
                }
                folder.sync()?;
                open = Some(file);
                break;
            }
        }
        let last = recovery.segments.last().expect("there is at least one segment");
        let mut open = match open {
            Some(open) => open,
            None => folder.open(&last.name)?,
        };
        // What was read may not have been synced by the process that wrote it.
        open.sync()?;
        let end = last.start + open.length();
        let mut log = Self {
            folder,
            options,
            segments: recovery.segments,
            places: recovery.places,
            open,
            synced: end,
            marked: recovery.marked,
            state: recovery.state,
            state_place: recovery.state_place,
            has_ballast,
            was_closed: recovery.is_closed,
            poison: None,
        };
        log.make_ballast();
        Ok(log)
    }

    /// What a member of the group must not forget.
    pub fn state(&self) -> HardState {
        self.state
    }

    /// The first index that can still be read; one more than the last if there is no entry.
    pub fn first_index(&self) -> u64 {
        self.places.frames.first().map_or(self.places.last_index + 1, |(index, _)| *index)
    }

    /// The index of the last entry; one less than the first index if there is none.
    pub fn last_index(&self) -> u64 {
        self.places.last_index
    }

    /// Whether the process that wrote the log before ended in order: then nothing that it wrote was lost.
    pub fn was_closed(&self) -> bool {
        self.was_closed
    }

    /// Whether the disk was full when something was written last: then only what frees space should be accepted.
    pub fn is_short_of_space(&self) -> bool {
        !self.has_ballast && self.options.ballast_bytes > 0
    }

    /// Writes entries, and the state if it has changed. They are on the disk after the next [`sync`](Self::sync).
    ///
    /// Entries ascend by one; the first takes the place of all that are there from its index on.
    pub fn append(&mut self, entries: &[Entry], state: Option<HardState>) -> Result<(), LogError> {
        self.check()?;
        let mut rest = entries;
        let mut state = state.filter(|state| *state != self.state);
        while !rest.is_empty() || state.is_some() {
            let mut bytes = 0;
            let fit = rest.iter().take_while(|entry| {
                bytes += entry.data.len() + 100;
                bytes <= MOST_BYTES / 2
            });
            let count = fit.count().max(1).min(rest.len());
            let (now, later) = rest.split_at(count);
            self.write(Frame { synced: self.synced, state: state.take(), entries: now.to_vec(), is_closing: false })?;
            rest = later;
        }
        Ok(())
    }

    /// Has all that was appended on the disk. After an error nothing more is accepted.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.check()?;
        let end = self.end();
        if self.synced < end {
            self.open.sync().map_err(|error| self.poisoned_by(error))?;
            self.synced = end;
        }
        Ok(())
    }

    /// Writes down that all is synced, if no frame says so yet: after a quiet time, and at the end.
    pub fn mark(&mut self) -> Result<(), LogError> {
        self.check()?;
        if self.synced == self.end() && self.marked < self.synced {
            self.write(Frame { synced: self.synced, ..Frame::default() })?;
        }
        Ok(())
    }

    /// Some entries, from an index on: at least one if there is one, and about `most_bytes` of them.
    pub fn read(&self, from: u64, most_bytes: usize) -> io::Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let next = |entries: &Vec<Entry>| entries.last().map_or(from, |last| last.index + 1);
        while next(&entries) <= self.last_index() && (entries.is_empty() || bytes < most_bytes) {
            let wanted = next(&entries);
            let Some((place, (stop, end))) = self.places.around(wanted) else { break };
            let at = self.segments.partition_point(|segment| segment.start <= place) - 1;
            let segment = &self.segments[at];
            let segment_end = self.segments.get(at + 1).map_or(self.end(), |later| later.start);
            let end = end.min(segment_end);
            let stretch = self.folder.read_at(&segment.name, place - segment.start, (end - place) as usize)?;
            let mut rest = &stretch[..];
            while let Some((frame, length)) = Frame::decode(segment.salt, rest) {
                rest = &rest[length..];
                for entry in frame.entries {
                    // Those from `stop` on were replaced by the frame there.
                    if entry.index == next(&entries) && entry.index < stop {
                        bytes += entry.data.len();
                        entries.push(entry);
                    }
                }
            }
            if next(&entries) == wanted {
                return Err(io::Error::other(format!("entry {wanted} cannot be read back from {}", segment.name)));
            }
        }
        Ok(entries)
    }

    /// Gives up segments that hold only entries before `index`.
    pub fn discard_before(&mut self, index: u64) -> Result<(), LogError> {
        let Some((place, _)) = self.places.around(index) else { return Ok(()) };
        if self.segments.get(1).is_none_or(|second| second.start > place) {
            return Ok(());
        }
        if self.state_place < place {
            self.write(Frame { synced: self.synced, state: Some(self.state), ..Frame::default() })?;
        }
        // The state must be on the disk before the segments go that have it, too.
        self.sync()?;
        while self.segments.get(1).is_some_and(|second| second.start <= place) {
            let name = self.segments.remove(0).name;
            self.folder.remove(&name).map_err(|error| self.poisoned_by(error))?;
        }
        let start = self.segments[0].start;
        self.places.frames.retain(|(_, place)| *place >= start);
        Ok(())
    }

    /// Ends in order: a mark says that all is there.
    pub fn close(mut self) -> Result<(), LogError> {
        self.sync()?;
        self.write(Frame { synced: self.synced, is_closing: true, ..Frame::default() })?;
        self.sync()
    }

    fn end(&self) -> u64 {
        self.segments.last().map_or(0, |segment| segment.start) + self.open.length()
    }

    fn check(&self) -> Result<(), LogError> {
        self.poison.clone().map_or(Ok(()), Err)
    }

    fn poisoned_by(&mut self, error: impl fmt::Display) -> LogError {
        let error = LogError::Disk(error.to_string());
        self.poison = Some(error.clone());
        error
    }

    fn write(&mut self, frame: Frame) -> Result<(), LogError> {
        if self.open.length() >= self.options.segment_bytes.max(LEAST_SEGMENT) {
            self.rotate()?;
        }
        let segment = self.segments.last().expect("one is open");
        let bytes = frame.encode(segment.salt);
        let before = self.open.length();
        if let Err(error) = self.open.append(&bytes) {
            // A full disk is no broken one: what is under way still finds room in the ballast.
            let is_full = is_full(&error) && self.has_ballast;
            let again =
                if is_full { self.give_up_ballast(before).and_then(|()| self.open.append(&bytes)) } else { Err(error) };
            again.map_err(|error| self.poisoned_by(error))?;
        }
        let Segment { start, .. } = self.segments.last().expect("one is open");
        let place = start + before;
        let is_first_of_segment = self.places.frames.last().is_none_or(|(_, last)| last < start);
        self.places.enter(&frame.entries, place, is_first_of_segment);
        if let Some(state) = frame.state {
            (self.state, self.state_place) = (state, place);
        }
        self.marked = self.marked.max(frame.synced);
        Ok(())
    }

    /// A new segment. All before it is synced, and its start says so.
    fn rotate(&mut self) -> Result<(), LogError> {
        self.sync()?;
        let (start, first_index) = (self.end(), self.last_index() + 1);
        let made = make(&*self.folder, start, first_index).and_then(|name| {
            let header = read_header(&self.folder.read(&name)?);
            let open = self.folder.open(&name)?;
            Ok((name, header, open))
        });
        let (name, header, open) = made.map_err(|error| self.poisoned_by(error))?;
        let Some((Header { salt, .. }, length)) = header else {
            return Err(self.poisoned_by("a new segment cannot be read back"));
        };
        self.open = open;
        self.segments.push(Segment { name, salt, start });
        self.synced = start + length as u64;
        self.marked = start;
        Ok(())
    }

    /// Best effort: a disk that has no room for it is short of space already.
    fn make_ballast(&mut self) {
        if self.has_ballast || self.options.ballast_bytes == 0 {
            return;
        }
        let made = self.folder.create(BALLAST).and_then(|mut file| {
            let zeros = vec![0; self.options.ballast_bytes.min(1 << 20)];
            while (file.length() as usize) < self.options.ballast_bytes {
                file.append(&zeros)?;
            }
            Ok(())
        });
        self.has_ballast = made.is_ok();
        if made.is_err() {
            let _ = self.folder.remove(BALLAST);
        }
    }

    fn give_up_ballast(&mut self, length: u64) -> io::Result<()> {
        self.has_ballast = false;
        self.folder.remove(BALLAST)?;
        self.open.truncate(length)
    }
}

/// A part of a log in which nothing is damaged.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The index of its first entry, if it has one.
    pub(super) first_index: Option<u64>,
    /// Its entries, without those that others took the place of, and as [`scan`] was asked only from an index on.
    pub(super) entries: Vec<Entry>,
    /// The snapshot of another member that took the place of what was there before, if one did.
    pub(super) snapshot: Option<u64>,
    /// The highest term that it names.
    pub(super) term: u64,
    /// Where it ends, if it ends in damage.
    pub(super) damage: Option<String>,
}

/// Reads the log in a folder, what is behind damage included; changes nothing. The runs between damage, without entries up to
/// `index`. An error if a later release wrote a part of it.
pub(super) fn scan(folder: &dyn Folder, index: u64) -> Result<Vec<Run>, OpenError> {
    let mut names = folder.names()?;
    names.retain(|name| name.starts_with(PREFIX));
    let mut runs = vec![Run::default()];
    let (mut marked, mut end) = (0, None);
    let begin_run = |runs: &mut Vec<Run>, at: usize, name: &str| {
        let last = runs.last_mut().expect("there is always one");
        last.damage.get_or_insert_with(|| format!("byte {at} of {name}"));
        runs.push(Run::default());
    };
    for (number, name) in names.iter().enumerate() {
        let bytes = folder.read(name)?;
        let Some((Header { salt, start, .. }, mut at)) = read_header(&bytes) else {
            if first_line(&bytes).is_some_and(|(words, _)| words.starts_with(FORMAT)) {
                return Err(OpenError::Format { file: name.clone() });
            }
            begin_run(&mut runs, 0, name);
            end = None;
            continue;
        };
        if end.is_some_and(|end| end != start) {
            begin_run(&mut runs, 0, name);
        }
        marked = marked.max(start);
        for (place, frame, length) in frames_behind(salt, &bytes, at) {
            if place > at {
                begin_run(&mut runs, at, name);
            }
            marked = marked.max(frame.synced);
            runs.last_mut().expect("there is always one").enter(frame, index);
            at = place + length;
        }
        // What no mark vouches for at the log's end is a torn tail.
        let is_torn = number + 1 == names.len() && marked <= start + at as u64;
        if at < bytes.len() && !is_torn {
            begin_run(&mut runs, at, name);
        }
        end = Some(start + bytes.len() as u64);
    }
    Ok(runs)
}

impl Run {
    fn enter(&mut self, frame: Frame, index: u64) {
        self.term = self.term.max(frame.state.map_or(0, |state| state.term));
        for entry in frame.entries {
            if entry.kind == EntryKind::Snapshot {
                (self.first_index, self.snapshot) = (None, Some(entry.index));
                self.entries.clear();
            }
            self.first_index.get_or_insert(entry.index);
            while self.entries.last().is_some_and(|last| last.index >= entry.index) {
                self.entries.pop();
            }
            if entry.index > index {
                self.term = self.term.max(entry.term);
                self.entries.push(entry);
            }
        }
    }
}

/// The whole frames from a place on, whatever is between them: each with its place and its length.
fn frames_behind(salt: u64, bytes: &[u8], mut at: usize) -> impl Iterator<Item = (usize, Frame, usize)> {
    std::iter::from_fn(move || {
        loop {
            let found = find_salt(salt, bytes, at)?;
            match Frame::decode(salt, &bytes[found..]) {
                Some((frame, length)) => {
                    at = found + length;
                    return Some((found, frame, length));
                }
                None => at = found + 1,
            }
        }
    })
}

/// What has been read of a log that is being opened.
#[derive(Debug, Default)]
struct Recovery {
    segments: Vec<Segment>,
    places: Places,
    marked: u64,
    state: HardState,
    state_place: u64,
    /// The last frame says that the log ended in order.
    is_closed: bool,
    /// Where the next segment must start.
    end: u64,
}

impl Recovery {
    /// Reads a segment up to its end, or to the first thing in it that is no frame; how far that is.
    fn read(&mut self, name: &str, bytes: &[u8], visit: &mut impl FnMut(Entry)) -> Result<usize, OpenError> {
        let Some((Header { salt, start, first_index }, header)) = read_header(bytes) else {
            let is_later = first_line(bytes).is_some_and(|(words, _)| words.starts_with(FORMAT));
            let file = name.to_owned();
            return Err(if is_later {
                OpenError::Format { file }
            } else {
                OpenError::Damaged { file, offset: 0, reason: "a bad header" }
            });
        };
        let is_first = self.segments.is_empty();
        if !is_first && start != self.end {
            return Err(OpenError::Damaged { file: name.into(), offset: 0, reason: "a part of the log is missing" });
        }
        if is_first {
            self.places.last_index = first_index - 1;
        }
        self.marked = self.marked.max(start);
        let mut at = header;
        while let Some((frame, length)) = Frame::decode(salt, &bytes[at..]) {
            let is_first_of_segment = self.places.frames.last().is_none_or(|(_, last)| *last < start);
            self.places.enter(&frame.entries, start + at as u64, is_first_of_segment);
            frame.entries.into_iter().for_each(&mut *visit);
            if let Some(state) = frame.state {
                (self.state, self.state_place) = (state, start + at as u64);
            }
            self.marked = self.marked.max(frame.synced);
            self.is_closed = frame.is_closing;
            at += length;
        }
        self.end = start + at as u64;
        self.segments.push(Segment { name: name.into(), salt, start });
        Ok(at)
    }

    /// Whether what begins at `end` is a torn tail; an error if it is damage.
    fn judge(&mut self, name: &str, bytes: &[u8], end: usize, is_last: bool) -> Result<(), OpenError> {
        let segment = self.segments.last().expect("it has just been read");
        let marked = if is_last { self.marked } else { u64::MAX }; // the next one was made after this was synced
        let later = frames_behind(segment.salt, bytes, end).map(|(_, frame, _)| frame.synced);
        let marked = later.fold(marked, u64::max);
        if marked > segment.start + end as u64 {
            let reason = "something that is no whole frame";
            return Err(OpenError::Damaged { file: name.to_owned(), offset: end as u64, reason });
        }
        Ok(())
    }
}

struct Header {
    salt: u64,
    start: u64,
    first_index: u64,
}

/// The words of the line that a segment begins with, in any release, and how many bytes it is; `None` if it is damaged.
fn first_line(bytes: &[u8]) -> Option<(&str, usize)> {
    const LONGEST: usize = 200;
    let end = bytes.iter().take(LONGEST).position(|byte| *byte == b'\n')?;
    let (words, sum) = str::from_utf8(&bytes[..end]).ok()?.rsplit_once(' ')?;
    (sum == header_sum(words)).then_some((words, end + 1))
}

/// The header that a segment begins with, and how many bytes it is.
fn read_header(bytes: &[u8]) -> Option<(Header, usize)> {
    let (words, length) = first_line(bytes)?;
    let mut reader = Reader::new(words);
    let format = (reader.raw("format").ok()?, u64::read(&mut reader).ok()?);
    if format != (FORMAT, VERSION) {
        return None;
    }
    let salt = u64::try_from(reader.hexadecimal("salt").ok()?).ok()?;
    let header = Header { salt, start: Words::read(&mut reader).ok()?, first_index: Words::read(&mut reader).ok()? };
    reader.finish().ok()?;
    Some((header, length))
}

fn header_sum(words: &str) -> String {
    format!("{:016x}", twox_hash::XxHash3_64::oneshot(words.as_bytes()))
}

/// Makes a segment; when it has its name, its header and the name are on the disk.
fn make(folder: &dyn Folder, start: u64, first_index: u64) -> io::Result<String> {
    let salt = u64::from_le_bytes(random()?);
    let words = format!("{FORMAT} {VERSION} {salt:x} {start} {first_index}");
    let mut file = folder.create(NEW)?;
    file.append(format!("{words} {}\n", header_sum(&words)).as_bytes())?;
    file.sync()?;
    // By its place: a new leader may replace entries, so that indices go back.
    let name = format!("{PREFIX}{start:020}");
    folder.rename(NEW, &name)?;
    folder.sync()?;
    Ok(name)
}
