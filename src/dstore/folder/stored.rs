//! A stored file being read, and what it is found to be worth.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::path::Path;

use crate::dstore::Defect;
use crate::dstore::checksum::{Checksum, Summing};
use crate::protocol::FileName;
use crate::protocol::content::{CopyError, copy};

/// A file of a [`Folder`](super::Folder), opened to be read once.
///
/// What is read is this file to the end, even if it is removed or replaced meanwhile: no thread writes into a file that
/// has its name.
pub struct StoredFile {
    name: FileName,
    file: File,
    metadata: Metadata,
    /// `None` where nothing can be verified: its file system has no attributes, or another program put it there.
    expected: Option<Checksum>,
}

impl StoredFile {
    pub(super) fn open(folder: &Path, name: &FileName) -> Result<Self, Defect> {
        let file = open_regular(&folder.join(name))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Defect::Missing);
        }
        Ok(Self { name: name.clone(), file, metadata, expected: None })
    }

    /// Learns what it should hold; fails if it cannot be that, by its size.
    pub(super) fn expect_its_checksum(&mut self) -> Result<(), Defect> {
        self.expected = Checksum::of(&self.file)?;
        match self.expected {
            Some(expected) if expected.size != self.size() => {
                Err(Defect::Altered(format!("expected {expected}, found {} bytes", self.size())))
            }
            _ => Ok(()),
        }
    }

    /// Its name.
    pub fn name(&self) -> &FileName {
        &self.name
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.metadata.len()
    }

    /// Hands all of the content to `sink`, the last piece only once the whole has turned out to be what was stored.
    ///
    /// Fails with `CopyError::Source` if it is not: what was given to `sink` lacks the end.
    pub fn read(&mut self, sink: &mut impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), CopyError<Defect>> {
        let size = self.size();
        let Some(expected) = self.expected else {
            return copy(size, &mut self.file, sink).map_err(CopyError::of_source);
        };
        let mut summing = Summing::new(&self.name);
        let verified = |summing: &Summing| match summing.sum() {
            found if found == expected => Ok(()),
            found => Err(CopyError::Source(Defect::Altered(format!("expected {expected}, found {found}")))),
        };
        if size == 0 {
            return verified(&summing);
        }
        let (mut passed, mut judgement) = (0, Ok(()));
        let copied = copy(size, &mut self.file, &mut |bytes| {
            summing.add(bytes);
            passed += bytes.len() as u64;
            if passed == size {
                judgement = verified(&summing);
                if judgement.is_err() {
                    return Ok(());
                }
            }
            sink(bytes)
        });
        copied.map_err(CopyError::of_source).and(judgement)
    }

    /// Reads all of it to no other end than to see whether it is right.
    pub(super) fn verify(&mut self) -> Result<(), Defect> {
        self.read(&mut |_| Ok(())).map_err(|error| match error {
            CopyError::Source(defect) => defect,
            CopyError::Sink(_) => unreachable!("this sink takes all"),
        })
    }

    /// Has the next reads come from the disk, not from memory, as far as the system goes along with that.
    pub fn forget_cached(&self) {
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
    }

    pub(super) fn identity(&self) -> Identity {
        identity(&self.metadata)
    }
}

/// Opens a file to be read, and no other that it may be a link to. Does not wait for the other end of a FIFO.
#[cfg(unix)]
fn open_regular(path: &Path) -> Result<File, Defect> {
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::OFlags;
    use rustix::io::Errno;

    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    opened.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::LOOP | Errno::NXIO) => Defect::Missing, // a link; a socket
        _ => error.into(),
    })
}

#[cfg(not(unix))]
fn open_regular(path: &Path) -> Result<File, Defect> {
    if std::fs::symlink_metadata(path)?.is_file() { Ok(File::open(path)?) } else { Err(Defect::Missing) }
}

/// Which file it is, whatever its name. No other has it as long as one that has it is open.
pub(super) type Identity = (u64, u64);

pub(super) fn identity(metadata: &Metadata) -> Identity {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (metadata.dev(), metadata.ino())
    }
    // Elsewhere no file carries a checksum, and so none is found to be wrong.
    #[cfg(not(unix))]
    {
        let _ = metadata;
        (0, 0)
    }
}
