//! What can be wrong with a copy.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};

/// Why a Dstore does not give out a file of its folder.
#[derive(Debug)]
pub enum Defect {
    /// There is no such file, or none that can be read.
    Missing,
    /// It was read, and is not what was stored; this says how that shows. It is of no use.
    Altered(String),
    /// The system could not read it. It may be able to another day.
    Unreadable(io::Error),
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no such file"),
            Self::Altered(how) => f.write_str(how),
            Self::Unreadable(error) => write!(f, "{error}"),
        }
    }
}

impl Error for Defect {}

/// What has happened when a file is opened or read.
impl From<io::Error> for Defect {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Missing,
            ErrorKind::UnexpectedEof => Self::Altered("it has become shorter while it was read".into()),
            _ => Self::Unreadable(error),
        }
    }
}

/// For callers that need only the words.
impl From<Defect> for io::Error {
    fn from(defect: Defect) -> Self {
        Self::other(defect)
    }
}
