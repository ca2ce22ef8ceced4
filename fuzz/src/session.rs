//! What the sessions share: their script, and the peers that play it.
//!
//! Every input is a script, so that none is wasted, and it is text, so that people can read and write it. A line is a
//! digit (whose turn it is), a sign (what it does), and, after a space, its words:
//!
//! | sign | the peer |
//! |---|---|
//! | `>` | says the words as a line |
//! | `~` | sends the words as they are, with no line ending |
//! | `=` | answers the next question that it is asked with these words instead of the truth; with none, not at all |
//! | `<` | waits a moment for something to be said to it |
//! | `\|` | closes its sending half |
//! | `!` | closes |
//! | `x` | resets the connection |
//!
//! Threads take turns as they like: what is checked holds in whatever order things happen, and one script may reach
//! different code when it is played again.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;
use stevedore::protocol::Message;

use crate::java::JavaReader;

/// How many peers a script has.
pub const PEERS: usize = 6;

/// Longer scripts are cut here, for the sake of speed.
const MOST_STEPS: usize = 50;

/// The timeout of the servers: short, because silence is waited for often.
pub const TIMEOUT: Duration = Duration::from_millis(20);

/// The bound for all that has to happen at some time; waited for only by what fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long `<` waits.
const MOMENT: Duration = Duration::from_millis(3);

/// How long to rest between looks.
const REST: Duration = Duration::from_micros(100);

/// One line of a script.
pub struct Step<'a> {
    pub peer: usize,
    pub action: Action<'a>,
}

/// What a peer does. See the module's table.
pub enum Action<'a> {
    Say(&'a [u8]),
    Send(&'a [u8]),
    Answer(&'a [u8]),
    Wait,
    FinishSending,
    Close,
    Reset,
}

/// The steps of a script; what is no step is passed over.
pub fn steps(script: &[u8]) -> impl Iterator<Item = Step<'_>> {
    script.split(|byte| *byte == b'\n').filter_map(step).take(MOST_STEPS)
}

fn step(line: &[u8]) -> Option<Step<'_>> {
    let (&[peer, sign], rest) = line.split_first_chunk()?;
    let words = rest.strip_prefix(b" ").unwrap_or(rest);
    let action = match sign {
        b'>' => Action::Say(words),
        b'~' => Action::Send(words),
        b'=' => Action::Answer(words),
        b'<' => Action::Wait,
        b'|' => Action::FinishSending,
        b'!' => Action::Close,
        b'x' => Action::Reset,
        _ => return None,
    };
    Some(Step { peer: usize::from(peer) % PEERS, action })
}

/// One end of a connection that never blocks, and remembers all that was said.
pub struct Peer {
    stream: Option<TcpStream>,
    pub sent: Vec<u8>,
    pub received: Vec<u8>,
    /// It says no more.
    pub has_finished: bool,
    /// The other side has closed, in order or not.
    pub has_seen_end: bool,
    /// It was cut off from this side: what has been received may be a part only.
    pub was_cut: bool,
    /// The other side has closed with a reset.
    pub was_reset: bool,
    /// How many messages `next_message` has yielded.
    taken: usize,
}

impl Peer {
    /// Connects to a server of this machine.
    pub fn connect(port: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self::new(TcpStream::connect_timeout(&address, PATIENCE).expect("it listens"))
    }

    /// Takes over one end of a connection.
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).expect("a connected socket");
        Self {
            stream: Some(stream),
            sent: Vec::new(),
            received: Vec::new(),
            has_finished: false,
            has_seen_end: false,
            was_cut: false,
            was_reset: false,
            taken: 0,
        }
    }

    /// Does what a step says; waiting and answering is for the cast.
    pub fn perform(&mut self, action: Action<'_>) {
        match action {
            Action::Say(words) => self.say_line(words),
            Action::Send(words) => self.send(words),
            Action::FinishSending => self.finish_sending(),
            Action::Close => self.close(),
            Action::Reset => self.reset(),
            Action::Answer(_) | Action::Wait => {}
        }
    }

    pub fn say(&mut self, message: &Message) {
        self.say_line(message.to_string().as_bytes());
    }

    pub fn say_line(&mut self, words: &[u8]) {
        self.send(&[words, b"\n"].concat());
    }

    /// Sends as much of this as the kernel takes; nothing on a connection that has ended.
    pub fn send(&mut self, bytes: &[u8]) {
        if let Some(sent) = self.stream.as_mut().and_then(|stream| stream.write(bytes).ok()) {
            self.sent.extend_from_slice(&bytes[..sent]);
        }
    }

    /// Takes in what has arrived.
    pub fn pump(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(stream) = &mut self.stream
            && !self.has_seen_end
        {
            match stream.read(&mut buffer) {
                Ok(0) => self.has_seen_end = true,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => (self.has_seen_end, self.was_reset) = (true, true),
            }
        }
    }

    pub fn finish_sending(&mut self) {
        self.has_finished = true;
        if let Some(stream) = &self.stream {
            let _ = stream.shutdown(Shutdown::Write); // an error: it has ended already
        }
    }

    pub fn close(&mut self) {
        self.has_finished = true;
        self.was_cut |= !self.has_seen_end;
        self.stream = None;
    }

    pub fn reset(&mut self) {
        if let Some(stream) = &self.stream {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        self.close();
    }

    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// The well-formed ones among the lines that the peer has said.
    pub fn messages_sent(&self) -> Vec<Message> {
        let mut reader = JavaReader::new(&self.sent);
        let lines = std::iter::from_fn(|| reader.line(self.sent.len(), self.has_finished));
        lines.filter_map(|line| Message::parse(&String::from_utf8_lossy(line)).ok()).collect()
    }

    /// What has been said to the peer in whole lines. What a server says is well-formed, or this panics.
    pub fn messages_received(&self) -> Vec<Message> {
        let mut lines: Vec<_> = self.received.split(|byte| *byte == b'\n').collect();
        lines.pop(); // what follows the last ending
        lines.into_iter().map(well_formed).collect()
    }

    /// Each of them once, in order.
    pub fn next_message(&mut self) -> Option<Message> {
        let message = self.messages_received().into_iter().nth(self.taken)?;
        self.taken += 1;
        Some(message)
    }
}

fn well_formed(line: &[u8]) -> Message {
    let text = std::str::from_utf8(line).expect("servers speak UTF-8");
    Message::parse(text).unwrap_or_else(|error| panic!("said by a server: {text:?}: {error}"))
}

/// Looks again and again until it is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    assert!(comes_true(PATIENCE, &mut is_so), "not within {PATIENCE:?}: {what}");
}

/// For the sign `<`.
pub fn within_a_moment(mut is_so: impl FnMut() -> bool) {
    comes_true(MOMENT, &mut is_so);
}

/// False if it is not so in time.
pub fn comes_true(patience: Duration, is_so: &mut dyn FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !is_so() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(REST);
    }
    true
}

/// Drops a server's handle, which has to end all that it has started, within a bound.
pub fn stop<T: Send + 'static>(handle: T) {
    let (stopped, has_stopped) = channel();
    let stopping = thread::spawn(move || {
        drop(handle);
        stopped.send(()).expect("a thread waits");
    });
    has_stopped.recv_timeout(PATIENCE).expect("a dropped handle returns");
    stopping.join().expect("nothing fails after that");
    // A thread that has been joined may be listed for an instant more.
    eventually("no thread is left", || !has_server_threads());
}

/// Whether any thread runs that bears the name of a server's.
fn has_server_threads() -> bool {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return false }; // not on Linux
    threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok()).any(|name| {
        let name = name.trim_end();
        matches!(name, "accept" | "connection" | "rebalance" | "send") || name.starts_with("dstore-")
    })
}
