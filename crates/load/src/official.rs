//! A client that works as the official one does (spec 6), except that it gives up a connection when a reply is late.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use stevedore::client::{Error, Target};
use stevedore::protocol::connection::DSTORE_LINE_LIMIT;
use stevedore::protocol::content::{CopyError, copy};
use stevedore::protocol::{Address, Connection, FileName, Message};

use crate::content::{Check, Content};
use crate::style::Operations;

/// How many offers of a load the official client accepts. (spec 6.5)
const MOST_OFFERS: usize = 10;

/// One connection to the Controller; a new one to a Dstore for each transfer.
pub struct Official {
    controller: SocketAddr,
    timeout: Duration,
    /// `None` after a failure. The official client would then be off by one reply; our figures must not be. (spec 6.1)
    connection: Option<Connection>,
}

impl Official {
    /// Connects to the Controller at `address`; `timeout` bounds each wait. (spec 2.7)
    pub fn connect(address: SocketAddr, timeout: Duration) -> Result<Self, Error> {
        let mut client = Self { controller: address, timeout, connection: None };
        client.connection()?;
        Ok(client)
    }

    /// Says `STORE` to one Dstore, waits for its `ACK`, and sends the content.
    fn send(&self, dstore: &Address, request: &Message, mut content: Content) -> io::Result<()> {
        let mut connection = self.transfer(dstore, request)?;
        match connection.receive_within(self.timeout)? {
            Some(Ok(Message::Ack)) => {}
            _ => return Err(io::Error::new(ErrorKind::InvalidData, "expected ACK")),
        }
        Ok(copy(content.size(), &mut content, &mut |bytes| connection.send_content(bytes))?)
    }

    fn fetch(&self, dstore: &Address, name: &FileName, size: u64, check: &mut Check) -> Result<(), CopyError> {
        let mut connection =
            self.transfer(dstore, &Message::LoadData { name: name.clone() }).map_err(CopyError::Source)?;
        copy(size, &mut connection.content(size, self.timeout), &mut |bytes| check.write(bytes))
    }

    /// A new connection on which `request` has been said. (spec 2.5)
    fn transfer(&self, dstore: &Address, request: &Message) -> io::Result<Connection> {
        let connection = Connection::connect(dstore.socket(), self.timeout)?;
        connection.send(request)?;
        Ok(connection)
    }

    /// Asks the Controller.
    fn request(&mut self, request: &Message) -> Result<Message, Error> {
        let address = self.controller;
        if let Err(source) = self.connection()?.send(request) {
            self.connection = None;
            return Err(Error::Controller { address, source });
        }
        self.reply(request)
    }

    /// The Controller's next message.
    fn reply(&mut self, request: &Message) -> Result<Message, Error> {
        let (address, timeout) = (self.controller, self.timeout);
        let failure = match self.connection()?.receive_within(timeout) {
            Ok(Some(Ok(message))) => return Ok(message),
            Ok(Some(Err(reason))) => Error::Unexpected { reply: reason.to_string() },
            Ok(None) => Error::Controller { address, source: ErrorKind::UnexpectedEof.into() },
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                Error::NoReply { request: request.to_string(), timeout }
            }
            Err(source) => Error::Controller { address, source },
        };
        self.connection = None;
        Err(failure)
    }

    fn connection(&mut self) -> Result<&mut Connection, Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let mut connection = Connection::connect(self.controller, self.timeout)
                    .map_err(|source| Error::Controller { address: self.controller, source })?;
                connection.limit_lines(DSTORE_LINE_LIMIT); // a LIST may be long
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }

    fn refused(&mut self, name: &FileName, reply: Message) -> Error {
        match reply {
            Message::NotEnoughDstores => Error::NotEnoughDstores,
            Message::FileAlreadyExists => Error::AlreadyExists(name.clone()),
            Message::FileDoesNotExist { .. } => Error::DoesNotExist(name.clone()),
            reply => {
                self.connection = None;
                Error::Unexpected { reply: reply.to_string() }
            }
        }
    }
}

impl Operations for Official {
    fn store(&mut self, name: &str, content: &mut Content) -> Result<(), Error> {
        let name = FileName::new(name)?;
        let request = Message::Store { name: name.clone(), size: content.size() };
        let dstores = match self.request(&request)? {
            Message::StoreTo { dstores } => dstores,
            reply => return Err(self.refused(&name, reply)),
        };
        for dstore in &dstores {
            // One that fails is skipped; that the store does not complete is for the Controller to notice. (spec 6.4)
            if let Err(error) = self.send(dstore, &request, content.clone()) {
                log::warn!("{name}: {dstore}: {error}");
            }
        }
        match self.reply(&request)? {
            Message::StoreComplete => Ok(()),
            reply => Err(self.refused(&name, reply)),
        }
    }

    fn load(&mut self, name: &str, check: &mut Check) -> Result<u64, Error> {
        let name = FileName::new(name)?;
        let mut last_failure = None;
        for offer in 0..MOST_OFFERS {
            let request = match offer {
                0 => Message::Load { name: name.clone() },
                _ => Message::Reload { name: name.clone() },
            };
            let (dstore, size) = match self.request(&request)? {
                Message::LoadFrom { dstore, size } => (dstore, size),
                Message::LoadFailed => break,
                reply => return Err(self.refused(&name, reply)),
            };
            check.restart()?;
            match self.fetch(&dstore, &name, size, check) {
                Ok(()) => return Ok(size),
                Err(error) => last_failure = Some((dstore, error.into())),
            }
        }
        Err(Error::LoadFailed { name, last_failure })
    }

    fn remove(&mut self, name: &str) -> Result<(), Error> {
        let name = FileName::new(name)?;
        match self.request(&Message::Remove { name: name.clone() })? {
            Message::RemoveComplete => Ok(()),
            reply => Err(self.refused(&name, reply)),
        }
    }

    fn list(&mut self) -> Result<Vec<String>, Error> {
        match self.request(&Message::List { names: Vec::new() })? {
            Message::List { names } => Ok(names.into_iter().map(|name| name.to_string()).collect()),
            Message::NotEnoughDstores => Err(Error::NotEnoughDstores),
            reply => {
                self.connection = None;
                Err(Error::Unexpected { reply: reply.to_string() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread::{self, JoinHandle};

    use socket2::{Domain, Socket, Type};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    /// One connection: what the client has to say, and the answer to it, in turns; after that it has to close.
    type Script = Vec<(Vec<u8>, Vec<u8>)>;

    fn text(turns: &[(&str, &str)]) -> Script {
        turns.iter().map(|(said, answer)| (said.as_bytes().to_vec(), answer.as_bytes().to_vec())).collect()
    }

    /// Plays a script; fails when joined if the client does not keep to it.
    fn peer(listener: TcpListener, script: Script) -> JoinHandle<()> {
        thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            for (expected, answer) in script {
                let mut said = vec![0; expected.len()];
                stream.read_exact(&mut said).unwrap();
                assert_eq!(said, expected, "{}", String::from_utf8_lossy(&said));
                stream.write_all(&answer).unwrap();
            }
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the client closes");
        })
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address at which no program listens, and none can as long as the returned socket lives.
    fn dead() -> (Socket, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, address)
    }

    fn content(size: u64) -> (Content, Vec<u8>) {
        let content = Content::new(5, size);
        let mut bytes = Vec::new();
        content.clone().read_to_end(&mut bytes).unwrap();
        (content, bytes)
    }

    /// spec 6.4
    #[test]
    fn a_store_skips_a_dstore_that_fails_and_goes_on_with_the_next() {
        let (mut content, bytes) = content(1000);
        let ((dstore, alive), (_dead, dead)) = (listener(), dead());
        let (controller, address) = listener();
        let offer = format!("STORE_TO {} {}\n", dead.port(), alive.port());
        let mut script = text(&[("STORE a 1000\n", &offer)]);
        let mut dstore_script = text(&[("STORE a 1000\n", "ACK\n")]);
        dstore_script.push((bytes, Vec::new()));
        let dstore = peer(dstore, dstore_script);
        script.extend(text(&[("REMOVE a\n", "REMOVE_COMPLETE\n")]));
        // What a Controller says only once all Dstores have acknowledged.
        script[0].1.extend(b"STORE_COMPLETE\n");
        let controller = peer(controller, script);
        let mut client = Official::connect(address, TIMEOUT).unwrap();
        client.store("a", &mut content).unwrap();
        dstore.join().unwrap();
        client.remove("a").unwrap();
        drop(client);
        controller.join().unwrap();
    }

    /// spec 4.3, 6.5
    #[test]
    fn a_load_asks_again_until_a_dstore_delivers() {
        let (content, bytes) = content(1000);
        let ((cut, short), (dstore, alive), (_dead, dead)) = (listener(), listener(), dead());
        let (controller, address) = listener();
        let offer = |dstore: SocketAddr| format!("LOAD_FROM {} 1000\n", dstore.port());
        let turns = [("LOAD a\n", offer(dead)), ("RELOAD a\n", offer(short)), ("RELOAD a\n", offer(alive))];
        let turns = turns.each_ref().map(|(said, answer)| (*said, answer.as_str()));
        let controller = peer(controller, text(&turns));
        let cut = thread::spawn(move || {
            let mut stream = cut.accept().unwrap().0;
            stream.read_exact(&mut [0; "LOAD_DATA a\n".len()]).unwrap();
            stream.write_all(b"garbage").unwrap();
        });
        let dstore = peer(dstore, vec![(b"LOAD_DATA a\n".to_vec(), bytes)]);
        let mut client = Official::connect(address, TIMEOUT).unwrap();
        let mut check = Check::against(Some(content));
        assert_eq!(client.load("a", &mut check).unwrap(), 1000);
        assert!(check.is_passed(), "the garbage of the one that failed is forgotten");
        drop(client);
        [controller, cut, dstore].into_iter().for_each(|peer| peer.join().unwrap());
    }

    /// spec 6.5
    #[test]
    fn a_load_gives_up_after_ten_offers() {
        let (_dead, dead) = dead();
        let (controller, address) = listener();
        let offer = format!("LOAD_FROM {} 1\n", dead.port());
        let mut turns = vec![("RELOAD a\n", offer.as_str()); MOST_OFFERS];
        turns[0].0 = "LOAD a\n";
        let controller = peer(controller, text(&turns));
        let mut client = Official::connect(address, TIMEOUT).unwrap();
        let outcome = client.load("a", &mut Check::against(None));
        assert!(matches!(outcome, Err(Error::LoadFailed { last_failure: Some(_), .. })), "{outcome:?}");
        drop(client);
        controller.join().unwrap();
    }
}
