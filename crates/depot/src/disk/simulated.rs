//! A disk in memory that keeps no more than it promises. (depot 4.2, 4.3)
//!
//! It counts what changes it. At a chosen operation it fails, as a full or broken disk does, or everything ends there, as
//! by kill -9 or a power cut. What is left then is drawn at random from all that the system may leave.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;

use super::{Appender, Folder, FolderLock, Handle, Space};

/// What a file system writes or loses in one piece. Smaller than a real one, so that small tests have many.
const PAGE: usize = 64;

thread_local! {
    /// Where this thread's random bytes come from, in place of the system.
    static DRAWN: RefCell<Option<Rng>> = const { RefCell::new(None) };
}

/// From now on [`super::random`] draws from this seed in this thread, or from the system again.
pub(crate) fn draw_from(seed: Option<u64>) {
    DRAWN.with_borrow_mut(|drawn| *drawn = seed.map(Rng::with_seed));
}

/// False if they are to come from the system.
pub(super) fn draw(bytes: &mut [u8]) -> bool {
    DRAWN.with_borrow_mut(|drawn| drawn.as_mut().map(|rng| rng.fill(bytes)).is_some())
}

/// A folder in memory. Clones are the same folder.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimulatedFolder(Arc<Mutex<State>>, Arc<Gate>);

/// Where syncs of files wait while it is closed.
#[derive(Debug, Default)]
struct Gate {
    is_closed: Mutex<bool>,
    has_opened: Condvar,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<SimulatedFile>,
    /// What programs see.
    names: BTreeMap<String, usize>,
    /// What has happened to names since the folder was synced: each may be lost.
    renamed: Vec<BTreeMap<String, usize>>,
    synced_names: BTreeMap<String, usize>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    has_ended: bool,
    /// Bytes that may still be appended, where the disk is nearly full.
    room: Option<usize>,
    /// What programs are told of it.
    space: Option<Space>,
    syncs: u64,
}

#[derive(Clone, Debug, Default)]
struct SimulatedFile {
    bytes: Vec<u8>,
    /// What is certainly on the disk.
    synced: Vec<u8>,
}

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing that follows reaches the disk.
    End,
    /// This one fails, having done half of its work; the next ones work.
    Error,
}

impl SimulatedFolder {
    /// The operation of this number, counted from now on, meets the fault.
    pub(crate) fn fail_at(&self, operation: u64, fault: Fault) {
        let mut state = self.lock();
        state.fault = Some((state.operations + operation, fault));
    }

    /// How many syncs of files there were.
    pub(crate) fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Whether everything has ended: nothing reaches the disk any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().has_ended
    }

    /// From now on so many bytes fit.
    pub(crate) fn set_room(&self, bytes: usize) {
        self.lock().room = Some(bytes);
    }

    /// How many operations have changed it.
    pub(crate) fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// From now on syncs of files wait, or no more.
    pub(crate) fn hold_syncs(&self, hold: bool) {
        *self.1.is_closed.lock().unwrap_or_else(PoisonError::into_inner) = hold;
        self.1.has_opened.notify_all();
    }

    /// From now on the disk says that it is so large and has so much free.
    pub(crate) fn set_space(&self, space: Space) {
        self.lock().space = Some(space);
    }

    /// What kill -9 leaves: all that was written.
    pub(crate) fn after_kill(&self) -> Self {
        let state = self.lock();
        Self::of(state.files.clone(), state.names.clone())
    }

    /// What a power cut may leave: all that was synced; of the rest any page or none; of the names those that were synced,
    /// or any later state.
    pub(crate) fn after_power_cut(&self, rng: &mut Rng) -> Self {
        let state = self.lock();
        let states: Vec<_> = std::iter::once(&state.synced_names).chain(&state.renamed).collect();
        let mut names = states[rng.usize(..states.len())].clone();
        // What no name leads to is gone.
        let files = names.values_mut().enumerate().map(|(at, file)| {
            let bytes = state.files[std::mem::replace(file, at)].after_power_cut(rng);
            SimulatedFile { bytes, synced: Vec::new() }
        });
        let files = files.collect();
        Self::of(files, names)
    }

    /// Changes bytes of a file, as a failing disk does.
    pub(crate) fn alter(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        let at = state.names[name];
        change(&mut state.files[at].bytes);
        state.files[at].synced = state.files[at].bytes.clone();
    }

    /// A folder of its own with the same files.
    pub(crate) fn copy(&self) -> Self {
        self.after_kill()
    }

    fn of(mut files: Vec<SimulatedFile>, names: BTreeMap<String, usize>) -> Self {
        files.iter_mut().for_each(|file| file.synced = file.bytes.clone());
        let state = State { files, synced_names: names.clone(), names, ..State::default() };
        Self(Arc::new(Mutex::new(state)), Arc::default())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SimulatedFile {
    fn after_power_cut(&self, rng: &mut Rng) -> Vec<u8> {
        // The length is metadata of its own: it may be ahead of the bytes, which are zeros then.
        let (least, most) = (self.synced.len().min(self.bytes.len()), self.synced.len().max(self.bytes.len()));
        let length = if self.bytes == self.synced { least } else { rng.usize(least..=most) };
        let mut bytes = vec![0; length];
        for start in (0..length).step_by(PAGE) {
            let page = start..(start + PAGE).min(length);
            let from = if rng.bool() { &self.bytes } else { &self.synced };
            for at in page {
                // What was synced and is still wanted is there in any case.
                let certain = self.synced.get(at).filter(|byte| self.bytes.get(at) == Some(byte));
                bytes[at] = certain.or(from.get(at)).copied().unwrap_or(0);
            }
        }
        bytes
    }
}

impl State {
    /// Counts an operation that changes the disk; the fault that it meets.
    fn operate(&mut self) -> io::Result<Option<io::Error>> {
        if self.has_ended {
            return Err(io::Error::other("everything has ended"));
        }
        self.operations += 1;
        match self.fault {
            Some((at, Fault::End)) if self.operations >= at => {
                self.has_ended = true;
                Ok(Some(io::Error::other("everything ends here")))
            }
            Some((at, Fault::Error)) if self.operations == at => Ok(Some(io::Error::other("the disk fails"))),
            _ => Ok(None),
        }
    }

    /// An operation that happens as a whole or not at all.
    fn operate_whole(&mut self) -> io::Result<()> {
        self.operate()?.map_or(Ok(()), Err)
    }

    fn rename(&mut self, change: impl FnOnce(&mut BTreeMap<String, usize>)) {
        change(&mut self.names);
        self.renamed.push(self.names.clone());
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Folder for SimulatedFolder {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.lock();
        Ok(state.files[state.file(name)?].bytes.clone())
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = self.read(name)?;
        let range = bytes.get(offset as usize..offset as usize + length);
        range.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Appender>> {
        let mut state = self.lock();
        state.operate_whole()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.files.push(SimulatedFile::default());
        let at = state.files.len() - 1;
        state.rename(|names| {
            names.insert(name.to_owned(), at);
        });
        Ok(Box::new(OpenFile { folder: self.clone(), at }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Appender>> {
        let at = self.lock().file(name)?;
        Ok(Box::new(OpenFile { folder: self.clone(), at }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.operate_whole()?;
        let at = state.file(from)?;
        state.rename(|names| {
            names.remove(from);
            names.insert(to.to_owned(), at);
        });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.operate_whole()?;
        let at = state.file(name)?;
        if let Some(room) = &state.room {
            state.room = Some(room + state.files[at].bytes.len());
        }
        state.rename(|names| {
            names.remove(name);
        });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.operate_whole()?;
        state.synced_names = state.names.clone();
        state.renamed.clear();
        Ok(())
    }

    fn handle(&self, name: &str) -> io::Result<Arc<dyn Handle>> {
        let at = self.lock().file(name)?;
        Ok(Arc::new(OpenFile { folder: self.clone(), at }))
    }

    fn space(&self) -> io::Result<Space> {
        Ok(self.lock().space.unwrap_or(Space { total: 1 << 40, available: 1 << 40 }))
    }

    fn lock(&self) -> io::Result<FolderLock> {
        Ok(FolderLock { _folder: None })
    }
}

#[derive(Clone, Debug)]
struct OpenFile {
    folder: SimulatedFolder,
    at: usize,
}

impl Appender for OpenFile {
    fn length(&self) -> u64 {
        self.folder.lock().files[self.at].bytes.len() as u64
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.folder.lock();
        let fault = state.operate()?;
        let fits = state.room.unwrap_or(usize::MAX).min(bytes.len());
        if let Some(room) = &mut state.room {
            *room -= fits;
        }
        let written = if fault.is_some() { bytes.len() / 2 } else { fits };
        state.files[self.at].bytes.extend_from_slice(&bytes[..written]);
        match fault {
            Some(error) => Err(error),
            None if fits < bytes.len() => Err(io::ErrorKind::StorageFull.into()),
            None => Ok(()),
        }
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let mut state = self.folder.lock();
        state.operate_whole()?;
        let before = state.files[self.at].bytes.len();
        state.files[self.at].bytes.truncate(length as usize);
        if let Some(room) = &mut state.room {
            *room += before - length as usize;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Handle::sync(self)
    }
}

impl Handle for OpenFile {
    fn length(&self) -> io::Result<u64> {
        Ok(Appender::length(self))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.folder.lock();
        let bytes = state.files[self.at].bytes.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let gate = &self.folder.1;
        let is_closed = gate.is_closed.lock().unwrap_or_else(PoisonError::into_inner);
        drop(gate.has_opened.wait_while(is_closed, |is_closed| *is_closed));
        let mut state = self.folder.lock();
        if let Some(error) = state.operate()? {
            // As Linux does: what could not be written is dropped, and the next sync succeeds.
            let file = &mut state.files[self.at];
            let synced = file.synced.clone();
            file.bytes = synced;
            return Err(error);
        }
        state.syncs += 1;
        let file = &mut state.files[self.at];
        file.synced = file.bytes.clone();
        Ok(())
    }
}
