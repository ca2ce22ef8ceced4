//! Backups of the store's metadata, kept beside the objects. (depot 4.9)
//!
//! ```text
//! new-backup        while it comes
//! backup            the last one
//! backup-before     the one before it
//! ```
//!
//! They are of no use to the Dstore. A store whose Controllers have lost their disks is made from them.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};

use super::{Disk, Purpose};
use crate::disk::{Appender, Folder, is_full};
use crate::identity::Epoch;
use crate::log::backup::{BackupError, Verifier};

/// The files that backups are kept in, the newest first.
pub const BACKUPS: [&str; 2] = ["backup", "backup-before"];
/// One that is not whole yet.
const NEW: &str = "new-backup";
/// So much is written at a time.
const PIECE: usize = 256 << 10;

/// Why a backup is not kept.
#[derive(Debug)]
pub enum KeepError {
    /// It could not be read to its end.
    Source(io::Error),
    /// It is no backup of this store, or not what was written.
    Damaged,
    /// The disk follows another leadership.
    NotFollowed,
    /// The disk is too full for it.
    Full,
    /// The disk does not work.
    Disk(io::Error),
}

impl fmt::Display for KeepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => write!(f, "the backup does not come: {error}"),
            Self::Damaged => f.write_str("this is no backup of this store, or it is damaged"),
            Self::NotFollowed => f.write_str("this Dstore follows another leadership"),
            Self::Full => f.write_str("the disk is full"),
            Self::Disk(error) => write!(f, "the backup cannot be written: {error}"),
        }
    }
}

impl std::error::Error for KeepError {}

impl Disk {
    /// Keeps the backup that can be read from `source`, and the one before it, if the disk follows this leadership. On the disk
    /// when this returns. After an error the backups are those that were there before.
    pub fn keep_backup(&self, epoch: Epoch, source: &mut dyn Read) -> Result<(), KeepError> {
        let _one_at_a_time = self.keeping.lock();
        let space = self.folder.space().map_err(KeepError::Disk)?;
        if space.used_percent() >= Purpose::Repair.most_percent() {
            return Err(KeepError::Full);
        }
        let folder = &*self.folder;
        let kept = remove(folder, NEW).and_then(|()| folder.create(NEW)).map_err(KeepError::Disk);
        let kept = kept.and_then(|file| self.receive(file, source)).and_then(|()| self.exchange(epoch));
        if kept.is_err() {
            let _ = folder.remove(NEW); // what is left of it does no harm
        }
        kept
    }

    fn receive(&self, mut file: Box<dyn Appender>, source: &mut dyn Read) -> Result<(), KeepError> {
        let mut verifier = Verifier::default();
        let mut buffer = vec![0; PIECE];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(KeepError::Source(error)),
            };
            verifier.write_all(&buffer[..count]).map_err(|_| KeepError::Damaged)?;
            file.append(&buffer[..count]).map_err(disk_error)?;
        }
        let contents = verifier.finish().map_err(|_: BackupError| KeepError::Damaged)?;
        if self.identity().cluster != Some(contents.cluster) {
            return Err(KeepError::Damaged);
        }
        file.sync().map_err(disk_error)
    }

    fn exchange(&self, epoch: Epoch) -> Result<(), KeepError> {
        // Held, so that no other leadership is followed meanwhile.
        let identity = self.identity.lock();
        if identity.epoch != Some(epoch) {
            return Err(KeepError::NotFollowed);
        }
        let folder = &*self.folder;
        let [last, before] = BACKUPS;
        let exchanged = match (first_line(folder, last), first_line(folder, NEW)) {
            (Ok(there), Ok(new)) if there == new => folder.remove(NEW), // it was sent twice
            (there, _) => {
                let kept = if there.is_ok() { folder.rename(last, before) } else { Ok(()) };
                kept.and_then(|()| folder.rename(NEW, last))
            }
        };
        exchanged.and_then(|()| folder.sync()).map_err(disk_error)
    }
}

/// Says which backup it is: its sequence and its hash.
fn first_line(folder: &dyn Folder, name: &str) -> io::Result<Vec<u8>> {
    const LONGEST: u64 = 4096;
    let file = folder.handle(name)?;
    let mut bytes = vec![0; file.length()?.min(LONGEST) as usize];
    file.read_at(&mut bytes, 0)?;
    bytes.truncate(bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len()));
    Ok(bytes)
}

fn remove(folder: &dyn Folder, name: &str) -> io::Result<()> {
    match folder.remove(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn disk_error(error: io::Error) -> KeepError {
    if is_full(&error) { KeepError::Full } else { KeepError::Disk(error) }
}
