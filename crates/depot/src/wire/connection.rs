//! How messages and content travel: one TCP connection.
//!
//! The only place that touches the bytes of the protocol. Decides nothing: its owner says what a message means and how
//! long to wait for it. Each line is logged at level debug, with the peer; content and secrets never are.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use stevedore::socket::{self, Incoming, Wait};

use super::Address;
use crate::words::{Line, ParseError, Words};

/// The log target of every line sent or received, at level debug.
pub const WIRE_LOG: &str = "depot::wire";

/// The longest line that a peer may send once it has proven who it is: a change has at most 8 MiB, and the list of the
/// objects of the largest file with all their places is as long.
pub const MOST_LINE_BYTES: usize = 16 << 20;

/// The longest line before that.
const MOST_FIRST_BYTES: usize = 1 << 10;

/// A longer line is cut in the log.
const LOGGED_BYTES: usize = 4 << 10;

/// A longer line's memory is given back at once.
const MOST_KEPT_BYTES: usize = 4 << 10;

/// How much is read ahead of the line in hand; larger reads of content go around it.
const READ_AHEAD: usize = 8 << 10;

/// Content of more bytes is not copied behind its line to be sent.
const MOST_COPIED: usize = 16 << 10;

/// After how long a machine that answers nothing any more counts as gone.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Why no message was received.
#[derive(Debug)]
pub enum ReceiveError {
    /// What the system says: `TimedOut` where the wait was limited.
    Io(io::Error),
    /// The peer has closed the connection, in order, where a line was due.
    Ended,
    /// A line that is no message. The connection is of no more use: content might follow.
    Invalid(ParseError),
    /// A line longer than the limit, in bytes.
    TooLong(usize),
    /// A line that is not UTF-8.
    NotText,
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Ended => f.write_str("the connection was closed"),
            Self::Invalid(error) => error.fmt(f),
            Self::TooLong(limit) => write!(f, "a line longer than {limit} bytes"),
            Self::NotText => f.write_str("a line that is not UTF-8"),
        }
    }
}

impl std::error::Error for ReceiveError {}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ReceiveError> for io::Error {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Io(error) => error,
            ReceiveError::Ended => Self::new(ErrorKind::UnexpectedEof, "the connection was closed"),
            other => Self::new(ErrorKind::InvalidData, other.to_string()),
        }
    }
}

/// One end of a connection.
pub struct Connection {
    reader: BufReader<Incoming>,
    stream: Arc<TcpStream>,
    peer: SocketAddr,
    /// The line being read. It is kept between calls, so that a timeout loses nothing.
    line: Vec<u8>,
    line_limit: usize,
}

impl Connection {
    /// Takes over a connected stream. Lines are short until [`trust`](Self::trust).
    pub fn new(stream: Arc<TcpStream>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        SockRef::from(&*stream)
            .set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4))?;
        let peer = stream.peer_addr()?;
        let reader = BufReader::with_capacity(READ_AHEAD, Incoming::new(Arc::clone(&stream)));
        Ok(Self { reader, stream, peer, line: Vec::new(), line_limit: MOST_FIRST_BYTES })
    }

    /// Connects to the first place of `address` that answers within `timeout`. `announce` gets the socket before, so that
    /// another thread can end the wait by shutting it down.
    pub fn connect(address: &Address, timeout: Duration, announce: impl Fn(&Arc<TcpStream>)) -> io::Result<Self> {
        let mut last = io::Error::new(ErrorKind::NotFound, format!("{} has no address", address.host()));
        for place in address.resolve()? {
            let socket = Socket::new(Domain::for_address(place), Type::STREAM, None)?;
            let stream = Arc::new(TcpStream::from(socket));
            announce(&stream);
            match socket::connect(&stream, place, timeout) {
                // Where no program listens, TCP may connect a socket to itself.
                Ok(()) if stream.local_addr()? == place => last = ErrorKind::ConnectionRefused.into(),
                Ok(()) => return Self::new(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// From now on lines may be long: the peer has proven who it is.
    pub fn trust(&mut self) {
        self.line_limit = MOST_LINE_BYTES;
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The socket, for another thread that ends the connection.
    pub fn stream(&self) -> &Arc<TcpStream> {
        &self.stream
    }

    /// The sending half, for another thread. Only one thread may send at a time.
    pub fn sender(&self) -> LineSender {
        LineSender { stream: Arc::clone(&self.stream), peer: self.peer }
    }

    /// The connection breaks once the peer has taken nothing of what it was sent for so long: a write fails, and on Linux a
    /// read that waits meanwhile does.
    pub fn limit_stalls(&self, stall: Duration) -> io::Result<()> {
        // A machine that is gone acknowledges nothing. The kernel would repeat what it was sent for a quarter of an hour.
        #[cfg(target_os = "linux")]
        SockRef::from(&*self.stream).set_tcp_user_timeout(Some(stall))?;
        self.stream.set_write_timeout(Some(stall))
    }

    /// Sends a message, in one write.
    pub fn send(&self, message: &impl Words) -> io::Result<()> {
        self.send_with_content(message, &[])
    }

    /// Sends a message, and content behind it, in one write.
    pub fn send_with_content(&self, message: &impl Words, content: &[u8]) -> io::Result<()> {
        self.send_all(slice::from_ref(message), content)
    }

    /// Sends several messages, and content behind the last of them, in one write.
    pub fn send_all(&self, messages: &[impl Words], content: &[u8]) -> io::Result<()> {
        send(&self.stream, self.peer, messages, content)
    }

    /// Sends bytes as they are.
    pub fn send_content(&self, bytes: &[u8]) -> io::Result<()> {
        write(&self.stream, &mut [IoSlice::new(bytes)])
    }

    /// Waits for the next message.
    pub fn receive<T: Words>(&mut self, wait: Wait) -> Result<T, ReceiveError> {
        self.reader.get_mut().wait = wait;
        self.read_line()?;
        let message = str::from_utf8(&self.line).map_err(|_| ReceiveError::NotText).and_then(|line| {
            let line = line.strip_suffix('\r').unwrap_or(line); // a person's terminal may send it
            log(self.peer, "<-", line);
            T::from_line(line).map_err(ReceiveError::Invalid)
        });
        self.line.clear();
        self.line.shrink_to(MOST_KEPT_BYTES);
        message
    }

    /// The next `size` bytes. Reading fails with `UnexpectedEof` where the peer ends early, and with `TimedOut` where
    /// nothing arrives for `stall`.
    pub fn content(&mut self, size: u64, stall: Duration) -> Content<'_> {
        self.reader.get_mut().wait = Wait::EachRead(stall);
        Content { connection: self, left: size }
    }

    /// Whether the peer has sent something that was not read, or has closed the connection. Does not wait.
    pub fn has_news(&self) -> bool {
        !self.reader.buffer().is_empty()
            || !self.line.is_empty()
            || !matches!(socket::peek(&self.stream), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Ends both directions, from any thread: a thread that waits on the connection wakes up.
    pub fn shut_down(&self) {
        let _ = self.stream.shutdown(Shutdown::Both); // an error means that it has ended already
    }

    fn read_line(&mut self) -> Result<(), ReceiveError> {
        // What has come is in the line also if this fails.
        let most = self.line_limit + 1 - self.line.len();
        self.reader.by_ref().take(most as u64).read_until(b'\n', &mut self.line)?;
        match self.line.pop_if(|last| *last == b'\n') {
            Some(_) => Ok(()),
            None if self.line.len() > self.line_limit => Err(ReceiveError::TooLong(self.line_limit)),
            None if self.line.is_empty() => Err(ReceiveError::Ended),
            None => Err(ReceiveError::Io(ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// The sending half of a connection.
#[derive(Clone, Debug)]
pub struct LineSender {
    stream: Arc<TcpStream>,
    peer: SocketAddr,
}

impl LineSender {
    /// Sends a message, in one write.
    pub fn send(&self, message: &impl Words) -> io::Result<()> {
        send(&self.stream, self.peer, slice::from_ref(message), &[])
    }

    /// Ends both directions.
    pub fn shut_down(&self) {
        let _ = self.stream.shutdown(Shutdown::Both); // an error means that it has ended already
    }
}

fn send(stream: &TcpStream, peer: SocketAddr, messages: &[impl Words], content: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let is_last = at + 1 == messages.len();
        let mut line = Line::with_room_for(if is_last { content.len().min(MOST_COPIED) } else { 0 });
        message.write(&mut line);
        log(peer, "->", line.as_str());
        if bytes.is_empty() {
            bytes = line.into_string().into_bytes();
        } else {
            bytes.extend_from_slice(line.as_str().as_bytes());
        }
        bytes.push(b'\n');
    }
    if content.len() <= MOST_COPIED {
        bytes.extend_from_slice(content);
        return write(stream, &mut [IoSlice::new(&bytes)]);
    }
    write(stream, &mut [IoSlice::new(&bytes), IoSlice::new(content)])
}

fn write(mut stream: &TcpStream, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0); // an empty one at the front is none
    while !slices.is_empty() {
        match stream.write_vectored(slices) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut slices, count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(io::Error::new(ErrorKind::TimedOut, "the peer takes no more"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn log(peer: SocketAddr, direction: &str, line: &str) {
    if log::log_enabled!(target: WIRE_LOG, log::Level::Debug) {
        let cut = line.char_indices().nth(LOGGED_BYTES).map_or(line.len(), |(at, _)| at);
        let more = if cut < line.len() { "…" } else { "" };
        log::debug!(target: WIRE_LOG, "{peer} {direction} {}{more}", &line[..cut]);
    }
}

/// Bytes that a line has announced.
pub struct Content<'a> {
    connection: &'a mut Connection,
    left: u64,
}

impl Content<'_> {
    /// How many are still to be read.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Reads what is left, and drops it.
    pub fn skip(mut self) -> io::Result<()> {
        if self.left == 0 {
            return Ok(()); // without a buffer to be cleared
        }
        io::copy(&mut self, &mut io::sink()).map(drop)
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.connection.reader.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, format!("{} bytes are missing", self.left)));
        }
        self.left -= count as u64;
        Ok(count)
    }
}
