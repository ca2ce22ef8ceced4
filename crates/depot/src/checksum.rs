//! How bytes are known to be the right ones: CRC-64/NVME, everywhere. (depot 3.3)
//!
//! A checksum of two pieces follows from the checksums of each, so that a file's does not depend on how it was cut into
//! chunks and blocks, and composing files reads no bytes. It is also S3's default checksum of a whole object. It finds
//! accidents, not forgers: secrets and handshakes keep those out.

use std::sync::LazyLock;

use crc_fast::{CrcAlgorithm, Digest};

use crate::words::hexadecimal_word;

/// The CRC-64/NVME of some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Checksum(pub u64);

hexadecimal_word!(Checksum, u64, "checksum");

/// A checksum of bytes that come piece by piece.
#[derive(Clone, Debug)]
pub struct Hasher(Digest);

impl Default for Hasher {
    fn default() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64Nvme))
    }
}

impl Hasher {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all that came so far.
    pub fn checksum(&self) -> Checksum {
        Checksum(self.0.clone().finalize())
    }
}

impl Checksum {
    /// The checksum of no bytes at all.
    pub const EMPTY: Self = Self(0);

    /// The checksum of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes))
    }

    /// The checksum of what this one is of, followed by `length` bytes that `next` is of.
    ///
    /// The library's own takes a quarter of a millisecond; composing ten thousand parts would hold the Controller up for
    /// seconds. This takes about two microseconds.
    pub fn followed_by(self, next: Self, length: u64) -> Self {
        if self == Self::EMPTY {
            return next; // most files have one object, and most objects one block
        }
        // The checksum is a remainder of polynomials over GF(2); appending n zero bytes multiplies it by x^8n.
        let mut remainder = self.0;
        for (bit, power) in POWERS.iter().enumerate() {
            if length >> bit & 1 == 1 {
                remainder = multiply(remainder, *power);
            }
        }
        Self(remainder ^ next.0)
    }
}

/// Each block of this many bytes has a checksum of its own; the last one of an object may be shorter. (depot 3.3)
pub const BLOCK_BYTES: usize = 64 << 10;

/// What the checksums of the blocks of `length` bytes add up to.
pub fn combined(blocks: &[Checksum], length: u64) -> Checksum {
    let mut left = length;
    blocks.iter().fold(Checksum::EMPTY, |before, block| {
        let bytes = left.min(BLOCK_BYTES as u64);
        left -= bytes;
        before.followed_by(*block, bytes)
    })
}

/// The polynomial of CRC-64/NVME with its bits reversed, as the checksum's are; x^64 is left out.
const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;

/// x^(8 * 2^n) modulo the polynomial, for each n.
static POWERS: LazyLock<[u64; 64]> = LazyLock::new(|| {
    const ONE: u64 = 1 << 63; // reversed: the highest bit is x^0
    let mut power = ONE >> 8;
    let mut powers = [0; 64];
    for entry in &mut powers {
        *entry = power;
        power = multiply(power, power);
    }
    powers
});

/// The product of two polynomials, bits reversed, modulo [`POLYNOMIAL`].
fn multiply(a: u64, b: u64) -> u64 {
    let mut product = 0;
    let mut shifted = b;
    for place in (0..64).rev() {
        if a >> place & 1 == 1 {
            product ^= shifted;
        }
        let carry = shifted & 1;
        shifted = (shifted >> 1) ^ (POLYNOMIAL * carry);
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_crc_64_nvme() {
        // The check value of the CRC catalogue.
        assert_eq!(Checksum::of(b"123456789"), Checksum(0xae8b_1486_0a79_9888));
        assert_eq!(Checksum::of(b""), Checksum::EMPTY);
    }

    #[test]
    fn pieces_in_order_have_the_checksum_of_the_whole() {
        let whole: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(n) >> 5) as u8).collect();
        for at in [0, 1, 7, 8, 63, 64, 65, 4095, 65_536, 199_999, 200_000] {
            let (head, tail) = whole.split_at(at);
            let combined = Checksum::of(head).followed_by(Checksum::of(tail), tail.len() as u64);
            assert_eq!(combined, Checksum::of(&whole), "cut at {at}");
            let mut hasher = Hasher::default();
            hasher.update(head);
            hasher.update(tail);
            assert_eq!(hasher.checksum(), combined, "cut at {at}");
        }
    }

    #[test]
    fn lengths_beyond_memory_agree_with_the_library() {
        for length in [1 << 33, (1 << 40) + 12_345, u64::MAX >> 1] {
            let (a, b) = (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
            let expected = crc_fast::checksum_combine(CrcAlgorithm::Crc64Nvme, a, b, length);
            assert_eq!(Checksum(a).followed_by(Checksum(b), length), Checksum(expected), "{length} bytes");
        }
    }
}
