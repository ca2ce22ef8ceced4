//! What torture's clients of the official kind do: operations, and what each outcome means for the history.
//!
//! In one way they are more careful than the official client. Their loads wait for the end of the stream. Without that, the
//! first bytes of a longer file, stored under the name since the offer, could pass for the file.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use official::{MOST_OFFERS, NoAnswer, Reached};
use stevedore::protocol::{Address, FileName, Message};

use crate::history::{Content, Outcome};

/// One client.
pub struct Official {
    client: official::Official,
    timeout: Duration,
    /// After an offer to store, no Dstore is sent anything later than this. See [`Self::store`].
    promptness: Duration,
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
        Self { client: official::Official::new(controller, timeout), timeout, promptness }
    }

    /// STORE. (spec 4.2, 6.4)
    ///
    /// A client may send content after the Controller has given up its store. That content can replace what another
    /// client has stored in the meantime, as an acknowledgement carries only a name. So a prompt client stops in time.
    pub fn store(&mut self, name: &FileName, content: &[u8], manner: Manner) -> Outcome {
        let size = content.len() as u64;
        let dstores = match self.client.ask(&Message::Store { name: name.clone(), size }) {
            Ok(Message::StoreTo { dstores }) => dstores,
            other => return Self::refused(other),
        };
        let most = match manner {
            Manner::Honest => dstores.len(),
            Manner::Trap => 0,
            Manner::Quits(most) => most,
        };
        let deadline = Instant::now() + self.promptness;
        let may_have_all = |dstore| {
            let sent =
                self.client.send_copy(dstore, name, size, deadline, |connection| connection.send_content(content));
            match sent.map_err(|not_sent| not_sent.reached) {
                Ok(()) | Err(Reached::Content) => true,
                // An empty file has no content to wait for.
                Err(Reached::Request) => content.is_empty(),
                Err(Reached::Nothing) => false,
            }
        };
        // How many may have all that they need to acknowledge.
        let supplied = dstores.iter().take(most).filter(|dstore| may_have_all(dstore)).count();
        let is_incomplete = supplied < dstores.len();
        if let Manner::Quits(_) = manner {
            self.client.hang_up();
            let reason = format!("left after {supplied} of {} Dstores", dstores.len());
            return if is_incomplete { Outcome::Incomplete { reason } } else { Outcome::Unknown { reason } };
        }
        match self.client.answer() {
            Ok(Message::StoreComplete) if is_incomplete => Outcome::Wrong {
                reason: format!("STORE_COMPLETE although only {supplied} of {} Dstores were sent it", dstores.len()),
            },
            Ok(Message::StoreComplete) => Outcome::Stored,
            Err(error) if is_incomplete => {
                Outcome::Incomplete { reason: format!("{supplied} of {} Dstores supplied; {error}", dstores.len()) }
            }
            other => Self::refused(other),
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
                self.client.hang_up();
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
        match self.client.ask(&request) {
            Ok(Message::LoadFrom { dstore, .. }) if offers.contains(&dstore) => {
                Err(Outcome::Wrong { reason: format!("Dstore {dstore} is offered twice in a load") })
            }
            Ok(Message::LoadFrom { dstore, size }) => {
                offers.push(dstore.clone());
                Ok((dstore, size))
            }
            other => Err(Self::refused(other)),
        }
    }

    fn fetch(&self, dstore: &Address, name: &FileName, size: u64) -> io::Result<Vec<u8>> {
        let mut connection = self.client.request_copy(dstore, name)?;
        let mut bytes = vec![0; usize::try_from(size).expect("it is one of ours, or close")];
        connection.content(size, self.timeout).read_exact(&mut bytes)?;
        connection.wait_for_end(self.timeout)?;
        Ok(bytes)
    }

    /// REMOVE. (spec 4.4)
    pub fn remove(&mut self, name: &FileName) -> Outcome {
        match self.client.ask(&Message::Remove { name: name.clone() }) {
            Ok(Message::RemoveComplete) => Outcome::Removed,
            other => Self::refused(other),
        }
    }

    /// LIST. (spec 4.5)
    pub fn list(&mut self) -> Result<Vec<FileName>, Outcome> {
        match self.client.ask(&Message::List { names: Vec::new() }) {
            Ok(Message::List { names }) => Ok(names),
            other => Err(Self::refused(other)),
        }
    }

    fn refused(answer: Result<Message, NoAnswer>) -> Outcome {
        match answer {
            Ok(Message::FileAlreadyExists) => Outcome::AlreadyExists,
            Ok(Message::FileDoesNotExist { .. }) => Outcome::DoesNotExist,
            Ok(Message::NotEnoughDstores) => Outcome::NotEnoughDstores,
            Ok(Message::LoadFailed) => Outcome::LoadFailed,
            Ok(other) => Outcome::Wrong { reason: format!("the answer {other}") },
            Err(NoAnswer::Malformed(reason)) => Outcome::Wrong { reason },
            Err(error) => Outcome::Unknown { reason: error.to_string() },
        }
    }
}
