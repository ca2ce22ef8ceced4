//! Questions to the namespace: what a path has, and what is below it. (depot 3.4)
//!
//! Answers about many entries come in pages: a page looks at a bounded number of entries, so that the lock is never held
//! for long, and says where to go on. A page is consistent in itself; a whole listing is as old as its oldest page.

use std::collections::btree_map;
use std::ops::Bound;

use super::Namespace;
use super::change::{Condition, Details, Refusal};
use super::objects::Object;
use super::tree::{Directory, DirectoryId, Entry, File, Found};
use crate::checksum::Checksum;
use crate::identity::Version;
use crate::path::Path;
use crate::words::words;

/// What a file or directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Which of the two.
    pub kind: Kind,
    /// The last change of a file's content; when a directory was made or last given attributes.
    pub version: Version,
    /// The last change of any kind. A directory's entries that come or go change it.
    pub changed: Version,
    /// In milliseconds since 1970.
    pub modified_ms: u64,
    /// What else it carries.
    pub details: Details,
}

words!(struct Stat { kind, version, changed, modified_ms, details });

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File {
        /// In bytes.
        size: u64,
        /// Of all its content.
        checksum: Checksum,
    },
    /// A directory.
    Directory {
        /// Whether it stays when its last entry has gone.
        is_explicit: bool,
        /// How many entries it has.
        entries: usize,
    },
}

words!(enum Kind, "kind of entry" { "file" => File { size, checksum }, "directory" => Directory { is_explicit, entries } });

impl Stat {
    /// Refuses unless the condition holds for what has this stat.
    pub fn check(&self, condition: Condition) -> Result<(), Refusal> {
        let holds = match condition {
            Condition::Any => true,
            Condition::Absent => return Err(Refusal::AlreadyExists),
            Condition::Version { version } => version == self.version,
            Condition::Changed { version } => version == self.changed,
        };
        if holds { Ok(()) } else { Err(Refusal::ConditionFailed) }
    }
}

/// An entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its path below the directory that was asked for; a directory's ends in `/`.
    pub name: String,
    /// What it is.
    pub stat: Stat,
}

words!(struct Listed { name, stat });

/// A part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their bytes.
    pub entries: Vec<Listed>,
    /// Where the next page begins; `None` after the last.
    pub after: Option<String>,
}

/// Which entries below a directory a page is of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'a> {
    /// Only those whose path below the directory begins so; without `/`.
    pub prefix: &'a str,
    /// Only those behind this one: a name that was listed, or any text.
    pub after: &'a str,
    /// Whether entries of directories below are listed, too: each after its directory.
    pub is_recursive: bool,
}

impl Namespace {
    /// What a path has.
    pub fn stat(&self, path: &Path) -> Result<Stat, Refusal> {
        if path.is_root() {
            return Ok(self.stat_directory(self.directory(self.head.root)));
        }
        let (spot, found) = self.existing(path)?;
        Ok(match found {
            Found::Directory(id) => self.stat_directory(self.directory(id)),
            Found::File => self.stat_file(self.file(spot.directory, spot.name).expect("it was found")),
        })
    }

    /// A file and what it consists of, in order.
    pub fn open(&self, path: &Path) -> Result<(Stat, Vec<Object>), Refusal> {
        if path.is_root() {
            return Err(Refusal::IsADirectory);
        }
        let (spot, _) = self.existing(path)?;
        let file = self.file(spot.directory, spot.name).ok_or(Refusal::IsADirectory)?;
        let objects = file.content.places().iter().map(|place| *self.objects.get(*place)).collect();
        Ok((self.stat_file(file), objects))
    }

    /// A part of the entries below a directory: at most `limit` are looked at, and those that `matches` accepts are listed.
    /// `/.stevedore` appears in no listing of the root.
    pub fn list(
        &self,
        path: &Path,
        query: Query<'_>,
        limit: usize,
        matches: impl Fn(&str) -> bool,
    ) -> Result<Page, Refusal> {
        if query.prefix.contains('/') {
            return Err(Refusal::InvalidPath);
        }
        let mut page = Page::default();
        let top = self.directory_at(path)?;
        let mut walk = TreeWalk::new(self, top, query);
        for _ in 0..limit {
            let Some((name, entry)) = walk.next() else {
                page.after = None;
                return Ok(page);
            };
            if matches(&name) {
                let stat = match entry {
                    Entry::File(file) => self.stat_file(file),
                    Entry::Directory(id) => self.stat_directory(self.directory(*id)),
                };
                page.entries.push(Listed { name: name.clone(), stat });
            }
            page.after = Some(name);
        }
        if walk.next().is_none() {
            page.after = None;
        }
        Ok(page)
    }

    fn stat_file(&self, file: &File) -> Stat {
        Stat {
            kind: Kind::File { size: self.size(file), checksum: self.checksum(file) },
            version: self.version(file.version),
            changed: self.version(file.changed),
            modified_ms: file.modified_ms,
            details: file.details.as_deref().cloned().unwrap_or_default(),
        }
    }

    fn stat_directory(&self, directory: &Directory) -> Stat {
        Stat {
            kind: Kind::Directory { is_explicit: directory.is_explicit, entries: directory.entries.len() },
            version: self.version(directory.version),
            changed: self.version(directory.changed),
            modified_ms: directory.modified_ms,
            details: directory.details.as_deref().cloned().unwrap_or_default(),
        }
    }
}

/// The root's directory for uploads, users, locks and share links. (depot 3.1)
const RESERVED: &str = ".stevedore/";

/// A walk through a tree in the order of the paths' bytes, from any point on.
struct TreeWalk<'a> {
    namespace: &'a Namespace,
    top: DirectoryId,
    query: Query<'a>,
    /// From the top down: what is left of each directory, and its path below the top.
    levels: Vec<(btree_map::Range<'a, Box<str>, Entry>, String)>,
}

impl<'a> TreeWalk<'a> {
    fn new(namespace: &'a Namespace, top: DirectoryId, query: Query<'a>) -> Self {
        let mut walk = Self { namespace, top, query, levels: Vec::new() };
        if query.after < query.prefix {
            walk.open(top, Bound::Included(query.prefix), String::new());
        } else if query.after.starts_with(query.prefix) {
            walk.open_behind(query.after);
        } // else it lies behind all that have the prefix
        walk
    }

    fn open(&mut self, id: DirectoryId, from: Bound<&str>, base: String) {
        let entries = &self.namespace.directory(id).entries;
        self.levels.push((entries.range::<str, _>((from, Bound::Unbounded)), base));
    }

    /// Opens each directory on the way to `after`, behind what comes before it.
    fn open_behind(&mut self, after: &str) {
        let (mut id, mut base, mut rest) = (self.top, String::new(), after);
        while self.query.is_recursive
            && let Some(slash) = rest.find('/')
            && let (head, tail) = rest.split_at(slash + 1)
            && let Some(Entry::Directory(next)) = self.namespace.directory(id).entries.get(head)
        {
            self.open(id, Bound::Excluded(head), base.clone());
            base.push_str(head);
            (id, rest) = (*next, tail);
        }
        let from = if rest.is_empty() { Bound::Unbounded } else { Bound::Excluded(rest) };
        self.open(id, from, base);
    }

    fn next(&mut self) -> Option<(String, &'a Entry)> {
        loop {
            let is_top = self.levels.len() == 1;
            let (entries, base) = self.levels.last_mut()?;
            let Some((name, entry)) = entries.next() else {
                self.levels.pop();
                continue;
            };
            if is_top && !name.starts_with(self.query.prefix) {
                self.levels.pop(); // it lies behind all that have the prefix
                continue;
            }
            if is_top && **name == *RESERVED && self.top == self.namespace.head.root {
                continue;
            }
            let path = format!("{base}{name}");
            if let Entry::Directory(id) = entry
                && self.query.is_recursive
            {
                self.open(*id, Bound::Unbounded, path.clone());
            }
            return Some((path, entry));
        }
    }
}
