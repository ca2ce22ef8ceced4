//! What a file is called. (depot 3.1)

use std::fmt;
use std::str::FromStr;

use crate::words::{Line, ParseError, Reader, Words, invalid};

/// The longest component in bytes.
pub const LONGEST_COMPONENT: usize = 1024;
/// The longest path in bytes that can be created.
pub const LONGEST_NEW_PATH: usize = 4096;

/// An absolute path: components separated by `/`, each of 1 to 1,024 bytes, none of them `.` or `..`, without NUL. The
/// root is `/`. Any other character is allowed; Unicode is not normalised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Box<str>);

/// Why a text is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidPath {
    /// It does not begin with `/`.
    NotAbsolute,
    /// Two `/` in a row, or one at the end.
    EmptyComponent,
    /// A component is `.` or `..`.
    Dots,
    /// It holds NUL.
    Nul,
    /// A component is longer than 1,024 bytes.
    ComponentTooLong,
}

impl fmt::Display for InvalidPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "a path begins with /",
            Self::EmptyComponent => "a path has no empty component: no // and no / at its end",
            Self::Dots => "a path has no . or .. in it",
            Self::Nul => "a path has no NUL in it",
            Self::ComponentTooLong => "a component of a path has at most 1,024 bytes",
        })
    }
}

impl std::error::Error for InvalidPath {}

impl Path {
    /// `/`.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// Whether it is `/`.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// From the root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|component| !component.is_empty())
    }

    /// The directory it is in, and its name there; `None` for the root.
    pub fn split_last(&self) -> Option<(Self, &str)> {
        if self.is_root() {
            return None;
        }
        let (parent, name) = self.0.rsplit_once('/').expect("a path begins with /");
        Some((if parent.is_empty() { Self::root() } else { Self(parent.into()) }, name))
    }

    /// What is called `name` in this directory.
    pub fn join(&self, name: &str) -> Result<Self, InvalidPath> {
        let base = if self.is_root() { "" } else { &self.0 };
        format!("{base}/{name}").parse()
    }

    /// Whether it is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        match self.0.strip_prefix(&*other.0) {
            Some(rest) => rest.is_empty() || rest.starts_with('/') || other.is_root(),
            None => false,
        }
    }
}

impl FromStr for Path {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        if text == "/" {
            return Ok(Self::root());
        }
        for component in text.strip_prefix('/').ok_or(InvalidPath::NotAbsolute)?.split('/') {
            match component {
                "" => return Err(InvalidPath::EmptyComponent),
                "." | ".." => return Err(InvalidPath::Dots),
                _ if component.len() > LONGEST_COMPONENT => return Err(InvalidPath::ComponentTooLong),
                _ if component.contains('\0') => return Err(InvalidPath::Nul),
                _ => {}
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Words for Path {
    fn write(&self, line: &mut Line) {
        line.text(&self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let text = reader.text("path")?;
        text.parse().map_err(|_| invalid("path", &text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_clean_components_and_nothing_else() {
        for good in ["/", "/a", "/a/b", "/ ", "/a b/%2F", "/naïve/日本", "/...", "/.a", "/\n"] {
            assert_eq!(good.parse::<Path>().map(|path| path.to_string()).as_deref(), Ok(good));
        }
        let long = format!("/{}", "x".repeat(1025));
        let table = [
            ("", InvalidPath::NotAbsolute),
            ("a", InvalidPath::NotAbsolute),
            ("//", InvalidPath::EmptyComponent),
            ("/a/", InvalidPath::EmptyComponent),
            ("/a//b", InvalidPath::EmptyComponent),
            ("/.", InvalidPath::Dots),
            ("/a/../b", InvalidPath::Dots),
            ("/a\0b", InvalidPath::Nul),
            (&long, InvalidPath::ComponentTooLong),
        ];
        for (bad, reason) in table {
            assert_eq!(bad.parse::<Path>(), Err(reason), "{bad:?}");
        }
    }

    #[test]
    fn a_path_is_within_its_ancestors_only() {
        let path = |text: &str| text.parse::<Path>().expect("a path");
        for (inner, outer, expected) in
            [("/a/b", "/a", true), ("/a", "/a", true), ("/ab", "/a", false), ("/a", "/", true), ("/a", "/a/b", false)]
        {
            assert_eq!(path(inner).is_within(&path(outer)), expected, "{inner} in {outer}");
        }
    }
}
