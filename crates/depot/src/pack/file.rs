//! The file that a pack is: headers, records, a footer, a trailer.
//!
//! ```text
//! 0       stevedore-pack 1 5d0c…e1 12 8f31…04 0 9f0c…12\n     format, disk, start, salt, packs it replaces; its own sum
//! 4096    the same again, so that damage to one of them costs nothing
//! 8192    record record record …
//!         footer                                              once it is sealed: a record that lists the others
//!         salt, offset of the footer, sum                     8 bytes each, the trailer
//! ```

use std::io;
use std::sync::Arc;

use twox_hash::XxHash3_64;

use super::OpenError;
use super::record::{HEAD, Header, Listed, MOST_HEADER, Salt};
use crate::checksum::Checksum;
use crate::disk::{Appender, Folder, Handle, random};
use crate::identity::DiskId;
use crate::words::{Line, ParseError, Reader, Words, invalid};

const FORMAT: &str = "stevedore-pack";
const VERSION: u64 = 1;
const PREFIX: &str = "pack-";
/// Each of the two headers has so much room.
const HEADER_ROOM: usize = 4096;
/// Where the first record begins.
pub(super) const FIRST_RECORD: u32 = 2 * HEADER_ROOM as u32;
const TRAILER: usize = 8 + 8 + 8;

pub(super) fn name(number: u32) -> String {
    format!("{PREFIX}{number:010}")
}

pub(super) fn number(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// What a pack says at its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PackHeader {
    /// The disk that it was written for.
    pub(super) disk: DiskId,
    /// Which start of it.
    pub(super) start: u64,
    pub(super) salt: Salt,
    /// What it holds was moved from these packs, by compaction: they may go.
    pub(super) replaces: Vec<Salt>,
}

impl PackHeader {
    pub(super) fn new(disk: DiskId, start: u64, replaces: Vec<Salt>) -> io::Result<Self> {
        Ok(Self { disk, start, salt: Salt(u64::from_le_bytes(random()?)), replaces })
    }

    fn encode(&self) -> Vec<u8> {
        let mut line = Line::default();
        line.plain(FORMAT);
        line.number(VERSION);
        self.disk.write(&mut line);
        self.start.write(&mut line);
        self.salt.write(&mut line);
        self.replaces.write(&mut line);
        let mut header = format!("{} {}\n", line.as_str(), line_sum(line.as_str())).into_bytes();
        assert!(header.len() <= HEADER_ROOM, "a pack replaces a few others only");
        header.resize(HEADER_ROOM, 0);
        header.repeat(2)
    }

    fn decode(bytes: &[u8]) -> Result<Self, ParseError> {
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(ParseError::Missing("line end"))?;
        let line = str::from_utf8(&bytes[..end]).map_err(|_| invalid("line", "no text"))?;
        let (words, expected) = line.rsplit_once(' ').ok_or(ParseError::Missing("sum"))?;
        if line_sum(words) != expected {
            return Err(invalid("sum", expected));
        }
        let mut reader = Reader::new(words);
        let (format, version) = (reader.raw("format")?, u64::read(&mut reader)?);
        if (format, version) != (FORMAT, VERSION) {
            return Err(ParseError::Surplus(LATER.into()));
        }
        let (disk, start) = (Words::read(&mut reader)?, Words::read(&mut reader)?);
        let (salt, replaces) = (Words::read(&mut reader)?, Words::read(&mut reader)?);
        reader.finish()?;
        Ok(Self { disk, start, salt, replaces })
    }
}

/// Marks the header of another format.
const LATER: &str = "a later release's";

/// Makes a pack under a name of its making; its header is on the disk when this returns, the name may not be.
pub(super) fn create(folder: &dyn Folder, name: &str, header: &PackHeader) -> io::Result<Box<dyn Appender>> {
    let mut file = folder.create(name)?;
    file.append(&header.encode())?;
    file.sync()?;
    Ok(file)
}

/// The end of a sealed pack: the footer as a record at `offset`, and the trailer.
pub(super) fn encode_end(salt: Salt, offset: u32, lines: &str) -> Vec<u8> {
    let header = Header::Footer { length: lines.len() as u32, checksum: Checksum::of(lines.as_bytes()) };
    let mut end = header.encode(salt, offset);
    end.extend_from_slice(lines.as_bytes());
    end.extend_from_slice(&trailer(salt, offset));
    end
}

fn trailer(salt: Salt, offset: u32) -> [u8; TRAILER] {
    let mut trailer = [0; TRAILER];
    trailer[..8].copy_from_slice(&salt.0.to_le_bytes());
    trailer[8..16].copy_from_slice(&u64::from(offset).to_le_bytes());
    let sum = XxHash3_64::oneshot_with_seed(salt.0, &trailer[..16]);
    trailer[16..].copy_from_slice(&sum.to_le_bytes());
    trailer
}

/// A pack that is being opened.
#[derive(Debug)]
pub(super) struct PackFile {
    pub(super) handle: Arc<dyn Handle>,
    pub(super) length: u64,
    pub(super) salt: Salt,
    /// `None` if neither of the two can be read, but the trailer still says the salt.
    pub(super) header: Option<PackHeader>,
    /// Where the footer begins, if the trailer says so.
    footer: Option<u32>,
}

impl PackFile {
    /// Looks at a pack's beginning and end; `None` if too little of it can be read to know its salt.
    pub(super) fn open(folder: &dyn Folder, name: &str) -> Result<Option<Self>, OpenError> {
        let handle = folder.handle(name)?;
        let length = handle.length()?;
        let mut header = None;
        for copy in [0, HEADER_ROOM] {
            let bytes = read_up_to(&*handle, copy as u64, HEADER_ROOM, length);
            match PackHeader::decode(&bytes) {
                Ok(found) => header = header.or(Some(found)),
                Err(ParseError::Surplus(what)) if what == LATER => {
                    return Err(OpenError::Format { file: name.to_owned() });
                }
                Err(_) => {}
            }
        }
        let end = read_up_to(&*handle, length.saturating_sub(TRAILER as u64), TRAILER, length);
        let footer = end.first_chunk::<8>().zip(end.get(8..12).and_then(<[u8]>::first_chunk::<4>));
        let footer = footer.map(|(salt, offset)| (Salt(u64::from_le_bytes(*salt)), u32::from_le_bytes(*offset)));
        let footer = footer.filter(|(salt, offset)| end == trailer(*salt, *offset));
        let Some(salt) = header.as_ref().map(|header| header.salt).or(footer.map(|(salt, _)| salt)) else {
            return Ok(None);
        };
        let footer = footer.filter(|(other, _)| *other == salt).map(|(_, offset)| offset);
        Ok(Some(Self { handle, length, salt, header, footer }))
    }

    /// What its footer lists; `None` if it has none that can be read.
    pub(super) fn listed(&self) -> Option<Vec<Listed>> {
        let offset = self.footer?;
        let bytes = read_up_to(&*self.handle, offset.into(), usize::MAX, self.length.checked_sub(TRAILER as u64)?);
        let (header, at) = Header::decode(self.salt, offset, &bytes)?;
        let content = &bytes[at..];
        if !matches!(header, Header::Footer { .. }) || !header.fits(content) {
            return None;
        }
        let lines = str::from_utf8(content).ok()?.lines();
        let listed: Result<Vec<_>, _> = lines.map(Listed::from_line).collect();
        listed.ok()
    }

    /// Reads the pack from its first record on, and calls `visit` for each record with its place and content. The content
    /// of a damaged one is `None`. What cannot be read as a record is skipped.
    pub(super) fn scan(
        &self,
        mut visit: impl FnMut(u32, Header, Option<&[u8]>) -> io::Result<()>,
    ) -> io::Result<Scanned> {
        let mut window = Window { handle: &*self.handle, length: self.length, start: 0, bytes: Vec::new() };
        let mut scanned = Scanned { end: FIRST_RECORD, lost: 0 };
        let (mut at, mut skipped) = (u64::from(FIRST_RECORD), 0);
        while at < self.length {
            let Some(offset) = u32::try_from(at).ok() else { break };
            let found = Header::decode(self.salt, offset, window.get(at, HEAD + MOST_HEADER)?);
            let length = found.as_ref().map_or(0, |(header, before)| before + header.content_length());
            let Some((header, before)) = found.filter(|_| at + length as u64 <= self.length) else {
                let next = window.find(self.salt, at + 1)?;
                skipped += next - at;
                at = next;
                continue;
            };
            let content = &window.get(at, length)?[before..];
            let is_good = header.fits(content);
            scanned.lost += std::mem::take(&mut skipped);
            at += length as u64;
            if is_good && !matches!(header, Header::Footer { .. }) {
                scanned.end = at as u32; // the next record begins there, or would
            }
            visit(offset, header, is_good.then_some(content))?;
        }
        Ok(scanned)
    }
}

/// What there was in a pack beside records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scanned {
    /// Where the last record ends that is whole.
    pub(super) end: u32,
    /// Bytes between records that are in none.
    pub(super) lost: u64,
}

/// As many bytes as there are, up to `most`; what the disk cannot read is missing from their end.
fn read_up_to(handle: &dyn Handle, offset: u64, most: usize, length: u64) -> Vec<u8> {
    let count = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX).min(most);
    let mut bytes = vec![0; count];
    if handle.read_at(&mut bytes, offset).is_err() {
        bytes.clear();
    }
    bytes
}

/// The part of a file that a scan looks at.
struct Window<'a> {
    handle: &'a dyn Handle,
    length: u64,
    /// Where its bytes begin in the file.
    start: u64,
    bytes: Vec<u8>,
}

/// So much is read in one piece, and at least what is asked for.
const PIECE: usize = 1 << 20;
/// What a disk cannot read is skipped in steps of this size.
const SECTOR: usize = 4096;

impl Window<'_> {
    /// Some bytes of the file; fewer if it ends before.
    fn get(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        let available = usize::try_from(self.length.saturating_sub(at)).unwrap_or(usize::MAX);
        let count = count.min(available);
        let is_there = at >= self.start && at + count as u64 <= self.start + self.bytes.len() as u64;
        if !is_there {
            self.bytes.resize(count.max(PIECE).min(available), 0);
            self.start = at;
            if self.handle.read_at(&mut self.bytes, at).is_err() {
                for (place, sector) in (at..).step_by(SECTOR).zip(self.bytes.chunks_mut(SECTOR)) {
                    if self.handle.read_at(sector, place).is_err() {
                        sector.fill(0);
                    }
                }
            }
        }
        let from = (at - self.start) as usize;
        Ok(&self.bytes[from..from + count])
    }

    /// Where the next thing that looks like the beginning of a record is, from `at` on; the end if there is none.
    fn find(&mut self, salt: Salt, mut at: u64) -> io::Result<u64> {
        let wanted = salt.0.to_le_bytes();
        while at + HEAD as u64 <= self.length {
            let bytes = self.get(at, PIECE)?;
            if let Some(place) = bytes.windows(wanted.len()).position(|window| window == wanted) {
                return Ok(at + place as u64);
            }
            at += (bytes.len() + 1 - wanted.len()).max(1) as u64;
        }
        Ok(self.length)
    }
}

fn line_sum(words: &str) -> String {
    format!("{:016x}", XxHash3_64::oneshot(words.as_bytes()))
}
