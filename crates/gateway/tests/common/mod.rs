//! A gateway of a store in memory, and clients that speak by hand.
#![allow(dead_code, missing_docs, reason = "each test file uses a part of it")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use depot::client::memory::Memory;
use depot::client::{Content, Files, PutOptions, Source};
use depot::namespace::change::{Condition, Details};
use gateway::{Gateway, Options};

pub const CRLF: &str = "\r\n";

/// Longer than anything takes that does not wait for ever.
pub const SOON: Duration = Duration::from_secs(30);

/// A gateway that runs.
pub struct Served {
    pub store: Arc<dyn Files>,
    pub gateway: Gateway,
}

impl Served {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    /// With other options than the usual ones.
    pub fn with(change: impl FnOnce(&mut Options)) -> Self {
        Self::of(Arc::new(Memory::new("test").unwrap()), change)
    }

    pub fn of(store: Arc<dyn Files>, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::new(TcpListener::bind("127.0.0.1:0").unwrap());
        options.s3 = Some(TcpListener::bind("127.0.0.1:0").unwrap());
        change(&mut options);
        let gateway = Gateway::start(options, Arc::clone(&store)).unwrap();
        Self { store, gateway }
    }

    pub fn dial(&self) -> Client {
        Client::of(TcpStream::connect(self.gateway.address()).unwrap())
    }

    /// Sends one request on a connection of its own.
    #[track_caller]
    pub fn ask(&self, request: &[&str], body: &[u8]) -> Reply {
        let mut client = self.dial();
        client.send(request, body);
        client.reply(request[0].starts_with("HEAD"))
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address())
    }

    pub fn put(&self, path: &str, content: &[u8]) -> String {
        self.put_as(path, content, "")
    }

    /// Puts a file past the gateway; its ETag.
    pub fn put_as(&self, path: &str, content: &[u8], content_type: &str) -> String {
        let details = Details { content_type: content_type.to_owned(), ..Details::default() };
        let options =
            PutOptions { parents: true, details, modified_ms: Some(784_111_777_500), ..PutOptions::default() };
        let version = self.store.put(&path.parse().unwrap(), Source::Once(&mut &*content), &options).unwrap();
        format!("\"{version}\"")
    }

    /// A file's content, past the gateway.
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        let mut content: Box<dyn Content + Send + '_> = self.store.get(&path.parse().unwrap(), Condition::Any).ok()?;
        let mut bytes = Vec::new();
        let size = content.size();
        content.copy_to(0..size, &mut bytes).unwrap();
        Some(bytes)
    }
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    received: Vec<u8>,
}

/// What was answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// The connection ended before the body did.
    pub is_cut: bool,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (there, value) = line.split_once(':')?;
            there.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The code of an error.
    pub fn error(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        assert!(json["message"].as_str().is_some_and(|message| message.len() > 10), "it says why: {json}");
        json["error"].as_str().expect("a code").to_owned()
    }
}

impl Client {
    pub fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self { stream, received: Vec::new() }
    }

    /// Sends lines as a head, with a Host unless there is one, and a body with its length unless a line says it.
    pub fn send(&mut self, lines: &[&str], body: &[u8]) {
        let mut head = format!("{} HTTP/1.1{CRLF}", lines[0]);
        lines[1..].iter().for_each(|line| head.push_str(&format!("{line}{CRLF}")));
        let says = |name: &str| lines[1..].iter().any(|line| line.to_lowercase().starts_with(name));
        if !says("host:") {
            head.push_str("Host: localhost\r\n");
        }
        if !says("content-length:") && !says("transfer-encoding:") && !body.is_empty() {
            head.push_str(&format!("Content-Length: {}{CRLF}", body.len()));
        }
        head.push_str(CRLF);
        self.write(head.as_bytes());
        self.write(body);
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it can be written");
    }

    /// Writes for as long as the other end takes it; false if that ends before all is written.
    pub fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Says that nothing more comes.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Receives some bytes; false at the end of the stream, or if it was reset.
    pub fn receive(&mut self) -> bool {
        let mut buffer = [0; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(read) => {
                self.received.extend(&buffer[..read]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}, after {:?}", String::from_utf8_lossy(&self.received)),
        }
    }

    /// Receives a head, up to its empty line; `None` if the connection ends before.
    pub fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.received.drain(..end + 4).collect();
                return Some(String::from_utf8(head).expect("text"));
            }
            if !self.receive() {
                return None;
            }
        }
    }

    /// Receives an answer.
    #[track_caller]
    pub fn reply(&mut self, is_head: bool) -> Reply {
        self.reply_or_end(is_head).expect("an answer")
    }

    /// Receives an answer; `None` if the connection ends instead.
    pub fn reply_or_end(&mut self, is_head: bool) -> Option<Reply> {
        let head = self.head()?;
        let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
        let mut reply = Reply { status, head, body: Vec::new(), is_cut: false };
        assert!(reply.header("transfer-encoding").is_none(), "lengths are known: {}", reply.head);
        let length = reply.header("content-length").map_or(0, |length| length.parse().expect("a number"));
        let has_body = !(is_head || status < 200 || status == 204 || status == 304);
        let length = if has_body { length } else { 0 };
        while self.received.len() < length && self.receive() {}
        reply.is_cut = self.received.len() < length;
        reply.body = self.received.drain(..length.min(self.received.len())).collect();
        Some(reply)
    }

    /// Receives a chunk of a body whose length is not known; `None` at its end.
    pub fn chunk(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|bytes| bytes == b"\r\n") {
                let length = std::str::from_utf8(&self.received[..end]).ok()?;
                let length = usize::from_str_radix(length, 16).expect("a length");
                let whole = end + 2 + length + 2;
                if self.received.len() >= whole {
                    let chunk: Vec<u8> = self.received.drain(..whole).collect();
                    return (length > 0)
                        .then(|| String::from_utf8_lossy(&chunk[end + 2..end + 2 + length]).into_owned());
                }
            }
            if !self.receive() {
                return None;
            }
        }
    }

    /// Waits until the connection ends. What has come until then and belongs to no answer is given back.
    pub fn end(&mut self) -> Vec<u8> {
        while self.receive() {}
        std::mem::take(&mut self.received)
    }
}
