//! How an operation fails.

use std::fmt;
use std::io;

use crate::namespace::change::Refusal;

/// Why an operation failed, as the caller of [`Files`](super::Files) is told.
#[derive(Debug)]
pub enum Error {
    /// The store refuses it: not found, already exists, a condition does not hold, and so on. It had no effect.
    Refused(Refusal),
    /// No Dstore has room. It had no effect.
    NoSpace,
    /// Fewer Dstores than needed can take an object. It had no effect.
    NotEnoughDstores {
        /// How many can.
        there: usize,
        /// How many must.
        needed: usize,
        /// Why the last one failed, to be read behind the rest; empty if that is not known.
        why: String,
    },
    /// What is needed cannot be reached: which Controller, or which object's Dstores. It had no effect.
    Unavailable(String),
    /// All copies of a part of the content that can be reached are damaged.
    Damaged(String),
    /// The version that was being read was replaced, and its objects are collected.
    Gone,
    /// The changes behind the cursor of a watch are not kept any more: list what is there, and begin anew.
    TooOld,
    /// The peer did not accept our secret, or speaks another protocol; or a user on whose behalf a program asks may not have it done.
    NotPermitted(String),
    /// The deadline passed, or the connection broke, before the answer came. It may have had effect or not.
    OutcomeUnknown(String),
    /// The bytes to put could not be read. Nothing was put.
    Source(io::Error),
    /// The bytes that were read could not be handed over.
    Sink(io::Error),
    /// The other end broke the protocol. A defect, or another program.
    Protocol(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::NoSpace => f.write_str("no Dstore has room for it"),
            Self::NotEnoughDstores { there, needed, why } => write!(
                f,
                "not enough Dstores: {there} can take it, {needed} must{why} (stevedore status shows which are away)"
            ),
            Self::Unavailable(what) => write!(f, "unavailable: {what}"),
            Self::Damaged(what) => write!(f, "damaged: {what}"),
            Self::TooOld => {
                f.write_str("the changes from there on are not kept any more: list what is there, and begin anew")
            }
            Self::Gone => f.write_str("the version that was being read was replaced, and is gone"),
            Self::NotPermitted(why) => write!(f, "not permitted: {why}"),
            Self::OutcomeUnknown(why) => write!(f, "the outcome is unknown: {why}"),
            Self::Source(error) => write!(f, "the content cannot be read: {error}"),
            Self::Sink(error) => write!(f, "the content cannot be written: {error}"),
            Self::Protocol(what) => write!(f, "the other end broke the protocol: {what}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
