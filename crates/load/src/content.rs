//! What is in the files: bytes that follow from a key, made and checked at the speed of copying memory.
//!
//! A block is a stamp, which no other block of any file has, and a piece of a pool that is the same for all. So
//! a block that is lost, doubled, shifted or another file's is found out.

use std::io::{self, Read};
use std::sync::LazyLock;

use kit::{Rng, hash};
use stevedore::client::Target;

const BLOCK: usize = 64 << 10;

static POOL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = Rng(0);
    (0..2 * BLOCK / 8).flat_map(|_| rng.next().to_le_bytes()).collect()
});

/// The content of one file. Reading yields it from the beginning on.
#[derive(Clone, Debug)]
pub struct Content {
    key: u64,
    size: u64,
    position: u64,
}

impl Content {
    /// `size` bytes that follow from `key`.
    pub fn new(key: u64, size: u64) -> Self {
        Self { key, size, position: 0 }
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Hands out what is next, `most` bytes at most; moves on. Nothing at the end.
    fn next_piece<T>(&mut self, most: usize, take: impl FnOnce(&[u8]) -> T) -> T {
        let most = (self.size - self.position).min(most as u64) as usize;
        let (block, within) = (self.position / BLOCK as u64, (self.position % BLOCK as u64) as usize);
        let stamp = hash(&[self.key, block]);
        let stamp_bytes = stamp.to_le_bytes();
        let piece = match stamp_bytes.get(within..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => {
                let start = stamp as usize % BLOCK;
                &POOL[start + within..start + BLOCK]
            }
        };
        let piece = &piece[..piece.len().min(most)];
        self.position += piece.len() as u64;
        take(piece)
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() && self.position < self.size {
            filled += self.next_piece(buffer.len() - filled, |piece| {
                buffer[filled..filled + piece.len()].copy_from_slice(piece);
                piece.len()
            });
        }
        Ok(filled)
    }
}

/// Takes what is loaded, and compares it with what was stored if it is asked to.
pub struct Check {
    expected: Option<Content>,
    is_wrong: bool,
}

impl Check {
    /// Compares with this; with nothing, takes everything as it comes.
    pub fn against(expected: Option<Content>) -> Self {
        Self { expected, is_wrong: false }
    }

    /// Whether all of the expected bytes have come, and no others.
    pub fn is_passed(&self) -> bool {
        !self.is_wrong && self.expected.as_ref().is_none_or(|expected| expected.position == expected.size)
    }
}

impl Target for Check {
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(expected) = &mut self.expected else { return Ok(()) };
        while !bytes.is_empty() && !self.is_wrong {
            let (is_equal, length) =
                expected.next_piece(bytes.len(), |piece| (*piece == bytes[..piece.len()], piece.len()));
            self.is_wrong = !is_equal || length == 0;
            bytes = &bytes[length..];
        }
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.is_wrong = false;
        if let Some(expected) = &mut self.expected {
            expected.position = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [u64; 9] = [0, 1, 7, 8, 9, 1000, BLOCK as u64, BLOCK as u64 + 3, 3 * BLOCK as u64 - 1];

    fn bytes(key: u64, size: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        Content::new(key, size).read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn passes(size: u64, pieces: &[&[u8]]) -> bool {
        let mut check = Check::against(Some(Content::new(5, size)));
        pieces.iter().for_each(|piece| check.write(piece).unwrap());
        check.is_passed()
    }

    #[test]
    fn content_passes_its_own_check_however_it_is_cut() {
        for size in SIZES {
            let content = bytes(5, size);
            assert_eq!(content.len() as u64, size);
            for length in [1, 7, 100, BLOCK, usize::MAX] {
                let pieces: Vec<_> = content.chunks(length).collect();
                assert!(passes(size, &pieces), "{size} bytes in pieces of {length}");
            }
        }
    }

    #[test]
    fn what_is_changed_cut_extended_or_swapped_does_not_pass() {
        for size in SIZES {
            let content = bytes(5, size);
            assert!(!passes(size, &[&content, b"x"]), "{size} bytes and one more");
            if size == 0 {
                continue;
            }
            assert!(!passes(size, &[&content[1..]]), "{size} bytes without the first");
            for at in [0, content.len() / 2, content.len() - 1] {
                let mut changed = content.clone();
                changed[at] ^= 1;
                assert!(!passes(size, &[&changed]), "{size} bytes, changed at {at}");
            }
        }
        let content = bytes(5, 3 * BLOCK as u64);
        let blocks: Vec<_> = content.chunks(BLOCK).collect();
        assert!(!passes(content.len() as u64, &[blocks[0], blocks[2], blocks[1]]));
        assert!(!passes(content.len() as u64, &[&bytes(6, content.len() as u64)]));
    }

    #[test]
    fn another_holder_begins_again() {
        let mut check = Check::against(Some(Content::new(5, 1000)));
        check.write(b"garbage").unwrap();
        check.restart().unwrap();
        check.write(&bytes(5, 1000)).unwrap();
        assert!(check.is_passed());
    }
}
