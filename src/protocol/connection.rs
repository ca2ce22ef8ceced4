//! How messages and content travel: one TCP connection, with the semantics of Java's streams. (spec 2.1 to 2.3)
//!
//! The only place that touches the bytes of the protocol, and the one that logs every message. (spec 5.2)
//! Decides nothing: its owner says what a message means and how long to wait for it.

use std::fmt::{self, Write as _};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use super::Printable;
use super::content::Content;
use super::message::{Message, ParseError};
use crate::complaint::Mistakes;
use crate::socket::{Incoming, Wait, connect, peek};

/// The longest line in bytes that a peer may send unless told otherwise: generous for anything a client says.
pub const CLIENT_LINE_LIMIT: usize = 64 << 10;

/// The longest line in bytes between Controller and Dstore unless told otherwise: a LIST or REBALANCE of a
/// million names is legitimate there.
pub const DSTORE_LINE_LIMIT: usize = 256 << 20;

/// After how long a machine that answers nothing any more counts as dead unless told otherwise.
pub const KEEPALIVE: Duration = Duration::from_secs(20);

/// The log target of every message sent or received, at level `info`.
pub const MESSAGE_LOG: &str = "stevedore::messages";

/// A long line must have this many bytes for each word: otherwise its words would need many times its own memory.
const BYTES_TO_A_WORD: usize = 64;

/// A line of up to this many words costs little whatever its limit.
const LEAST_WORDS: usize = 64 << 10;

/// A message longer than this is cut in the log.
const LOGGED_BYTES: usize = 64 << 10;

/// This much of a line that is no message is logged, to show what it was.
const LOGGED_NONSENSE: usize = 256;

/// How much is read ahead of the line in hand; larger reads of content go around it.
const READ_AHEAD: usize = 4 << 10;

/// What [`Connection::receive`] yields: a message or why the line is none, `None` at end of stream.
pub type Received = io::Result<Option<Result<Message, ParseError>>>;

/// One end of a TCP connection that speaks the protocol.
pub struct Connection {
    reader: BufReader<Incoming>,
    outgoing: Outgoing,
    /// The line being read. It is kept between calls so that a timeout loses nothing.
    line: Vec<u8>,
    /// The last line ended at `\r`. A `\n` that comes next belongs to that line, and must not be waited for.
    after_carriage_return: bool,
    line_limit: LineLimit,
    /// No line has been received yet: the first one may show that the peer speaks something else.
    is_new: bool,
    /// What the line being read, or the last one, has beyond its limit.
    share: Option<AllowanceShare>,
    /// The line being read is too long: the rest of it is not kept.
    is_skipping: bool,
    mistakes: Mistakes,
}

/// The longest line in bytes that is taken; another thread may change it meanwhile.
#[derive(Clone, Debug)]
pub struct LineLimit(Arc<Limits>);

#[derive(Debug)]
struct Limits {
    bytes: AtomicUsize,
    /// Whether a line may be longer, as far as the connection's [`Allowance`] goes.
    is_extensible: AtomicBool,
}

impl LineLimit {
    /// To begin with.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Limits { bytes: AtomicUsize::new(bytes), is_extensible: AtomicBool::new(false) }))
    }

    /// From now on, also for a line that has begun to arrive. A longer one ends the connection.
    pub fn set(&self, bytes: usize) {
        self.0.is_extensible.store(false, Ordering::Release);
        self.0.bytes.store(bytes, Ordering::Release);
    }

    /// Likewise, but a longer line is taken as far as the [`Allowance`] goes, and skipped beyond that.
    pub fn set_extensible(&self, bytes: usize) {
        self.0.bytes.store(bytes, Ordering::Release);
        self.0.is_extensible.store(true, Ordering::Release);
    }

    /// At this moment.
    pub fn get(&self) -> usize {
        self.0.bytes.load(Ordering::Acquire)
    }

    fn is_extensible(&self) -> bool {
        self.0.is_extensible.load(Ordering::Acquire)
    }
}

/// How many words a line of up to `bytes` may have. Each word becomes a value, which is larger than a short word
/// itself.
fn most_words(bytes: usize) -> usize {
    (bytes / BYTES_TO_A_WORD).max(LEAST_WORDS)
}

/// How many bytes the lines of several connections may be longer than their limits, all together.
#[derive(Clone, Debug)]
pub struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    /// An allowance of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// The part of an [`Allowance`] that one line uses. It is given back when dropped: keep it as long as the line's
/// message.
#[derive(Debug)]
pub struct AllowanceShare {
    allowance: Allowance,
    bytes: usize,
}

impl AllowanceShare {
    fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let is_taken = self.allowance.take(more);
        self.bytes += if is_taken { more } else { 0 };
        is_taken
    }

    fn give_back(&mut self) {
        self.allowance.0.fetch_add(std::mem::take(&mut self.bytes), Ordering::AcqRel);
    }
}

impl Drop for AllowanceShare {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Connection {
    /// Takes over a connected stream.
    pub fn new(stream: Arc<TcpStream>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let outgoing =
            Outgoing { local: stream.local_addr()?.port(), remote: stream.peer_addr()?, stream: Arc::clone(&stream) };
        let mistakes = Mistakes::of(outgoing.remote);
        let incoming = Incoming::new(stream);
        Ok(Self {
            reader: BufReader::with_capacity(READ_AHEAD, incoming),
            outgoing,
            line: Vec::new(),
            after_carriage_return: false,
            line_limit: LineLimit::new(CLIENT_LINE_LIMIT),
            is_new: true,
            share: None,
            is_skipping: false,
            mistakes,
        })
    }

    /// Connects to `address`, waiting no longer than `timeout`. The timeout also bounds writes, until another limit is
    /// set, as by [`Outgoing::limit_stalls`].
    pub fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        Self::connect_announced(address, timeout, |_| ()).map(|(connection, ())| connection)
    }

    /// Connects like [`connect`](Self::connect), but passes the socket to `announce` first, so that another thread can
    /// end the wait by shutting it down. Returns what `announce` returns, too.
    pub fn connect_announced<T>(
        address: SocketAddr,
        timeout: Duration,
        announce: impl FnOnce(&Arc<TcpStream>) -> T,
    ) -> io::Result<(Self, T)> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        let stream = Arc::new(TcpStream::from(socket));
        let announced = announce(&stream);
        connect(&stream, address, timeout)?;
        let connection = Self::new(stream)?;
        // Where no program listens, the kernel may pick the wanted port for our own end: TCP then connects to itself.
        if connection.outgoing.local == address.port() && connection.outgoing.stream.local_addr()? == address {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        Ok((connection, announced))
    }

    /// Sets the longest line in bytes that [`receive`](Self::receive) takes.
    pub fn limit_lines(&mut self, bytes: usize) {
        self.line_limit.set(bytes);
    }

    /// The limit itself, for another thread to change.
    pub fn line_limit(&self) -> &LineLimit {
        &self.line_limit
    }

    /// Lets lines be longer than the limit, as far as `allowance` goes, while the limit is
    /// [extensible](LineLimit::set_extensible).
    pub fn extend_lines(&mut self, allowance: &Allowance) {
        self.share = Some(AllowanceShare { allowance: allowance.clone(), bytes: 0 });
    }

    /// Takes the part of the allowance that the last received line uses.
    pub fn take_share(&mut self) -> Option<AllowanceShare> {
        let allowance = self.share.as_ref()?.allowance.clone();
        self.share.replace(AllowanceShare { allowance, bytes: 0 })
    }

    /// Logs that something which this peer has sent is ignored, unless that was logged too often. (spec 2.6)
    pub fn ignore(&mut self, what: &dyn fmt::Display) {
        self.mistakes.add(what);
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.outgoing.remote
    }

    /// The sending half, for another thread.
    pub fn outgoing(&self) -> &Outgoing {
        &self.outgoing
    }

    /// Sends one message in one write.
    pub fn send(&self, message: &Message) -> io::Result<()> {
        self.outgoing.send(message)
    }

    /// Sends a message that has been made for many, in one write.
    pub fn send_line(&self, line: &Line) -> io::Result<()> {
        self.outgoing.send_line(line)
    }

    /// Sends one message and content after it in one write.
    pub fn send_with_content(&self, message: &Message, content: &[u8]) -> io::Result<()> {
        let mut bytes = self.outgoing.render(std::slice::from_ref(message)).into_bytes();
        bytes.extend_from_slice(content);
        self.outgoing.write(&bytes)
    }

    /// Sends bytes of content as they are. Fails once the peer has accepted none for the time set with
    /// [`Outgoing::limit_stalls`].
    pub fn send_content(&self, bytes: &[u8]) -> io::Result<()> {
        self.outgoing.write(bytes)
    }

    /// Waits for the next line however long it takes: a peer that is merely idle is not timed out. (spec 2.7)
    ///
    /// Fails with `InvalidData` at a line over the limit, and at a first line that a web browser has sent (spec 7.29).
    /// The connection is of no more use then.
    pub fn receive(&mut self) -> Received {
        self.reader.get_mut().wait = Wait::Forever;
        self.next_line()
    }

    /// Waits for the next line, `timeout` in all: for replies that are expected. (spec 2.7)
    ///
    /// Fails with `TimedOut`; what has arrived by then is kept for the next call.
    pub fn receive_within(&mut self, timeout: Duration) -> Received {
        self.reader.get_mut().wait = Wait::deadline(timeout);
        self.next_line()
    }

    /// The next `size` bytes of content. Reading fails with `UnexpectedEof` where the peer ends early, and with
    /// `TimedOut` where nothing arrives for `stall`. (spec 2.3, 7.11)
    pub fn content(&mut self, size: u64, stall: Duration) -> Content<'_> {
        self.reader.get_mut().wait = Wait::EachRead(stall);
        Content::new(self, size)
    }

    /// Waits for content, and takes as much of it as there is and fits; 0 bytes at the end of the stream.
    pub(super) fn read_content(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.finish_last_ending()?;
        self.reader.read(buffer)
    }

    /// Says that nothing more will be sent; the peer's answers can still be read.
    pub fn finish_sending(&self) -> io::Result<()> {
        self.outgoing.stream.shutdown(Shutdown::Write)
    }

    /// Waits until the peer closes in order; fails if it resets the connection, sends something, or takes longer
    /// than `timeout`. (spec 7.18)
    pub fn wait_for_end(&mut self, timeout: Duration) -> io::Result<()> {
        self.reader.get_mut().wait = Wait::deadline(timeout);
        self.finish_last_ending()?;
        if self.reader.fill_buf()?.is_empty() { Ok(()) } else { Err(invalid("expected the end of the stream".into())) }
    }

    /// Whether anything has arrived that has not been read. Does not wait. False at the end of the stream.
    pub fn has_more(&mut self) -> io::Result<bool> {
        if !self.reader.buffer().is_empty() {
            return Ok(true);
        }
        match peek(&self.outgoing.stream) {
            Ok(received) => Ok(received > 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether more had arrived by the last read than that read asked for. Looks again only if that read does not tell.
    pub fn had_more(&mut self) -> io::Result<bool> {
        let is_drained = self.reader.buffer().is_empty() && self.reader.get_ref().was_short;
        if is_drained { Ok(false) } else { self.has_more() }
    }

    /// Closes so that the peer sees a reset, not an orderly end: the transfer has failed. (spec 7.18)
    pub fn reset(self) {
        // Where this fails, the socket is gone already.
        let _ = self.end_in_reset(true);
    }

    /// Sets whether every close of this connection looks like that from now on. When a process is killed, the system
    /// closes its connections, and would otherwise do so in order.
    pub fn end_in_reset(&self, reset: bool) -> io::Result<()> {
        SockRef::from(&*self.outgoing.stream).set_linger(reset.then_some(Duration::ZERO))
    }

    /// Ends both directions, from any thread: a thread that waits on the connection wakes up.
    pub fn shut_down(&self) {
        self.outgoing.shut_down();
    }

    fn next_line(&mut self) -> Received {
        if self.line.is_empty() {
            drop(self.take_share());
        }
        if !self.read_line()? {
            return Ok(None);
        }
        if std::mem::take(&mut self.is_new)
            && let Some(protocol) = browsers_protocol(&self.line)
        {
            let shown = &self.line[..self.line.len().min(LOGGED_NONSENSE)];
            return Err(invalid(format!("it speaks {protocol}: \"{}\"", shown.escape_ascii())));
        }
        let limit = self.line_limit.get() + self.share.as_ref().map_or(0, |share| share.bytes);
        if std::mem::take(&mut self.is_skipping) {
            self.line.clear();
            return Ok(Some(Err(ParseError::TooLong { most: limit })));
        }
        let most_words = most_words(limit);
        let message = take_text(&mut self.line, |line| {
            let message = if has_more_words(line, most_words) {
                Err(ParseError::TooManyWords { most: most_words })
            } else {
                Message::parse(line)
            };
            // Every message is logged (spec 5.2). Of lines that are none, the beginnings of some are.
            match message {
                Ok(_) => self.outgoing.log("<-", line, LOGGED_BYTES),
                Err(_) if self.mistakes.next_is_told() => self.outgoing.log("<-", line, LOGGED_NONSENSE),
                Err(_) => {}
            }
            message
        });
        Ok(Some(message))
    }

    /// Java's `BufferedReader.readLine`, into `self.line`; false at the end of the stream. (spec 2.1)
    fn read_line(&mut self) -> io::Result<bool> {
        loop {
            self.finish_last_ending()?;
            let ahead = self.reader.fill_buf()?;
            if ahead.is_empty() {
                return Ok(!self.line.is_empty());
            }
            let end = ahead.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let text = &ahead[..end.unwrap_or(ahead.len())];
            let limit = self.line_limit.get();
            let beyond = (self.line.len() + text.len()).saturating_sub(limit);
            if beyond > 0 && !self.is_skipping {
                match &mut self.share {
                    Some(share) if self.line_limit.is_extensible() => {
                        if !share.grow_to(beyond) {
                            share.give_back(); // another line may fit
                            self.is_skipping = true;
                            self.line = vec![b' ']; // of a line: not the end of the stream
                        }
                    }
                    _ => return Err(invalid(format!("a line longer than {limit} bytes"))),
                }
            }
            if !self.is_skipping {
                self.line.extend_from_slice(text);
            }
            self.after_carriage_return = end.is_some_and(|end| ahead[end] == b'\r');
            let consumed = text.len() + usize::from(end.is_some());
            self.reader.consume(consumed);
            if end.is_some() {
                return Ok(true);
            }
        }
    }

    /// Takes the `\n` that may still belong to a `\r` taken before; waits for what comes next, whatever it is.
    fn finish_last_ending(&mut self) -> io::Result<()> {
        if self.after_carriage_return {
            if self.reader.fill_buf()?.first() == Some(&b'\n') {
                self.reader.consume(1);
            }
            self.after_carriage_return = false;
        }
        Ok(())
    }
}

/// The protocol of a connection with this first line, if a web browser has opened it. No later line may be obeyed: any
/// web page can have a browser send lines of its choice, in the body of a POST or inside a TLS handshake. (spec 7.29)
///
/// No message is mistaken for a request: none has a word with a slash in it.
fn browsers_protocol(first_line: &[u8]) -> Option<&'static str> {
    const TLS_HANDSHAKE: &[u8] = &[0x16, 3];
    if first_line.ends_with(b" HTTP/1.1") || first_line.ends_with(b" HTTP/1.0") {
        Some("HTTP")
    } else if first_line.starts_with(TLS_HANDSHAKE) {
        Some("TLS")
    } else {
        None
    }
}

fn has_more_words(line: &str, most: usize) -> bool {
    // A word and the space after it are two bytes at least.
    line.len() / 2 >= most && line.bytes().filter(|&byte| byte == b' ').count() >= most
}

/// Returns what `look` makes of a line that has been read, and then forgets the line. Malformed UTF-8 becomes U+FFFD.
fn take_text<T>(line: &mut Vec<u8>, look: impl FnOnce(&str) -> T) -> T {
    let looked = look(&String::from_utf8_lossy(line));
    line.clear();
    // One long LIST must not cost its memory for the rest of a connection's life.
    line.shrink_to(READ_AHEAD);
    looked
}

/// A message as it is sent, made once to be sent to many: a long list is in memory once.
#[derive(Clone, Debug)]
pub struct Line(Arc<str>);

impl Line {
    /// The message, and the end of its line.
    pub fn new(message: &Message) -> Self {
        Self(format!("{message}\n").into())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim_end_matches('\n'))
    }
}

/// The sending half of a connection.
///
/// A message is one write, so that two messages never mix. Still, threads that share an `Outgoing` take turns: a write
/// that does not fit the socket's buffer is continued.
#[derive(Clone)]
pub struct Outgoing {
    stream: Arc<TcpStream>,
    local: u16,
    remote: SocketAddr,
}

impl Outgoing {
    /// Sends one message in one write.
    pub fn send(&self, message: &Message) -> io::Result<()> {
        self.send_all(std::slice::from_ref(message))
    }

    /// Sends several messages in one write.
    pub fn send_all(&self, messages: &[Message]) -> io::Result<()> {
        self.write(self.render(messages).as_bytes())
    }

    /// Sends a message that has been made for many, in one write.
    pub fn send_line(&self, Line(line): &Line) -> io::Result<()> {
        self.log("->", line.trim_end_matches('\n'), LOGGED_BYTES);
        self.write(line.as_bytes())
    }

    /// What is sent of messages; logs them.
    fn render(&self, messages: &[Message]) -> String {
        let mut text = String::new();
        for message in messages {
            let start = text.len();
            write!(text, "{message}").expect("a String takes all");
            self.log("->", &text[start..], LOGGED_BYTES);
            text.push('\n');
        }
        text
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        (&*self.stream).write_all(bytes).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => ErrorKind::TimedOut.into(), // what the kernel calls a stall
            _ => error,
        })
    }

    /// Makes writes fail once the peer has accepted nothing for `stall`.
    pub fn limit_stalls(&self, stall: Duration) -> io::Result<()> {
        self.stream.set_write_timeout(Some(stall))
    }

    /// Ends the connection when the other end's machine has answered nothing for `within`: neither to what it was sent,
    /// nor to the kernel's question whether it is still there. `within` is rounded to whole seconds, and the end may
    /// come an eighth, or a second, later. The peer's program is asked nothing, and may be idle as long as it likes.
    /// (spec 2.7)
    ///
    /// On Linux a peer that takes nothing it is sent for that long counts as dead, too.
    pub fn notice_death(&self, within: Duration) {
        const QUESTIONS: u32 = 4;
        const SHORTEST: Duration = Duration::from_secs(1); // what the kernel can count in
        let socket = SockRef::from(&*self.stream);
        let keepalive = TcpKeepalive::new().with_time((within / 2).max(SHORTEST));
        #[cfg(not(windows))]
        let keepalive = keepalive.with_retries(QUESTIONS);
        let keepalive = keepalive.with_interval((within / 2 / QUESTIONS).max(SHORTEST));
        let asked = socket.set_tcp_keepalive(&keepalive);
        // Without it, the kernel would repeat what is not acknowledged for a quarter of an hour first.
        #[cfg(target_os = "linux")]
        let asked = asked.and_then(|()| socket.set_tcp_user_timeout(Some(within.max(SHORTEST))));
        if let Err(error) = asked {
            log::warn!("{}: it will not be noticed if its machine dies: {error}", self.remote);
        }
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.remote
    }

    /// The port of our own end.
    pub fn local_port(&self) -> u16 {
        self.local
    }

    /// The socket itself, for a thread that has to close it from elsewhere.
    pub fn socket(&self) -> &Arc<TcpStream> {
        &self.stream
    }

    /// Ends both directions, from any thread.
    pub fn shut_down(&self) {
        // An error means that the connection has ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// `[local->remote] message`, the 2021 edition's form. (spec 5.2, 5.4)
    fn log(&self, arrow: &str, line: &str, most: usize) {
        let (local, remote) = (self.local, self.remote.port());
        if line.len() <= most {
            log::info!(target: MESSAGE_LOG, "[{local}{arrow}{remote}] {}", Printable(line));
        } else {
            let shown = &line[..line.floor_char_boundary(most)];
            log::info!(target: MESSAGE_LOG, "[{local}{arrow}{remote}] {}... ({} bytes)", Printable(shown), line.len());
        }
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests;
