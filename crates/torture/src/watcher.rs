//! Looks into all folders all the time: what lies there under a file's name must be the whole content that some client
//! stored. (spec 7.11)
//!
//! A rename is one step, and a file that has its name is never written to again. So what the watcher reads at any
//! instant is what a crash at that instant would leave behind.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::history::{Content, Name};
use crate::workload::name_of;

/// From one look into all folders to the next.
const PAUSE: Duration = Duration::from_millis(20);

/// What the watcher knows and finds.
#[derive(Default)]
pub struct Watcher {
    /// Held for one look into all folders. Otherwise a file might be forgotten, or lose its excuse, just after it was
    /// read.
    looking: Mutex<()>,
    /// What clients have stored, or tried to.
    stored: Mutex<HashMap<Name, HashSet<Content>>>,
    /// Folders in which copies were damaged on purpose.
    excused: Mutex<HashSet<PathBuf>>,
    found: Mutex<Option<String>>,
    /// The folders of the living Dstores, by where their peers find them.
    folders: Mutex<HashMap<u16, PathBuf>>,
    /// Files looked at.
    pub looks: AtomicU64,
}

impl Watcher {
    /// A client is about to store this.
    pub fn expect(&self, name: Name, content: Content) {
        self.stored.lock().entry(name).or_default().insert(content);
    }

    /// Nothing else lies in any folder now; nothing can come from now on but what clients are about to store.
    pub fn forget_all_but(&self, files: &BTreeMap<Name, Content>) {
        let _looking = self.looking.lock();
        *self.stored.lock() = files.iter().map(|(&name, &content)| (name, HashSet::from([content]))).collect();
    }

    /// What is in this folder was damaged on purpose.
    pub fn excuse(&self, folder: &Path) {
        self.excused.lock().insert(folder.to_owned());
    }

    /// The folders are as they should be again.
    pub fn excuse_nobody(&self) {
        let _looking = self.looking.lock();
        self.excused.lock().clear();
    }

    /// A Dstore is found at this port.
    pub fn opened(&self, port: u16, folder: &Path) {
        self.folders.lock().insert(port, folder.to_owned());
    }

    /// It will be found there no more.
    pub fn closed(&self, port: u16) {
        self.folders.lock().remove(&port);
    }

    /// The Dstores that have no copy of the file just now, except those with copies that were damaged on purpose.
    pub fn without_copy(&self, file: &str) -> HashSet<u16> {
        let excused = self.excused.lock();
        let folders = self.folders.lock();
        let sound = folders.iter().filter(|(_, folder)| !excused.contains(*folder));
        sound.filter(|(_, folder)| !folder.join(file).exists()).map(|(&port, _)| port).collect()
    }

    /// What should not be there.
    pub fn found(&self) -> Option<String> {
        self.found.lock().clone()
    }

    /// Looks into every folder of a Dstore below `root`, for ever.
    pub fn start(self: &Arc<Self>, root: &Path) -> std::io::Result<()> {
        let (watcher, root) = (Arc::clone(self), root.to_owned());
        thread::Builder::new().name("watcher".into()).spawn(move || {
            while watcher.found().is_none() {
                thread::sleep(PAUSE);
                if let Some(found) = watcher.look(&root) {
                    *watcher.found.lock() = Some(found);
                }
            }
        })?;
        Ok(())
    }

    /// Files that come and go meanwhile are no error.
    fn look(&self, root: &Path) -> Option<String> {
        let _looking = self.looking.lock();
        let folders = fs::read_dir(root).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        for folder in folders.filter(|folder| folder.is_dir()) {
            for entry in fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
                let file = entry.file_name().to_string_lossy().into_owned();
                let Some(name) = name_of(&file) else {
                    if file.starts_with(".incoming ") {
                        continue;
                    }
                    return Some(format!("a file called {file:?} in {}", folder.display()));
                };
                let Ok(bytes) = fs::read(entry.path()) else { continue };
                self.looks.fetch_add(1, Ordering::Relaxed);
                let content = Content::of(&bytes);
                let is_known = self.stored.lock().get(&name).is_some_and(|stored| stored.contains(&content));
                if !is_known && !self.excused.lock().contains(&folder) {
                    return Some(format!("{file} in {} has {content}, which no client has stored", folder.display()));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_contents_pass_and_halves_and_strays_are_found() {
        // spec 5.1, 7.11
        let root = kit::TempFolder::new();
        let folder = root.path().join("dstore-0");
        fs::create_dir_all(&folder).unwrap();
        let watcher = Watcher::default();
        watcher.expect(1, Content::of(b"hello"));
        fs::write(folder.join(".incoming 1"), "hel").unwrap();
        fs::write(folder.join("file-001"), "hello").unwrap();
        assert_eq!(watcher.look(root.path()), None);
        for (file, content) in [("file-001", "hel"), ("file-002", "hello"), ("stray", "")] {
            fs::write(folder.join(file), content).unwrap();
            assert!(watcher.look(root.path()).is_some(), "{file}");
            fs::remove_file(folder.join(file)).unwrap();
        }
        fs::write(folder.join("file-001"), "hel").unwrap();
        watcher.excuse(&folder);
        assert_eq!(watcher.look(root.path()), None);
    }
}
