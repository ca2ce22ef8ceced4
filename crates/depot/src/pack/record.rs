//! One record of a pack: what it says, and how it is known to be one.
//!
//! ```text
//! salt     8 bytes    the pack's, so that a record can be found behind damage
//! length   4 bytes    of the header
//! sum      8 bytes    XXH3 of the record's offset in the pack, the length and the header; seeded with the salt
//! header              object 1f.3.77 1000 9ae0… 1 9ae0…\n      key, length, checksum, the checksum of each 64 KiB block
//! content             what the header announces
//! ```
//!
//! The sum covers where the record is. So a record that was copied checks nowhere else, not even in its own pack: a client
//! may store the bytes of this very pack.

use twox_hash::XxHash3_64;

pub use crate::checksum::BLOCK_BYTES;
use crate::checksum::{Checksum, combined};
use crate::identity::Key;
use crate::words::{Words, hexadecimal_word, words};

/// Drawn at random for each pack, and never told to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Salt(pub(super) u64);

hexadecimal_word!(Salt, u64, "salt");

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// An object; its bytes follow.
    Object { key: Key, length: u32, checksum: Checksum, blocks: Vec<Checksum> },
    /// A record of an object does not count any more.
    Removed { mark: Mark },
    /// The bytes of an object's record are not what they were.
    Damaged { mark: Mark },
    /// What the pack holds: so many bytes of [`Listed`] lines follow.
    Footer { length: u32, checksum: Checksum },
}

words!(enum Header, "kind of record" {
    "object" => Object { key, length, checksum, blocks },
    "removed" => Removed { mark },
    "damaged" => Damaged { mark },
    "footer" => Footer { length, checksum },
});

/// Which record of an object is meant, of all that there may have been. A salt is never drawn twice, so that a mark means
/// the same wherever it lies, and nothing once that pack is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) key: Key,
    /// The pack of the object's record.
    pub(super) salt: Salt,
    /// Where it begins there.
    pub(super) offset: u32,
}

words!(struct Mark { key, salt, offset });

/// One record, as a footer lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    Object { offset: u32, key: Key, length: u32, checksum: Checksum },
    Removed { mark: Mark },
    Damaged { mark: Mark },
}

words!(enum Listed, "kind of record" {
    "object" => Object { offset, key, length, checksum },
    "removed" => Removed { mark },
    "damaged" => Damaged { mark },
});

/// What precedes a header.
pub(super) const HEAD: usize = 8 + 4 + 8;
/// No header is longer: that of 1 MiB has 16 blocks.
pub(super) const MOST_HEADER: usize = 512;

impl Header {
    /// All of a record but its content, if it begins at `offset` in the pack.
    pub(super) fn encode(&self, salt: Salt, offset: u32) -> Vec<u8> {
        let mut header = self.to_line().into_bytes();
        header.push(b'\n');
        let length = (header.len() as u32).to_le_bytes(); // at most MOST_HEADER
        let mut record = Vec::with_capacity(HEAD + header.len());
        record.extend_from_slice(&salt.0.to_le_bytes());
        record.extend_from_slice(&length);
        record.extend_from_slice(&sum(salt, offset, length, &header).to_le_bytes());
        record.extend_from_slice(&header);
        record
    }

    /// The header of a record that begins at `offset` in the pack, with `bytes`, and how many of them precede its content.
    pub(super) fn decode(salt: Salt, offset: u32, bytes: &[u8]) -> Option<(Self, usize)> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let (salted, head) = head.split_at(8);
        let (length, expected) = head.split_at(4);
        let length: [u8; 4] = length.try_into().ok()?;
        let header = rest.get(..u32::from_le_bytes(length) as usize)?;
        if salted != salt.0.to_le_bytes()
            || header.len() > MOST_HEADER
            || expected != sum(salt, offset, length, header).to_le_bytes()
        {
            return None;
        }
        let line = str::from_utf8(header).ok()?.strip_suffix('\n')?;
        Some((Self::from_line(line).ok()?, HEAD + header.len()))
    }

    /// How many bytes of content follow.
    pub(super) fn content_length(&self) -> usize {
        match self {
            Self::Object { length, .. } | Self::Footer { length, .. } => *length as usize,
            Self::Removed { .. } | Self::Damaged { .. } => 0,
        }
    }

    /// True if these are the bytes that were written behind the header.
    pub(super) fn fits(&self, content: &[u8]) -> bool {
        match self {
            Self::Object { length, checksum, blocks, .. } => {
                content.len() == *length as usize
                    && block_sums(content) == *blocks
                    && combined(blocks, u64::from(*length)) == *checksum
            }
            Self::Footer { length, checksum } => {
                content.len() == *length as usize && Checksum::of(content) == *checksum
            }
            Self::Removed { .. } | Self::Damaged { .. } => content.is_empty(),
        }
    }

    /// What a footer says of the record.
    pub(super) fn listed(&self, offset: u32) -> Option<Listed> {
        match *self {
            Self::Object { key, length, checksum, .. } => Some(Listed::Object { offset, key, length, checksum }),
            Self::Removed { mark } => Some(Listed::Removed { mark }),
            Self::Damaged { mark } => Some(Listed::Damaged { mark }),
            Self::Footer { .. } => None,
        }
    }
}

/// The checksum of each block of these bytes.
pub(super) fn block_sums(bytes: &[u8]) -> Vec<Checksum> {
    bytes.chunks(BLOCK_BYTES).map(Checksum::of).collect()
}

/// As many bytes as what precedes the content of an object of this length may have.
pub(super) fn room_of_header(length: usize) -> usize {
    HEAD + 116 + 17 * length.div_ceil(BLOCK_BYTES)
}

fn sum(salt: Salt, offset: u32, length: [u8; 4], header: &[u8]) -> u64 {
    // In one piece, as a hasher that takes several has memory of its own.
    let mut bytes = Vec::with_capacity(8 + header.len());
    bytes.extend_from_slice(&offset.to_le_bytes());
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(header);
    XxHash3_64::oneshot_with_seed(salt.0, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::History;

    fn headers() -> Vec<Header> {
        let key = Key { history: History(0xabc), term: 3, number: 77 };
        let content = vec![7; BLOCK_BYTES + 10];
        let blocks = block_sums(&content);
        let mark = Mark { key, salt: Salt(9), offset: 8192 };
        vec![
            Header::Object { key, length: content.len() as u32, checksum: Checksum::of(&content), blocks },
            Header::Removed { mark },
            Header::Damaged { mark },
            Header::Footer { length: 3, checksum: Checksum::of(b"abc") },
        ]
    }

    #[test]
    fn a_header_comes_back_and_knows_its_length() {
        for header in headers() {
            let mut bytes = header.encode(Salt(42), 100);
            let length = bytes.len();
            bytes.extend_from_slice(b"content");
            assert_eq!(Header::decode(Salt(42), 100, &bytes), Some((header, length)));
        }
    }

    #[test]
    fn no_altered_shortened_or_moved_header_checks() {
        for header in headers() {
            let bytes = header.encode(Salt(42), 100);
            assert_eq!(Header::decode(Salt(43), 100, &bytes), None, "another pack's salt");
            assert_eq!(Header::decode(Salt(42), 101, &bytes), None, "another place in the pack");
            for at in 0..bytes.len() {
                assert_eq!(Header::decode(Salt(42), 100, &bytes[..at]), None, "cut at {at}");
                for bit in 0..8 {
                    let mut altered = bytes.clone();
                    altered[at] ^= 1 << bit;
                    assert_eq!(Header::decode(Salt(42), 100, &altered), None, "bit {bit} of byte {at}");
                }
            }
        }
    }

    #[test]
    fn the_checksums_of_blocks_add_up_to_that_of_the_whole() {
        let bytes: Vec<u8> = (0..3 * BLOCK_BYTES as u32 + 5).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        for length in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, bytes.len()] {
            let blocks = block_sums(&bytes[..length]);
            assert_eq!(blocks.len(), length.div_ceil(BLOCK_BYTES));
            assert_eq!(combined(&blocks, length as u64), Checksum::of(&bytes[..length]), "{length} bytes");
        }
        // Blocks of zeros have a checksum of zero only if there are none.
        assert_ne!(Checksum::of(&[0; 5]), Checksum::EMPTY);
    }
}
