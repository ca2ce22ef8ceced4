//! The client library: one blocking API for everything that uses the store. (spec 1.3, 4)
//!
//! Works with any Controller and Dstores that speak the protocol. On the same wire it is faster than the official
//! client: it sends content to the R Dstores at the same time, and uses connections to Dstores that know KEEP_ALIVE
//! again (spec 8.2).
//!
//! ```
//! # use std::time::Duration;
//! # use stevedore::{client::Client, controller, dstore};
//! # let folder = std::env::temp_dir().join(format!("stevedore-doc-{}", std::process::id()));
//! let controller = controller::start(controller::Config::new(1))?;
//! let port = controller.address()?.port();
//! let _dstore = dstore::start(dstore::Config::new(port, &folder))?;
//! controller.wait_until(Duration::from_secs(5), |status| status.members.len() == 1).expect("the Dstore joins");
//!
//! let mut client = Client::connect(([127, 0, 0, 1], port).into(), Duration::from_secs(5))?;
//! client.store_bytes("greeting.txt", b"hello")?;
//! assert_eq!(client.load_bytes("greeting.txt")?, b"hello");
//! assert_eq!(client.list()?.len(), 1);
//! client.remove("greeting.txt")?;
//! # std::fs::remove_dir_all(folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod dstores;
mod error;
mod target;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::protocol::connection::{CLIENT_LINE_LIMIT, DSTORE_LINE_LIMIT};
use crate::protocol::content::{CopyError, copy};
use crate::protocol::message::MAX_SIZE;
use crate::protocol::{Address, Connection, FileName, Message};

use dstores::{Dstores, Link};
pub use error::Error;
use target::Once;
pub use target::{NewFile, Target};

/// How many holders a load tries before it takes the Controller for confused.
const MOST_OFFERS: usize = 1000;

/// Content of up to so many bytes is sent without waiting for an ACK where that is understood. (spec 8.3)
const MOST_AHEAD: u64 = 64 << 10;

/// Within this the Controller usually says that a small store is complete. After it, the Dstores are asked what is wrong.
const USUAL_PATIENCE: Duration = Duration::from_millis(100);

/// To how many Dstores a store sends before it takes the Controller for confused.
const MOST_REPLICAS: usize = 1000;

/// A client of the store: one connection to the Controller, any number of operations one after another.
///
/// After an error the client can be used again. Where an answer may still be under way, the client begins with a new
/// connection, so that it never takes a late reply for the answer to another request. (spec 6.1)
pub struct Client {
    controller: SocketAddr,
    timeout: Duration,
    store_limit: Duration,
    /// `None` after a failure.
    connection: Option<Connection>,
    dstores: Dstores,
}

impl Client {
    /// Connects to a Controller. `timeout` bounds the wait for each reply, from it and from Dstores (spec 2.7), and
    /// with it a [whole store](Self::limit_stores).
    pub fn connect(controller: SocketAddr, timeout: Duration) -> Result<Self, Error> {
        let dstores = Dstores::new(timeout);
        let mut client = Self { controller, timeout, store_limit: timeout, connection: None, dstores };
        client.connection()?;
        Ok(client)
    }

    /// Whether to use connections to Dstores again, as it does unless told otherwise. (spec 8.2)
    pub fn keep_connections(&mut self, keep: bool) {
        self.dstores.keep_connections(keep);
    }

    /// Tells the client how long the Controller gives a whole store, from STORE_TO to the last acknowledgement: the
    /// Controller's timeout. It is taken to be the client's own unless told otherwise.
    pub fn limit_stores(&mut self, limit: Duration) {
        self.store_limit = limit;
    }

    /// Stores `size` bytes of `content` as a new file. (spec 4.2)
    ///
    /// Fails without storing anything if `content` ends early, or cannot be sent within the
    /// [limit](Self::limit_stores). A longer one is cut at `size`.
    pub fn store(&mut self, name: &str, size: u64, content: &mut impl Read) -> Result<(), Error> {
        let name = FileName::new(name)?;
        if size > MAX_SIZE {
            return Err(Error::TooLarge { size });
        }
        let mut small = Vec::new();
        if size <= MOST_AHEAD {
            small.resize(size as usize, 0);
            content.read_exact(&mut small)?;
        }
        let request = Message::Store { name: name.clone(), size };
        let dstores = match self.request(&request)? {
            Message::StoreTo { dstores } if dstores.len() <= MOST_REPLICAS => dstores,
            reply => return Err(self.refused(&name, reply)),
        };
        let reply = if size <= MOST_AHEAD {
            self.store_small(&name, &small, &dstores)
        } else {
            self.send_to_all(&name, size, &dstores, content).and_then(|()| self.reply(&request))
        };
        match reply {
            Ok(Message::StoreComplete) => Ok(()),
            Ok(reply) => Err(self.refused(&name, reply)),
            Err(error) => {
                // Without all R acknowledgements the Controller will not answer.
                self.connection = None;
                Err(error)
            }
        }
    }

    /// Stores a file of the file system under `name`.
    pub fn store_file(&mut self, name: &str, path: &Path) -> Result<(), Error> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        self.store(name, size, &mut file)
    }

    /// Stores what is in memory.
    pub fn store_bytes(&mut self, name: &str, mut content: &[u8]) -> Result<(), Error> {
        self.store(name, content.len() as u64, &mut content)
    }

    /// Loads a file into `target`, from one holder after another until one delivers all of it; returns its size.
    /// (spec 4.3)
    pub fn load(&mut self, name: &str, target: &mut impl Target) -> Result<u64, Error> {
        let name = FileName::new(name)?;
        let mut request = Message::Load { name: name.clone() };
        let mut last_failure = None;
        for _ in 0..MOST_OFFERS {
            let (dstore, size) = match self.request(&request)? {
                Message::LoadFrom { dstore, size } => (dstore, size),
                Message::LoadFailed => break,
                reply => return Err(self.refused(&name, reply)),
            };
            match self.fetch(&dstore, &name, size, target) {
                Ok(()) => return Ok(size),
                Err(CopyError::Sink(error)) => return Err(Error::Local(error)),
                Err(CopyError::Source(error)) => {
                    log::warn!("{name}: {dstore} does not deliver: {error}");
                    last_failure = Some((dstore, error));
                    target.restart()?;
                }
            }
            request = Message::Reload { name: name.clone() };
        }
        Err(Error::LoadFailed { name, last_failure })
    }

    /// Loads a file into the file system. It appears at `path`, replacing what is there, only once it is whole.
    pub fn load_file(&mut self, name: &str, path: &Path) -> Result<u64, Error> {
        let mut file = NewFile::create(path)?;
        let size = self.load(name, &mut file)?;
        file.keep()?;
        Ok(size)
    }

    /// Loads a file into memory.
    pub fn load_bytes(&mut self, name: &str) -> Result<Vec<u8>, Error> {
        let mut content = Vec::new();
        self.load(name, &mut content)?;
        Ok(content)
    }

    /// Loads a file into a writer. What has been written cannot be taken back: a holder that fails after its first
    /// byte fails the load, where a [`Target`] that can start again would have another holder tried.
    pub fn load_into(&mut self, name: &str, writer: &mut impl Write) -> Result<u64, Error> {
        self.load(name, &mut Once::new(writer))
    }

    /// Removes a file. (spec 4.4)
    pub fn remove(&mut self, name: &str) -> Result<(), Error> {
        let name = FileName::new(name)?;
        match self.request(&Message::Remove { name: name.clone() })? {
            Message::RemoveComplete => Ok(()),
            reply => Err(self.refused(&name, reply)),
        }
    }

    /// The names of all files that are completely stored, in the Controller's order. (spec 4.5)
    pub fn list(&mut self) -> Result<Vec<FileName>, Error> {
        match self.request(&Message::List { names: Vec::new() })? {
            Message::List { names } => Ok(names),
            Message::NotEnoughDstores => Err(Error::NotEnoughDstores),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// Sends `content` to all of `dstores`, ahead of the ACK where that is understood (spec 8.3), and waits for the
    /// Controller's reply.
    fn store_small(&mut self, name: &FileName, content: &[u8], dstores: &[Address]) -> Result<Message, Error> {
        let request = &Message::Store { name: name.clone(), size: content.len() as u64 };
        let mut ahead = Vec::with_capacity(dstores.len());
        let mut others = Vec::new();
        for dstore in dstores {
            match self.dstores.send_ahead(dstore, request, content) {
                Some(link) => ahead.push((dstore, link)),
                None => others.push(dstore.clone()),
            }
        }
        if !others.is_empty() {
            self.send_to_all(name, content.len() as u64, &others, &mut &*content)?;
        }
        if !ahead.is_empty() {
            if let Some(reply) = self.receive(USUAL_PATIENCE.min(self.timeout))? {
                // Each Dstore has said ACK. The ACK is read when its connection is used again.
                ahead.into_iter().for_each(|(dstore, link)| self.dstores.keep(dstore, link));
                return Ok(reply);
            }
            self.expect_acks(request, content, ahead)?;
        }
        self.reply(request)
    }

    /// Waits until all Dstores have said ACK to what was sent ahead. If a connection turns out to have been of no use,
    /// all is sent once more on another.
    fn expect_acks(&mut self, request: &Message, content: &[u8], ahead: Vec<(&Address, Link)>) -> Result<(), Error> {
        for (dstore, link) in ahead {
            let failed = |source| Error::dstore(dstore, source);
            let acked = self.dstores.expect_answer(dstore, request, Ok(link), Link::receive_ack);
            let (link, ()) = acked.map_err(failed)?;
            if !link.takes_content_ahead() {
                link.send_content(content).map_err(failed)?;
            }
            self.dstores.keep(dstore, link);
        }
        Ok(())
    }

    /// Sends `content` to all of `dstores` at the same time. One Dstore that fails makes the store fail: without it the
    /// Controller will not have R acknowledgements. Sending also stops once the Controller has given the store up: the
    /// rest of the content would be sent in vain.
    fn send_to_all(
        &mut self,
        name: &FileName,
        size: u64,
        dstores: &[Address],
        content: &mut impl Read,
    ) -> Result<(), Error> {
        let begun = Instant::now();
        let request = &Message::Store { name: name.clone(), size };
        // All are asked before the first is waited for.
        let asked: Vec<_> = dstores.iter().map(|dstore| (dstore, self.dstores.ask(dstore, request))).collect();
        let mut links = Vec::with_capacity(asked.len());
        for (dstore, asked) in asked {
            let link = self.dstores.expect_answer(dstore, request, asked, Link::receive_ack);
            links.push((dstore, link.map_err(|source| Error::dstore(dstore, source))?.0));
        }
        let mut failed = None;
        let mut sent = 0;
        copy(size, content, &mut |bytes| {
            if begun.elapsed() >= self.store_limit {
                return Err(io::ErrorKind::TimedOut.into());
            }
            for (dstore, link) in &links {
                link.send_content(bytes).inspect_err(|_| failed = Some(*dstore))?;
            }
            sent += bytes.len() as u64;
            Ok(())
        })
        .map_err(|error| match (error, failed) {
            (CopyError::Sink(source), Some(dstore)) => Error::dstore(dstore, source),
            (CopyError::Sink(_), None) => {
                Error::StoreOverdue { name: name.clone(), size, sent, limit: self.store_limit }
            }
            (CopyError::Source(error), _) => Error::Local(error),
        })?;
        links.into_iter().for_each(|(dstore, link)| self.dstores.keep(dstore, link));
        Ok(())
    }

    /// Gets the content from one holder.
    fn fetch(
        &mut self,
        dstore: &Address,
        name: &FileName,
        size: u64,
        target: &mut impl Target,
    ) -> Result<(), CopyError> {
        let request = Message::LoadData { name: name.clone() };
        let asked = self.dstores.ask(dstore, &request);
        let first_bytes = |link: &mut Link, patience| link.receive_first_content(size, patience);
        let (mut link, first) =
            self.dstores.expect_answer(dstore, &request, asked, first_bytes).map_err(CopyError::Source)?;
        target.begin(size).and_then(|()| target.write(&first)).map_err(CopyError::Sink)?;
        let remaining = size - first.len() as u64;
        copy(remaining, &mut link.content(remaining, self.timeout), &mut |bytes| target.write(bytes))?;
        self.dstores.finish_load(dstore, link, size).map_err(CopyError::Source)
    }

    fn request(&mut self, request: &Message) -> Result<Message, Error> {
        let controller = self.controller;
        let connection = self.connection()?;
        // Only a list may be long.
        let is_list = matches!(request, Message::List { .. });
        connection.limit_lines(if is_list { DSTORE_LINE_LIMIT } else { CLIENT_LINE_LIMIT });
        let sent = connection.send(request);
        if let Err(source) = sent {
            self.connection = None;
            return Err(Error::Controller { address: controller, source });
        }
        self.reply(request)
    }

    /// The Controller's next message. If none comes in time the connection is given up, so that a late message is not
    /// taken for the answer to another request.
    fn reply(&mut self, request: &Message) -> Result<Message, Error> {
        let reply = self.receive(self.timeout)?;
        reply.ok_or_else(|| {
            self.connection = None;
            Error::NoReply { request: request.to_string(), timeout: self.timeout }
        })
    }

    /// The same, or `None` if none comes within `patience`: it may still come.
    fn receive(&mut self, patience: Duration) -> Result<Option<Message>, Error> {
        let address = self.controller;
        let failure = match self.connection()?.receive_within(patience) {
            Ok(Some(Ok(message))) => return Ok(Some(message)),
            Ok(Some(Err(reason))) => Error::Unexpected { reply: reason.to_string() },
            Ok(None) => Error::Controller { address, source: io::ErrorKind::UnexpectedEof.into() },
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(None),
            Err(source) => Error::Controller { address, source },
        };
        self.connection = None;
        Err(failure)
    }

    fn connection(&mut self) -> Result<&mut Connection, Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::connect(self.controller, self.timeout)
                .map_err(|source| Error::Controller { address: self.controller, source })?,
        };
        Ok(self.connection.insert(connection))
    }

    fn refused(&mut self, name: &FileName, reply: Message) -> Error {
        match reply {
            Message::NotEnoughDstores => Error::NotEnoughDstores,
            Message::FileAlreadyExists => Error::AlreadyExists(name.clone()),
            Message::FileDoesNotExist { .. } => Error::DoesNotExist(name.clone()),
            reply => self.unexpected(reply),
        }
    }

    /// What the Controller says after this cannot be matched to a request either.
    fn unexpected(&mut self, reply: Message) -> Error {
        self.connection = None;
        Error::Unexpected { reply: reply.to_string() }
    }
}
