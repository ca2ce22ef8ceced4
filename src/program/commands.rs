//! The client's commands, as the command line and the prompt have them.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use super::Failure;
use crate::client::{Client, NewFile, Target};

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
    let bar = progress_bar(name, metadata.len());
    let outcome = client.store(name, metadata.len(), &mut bar.wrap_read(file));
    bar.finish_and_clear();
    outcome?;
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

/// Prints the names of all files, one in a line.
pub fn list(client: &mut Client) -> Result<(), Failure> {
    let names = client.list()?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    names.iter().try_for_each(|name| writeln!(out, "{name}")).and_then(|()| out.flush()).map_err(cannot_print)
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

/// One line on stdout.
pub fn say(line: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}").map_err(cannot_print)
}

/// Whoever read our output has seen enough (`| head`): no reason to complain, but one to stop.
fn cannot_print(error: io::Error) -> Failure {
    let is_closed = error.kind() == io::ErrorKind::BrokenPipe;
    Failure::new(if is_closed { String::new() } else { format!("cannot write to stdout: {error}") })
}

/// A bar on stderr if that is a terminal and the transfer may take a while.
fn progress_bar(name: &str, size: u64) -> ProgressBar {
    const STYLE: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    const LONG: u64 = 16 << 20;
    if size < LONG {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(STYLE).expect("a valid template");
    ProgressBar::new(size).with_style(style).with_message(name.to_owned())
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
        self.bar = progress_bar(self.name, size);
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
