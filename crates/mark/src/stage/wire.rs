//! One connection, read and written byte by byte: what a submission sends is judged as it comes. (spec 2.1, 2.2)

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::recorder::{CLOSES, ENDS_SENDING, Recorder};

/// A line longer than this is taken for a flood.
const LINE_LIMIT: usize = 4 << 20;

/// What comes on a connection when one waits for a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A line, without its ending and without trailing spaces, which Java's `split` does not see either. (spec 2.2)
    Line(String),
    /// The end of the stream, or a reset.
    Closed,
    /// Nothing, for as long as was waited.
    Nothing(Duration),
}

impl Heard {
    /// For the report of a failure.
    pub fn text(&self) -> String {
        match self {
            Self::Line(line) => format!("`{line}`"),
            Self::Closed => "the connection was closed".into(),
            Self::Nothing(waited) => format!("nothing, for {:.1} s", waited.as_secs_f64()),
        }
    }
}

/// A connection between a party that `mark` plays and the submission.
pub struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
    after_carriage_return: bool,
    me: String,
    them: String,
    recorder: Recorder,
    /// Another thread holds on to the connection, too.
    has_sender: AtomicBool,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if !self.has_sender.load(Ordering::Relaxed) {
            self.recorder.leaves(&self.me, &self.them);
        }
    }
}

/// The sending half, for another thread.
pub struct Sender {
    stream: TcpStream,
    me: String,
    them: String,
    recorder: Recorder,
}

impl Sender {
    /// Sends a line. That the other side may have gone shows when its answer is awaited.
    pub fn send(&self, line: &str) {
        self.recorder.line(&self.me, &self.them, line);
        let _ = (&self.stream).write_all(format!("{line}\n").as_bytes());
    }

    /// Ends both directions.
    pub fn close(&self) {
        self.recorder.note(&self.me, &self.them, CLOSES);
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Wire {
    /// Connects to a port of this machine.
    pub fn connect(me: &str, them: &str, port: u16, recorder: &Recorder) -> Result<Self, Failure> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).map_err(|error| {
            recorder.note(them, me, &format!("does not accept a connection: {error}"));
            Failure::new(format!("{them} accepts connections on port {port}"), error)
        })?;
        Ok(Self::new(stream, me, them, recorder, true))
    }

    /// Takes over a connection that has been accepted.
    pub fn over(stream: TcpStream, me: &str, them: &str, recorder: &Recorder) -> Self {
        Self::new(stream, me, them, recorder, false)
    }

    fn new(stream: TcpStream, me: &str, them: &str, recorder: &Recorder, has_connected: bool) -> Self {
        let recorder = recorder.of_a_connection();
        let (from, to) = if has_connected { (me, them) } else { (them, me) };
        recorder.connects(from, to);
        let _ = stream.set_nodelay(true);
        // A submission that stops reading must not stop the harness.
        let _ = stream.set_write_timeout(Some(Duration::from_secs(20)));
        Self {
            stream,
            unread: Vec::new(),
            after_carriage_return: false,
            me: me.into(),
            them: them.into(),
            recorder,
            has_sender: AtomicBool::new(false),
        }
    }

    /// A sender for another thread.
    pub fn sender(&self) -> Sender {
        self.has_sender.store(true, Ordering::Relaxed);
        let stream = self.stream.try_clone().expect("a descriptor for a connection in use");
        Sender { stream, me: self.me.clone(), them: self.them.clone(), recorder: self.recorder.clone() }
    }

    /// Sends a line.
    pub fn send(&self, line: &str) {
        self.recorder.line(&self.me, &self.them, line);
        let _ = (&self.stream).write_all(format!("{line}\n").as_bytes());
    }

    /// Sends bytes as they are, shown in the transcript as text.
    pub fn send_raw(&self, bytes: &[u8]) {
        self.recorder.bytes(&self.me, &self.them, bytes);
        let _ = (&self.stream).write_all(bytes);
    }

    /// Sends content; false if the other side does not take it.
    pub fn send_content(&self, bytes: &[u8]) -> bool {
        self.recorder.content(&self.me, &self.them, bytes.len() as u64);
        (&self.stream).write_all(bytes).is_ok()
    }

    /// Sends content, all of which must be taken.
    pub fn send_all(&self, bytes: &[u8]) -> Result<(), Failure> {
        let refused = || Failure::new(format!("{} takes {} bytes", self.them, bytes.len()), "it does not");
        if self.send_content(bytes) { Ok(()) } else { Err(refused()) }
    }

    /// Sends content and closes, as the official client does: some programs read to the end of the stream. (spec 6.4)
    pub fn send_content_and_close(&self, bytes: &[u8]) {
        self.send_content(bytes);
        self.close();
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) {
        self.recorder.note(&self.me, &self.them, ENDS_SENDING);
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends both directions.
    pub fn close(&self) {
        self.recorder.note(&self.me, &self.them, CLOSES);
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// The next line, as Java's `readLine` finds it. (spec 2.1)
    pub fn receive(&mut self, patience: Duration) -> Heard {
        let deadline = Instant::now() + patience;
        let mut searched = 0;
        loop {
            self.skip_line_feed();
            if let Some(end) = self.unread[searched..].iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
                let line: Vec<u8> = self.unread.drain(..=searched + end).collect();
                let (ending, text) = line.split_last().expect("the ending at least");
                self.after_carriage_return = *ending == b'\r';
                return self.heard_line(text);
            }
            searched = self.unread.len();
            if searched > LINE_LIMIT {
                self.recorder.note(&self.them, &self.me, "a line without end");
                self.close();
                return Heard::Closed;
            }
            match self.fill(deadline) {
                Fill::Some => {}
                Fill::End if self.unread.is_empty() => {
                    self.recorder.note(&self.them, &self.me, CLOSES);
                    return Heard::Closed;
                }
                Fill::End => {
                    let text = std::mem::take(&mut self.unread);
                    return self.heard_line(&text);
                }
                Fill::Nothing => return Heard::Nothing(patience),
            }
        }
    }

    /// A line feed after a carriage return belongs to the line before. (spec 2.1)
    fn skip_line_feed(&mut self) {
        if self.after_carriage_return && !self.unread.is_empty() {
            if self.unread[0] == b'\n' {
                self.unread.remove(0);
            }
            self.after_carriage_return = false;
        }
    }

    /// The next line, or the end, which is due. `awaited` is what later checks learn from if nothing comes.
    pub fn receive_due(&mut self, awaited: &str, patience: Duration) -> Heard {
        let (recorder, mut came) = (self.recorder.clone(), Heard::Nothing(patience));
        let sender = self.them.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end();
        recorder.wait_for(&format!("{awaited} from the {sender}"), patience, |most| {
            came = self.receive_reply(most);
            Some(()).filter(|()| !matches!(came, Heard::Nothing(_)))
        });
        came
    }

    /// The next line, or the end. Requests wait while a rebalance goes on, in which a program may wait for its timeout twice, and then for
    /// the next rebalance: the Controller's reply to one is waited for twice as long.
    pub fn receive_reply(&mut self, patience: Duration) -> Heard {
        let start = Instant::now();
        match self.receive(patience) {
            Heard::Nothing(_) if self.them == "controller" && self.recorder.has_rebalanced_since(start) => {
                match self.receive(patience) {
                    Heard::Nothing(_) => Heard::Nothing(2 * patience),
                    heard => heard,
                }
            }
            heard => heard,
        }
    }

    fn heard_line(&self, text: &[u8]) -> Heard {
        let line = String::from_utf8_lossy(text).into_owned();
        self.recorder.line(&self.them, &self.me, &line);
        Heard::Line(line.trim_end_matches(' ').to_owned())
    }

    /// Up to `wanted` bytes of content; fewer if the other side ends, or sends nothing for `patience`.
    pub fn receive_content(&mut self, wanted: usize, patience: Duration) -> Vec<u8> {
        let mut content = Vec::new();
        loop {
            self.skip_line_feed();
            let missing = wanted - content.len();
            let taken = missing.min(self.unread.len());
            content.extend(self.unread.drain(..taken));
            if content.len() == wanted || !matches!(self.fill(Instant::now() + patience), Fill::Some) {
                break;
            }
        }
        self.recorder.content(&self.them, &self.me, content.len() as u64);
        content
    }

    fn fill(&mut self, deadline: Instant) -> Fill {
        let mut buffer = [0; 64 << 10];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Fill::Nothing;
            }
            let _ = self.stream.set_read_timeout(Some(left));
            match self.stream.read(&mut buffer) {
                Ok(0) => return Fill::End,
                Ok(read) => {
                    self.unread.extend_from_slice(&buffer[..read]);
                    return Fill::Some;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Fill::Nothing;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Fill::End,
            }
        }
    }

    /// The next line must begin with these words: as lenient as the official client, for which the first word decides.
    pub fn expect(&mut self, beginning: &str, patience: Duration) -> Result<(), Failure> {
        match self.receive_due(first_word(beginning), patience) {
            Heard::Line(came) if begins(&came, beginning) => Ok(()),
            came => Err(self.wrong(format!("`{beginning}`"), &came)),
        }
    }

    /// The next line must be exactly this.
    pub fn expect_exactly(&mut self, line: &str, patience: Duration) -> Result<(), Failure> {
        match self.receive_due(first_word(line), patience) {
            Heard::Line(came) if came == line => Ok(()),
            came => Err(self.wrong(format!("`{line}`"), &came)),
        }
    }

    /// The connection must end, with nothing said before.
    pub fn expect_end(&mut self, patience: Duration) -> Result<(), Failure> {
        match self.receive_due("the end of a connection", patience) {
            Heard::Closed => Ok(()),
            came => Err(self.wrong("the connection is closed", &came)),
        }
    }

    /// Nothing may come for a while. Silence can be mistaken for a virtue of the slow, never the other way round.
    pub fn expect_silence(&mut self, quiet: Duration, because: &str) -> Result<(), Failure> {
        match self.receive(quiet) {
            Heard::Nothing(_) => Ok(()),
            came => Err(self.wrong(format!("nothing: {because}"), &came)),
        }
    }

    /// A failure over what came last, or has not come, on this connection.
    pub fn wrong(&self, expected: impl ToString, came: &Heard) -> Failure {
        match came {
            Heard::Nothing(_) => {
                self.recorder.missing(&self.them, &self.me, &format!("{}: missing", expected.to_string()))
            }
            _ => self.recorder.mark_wrong(&self.them, &self.me),
        }
        Failure::new(expected, came.text()).marked()
    }
}

fn first_word(line: &str) -> &str {
    words(line).next().unwrap_or_default()
}

/// The words of a line, however many spaces are between them.
pub fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(' ').filter(|word| !word.is_empty())
}

/// Whether a line begins with these words.
pub fn begins(line: &str, beginning: &str) -> bool {
    let mut line = words(line);
    words(beginning).all(|word| line.next() == Some(word))
}

enum Fill {
    Some,
    End,
    Nothing,
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn content_begins_after_the_whole_of_the_line_ending() {
        for (sent, content) in [("ACK\r\n\nab", b"\nab"), ("ACK\r\nabc", b"abc"), ("ACK\n\nab", b"\nab")] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let recorder = Recorder::start(std::sync::Arc::default());
            let mut wire = Wire::over(listener.accept().unwrap().0, "us", "them", &recorder);
            let (line, rest) = sent.split_at(4); // the carriage return's line feed comes later
            peer.write_all(line.as_bytes()).unwrap();
            assert_eq!(wire.receive(Duration::from_secs(10)), Heard::Line("ACK".into()));
            peer.write_all(rest.as_bytes()).unwrap();
            assert_eq!(wire.receive_content(3, Duration::from_secs(10)), content, "{sent:?}");
        }
    }

    #[test]
    fn a_reply_is_waited_for_twice_as_long_in_a_rebalance() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _silent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let recorder = Recorder::start(std::sync::Arc::default());
        let mut wire = Wire::over(listener.accept().unwrap().0, "client", "controller", &recorder);
        let patience = Duration::from_millis(100);
        recorder.line("controller", "dstore 1", "LIST"); // one that is over
        assert_eq!(wire.receive_reply(patience), Heard::Nothing(patience));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    recorder.line("controller", "dstore 1", "LIST");
                    std::thread::yield_now();
                }
            });
            assert_eq!(wire.receive_reply(patience), Heard::Nothing(2 * patience));
            is_over.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_line_begins_with_whole_words() {
        assert!(begins("REMOVE_COMPLETE a", "REMOVE_COMPLETE") && begins("STORE_ACK  a", "STORE_ACK a"));
        for (line, beginning) in [("LISTS", "LIST"), ("STORE_ACK", "STORE_ACK a"), ("STORE_ACK ab", "STORE_ACK a")] {
            assert!(!begins(line, beginning), "{line}");
        }
    }
}
