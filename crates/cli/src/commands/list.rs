//! `ls`, `tree`, `find`, `du`, `stat`: what is in the store.

use std::collections::BTreeMap;

use argh::FromArgs;
use depot::namespace::listing::{Kind, Stat};
use depot::path::Path;
use indicatif::HumanBytes;
use serde_json::json;
use stevedore::program::{self, Failure};

use crate::failure::about;
use crate::session::{Session, below};
use crate::show::{Lines, Time, count, entry_json, replicas};

/// List directories.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "ls",
    example = "stevedore ls /docs\nstevedore ls -l /docs /notes.txt\nstevedore ls --json / | jq .path"
)]
pub struct Ls {
    /// show size, time of the last modification, and permissions, too
    #[argh(switch, short = 'l')]
    pub long: bool,
    /// print a JSON document in each line
    #[argh(switch)]
    pub json: bool,
    /// what to list (default: the root)
    #[argh(positional, arg_name = "PATH")]
    pub paths: Vec<String>,
}

impl Ls {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        let paths = if self.paths.is_empty() { vec![".".to_owned()] } else { self.paths.clone() };
        let mut lines = Lines::default();
        let has_heads = paths.len() > 1 && !self.json;
        let mut is_first = true;
        program::for_each(crate::PROGRAM, &paths, |path| {
            let path = session.path_or_here(Some(path.as_str()).filter(|path| *path != "."))?;
            let stat = session.store.stat(&path).map_err(about(&path))?;
            if matches!(stat.kind, Kind::File { .. }) {
                self.say(&mut lines, &path, path.as_str(), &stat)?;
                is_first = false;
                return lines.flush();
            }
            if has_heads {
                lines.say(format_args!("{}{path}:", if is_first { "" } else { "\n" }))?;
            }
            is_first = false;
            for listed in session.entries(&path, false) {
                let listed = listed?;
                self.say(&mut lines, &below(&path, &listed.name)?, &listed.name, &listed.stat)?;
            }
            lines.flush()
        })
    }

    fn say(&self, lines: &mut Lines, path: &Path, name: &str, stat: &Stat) -> Result<(), Failure> {
        if self.json {
            return lines.say(entry_json(path, stat));
        }
        if !self.long {
            return lines.say(name);
        }
        let size = match stat.kind {
            Kind::File { size, .. } => size.to_string(),
            Kind::Directory { .. } => "-".to_owned(),
        };
        let mode = stat.details.attributes.get(super::put::MODE).map_or("-", String::as_str);
        lines.say(format_args!("{mode:>4} {size:>14}  {}  {name}", Time(stat.modified_ms)))
    }
}

/// Show everything below a directory.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "tree",
    example = "stevedore tree /docs\nstevedore tree --depth 2 /"
)]
pub struct Tree {
    /// show so many levels only
    #[argh(option, arg_name = "LEVELS", from_str_fn(program::positive))]
    pub depth: Option<usize>,
    /// print a JSON document in each line
    #[argh(switch)]
    pub json: bool,
    /// the directory (default: the root)
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
}

impl Tree {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        let top = session.path_or_here(self.path.as_deref())?;
        let mut lines = Lines::default();
        if !self.json {
            lines.say(&top)?;
        }
        let (mut files, mut directories, mut bytes) = (0, 0, 0);
        for listed in session.entries(&top, true) {
            let listed = listed?;
            match listed.stat.kind {
                Kind::File { size, .. } => {
                    files += 1;
                    bytes += size;
                }
                Kind::Directory { .. } => directories += 1,
            }
            let name = listed.name.trim_end_matches('/');
            let level = name.matches('/').count();
            if self.depth.is_some_and(|depth| level >= depth) {
                continue;
            }
            if self.json {
                lines.say(entry_json(&below(&top, name)?, &listed.stat))?;
            } else {
                let own = listed.name[..].split('/').nth(level).unwrap_or(name);
                let end = if listed.name.ends_with('/') { "/" } else { "" };
                lines.say(format_args!("{:indent$}{own}{end}", "", indent = 2 * (level + 1)))?;
            }
        }
        if !self.json {
            let (files, directories) = (count(files, "file", "files"), count(directories, "directory", "directories"));
            lines.say(format_args!("{directories}, {files}, {}", HumanBytes(bytes)))?;
        }
        lines.flush()
    }
}

/// Find files and directories by their names.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "find",
    note = "A pattern with *, ? or [a-z] has to match the whole name; any other text may be anywhere in it.\nQuote the pattern, so that the shell leaves it alone.",
    example = "stevedore find '*.jpg' /photos\nstevedore find report"
)]
pub struct Find {
    /// print a JSON document in each line
    #[argh(switch)]
    pub json: bool,
    /// what the name is like
    #[argh(positional, arg_name = "PATTERN")]
    pub pattern: String,
    /// where to look (default: everywhere)
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
}

impl Find {
    /// Does it. Finding nothing is no failure.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        let top = session.path_or_here(self.path.as_deref())?;
        let mut lines = Lines::default();
        let mut after = String::new();
        loop {
            let page = session.store.find(&top, &self.pattern, &after).map_err(about(&top))?;
            for listed in page.entries {
                let path = below(&top, &listed.name)?;
                match listed.stat.kind {
                    _ if self.json => lines.say(entry_json(&path, &listed.stat))?,
                    Kind::Directory { .. } => lines.say(format_args!("{path}/"))?,
                    Kind::File { .. } => lines.say(&path)?,
                }
            }
            lines.flush()?;
            match page.after {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }
}

/// Show how much is below a directory, and below each directory in it.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "du",
    note = "Bytes are those of the files; each is kept on as many Dstores as the settings say.",
    example = "stevedore du /\nstevedore du --json /docs"
)]
pub struct Du {
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
    /// the directory (default: the root)
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, stat: &Stat) {
        match stat.kind {
            Kind::File { size, .. } => {
                self.files += 1;
                self.bytes += size;
            }
            Kind::Directory { .. } => self.directories += 1,
        }
    }

    /// What is below a directory.
    pub fn below(session: &Session<'_>, directory: &Path) -> Result<Self, Failure> {
        let mut amount = Self::default();
        for listed in session.entries(directory, true) {
            amount.add(&listed?.stat);
        }
        Ok(amount)
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}", count(self.files, "file", "files"), HumanBytes(self.bytes))
    }
}

impl Du {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        let top = session.path_or_here(self.path.as_deref())?;
        let stat = session.store.stat(&top).map_err(about(&top))?;
        let mut all = Amount::default();
        let mut parts: BTreeMap<String, Amount> = BTreeMap::new();
        if matches!(stat.kind, Kind::File { .. }) {
            all.add(&stat);
        } else {
            for listed in session.entries(&top, true) {
                let listed = listed?;
                all.add(&listed.stat);
                if let Some((part, rest)) = listed.name.split_once('/') {
                    let part = parts.entry(below(&top, part)?.to_string()).or_default();
                    if !rest.is_empty() {
                        part.add(&listed.stat);
                    }
                }
            }
        }
        let mut lines = Lines::default();
        if self.json {
            let json = |path: &str, amount: &Amount| json!({ "path": path, "files": amount.files, "directories": amount.directories, "bytes": amount.bytes });
            let mut document = json(top.as_str(), &all);
            document["parts"] = parts.iter().map(|(path, amount)| json(path, amount)).collect();
            lines.say(document)?;
            return lines.flush();
        }
        let mut line = |path: &str, amount: &Amount| {
            let size = HumanBytes(amount.bytes).to_string();
            lines.say(format_args!("{size:>12}  {:>16}  {path}", count(amount.files, "file", "files")))
        };
        for (path, amount) in &parts {
            line(&format!("{path}/"), amount)?;
        }
        line(top.as_str(), &all)?;
        lines.flush()
    }
}

/// Show all that is known of a file or directory.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "stat",
    note = "The checksum is CRC-64/NVME, in hexadecimal.",
    example = "stevedore stat /docs/notes.txt\nstevedore stat --copies /big.bin"
)]
pub struct StatFile {
    /// show for each of the file's objects on which Dstores it is, and where there
    #[argh(switch)]
    pub copies: bool,
    /// print a JSON document in each line
    #[argh(switch)]
    pub json: bool,
    /// files and directories
    #[argh(positional, arg_name = "PATH")]
    pub paths: Vec<String>,
}

impl StatFile {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        if self.paths.is_empty() {
            return Err(Failure::usage("stat what?"));
        }
        program::for_each(crate::PROGRAM, &self.paths, |path| {
            let path = session.path(path)?;
            let stat = session.store.stat(&path).map_err(about(&path))?;
            let is_file = matches!(stat.kind, Kind::File { .. });
            let copies =
                if self.copies && is_file { Some(session.store.copies(&path).map_err(about(&path))?) } else { None };
            let mut lines = Lines::default();
            if self.json {
                let mut document = entry_json(&path, &stat);
                if let Some(copies) = copies {
                    document["objects"] = copies.iter().map(copies_json).collect();
                }
                lines.say(document)?;
                return lines.flush();
            }
            lines.say(format_args!("{path}"))?;
            let mut field = |name: &str, value: String| lines.say(format_args!("  {name:<10} {value}"));
            match stat.kind {
                Kind::File { size, checksum } => {
                    field("size", format!("{size} bytes ({})", HumanBytes(size)))?;
                    field("checksum", format!("{:016x}", checksum.0))?;
                }
                Kind::Directory { is_explicit, entries } => {
                    field("directory", count(entries as u64, "entry", "entries"))?;
                    if !is_explicit {
                        field("", "goes with its last entry".into())?;
                    }
                }
            }
            field("version", stat.version.to_string())?;
            field("changed", stat.changed.to_string())?;
            field("modified", Time(stat.modified_ms).to_string())?;
            for (name, value) in [("type", &stat.details.content_type), ("owner", &stat.details.owner)] {
                if !value.is_empty() {
                    field(name, value.clone())?;
                }
            }
            if let Some(number) = stat.details.replicas {
                field("replicas", replicas(number))?;
            }
            for (name, value) in stat.details.digests.iter().chain(&stat.details.attributes) {
                field(name, value.clone())?;
            }
            for object in copies.iter().flatten() {
                field(
                    "object",
                    format!("{} ({} bytes, wanted on {})", object.key, object.length, replicas(object.wanted)),
                )?;
                for copy in &object.copies {
                    let state = [
                        (!copy.is_present, "away"),
                        (copy.is_damaged, "damaged"),
                        (!copy.is_certain && !copy.is_damaged, "not yet confirmed"),
                    ];
                    let state: Vec<_> = state.into_iter().filter(|(is_so, _)| *is_so).map(|(_, word)| word).collect();
                    let state = if state.is_empty() { "good".to_owned() } else { state.join(", ") };
                    let place =
                        copy.location.as_ref().map(|(file, at)| format!(", {file} at {at}")).unwrap_or_default();
                    field("", format!("Dstore {} ({}): {state}{place}", copy.dstore, copy.address))?;
                }
            }
            lines.flush()
        })
    }
}

fn copies_json(object: &depot::client::ObjectCopies) -> serde_json::Value {
    let copies = object.copies.iter().map(|copy| {
        json!({
            "dstore": copy.dstore.0,
            "address": copy.address,
            "is_present": copy.is_present,
            "is_certain": copy.is_certain,
            "is_damaged": copy.is_damaged,
            "file": copy.location.as_ref().map(|(file, _)| file),
            "offset": copy.location.as_ref().map(|(_, offset)| offset),
        })
    });
    json!({
        "key": object.key.to_string(),
        "length": object.length,
        "wanted": replicas(object.wanted),
        "copies": copies.collect::<Vec<_>>(),
    })
}
