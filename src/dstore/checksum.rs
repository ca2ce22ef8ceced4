//! What proves that a copy is what was stored: a checksum in an extended attribute of the file. (spec 5.1)
//!
//! There it is not seen in a listing, it appears under a name together with the content, and it goes where the file
//! goes. It is one line of text that standard tools can check (see [`Checksum`]).

use std::fmt;
use std::fs::File;
use std::hash::Hasher as _;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::str::FromStr;

use twox_hash::xxhash3_64::Hasher;

use super::Defect;
use crate::protocol::FileName;

/// The attribute's name.
pub const ATTRIBUTE: &str = "user.stevedore.checksum";

/// What a file of a name should hold. It reads `xxh3-64 CONTENT SIZE NAME`: the XXH3 hashes of the content and of the
/// name in 16 hexadecimal digits, as `xxhsum -H3` has them, and the content's size in bytes.
///
/// The name is part of it, so that two files that were swapped are both seen to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    content: u64,
    /// The content's size in bytes.
    pub size: u64,
    name: u64,
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { content, size, name } = self;
        write!(f, "xxh3-64 {content:016x} {size} {name:016x}")
    }
}

impl FromStr for Checksum {
    type Err = ();

    /// The inverse of `Display`; takes nothing else.
    fn from_str(text: &str) -> Result<Self, ()> {
        let hash = |word: &str| u64::from_str_radix(word, 16).map_err(drop);
        let [kind, content, size, name] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(()) };
        let parsed = Self { content: hash(content)?, size: size.parse().map_err(drop)?, name: hash(name)? };
        if kind == "xxh3-64" && parsed.to_string() == text { Ok(parsed) } else { Err(()) }
    }
}

impl Checksum {
    /// Has the file carry it from now on.
    pub fn attach(&self, file: &File) -> io::Result<()> {
        attribute::set(file, &self.to_string())
    }

    /// The one that a file carries; `None` if none is attached, or none can be.
    ///
    /// One that is none of ours is a defect: whatever has altered it may have altered the content, too.
    pub fn of(file: &File) -> Result<Option<Self>, Defect> {
        let Some(text) = attribute::get(file)? else { return Ok(None) };
        let parsed = text.parse().map_err(|()| Defect::Altered(format!("carries {text:?} for a checksum")));
        parsed.map(Some)
    }
}

/// Whether the file at `path`, and not one that it is a link to, carries the attribute, whatever its value.
pub fn is_attached(path: &Path) -> bool {
    attribute::is_set(path)
}

/// Whether files in the folder opened as `folder` can carry checksums; if not, why.
pub fn probe(folder: &File) -> io::Result<()> {
    match attribute::set(folder, "probe") {
        // A disk that is full now need not be for ever.
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => Err(error),
        _ => {
            attribute::remove(folder);
            Ok(())
        }
    }
}

/// A checksum being made of content that passes by.
pub struct Summing {
    content: Hasher,
    size: u64,
    name: u64,
}

impl Summing {
    /// Of the file `name`, with nothing in it yet.
    pub fn new(name: &FileName) -> Self {
        Self { content: Hasher::new(), size: 0, name: Hasher::oneshot(name.as_bytes()) }
    }

    /// The next bytes of the content.
    pub fn add(&mut self, bytes: &[u8]) {
        self.content.write(bytes);
        self.size += bytes.len() as u64;
    }

    /// The checksum of all that was added.
    pub fn sum(&self) -> Checksum {
        Checksum { content: self.content.finish(), size: self.size, name: self.name }
    }
}

#[cfg(target_os = "linux")]
mod attribute {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr, lgetxattr};
    use rustix::io::Errno;

    use super::ATTRIBUTE;

    pub fn set(file: &File, text: &str) -> io::Result<()> {
        Ok(fsetxattr(file, ATTRIBUTE, text.as_bytes(), XattrFlags::empty())?)
    }

    pub fn get(file: &File) -> io::Result<Option<String>> {
        // More than any of ours: what does not fit is none.
        let mut buffer = [0; 128];
        match fgetxattr(file, ATTRIBUTE, &mut buffer) {
            Ok(length) => Ok(Some(String::from_utf8_lossy(&buffer[..length]).into_owned())),
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
            Err(Errno::RANGE) => Ok(Some("something long".into())),
            Err(error) => Err(error.into()),
        }
    }

    pub fn is_set(path: &Path) -> bool {
        matches!(lgetxattr(path, ATTRIBUTE, &mut [0; 128]), Ok(_) | Err(Errno::RANGE))
    }

    pub fn remove(file: &File) {
        // It is there, or could not be set.
        let _ = fremovexattr(file, ATTRIBUTE);
    }
}

/// Elsewhere no file carries a checksum.
#[cfg(not(target_os = "linux"))]
mod attribute {
    use std::fs::File;
    use std::io::{self, ErrorKind};
    use std::path::Path;

    pub fn set(_: &File, _: &str) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    pub fn get(_: &File) -> io::Result<Option<String>> {
        Ok(None)
    }

    pub fn is_set(_: &Path) -> bool {
        false
    }

    pub fn remove(_: &File) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(name: &str, content: &str) -> Checksum {
        let mut summing = Summing::new(&name.parse().unwrap());
        content.as_bytes().chunks(3).for_each(|piece| summing.add(piece));
        summing.sum()
    }

    #[test]
    fn a_checksum_is_what_xxhsum_says_of_content_and_name() {
        // The values are xxhsum's: printf %s CONTENT | xxhsum -H3
        assert_eq!(sum("a", "").to_string(), "xxh3-64 2d06800538d394c2 0 e6c632b61e964e1f");
        assert_eq!(sum("abc", "a").to_string(), "xxh3-64 e6c632b61e964e1f 1 78af5f94892f3950");
    }

    #[test]
    fn a_checksum_parses_as_it_was_written_and_no_other_text_does() {
        let written = sum("name", "content").to_string();
        assert_eq!(written.parse(), Ok(sum("name", "content")));
        for text in [
            "",
            "xxh3-64",
            "xxh3-64 2d06800538d394c2 0",
            "xxh3-65 2d06800538d394c2 0 e6c632b61e964e1f",
            "xxh3-64 2d06800538d394c2 00 e6c632b61e964e1f",
            "xxh3-64 2D06800538d394c2 0 e6c632b61e964e1f",
            "xxh3-64 +d06800538d394c2 0 e6c632b61e964e1f",
            "xxh3-64 2d06800538d394c2 -1 e6c632b61e964e1f",
            "xxh3-64  2d06800538d394c2 0 e6c632b61e964e1f",
            "xxh3-64 2d06800538d394c2 0 e6c632b61e964e1f ",
            "xxh3-64 2d06800538d394c2 0 e6c632b61e964e1f 1",
        ] {
            assert_eq!(text.parse::<Checksum>(), Err(()), "{text:?}");
        }
    }

    #[test]
    fn content_size_and_name_each_make_a_difference() {
        let checksum = sum("name", "content");
        for other in [sum("name", "c0ntent"), sum("name", "content\0"), sum("other", "content")] {
            assert_ne!(checksum, other);
        }
    }
}
