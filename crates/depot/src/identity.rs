//! The names of things, and why none is ever used twice. (depot 2)
//!
//! A store can be taken back in time: by a backup that is restored, by a disk that an old copy replaces, by a machine that
//! lost its power before its last writes. What was issued in the lost time must not be issued again for something else: a
//! client could hold an old ETag, a Dstore an old object. So nothing is named by a bare counter. A [`History`] is drawn at
//! random whenever time may have been taken back, each leadership has a Raft term of its own, and what a leader issues is
//! named by both and a number.

use std::fmt;

use crate::words::{Line, ParseError, Reader, Words, hexadecimal_word, words};

/// Drawn once, when a store is created, and recorded on each of its disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

hexadecimal_word!(ClusterId, u128, "cluster id");

/// 64 random bits, drawn when a store is created and by everything that can return it to an earlier state. (depot 2.1)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct History(pub u64);

hexadecimal_word!(History, u64, "history");

/// One leadership: its first change to the namespace. (depot 2.1)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// The history it leads in.
    pub history: History,
    /// Its Raft term.
    pub term: u64,
    /// Drawn at random: two leaderships of one term, of which one was lost with its disk, still differ.
    pub nonce: u64,
}

words!(struct Epoch { history, term, nonce });

/// The name of an object. A leader numbers the keys it issues; no two leaderships share history and term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The history it was issued in.
    pub history: History,
    /// The term of the leader that issued it.
    pub term: u64,
    /// Which of this leader's keys it is.
    pub number: u64,
}

/// One word, so that a key is easily found in a log: `history.term.number`.
impl Words for Key {
    fn write(&self, line: &mut Line) {
        line.dotted(self.history.0, [self.term, self.number]);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let word = reader.raw("key")?;
        let mut parts = word.splitn(3, '.');
        let mut part = || parts.next().filter(|part| !part.starts_with('+'));
        let key = (|| {
            let history = History(u64::from_str_radix(part()?, 16).ok()?);
            Some(Self { history, term: part()?.parse().ok()?, number: part()?.parse().ok()? })
        })();
        key.ok_or_else(|| crate::words::invalid("key", word))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.history, self.term, self.number)
    }
}

/// A point in the one order of all changes, told apart from the same number in another history. ETags are made of it, and
/// the cursors of `watch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version {
    /// The history the change was made in.
    pub history: History,
    /// The number of the change. Numbers go on from one history to the next.
    pub sequence: u64,
}

words!(struct Version { history, sequence });

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.history, self.sequence)
    }
}

/// A Dstore of the cluster, numbered when it was admitted; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DstoreId(pub u32);

impl Words for DstoreId {
    fn write(&self, line: &mut Line) {
        line.number(self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        reader.plain("Dstore").map(Self)
    }
}

impl fmt::Display for DstoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Drawn at random and kept in the folder of a Controller's log: the folder is the Controller. One that returns without its
/// disk is another one. (depot 4.8)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControllerId(pub u64);

hexadecimal_word!(ControllerId, u64, "Controller");

/// Drawn at random and kept on a Dstore's disk: the folder is the Dstore, on whatever host it is. (depot 5.6)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId(pub u128);

hexadecimal_word!(DiskId, u128, "disk id");

/// How far a Dstore's records have come. Later positions are greater, across restarts. (depot 4.6)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which start of the Dstore: a counter that is synced at each.
    pub start: u64,
    /// The number of the record since that start.
    pub number: u64,
}

words!(struct Position { start, number });

/// Drawn at random by a client, to mark which changes are its own. (depot 3.5)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

hexadecimal_word!(SessionId, u128, "session");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_word_and_comes_back() {
        let key = Key { history: History(0xabc), term: 7, number: u64::MAX };
        assert_eq!(key.to_line(), "abc.7.18446744073709551615");
        assert_eq!(Key::from_line(&key.to_line()), Ok(key));
        for word in ["", "1.2", "1.2.3.4", "x.1.1", "1.+1.1", "1..1", "fffffffffffffffff.1.1"] {
            assert!(Key::from_line(word).is_err(), "{word:?}");
        }
    }

    #[test]
    fn a_position_after_a_restart_is_later() {
        let before = Position { start: 1, number: 900 };
        assert!(before < Position { start: 2, number: 0 } && before < Position { start: 1, number: 901 });
    }
}
