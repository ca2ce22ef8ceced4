//! A backup: all metadata at one sequence, outside of the log's folder. (depot 4.9)
//!
//! It is the file of a snapshot. Where one arrives, over a socket or from a disk, [`Verifier`] reads it as it comes, and knows
//! at its end whether it is whole: the hashes of its lines must add up to the hash in its first line.

use std::fmt;
use std::io::{self, Read, Write};

use super::snapshots::{FirstLine, parse_first};
use crate::namespace::snapshot::{Beginning, Check, Contents};

/// Why bytes are no backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupError {
    /// They do not begin as one does.
    Foreign,
    /// A later release wrote them.
    Format,
    /// Something is missing, or was altered.
    Damaged,
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign => "this is no backup",
            Self::Format => "the backup was written by a later release",
            Self::Damaged => "the backup is damaged: something is missing, or was altered",
        })
    }
}

impl std::error::Error for BackupError {}

impl From<BackupError> for io::Error {
    fn from(error: BackupError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// No line of a backup is longer: a file's has its name, its attributes, and at most 65,536 objects.
const MOST_LINE_BYTES: usize = 64 << 20;

/// Checks the bytes that are written to it.
#[derive(Debug, Default)]
pub struct Verifier {
    /// The line that has begun.
    line: Vec<u8>,
    check: Option<Check>,
}

impl Verifier {
    /// After the last byte: what the backup is of.
    pub fn finish(self) -> Result<Contents, BackupError> {
        let check = self.check.filter(|_| self.line.is_empty()).ok_or(BackupError::Damaged)?;
        check.finish().map_err(|_| BackupError::Damaged)
    }

    fn enter(&mut self, line: &[u8]) -> Result<(), BackupError> {
        let line = str::from_utf8(line).map_err(|_| BackupError::Damaged)?;
        match &mut self.check {
            Some(check) => check.enter(line).map_err(|_| BackupError::Damaged),
            None => {
                let (meta, hash) = parse_first(line).map_err(|error| match error {
                    FirstLine::Foreign => BackupError::Foreign,
                    FirstLine::Later => BackupError::Format,
                    FirstLine::Damaged => BackupError::Damaged,
                })?;
                self.check = Some(Check::new(Beginning { sequence: meta.sequence, hash }));
                Ok(())
            }
        }
    }
}

impl Write for Verifier {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&rest[..end]);
            let line = std::mem::take(&mut self.line);
            self.enter(&line)?;
            rest = &rest[end + 1..];
        }
        if self.line.len() + rest.len() > MOST_LINE_BYTES {
            return Err(BackupError::Damaged.into());
        }
        self.line.extend_from_slice(rest);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the backup that can be read here is of. An error of the kind `InvalidData` if it is none, or damaged.
pub fn verify(mut source: impl Read) -> io::Result<Contents> {
    let mut verifier = Verifier::default();
    io::copy(&mut source, &mut verifier)?;
    Ok(verifier.finish()?)
}
