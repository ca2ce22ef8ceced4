//! Checksums that clients announce and ask for: five algorithms, of an object or of its parts.
//!
//! | | bits | of an object in parts |
//! |---|---|---|
//! | CRC32, CRC32C | 32 | of the whole, from those of the parts; or of the parts' checksums one behind the other |
//! | CRC64NVME | 64 | of the whole; the store has it for every file, so it needs no computation here |
//! | SHA1, SHA256 | 160, 256 | of the parts' checksums one behind the other |
//!
//! They travel in base64. With a file they are kept as digests, by the algorithm's name in lower case.

use base64ct::{Base64, Encoding};
use crc_fast::CrcAlgorithm;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// How a checksum is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    pub(super) const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// As S3 writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The one of this name, in any case.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// The header field that has such a checksum, or names it as a trailer.
    pub(super) fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// The XML element that has such a checksum.
    pub(super) fn element(self) -> &'static str {
        match self {
            Self::Crc32 => "ChecksumCRC32",
            Self::Crc32c => "ChecksumCRC32C",
            Self::Crc64Nvme => "ChecksumCRC64NVME",
            Self::Sha1 => "ChecksumSHA1",
            Self::Sha256 => "ChecksumSHA256",
        }
    }

    /// Under which name it is kept with a file.
    pub(super) fn digest(self) -> &'static str {
        match self {
            Self::Crc32 => "crc32",
            Self::Crc32c => "crc32c",
            Self::Crc64Nvme => "crc64nvme",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    /// Whether the checksum of a whole follows from those of its parts.
    pub(super) fn combines(self) -> bool {
        self.crc().is_some()
    }

    /// The checksum of parts that follow each other, from the checksum and length of each; `None` if it does not follow
    /// from these, or one of them is none.
    pub(super) fn of_whole(self, parts: &[(String, u64)]) -> Option<String> {
        let crc = self.crc()?;
        let mut whole = 0;
        for (part, length) in parts {
            let part = self.decoded(part)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
            whole = crc_fast::checksum_combine(crc, whole, part, *length);
        }
        Some(self.of_number(whole))
    }

    /// The checksum of the parts' checksums, one behind the other, and how many they are; `None` if one of them is none.
    pub(super) fn of_parts(self, parts: &[String]) -> Option<String> {
        let mut hasher = Hasher::new(self);
        for part in parts {
            hasher.update(&self.decoded(part)?);
        }
        Some(format!("{}-{}", hasher.finish(), parts.len()))
    }

    fn decoded(self, text: &str) -> Option<Vec<u8>> {
        let length = match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        };
        Base64::decode_vec(text).ok().filter(|bytes| bytes.len() == length)
    }

    /// Whether this can be such a checksum.
    pub(super) fn is_one(self, text: &str) -> bool {
        self.decoded(text).is_some()
    }

    /// A CRC as it travels.
    pub(super) fn of_number(self, crc: u64) -> String {
        let bytes = crc.to_be_bytes();
        Base64::encode_string(if self == Self::Crc64Nvme { &bytes } else { &bytes[4..] })
    }
}

/// A checksum of bytes that come piece by piece.
pub(super) struct Hasher {
    algorithm: Algorithm,
    state: State,
}

enum State {
    Crc(crc_fast::Digest),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hasher {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        let state = match (algorithm.crc(), algorithm) {
            (Some(crc), _) => State::Crc(crc_fast::Digest::new(crc)),
            (None, Algorithm::Sha1) => State::Sha1(Sha1::new()),
            (None, _) => State::Sha256(Sha256::new()),
        };
        Self { algorithm, state }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Takes the next piece.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Crc(digest) => digest.update(bytes),
            State::Sha1(digest) => digest.update(bytes),
            State::Sha256(digest) => digest.update(bytes),
        }
    }

    /// The checksum of all that came so far.
    pub(super) fn finish(&self) -> String {
        match &self.state {
            State::Crc(digest) => self.algorithm.of_number(digest.clone().finalize()),
            State::Sha1(digest) => Base64::encode_string(&digest.clone().finalize()),
            State::Sha256(digest) => Base64::encode_string(&digest.clone().finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(algorithm: Algorithm, bytes: &[u8]) -> String {
        let mut hasher = Hasher::new(algorithm);
        bytes.chunks(5).for_each(|piece| hasher.update(piece));
        hasher.finish()
    }

    #[test]
    fn checksums_are_the_published_ones() {
        for (algorithm, hexadecimal) in [
            (Algorithm::Crc32, "cbf43926"),
            (Algorithm::Crc32c, "e3069283"),
            (Algorithm::Crc64Nvme, "ae8b14860a799888"),
            (Algorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            (Algorithm::Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
        ] {
            let checksum = of(algorithm, b"123456789");
            assert_eq!(super::super::signature::hex(&Base64::decode_vec(&checksum).unwrap()), hexadecimal);
            assert!(algorithm.is_one(&checksum) && !algorithm.is_one(&checksum[1..]));
        }
    }

    #[test]
    fn parts_add_up_to_the_whole_where_that_can_be() {
        let whole = kit::bytes(7, 100_000);
        for algorithm in Algorithm::ALL {
            let parts: Vec<_> = whole.chunks(33_000).map(|part| (of(algorithm, part), part.len() as u64)).collect();
            let expected = algorithm.combines().then(|| of(algorithm, &whole));
            assert_eq!(algorithm.of_whole(&parts), expected, "{algorithm:?}");
        }
    }

    #[test]
    fn a_checksum_of_checksums_says_of_how_many() {
        // As computed by Python's hashlib and zlib from the parts "a" and "b".
        let parts = [of(Algorithm::Sha256, b"a"), of(Algorithm::Sha256, b"b")];
        assert_eq!(
            Algorithm::Sha256.of_parts(&parts).as_deref(),
            Some("5aAf7hTg7VxIcU8iGA8lrYNltT+XefedxKPX6Tlj+Uo=-2")
        );
        let parts = [of(Algorithm::Crc32, b"a"), of(Algorithm::Crc32, b"b")];
        assert_eq!(Algorithm::Crc32.of_parts(&parts).as_deref(), Some("7pJxdw==-2"));
        assert_eq!(Algorithm::Crc32.of_parts(&["%".into()]), None);
    }
}
