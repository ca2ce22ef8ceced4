//! What a façade sees of a connection: a request, its body, and the way to answer.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::http::response::Builder;
use parking_lot::Mutex;

use super::driver::Driver;

/// The head of a request: method, target, and header fields.
pub type Head = hyper::http::request::Parts;

/// So much of an answer is handed to hyper at a time.
const PIECE: usize = 64 << 10;

/// A request.
pub struct Request {
    /// All but its body.
    pub head: Head,
    /// What follows the head.
    pub body: Body,
    /// Where it comes from.
    pub peer: SocketAddr,
}

/// The body of a request. A client that has asked for it (`Expect: 100-continue`) is told to send it when it is first read.
pub struct Body {
    driver: Arc<Mutex<Driver>>,
    /// `None` when it has been read to its end, or has failed.
    incoming: Option<Incoming>,
    /// What has come and was not read yet.
    rest: Bytes,
}

impl Body {
    pub(super) fn new(driver: Arc<Mutex<Driver>>, incoming: Incoming) -> Self {
        Self { driver, incoming: Some(incoming), rest: Bytes::new() }
    }

    /// Its length in bytes, if the head says it; 0 for none.
    pub fn length(&self) -> Option<u64> {
        self.incoming.as_ref().map_or(Some(0), |incoming| incoming.size_hint().exact())
    }
}

/// Fails with `TimedOut` if the client sends too slowly, and with `ConnectionAborted` if it has gone before the end.
impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let Some(mut incoming) = self.incoming.take() else { return Ok(0) };
            match self.driver.lock().receive(&mut incoming)? {
                Some(bytes) => (self.rest, self.incoming) = (bytes, Some(incoming)),
                None => return Ok(0),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(buffer.len()));
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

/// The way to answer a request.
pub struct Reply {
    driver: Arc<Mutex<Driver>>,
    sent: Arc<AtomicU64>,
}

impl Reply {
    pub(super) fn new(driver: Arc<Mutex<Driver>>) -> Self {
        Self { driver, sent: Arc::default() }
    }

    /// Counts the bytes of the answer's body: those of a whole one at once, others when the client takes them.
    pub fn sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }

    /// Answers with a whole body. Its length goes into the head.
    pub fn send(self, head: Builder, body: impl Into<Bytes>) {
        let body = body.into();
        self.sent.store(body.len() as u64, Ordering::Relaxed);
        self.driver.lock().answer(head, body);
    }

    /// Answers with a body that is written bit by bit. If its length is not given, it is chunked.
    pub fn begin(self, head: Builder, length: Option<u64>) -> Answer {
        self.driver.lock().begin(head, length);
        Answer { driver: self.driver, sent: self.sent, is_whole: false }
    }
}

/// The body of an answer. Writing waits until the client takes it.
///
/// If it is dropped before [`finish`](Self::finish), or with fewer bytes than its length, the connection ends, and the client
/// sees that the answer is not whole.
pub struct Answer {
    driver: Arc<Mutex<Driver>>,
    sent: Arc<AtomicU64>,
    is_whole: bool,
}

impl Answer {
    /// Says that all was written.
    pub fn finish(mut self) {
        self.is_whole = true;
    }
}

impl Write for Answer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(PIECE)];
        if !bytes.is_empty() {
            self.driver.lock().send(Bytes::copy_from_slice(bytes))?;
            self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // hyper does, when it is next polled
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.driver.lock().end_body(self.is_whole);
    }
}
