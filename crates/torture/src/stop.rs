//! Why a run ends early.

use std::fmt;
use std::io;

use stevedore::program::Failure;

/// What ends a run before its time.
pub enum Stop {
    /// Something is wrong with what is tortured.
    Wrong(String),
    /// Something is wrong with the torture.
    Failed(Failure),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(Failure::new(format!("the torture itself: {error}")))
    }
}

/// Ends a run: something is wrong with what is tortured.
pub fn wrong<T>(what: impl fmt::Display) -> Result<T, Stop> {
    Err(Stop::Wrong(what.to_string()))
}
