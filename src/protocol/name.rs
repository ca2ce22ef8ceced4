//! File names that every part of the system can trust. (spec 2.2, 7.12)

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name, in bytes of UTF-8: what Linux file systems take.
pub const MAX_NAME_BYTES: usize = 255;

/// A file's name: one word of the protocol, and safe to use inside a Dstore's folder. (spec 7.12)
///
/// Cheap to clone: the text is shared, so that a list of a million names costs a million counters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(Arc<str>);

impl FileName {
    /// Checks `name` and keeps a copy of it.
    pub fn new(name: &str) -> Result<Self, NameError> {
        check(name)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    if name == "." || name == ".." {
        return Err(NameError::Relative);
    }
    // Nearly all names are of such bytes. Not stopping at the first that is not makes this several times as fast.
    let is_plain = |byte: u8| byte.is_ascii_graphic() & (byte != b'/') & (byte != b'\\');
    if name.bytes().fold(true, |so_far, byte| so_far & is_plain(byte)) {
        return Ok(());
    }
    match name.chars().find(|&c| matches!(c, ' ' | '/' | '\\') || c.is_control()) {
        Some(character) => Err(NameError::Forbidden { character }),
        None => Ok(()),
    }
}

impl FromStr for FileName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl Deref for FileName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Lets maps keyed by `FileName` be searched with a `&str`; order and equality are the text's.
impl Borrow<str> for FileName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<std::path::Path> for FileName {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref().as_ref()
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Why a text cannot be a file's name. (spec 7.12)
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameError {
    /// There is nothing in it.
    Empty,
    /// It is longer than [`MAX_NAME_BYTES`].
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// `.` or `..`, which name folders.
    Relative,
    /// It holds a space (which ends a word), a slash or backslash (which end a folder), or a control character.
    Forbidden {
        /// The first such character.
        character: char,
    },
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "a file name cannot be empty"),
            Self::TooLong { bytes } => write!(f, "a file name of {bytes} bytes; the most is {MAX_NAME_BYTES}"),
            Self::Relative => write!(f, "a file cannot be named . or .."),
            Self::Forbidden { character } => write!(f, "a file name cannot hold {character:?}"),
        }
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_that_stays_inside_its_folder() {
        // spec 7.12
        let longest = "x".repeat(MAX_NAME_BYTES);
        for name in ["a", "notes.txt", ".hidden", "...", "-", "naïve", "\u{FFFD}", "a\u{A0}b", "*?:\"<>|", &longest] {
            assert_eq!(FileName::new(name).as_deref(), Ok(name));
        }
        let forbidden = |character| Err(NameError::Forbidden { character });
        let cases = [
            ("", Err(NameError::Empty)),
            (".", Err(NameError::Relative)),
            ("..", Err(NameError::Relative)),
            ("a b", forbidden(' ')),
            ("../a", forbidden('/')),
            ("/a", forbidden('/')),
            ("a\\b", forbidden('\\')),
            ("a\0", forbidden('\0')),
            ("a\tb", forbidden('\t')),
            ("a\u{7f}", forbidden('\u{7f}')),
            ("a\u{85}", forbidden('\u{85}')),
        ];
        for (name, expected) in cases {
            assert_eq!(FileName::new(name), expected, "{name:?}");
        }
        assert_eq!(FileName::new(&"x".repeat(256)), Err(NameError::TooLong { bytes: 256 }));
        assert_eq!(FileName::new(&"é".repeat(128)), Err(NameError::TooLong { bytes: 256 }));
    }
}
