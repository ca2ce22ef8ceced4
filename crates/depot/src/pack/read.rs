//! Reading, which is verifying: of what is asked for, and in the background of everything.

use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;

use super::index::{Entry, FILE};
use super::record::{BLOCK_BYTES, Header, room_of_header};
use super::{Disk, DiskError, large};
use crate::checksum::Checksum;
use crate::disk::Handle;
use crate::identity::Key;
use crate::log::SyncMode;

/// Why bytes of an object cannot be had.
#[derive(Debug)]
pub enum GetError {
    /// It is not there.
    Missing,
    /// The disk has other bytes than were stored, or cannot read them.
    Damaged,
    /// Something else is the matter: the system is out of descriptors, say. The object may be sound.
    Io(io::Error),
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "the object is not there"),
            Self::Damaged => write!(f, "the object is damaged"),
            Self::Io(error) => write!(f, "the object cannot be read: {error}"),
        }
    }
}

impl std::error::Error for GetError {}

/// An object that is being read. It can be read to its end even if it is removed meanwhile.
#[derive(Debug)]
pub struct ObjectReader<'a> {
    disk: &'a Disk,
    key: Key,
    entry: Entry,
    blocks: Vec<Checksum>,
    handle: Arc<dyn Handle>,
    /// Where its bytes begin in the file.
    start: u64,
    /// The first bytes, if they were read along with the header.
    ahead: Vec<u8>,
}

/// So much of an object is read along with its header: one look at the disk is enough for a small one.
const AHEAD: usize = 8 << 10;

impl Disk {
    /// The object, to be read. One of which some blocks are damaged can be opened, too.
    pub fn open_object(&self, key: &Key) -> Result<ObjectReader<'_>, GetError> {
        let mut seen = None;
        loop {
            let entry = self.state.lock().index.get(key).ok_or(GetError::Missing)?;
            match self.open_at(key, entry) {
                // Compaction or a repair has moved it meanwhile, and the old place is gone.
                Err(GetError::Io(error)) if error.kind() == ErrorKind::NotFound && seen != Some(entry) => {
                    seen = Some(entry);
                }
                Err(GetError::Io(error)) if error.kind() == ErrorKind::NotFound => {
                    return Err(self.damaged(key, &entry));
                }
                result => return result,
            }
        }
    }

    fn open_at(&self, key: &Key, entry: Entry) -> Result<ObjectReader<'_>, GetError> {
        let Entry { length, checksum, .. } = entry;
        let bytes = length as usize;
        if entry.pack == FILE {
            let handle = self.folder.handle(&large::name(key, &entry)).map_err(GetError::Io)?;
            let tail = self.file_tail(&*handle, key, &entry)?;
            let blocks = large::decode_tail(&tail, key, length, checksum).map_err(|_| self.damaged(key, &entry))?;
            return Ok(ObjectReader { disk: self, key: *key, entry, blocks, handle, start: 0, ahead: Vec::new() });
        }
        let handle = self.handles.get(entry.pack).map_err(GetError::Io)?;
        let salt = self.state.lock().index.packs.get(&entry.pack).map(|pack| pack.salt);
        // Without its pack it has moved: look again.
        let salt = salt.ok_or_else(|| GetError::Io(ErrorKind::NotFound.into()))?;
        // No header is longer for so many blocks, and behind it there is the content, which may be the file's end.
        let most_header = room_of_header(bytes);
        let mut ahead = vec![0; most_header + bytes.min(AHEAD)];
        let offset = u64::from(entry.offset);
        let available = handle.length().map_err(GetError::Io)?.saturating_sub(offset);
        ahead.truncate(usize::try_from(available).unwrap_or(usize::MAX));
        self.read_at(&*handle, &mut ahead, offset, key, &entry)?;
        match Header::decode(salt, entry.offset, &ahead) {
            Some((Header::Object { key: other, length: l, checksum: c, blocks }, before))
                if (&other, l, c) == (key, length, checksum) =>
            {
                ahead.drain(..before);
                ahead.truncate(bytes);
                let start = offset + before as u64;
                Ok(ObjectReader { disk: self, key: *key, entry, blocks, handle, start, ahead })
            }
            _ => Err(self.damaged(key, &entry)),
        }
    }

    fn file_tail(&self, handle: &dyn Handle, key: &Key, entry: &Entry) -> Result<Vec<u8>, GetError> {
        let length = handle.length().map_err(GetError::Io)?;
        let tail = length.saturating_sub(entry.length.into());
        if tail > large::most_tail(entry.length) as u64 {
            return Err(self.damaged(key, entry));
        }
        let mut bytes = vec![0; tail as usize];
        self.read_at(handle, &mut bytes, entry.length.into(), key, entry)?;
        Ok(bytes)
    }

    /// Reads; what the disk has lost or cannot read is damage.
    fn read_at(
        &self,
        handle: &dyn Handle,
        buffer: &mut [u8],
        offset: u64,
        key: &Key,
        entry: &Entry,
    ) -> Result<(), GetError> {
        handle.read_at(buffer, offset).map_err(|error| {
            let is_damage = error.kind() == ErrorKind::UnexpectedEof || error.raw_os_error() == Some(BAD_SECTOR);
            if is_damage { self.damaged(key, entry) } else { GetError::Io(error) }
        })
    }

    fn damaged(&self, key: &Key, entry: &Entry) -> GetError {
        self.mark_damaged(*key, entry.pack, entry.offset);
        GetError::Damaged
    }

    /// Reads all of an object, to see whether it is what was stored.
    pub fn verify(&self, key: &Key) -> Result<(), GetError> {
        const BLOCKS: usize = 16;
        let mut object = self.open_object(key)?;
        let mut buffer = Vec::new();
        let count = object.blocks.len();
        for first in (0..count).step_by(BLOCKS) {
            object.read(first..(first + BLOCKS).min(count), &mut buffer)?;
        }
        Ok(())
    }

    /// The same. What was read is on the disk then, whatever [`SyncMode`] says: other copies may be removed in reliance on it.
    pub fn verify_on_disk(&self, key: &Key) -> Result<(), GetError> {
        let on_disk = |error: DiskError| GetError::Io(io::Error::other(error.to_string()));
        self.verify(key)?;
        if self.options.sync == SyncMode::Always {
            return self.settle().map_err(on_disk);
        }
        self.check().map_err(on_disk)?;
        let handle = self.open_object(key)?.handle;
        let failed = |error: io::Error| on_disk(self.failed_for_good(error.to_string()));
        handle.sync().map_err(failed)?;
        // An object's file counts once its name is there, a pack once it has one.
        self.folder.sync().map_err(failed)
    }
}

/// The system's number for "the disk cannot read this": EIO.
const BAD_SECTOR: i32 = 5;

impl ObjectReader<'_> {
    /// How many bytes the object has.
    pub fn length(&self) -> u64 {
        self.entry.length.into()
    }

    /// The checksum of all of it.
    pub fn checksum(&self) -> Checksum {
        self.entry.checksum
    }

    /// The checksums of its blocks of [`BLOCK_BYTES`] each.
    pub fn block_sums(&self) -> &[Checksum] {
        &self.blocks
    }

    /// Puts the bytes of these blocks into the buffer, in place of what is in it. Each of them is verified. When one is
    /// damaged, that is an error, and the buffer has those before it.
    pub fn read(&mut self, blocks: Range<usize>, buffer: &mut Vec<u8>) -> Result<(), GetError> {
        let blocks = blocks.start..blocks.end.min(self.blocks.len());
        let from = blocks.start.saturating_mul(BLOCK_BYTES);
        let to = blocks.end.saturating_mul(BLOCK_BYTES).min(self.entry.length as usize);
        buffer.clear();
        if from >= to {
            return Ok(());
        }
        if to <= self.ahead.len() {
            buffer.extend_from_slice(&self.ahead[from..to]);
        } else {
            buffer.resize(to - from, 0);
            let offset = self.start + from as u64;
            if let Err(error) = self.disk.read_at(&*self.handle, buffer, offset, &self.key, &self.entry) {
                buffer.clear();
                // Only one of the blocks may be bad: those before it are still good.
                if matches!(error, GetError::Damaged) && blocks.len() > 1 {
                    let mut one = Vec::new();
                    for block in blocks {
                        self.read(block..block + 1, &mut one)?;
                        buffer.extend_from_slice(&one);
                    }
                }
                return Err(error);
            }
        }
        let wanted = &self.blocks[blocks];
        let good = buffer.chunks(BLOCK_BYTES).zip(wanted).take_while(|(bytes, sum)| Checksum::of(bytes) == **sum);
        let good = good.count();
        if good < wanted.len() {
            buffer.truncate(good * BLOCK_BYTES);
            return Err(self.disk.damaged(&self.key, &self.entry));
        }
        Ok(())
    }
}
