//! A Dstore's folder: each file whole or not there at all. (spec 5.1, 7.11, 7.12)
//!
//! A file is written under a name that no client can use (it holds a space), and renamed when all of it is there.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::StartError;
use crate::protocol::FileName;

/// The files of one Dstore.
pub struct Folder {
    path: PathBuf,
    /// Locked as long as this exists: two Dstores in one folder would delete each other's files.
    _lock: File,
    state: Mutex<State>,
}

/// What is about to happen to the files. Held while a file gets or loses its name, so that those happen one by one.
#[derive(Default)]
struct State {
    /// Incoming files are numbered.
    arrivals: u64,
    /// For each file on its way, the newest arrival: any older one has been given up by the Controller, and must not
    /// replace it.
    newest: HashMap<FileName, u64>,
    /// Files that an order says are to be removed. One that is stored anew before it is removed stays.
    condemned: HashSet<FileName>,
}

impl Folder {
    /// Makes the folder if it is missing, and empties it; one that holds folders only by `force`. (spec 5.1, 7.15)
    pub fn open_empty(path: &Path, force: bool) -> Result<Self, StartError> {
        let failed = |source| StartError::Folder { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let lock = File::open(path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StartError::FolderTaken { path: path.to_owned() }),
            // Some file systems have no locks; they are no worse off than before.
            Err(TryLockError::Error(error)) => log::warn!("cannot lock {}: {error}", path.display()),
        }
        let mut folders = Vec::new();
        let mut files = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            if is_folder { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
        // Looked through before anything is deleted: refused means untouched.
        if let (Some(inner), false) = (folders.first(), force) {
            return Err(StartError::FolderInUse { path: path.to_owned(), inner: inner.clone() });
        }
        files.iter().try_for_each(fs::remove_file).map_err(failed)?;
        folders.iter().try_for_each(fs::remove_dir_all).map_err(failed)?;
        Ok(Self { path: path.to_owned(), _lock: lock, state: Mutex::default() })
    }

    /// Begins to take in a file; an older arrival of the same name is given up.
    pub fn receive(&self, name: &FileName) -> io::Result<Incoming<'_>> {
        let arrival = {
            let mut state = self.state.lock();
            state.arrivals += 1;
            let arrival = state.arrivals;
            state.newest.insert(name.clone(), arrival);
            state.condemned.remove(name);
            arrival
        };
        let path = self.path.join(format!(".incoming {arrival}"));
        // The guard first: whatever happens from here on, it cleans up.
        let mut incoming = Incoming { folder: self, name: name.clone(), arrival, path, file: None };
        incoming.file = Some(OpenOptions::new().write(true).create_new(true).open(&incoming.path)?);
        Ok(incoming)
    }

    /// Opens a file and tells its size; `NotFound` if it is not there.
    pub fn open(&self, name: &FileName) -> io::Result<(File, u64)> {
        let file = File::open(self.path.join(name))?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }

    /// Removes a file, and gives up one of that name that is on its way; false if it is not there. (spec 4.4)
    pub fn remove(&self, name: &FileName) -> io::Result<bool> {
        let mut state = self.state.lock();
        state.newest.remove(name);
        self.unlink(name)
    }

    /// Notes that an order will have these files removed.
    pub fn condemn(&self, names: &[FileName]) {
        self.state.lock().condemned.extend(names.iter().cloned());
    }

    /// Removes a file that was condemned, unless it has been stored anew since.
    pub fn remove_condemned(&self, name: &FileName) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.condemned.remove(name) {
            self.unlink(name)?;
        }
        Ok(())
    }

    /// Takes back that a file is condemned: its copy could not be sent. (spec 7.17)
    pub fn spare(&self, name: &FileName) {
        self.state.lock().condemned.remove(name);
    }

    /// What is in the folder, in order of name. What no client could have stored is passed over. (spec 4.6.1)
    pub fn list(&self) -> io::Result<Vec<FileName>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if entry.file_type()?.is_file() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn unlink(&self, name: &FileName) -> io::Result<bool> {
        match fs::remove_file(self.path.join(name)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A file on its way in. Dropped before it is [kept](Self::keep) it leaves nothing behind.
pub struct Incoming<'a> {
    folder: &'a Folder,
    name: FileName,
    arrival: u64,
    path: PathBuf,
    /// `None` where it could not be made.
    file: Option<File>,
}

impl Incoming<'_> {
    /// All of the content is there: the file appears under its own name, in place of any older one. False if a newer
    /// arrival or a REMOVE has overtaken it: nothing is kept.
    pub fn keep(mut self) -> io::Result<bool> {
        // Let go of before `self`, whose drop takes it again.
        let state = self.folder.state.lock();
        if state.newest.get(&self.name) != Some(&self.arrival) {
            return Ok(false);
        }
        fs::rename(&self.path, self.folder.path.join(&self.name))?;
        self.file = None;
        Ok(true)
    }
}

impl Write for Incoming<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().ok_or(ErrorKind::NotFound)?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            // Where this fails the folder itself is gone.
            let _ = fs::remove_file(&self.path);
        }
        let mut state = self.folder.state.lock();
        if state.newest.get(&self.name) == Some(&self.arrival) {
            state.newest.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests;
