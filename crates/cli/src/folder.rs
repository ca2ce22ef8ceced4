//! A server's folder: locked while it is used, and never taken for a new one while it holds data. (depot 10)
//!
//! ```text
//! DIR/lock           held by the process that uses the folder
//! DIR/cluster.toml   in each folder of a store that has a log: for its servers
//! DIR/client.toml    beside it: for its users
//! DIR/controller/    the log and snapshots of a Controller; DIR/controller-2/ of another one, in a store to try
//! DIR/dstore/        the objects of a Dstore
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use depot::disk::RealFolder;
use depot::log::recovery::has_log;
use stevedore::program::Failure;

use crate::cluster::{CLUSTER_FILE, ClusterFile};
use crate::recovery;

/// Where a Controller keeps its log, and a Dstore its objects, in such a folder.
const CONTROLLER: &str = "controller";
const DSTORE: &str = "dstore";

/// A folder that no other process uses, for as long as this lives.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// The system lets go of the lock with the file, however the process ends.
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if it is missing, and keeps other processes out of it.
    pub fn claim(path: &Path) -> Result<Self, Failure> {
        let cannot_use = |error: io::Error| Failure::new(format!("cannot use {}: {error}", path.display()));
        if let Some(outer) = data_folder_around(path).map_err(cannot_use)? {
            return Err(Failure::new(format!(
                "{} lies in {}, which is a folder of a store itself: name that one, or one outside of it",
                path.display(),
                outer.display()
            )));
        }
        fs::create_dir_all(path).map_err(cannot_use)?;
        // Given out in messages, and used from wherever a user is.
        let path = path.canonicalize().map_err(cannot_use)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(path.join("lock"));
        let lock = lock.map_err(cannot_use)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Failure::new(format!(
                "{} is used by another process, probably a stevedore that runs already: end that one first",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(cannot_use(error)),
        }
    }

    /// All of them, or none.
    pub fn claim_all(paths: &[PathBuf]) -> Result<Vec<Self>, Failure> {
        paths.iter().map(|path| Self::claim(path)).collect()
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a Controller keeps its log.
    pub fn log(&self) -> PathBuf {
        self.path.join(CONTROLLER)
    }

    /// Where the Controller of this place in a row keeps its log: a folder may have more than one, in a store to try.
    pub fn log_at(&self, place: usize) -> PathBuf {
        if place == 0 { self.log() } else { self.path.join(format!("{CONTROLLER}-{}", place + 1)) }
    }

    /// Where a Dstore keeps its objects.
    pub fn objects(&self) -> PathBuf {
        self.path.join(DSTORE)
    }

    /// The file that tells of the store.
    pub fn cluster_file(&self) -> PathBuf {
        self.path.join(CLUSTER_FILE)
    }

    /// Whether a Controller has begun a log there.
    pub fn has_log(&self) -> Result<bool, Failure> {
        Self::has_log_in(&self.log())
    }

    /// Whether a Controller has begun a log in this folder of its own.
    pub fn has_log_in(log: &Path) -> Result<bool, Failure> {
        let cannot_read = |error: io::Error| Failure::new(format!("cannot read {}: {error}", log.display()));
        Ok(log.is_dir() && RealFolder::new(log).and_then(|log| has_log(&log)).map_err(cannot_read)?)
    }

    /// The first of these folders in which a Controller has begun a log: one before it may have been lost.
    pub fn first_with_log(folders: &[Self]) -> Result<Option<&Self>, Failure> {
        for folder in folders {
            if folder.has_log()? {
                return Ok(Some(folder));
            }
        }
        Ok(None)
    }

    /// Whether a Dstore has used the folder.
    pub fn has_objects(&self) -> Result<bool, Failure> {
        holds_anything(&self.objects())
    }
}

/// What a store is called and knows, as its Controllers start: read from the first folder with a log, or drawn for a new store.
///
/// A new store is made only where there is nothing of another one: a missing `cluster.toml` or log beside data is a mistake
/// or a loss, and to go on would bury what is left.
pub fn store_in(folders: &[DataFolder], name: &str) -> Result<ClusterFile, Failure> {
    let with_log = DataFolder::first_with_log(folders)?;
    let first = with_log.or(folders.first()).ok_or_else(|| Failure::usage("which folder?"))?;
    let known = ClusterFile::read(&first.cluster_file())?;
    let mut holding = None;
    for folder in folders {
        if folder.has_objects()? {
            holding.get_or_insert(folder);
        }
    }
    let advice = match with_log {
        Some(_) => format!("If it is lost, another one is made by: {}", recovery::words_to_draw_a_secret(first.path())),
        None => format!(
            "If it is lost, a backup at a Dstore takes its place: {}",
            recovery::words_to_recover_from(first.path(), folders.iter().map(DataFolder::path))
        ),
    };
    match known {
        Some(known) => match holding {
            Some(folder) if with_log.is_none() => Err(Failure::new(format!(
                "{} holds objects of the store {:?}, but its log is missing in {}: without it no file is known. Put the log back \
                 where it was; a new store is never made beside data. {advice}",
                folder.path.display(),
                known.name,
                first.log().display()
            ))),
            // It is no loss, and the Controller would be reached at another port.
            _ if known.controllers.len() < 2 && first.path != folders[0].path => Err(Failure::new(format!(
                "the log of the store {:?} is in {}: name that folder first",
                known.name,
                first.path.display()
            ))),
            _ => Ok(known),
        },
        None => match holding.or(with_log) {
            Some(folder) => Err(Failure::new(format!(
                "{} holds data of a store, but there is no {CLUSTER_FILE} in {}. Put it back, or name all of the store's folders; a \
                 new store is never made beside data. {advice}",
                folder.path.display(),
                first.path.display()
            ))),
            None => ClusterFile::draw(name).map_err(|error| Failure::new(format!("cannot draw a secret: {error}"))),
        },
    }
}

/// The folder of a store that this one, which may not exist yet, lies in. Nothing is to be made among its data.
fn data_folder_around(path: &Path) -> io::Result<Option<PathBuf>> {
    let path = std::path::absolute(path)?;
    let there = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(&path);
    let real = there.canonicalize()?;
    let is_data = |folder: &&Path| folder.join("lock").is_file() && holds_server(folder);
    let around = real.ancestors().skip(usize::from(there == path));
    Ok(around.into_iter().find(is_data).map(Path::to_owned))
}

fn holds_server(folder: &Path) -> bool {
    [CONTROLLER, DSTORE].iter().any(|name| folder.join(name).is_dir())
}

fn holds_anything(folder: &Path) -> Result<bool, Failure> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::new(format!("cannot read {}: {error}", folder.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::TempFolder;

    fn claim(folder: &TempFolder, name: &str) -> DataFolder {
        DataFolder::claim(&folder.path().join(name)).unwrap()
    }

    #[test]
    fn a_folder_has_one_user_at_a_time() {
        let folder = TempFolder::new();
        let claimed = claim(&folder, "a");
        let refused = DataFolder::claim(&folder.path().join("a")).unwrap_err().message;
        assert!(refused.contains("another process"), "{refused}");
        // A link leads to the same folder.
        std::os::unix::fs::symlink(folder.path().join("a"), folder.path().join("b")).unwrap();
        assert!(DataFolder::claim(&folder.path().join("b")).is_err());
        drop(claimed);
        claim(&folder, "a");
    }

    #[test]
    fn nothing_is_made_within_the_folder_of_a_store() {
        let folder = TempFolder::new();
        let claimed = claim(&folder, "a");
        fs::create_dir(claimed.objects()).unwrap();
        drop(claimed);
        std::os::unix::fs::symlink(folder.path().join("a"), folder.path().join("link")).unwrap();
        for inner in ["a/dstore", "a/new", "a/dstore/deeper/new", "link/dstore", "link/new"] {
            let refused = DataFolder::claim(&folder.path().join(inner)).unwrap_err().message;
            assert!(refused.contains("folder of a store"), "{inner}: {refused}");
        }
        assert_eq!(kit::folder::names(&folder.path().join("a")), ["dstore", "lock"], "nothing was made");
        claim(&folder, "a");
        claim(&folder, "link");
        claim(&folder, "b/c");
    }

    #[test]
    fn a_store_is_never_made_beside_data() {
        let folder = TempFolder::new();
        let folders = [claim(&folder, "a"), claim(&folder, "b")];
        let drawn = store_in(&folders, "new").unwrap();
        assert_eq!(drawn.name, "new");
        drawn.write(&folders[0].cluster_file()).unwrap();
        // A crash before the log was made: the store is made now.
        assert_eq!(store_in(&folders, "other").unwrap(), drawn);
        fs::create_dir(folders[1].objects()).unwrap();
        assert_eq!(store_in(&folders, "other").unwrap(), drawn, "an empty folder is no data");
        fs::write(folders[1].objects().join("pack"), "objects").unwrap();
        let refused = store_in(&folders, "x").unwrap_err().message;
        assert!(refused.contains("log is missing") && refused.contains("/b"), "{refused}");
        fs::create_dir(folders[0].log()).unwrap();
        fs::write(folders[0].log().join("log-0"), "changes").unwrap();
        assert_eq!(store_in(&folders, "x").unwrap(), drawn);
        let [a, b] = folders;
        let folders = [claim(&folder, "new"), b, a];
        let refused = store_in(&folders, "x").unwrap_err().message;
        assert!(refused.contains("name that folder first"), "{refused}");
        // Of several Controllers, the first may have lost its disk.
        let controllers = ["h:1", "h:2", "h:3"].map(|address| address.parse().unwrap()).to_vec();
        let several = ClusterFile { controllers, ..drawn };
        several.write(&folders[2].cluster_file()).unwrap();
        assert_eq!(store_in(&folders, "x").unwrap(), several);
        drop(folders);
        let refused = store_in(&[claim(&folder, "new"), claim(&folder, "b")], "x").unwrap_err().message;
        assert!(refused.contains("all of the store's folders"), "{refused}");
        fs::remove_dir_all(folder.path().join("b")).unwrap();
        let folders = [DataFolder::claim(&folder.path().join("b")).unwrap()];
        assert_eq!(store_in(&folders, "fresh").unwrap().name, "fresh");
    }

    #[test]
    fn a_log_without_its_file_is_not_overwritten() {
        let folder = TempFolder::new();
        let folders = [claim(&folder, "a")];
        fs::create_dir(folders[0].log()).unwrap();
        fs::write(folders[0].log().join("log-0"), "changes").unwrap();
        assert!(store_in(&folders, "new").unwrap_err().message.contains(CLUSTER_FILE));
    }
}
