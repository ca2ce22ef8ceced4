//! A folder of append-only files: all that the log and the packs ask of a disk.
//!
//! What a disk promises is little: bytes that were written may be lost, page by page and in any order, until the file was
//! synced; a name may be lost, or the file it was moved from be there still, until the folder was synced. Code that keeps
//! data has to be right for every outcome. So it goes through this interface, and `simulated` plays the outcomes.

#[cfg(test)]
pub(crate) mod simulated;

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whether a write failed for want of room, which there may be again later: on the disk, in the user's quota, or below the
/// limit on the size of a process's files.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// A folder on a disk. Names are plain file names.
pub trait Folder: fmt::Debug + Send + Sync {
    /// The names of its files, sorted.
    fn names(&self) -> io::Result<Vec<String>>;

    /// All bytes of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Some bytes of a file; an error if it ends before.
    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// A new, empty file; an error if the name is taken.
    fn create(&self, name: &str) -> io::Result<Box<dyn Appender>>;

    /// A file that is there, to append to it.
    fn open(&self, name: &str) -> io::Result<Box<dyn Appender>>;

    /// Gives a file another name, in place of any file that has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a file away.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// After this, names are as they are now, whatever happens.
    fn sync(&self) -> io::Result<()>;

    /// A file that is there, to read from it. It can be read even after it has been renamed or removed.
    fn handle(&self, name: &str) -> io::Result<Arc<dyn Handle>>;

    /// How large the file system is, and how much of it is free.
    fn space(&self) -> io::Result<Space>;

    /// Keeps other processes out for as long as the lock exists; an error of the kind `WouldBlock` if another has it.
    fn lock(&self) -> io::Result<FolderLock>;
}

/// A file being appended to.
pub trait Appender: fmt::Debug + Send {
    /// How many bytes it has.
    fn length(&self) -> u64;

    /// Adds bytes at the end. After an error some of them may have been added.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Takes away all bytes from `length` on.
    fn truncate(&mut self, length: u64) -> io::Result<()>;

    /// After this, its bytes are on the disk, whatever happens. An error may mean that the system has dropped some and will
    /// not say so again.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file that several threads read, and that one of them may sync while another appends to it.
pub trait Handle: fmt::Debug + Send + Sync {
    /// How many bytes it has.
    fn length(&self) -> io::Result<u64>;

    /// Fills the buffer with the bytes from `offset` on; an error of the kind `UnexpectedEof` if the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// After this, the bytes that were appended before it are on the disk. As [`Appender::sync`].
    fn sync(&self) -> io::Result<()>;
}

/// Takes a file away if there is one of this name.
pub fn remove_if_there(folder: &dyn Folder, name: &str) -> io::Result<()> {
    if folder.names()?.iter().any(|other| other == name) { folder.remove(name) } else { Ok(()) }
}

/// The size of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What this program may still use.
    pub available: u64,
}

impl Space {
    /// The share that is in use, in percent, rounded down.
    pub fn used_percent(&self) -> u8 {
        let used = u128::from(self.total.saturating_sub(self.available));
        // At most 100, which fits.
        (used * 100).checked_div(u128::from(self.total)).map_or(100, |percent| percent as u8)
    }
}

/// A folder that no other process can lock. Dropped, or when the process ends, it is free again.
#[derive(Debug)]
pub struct FolderLock {
    _folder: Option<File>,
}

/// A folder of the file system.
#[derive(Clone, Debug)]
pub struct RealFolder(PathBuf);

impl RealFolder {
    /// The folder at this path, which is made if it is missing.
    pub fn new(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self(path.to_owned()))
    }
}

impl Folder for RealFolder {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            // A name that is no text is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(name))
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        File::open(self.0.join(name))?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Appender>> {
        let file = OpenOptions::new().append(true).create_new(true).open(self.0.join(name))?;
        Ok(Box::new(RealFile { file, length: 0 }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Appender>> {
        let file = OpenOptions::new().append(true).open(self.0.join(name))?;
        let length = file.metadata()?.len();
        Ok(Box::new(RealFile { file, length }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn handle(&self, name: &str) -> io::Result<Arc<dyn Handle>> {
        Ok(Arc::new(ReadFile(File::open(self.0.join(name))?)))
    }

    fn space(&self) -> io::Result<Space> {
        let found = rustix::fs::statvfs(&self.0)?;
        // What is kept for the superuser is neither used nor available: the disk is smaller for us.
        let ours = found.f_blocks - found.f_bfree + found.f_bavail;
        Ok(Space { total: ours * found.f_frsize, available: found.f_bavail * found.f_frsize })
    }

    fn lock(&self) -> io::Result<FolderLock> {
        let folder = File::open(&self.0)?;
        match folder.try_lock() {
            Ok(()) => Ok(FolderLock { _folder: Some(folder) }),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct ReadFile(File);

impl Handle for ReadFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    length: u64,
}

impl Appender for RealFile {
    fn length(&self) -> u64 {
        self.length
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let result = self.file.write_all(bytes);
        match result {
            Ok(()) => self.length += bytes.len() as u64,
            Err(_) => self.length = self.file.metadata()?.len(),
        }
        result
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.length = length;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Random bytes of the system: for salts, ids and secrets.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    #[cfg(test)]
    if simulated::draw(&mut bytes) {
        return Ok(bytes);
    }
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
