//! A file on its way to a client, cut into pieces.

use std::io::{self, Write};
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use depot::client::{Content, Error, Files};
use depot::namespace::change::Condition;
use depot::path::Path;

use super::Outgoing;

/// A piece has so many bytes, the last one fewer.
const PIECE: usize = 256 << 10;

/// A file may be replaced between the moment it is opened and the first byte that is read, and its old bytes collected. Then it
/// is opened anew, so often at most.
const ATTEMPTS: usize = 3;

/// Collects bytes to pieces, and sends each as it is full. `wrap` makes a message of it.
pub(crate) struct Pieces<'a, T, W> {
    to: &'a Outgoing<T>,
    wrap: W,
    bytes: BytesMut,
    /// Whether one was sent.
    has_begun: bool,
}

impl<'a, T, W: FnMut(Bytes) -> T> Pieces<'a, T, W> {
    pub(crate) fn new(to: &'a Outgoing<T>, wrap: W) -> Self {
        Self { to, wrap, bytes: BytesMut::new(), has_begun: false }
    }

    /// Copies a range of a file. `open` is told what was opened, before its first byte, and may refuse it; again if the file
    /// must be opened anew.
    pub(crate) fn copy<E: From<Error>>(
        &mut self,
        files: &dyn Files,
        path: &Path,
        range: &Range<u64>,
        mut open: impl FnMut(&mut dyn Content, &mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        for attempt in 1.. {
            let mut content = files.get(path, Condition::Any)?;
            open(&mut *content, self)?;
            match content.copy_to(range.clone(), self) {
                Err(Error::Gone) if attempt < ATTEMPTS && !self.has_begun => self.bytes.clear(),
                copied => return copied.map_err(E::from),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Sends what is left; a piece without bytes if there was none before.
    pub(crate) fn finish(mut self) {
        if !self.has_begun || !self.bytes.is_empty() {
            let _ = self.send(); // a client that takes no more has seen no end
        }
    }

    fn send(&mut self) -> io::Result<()> {
        self.has_begun = true;
        let piece = (self.wrap)(self.bytes.split().freeze());
        if self.to.send(piece) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}

impl<T, W: FnMut(Bytes) -> T> Write for Pieces<'_, T, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        if self.bytes.len() == PIECE {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
