//! An object in a file of its own: its bytes, and behind them the checksums of its blocks.
//!
//! ```text
//! object-1f.3.77-8388608-9ae01c…     key, length, checksum
//!   8388608 bytes
//!   stevedore-object 1 1f.3.77 8388608 9ae01c… 128 5bd2f3… … 9f0c…12\n     the same, each block's checksum, the line's own sum
//! ```
//!
//! The checksums follow the bytes, as they are not known before; so the file is written in one go from front to back.

use std::io::Read;

use super::index::{Entry, FILE};
use super::record::BLOCK_BYTES;
use super::{Disk, NEW, PutError, Stored};
use crate::checksum::{Checksum, Hasher, combined};
use crate::disk::Folder;
use crate::identity::Key;
use crate::log::SyncMode;
use crate::words::{Line, ParseError, Reader, Words, invalid};

const FORMAT: &str = "stevedore-object";
const VERSION: u64 = 1;
const SOUND: &str = "object-";
const DAMAGED: &str = "damaged-";
/// So much is received before it is written.
const PIECE: usize = 4 * BLOCK_BYTES;

/// The name of an object's file.
pub(super) fn name(key: &Key, entry: &Entry) -> String {
    let prefix = if entry.is_damaged { DAMAGED } else { SOUND };
    format!("{prefix}{key}-{}-{}", entry.length, entry.checksum)
}

/// What a file's name says of the object in it; its `offset` is left to the caller.
pub(super) fn parse_name(name: &str) -> Option<(Key, Entry)> {
    let is_damaged = name.starts_with(DAMAGED);
    let rest = name.strip_prefix(if is_damaged { DAMAGED } else { SOUND })?;
    let mut parts = rest.split('-');
    let key = Key::from_line(parts.next()?).ok()?;
    let length = parts.next()?.parse().ok()?;
    let checksum = Checksum::from_line(parts.next()?).ok()?;
    let entry = Entry { checksum, length, pack: FILE, offset: 0, is_damaged };
    // A name that we would have written otherwise is none of ours.
    (self::name(&key, &entry) == name).then_some((key, entry))
}

/// What follows an object's bytes.
fn encode_tail(key: &Key, length: u32, checksum: Checksum, blocks: &Vec<Checksum>) -> Vec<u8> {
    let mut line = Line::default();
    line.plain(FORMAT);
    line.number(VERSION);
    key.write(&mut line);
    length.write(&mut line);
    checksum.write(&mut line);
    blocks.write(&mut line);
    format!("{} {}\n", line.as_str(), sum(line.as_str())).into_bytes()
}

/// The checksums of the blocks, by what follows an object's bytes.
pub(super) fn decode_tail(
    bytes: &[u8],
    key: &Key,
    length: u32,
    checksum: Checksum,
) -> Result<Vec<Checksum>, ParseError> {
    let text = str::from_utf8(bytes).map_err(|_| invalid("line", "no text"))?;
    let line = text.strip_suffix('\n').ok_or(ParseError::Missing("line end"))?;
    let (words, expected) = line.rsplit_once(' ').ok_or(ParseError::Missing("sum"))?;
    if sum(words) != expected {
        return Err(invalid("sum", expected));
    }
    let mut reader = Reader::new(words);
    let format = (reader.raw("format")?, u64::read(&mut reader)?);
    let object = (Key::read(&mut reader)?, u32::read(&mut reader)?, Checksum::read(&mut reader)?);
    if format != (FORMAT, VERSION) || object != (*key, length, checksum) {
        return Err(invalid("object", words));
    }
    let blocks: Vec<Checksum> = Words::read(&mut reader)?;
    reader.finish()?;
    if blocks.len() != (length as usize).div_ceil(BLOCK_BYTES) {
        return Err(invalid("checksum of each block", words));
    }
    Ok(blocks)
}

/// More than any tail has.
pub(super) fn most_tail(length: u32) -> usize {
    300 + 17 * (length as usize).div_ceil(BLOCK_BYTES)
}

fn sum(words: &str) -> String {
    format!("{:016x}", twox_hash::XxHash3_64::oneshot(words.as_bytes()))
}

/// A file that is being written. Dropped before it has got its name, it goes.
struct Unfinished<'a> {
    folder: &'a dyn Folder,
    name: String,
    is_kept: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            // If it fails, the next start sees to it.
            let _ = self.folder.remove(&self.name);
        }
    }
}

impl Disk {
    pub(super) fn put_large(
        &self,
        key: Key,
        length: u32,
        checksum: Checksum,
        source: &mut dyn Read,
    ) -> Result<Stored, PutError> {
        let name = self.writer.lock().new_name();
        debug_assert!(name.starts_with(NEW));
        let mut file = self.folder.create(&name).map_err(|error| self.failed(&error))?;
        let mut unfinished = Unfinished { folder: &*self.folder, name, is_kept: false };
        let mut buffer = vec![0; PIECE.min(length as usize)];
        let (mut left, mut blocks, mut whole) = (length as usize, Vec::new(), Hasher::default());
        while left > 0 {
            let piece = &mut buffer[..PIECE.min(left)];
            source.read_exact(piece).map_err(PutError::Source)?;
            whole.update(piece);
            blocks.extend(piece.chunks(BLOCK_BYTES).map(Checksum::of));
            file.append(piece).map_err(|error| self.failed(&error))?;
            left -= piece.len();
        }
        let found = whole.checksum();
        debug_assert_eq!(combined(&blocks, length.into()), found);
        if found != checksum {
            return Err(PutError::Mismatch { expected: checksum, found });
        }
        file.append(&encode_tail(&key, length, checksum, &blocks)).map_err(|error| self.failed(&error))?;
        if self.options.sync == SyncMode::Always {
            // Its content is on the disk before its name is.
            file.sync().map_err(|error| self.failed_for_good(error.to_string()))?;
        }
        let mut writer = self.writer.lock();
        let before = {
            let state = self.state.lock();
            match self.find_same(&state.index, &key, length, checksum)? {
                Some(number) => {
                    drop(state);
                    drop(writer);
                    return self.stored(number, true);
                }
                None => state.index.get(&key),
            }
        };
        self.check()?;
        // Numbered, so that a reader of a damaged file that this one replaces cannot mistake the one for the other.
        writer.next_file += 1;
        let entry = Entry { checksum, length, pack: FILE, offset: writer.next_file, is_damaged: false };
        self.folder.rename(&unfinished.name, &self::name(&key, &entry)).map_err(|error| self.failed(&error))?;
        unfinished.is_kept = true;
        let unsynced = match self.options.sync {
            SyncMode::Interval => {
                Some(self.folder.handle(&self::name(&key, &entry)).map_err(|error| self.failed(&error))?)
            }
            SyncMode::Always | SyncMode::Never => None,
        };
        {
            let mut state = self.state.lock();
            state.is_folder_dirty = true;
            state.dirty.extend(unsynced.map(|handle| ((FILE, entry.offset), handle)));
        }
        let number = self.enter(&mut writer, key, entry, before)?;
        drop(writer);
        self.stored(number, false)
    }
}
