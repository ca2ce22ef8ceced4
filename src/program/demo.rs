//! `cluster --demo`: real files go in, a Dstore dies, the rest heal, and every byte comes back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cluster::{Cluster, Spread};
use super::output::say;
use super::{Failure, progress};
use crate::client::{Client, Target};
use crate::protocol::name::MAX_NAME_BYTES;
use crate::protocol::{FileName, NameError};

/// How long the rebalance after the loss may take.
const HEALING: Duration = Duration::from_secs(600);

/// Stores the files at `paths`, kills a Dstore, waits until the others have R copies of each file again, evenly spread,
/// and compares what comes back with the originals. Folders are walked, and what is left out is printed. Succeeds only
/// if every step does.
pub fn run(cluster: &mut Cluster, client: &mut Client, paths: &[PathBuf]) -> Result<(), Failure> {
    let inputs = gather(paths)?;
    inputs.say_remarks()?;
    let files = inputs.files;
    if files.is_empty() {
        return Err(Failure::new("there is no file to store"));
    }
    store_all(client, &files)?;
    check_copies(cluster, &files)?;
    say(format_args!("\n{}\n", cluster.status()))?;

    let victim = 1;
    let members = cluster.controller().status().members;
    let address = cluster.kill(victim)?.address.clone();
    let copies = members.iter().find(|member| member.address == address).map_or(0, |member| member.files);
    say(format_args!("Killed Dstore {victim}: {copies} files have lost a copy. Waiting for a rebalance..."))?;
    let begun = Instant::now();
    wait_until_healed(cluster, &files)?;
    say(format_args!(
        "Healed after {:.1} s: every file is on {} Dstores again, evenly spread.\n\n{}\n",
        begun.elapsed().as_secs_f64(),
        cluster.replicas(),
        cluster.status()
    ))?;

    load_all(client, &files)?;
    say(format_args!("All {} files came back, byte for byte the same. Nothing was lost.", files.len()))
}

/// What is stored under which name.
type Files = BTreeMap<FileName, PathBuf>;

/// What the demo was given.
#[derive(Default)]
struct Inputs {
    files: Files,
    /// What is left out, and what is stored under another name, each with the reason.
    remarks: Vec<String>,
}

fn gather(paths: &[PathBuf]) -> Result<Inputs, Failure> {
    let mut inputs = Inputs::default();
    for path in paths {
        inputs.walk(path, &path_name(path))?;
    }
    Ok(inputs)
}

fn path_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Inputs {
    fn walk(&mut self, path: &Path, name: &str) -> Result<(), Failure> {
        let cannot_read = |error: io::Error| Failure::new(format!("cannot read {}: {error}", path.display()));
        let kind = fs::symlink_metadata(path).map_err(cannot_read)?.file_type();
        if kind.is_file() {
            let (stored, reason) = stored_name(name, &self.files);
            if let Some(reason) = reason {
                self.remarks.push(format!("{} is stored as {stored}: {reason}", path.display()));
            }
            self.files.insert(stored, path.to_owned());
        } else if kind.is_dir() {
            let mut entries: Vec<_> = fs::read_dir(path).and_then(Iterator::collect).map_err(cannot_read)?;
            entries.sort_by_key(fs::DirEntry::path);
            for entry in entries {
                let inner = path_name(&entry.path());
                let name = if name.is_empty() { inner } else { format!("{name}/{inner}") };
                self.walk(&entry.path(), &name)?;
            }
        } else {
            // A link may lead round in circles; a FIFO or a device has no end.
            let what = if kind.is_symlink() { "a symbolic link" } else { "neither a file nor a folder" };
            self.remarks.push(format!("{} is left out: {what}", path.display()));
        }
        Ok(())
    }

    /// Prints the first remarks, and how many more there are.
    fn say_remarks(&self) -> Result<(), Failure> {
        const SHOWN: usize = 10;
        let (shown, others) = self.remarks.split_at(self.remarks.len().min(SHOWN));
        for remark in shown {
            say(format_args!("{remark}"))?;
        }
        if others.is_empty() { Ok(()) } else { say(format_args!("... and {} more like these", others.len())) }
    }
}

/// The name of a path in the store. Characters that names may not hold are written in the manner of URLs. If the name
/// is too long or taken, it gets a number in front and loses its beginning; then the reason is returned, too.
fn stored_name(path: &str, taken: &Files) -> (FileName, Option<&'static str>) {
    let mut name = String::new();
    for character in path.chars() {
        if matches!(character, ' ' | '/' | '\\' | '%') || character.is_control() {
            let mut bytes = [0; 4];
            name.extend(character.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")));
        } else {
            name.push(character);
        }
    }
    let reason = match FileName::new(&name) {
        Ok(name) if !taken.contains_key(&name) => return (name, None),
        Ok(_) => "another file has its name",
        Err(NameError::TooLong { .. }) => "its name is too long",
        Err(_) => "the store allows no such name",
    };
    let number = format!("{}~", taken.len());
    let start = name.ceil_char_boundary((name.len() + number.len()).saturating_sub(MAX_NAME_BYTES));
    let name =
        FileName::new(&format!("{number}{}", &name[start..])).expect("short enough, and nothing in it is forbidden");
    (name, Some(reason))
}

fn store_all(client: &mut Client, files: &Files) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut bytes = 0;
    let bar = progress::of_files("storing", files.len());
    for (name, path) in files {
        client.store_file(name, path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        bytes += fs::metadata(path).map_or(0, |metadata| metadata.len());
        bar.inc(1);
    }
    bar.finish_and_clear();
    let seconds = begun.elapsed().as_secs_f64();
    say(format_args!("Stored {} files, {bytes} bytes, in {seconds:.1} s.", files.len()))
}

fn load_all(client: &mut Client, files: &Files) -> Result<(), Failure> {
    let bar = progress::of_files("comparing", files.len());
    for (name, path) in files {
        let failed = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
        let mut comparison = Comparison { original: File::open(path).map_err(|error| failed(&error))? };
        client.load(name, &mut comparison).map_err(|error| failed(&error))?;
        comparison.expect_end().map_err(|error| failed(&error))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Every file is in exactly R of the live folders, with the right size, and the folders hold equally many.
fn check_copies(cluster: &Cluster, files: &Files) -> Result<(), Failure> {
    let folders = cluster.live_folders();
    let mut copies = vec![0; folders.len()];
    for (name, path) in files {
        let size = fs::metadata(path).map_err(Failure::new)?.len();
        let mut holders = 0;
        for (folder, count) in folders.iter().zip(&mut copies) {
            if fs::metadata(folder.join(name)).is_ok_and(|copy| copy.len() == size) {
                *count += 1;
                holders += 1;
            }
        }
        if holders != cluster.replicas() {
            return Err(Failure::new(format!("{name} is on {holders} Dstores instead of {}", cluster.replicas())));
        }
    }
    let spread = Spread { files: files.len(), replicas: cluster.replicas(), copies };
    if spread.is_as_it_should_be() { Ok(()) } else { Err(Failure::new(spread)) }
}

fn wait_until_healed(cluster: &Cluster, files: &Files) -> Result<(), Failure> {
    let deadline = Instant::now() + HEALING;
    loop {
        let seen = cluster.controller().status().rebalances;
        let outcome = check_copies(cluster, files);
        if outcome.is_ok() || Instant::now() > deadline {
            return outcome;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        cluster.controller().wait_until(left, |status| status.rebalances > seen);
    }
}

/// Takes content and compares it with a file as it comes.
struct Comparison {
    original: File,
}

impl Comparison {
    fn expect_end(&mut self) -> io::Result<()> {
        match self.original.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(differs()),
        }
    }
}

impl Target for Comparison {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut expected = vec![0; bytes.len()];
        self.original.read_exact(&mut expected)?;
        if expected == bytes { Ok(()) } else { Err(differs()) }
    }

    fn restart(&mut self) -> io::Result<()> {
        self.original.seek(SeekFrom::Start(0)).map(drop)
    }
}

fn differs() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "what came back differs from the original")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_becomes_a_name_and_no_two_the_same() {
        // spec 7.12
        let mut taken = Files::new();
        let long = "x".repeat(300);
        let accents = "é".repeat(200);
        let paths = ["a", "dir/a b", "dir%2Fa", "50%", "..", ".", "a", "tab\there", "é/ü", &long, &long, &accents];
        for path in paths {
            let (name, reason) = stored_name(path, &taken);
            assert_eq!(reason.is_some(), name.contains('~'), "{path:?}: {name:?}");
            assert!(!taken.contains_key(&name), "{path:?}: {name:?} twice");
            taken.insert(name, PathBuf::from(path));
        }
        let names: Vec<&str> = taken.keys().map(|name| name.as_str()).take(6).collect();
        assert_eq!(names[0], "10~xxxxx".to_owned() + &"x".repeat(247));
        assert!(taken.contains_key("dir%2Fa%20b") && taken.contains_key("dir%252Fa") && taken.contains_key("6~a"));
    }
}
