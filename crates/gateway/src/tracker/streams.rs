//! Our own methods: files of any size as streams, and the table.

use std::sync::Arc;

use depot::client::{Content, Error, Files, ListOptions, Source};
use depot::namespace::change::Refusal;
use depot::namespace::listing::Kind;
use depot::path::Path;
use tonic::{Request, Response, Status, Streaming};

use super::{Node, ends, failed, path_of};
use crate::grpc::{Answers, Messages, Outgoing, Pieces, Upload};
use proto::keeper_server::Keeper;
use proto::table_server::Table;
use proto::{Part, Piece, Row, RowsRequest, Uploaded};

/// What the .proto file of our own methods says.
#[allow(missing_docs, clippy::all, reason = "generated")]
pub(super) mod proto {
    tonic::include_proto!("stevedore.tracker");
}

/// An error of the store, or what the client is told.
pub(super) enum Unsent {
    Store(Error),
    Told(Status),
}

impl From<Error> for Unsent {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl Unsent {
    /// What the client is told of this file.
    pub(super) fn status(self, name: &str) -> Status {
        match self {
            Self::Store(error) => failed(name, &error),
            Self::Told(status) => status,
        }
    }
}

impl Node {
    fn put_stream(&self, mut messages: Messages<Piece>) -> Result<Uploaded, Status> {
        let first =
            messages.next()?.ok_or_else(|| Status::invalid_argument("the first piece has the name: none came"))?;
        let path = path_of(&first.name)?;
        let mut upload = Upload::new(first.data, messages, |piece: Piece| Ok(piece.data));
        match self.tracker.put(&path, Source::Once(&mut upload)) {
            Ok(version) => Ok(Uploaded { version: version.to_string(), size: upload.size }),
            Err(error) => Err(upload.cut_off.take().unwrap_or_else(|| failed(&first.name, &error))),
        }
    }

    fn send_part(&self, part: &Part, to: &Outgoing<Piece>) -> Result<(), Status> {
        let path = path_of(&part.name)?;
        let end = if part.length == 0 { u64::MAX } else { part.offset.saturating_add(part.length) };
        let mut pieces = Pieces::new(to, |data| Piece { name: String::new(), data });
        let open = |content: &mut dyn Content, _: &mut _| {
            let version = content.stat().version.to_string();
            if !part.version.is_empty() && part.version != version {
                let changed = format!("{}: it is of version {version} by now", part.name);
                return Err(Unsent::Told(Status::aborted(changed)));
            }
            self.prefer(content);
            Ok(())
        };
        pieces
            .copy(&*self.tracker.files, &path, &(part.offset..end), open)
            .map_err(|unsent| unsent.status(&part.name))?;
        pieces.finish();
        Ok(())
    }

    /// Has a file be read from this keeper's Dstore, as far as that has it.
    pub(super) fn prefer(&self, content: &mut dyn Content) {
        if let Some(dstore) = self.keeper {
            content.prefer(dstore);
        }
    }
}

/// Sends the rows of one file; false if the client takes no more.
fn send_rows(files: &dyn Files, name: &str, path: &Path, to: &Outgoing<Row>) -> Result<bool, Error> {
    for (number, object) in files.copies(path)?.into_iter().enumerate() {
        for copy in object.copies {
            let (place, offset) = copy.location.unwrap_or_default();
            let row = Row {
                name: name.to_owned(),
                keeper: copy.dstore.to_string(),
                path: place,
                offset,
                alive: copy.is_present,
                object: number as u32,
                size: object.length,
            };
            if !to.send(row) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Sends the rows of all files.
fn send_table(files: &dyn Files, to: &Outgoing<Row>) -> Result<(), Status> {
    let mut options = ListOptions::default();
    loop {
        let page = files.list(&Path::root(), &options).map_err(|error| failed("the table", &error))?;
        for entry in page.entries.iter().filter(|entry| matches!(entry.stat.kind, Kind::File { .. })) {
            let Ok(path) = path_of(&entry.name) else { continue }; // these clients cannot say it
            match send_rows(files, &entry.name, &path, to) {
                Ok(true) | Err(Error::Refused(Refusal::NotFound)) => {} // removed meanwhile
                Ok(false) => return Ok(()),
                Err(error) => return Err(failed(&entry.name, &error)),
            }
        }
        match page.after {
            Some(after) => options.after = after,
            None => return Ok(()),
        }
    }
}

#[tonic::async_trait]
impl Keeper for Node {
    async fn upload(self: Arc<Self>, request: Request<Streaming<Piece>>) -> Result<Response<Uploaded>, Status> {
        let (_, client) = ends(request.extensions())?;
        let node = Arc::clone(&self);
        let uploaded =
            self.tracker.calls.run_reading(request.into_inner(), move |pieces| node.put_stream(pieces)).await?;
        let Uploaded { version, size } = &uploaded;
        self.tracker.step(format_args!("{client} has uploaded {size} bytes in a stream to {}: {version}", self.role()));
        Ok(Response::new(uploaded))
    }

    type DownloadStream = Answers<Piece>;

    async fn download(self: Arc<Self>, request: Request<Part>) -> Result<Response<Answers<Piece>>, Status> {
        let (_, client) = ends(request.extensions())?;
        let part = request.into_inner();
        path_of(&part.name)?;
        self.tracker.step(format_args!("{client} downloads a part of {:?} from {}", part.name, self.role()));
        let node = Arc::clone(&self);
        self.tracker.calls.run_writing(move |to| node.send_part(&part, to)).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl Table for Node {
    type RowsStream = Answers<Row>;

    async fn rows(self: Arc<Self>, request: Request<RowsRequest>) -> Result<Response<Answers<Row>>, Status> {
        let name = request.into_inner().name;
        let files = Arc::clone(&self.tracker.files);
        let job = move |to: &Outgoing<Row>| {
            if name.is_empty() {
                return send_table(&*files, to);
            }
            let path = path_of(&name)?;
            send_rows(&*files, &name, &path, to).map(drop).map_err(|error| failed(&name, &error))
        };
        self.tracker.calls.run_writing(job).await.map(Response::new)
    }
}
