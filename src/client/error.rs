//! What can go wrong for a client.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::protocol::message::MAX_SIZE;
use crate::protocol::{Address, FileName, NameError};

/// Why an operation failed.
#[derive(Debug)]
pub enum Error {
    /// The name cannot be a file's; no request was sent.
    Name(NameError),
    /// The file is larger than the protocol can say; no request was sent. (spec 7.13)
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// Fewer than R Dstores have joined. (spec 3.3)
    NotEnoughDstores,
    /// There is a file of this name, or one is just being stored or removed. (spec 3.2)
    AlreadyExists(FileName),
    /// There is no file of this name, or it is just being stored or removed. (spec 3.2)
    DoesNotExist(FileName),
    /// None of the Dstores that should have the file delivered it. (spec 4.3)
    LoadFailed {
        /// The file.
        name: FileName,
        /// The Dstore tried last, and why it failed; `None` if no Dstore has the file any more.
        last_failure: Option<(Address, io::Error)>,
    },
    /// The Controller did not answer in time. For a STORE or REMOVE, whether it has happened is not known.
    NoReply {
        /// What was asked.
        request: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The store was stopped before all of its content was sent, and nothing is stored: by now the Controller has given it
    /// up. Its timeout bounds a whole store. (spec 4.2)
    StoreOverdue {
        /// The file.
        name: FileName,
        /// Its size in bytes.
        size: u64,
        /// How many bytes each Dstore had been sent.
        sent: u64,
        /// How long a store may take.
        limit: Duration,
    },
    /// The Controller cannot be reached, or its connection broke.
    Controller {
        /// Where it should be.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A Dstore could not be given its copy, so that the file is not stored.
    Dstore {
        /// The Dstore.
        address: Address,
        /// What the system says.
        source: io::Error,
    },
    /// The Controller said something that is no answer to what it was asked.
    Unexpected {
        /// What it said, or what is wrong with it.
        reply: String,
    },
    /// Something on this side: the source ended early, a target cannot be written.
    Local(io::Error),
}

impl Error {
    pub(super) fn dstore(address: &Address, source: io::Error) -> Self {
        Self::Dstore { address: address.clone(), source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => write!(f, "{error}"),
            Self::TooLarge { size } => write!(f, "a file of {size} bytes; the most is {MAX_SIZE}"),
            Self::NotEnoughDstores => write!(f, "not enough Dstores have joined; start more, or wait for them"),
            Self::AlreadyExists(name) => write!(f, "{name} already exists; remove it first"),
            Self::DoesNotExist(name) => write!(f, "{name} does not exist"),
            Self::LoadFailed { name, last_failure: None } => write!(f, "no Dstore has {name} any more"),
            Self::LoadFailed { name, last_failure: Some((dstore, error)) } => {
                write!(f, "no Dstore delivers {name}; the last one tried, {dstore}: {}", Plainly(error))
            }
            Self::NoReply { request, timeout } => {
                write!(f, "the Controller did not answer {request:?} within {} ms", timeout.as_millis())
            }
            Self::StoreOverdue { name, size, sent, limit } => {
                let limit = limit.as_millis();
                write!(
                    f,
                    "{name} is not stored: only {sent} of {size} bytes were sent within {limit} ms, the limit for a whole store"
                )
            }
            Self::Controller { address, source } => write!(f, "the Controller at {address}: {}", Plainly(source)),
            Self::Dstore { address, source } => write!(f, "Dstore {address}: {}", Plainly(source)),
            Self::Unexpected { reply } => write!(f, "the Controller gave an answer that makes no sense: {reply}"),
            Self::Local(error) => write!(f, "{}", Plainly(error)),
        }
    }
}

/// An I/O error in words that need no knowledge of the protocol.
struct Plainly<'a>(&'a io::Error);

impl fmt::Display for Plainly<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.kind() {
            io::ErrorKind::UnexpectedEof => write!(f, "ended too early"),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => write!(f, "no answer in time"),
            _ => write!(f, "{}", self.0),
        }
    }
}

impl std::error::Error for Error {}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Local(error)
    }
}
