//! What the clients asked for, when, and what they were told.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::Hasher;
use std::time::{Duration, Instant};

use kit::Rng;
use parking_lot::Mutex;

/// A file's name, by its number.
pub type Name = usize;

/// File content, told apart by size and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content {
    /// In bytes.
    pub size: u64,
    /// Of the bytes.
    pub hash: u64,
}

impl Content {
    /// What these bytes are.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        Self { size: bytes.len() as u64, hash: hasher.finish() }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes #{:08x}", self.size, self.hash as u32)
    }
}

/// `size` bytes, different from those that any other `rng` makes.
pub fn fresh_bytes(rng: &mut Rng, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&rng.next().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// One request and what came of it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The client that asked, by its number.
    pub client: usize,
    /// When it was asked, since the start of the run.
    pub begin: Duration,
    /// When the outcome was known, or waiting for it was given up.
    pub end: Duration,
    /// What was asked.
    pub request: Request,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a client can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// STORE, with this content.
    Store(Name, Content),
    /// LOAD, with as many RELOADs as it takes.
    Load(Name),
    /// REMOVE.
    Remove(Name),
    /// LIST.
    List,
}

/// What a client can learn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// STORE_COMPLETE.
    Stored,
    /// The content that came.
    Loaded(Content),
    /// REMOVE_COMPLETE.
    Removed,
    /// The names in a LIST, as a set of bits.
    Listed(Vec<bool>),
    /// ERROR_FILE_ALREADY_EXISTS.
    AlreadyExists,
    /// ERROR_FILE_DOES_NOT_EXIST.
    DoesNotExist,
    /// ERROR_NOT_ENOUGH_DSTORES.
    NotEnoughDstores,
    /// ERROR_LOAD.
    LoadFailed,
    /// Whether it has happened, or will, is not known.
    Unknown {
        /// What stood in the way.
        reason: String,
    },
    /// Not known; but the client has not sent R Dstores what they would need to acknowledge, so the store cannot be
    /// completed.
    Incomplete {
        /// What stood in the way.
        reason: String,
    },
    /// Something that no request may end in.
    Wrong {
        /// What.
        reason: String,
    },
}

impl Request {
    /// The word for it in the totals.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Store(..) => "STORE",
            Self::Load(_) => "LOAD",
            Self::Remove(_) => "REMOVE",
            Self::List => "LIST",
        }
    }
}

impl Outcome {
    /// The word for it in the totals.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stored | Self::Loaded(_) | Self::Removed | Self::Listed(_) => "done",
            Self::AlreadyExists => "already exists",
            Self::DoesNotExist => "does not exist",
            Self::NotEnoughDstores => "not enough Dstores",
            Self::LoadFailed => "no holder delivers",
            Self::Unknown { .. } => "unknown",
            Self::Incomplete { .. } => "not completed on purpose",
            Self::Wrong { .. } => "wrong",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, begin, end, request, outcome } = self;
        write!(
            f,
            "{:>10.4} to {:>10.4} s  client {client:<3} {:<6} ",
            begin.as_secs_f64(),
            end.as_secs_f64(),
            request.kind()
        )?;
        if let Request::Store(_, content) = request {
            write!(f, "{content} ")?;
        }
        match outcome {
            Outcome::Loaded(content) => write!(f, "-> {content}"),
            Outcome::Unknown { reason } | Outcome::Incomplete { reason } | Outcome::Wrong { reason } => {
                write!(f, "-> {}: {reason}", outcome.kind())
            }
            _ => write!(f, "-> {}", outcome.kind()),
        }
    }
}

/// A Dstore that was offered for a load although it had no copy, neither when the load began nor when the offer came.
/// (spec 4.6.6, 7.20)
#[derive(Clone, Debug)]
pub struct Phantom {
    /// The file.
    pub name: Name,
    /// Where the Dstore is found.
    pub port: u16,
    /// When the load began.
    pub begin: Duration,
    /// When the offer had come, and the folder had been looked into.
    pub end: Duration,
}

impl Phantom {
    /// Whether the file changed, or may have changed, meanwhile: then it is not known what was true when. An operation
    /// that is not known to have ended may go on for `settle`.
    pub fn is_explained_by(&self, operation: &Operation, settle: Duration) -> bool {
        let is_change = match operation.request {
            Request::Store(name, _) => name == self.name && operation.outcome != Outcome::AlreadyExists,
            Request::Remove(name) => name == self.name && operation.outcome != Outcome::DoesNotExist,
            Request::Load(_) | Request::List => false,
        };
        let is_over = matches!(operation.outcome, Outcome::Stored | Outcome::Removed);
        let end = operation.end + if is_over { Duration::ZERO } else { settle };
        is_change && operation.begin <= self.end && end >= self.begin
    }
}

/// Where all clients write down what happens to them.
pub struct Recorder {
    start: Instant,
    operations: Mutex<Vec<Operation>>,
    phantoms: Mutex<Vec<Phantom>>,
}

impl Recorder {
    /// The clock starts now.
    pub fn new() -> Self {
        Self { start: Instant::now(), operations: Mutex::default(), phantoms: Mutex::default() }
    }

    /// Since the start of the run.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Notes an operation that has ended.
    pub fn record(&self, operation: Operation) {
        self.operations.lock().push(operation);
    }

    /// Notes what may turn out to be a phantom.
    pub fn suspect(&self, phantom: Phantom) {
        self.phantoms.lock().push(phantom);
    }

    /// Takes what has been suspected since the last time.
    pub fn take_suspected(&self) -> Vec<Phantom> {
        std::mem::take(&mut self.phantoms.lock())
    }

    /// Takes what has been recorded since the last time.
    pub fn take(&self) -> Vec<Operation> {
        std::mem::take(&mut self.operations.lock())
    }
}
