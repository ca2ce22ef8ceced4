//! A Dstore's folder: each file whole or not there at all. (spec 5.1, 7.11, 7.12)
//!
//! A file is written under a name that no client can use (it holds a space), and renamed when all of it is there. It
//! then carries a [`Checksum`](super::checksum::Checksum). A copy that turns out to be another than was stored is removed:
//! one that is missing is healed by the next rebalance, and one that is wrong would be spread.

mod empty;
mod stored;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::checksum::{self, Summing};
use super::{Defect, StartError};
use crate::protocol::FileName;
use crate::sync::Mutex;
use crate::sync::group_commit::GroupCommit;
use empty::INCOMING;
use stored::{Identity, identity};

pub use stored::StoredFile;

/// The files of one Dstore.
pub struct Folder {
    path: PathBuf,
    /// Locked as long as this exists: two Dstores in one folder would delete each other's files.
    lock: File,
    /// Whether files here can carry checksums.
    has_checksums: bool,
    /// For changes of names, if they have to be on the disk before they are acknowledged.
    commits: Option<GroupCommit>,
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
    /// Files that a rebalance order has removed once its copies are sent. One that is stored anew before that stays.
    to_remove: HashSet<FileName>,
    /// Files that are there and are treated as if they were not, as they cannot be read. A newer file of the same
    /// name is not meant.
    withheld: HashMap<FileName, Identity>,
}

impl Folder {
    /// Makes the folder if it is missing, and empties it. (spec 5.1)
    ///
    /// Files that no Dstore has written are not deleted but moved into a folder beside this one. Where they cannot be, or
    /// where this one holds folders, it is refused; with `force` all of it is deleted. (spec 7.15)
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
        empty::empty(path, force)?;
        let checksums = checksum::probe(&lock);
        if let Err(error) = &checksums {
            log::warn!("{}: copies will not be verified, as files can carry no checksums: {error}", path.display());
        }
        Ok(Self {
            path: path.to_owned(),
            lock,
            has_checksums: checksums.is_ok(),
            commits: None,
            state: Mutex::default(),
        })
    }

    /// From now on a file that is [kept](Incoming::keep) is on the disk, and so is all that [`sync`](Self::sync) is
    /// called for: no power cut takes it back.
    pub fn synced(mut self) -> Result<Self, StartError> {
        // The folder's own name, too, and that of every folder above it that may have been made for it.
        let sync = |folder: &Path| match File::open(folder) {
            Ok(folder) => folder.sync_all(),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()), // not made by us
            Err(error) => Err(error),
        };
        let synced = self.path.canonicalize().and_then(|path| path.ancestors().try_for_each(sync));
        synced.map_err(|source| StartError::Folder { path: self.path.clone(), source })?;
        self.commits = Some(GroupCommit::default());
        Ok(self)
    }

    /// Whether [`sync`](Self::sync) does anything.
    pub fn is_synced(&self) -> bool {
        self.commits.is_some()
    }

    /// Returns once all files that have been given a name or lost it are so on the disk; at once if the folder is not
    /// [synced](Self::synced). Calls at the same time share the cost.
    pub fn sync(&self) -> io::Result<()> {
        self.commits.as_ref().map_or(Ok(()), |commits| commits.commit(|| self.lock.sync_all()))
    }

    /// Begins to take in a file; an older arrival of the same name is given up, and a file of that name is replaced.
    pub fn receive(&self, name: &FileName) -> io::Result<Incoming<'_>> {
        let arrival = {
            let mut state = self.state.lock();
            state.arrivals += 1;
            let arrival = state.arrivals;
            state.newest.insert(name.clone(), arrival);
            state.to_remove.remove(name);
            arrival
        };
        let path = self.path.join(format!("{INCOMING}{arrival}"));
        // The guard first: whatever happens from here on, it cleans up.
        let summing = self.has_checksums.then(|| Summing::new(name));
        let mut incoming = Incoming { folder: self, name: name.clone(), arrival, path, file: None, summing };
        incoming.file = Some(OpenOptions::new().write(true).create_new(true).open(&incoming.path)?);
        Ok(incoming)
    }

    /// The same for a file that is not there; fails if it is. One that appears later has overtaken this one. (spec 7.30)
    pub fn receive_missing(&self, name: &FileName) -> io::Result<Incoming<'_>> {
        let check = || if self.contains(name) { Err(ErrorKind::AlreadyExists) } else { Ok(()) };
        check()?; // before anything is given up for it
        let incoming = self.receive(name)?;
        check()?;
        Ok(incoming)
    }

    /// Whether there is a file of this name that can be read, as far as is known.
    pub fn contains(&self, name: &FileName) -> bool {
        let found = fs::symlink_metadata(self.path.join(name)).ok().filter(|metadata| metadata.is_file());
        found.is_some_and(|metadata| self.state.lock().withheld.get(name) != Some(&identity(&metadata)))
    }

    /// Opens a file to be read. One that turns out to be bad is as good as missing from then on.
    pub fn open(&self, name: &FileName) -> Result<StoredFile, Defect> {
        let mut file = StoredFile::open(&self.path, name)?;
        if self.state.lock().withheld.get(name) == Some(&file.identity()) {
            return Err(Defect::Missing);
        }
        if let Err(defect) = file.expect_its_checksum() {
            self.examine(&file);
            return Err(defect);
        }
        Ok(file)
    }

    /// A file's size in bytes.
    pub fn size(&self, name: &FileName) -> io::Result<u64> {
        Ok(fs::symlink_metadata(self.path.join(name))?.len())
    }

    /// Looks again at a file that could not be read, or not as what was stored. If that is so it is from now on as good
    /// as missing.
    ///
    /// It is looked at anew, from the disk: what was wrong may have been the memory. One that is wrong is removed: it is
    /// of no use. One that cannot be read may be readable another day, so it is only not offered.
    pub fn examine(&self, suspect: &StoredFile) {
        let name = suspect.name();
        let Ok(mut file) = StoredFile::open(&self.path, name) else { return };
        if file.identity() != suspect.identity() {
            return; // removed or replaced meanwhile
        }
        file.forget_cached();
        match file.expect_its_checksum().and_then(|()| file.verify()) {
            Ok(()) => log::warn!("{name}: could not be read right once, and can now"),
            Err(defect) => self.take_out(&file, &defect),
        }
    }

    /// Treats a file as bad if it has not this size: the Controller says that it should. (spec 8.4)
    pub fn expect_size(&self, name: &FileName, size: u64) {
        let Ok(file) = StoredFile::open(&self.path, name) else { return };
        if file.size() != size {
            let found = format!("it has {} bytes, and the Controller says {size}", file.size());
            self.take_out(&file, &Defect::Altered(found));
        }
    }

    /// Removes a file that was altered, or withholds one that cannot be read, unless the name is another's by now.
    fn take_out(&self, bad: &StoredFile, defect: &Defect) {
        let name = bad.name();
        let mut state = self.state.lock();
        let is_current = fs::symlink_metadata(self.path.join(name)).is_ok_and(|now| identity(&now) == bad.identity());
        if !is_current || state.withheld.get(name) == Some(&bad.identity()) {
            return; // another thread was faster
        }
        let is_removed = matches!(defect, Defect::Altered(_)) && self.unlink(&mut state, name).is_ok();
        if !is_removed {
            state.withheld.insert(name.clone(), bad.identity());
        }
        drop(state);
        let consequence = if is_removed { "removed" } else { "no longer offered" };
        log::error!("{name}: this copy is bad, and is {consequence}: {defect}");
    }

    /// Removes a file, and gives up one of that name that is on its way; false if it is not there. (spec 4.4)
    pub fn remove(&self, name: &FileName) -> io::Result<bool> {
        let mut state = self.state.lock();
        state.newest.remove(name);
        self.unlink(&mut state, name)
    }

    /// Notes that a rebalance order will have these files removed.
    pub fn order_removal(&self, names: &[FileName]) {
        self.state.lock().to_remove.extend(names.iter().cloned());
    }

    /// Carries out an ordered removal, unless the file has been stored anew since, or the removal was cancelled.
    pub fn remove_as_ordered(&self, name: &FileName) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.to_remove.remove(name) {
            self.unlink(&mut state, name)?;
        }
        Ok(())
    }

    /// Cancels an ordered removal: the file's copy could not be sent. (spec 7.17)
    pub fn cancel_removal(&self, name: &FileName) {
        self.state.lock().to_remove.remove(name);
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
        let state = self.state.lock();
        names.retain(|name| !state.withheld.contains_key(name));
        drop(state);
        names.sort_unstable();
        Ok(names)
    }

    fn unlink(&self, state: &mut State, name: &FileName) -> io::Result<bool> {
        match fs::remove_file(self.path.join(name)) {
            Ok(()) => {
                state.withheld.remove(name);
                Ok(true)
            }
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
    /// `None` where files cannot carry checksums.
    summing: Option<Summing>,
}

impl Incoming<'_> {
    /// All of the content is there: the file appears under its own name, in place of any older one. False if a newer
    /// arrival or a REMOVE has overtaken it: then it is not to be acknowledged.
    ///
    /// Where the folder is [synced](Folder::synced), content and checksum are on the disk before the file has its name,
    /// and the name is before this returns.
    pub fn keep(mut self) -> io::Result<bool> {
        let file = self.file.as_ref().ok_or(ErrorKind::NotFound)?;
        if let Some(summing) = &self.summing {
            // Without its checksum, be it for want of room, a file is not kept: it could not be told from a bad one.
            summing.sum().attach(file)?;
        }
        if self.folder.is_synced() {
            file.sync_all()?;
        }
        {
            let mut state = self.folder.state.lock();
            if !self.is_newest(&state) {
                return Ok(false);
            }
            fs::rename(&self.path, self.folder.path.join(&self.name))?;
            state.withheld.remove(&self.name);
        }
        self.file = None;
        self.folder.sync()?;
        // A sync takes time. What is acknowledged must be this file, not one that came after it.
        let is_newest = self.is_newest(&self.folder.state.lock());
        Ok(is_newest)
    }

    fn is_newest(&self, state: &State) -> bool {
        state.newest.get(&self.name) == Some(&self.arrival)
    }
}

impl Write for Incoming<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.as_mut().ok_or(ErrorKind::NotFound)?.write(bytes)?;
        if let Some(summing) = &mut self.summing {
            summing.add(&bytes[..written]);
        }
        Ok(written)
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
        if self.is_newest(&state) {
            state.newest.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests;
