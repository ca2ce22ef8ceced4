//! A client that behaves as the official one does: it makes a new connection for each transfer, goes to the Dstores one
//! after another, and skips those that fail without a word. (spec 6.4 to 6.6)
//!
//! In two ways it is more careful. Otherwise it would see wrong bytes for which the protocol alone is to blame. It
//! gives up a Controller connection on which an answer may still come (spec 6.1). And its loads wait for the end of the
//! stream: without that, the first bytes of a longer file, stored under the name since the offer, could pass for the
//! file.

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stevedore::protocol::{Address, Connection, FileName, Message};

use crate::history::{Content, Outcome};

/// After so many offers it gives up. (spec 6.5)
const MOST_OFFERS: usize = 10;

/// One client.
pub struct Official {
    controller: SocketAddr,
    timeout: Duration,
    /// After an offer to store, no Dstore is sent anything later than this. See [`Self::store`].
    promptness: Duration,
    connection: Option<Connection>,
}

/// What it does with an offer to store or to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It does what it should.
    Honest,
    /// It contacts no Dstore. (spec 6.6)
    Trap,
    /// It stops after so many Dstores.
    Quits(usize),
}

impl Official {
    /// Does not connect yet.
    pub fn new(controller: SocketAddr, timeout: Duration, promptness: Duration) -> Self {
        Self { controller, timeout, promptness, connection: None }
    }

    /// STORE. (spec 4.2, 6.4)
    ///
    /// A client may send content after the Controller has given up its store. That content can replace what another
    /// client has stored in the meantime, as an acknowledgement carries only a name. So a prompt client stops in time.
    pub fn store(&mut self, name: &FileName, content: &[u8], manner: Manner) -> Outcome {
        let size = content.len() as u64;
        let dstores = match self.ask(&Message::Store { name: name.clone(), size }) {
            Ok(Message::StoreTo { dstores }) => dstores,
            other => return self.refused(other),
        };
        let most = match manner {
            Manner::Honest => dstores.len(),
            Manner::Trap => 0,
            Manner::Quits(most) => most,
        };
        let deadline = Instant::now() + self.promptness;
        // How many may have all that they need to acknowledge.
        let mut supplied = 0;
        for dstore in dstores.iter().take(most) {
            supplied +=
                usize::from(self.send(dstore, name, content, deadline).unwrap_or_else(|may_have_all| may_have_all));
        }
        let is_doomed = supplied < dstores.len();
        if let Manner::Quits(_) = manner {
            self.connection = None;
            let reason = format!("left after {supplied} of {} Dstores", dstores.len());
            return if is_doomed { Outcome::Doomed { reason } } else { Outcome::Unknown { reason } };
        }
        match self.answer() {
            Ok(Message::StoreComplete) if is_doomed => Outcome::Wrong {
                reason: format!("STORE_COMPLETE although only {supplied} of {} Dstores were sent it", dstores.len()),
            },
            Ok(Message::StoreComplete) => Outcome::Stored,
            Err(error) if is_doomed => {
                Outcome::Doomed { reason: format!("{supplied} of {} Dstores supplied; {error}", dstores.len()) }
            }
            other => self.refused(other),
        }
    }

    /// One copy. Fails with whether the Dstore may have all of it nevertheless.
    fn send(&self, dstore: &Address, name: &FileName, content: &[u8], deadline: Instant) -> Result<bool, bool> {
        let is_empty = content.is_empty();
        let left = || Some(deadline.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
        let patience = left().ok_or(false)?;
        let mut connection = Connection::connect(dstore.socket(), patience).map_err(|_| false)?;
        connection.outgoing().limit_stalls(self.timeout).map_err(|_| false)?;
        let store = Message::Store { name: name.clone(), size: content.len() as u64 };
        connection.send(&store).map_err(|_| is_empty)?;
        match connection.receive_within(left().ok_or(is_empty)?) {
            Ok(Some(Ok(Message::Ack))) if left().is_some() => {
                connection.send_content(content).map(|()| true).map_err(|_| true)
            }
            _ => Err(is_empty),
        }
    }

    /// LOAD, then RELOADs; `see` is told of each offer as soon as it has come. (spec 4.3, 6.5)
    pub fn load(&mut self, name: &FileName, manner: Manner, mut see: impl FnMut(&Address)) -> Outcome {
        let mut offers = Vec::new();
        loop {
            let (dstore, size) = match self.offer(name, &mut offers) {
                Ok(offer) => offer,
                Err(outcome) => return outcome,
            };
            see(&dstore);
            if offers.len() > MOST_OFFERS {
                self.connection = None;
                return Outcome::Unknown { reason: format!("gives up after {MOST_OFFERS} offers") };
            }
            if manner == Manner::Honest
                && let Ok(bytes) = self.fetch(&dstore, name, size)
            {
                return Outcome::Loaded(Content::of(&bytes));
            }
        }
    }

    /// Loads from every holder that the Controller offers: what each of them delivers, until there are no more.
    pub fn load_from_all(&mut self, name: &FileName) -> (Vec<io::Result<Content>>, Outcome) {
        let (mut offers, mut loaded) = (Vec::new(), Vec::new());
        loop {
            match self.offer(name, &mut offers) {
                Ok((dstore, size)) => {
                    loaded.push(self.fetch(&dstore, name, size).map(|bytes| Content::of(&bytes)));
                }
                Err(outcome) => return (loaded, outcome),
            }
        }
    }

    fn offer(&mut self, name: &FileName, offers: &mut Vec<Address>) -> Result<(Address, u64), Outcome> {
        let name = name.clone();
        let request = if offers.is_empty() { Message::Load { name } } else { Message::Reload { name } };
        match self.ask(&request) {
            Ok(Message::LoadFrom { dstore, .. }) if offers.contains(&dstore) => {
                Err(Outcome::Wrong { reason: format!("Dstore {dstore} is offered twice in a load") })
            }
            Ok(Message::LoadFrom { dstore, size }) => {
                offers.push(dstore.clone());
                Ok((dstore, size))
            }
            other => Err(self.refused(other)),
        }
    }

    fn fetch(&self, dstore: &Address, name: &FileName, size: u64) -> io::Result<Vec<u8>> {
        let mut connection = Connection::connect(dstore.socket(), self.timeout)?;
        connection.send(&Message::LoadData { name: name.clone() })?;
        let mut bytes = vec![0; usize::try_from(size).expect("it is one of ours, or close")];
        connection.content(size, self.timeout).read_exact(&mut bytes)?;
        connection.wait_for_end(self.timeout)?;
        Ok(bytes)
    }

    /// REMOVE. (spec 4.4)
    pub fn remove(&mut self, name: &FileName) -> Outcome {
        match self.ask(&Message::Remove { name: name.clone() }) {
            Ok(Message::RemoveComplete) => Outcome::Removed,
            other => self.refused(other),
        }
    }

    /// LIST. (spec 4.5)
    pub fn list(&mut self) -> Result<Vec<FileName>, Outcome> {
        match self.ask(&Message::List { names: Vec::new() }) {
            Ok(Message::List { names }) => Ok(names),
            other => Err(self.refused(other)),
        }
    }

    fn ask(&mut self, request: &Message) -> io::Result<Message> {
        if self.connection.is_none() {
            self.connection = Some(Connection::connect(self.controller, self.timeout)?);
        }
        let sent = self.connection.as_ref().expect("just made").send(request);
        if let Err(error) = sent {
            self.connection = None;
            return Err(error);
        }
        self.answer()
    }

    fn answer(&mut self) -> io::Result<Message> {
        let connection = self.connection.as_mut().expect("it has asked");
        let answer = match connection.receive_within(self.timeout) {
            Ok(Some(Ok(message))) => return Ok(message),
            Ok(Some(Err(error))) => Err(io::Error::new(ErrorKind::InvalidData, error.to_string())),
            Ok(None) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(error),
        };
        self.connection = None;
        answer
    }

    fn refused(&mut self, answer: io::Result<Message>) -> Outcome {
        match answer {
            Ok(Message::FileAlreadyExists) => Outcome::AlreadyExists,
            Ok(Message::FileDoesNotExist { .. }) => Outcome::DoesNotExist,
            Ok(Message::NotEnoughDstores) => Outcome::NotEnoughDstores,
            Ok(Message::LoadFailed) => Outcome::LoadFailed,
            Ok(other) => Outcome::Wrong { reason: format!("the answer {other}") },
            Err(error) if error.kind() == ErrorKind::InvalidData => Outcome::Wrong { reason: error.to_string() },
            Err(error) => Outcome::Unknown { reason: error.to_string() },
        }
    }
}
