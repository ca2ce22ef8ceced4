//! The official client's style: its conversation is [`official::Official`]'s, its outcomes are those of our own client.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use official::{MOST_OFFERS, NoAnswer};
use stevedore::client::{Error, Target};
use stevedore::protocol::content::{CopyError, copy};
use stevedore::protocol::{Address, FileName, Message};

use crate::content::{Check, Content};
use crate::style::{Operations, Trouble};

/// A client of the official style.
pub struct Official {
    client: official::Official,
    controller: SocketAddr,
    timeout: Duration,
}

impl Official {
    /// Connects to the Controller at `address`; `timeout` bounds each wait. (spec 2.7)
    pub fn connect(address: SocketAddr, timeout: Duration) -> Result<Self, Error> {
        let mut client = official::Official::new(address, timeout);
        client.connect().map_err(|source| Error::Controller { address, source })?;
        Ok(Self { client, controller: address, timeout })
    }

    fn fetch(&self, dstore: &Address, name: &FileName, size: u64, check: &mut Check) -> Result<(), CopyError> {
        let mut connection = self.client.request_copy(dstore, name).map_err(CopyError::Source)?;
        copy(size, &mut connection.content(size, self.timeout), &mut |bytes| check.write(bytes))
    }

    /// Asks the Controller.
    fn request(&mut self, request: &Message) -> Result<Message, Error> {
        self.client.ask(request).map_err(|reason| self.no_answer(request, reason))
    }

    fn no_answer(&self, request: &Message, reason: NoAnswer) -> Error {
        match reason {
            NoAnswer::Malformed(reply) => Error::Unexpected { reply },
            NoAnswer::Overdue => Error::NoReply { request: request.to_string(), timeout: self.timeout },
            NoAnswer::Failed(source) => Error::Controller { address: self.controller, source },
        }
    }

    fn refused(&mut self, name: &FileName, reply: Message) -> Error {
        match reply {
            Message::NotEnoughDstores => Error::NotEnoughDstores,
            Message::FileAlreadyExists => Error::AlreadyExists(name.clone()),
            Message::FileDoesNotExist { .. } => Error::DoesNotExist(name.clone()),
            reply => {
                self.client.hang_up();
                Error::Unexpected { reply: reply.to_string() }
            }
        }
    }
}

impl Operations for Official {
    fn store(&mut self, name: &str, content: &mut Content) -> Result<(), Trouble> {
        Ok(Self::store(self, name, content)?)
    }

    fn load(&mut self, name: &str, check: &mut Check) -> Result<u64, Trouble> {
        Ok(Self::load(self, name, check)?)
    }

    fn remove(&mut self, name: &str) -> Result<(), Trouble> {
        Ok(Self::remove(self, name)?)
    }

    fn list(&mut self) -> Result<Vec<String>, Trouble> {
        Ok(Self::list(self)?)
    }
}

/// The operations, with what our own client would say went wrong.
impl Official {
    fn store(&mut self, name: &str, content: &mut Content) -> Result<(), Error> {
        let name = FileName::new(name)?;
        let request = Message::Store { name: name.clone(), size: content.size() };
        let dstores = match self.request(&request)? {
            Message::StoreTo { dstores } => dstores,
            reply => return Err(self.refused(&name, reply)),
        };
        for dstore in &dstores {
            // One that fails is skipped; that the store does not complete is for the Controller to notice. (spec 6.4)
            let mut content = content.clone();
            let deadline = Instant::now() + self.timeout;
            let sent = self.client.send_copy(dstore, &name, content.size(), deadline, |connection| {
                Ok(copy(content.size(), &mut content, &mut |bytes| connection.send_content(bytes))?)
            });
            if let Err(error) = sent {
                log::warn!("{name}: {dstore}: {error}");
            }
        }
        match self.client.answer().map_err(|reason| self.no_answer(&request, reason))? {
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
                self.client.hang_up();
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
