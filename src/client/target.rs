//! Where loaded content goes, with the chance to start again when a holder fails half way.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Takes the content of a load.
pub trait Target {
    /// Hears how many bytes will come; again after each [`restart`](Self::restart).
    fn begin(&mut self, _size: u64) -> io::Result<()> {
        Ok(())
    }

    /// Takes the next bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Forgets what it has taken: all of the content comes again, from another holder. If it cannot, it fails, and so
    /// does the load.
    ///
    /// Going on where the last holder stopped would not do: between the two offers the file may have been removed
    /// and another stored under its name.
    fn restart(&mut self) -> io::Result<()>;
}

impl Target for Vec<u8> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }
}

/// A writer that cannot take back what it has been given.
pub(super) struct Once<'a, W> {
    writer: &'a mut W,
    is_begun: bool,
}

impl<'a, W: Write> Once<'a, W> {
    pub(super) fn new(writer: &'a mut W) -> Self {
        Self { writer, is_begun: false }
    }
}

impl<W: Write> Target for Once<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.is_begun |= !bytes.is_empty();
        self.writer.write_all(bytes)
    }

    fn restart(&mut self) -> io::Result<()> {
        if self.is_begun {
            Err(io::Error::other("interrupted, and what is written cannot be taken back"))
        } else {
            Ok(())
        }
    }
}

/// The temporary files of this process, so that a signal can take them along.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A file that appears under its name only once it is whole. Dropped before that it leaves nothing behind.
pub struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl NewFile {
    /// Begins to write what is to be at `path`.
    pub fn create(path: &Path) -> io::Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            // In the same folder, where the rename is one step; and not longer than any name may be.
            let temporary = path.with_file_name(format!(".stevedore-{}-{number}.part", process::id()));
            let mut unfinished = UNFINISHED.lock();
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => {
                    unfinished.insert(temporary.clone());
                    return Ok(Self { path: path.to_owned(), temporary, file });
                }
                // Left by a process that was killed: in a container every process has the same number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The file as it is so far, to give it times and permissions.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// It is whole: gives it its name.
    pub fn keep(self) -> io::Result<()> {
        let _discarded_no_more = UNFINISHED.lock();
        fs::rename(&self.temporary, &self.path)
        // The drop that follows finds nothing to remove.
    }

    /// Removes every unfinished file of this process, and calls `end_process` before another one can be begun or
    /// finished: for a program that ends without dropping them.
    pub fn discard_all(end_process: impl FnOnce()) {
        let unfinished = UNFINISHED.lock();
        for temporary in &*unfinished {
            let _ = fs::remove_file(temporary);
        }
        end_process();
    }
}

impl Target for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0)).map(drop)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        let mut unfinished = UNFINISHED.lock();
        let _ = fs::remove_file(&self.temporary);
        unfinished.remove(&self.temporary);
    }
}
