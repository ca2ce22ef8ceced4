//! The pieces of a file, in both directions.

use std::io;

use bytes::Bytes;
use depot::client::{Error, Files};
use depot::path::Path;
use tonic::Status;

use super::proto::{FileData, FileInfo};
use crate::grpc::{Messages, Outgoing, Pieces, Upload, status_of};

/// What is uploaded, as bytes. Every piece must be of the same file.
pub(super) fn upload(
    first: FileData,
    messages: Messages<FileData>,
) -> Upload<FileData, impl FnMut(FileData) -> io::Result<Bytes>> {
    let FileData { username, filename, data, .. } = first;
    Upload::new(data, messages, move |piece: FileData| match piece.username == username && piece.filename == filename {
        true => Ok(piece.data),
        false => Err(io::Error::other("a piece of another file came")),
    })
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
