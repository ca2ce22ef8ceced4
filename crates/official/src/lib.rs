//! A client that works as the official one does (spec 6): one connection to the Controller, a new connection to a Dstore for
//! each transfer, and one Dstore of a store after another.
//!
//! This is the conversation alone. What follows from an answer is for the tool that uses it: `load` measures, `torture`
//! keeps a history of what every client has seen.
//!
//! It is more careful than the official client in one way. It gives up a connection to the Controller when an answer is
//! overdue or makes no sense. The official client keeps it and takes each later answer for the one to its next request
//! (spec 6.1); a tool would report that as the servers' mistake.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stevedore::protocol::connection::DSTORE_LINE_LIMIT;
use stevedore::protocol::{Address, Connection, FileName, Message};

/// How many offers of a load the official client accepts. (spec 6.5)
pub const MOST_OFFERS: usize = 10;

/// One client.
pub struct Official {
    controller: SocketAddr,
    timeout: Duration,
    /// `None` until it is needed, and after a failure.
    connection: Option<Connection>,
}

/// Why a request has no answer. The connection is given up.
#[derive(Debug)]
pub enum NoAnswer {
    /// The Controller said something that is no message.
    Malformed(String),
    /// Nothing came within the timeout.
    Overdue,
    /// The Controller could not be reached, or the connection broke.
    Failed(io::Error),
}

/// Why a copy was not sent.
#[derive(Debug)]
pub struct NotSent {
    /// What the Dstore may have got nevertheless.
    pub reached: Reached,
    /// What failed.
    pub error: io::Error,
}

/// How far the sending of a copy went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The Dstore knows nothing of it.
    Nothing,
    /// The Dstore may have got the request.
    Request,
    /// The Dstore may have got all of the content.
    Content,
}

impl Official {
    /// A client of the Controller at `address`, which connects when it has a request. `timeout` bounds each wait. (spec 2.7)
    pub fn new(controller: SocketAddr, timeout: Duration) -> Self {
        Self { controller, timeout, connection: None }
    }

    /// Connects to the Controller unless there is a connection.
    pub fn connect(&mut self) -> io::Result<()> {
        if self.connection.is_none() {
            let mut connection = Connection::connect(self.controller, self.timeout)?;
            connection.limit_lines(DSTORE_LINE_LIMIT); // a LIST may be long
            self.connection = Some(connection);
        }
        Ok(())
    }

    /// Closes the connection to the Controller. The next request makes a new one.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }

    /// Sends a request to the Controller, and returns its answer.
    pub fn ask(&mut self, request: &Message) -> Result<Message, NoAnswer> {
        self.connect().map_err(NoAnswer::Failed)?;
        let sent = self.connection.as_ref().expect("just made").send(request);
        if let Err(error) = sent {
            self.hang_up();
            return Err(NoAnswer::Failed(error));
        }
        self.answer()
    }

    /// The Controller's next message: after STORE_TO, the outcome. Fails if the connection has been given up.
    pub fn answer(&mut self) -> Result<Message, NoAnswer> {
        let Some(connection) = &mut self.connection else {
            return Err(NoAnswer::Failed(ErrorKind::NotConnected.into()));
        };
        let failure = match connection.receive_within(self.timeout) {
            Ok(Some(Ok(message))) => return Ok(message),
            Ok(Some(Err(error))) => NoAnswer::Malformed(error.to_string()),
            Ok(None) => NoAnswer::Failed(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == ErrorKind::InvalidData => NoAnswer::Malformed(error.to_string()),
            Err(error) if error.kind() == ErrorKind::TimedOut => NoAnswer::Overdue,
            Err(error) => NoAnswer::Failed(error),
        };
        self.hang_up();
        Err(failure)
    }

    /// Sends one Dstore a copy: STORE, its ACK, the content, which `content` writes to the connection. Begins none of these
    /// after `deadline`, and waits for no ACK beyond it. (spec 4.2, 6.4)
    pub fn send_copy(
        &self,
        dstore: &Address,
        name: &FileName,
        size: u64,
        deadline: Instant,
        content: impl FnOnce(&Connection) -> io::Result<()>,
    ) -> Result<(), NotSent> {
        let not_sent = |reached| move |error| NotSent { reached, error };
        let left = || {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() { Err(io::Error::from(ErrorKind::TimedOut)) } else { Ok(left) }
        };
        let patience = left().map_err(not_sent(Reached::Nothing))?;
        let mut connection = Connection::connect(dstore.socket(), patience).map_err(not_sent(Reached::Nothing))?;
        connection.outgoing().limit_stalls(self.timeout).map_err(not_sent(Reached::Nothing))?;
        let request = Message::Store { name: name.clone(), size };
        connection.send(&request).map_err(not_sent(Reached::Request))?;
        let patience = left().map_err(not_sent(Reached::Request))?;
        let acknowledged = match connection.receive_within(patience) {
            Ok(Some(Ok(Message::Ack))) => left().map(drop),
            Ok(_) => Err(io::Error::new(ErrorKind::InvalidData, "expected ACK")),
            Err(error) => Err(error),
        };
        acknowledged.map_err(not_sent(Reached::Request))?;
        content(&connection).map_err(not_sent(Reached::Content))
    }

    /// Asks one Dstore for its copy. The content comes on the returned connection. (spec 4.3)
    pub fn request_copy(&self, dstore: &Address, name: &FileName) -> io::Result<Connection> {
        let connection = Connection::connect(dstore.socket(), self.timeout)?;
        connection.send(&Message::LoadData { name: name.clone() })?;
        Ok(connection)
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => f.write_str(error),
            Self::Overdue => f.write_str("no answer in time"),
            Self::Failed(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for NoAnswer {}

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)
    }
}

impl std::error::Error for NotSent {}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::thread;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A peer that plays its part once, for one connection.
    fn peer(part: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || part(listener.accept().unwrap().0));
        address
    }

    fn hear(stream: &mut TcpStream, line: &str) {
        let mut heard = vec![0; line.len()];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, line.as_bytes());
    }

    /// How far a copy of one byte gets at a Dstore.
    fn reached(dstore: SocketAddr, deadline: Instant, content: io::Result<()>) -> Option<Reached> {
        let client = Official::new(dstore, PATIENCE);
        let dstore = Address::local(dstore.port()).unwrap();
        client.send_copy(&dstore, &"f".parse().unwrap(), 1, deadline, |_| content).err().map(|failure| failure.reached)
    }

    /// spec 6.4
    #[test]
    fn a_copy_that_is_not_sent_says_how_far_it_got() {
        let later = Instant::now() + PATIENCE;
        let acknowledges = || {
            peer(|mut stream| {
                hear(&mut stream, "STORE f 1\n");
                stream.write_all(b"ACK\n").unwrap();
            })
        };
        assert_eq!(reached(acknowledges(), later, Ok(())), None);
        assert_eq!(reached(acknowledges(), later, Err(ErrorKind::BrokenPipe.into())), Some(Reached::Content));
        let refuses = peer(|mut stream| hear(&mut stream, "STORE f 1\n"));
        assert_eq!(reached(refuses, later, Ok(())), Some(Reached::Request));
        let is_late = peer(|_| unreachable!("nothing is sent after the deadline"));
        assert_eq!(reached(is_late, Instant::now(), Ok(())), Some(Reached::Nothing));
    }

    /// spec 6.1
    #[test]
    fn an_overdue_answer_is_not_taken_for_the_next_ones() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = Official::new(listener.local_addr().unwrap(), Duration::from_millis(50));
        let list = Message::List { names: Vec::new() };
        assert!(matches!(client.ask(&list), Err(NoAnswer::Overdue)));
        assert!(matches!(client.answer(), Err(NoAnswer::Failed(error)) if error.kind() == ErrorKind::NotConnected));
        assert!(matches!(client.ask(&list), Err(NoAnswer::Overdue)));
        // Each request has made a connection of its own.
        listener.set_nonblocking(true).unwrap();
        for _ in 0..2 {
            hear(&mut listener.accept().unwrap().0, "LIST\n");
        }
    }
}
