//! A connection over TCP. The input is what the peer sends before it closes; a byte 0 in it is not sent but ends a
//! segment, a byte 1 likewise, and then the receiver also waits in vain for more.
//!
//! - However the stream is cut, the messages are those that Java's `readLine` would read. (spec 2.1, 2.2)
//! - Each line is there as soon as its ending is, without waiting for what follows a `\r`. (spec 2.1)
//! - After a STORE or REBALANCE_STORE, content of the announced size follows: the very bytes. (spec 2.3)
//! - A wait in vain loses nothing, and at the end of the stream content that is cut short fails. (spec 2.7, 7.11)
//! - A line over the limit fails, whatever its cuts; one that just fits does not.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use socket2::SockRef;
use stevedore::protocol::{Connection, Message};

use crate::java::JavaReader;

/// The longest line taken.
const LINE_LIMIT: usize = 100;

/// For what has arrived: waited for only by what fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// For what does not come.
const IN_VAIN: Duration = Duration::from_millis(1);

/// Only so many, for the sake of speed: the kernel rounds a wait up to several milliseconds.
const MOST_WAITS_IN_VAIN: usize = 1;

/// Checks one stream.
pub fn check(input: &[u8]) {
    let stream: Vec<u8> = input.iter().copied().filter(|byte| *byte > 1).collect();
    let (receiver, mut sender) = pair();
    let mut session = Session { connection: receiver, model: JavaReader::new(&stream), owed: 0 };
    session.connection.limit_lines(LINE_LIMIT);
    let (mut sent, mut waits) = (0, 0);
    for segment in input.split_inclusive(|byte| *byte <= 1) {
        let (bytes, mark) = match segment.split_last() {
            Some((mark, bytes)) if *mark <= 1 => (bytes, *mark),
            _ => (segment, 0),
        };
        sender.write_all(bytes).expect("little enough for the kernel to keep");
        sent += bytes.len();
        let mut goes_on = session.receive_all(sent, false);
        if goes_on && mark == 1 && waits < MOST_WAITS_IN_VAIN {
            waits += 1;
            goes_on = session.wait_in_vain(sent);
        }
        if !goes_on {
            return;
        }
    }
    sender.shutdown(Shutdown::Write).expect("connected");
    if session.receive_all(sent, true) {
        session.connection.wait_for_end(PATIENCE).expect("nothing but the end is left");
    }
    // Reset, so that thousands of these a second do not use up the ports.
    let _ = SockRef::from(&sender).set_linger(Some(Duration::ZERO));
}

fn pair() -> (Connection, TcpStream) {
    static LISTENER: OnceLock<TcpListener> = OnceLock::new();
    let listener = LISTENER.get_or_init(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    let receiver = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let receiver_address = receiver.local_addr().expect("connected");
    let (sender, peer) = listener.accept().expect("one connects");
    assert_eq!(peer, receiver_address, "one thread at a time");
    sender.set_nodelay(true).expect("a TCP socket");
    (Connection::new(Arc::new(receiver)).expect("connected"), sender)
}

struct Session<'a> {
    connection: Connection,
    model: JavaReader<'a>,
    /// How much content is still to come.
    owed: u64,
}

impl Session<'_> {
    /// Receives what must be there; false if that ends the connection.
    fn receive_all(&mut self, arrived: usize, has_ended: bool) -> bool {
        loop {
            if self.owed > 0 {
                let expected = self.model.content(self.owed, arrived);
                let mut received = vec![0; expected.len()];
                let mut content = self.connection.content(self.owed, PATIENCE);
                content.read_exact(&mut received).expect("content that has arrived");
                assert_eq!(received, expected);
                self.owed -= received.len() as u64;
                if self.owed == 0 {
                    continue;
                }
                if has_ended {
                    let cut_short = self.connection.content(self.owed, PATIENCE).read(&mut [0]);
                    assert_eq!(cut_short.expect_err("too little content").kind(), ErrorKind::UnexpectedEof);
                }
                return !has_ended;
            }
            let Some(expected) = self.model.line(arrived, has_ended) else {
                if has_ended {
                    assert_eq!(self.connection.receive_within(PATIENCE).expect("the end"), None);
                }
                return true;
            };
            let received = self.connection.receive_within(PATIENCE);
            if expected.len() > LINE_LIMIT {
                assert_eq!(received.expect_err("a line too long").kind(), ErrorKind::InvalidData);
                return false;
            }
            let expected = Message::parse(&String::from_utf8_lossy(expected));
            if let Ok(Message::Store { size, .. } | Message::RebalanceStore { size, .. }) = &expected {
                self.owed = *size;
            }
            assert_eq!(received.expect("a line that has arrived"), Some(expected));
        }
    }

    /// Waits for a line or content of which a part may have arrived; false if that part is too long already.
    fn wait_in_vain(&mut self, arrived: usize) -> bool {
        if self.owed > 0 {
            let nothing = self.connection.content(self.owed, IN_VAIN).read(&mut [0]);
            assert_eq!(nothing.expect_err("no content").kind(), ErrorKind::TimedOut);
            return true;
        }
        let is_too_long = self.model.rest(arrived).len() > LINE_LIMIT;
        let (expected, timeout) =
            if is_too_long { (ErrorKind::InvalidData, PATIENCE) } else { (ErrorKind::TimedOut, IN_VAIN) };
        assert_eq!(self.connection.receive_within(timeout).expect_err("no whole line").kind(), expected);
        !is_too_long
    }
}
