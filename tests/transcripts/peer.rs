//! The end of a connection that a transcript plays: says exactly what it is told, and hears every byte.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stevedore::protocol::Connection;

pub struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
    end: Option<Came>,
    is_end_heard: bool,
}

/// What came next on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// A line, without the `\n` that ended it.
    Line(Vec<u8>),
    /// What is not a whole line.
    Bytes(Vec<u8>),
    /// The orderly end of the stream.
    Closed,
    Reset,
    Nothing,
}

impl Peer {
    /// Takes over a connected stream. A write that takes longer than `patience` fails.
    pub fn new(stream: TcpStream, patience: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream, unread: Vec::new(), end: None, is_end_heard: false })
    }

    pub fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be said; the peer still hears.
    pub fn finish(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Ends the connection without an orderly end.
    pub fn reset(self) -> io::Result<()> {
        Connection::new(Arc::new(self.stream)).map(Connection::reset)
    }

    /// The next line, or whatever else there is when no whole line comes until `deadline`.
    pub fn next_line(&mut self, deadline: Instant) -> Came {
        match self.line_length(deadline) {
            Some(length) => {
                let rest = self.unread.split_off(length + 1);
                let mut line = std::mem::replace(&mut self.unread, rest);
                line.pop();
                Came::Line(line)
            }
            None => self.remainder(),
        }
    }

    /// The next line if there is one already; it stays.
    pub fn peek_line(&mut self) -> Option<&[u8]> {
        let length = self.line_length(Instant::now())?;
        Some(&self.unread[..length])
    }

    /// The next `count` bytes, or fewer if no more come for `patience`. A busy machine may need long for many.
    pub fn next_bytes(&mut self, count: usize, patience: Duration) -> Came {
        while self.unread.len() < count && self.fill(Instant::now() + patience) {}
        if self.unread.len() < count {
            return self.remainder();
        }
        let rest = self.unread.split_off(count);
        Came::Bytes(std::mem::replace(&mut self.unread, rest))
    }

    /// Waits until anything new has come; false if nothing has until `deadline`.
    pub fn hears_anything(&mut self, deadline: Instant) -> bool {
        if self.unread.is_empty() {
            self.fill(deadline);
        }
        !self.unread.is_empty() || (self.end.is_some() && !self.is_end_heard)
    }

    fn line_length(&mut self, deadline: Instant) -> Option<usize> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.unread[searched..].iter().position(|&byte| byte == b'\n') {
                return Some(searched + at);
            }
            searched = self.unread.len();
            if !self.fill(deadline) {
                return None;
            }
        }
    }

    fn remainder(&mut self) -> Came {
        match (self.unread.is_empty(), &self.end) {
            (false, _) => Came::Bytes(std::mem::take(&mut self.unread)),
            (true, Some(end)) => {
                self.is_end_heard = true;
                end.clone()
            }
            (true, None) => Came::Nothing,
        }
    }

    /// Reads more; false at the end of the stream, or if nothing comes until `deadline`.
    fn fill(&mut self, deadline: Instant) -> bool {
        let mut buffer = [0; 64 << 10];
        while self.end.is_none() {
            // Zero would mean no limit; what is there already is read even after the deadline.
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).expect("a timeout that is not zero");
            match self.stream.read(&mut buffer) {
                Ok(0) => self.end = Some(Came::Closed),
                Ok(count) => {
                    self.unread.extend_from_slice(&buffer[..count]);
                    return true;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return false;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.end = Some(Came::Reset),
            }
        }
        false
    }
}
