//! A temporary folder that removes itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

/// A fresh folder, removed with all that is in it when dropped.
#[derive(Debug)]
pub struct TempFolder(PathBuf);

impl TempFolder {
    /// Makes one in the system's place for temporary files.
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// Makes one in memory if the system has a place for that and TMPDIR asks for no other.
    ///
    /// On a disk the file system would be most of what a bench measures. Ext4, for one, never takes the inode of a file
    /// that was removed in the last minutes: after some thousands of those, looking for another takes longer than all the
    /// rest of a store.
    pub fn in_memory() -> Self {
        Self::below(&place_in_memory())
    }

    /// Makes one in `parent`.
    pub fn below(parent: &Path) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("stevedore-{}-{number}", process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Self(path),
                // Left behind by a process that was killed, and whose number this one has now.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("cannot make a temporary folder in {}: {error}", parent.display()),
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The names of everything in it, hidden or not, in order.
    pub fn names(&self) -> Vec<String> {
        names(&self.0)
    }
}

impl Default for TempFolder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                eprintln!("{} stays: {error}", self.0.display());
            }
            _ => {}
        }
    }
}

/// Where files are made and removed at little cost: see [`TempFolder::in_memory`].
pub fn place_in_memory() -> PathBuf {
    let in_memory = Path::new("/dev/shm");
    if std::env::var_os("TMPDIR").is_none() && in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() }
}

/// The names of everything in a folder, hidden or not, in order. Panics if it cannot be read.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let name = |entry: io::Result<fs::DirEntry>| entry.expect("readable").file_name().to_string_lossy().into_owned();
    let mut names: Vec<_> = entries.map(name).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_fresh_and_goes_with_all_that_is_in_it() {
        let folder = TempFolder::new();
        let inner = TempFolder::below(folder.path());
        fs::write(inner.path().join("file"), "").unwrap();
        fs::write(folder.path().join(".hidden"), "").unwrap();
        let other = TempFolder::below(folder.path());
        assert_eq!(other.names(), [""; 0]);
        assert_eq!(folder.names().len(), 3);
        drop(inner);
        assert_eq!(folder.names().len(), 2);
        let path = folder.path().to_owned();
        drop((other, folder));
        assert!(!path.exists());
    }
}
