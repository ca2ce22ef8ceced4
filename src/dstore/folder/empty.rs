//! Emptying the folder at the start without losing files that no Dstore has written. (spec 5.1, 7.15)
//!
//! The folder may be a user's photos, named by mistake or through a link. So a Dstore deletes only what a Dstore has
//! written; the rest it moves into a new folder beside this one, where its owner finds it.
//!
//! Which files are ours? A stored file carries the attribute of its [checksum](crate::dstore::checksum): it is attached
//! before the file gets its name, and no other program attaches it. A file that was still on its way when its Dstore was
//! killed has none, but a name that no other program gives: `.incoming 7`. Where the file system has no attributes, or lost
//! them on the way through a backup, nothing tells our files from others. There all of them are moved: a start then
//! costs the room of the run before, which its user can delete, and deleting a photo could not be undone.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::dstore::StartError;
use crate::dstore::checksum;

/// What the names of files on their way in begin with; a number follows.
pub(super) const INCOMING: &str = ".incoming ";

/// Empties a folder. By `force` everything is deleted; otherwise a folder that holds folders is refused untouched, and so
/// is one whose foreign files cannot be moved away.
pub(super) fn empty(folder: &Path, force: bool) -> Result<(), StartError> {
    let failed = |source| StartError::Folder { path: folder.to_owned(), source };
    let (mut folders, mut ours, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
        if kind.is_dir() {
            folders.push(path);
        } else if force || (kind.is_file() && is_ours(&path)) {
            ours.push(path);
        } else {
            foreign.push(path);
        }
    }
    if let (Some(inner), false) = (folders.first(), force) {
        return Err(StartError::FolderInUse { path: folder.to_owned(), inner: inner.clone() });
    }
    if let Some(example) = foreign.first() {
        let refused = |source| StartError::ForeignFiles { path: folder.to_owned(), example: example.clone(), source };
        let aside = set_aside(folder, &foreign).map_err(refused)?;
        log::warn!(
            "{}: held files that no Dstore has written: {} of them, such as {:?}, moved to {}",
            folder.display(),
            foreign.len(),
            example.file_name().unwrap_or_default(),
            aside.display()
        );
    }
    ours.iter().try_for_each(fs::remove_file).map_err(failed)?;
    folders.iter().try_for_each(fs::remove_dir_all).map_err(failed)
}

fn is_ours(file: &Path) -> bool {
    let number = file.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_prefix(INCOMING));
    number.is_some_and(|number| number.parse::<u64>().is_ok()) || checksum::is_attached(file)
}

/// Moves files into a new folder beside `folder`, and says which. What was moved before a failure stays there.
fn set_aside(folder: &Path, files: &[PathBuf]) -> io::Result<PathBuf> {
    let aside = make_folder_beside(folder)?;
    for file in files {
        let moved = fs::rename(file, aside.join(file.file_name().unwrap_or_default()));
        if let Err(error) = moved {
            // Only if nothing has been moved.
            let _ = fs::remove_dir(&aside);
            return Err(error);
        }
    }
    Ok(aside)
}

/// Makes the first of `FOLDER.set-aside-1`, `FOLDER.set-aside-2` and so on that is not there yet. It is readable for its
/// owner only, as the files may have been.
fn make_folder_beside(folder: &Path) -> io::Result<PathBuf> {
    // Beside what a link points to: a file is renamed within one file system only.
    let folder = folder.canonicalize()?;
    let name = folder.file_name().ok_or_else(|| io::Error::other("there is nothing beside the root"))?;
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let mut number = 1_u32;
    loop {
        let mut aside = OsString::from(name);
        aside.push(format!(".set-aside-{number}"));
        let aside = folder.with_file_name(aside);
        match builder.create(&aside) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            made => return made.map(|()| aside),
        }
    }
}
