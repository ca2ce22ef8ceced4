//! The client's commands, as the command line and the prompt have them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use super::output::{say, say_each};
use super::prompt::Commands;
use super::{Failure, progress};
use crate::client::{self, Client, NewFile, Target};

/// The client's commands at the prompt.
impl Commands for Client {
    fn help(&self) -> &str {
        "\
store PATH [NAME]   store a file under its own name, or under NAME
load NAME [FOLDER]  load a file into this folder, or into FOLDER, in place of any it has there
list                the names of all files
remove NAME         remove a file"
    }

    fn run(&mut self, words: &[&str]) -> Option<Result<(), Failure>> {
        Some(match words {
            ["store", path] => store(self, Path::new(path), None),
            ["store", path, name] => store(self, Path::new(path), Some(name)),
            ["load", name] => load(self, name, &current_folder()),
            ["load", name, folder] => load(self, name, Path::new(folder)),
            ["list"] => list(self),
            ["remove", name] => remove(self, name),
            _ => return None,
        })
    }
}

/// Stores the file at `path` under `name`, or else under its own name.
pub fn store(client: &mut Client, path: &Path, name: Option<&str>) -> Result<(), Failure> {
    let own_name = path.file_name().and_then(|name| name.to_str());
    let name = name.or(own_name).ok_or_else(|| Failure::usage(format!("{} has no usable name", path.display())))?;
    let cannot_read = |error: io::Error| Failure::new(format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(cannot_read)?;
    let metadata = file.metadata().map_err(cannot_read)?;
    if !metadata.is_file() {
        return Err(Failure::new(format!("{} is not a file", path.display())));
    }
    let bar = progress::of_bytes(name, metadata.len());
    let outcome = client.store(name, metadata.len(), &mut bar.wrap_read(file));
    bar.finish_and_clear();
    outcome.map_err(|error| {
        let may_need_time = matches!(error, client::Error::StoreOverdue { .. } | client::Error::NoReply { .. });
        let mut failure = Failure::from(error);
        if may_need_time {
            failure.message += "; a large file needs a larger timeout, at the Controller and at the client";
        }
        failure
    })?;
    say(format_args!("stored {name} ({} bytes)", metadata.len()))
}

/// Loads a file into the folder `to`.
pub fn load(client: &mut Client, name: &str, to: &Path) -> Result<(), Failure> {
    let path = to.join(name);
    let cannot_write = |error: io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    // The name is the client's to check: until then it must not become a path.
    crate::protocol::FileName::new(name).map_err(|error| Failure::from(crate::client::Error::from(error)))?;
    let file = NewFile::create(&path).map_err(cannot_write)?;
    let mut target = Shown { name, file, bar: ProgressBar::hidden() };
    let outcome = client.load(name, &mut target);
    target.bar.finish_and_clear();
    let size = outcome?;
    target.file.keep().map_err(cannot_write)?;
    say(format_args!("loaded {name} ({size} bytes) into {}", path.display()))
}

/// Prints the names of all files, one in a line; escaped on a terminal where they could deceive.
pub fn list(client: &mut Client) -> Result<(), Failure> {
    say_each(client.list()?)
}

/// Removes a file.
pub fn remove(client: &mut Client, name: &str) -> Result<(), Failure> {
    client.remove(name)?;
    say(format_args!("removed {name}"))
}

/// The folder that `load` writes into unless told otherwise.
pub fn current_folder() -> PathBuf {
    PathBuf::from(".")
}

/// A file being loaded, with a bar.
struct Shown<'a> {
    name: &'a str,
    file: NewFile,
    bar: ProgressBar,
}

impl Target for Shown<'_> {
    fn begin(&mut self, size: u64) -> io::Result<()> {
        self.bar.finish_and_clear();
        self.bar = progress::of_bytes(self.name, size);
        self.file.begin(size)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bar.inc(bytes.len() as u64);
        self.file.write(bytes)
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.restart()
    }
}
