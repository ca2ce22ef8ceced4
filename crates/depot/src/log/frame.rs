//! One write of the log: what is in it, and how it is known to be whole.
//!
//! ```text
//! salt    8 bytes    the segment's, so that a frame can be found behind damage
//! length  4 bytes    of the body
//! sum     8 bytes    XXH3 of the length and the body, seeded with the salt
//! body               synced 8812\n
//!                    state 3 1 16\n                      term, vote, commit; if they have changed
//!                    entry 17 3 change 61\n              index, term, kind, length
//!                    1732190000000 - remove /a any\n     the entry itself
//!                    closed\n                            if the log ended in order behind this frame
//! ```

use twox_hash::XxHash3_64;

use crate::words::{Line, ParseError, Reader, Words, invalid, words};

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the sequence. It takes the place of an entry with the same index, and of all behind that.
    pub index: u64,
    /// The term of the leader that proposed it.
    pub term: u64,
    /// What it is to whom.
    pub kind: EntryKind,
    /// A change's line, or what Raft's library encodes.
    pub data: Vec<u8>,
}

/// What an entry is to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A change to the namespace; without data, it is Raft's own.
    Change,
    /// A change to the group of Controllers, in the first form of Raft's library.
    Membership,
    /// A change to the group of Controllers, in the second form.
    JointMembership,
    /// Stands for all entries up to its index: they are in a snapshot of another member. Nothing before it counts.
    Snapshot,
}

words!(enum EntryKind, "kind of entry" {
    "change" => Change,
    "membership" => Membership,
    "joint" => JointMembership,
    "snapshot" => Snapshot,
});

/// What a member of a Raft group must not forget. (depot 2.3)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The last term it has heard of.
    pub term: u64,
    /// The member it has voted for in that term; 0 for none.
    pub vote: u64,
    /// Entries up to here are committed.
    pub commit: u64,
}

words!(struct HardState { term, vote, commit });

/// What a frame says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    /// Up to where the log was synced when the frame was written: a place in the log as a whole.
    pub(super) synced: u64,
    pub(super) state: Option<HardState>,
    pub(super) entries: Vec<Entry>,
    /// The log ended in order behind it.
    pub(super) is_closing: bool,
}

const SALT: usize = 8;
/// What precedes a body.
const HEAD: usize = SALT + 4 + 8;
/// No frame is larger: a change has at most 8 MiB, and one that large is alone in its frame.
pub(super) const MOST_BYTES: usize = 16 << 20;

impl Frame {
    pub(super) fn encode(&self, salt: u64) -> Vec<u8> {
        let room = 64 + self.entries.iter().map(|entry| 40 + entry.data.len()).sum::<usize>();
        let mut frame = Vec::with_capacity(HEAD + room);
        frame.resize(HEAD, 0);
        let add_line = |frame: &mut Vec<u8>, verb: &str, write: &dyn Fn(&mut Line)| {
            let mut line = Line::default();
            line.plain(verb);
            write(&mut line);
            frame.extend_from_slice(line.as_str().as_bytes());
            frame.push(b'\n');
        };
        add_line(&mut frame, "synced", &|line| self.synced.write(line));
        if let Some(state) = &self.state {
            add_line(&mut frame, "state", &|line| state.write(line));
        }
        for Entry { index, term, kind, data } in &self.entries {
            add_line(&mut frame, "entry", &|line| {
                index.write(line);
                term.write(line);
                kind.write(line);
                line.number(data.len());
            });
            frame.extend_from_slice(data);
            frame.push(b'\n');
        }
        if self.is_closing {
            add_line(&mut frame, "closed", &|_| ());
        }
        let (head, body) = frame.split_at_mut(HEAD);
        let length = u32::try_from(body.len()).expect("a frame has at most 16 MiB").to_le_bytes();
        let sum = sum(salt, length, body).to_le_bytes();
        head[..SALT].copy_from_slice(&salt.to_le_bytes());
        head[SALT..SALT + 4].copy_from_slice(&length);
        head[SALT + 4..].copy_from_slice(&sum);
        frame
    }

    /// The frame that `bytes` begin with, and how many of them it is; `None` if there is no whole one.
    pub(super) fn decode(salt: u64, bytes: &[u8]) -> Option<(Self, usize)> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let (salted, head) = head.split_at(SALT);
        let (length, expected) = head.split_at(4);
        let length: [u8; 4] = length.try_into().ok()?;
        let body = rest.get(..u32::from_le_bytes(length) as usize)?;
        if salted != salt.to_le_bytes() || expected != sum(salt, length, body).to_le_bytes() {
            return None;
        }
        // What checks was written by us; that it cannot be read would be a bug, and is treated as damage.
        Self::parse(body).ok().map(|frame| (frame, HEAD + body.len()))
    }

    fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let mut rest = body;
        let mut frame = Self::default();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n').ok_or(ParseError::Missing("line end"))?;
            let line = str::from_utf8(&rest[..end]).map_err(|_| invalid("line", "no text"))?;
            rest = &rest[end + 1..];
            let mut reader = Reader::new(line);
            match reader.raw("part of a frame")? {
                "synced" => frame.synced = Words::read(&mut reader)?,
                "state" => frame.state = Some(Words::read(&mut reader)?),
                "entry" => {
                    let (index, term, kind) =
                        (Words::read(&mut reader)?, Words::read(&mut reader)?, Words::read(&mut reader)?);
                    let length: usize = reader.plain("length")?;
                    let data = rest.get(..length).ok_or(ParseError::Missing("entry"))?.to_vec();
                    rest = rest.get(length + 1..).ok_or(ParseError::Missing("line end"))?;
                    frame.entries.push(Entry { index, term, kind, data });
                }
                "closed" => frame.is_closing = true,
                other => return Err(invalid("part of a frame", other)),
            }
            reader.finish()?;
        }
        Ok(frame)
    }
}

fn sum(salt: u64, length: [u8; 4], body: &[u8]) -> u64 {
    let mut hasher = XxHash3_64::with_seed(salt);
    std::hash::Hasher::write(&mut hasher, &length);
    std::hash::Hasher::write(&mut hasher, body);
    std::hash::Hasher::finish(&hasher)
}

/// Where the next thing that looks like the beginning of a frame is, from `at` on.
pub(super) fn find_salt(salt: u64, bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    rest.windows(SALT).position(|window| window == salt.to_le_bytes()).map(|place| at + place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        let entry = |index, kind, data: &[u8]| Entry { index, term: 3, kind, data: data.to_vec() };
        Frame {
            synced: 77,
            state: Some(HardState { term: 3, vote: 1, commit: 16 }),
            entries: vec![
                entry(17, EntryKind::Change, b"1 - reap"),
                entry(18, EntryKind::Change, b""),
                entry(19, EntryKind::Membership, b"\n\0entry 1 1 change 3\n"),
            ],
            is_closing: true,
        }
    }

    #[test]
    fn a_frame_comes_back_and_knows_its_length() {
        for frame in [frame(), Frame::default()] {
            let mut bytes = frame.encode(42);
            let length = bytes.len();
            bytes.extend_from_slice(b"what follows");
            assert_eq!(Frame::decode(42, &bytes), Some((frame, length)));
        }
    }

    #[test]
    fn no_altered_or_shortened_frame_checks() {
        let bytes = frame().encode(42);
        assert_eq!(Frame::decode(43, &bytes), None, "another segment's salt");
        for at in 0..bytes.len() {
            assert_eq!(Frame::decode(42, &bytes[..at]), None, "cut at {at}");
            for bit in 0..8 {
                let mut altered = bytes.clone();
                altered[at] ^= 1 << bit;
                assert_eq!(Frame::decode(42, &altered), None, "bit {bit} of byte {at}");
            }
        }
    }
}
