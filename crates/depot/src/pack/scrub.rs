//! The scrub: every object is verified once in a while, and how far that is outlives a restart. (depot 5.4, 5.6)
//!
//! A round over a large disk takes days. A Dstore that is restarted more often than that would begin anew each time and never
//! come to the objects at the end. So the disk keeps where the round is, in a small file of a line of text:
//!
//! ```text
//! scrub 1 1f.3.77 1795341373 1794131773         verified up to this key; the round's beginning; the last round's end
//! ```
//!
//! The file may be old or gone: then some objects are verified once more.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Disk, GetError};
use crate::identity::Key;
use crate::words::{Line, ParseError, Reader, Words, invalid, words};

const NAME: &str = "scrub";
const NEW: &str = "new-scrub";
const FORMAT: &str = "scrub";
const VERSION: &str = "1";

/// What a step of the scrub has found.
#[derive(Clone, Debug, Default)]
pub struct Scrubbed {
    /// Where the next step goes on; `None` if all has been verified.
    pub last: Option<Key>,
    /// How many objects are what they were.
    pub objects: u64,
    /// How many bytes were read, about.
    pub bytes: u64,
    /// Objects that are damaged.
    pub damaged: Vec<Key>,
    /// Objects that could not be read for another reason.
    pub errors: Vec<(Key, String)>,
}

/// Where a round of the scrub is. Times are the system's, in seconds since 1970: they decide when to read, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubRound {
    /// What is verified up to here; `None` at the round's beginning.
    pub after: Option<Key>,
    /// When the round began, or is to begin.
    pub begun: u64,
    /// When the last round ended: each object that is older was verified since the beginning of that round. At first, when
    /// the disk was first used.
    pub completed: u64,
}

words!(struct ScrubRound { after, begun, completed });

impl ScrubRound {
    /// Of a disk that was never verified: its round begins now.
    fn first() -> Self {
        let now = now();
        Self { after: None, begun: now, completed: now }
    }

    /// The round is over: the next one begins so long after this one began, or now if that has passed.
    pub fn complete(&mut self, period: Duration) {
        let now = now();
        *self = Self { after: None, begun: now.max(self.begun + period.as_secs()), completed: now };
    }

    /// How long it is until the round begins; nothing if it has begun.
    pub fn begins_in(&self) -> Duration {
        Duration::from_secs(if self.after.is_some() { 0 } else { self.begun.saturating_sub(now()) })
    }

    /// How long ago the last round ended.
    pub fn age(&self) -> Duration {
        Duration::from_secs(now().saturating_sub(self.completed))
    }

    fn parse(text: &str) -> Result<Self, ParseError> {
        let mut reader = Reader::new(text.strip_suffix('\n').ok_or(ParseError::Missing("end"))?);
        for (expected, what) in [(FORMAT, "format"), (VERSION, "version")] {
            let word = reader.raw(what)?;
            if word != expected {
                return Err(invalid(what, word));
            }
        }
        let round = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(round)
    }
}

/// The system's time in seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Disk {
    /// Verifies the objects after this key, until so many bytes are read. One call after another, each with the key that
    /// the one before ended at, finds what has decayed.
    pub fn scrub_step(&self, after: Option<Key>, most_bytes: u64) -> Scrubbed {
        let mut scrubbed = Scrubbed { last: after, ..Scrubbed::default() };
        while scrubbed.bytes < most_bytes {
            let next = self.state.lock().index.after(scrubbed.last).next();
            let Some((key, entry)) = next else {
                scrubbed.last = None;
                break;
            };
            scrubbed.last = Some(key);
            scrubbed.bytes += super::index::weight(entry.length);
            match self.verify(&key) {
                Ok(()) => scrubbed.objects += 1,
                Err(GetError::Missing) => {} // removed meanwhile
                Err(GetError::Damaged) => scrubbed.damaged.push(key),
                Err(GetError::Io(error)) => scrubbed.errors.push((key, error.to_string())),
            }
        }
        scrubbed
    }

    /// Where the scrub was when it was last kept.
    pub fn scrub_round(&self) -> ScrubRound {
        let kept = self.folder.read(NAME).ok();
        let round = kept.and_then(|bytes| ScrubRound::parse(std::str::from_utf8(&bytes).ok()?).ok());
        round.unwrap_or_else(ScrubRound::first)
    }

    /// Keeps where the scrub is. When this returns, it is on the disk.
    pub fn keep_scrub_round(&self, round: &ScrubRound) -> io::Result<()> {
        let mut line = Line::default();
        line.plain(FORMAT);
        line.plain(VERSION);
        round.write(&mut line);
        match self.folder.remove(NEW) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {} // nothing there, or a making that was interrupted
        }
        let mut file = self.folder.create(NEW)?;
        file.append(format!("{}\n", line.as_str()).as_bytes())?;
        file.sync()?;
        self.folder.rename(NEW, NAME)?;
        self.folder.sync()
    }
}
