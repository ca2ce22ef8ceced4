//! What members of a group tell each other.

use std::fmt;

use protobuf::Message as _;
use raft::eraftpb;

use crate::identity::ControllerId;
use crate::words::{Reader, Words};

/// What one member tells another. Any may be lost, late, or come twice.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// What Raft's library has to say.
    Raft(eraftpb::Message),
    /// The hash of the sender's namespace at one sequence. (depot 4.8)
    Hash {
        /// The sender.
        from: ControllerId,
        /// The receiver.
        to: ControllerId,
        /// Behind this change.
        sequence: u64,
        /// Of all records.
        hash: u128,
    },
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidMessage;

impl fmt::Display for InvalidMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these bytes are no message of a Controller")
    }
}

impl std::error::Error for InvalidMessage {}

/// What a message begins with, by its kind.
const RAFT: &[u8] = b"raft ";
const HASH: &[u8] = b"hash ";

impl Message {
    /// The member it is from.
    pub fn from(&self) -> ControllerId {
        match self {
            Self::Raft(message) => ControllerId(message.from),
            Self::Hash { from, .. } => *from,
        }
    }

    /// The member it is for.
    pub fn to(&self) -> ControllerId {
        match self {
            Self::Raft(message) => ControllerId(message.to),
            Self::Hash { to, .. } => *to,
        }
    }

    /// The sequence of the snapshot that it announces, if it does: the snapshot's file has to be there before the message is
    /// taken, by [`install_snapshot`](super::Replica::install_snapshot).
    pub fn snapshot(&self) -> Option<u64> {
        match self {
            Self::Raft(message) if message.has_snapshot() => Some(message.get_snapshot().get_metadata().index),
            _ => None,
        }
    }

    /// As bytes: a word, and what Raft's library writes, or more words.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Raft(message) => {
                let mut bytes = RAFT.to_vec();
                message.write_to_vec(&mut bytes).expect("memory takes all bytes, and all fields are set");
                bytes
            }
            Self::Hash { from, to, sequence, hash } => {
                let words = format!("{} {} {} {hash:x}", from.to_line(), to.to_line(), sequence.to_line());
                [HASH, words.as_bytes()].concat()
            }
        }
    }

    /// The message that these bytes are.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidMessage> {
        if let Some(rest) = bytes.strip_prefix(RAFT) {
            return eraftpb::Message::parse_from_bytes(rest).map(Self::Raft).map_err(|_| InvalidMessage);
        }
        let words = bytes.strip_prefix(HASH).and_then(|rest| str::from_utf8(rest).ok()).ok_or(InvalidMessage)?;
        let mut reader = Reader::new(words);
        let mut read = || {
            let (from, to) = (Words::read(&mut reader)?, Words::read(&mut reader)?);
            let (sequence, hash) = (Words::read(&mut reader)?, reader.hexadecimal("hash")?);
            reader.clone().finish().map(|()| Self::Hash { from, to, sequence, hash })
        };
        read().map_err(|_| InvalidMessage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back() {
        let raft = eraftpb::Message { from: 1, to: 2, term: 3, index: 4, ..Default::default() };
        let hash = Message::Hash { from: ControllerId(0xa1), to: ControllerId(2), sequence: 7000, hash: u128::MAX };
        for message in [Message::Raft(raft), hash] {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
        for bytes in [&b""[..], b"raft", b"hash 1 2 3", b"hash 1 2 3 4 5", b"raft \xff\xff", b"other 1"] {
            assert_eq!(Message::decode(bytes), Err(InvalidMessage), "{bytes:?}");
        }
    }
}
