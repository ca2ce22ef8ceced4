//! The two methods that carry a whole file in one message, read and written piece by piece.
//!
//! On the wire a message is five bytes, a flag and a length, and then its fields, one behind the other. A file in it is a field
//! like any other: its number, its length, its bytes.
//!
//! ```text
//!   00 LENGTH   0a LENGTH name   12 LENGTH the file's bytes ...   1a LENGTH port
//!   5 bytes     field 1          field 2                          field 3
//! ```
//!
//! A library for messages has the whole of one in memory before it passes on a byte of it, and of an answer before the first is
//! sent. These methods are served below it, so that the file's bytes go from the wire to the store, and back, as they come.
//!
//! An upload counts when its message has come to its end, and the call with it: what is cut off before, even behind the file's
//! last byte, is not put.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use depot::client::{Content, Source};
use depot::identity::Version;
use hyper::HeaderMap;
use hyper::body::{Body as HttpBody, Frame};
use hyper::http::{Request, Response, header};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codegen::{Future, Service};
use tonic::server::NamedService;
use tonic::{Code, Status};

use super::proto::services_server::ServicesServer;
use super::proto::{FileRequest, UploadResponse};
use super::streams::Unsent;
use super::{Node, SMALL, ends, failed, path_of};
use crate::grpc::{Answers, Messages, Outgoing, Pieces};

const UPLOAD: &str = "/services.Services/clientToDataKeeperUpload";
const DOWNLOAD: &str = "/services.Services/clientToDataKeeperDownload";

/// The flag and the length before a message.
const PREFIX: usize = 5;

/// The field `success` of an answer with a file, set.
const SUCCESS: [u8; 2] = [0x10, 0x01];

const TOO_LARGE: &str = "no message is so large: stevedore.tracker.Keeper/Download streams it";

/// The original's service: these two methods here, the others by the library.
#[derive(Clone)]
pub(super) struct Unary {
    pub(super) node: Arc<Node>,
    pub(super) others: ServicesServer<Node>,
}

impl NamedService for Unary {
    const NAME: &'static str = <ServicesServer<Node> as NamedService>::NAME;
}

impl Service<Request<Body>> for Unary {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let node = Arc::clone(&self.node);
        match request.uri().path() {
            UPLOAD => Box::pin(async move { Ok(node.upload_message(request).await.unwrap_or_else(Status::into_http)) }),
            DOWNLOAD => {
                Box::pin(async move { Ok(node.download_message(request).await.unwrap_or_else(Status::into_http)) })
            }
            _ => Box::pin(self.others.call(request)),
        }
    }
}

impl Node {
    async fn upload_message(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (_, client) = ends(request.extensions())?;
        let node = Arc::clone(&self);
        let job = move |frames| node.put_message(frames);
        let (name, size, version) = self.tracker.calls.run_reading(Data(request.into_body()), job).await?;
        let role = self.role();
        self.tracker
            .step(format_args!("{client} has uploaded {name:?}, {size} bytes, to {role}: committed as {version}"));
        self.tracker.notify(client).await;
        self.tracker.step(format_args!("{client} gets the answer to its upload of {name:?}"));
        let answer = UploadResponse { success: true }.encode_to_vec();
        Ok(Answer::whole([&prefix(answer.len() as u32)[..], &answer].concat().into()))
    }

    /// Puts the file that a message carries: its name, its size, its version.
    fn put_message(&self, frames: Messages<Bytes>) -> Result<(String, u64, Version), Status> {
        let mut message = Incoming::begin(frames)?;
        let name = message.name()?;
        let path = path_of(&name)?;
        match self.tracker.put(&path, Source::Once(&mut message)) {
            Ok(version) => Ok((name, message.size, version)),
            Err(error) => Err(message.wrong.take().unwrap_or_else(|| failed(&name, &error))),
        }
    }

    async fn download_message(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (_, client) = ends(request.extensions())?;
        let node = Arc::clone(&self);
        let mut frames = Data(request.into_body());
        let mut message = BytesMut::new();
        while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut frames).poll_next(context)).await {
            message.extend(frame?);
            if message.len() > SMALL {
                return Err(Status::resource_exhausted("the request is larger than any name"));
            }
        }
        let malformed = || Status::invalid_argument("the request is no message");
        let fields = message.get(PREFIX..).filter(|_| message[0] == 0).ok_or_else(malformed)?;
        let name = FileRequest::decode(fields).map_err(|_| malformed())?.file_name;
        path_of(&name)?;
        self.tracker.step(format_args!("{client} downloads {name:?} from {}", self.role()));
        let answers = self.tracker.calls.run_writing(move |to| node.send_message(&name, to)).await?;
        Ok(Answer::streamed(answers))
    }

    /// Sends a file as one message.
    fn send_message(&self, name: &str, to: &Outgoing<Bytes>) -> Result<(), Status> {
        let path = path_of(name)?;
        let mut pieces = Pieces::new(to, |bytes| bytes);
        let open = |content: &mut dyn Content, pieces: &mut Pieces<_, _>| {
            self.prefer(content);
            let size = content.size();
            let mut head = BytesMut::new();
            if size > 0 {
                encode_key(1, WireType::LengthDelimited, &mut head);
                encode_varint(size, &mut head);
            }
            let length = u32::try_from(head.len() as u64 + size + SUCCESS.len() as u64);
            let length = length.map_err(|_| Unsent::Told(Status::out_of_range(format!("{name}: {TOO_LARGE}"))))?;
            let begun = pieces.write_all(&prefix(length)).and_then(|()| pieces.write_all(&head));
            begun.map_err(|_| Unsent::Told(gone()))
        };
        pieces.copy(&*self.tracker.files, &path, &(0..u64::MAX), open).map_err(|unsent| unsent.status(name))?;
        pieces.write_all(&SUCCESS).map_err(|_| gone())?;
        pieces.finish();
        Ok(())
    }
}

/// What comes before a message of this length.
fn prefix(length: u32) -> [u8; PREFIX] {
    let [a, b, c, d] = length.to_be_bytes();
    [0, a, b, c, d]
}

fn gone() -> Status {
    Status::cancelled("the client takes no more")
}

/// The bytes of a body, as they come.
struct Data(Body);

impl Stream for Data {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(Pin::new(&mut self.0).poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// A message that carries a file, while it comes. Read, it gives the file's bytes; their end is the end of the call.
struct Incoming {
    frames: Messages<Bytes>,
    /// What has come and was not looked at yet.
    bytes: Bytes,
    /// So many bytes of the message are to come, or in `bytes`.
    left: u64,
    /// So many of these are the file's.
    content: u64,
    /// The file's bytes that were read.
    size: u64,
    /// Why it cannot be read.
    wrong: Option<Status>,
}

impl Incoming {
    fn begin(frames: Messages<Bytes>) -> Result<Self, Status> {
        let mut this = Self { frames, bytes: Bytes::new(), left: PREFIX as u64, content: 0, size: 0, wrong: None };
        if this.byte()? != 0 {
            return Err(Status::unimplemented("compressed messages are not understood"));
        }
        let mut length = 0;
        for _ in 1..PREFIX {
            length = length << 8 | u64::from(this.byte()?);
        }
        this.left = length;
        Ok(this)
    }

    /// Reads up to the file's bytes; the file's name, which comes before them.
    fn name(&mut self) -> Result<String, Status> {
        let mut name = String::new();
        while self.left > 0 {
            match self.key()? {
                (1, 2) => {
                    let length = self.length()?;
                    if length > SMALL as u64 {
                        return Err(Status::invalid_argument("the name is too long"));
                    }
                    let bytes = (0..length).map(|_| self.byte()).collect::<Result<_, _>>()?;
                    name = String::from_utf8(bytes).map_err(|_| Status::invalid_argument("the name is not UTF-8"))?;
                }
                (2, 2) => {
                    self.content = self.length()?;
                    break;
                }
                (_, wire_type) => self.skip(wire_type)?,
            }
        }
        Ok(name)
    }

    /// Reads what is behind the file's bytes: nothing that would change what was read, and the end of the call.
    fn end(&mut self) -> Result<(), Status> {
        while self.left > 0 {
            match self.key()? {
                (1 | 2, _) => {
                    return Err(Status::invalid_argument("the file's name comes first, and its bytes come once"));
                }
                (_, wire_type) => self.skip(wire_type)?,
            }
        }
        if !self.bytes.is_empty() {
            return Err(Status::invalid_argument("a second message came"));
        }
        while let Some(bytes) = self.frames.next()? {
            if !bytes.is_empty() {
                return Err(Status::invalid_argument("a second message came"));
            }
        }
        Ok(())
    }

    /// The number of the next field, and how it is written.
    fn key(&mut self) -> Result<(u64, u64), Status> {
        let key = self.varint()?;
        Ok((key >> 3, key & 7))
    }

    /// The length of a field, which the message has room for.
    fn length(&mut self) -> Result<u64, Status> {
        let length = self.varint()?;
        if length > self.left { Err(malformed()) } else { Ok(length) }
    }

    fn varint(&mut self) -> Result<u64, Status> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed())
    }

    /// Passes over a field that is not known.
    fn skip(&mut self, wire_type: u64) -> Result<(), Status> {
        let length = match wire_type {
            0 => return self.varint().map(drop),
            1 => 8,
            2 => self.length()?,
            5 => 4,
            _ => return Err(malformed()),
        };
        (0..length).try_for_each(|_| self.byte().map(drop))
    }

    /// The next byte of the message.
    fn byte(&mut self) -> Result<u8, Status> {
        if self.left == 0 {
            return Err(malformed());
        }
        self.fill()?;
        self.left -= 1;
        Ok(self.bytes.get_u8())
    }

    /// Waits for bytes, unless there are some.
    fn fill(&mut self) -> Result<(), Status> {
        while self.bytes.is_empty() {
            self.bytes = self.frames.next()?.ok_or_else(malformed)?;
        }
        Ok(())
    }

    fn read_content(&mut self, into: &mut [u8]) -> Result<usize, Status> {
        if self.content == 0 {
            self.end()?;
            return Ok(0);
        }
        self.fill()?;
        let read = into.len().min(self.bytes.len()).min(usize::try_from(self.content).unwrap_or(usize::MAX));
        self.bytes.copy_to_slice(&mut into[..read]);
        self.content -= read as u64;
        self.left -= read as u64;
        self.size += read as u64;
        Ok(read)
    }
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        self.read_content(into).map_err(|status| {
            self.wrong = Some(status);
            io::ErrorKind::InvalidData.into()
        })
    }
}

fn malformed() -> Status {
    Status::invalid_argument("the message is cut off, or is none")
}

/// The body of an answer: bytes, and behind them how the call has ended.
struct Answer {
    bytes: Option<Bytes>,
    more: Option<Answers<Bytes>>,
    is_over: bool,
}

impl Answer {
    fn whole(bytes: Bytes) -> Response<Body> {
        Self { bytes: Some(bytes), more: None, is_over: false }.response()
    }

    fn streamed(more: Answers<Bytes>) -> Response<Body> {
        Self { bytes: None, more: Some(more), is_over: false }.response()
    }

    fn response(self) -> Response<Body> {
        let mut response = Response::new(Body::new(self));
        let kind = header::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(bytes) = self.bytes.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if self.is_over {
            return Poll::Ready(None);
        }
        let next = match &mut self.more {
            Some(more) => ready!(Pin::new(more).poll_next(context)),
            None => None,
        };
        let ended = match next {
            Some(Ok(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Err(status)) => status,
            None => Status::new(Code::Ok, ""),
        };
        self.is_over = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(ended.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::UploadRequest;
    use super::*;

    /// What comes of a message that arrives in pieces of `cut` bytes: the name and the file.
    fn received(fields: &[u8], cut: usize) -> Result<(String, Vec<u8>), Status> {
        let whole = [&prefix(fields.len() as u32)[..], fields].concat();
        let frames = whole.chunks(cut).map(Bytes::copy_from_slice);
        let mut message = Incoming::begin(Messages::of(frames))?;
        let name = message.name()?;
        let mut file = Vec::new();
        match message.read_to_end(&mut file) {
            Ok(_) => Ok((name, file)),
            Err(_) => Err(message.wrong.expect("it says why")),
        }
    }

    #[test]
    fn a_message_is_understood_however_it_is_cut() {
        for size in [0, 1, 127, 128, 300, 20_000] {
            let file = kit::bytes(size as u64, size);
            let request =
                UploadRequest { file_name: "näme".into(), file_content: file.clone().into(), port: "1".into() };
            for cut in [1, 2, 3, 7, 4096, 1 << 20] {
                let (name, got) = received(&request.encode_to_vec(), cut).unwrap();
                assert!(name == "näme" && got == file, "{size} bytes by {cut}");
            }
        }
    }

    #[test]
    fn a_message_that_is_cut_off_is_no_file() {
        let request = UploadRequest { file_name: "a".into(), file_content: vec![7; 300].into(), port: "50002".into() };
        let fields = request.encode_to_vec();
        let whole = [&prefix(fields.len() as u32)[..], &fields].concat();
        for end in 0..whole.len() {
            let frames = [Bytes::copy_from_slice(&whole[..end])];
            let read = Incoming::begin(Messages::of(frames)).and_then(|mut message| {
                message.name()?;
                message.read_to_end(&mut Vec::new()).map_err(|_| malformed())
            });
            assert!(read.is_err(), "after {end} of {} bytes", whole.len());
        }
    }

    #[test]
    fn a_field_that_is_larger_than_its_message_is_refused() {
        for fields in [&b"\x0a\x7f"[..], b"\x12\xff\xff\xff\xff\x0f", b"\x7a\x05abc", b"\x0a\x01a\x12\x02x"] {
            assert_eq!(received(fields, 100).unwrap_err().code(), Code::InvalidArgument, "{fields:?}");
        }
    }
}
