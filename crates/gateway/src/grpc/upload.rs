//! A file that a client streams, as bytes.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tonic::Status;

use super::Messages;

/// What is uploaded. `content` takes its bytes out of each message, and may refuse one.
pub(crate) struct Upload<M, C> {
    bytes: Bytes,
    messages: Messages<M>,
    content: C,
    /// So many bytes were read.
    pub(crate) size: u64,
    /// Why no more comes, if that is not the stream's own end.
    pub(crate) cut_off: Option<Status>,
}

impl<M, C: FnMut(M) -> io::Result<Bytes>> Upload<M, C> {
    /// Begins with these bytes, which the first message had.
    pub(crate) fn new(bytes: Bytes, messages: Messages<M>, content: C) -> Self {
        Self { bytes, messages, content, size: 0, cut_off: None }
    }
}

impl<M, C: FnMut(M) -> io::Result<Bytes>> Read for Upload<M, C> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.bytes.is_empty() && !into.is_empty() {
            match self.messages.next() {
                Ok(Some(message)) => self.bytes = (self.content)(message)?,
                Ok(None) => return Ok(0),
                Err(status) => {
                    self.cut_off = Some(status);
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        let read = into.len().min(self.bytes.len());
        self.bytes.copy_to_slice(&mut into[..read]);
        self.size += read as u64;
        Ok(read)
    }
}
