//! The body of a request: taken out of its frames, and checked while it is read.
//!
//! A client says what its content should be, in up to four ways: by the SHA-256 that it has signed, by `Content-MD5`, by
//! `x-amz-checksum-...`, or chunk by chunk. What disagrees is found when the last byte is read. That read fails, so the put
//! that reads fails, and nothing is kept. (`depot::client::Digested`)
//!
//! ```text
//! x-amz-content-sha256                       the body
//!   the SHA-256 of the content, or             content
//!   UNSIGNED-PAYLOAD
//!   STREAMING-UNSIGNED-PAYLOAD-TRAILER         5\r\nhello\r\n 0\r\n x-amz-checksum-crc32:NhCmhg==\r\n \r\n
//!   STREAMING-AWS4-HMAC-SHA256-PAYLOAD         5;chunk-signature=0055...\r\nhello\r\n 0;chunk-signature=b6c6...\r\n \r\n
//!   STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER   the same, with checksum and x-amz-trailer-signature at the end
//! ```
//!
//! The frames are inside HTTP's own. `x-amz-decoded-content-length` says how long the content is without them.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use base64ct::{Base64, Encoding};
use depot::client::Digested;
use depot::namespace::change::MOST_OBJECTS;
use hyper::header::HeaderMap;
use md5::Md5;
use sha2::{Digest, Sha256};

use super::checksum::{Algorithm, Hasher};
use super::problem::Problem;
use super::signature::{CONTENT_SHA256, Signer, UNSIGNED, hex, unhex};
use crate::console::Statistics;
use crate::http::Share;
use crate::locks::Admission;

/// The digest that an ETag is made of.
pub(super) const MD5: &str = "md5";

/// The store keeps so much of an upload in memory, and no more.
const CHUNK: u64 = 8 << 20;

/// No file is larger than this.
const MOST_BYTES: u64 = CHUNK * MOST_OBJECTS as u64;

/// How long an upload waits for memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest line between chunks.
const LONGEST_LINE: u64 = 4 << 10;

/// The most lines of a trailer.
const MOST_TRAILERS: usize = 16;

/// What a client has said of its content before it sends it.
pub(super) struct Announcement {
    framing: Framing,
    /// Of the content; `None` if that is not known.
    length: Option<u64>,
    sha256: Option<[u8; 32]>,
    md5: Option<[u8; 16]>,
    /// The checksum that is to be computed and kept, with its value if the head has it.
    checksum: Option<(Algorithm, Option<String>)>,
    /// That value comes in the trailer.
    is_in_trailer: bool,
}

/// How content lies in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Plain,
    Chunks { are_signed: bool, has_trailer: bool },
}

impl Announcement {
    /// Of a request with a body of this length.
    pub(super) fn of(headers: &HeaderMap, body: Option<u64>) -> Result<Self, Problem> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let (framing, sha256) = match text(CONTENT_SHA256) {
            None | Some(UNSIGNED) => (Framing::Plain, None),
            Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER") => {
                (Framing::Chunks { are_signed: false, has_trailer: true }, None)
            }
            Some("STREAMING-AWS4-HMAC-SHA256-PAYLOAD") => {
                (Framing::Chunks { are_signed: true, has_trailer: false }, None)
            }
            Some("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER") => {
                (Framing::Chunks { are_signed: true, has_trailer: true }, None)
            }
            Some(text) => {
                let message = "x-amz-content-sha256 is a SHA-256, or says how the body is signed";
                let sha256 = unhex(text).ok_or_else(|| Problem::bad("InvalidArgument", message))?;
                (Framing::Plain, Some(sha256))
            }
        };
        let length = match (framing, text("x-amz-decoded-content-length")) {
            (Framing::Plain, _) => body,
            (Framing::Chunks { .. }, Some(text)) => {
                let bad = |_| Problem::bad("InvalidArgument", "x-amz-decoded-content-length is a number of bytes");
                Some(text.parse().map_err(bad)?)
            }
            (Framing::Chunks { .. }, None) => {
                let message = "a body in chunks says how long its content is: x-amz-decoded-content-length";
                return Err(Problem::new(hyper::StatusCode::LENGTH_REQUIRED, "MissingContentLength", message));
            }
        };
        if length > Some(MOST_BYTES) {
            let message = format!("an object or a part has at most {MOST_BYTES} bytes");
            return Err(Problem::bad("EntityTooLarge", message));
        }
        let md5 = text("content-md5").map(|text| {
            let decoded = Base64::decode_vec(text).ok().and_then(|bytes| bytes.try_into().ok());
            decoded.ok_or_else(|| Problem::bad("InvalidDigest", "Content-MD5 is an MD5 in base64"))
        });
        let (checksum, is_in_trailer) = (checksum(headers)?, headers.contains_key("x-amz-trailer"));
        Ok(Self { framing, length, sha256, md5: md5.transpose()?, checksum, is_in_trailer })
    }

    /// How long the content is; `None` if that is not known.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// What it says the checksum is computed by.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        self.checksum.as_ref().map(|(algorithm, _)| *algorithm)
    }

    /// Has a checksum computed by this algorithm if the client has named none.
    pub(super) fn compute(&mut self, algorithm: Option<Algorithm>) {
        self.checksum = self.checksum.take().or(algorithm.map(|algorithm| (algorithm, None)));
    }
}

/// The checksum that the client names: by a value in the head or in the trailer, or by the algorithm alone.
fn checksum(headers: &HeaderMap) -> Result<Option<(Algorithm, Option<String>)>, Problem> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    let mut values = Algorithm::ALL.into_iter().filter_map(|algorithm| Some((algorithm, text(algorithm.header())?)));
    let value = values.next();
    if values.next().is_some() {
        return Err(Problem::bad("InvalidRequest", "a request has one checksum at most"));
    }
    if let Some((algorithm, value)) = value {
        if !algorithm.is_one(value) {
            let message = format!("{} is no {} in base64", algorithm.header(), algorithm.name());
            return Err(Problem::bad("InvalidRequest", message));
        }
        return Ok(Some((algorithm, Some(value.to_owned()))));
    }
    if let Some(trailer) = text("x-amz-trailer") {
        let named = Algorithm::ALL.into_iter().find(|algorithm| algorithm.header().eq_ignore_ascii_case(trailer));
        let unknown = || Problem::bad("InvalidRequest", format!("x-amz-trailer: {trailer} is no checksum of S3's"));
        return Ok(Some((named.ok_or_else(unknown)?, None)));
    }
    let name = text("x-amz-sdk-checksum-algorithm").or(text("x-amz-checksum-algorithm"));
    match name.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(MD5)) {
        None => Ok(None),
        Some(name) => {
            let unknown = || Problem::bad("InvalidRequest", format!("{name} is no checksum of S3's"));
            Ok(Some((Algorithm::of_name(name).ok_or_else(unknown)?, None)))
        }
    }
}

/// Content that is being read. Reading fails at its end if it is not what was announced; [`problem`](Self::problem) says why.
pub(super) struct Payload<'a, R> {
    body: BufReader<R>,
    announced: Announcement,
    signer: Option<Signer>,
    /// So many bytes of content were read.
    received: u64,
    place: InBody,
    md5: Md5,
    sha256: Option<Sha256>,
    checksum: Option<Hasher>,
    problem: Option<Problem>,
    backing: Backing<'a>,
}

/// What an upload is counted against, and what lets it be done.
pub(super) struct Backing<'a> {
    pub(super) share: Share<'a>,
    /// So much was taken from the share.
    pub(super) kept: u64,
    pub(super) statistics: &'a Statistics,
    /// Asked once more at the end of the content: a lock may have come meanwhile.
    pub(super) admission: Option<&'a Admission<'a>>,
}

enum InBody {
    /// Before the line of a chunk, or in plain content.
    Begin,
    /// In a chunk.
    Chunk { left: u64, sha256: Sha256, signature: Option<[u8; 32]> },
    /// Behind everything.
    End,
}

/// Why content cannot be read on.
enum Failure {
    Io(io::Error),
    Problem(Problem),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl<'a, R: Read> Payload<'a, R> {
    /// `signer` is what has signed the request, if it is signed.
    pub(super) fn new(
        body: R,
        announced: Announcement,
        signer: Option<Signer>,
        backing: Backing<'a>,
    ) -> Result<Self, Problem> {
        if matches!(announced.framing, Framing::Chunks { are_signed: true, .. }) && signer.is_none() {
            return Err(Problem::bad("InvalidRequest", "the chunks of a request can be signed only if its head is"));
        }
        let sha256 = announced.sha256.map(|_| Sha256::new());
        let checksum = announced.algorithm().map(Hasher::new);
        Ok(Self {
            body: BufReader::with_capacity(64 << 10, body),
            announced,
            signer,
            received: 0,
            place: InBody::Begin,
            md5: Md5::new(),
            sha256,
            checksum,
            problem: None,
            backing,
        })
    }

    /// Why the last read has failed, if the content is not what was announced.
    pub(super) fn problem(&mut self) -> Option<Problem> {
        self.problem.take()
    }

    /// All of a small document.
    pub(super) fn read_document(mut self, most: usize) -> Result<Vec<u8>, Problem> {
        let mut document = Vec::new();
        let read = (&mut self).take(most as u64 + 1).read_to_end(&mut document);
        match read {
            Ok(length) if length > most => {
                Err(Problem::bad("MaxMessageLengthExceeded", format!("a document has at most {most} bytes")))
            }
            Ok(_) => Ok(document),
            Err(error) => {
                Err(self.problem().unwrap_or_else(|| Problem::of("the body", &depot::client::Error::Source(error))))
            }
        }
    }

    fn step(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let read = match self.announced.framing {
            Framing::Plain => self.plain(buffer)?,
            Framing::Chunks { are_signed, has_trailer } => self.chunks(buffer, are_signed, has_trailer)?,
        };
        let bytes = &buffer[..read];
        self.md5.update(bytes);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        if let Some(checksum) = &mut self.checksum {
            checksum.update(bytes);
        }
        self.received += read as u64;
        if self.received > self.announced.length.unwrap_or(MOST_BYTES) {
            return Err(incomplete("there is more content than was announced").into());
        }
        let more = (read as u64).min(CHUNK - self.backing.kept);
        if !self.backing.share.grow(more, PATIENCE) {
            let message = "too many uploads are under way: try again soon";
            return Err(Problem::new(hyper::StatusCode::SERVICE_UNAVAILABLE, "SlowDown", message).into());
        }
        self.backing.kept += more;
        self.backing.statistics.received(read as u64);
        Ok(read)
    }

    fn plain(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        if matches!(self.place, InBody::End) {
            return Ok(0);
        }
        let read = self.body.read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            self.place = InBody::End;
            self.check()?;
        }
        Ok(read)
    }

    fn chunks(&mut self, buffer: &mut [u8], are_signed: bool, has_trailer: bool) -> Result<usize, Failure> {
        loop {
            match &mut self.place {
                InBody::End => return Ok(0),
                InBody::Begin => {
                    let (left, signature) = self.chunk_head(are_signed)?;
                    if left == 0 {
                        self.end(signature, has_trailer)?;
                        return Ok(0);
                    }
                    self.place = InBody::Chunk { left, sha256: Sha256::new(), signature };
                }
                InBody::Chunk { left: 0, sha256, signature } => {
                    let (sha256, signature) = (std::mem::take(sha256).finalize(), *signature);
                    self.place = InBody::Begin;
                    if !self.line()?.is_empty() {
                        return Err(incomplete("a chunk is longer than it says").into());
                    }
                    self.verify(signature, &sha256)?;
                }
                InBody::Chunk { left, sha256, .. } => {
                    let most = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let read = self.body.read(&mut buffer[..most])?;
                    if read == 0 && most > 0 {
                        return Err(incomplete("the body ends within a chunk").into());
                    }
                    *left -= read as u64;
                    if are_signed {
                        sha256.update(&buffer[..read]);
                    }
                    return Ok(read);
                }
            }
        }
    }

    /// Reads the line that begins a chunk: its length, and its signature if chunks have one.
    fn chunk_head(&mut self, is_signed: bool) -> Result<(u64, Option<[u8; 32]>), Failure> {
        let line = self.line()?;
        let (length, extension) = line.split_once(';').unwrap_or((&line, ""));
        let is_plain = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_hexdigit());
        let length = u64::from_str_radix(length, 16).ok().filter(|_| is_plain);
        let length = length.ok_or_else(|| incomplete("a chunk begins with its length"))?;
        if !is_signed {
            return Ok((length, None));
        }
        let signature = extension.trim().strip_prefix("chunk-signature=").and_then(unhex);
        let signature =
            signature.ok_or_else(|| Problem::forbidden("SignatureDoesNotMatch", "a chunk has no signature"))?;
        Ok((length, Some(signature)))
    }

    fn verify(&mut self, signature: Option<[u8; 32]>, sha256: &[u8]) -> Result<(), Failure> {
        let (Some(signature), Some(signer)) = (signature, &mut self.signer) else { return Ok(()) };
        if signer.is_next(&signature, sha256) {
            return Ok(());
        }
        Err(Problem::forbidden("SignatureDoesNotMatch", "a chunk does not fit its signature").into())
    }

    /// Behind the last chunk: reads the trailer, if there is one, and checks everything.
    fn end(&mut self, signature: Option<[u8; 32]>, has_trailer: bool) -> Result<(), Failure> {
        self.place = InBody::End;
        self.verify(signature, &Sha256::digest(b""))?;
        let (mut lines, mut trailer_signature) = (String::new(), None);
        for _ in 0..=MOST_TRAILERS {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            if name == "x-amz-trailer-signature" {
                trailer_signature = Some(unhex(value).unwrap_or_default());
                continue;
            }
            lines.push_str(&format!("{name}:{value}\n"));
            if let Some((algorithm, expected)) = &mut self.announced.checksum
                && has_trailer
                && name == algorithm.header()
            {
                *expected = Some(value.to_owned());
            }
        }
        if signature.is_some() && has_trailer {
            let is_right = match (trailer_signature, &mut self.signer) {
                (Some(signature), Some(signer)) => signer.is_trailer(&signature, &lines),
                _ => false,
            };
            if !is_right {
                let problem = Problem::forbidden("SignatureDoesNotMatch", "the trailer does not fit its signature");
                return Err(problem.into());
            }
        }
        if self.announced.is_in_trailer && matches!(self.announced.checksum, Some((_, None))) {
            let message = "the trailer does not have the checksum that x-amz-trailer names";
            return Err(Problem::bad("MalformedTrailerError", message).into());
        }
        // HTTP's own body ends here, too: the next request begins behind it.
        if self.body.read(&mut [0])? > 0 {
            return Err(incomplete("something follows the last chunk").into());
        }
        self.check()?;
        Ok(())
    }

    /// A line up to its end; empty at the end of the body.
    fn line(&mut self) -> Result<String, Failure> {
        let mut line = Vec::new();
        (&mut self.body).take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        match line.last() {
            None => return Ok(String::new()),
            Some(b'\n') => {}
            Some(_) => return Err(incomplete("a line between chunks has no end").into()),
        }
        let text = String::from_utf8(line).map_err(|_| incomplete("a line between chunks is no text"))?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// All was read: it must be what was announced.
    fn check(&mut self) -> Result<(), Problem> {
        if self.announced.length.is_some_and(|length| length != self.received) {
            return Err(incomplete("there is less content than was announced"));
        }
        let of_content = self.sha256.take().map(|sha256| <[u8; 32]>::from(sha256.finalize()));
        if of_content != self.announced.sha256 {
            let message = "the content has another SHA-256 than x-amz-content-sha256 says";
            return Err(Problem::bad("XAmzContentSHA256Mismatch", message));
        }
        if self.announced.md5.is_some_and(|md5| md5 != <[u8; 16]>::from(self.md5.clone().finalize())) {
            return Err(Problem::bad("BadDigest", "the content has another MD5 than Content-MD5 says"));
        }
        if let (Some((algorithm, Some(expected))), Some(hasher)) = (&self.announced.checksum, &self.checksum)
            && *expected != hasher.finish()
        {
            let message = format!("the content has another {} than {} says", algorithm.name(), algorithm.header());
            return Err(Problem::bad("BadDigest", message));
        }
        self.backing.admission.map_or(Ok(()), Admission::renew).map_err(super::locked)
    }
}

impl<R: Read> Read for Payload<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.step(buffer).map_err(|failure| match failure {
            Failure::Io(error) => error,
            Failure::Problem(problem) => {
                self.place = InBody::End;
                let error = io::Error::other(problem.message.clone());
                self.problem = Some(problem);
                error
            }
        })
    }
}

impl<R: Read + Send> Digested for Payload<'_, R> {
    fn digests(&mut self) -> BTreeMap<String, String> {
        let md5 = (MD5.to_owned(), hex(&self.md5.clone().finalize()));
        let checksum = self.checksum.as_ref().map(|hasher| (hasher.algorithm().digest().to_owned(), hasher.finish()));
        [md5].into_iter().chain(checksum).collect()
    }
}

fn incomplete(message: &str) -> Problem {
    Problem::bad("IncompleteBody", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Secret;
    use crate::http::Budget;
    use crate::s3::signature::Claim;
    use crate::s3::target::Query;
    use hyper::Request;
    use hyper::header::HeaderName;

    /// What a body with these fields comes to: its content and digests, or the code of the problem.
    fn read(lines: &[(&'static str, &str)], body: &[u8]) -> Result<(Vec<u8>, BTreeMap<String, String>), &'static str> {
        let headers = lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let announced =
            Announcement::of(&headers.collect(), Some(body.len() as u64)).map_err(|problem| problem.code)?;
        read_signed(announced, body, None)
    }

    fn read_signed(
        announced: Announcement,
        body: &[u8],
        signer: Option<Signer>,
    ) -> Result<(Vec<u8>, BTreeMap<String, String>), &'static str> {
        let (budget, statistics) = (Budget::new(1 << 30), Statistics::new());
        let backing = Backing { share: budget.share(), kept: 0, statistics: &statistics, admission: None };
        let mut payload = Payload::new(body, announced, signer, backing).map_err(|problem| problem.code)?;
        let mut content = Vec::new();
        match payload.read_to_end(&mut content) {
            Ok(_) => {
                assert_eq!(payload.read(&mut [0; 9]).unwrap(), 0, "the end is the end");
                Ok((content, payload.digests()))
            }
            Err(_) => Err(payload.problem().map_or("io", |problem| problem.code)),
        }
    }

    const HELLO_MD5: &str = "5d41402abc4b2a76b9719d911017c592";
    const HELLO_SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    #[test]
    fn plain_content_must_be_what_was_announced() {
        for (lines, expected) in [
            (vec![], Ok(None)),
            (vec![(CONTENT_SHA256, UNSIGNED)], Ok(None)),
            (vec![(CONTENT_SHA256, HELLO_SHA256)], Ok(None)),
            (vec![("content-md5", "XUFAKrxLKna5cZ2REBfFkg==")], Ok(None)),
            (vec![("x-amz-checksum-crc32", "NhCmhg==")], Ok(Some(("crc32", "NhCmhg==")))),
            (vec![("x-amz-checksum-crc32c", "mnG7TA==")], Ok(Some(("crc32c", "mnG7TA==")))),
            (vec![("x-amz-sdk-checksum-algorithm", "CRC32")], Ok(Some(("crc32", "NhCmhg==")))),
            (vec![("x-amz-checksum-algorithm", "crc32")], Ok(Some(("crc32", "NhCmhg==")))),
            (vec![("x-amz-sdk-checksum-algorithm", "MD5")], Ok(None)),
            (vec![(CONTENT_SHA256, &HELLO_SHA256.replace("2cf", "2ce"))], Err("XAmzContentSHA256Mismatch")),
            (vec![(CONTENT_SHA256, "abc")], Err("InvalidArgument")),
            (vec![(CONTENT_SHA256, "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD")], Err("InvalidArgument")),
            (vec![("content-md5", "XUFAKrxLKna5cZ2REBfFkA==")], Err("BadDigest")),
            (vec![("content-md5", HELLO_MD5)], Err("InvalidDigest")),
            (vec![("x-amz-checksum-crc32", "NhCmhQ==")], Err("BadDigest")),
            (vec![("x-amz-checksum-crc32", "NhCm")], Err("InvalidRequest")),
            (vec![("x-amz-checksum-crc32", "NhCmhg=="), ("x-amz-checksum-crc32c", "mnG7TA==")], Err("InvalidRequest")),
            (vec![("x-amz-sdk-checksum-algorithm", "CRC31")], Err("InvalidRequest")),
        ] {
            let found = read(&lines, b"hello");
            let expected = expected.map(|checksum| {
                let mut digests = BTreeMap::from([(MD5.to_owned(), HELLO_MD5.to_owned())]);
                digests.extend(checksum.map(|(name, value): (&str, &str)| (name.to_owned(), value.to_owned())));
                (b"hello".to_vec(), digests)
            });
            assert_eq!(found, expected, "{lines:?}");
        }
    }

    #[test]
    fn chunks_are_taken_out_of_their_frames() {
        let trailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
        let lines = |length| {
            [
                (CONTENT_SHA256, trailer),
                ("x-amz-decoded-content-length", length),
                ("x-amz-trailer", "x-amz-checksum-crc32"),
            ]
        };
        let good = "2\r\nhe\r\n3\r\nllo\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n";
        let (content, digests) = read(&lines("5"), good.as_bytes()).unwrap();
        assert_eq!((content.as_slice(), digests["crc32"].as_str()), (&b"hello"[..], "NhCmhg=="));
        let empty = read(&lines("0"), b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n").unwrap();
        assert_eq!(empty.0, b"");
        for (from, to, code) in [
            ("NhCmhg", "NhCmhQ", "BadDigest"),
            ("x-amz-checksum-crc32:NhCmhg==\r\n", "", "MalformedTrailerError"),
            ("x-amz-checksum-crc32:", "x-amz-checksum-crc32c:", "MalformedTrailerError"),
            ("he\r\n", "hel\r\n", "IncompleteBody"),
            ("2\r\nhe", "1\r\nh", "IncompleteBody"),
            ("3\r\nllo", "4\r\nllo!", "IncompleteBody"),
            ("3\r\n", "-3\r\n", "IncompleteBody"),
            ("3\r\n", "\r\n", "IncompleteBody"),
            ("3\r\n", "fffffffffffffffff\r\n", "IncompleteBody"),
            ("0\r\nx", "x", "IncompleteBody"),
            ("\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n", "", "IncompleteBody"),
            ("==\r\n\r\n", "==\r\n\r\nx", "IncompleteBody"),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good);
            assert_eq!(read(&lines("5"), bad.as_bytes()), Err(code), "{bad}");
        }
        let endless = format!("2\r\nhe\r\n{}", "3".repeat(100_000));
        assert_eq!(read(&lines("5"), endless.as_bytes()), Err("IncompleteBody"));
        assert_eq!(read(&lines("6"), good.as_bytes()), Err("IncompleteBody"));
        assert_eq!(read(&lines("x"), good.as_bytes()), Err("InvalidArgument"));
        assert_eq!(read(&lines("5")[..1], good.as_bytes()), Err("MissingContentLength"));
        assert_eq!(read(&[("x-amz-trailer", "x-other")], b"hello"), Err("InvalidRequest"));
    }

    /// Amazon's published example: 66,560 bytes in chunks of 64 KiB.
    #[test]
    fn each_signed_chunk_must_fit_its_signature() {
        let announced_and_signer = || {
            let (head, ()) = Request::builder()
                .method("PUT")
                .uri("/examplebucket/chunkObject.txt")
                .header("host", "s3.amazonaws.com")
                .header("x-amz-date", "20130524T000000Z")
                .header("x-amz-storage-class", "REDUCED_REDUNDANCY")
                .header("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
                .header("content-encoding", "aws-chunked")
                .header("x-amz-decoded-content-length", "66560")
                .header("content-length", "66824")
                .header(
                    "authorization",
                    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=\
                     content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;\
                     x-amz-storage-class,Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
                )
                .body(())
                .unwrap()
                .into_parts();
            let query = Query::default();
            let claim = Claim::of(&head, &query, 1_369_353_600).unwrap().unwrap();
            let secret = Secret::of("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
            let signer = claim.verify(&secret, &head, &query).unwrap();
            (Announcement::of(&head.headers, Some(66_824)).unwrap(), Some(signer))
        };
        let signatures = [
            "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
            "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
            "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
        ];
        let mut body = Vec::new();
        for (signature, length) in signatures.iter().zip([65_536, 1_024, 0]) {
            body.extend(format!("{length:x};chunk-signature={signature}\r\n").bytes());
            body.extend(vec![b'a'; length]);
            body.extend(b"\r\n");
        }
        let (announced, signer) = announced_and_signer();
        assert_eq!(read_signed(announced, &body, signer).unwrap().0, vec![b'a'; 66_560]);
        let text = String::from_utf8(body).unwrap();
        for (from, to) in
            [("a\r\n4", "b\r\n4"), ("0055", "0056"), ("b6c6", "b6c7"), (";chunk-signature=0055", ";x=0055")]
        {
            let bad = text.replacen(from, to, 1);
            let (announced, signer) = announced_and_signer();
            let refused = read_signed(announced, bad.as_bytes(), signer);
            assert_ne!(bad, text);
            assert_eq!(refused, Err("SignatureDoesNotMatch"), "{from}");
        }
        let (announced, _) = announced_and_signer();
        assert_eq!(read_signed(announced, text.as_bytes(), None), Err("InvalidRequest"), "the head is not signed");
    }
}
