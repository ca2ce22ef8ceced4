//! What the depot's clients asked for, when, and what they were told.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use depot::checksum::Checksum;
use depot::path::Path;
use kit::bytes;
use parking_lot::Mutex;

/// A file's name, by its number.
pub type Name = usize;

/// The place of a change in the one order of all changes.
pub type Sequence = u64;

/// A file's content, as the store describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content {
    /// In bytes.
    pub size: u64,
    /// Of all of them.
    pub checksum: u64,
}

impl Content {
    /// What these bytes are.
    pub fn of(bytes: &[u8]) -> Self {
        Self { size: bytes.len() as u64, checksum: Checksum::of(bytes).0 }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes #{:08x}", self.size, self.checksum as u32)
    }
}

/// What a file looks like to its readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its content.
    pub content: Content,
    /// The change that gave it this content.
    pub version: Sequence,
    /// The last change of any kind.
    pub changed: Sequence,
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { content, version, changed } = self;
        write!(f, "{content}, version {version}, changed {changed}")
    }
}

/// A change that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Content for a name.
    Put(Name, Content, Wanted),
    /// A file gets another name, in place of what is there.
    Move(Name, Name),
    /// A second file of the same content, in place of what is there.
    Copy(Name, Name),
    /// A file goes.
    Remove(Name),
    /// A file of the contents of these versions of files, which go with the change or stay.
    Compose {
        /// The file.
        target: Name,
        /// Its content.
        content: Content,
        /// Of what.
        sources: Vec<(Name, Sequence)>,
        /// Whether the sources go.
        removes: bool,
    },
}

/// What a put asks of what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    Anything,
    /// That nothing is there.
    Absent,
    /// That it has this version.
    Version(Sequence),
}

impl Change {
    /// As `watch` tells it.
    pub fn event(&self) -> (&'static str, Vec<Name>) {
        match self {
            Self::Put(name, ..) => ("put", vec![*name]),
            Self::Move(from, to) => ("move", vec![*from, *to]),
            Self::Copy(from, to) => ("copy", vec![*from, *to]),
            Self::Remove(name) => ("remove", vec![*name]),
            Self::Compose { target, .. } => ("compose", vec![*target]),
        }
    }
}

/// What became of a change.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is the one of this number.
    Done(Sequence),
    /// It had no effect.
    NotDone,
    /// It has had its effect, may still have it, or never will.
    Unknown,
}

/// A change and what became of it.
#[derive(Clone, Debug)]
pub struct Made {
    /// When it was asked for, since the start of the run.
    pub begin: Duration,
    /// When its outcome was known, or waiting for it was given up.
    pub end: Duration,
    /// What.
    pub change: Change,
    /// What became of it.
    pub outcome: Outcome,
}

/// What a client has seen, or learned from a refusal: it must have been so at some time between the two.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it was asked, since the start of the run.
    pub begin: Duration,
    /// When the answer was there.
    pub end: Duration,
    /// What.
    pub sight: Sight,
}

/// See [`Seen`].
#[derive(Clone, Debug)]
pub enum Sight {
    /// How one file is; `None` if there is none.
    File(Name, Option<Look>),
    /// All files.
    All(BTreeMap<Name, Look>),
    /// There is a file.
    Taken(Name),
    /// The name's content is not of this version, or there is none.
    NotVersion(Name, Sequence),
    /// One of these at least is so.
    AnyNotVersion(Vec<(Name, Sequence)>),
}

/// What ends a run: no order of events explains it.
pub type Wrong = String;

/// Where all clients write down what happens to them.
pub struct Recorder {
    start: Instant,
    made: Mutex<Vec<Made>>,
    seen: Mutex<Vec<Seen>>,
    wrong: Mutex<Option<Wrong>>,
    /// How contents came about: of the bytes of these numbers, one behind the other.
    contents: Mutex<HashMap<Content, Vec<u64>>>,
    /// By kind and outcome.
    tally: Mutex<BTreeMap<(&'static str, String), u64>>,
}

impl Recorder {
    /// The clock starts now.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            made: Mutex::default(),
            seen: Mutex::default(),
            wrong: Mutex::default(),
            contents: Mutex::default(),
            tally: Mutex::default(),
        }
    }

    /// Since the start of the run.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Notes a change that has ended.
    pub fn made(&self, begin: Duration, change: Change, outcome: Outcome) {
        self.made.lock().push(Made { begin, end: self.now(), change, outcome });
    }

    /// Notes what an answer that has just come has shown.
    pub fn seen(&self, begin: Duration, sight: Sight) {
        self.seen_by(begin, self.now(), sight);
    }

    /// Notes what an answer that had come by `end` has shown.
    pub fn seen_by(&self, begin: Duration, end: Duration, sight: Sight) {
        self.seen.lock().push(Seen { begin, end, sight });
    }

    /// Notes what may not happen at all.
    pub fn wrong(&self, what: impl fmt::Display) {
        self.wrong.lock().get_or_insert_with(|| what.to_string());
    }

    /// Counts an operation.
    pub fn count(&self, kind: &'static str, outcome: impl Into<String>) {
        *self.tally.lock().entry((kind, outcome.into())).or_default() += 1;
    }

    /// Operations so far, by kind and outcome.
    pub fn tally(&self) -> BTreeMap<(&'static str, String), u64> {
        self.tally.lock().clone()
    }

    /// What was wrong first, if anything was.
    pub fn first_wrong(&self) -> Option<Wrong> {
        self.wrong.lock().clone()
    }

    /// Takes what has been recorded since the last time.
    pub fn take(&self) -> (Vec<Made>, Vec<Seen>) {
        (std::mem::take(&mut self.made.lock()), std::mem::take(&mut self.seen.lock()))
    }

    /// The bytes of these numbers, one behind the other, of which a content is about to be made.
    pub fn register(&self, numbers: Vec<u64>) -> (Content, Vec<u8>) {
        let bytes = bytes_of(&numbers);
        let content = Content::of(&bytes);
        self.contents.lock().insert(content, numbers);
        (content, bytes)
    }

    /// What a content was made of; `None` if no client ever made it.
    pub fn numbers(&self, content: Content) -> Option<Vec<u64>> {
        self.contents.lock().get(&content).cloned()
    }
}

/// A number like this one whose bytes fill several objects.
pub fn several_objects(number: u64) -> u64 {
    number / 16 * 16 + 4
}

/// The bytes of a number: most contents are small, some fill blocks, some are objects of their own, some several.
fn piece(number: u64) -> Vec<u8> {
    let size = match number % 16 {
        0 => 0,
        1 => 65_536,
        2 => 65_537,
        3 => 1_300_000,
        4 => 2_100_000 + number as usize % 1_000_000,
        _ => 1 + number as usize % 8_000,
    };
    bytes(number, size)
}

/// The bytes of these numbers, one behind the other.
pub fn bytes_of(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| piece(*number)).collect()
}

/// What a name is in the store. They lie in two directories, which come and go with them.
pub fn path_of(name: Name) -> Path {
    format!("/{}/file {name:02}", ["even", "odd"][name % 2]).parse().expect("a path")
}

/// Which of the names this is; `None` if it is none of ours.
pub fn name_of(path: &str) -> Option<Name> {
    let name = path.rsplit_once("file ")?.1.parse().ok()?;
    (path_of(name).as_str().trim_start_matches('/') == path.trim_start_matches('/')).then_some(name)
}
