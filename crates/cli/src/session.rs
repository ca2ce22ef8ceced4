//! Where a command runs: which store, which directory, whom to ask.

use std::io::{self, BufRead, IsTerminal, Write};

use depot::client::{Error, Files, ListOptions};
use depot::namespace::change::Refusal;
use depot::namespace::listing::{Kind, Listed, Stat};
use depot::path::Path;
use stevedore::program::Failure;
use stevedore::protocol::Printable;

use crate::failure::about;

/// What a command works with.
pub struct Session<'a> {
    /// The store.
    pub store: &'a dyn Files,
    /// The directory that paths may be relative to. On the command line there is none.
    pub here: Option<Path>,
}

/// A path that something is to be put at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where.
    pub path: Path,
    /// Whether it was written as a directory: with `/` at its end.
    pub is_directory: bool,
}

impl<'a> Session<'a> {
    /// A session of the command line.
    pub fn new(store: &'a dyn Files) -> Self {
        Self { store, here: None }
    }

    /// Reads a path in the store. `.`, `..` and repeated or final `/` mean what they mean in a shell.
    pub fn path(&self, text: &str) -> Result<Path, Failure> {
        let mut path = match &self.here {
            _ if text.starts_with('/') => Path::root(),
            Some(here) => here.clone(),
            None => {
                return Err(Failure::usage(format!("{text:?}: a path in the store begins with /, as in /{text}")));
            }
        };
        for component in text.split('/') {
            path = match component {
                "" | "." => path,
                ".." => path.split_last().map_or_else(Path::root, |(parent, _)| parent),
                name => path.join(name).map_err(|error| Failure::usage(format!("{text:?}: {error}")))?,
            };
        }
        Ok(path)
    }

    /// Reads a path in the store, or takes the directory that the session is in, or the root.
    pub fn path_or_here(&self, text: Option<&str>) -> Result<Path, Failure> {
        match text {
            Some(text) => self.path(text),
            None => Ok(self.here.clone().unwrap_or_else(Path::root)),
        }
    }

    /// Reads a path that something is to be put at.
    pub fn target(&self, text: &str) -> Result<Target, Failure> {
        let path = self.path(text)?;
        let is_directory = path.is_root() || text.ends_with('/') || matches!(text.rsplit('/').next(), Some("." | ".."));
        Ok(Target { path, is_directory })
    }

    /// What a path has; `None` if nothing is there.
    pub fn look(&self, path: &Path) -> Result<Option<Stat>, Failure> {
        match self.store.stat(path) {
            Ok(stat) => Ok(Some(stat)),
            Err(Error::Refused(Refusal::NotFound | Refusal::NotADirectory)) => Ok(None),
            Err(error) => Err(about(path)(error)),
        }
    }

    /// Whether there is a directory.
    pub fn is_directory(&self, path: &Path) -> Result<bool, Failure> {
        Ok(self.look(path)?.is_some_and(|stat| matches!(stat.kind, Kind::Directory { .. })))
    }

    /// All entries of a directory, or everything below it, in the order of their bytes.
    pub fn entries(&self, path: &Path, is_recursive: bool) -> Entries<'a> {
        let options = ListOptions { is_recursive, ..ListOptions::default() };
        Entries { store: self.store, path: path.clone(), options, page: Vec::new().into_iter(), is_last: false }
    }

    /// See [`confirm`].
    pub fn confirm(&self, is_sure: bool, what: &str) -> Result<(), Failure> {
        confirm(is_sure, what)
    }
}

/// Says what will happen and asks whether it may, unless the answer is known. Where no person can be asked, it may not.
pub fn confirm(is_sure: bool, what: &str) -> Result<(), Failure> {
    if is_sure {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::new(format!(
            "{what}; nothing was done, as there is no terminal to ask on: --yes goes ahead"
        )));
    }
    let cannot_ask = |error: io::Error| Failure::new(format!("cannot ask: {error}"));
    let mut stderr = io::stderr();
    write!(stderr, "{}. Go ahead? [y/N] ", Printable(what)).and_then(|()| stderr.flush()).map_err(cannot_ask)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(cannot_ask)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new("nothing was done")),
    }
}

/// See [`Session::entries`]. After an error it ends.
pub struct Entries<'a> {
    store: &'a dyn Files,
    path: Path,
    options: ListOptions,
    page: std::vec::IntoIter<Listed>,
    is_last: bool,
}

impl Iterator for Entries<'_> {
    type Item = Result<Listed, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(listed) = self.page.next() {
                return Some(Ok(listed));
            }
            if self.is_last {
                return None;
            }
            match self.store.list(&self.path, &self.options) {
                Ok(page) => {
                    self.page = page.entries.into_iter();
                    self.is_last = page.after.is_none();
                    self.options.after = page.after.unwrap_or_default();
                }
                Err(error) => {
                    self.is_last = true;
                    return Some(Err(about(&self.path)(error)));
                }
            }
        }
    }
}

/// The path of what a listing of `directory` calls `name`, without the `/` at a directory's end.
pub fn below(directory: &Path, name: &str) -> Result<Path, Failure> {
    let base = if directory.is_root() { "" } else { directory.as_str() };
    let path = format!("{base}/{}", name.trim_end_matches('/'));
    path.parse().map_err(|error| Failure::new(format!("the store lists {path:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use depot::client::memory::Memory;

    #[test]
    fn a_path_is_read_as_a_shell_would() {
        let store = Memory::new("test").unwrap();
        let mut session = Session::new(&store);
        assert!(session.path("docs").unwrap_err().message.contains("/docs"), "it says what was meant");
        session.here = Some("/a/b".parse().unwrap());
        let table = [
            ("c", "/a/b/c"),
            ("../c", "/a/c"),
            ("../../..", "/"),
            ("/x//y/", "/x/y"),
            ("./.", "/a/b"),
            ("", "/a/b"),
            ("/", "/"),
        ];
        for (text, expected) in table {
            assert_eq!(session.path(text).unwrap().as_str(), expected, "{text:?}");
        }
        assert!(session.path("a\0b").is_err());
        for (text, expected) in
            [("/a", false), ("/a/", true), ("/", true), ("..", true), ("/a/.", true), ("/a..", false)]
        {
            assert_eq!(session.target(text).unwrap().is_directory, expected, "{text:?}");
        }
    }
}
