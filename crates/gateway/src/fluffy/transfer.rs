//! The pieces of a file, in both directions.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use depot::client::{Error, Files};
use depot::path::Path;
use tonic::Status;

use super::proto::{FileData, FileInfo};
use crate::grpc::{Messages, Outgoing, Pieces, status_of};

/// What is uploaded, as bytes. Every piece must be of the same file.
pub(super) struct Upload {
    user: String,
    file: String,
    bytes: Bytes,
    messages: Messages<FileData>,
    /// Why no more comes, if that is not the stream's own end.
    pub(super) cut_off: Option<Status>,
}

impl Upload {
    pub(super) fn new(first: FileData, messages: Messages<FileData>) -> Self {
        let FileData { username, filename, data, .. } = first;
        Self { user: username, file: filename, bytes: data, messages, cut_off: None }
    }
}

impl Read for Upload {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.bytes.is_empty() && !into.is_empty() {
            match self.messages.next() {
                Ok(Some(piece)) if piece.username != self.user || piece.filename != self.file => {
                    return Err(io::Error::other("a piece of another file came"));
                }
                Ok(Some(piece)) => self.bytes = piece.data,
                Ok(None) => return Ok(0),
                Err(status) => {
                    self.cut_off = Some(status);
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        let read = into.len().min(self.bytes.len());
        self.bytes.copy_to_slice(&mut into[..read]);
        Ok(read)
    }
}

/// Sends a file in pieces. Each repeats user and file as they were asked for: a client names its copy by the last one. An empty
/// file is one piece without bytes.
pub(super) fn send(info: &FileInfo, files: &dyn Files, path: &Path, to: &Outgoing<FileData>) -> Result<(), Status> {
    let mut sent = 0;
    let wrap = |data| {
        sent += 1;
        let FileInfo { username, filename, .. } = info.clone();
        FileData { username, filename, data, seq_no: sent, replica_node: String::new() }
    };
    let mut pieces = Pieces::new(to, wrap);
    let copied = pieces.copy(files, path, &(0..u64::MAX), |_, _| Ok(()));
    copied.map_err(|error: Error| status_of(&info.filename, &error))?;
    pieces.finish();
    Ok(())
}
