//! One client's connection: requests in, exactly the answers that the spec gives out. (spec 4.2 to 4.5, 6.1)

use std::io;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::Controller;
use super::gate::Request;
use super::ledger::Outcome;
use crate::index::{DstoreId, Refusal};
use crate::protocol::complaint::complain;
use crate::protocol::{Connection, FileName, Message};

/// A client that takes none of what it asked for is given up after the timeout, but not sooner than this. A client
/// that is merely idle never is. (spec 2.7)
const LEAST_STALL: Duration = Duration::from_secs(1);

pub(super) struct ClientSession<'a> {
    controller: &'a Controller,
    connection: Connection,
    /// The load that a RELOAD would go on with: the file, and who has been offered. (spec 4.3)
    load: Option<(FileName, Vec<DstoreId>)>,
}

impl<'a> ClientSession<'a> {
    pub(super) fn new(controller: &'a Controller, connection: Connection) -> io::Result<Self> {
        connection.outgoing().limit_stalls(controller.config.timeout.max(LEAST_STALL))?;
        Ok(Self { controller, connection, load: None })
    }

    /// Answers `request` and all that follow, until the client closes or the Controller stops.
    pub(super) fn serve(mut self, request: Message) -> io::Result<()> {
        let mut request = Some(Ok(request));
        while let Some(line) = request {
            match line {
                Ok(message) => self.answer(message)?,
                Err(error) => self.connection.ignore(&error), // spec 2.6
            }
            request = self.connection.receive()?;
        }
        Ok(())
    }

    fn answer(&mut self, request: Message) -> io::Result<()> {
        // Forgotten with any request but a RELOAD. (spec 4.3)
        let load = self.load.take();
        match request {
            Message::Store { name, size } => self.store(&name, size),
            Message::Load { name } => self.load(name, None),
            Message::Reload { name } => self.load(name, load),
            Message::Remove { name } => self.remove(&name),
            Message::List { names } if names.is_empty() => self.list(),
            _ => {
                self.connection.ignore(&"not a request"); // spec 2.6
                self.load = load;
                Ok(())
            }
        }
    }

    // A rebalance waits for every pass: none is held while a client is told the outcome, which may take it long.

    fn store(&mut self, name: &FileName, size: u64) -> io::Result<()> {
        let controller = self.controller;
        let decide = || controller.ledger.lock().begin_store(name, size);
        let (decision, pass) = controller.gate.enter(Request::Change, decide)?;
        let (dstores, outcome) = match decision {
            Ok(begun) => begun,
            Err(refusal) => {
                drop(pass);
                return self.refuse(refusal);
            }
        };
        let sent = self.connection.send(&Message::StoreTo { dstores });
        // With the client gone the store could still complete, but nobody could be told of it.
        let timeout = if sent.is_ok() { controller.config.timeout } else { Duration::ZERO };
        let outcome = wait(&outcome, timeout).unwrap_or_else(|| controller.ledger.lock().expire_store(name, &outcome));
        drop(pass);
        sent?;
        match outcome {
            Outcome::Complete => self.connection.send(&Message::StoreComplete)?,
            Outcome::Failed => {
                complain(format_args!("STORE {name}: not all acknowledgements came; removed from the index"))
            }
        }
        Ok(())
    }

    fn load(&mut self, name: FileName, earlier: Option<(FileName, Vec<DstoreId>)>) -> io::Result<()> {
        let controller = self.controller;
        // A RELOAD of another file is like a LOAD. (spec 7.23)
        let mut tried = match earlier {
            Some((loading, tried)) if loading == name => tried,
            _ => Vec::new(),
        };
        let decide = || controller.ledger.lock().index.offer(&name, &tried);
        let (decision, _) = controller.gate.enter(Request::Look, decide)?;
        let answered = match decision {
            Ok(offer) => {
                tried.push(offer.dstore);
                self.connection.send(&Message::LoadFrom { dstore: offer.address, size: offer.size })
            }
            Err(refusal) => self.refuse(refusal),
        };
        self.load = Some((name, tried));
        answered
    }

    fn remove(&mut self, name: &FileName) -> io::Result<()> {
        let controller = self.controller;
        let decide = || controller.ledger.lock().begin_remove(name);
        let (decision, pass) = controller.gate.enter(Request::Change, decide)?;
        let (holders, outcome) = match decision {
            Ok(begun) => begun,
            Err(refusal) => {
                drop(pass);
                return self.refuse(refusal);
            }
        };
        for dstore in holders {
            controller.links.send(dstore, Message::Remove { name: name.clone() });
        }
        // The wait starts now that the last REMOVE is on its way. (spec 4.4)
        let outcome = wait(&outcome, controller.config.timeout)
            .unwrap_or_else(|| controller.ledger.lock().expire_remove(name, &outcome));
        drop(pass);
        match outcome {
            Outcome::Complete => self.connection.send(&Message::RemoveComplete)?,
            Outcome::Failed => {
                complain(format_args!("REMOVE {name}: not all acknowledgements came; left to the next rebalance"))
            }
        }
        Ok(())
    }

    fn list(&mut self) -> io::Result<()> {
        let controller = self.controller;
        let decide = || controller.ledger.lock().index.list();
        let (decision, _) = controller.gate.enter(Request::Look, decide)?;
        match decision {
            Ok(names) => self.connection.send(&Message::List { names }),
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn refuse(&self, refusal: Refusal) -> io::Result<()> {
        let reply = match refusal {
            Refusal::NotEnoughDstores => Message::NotEnoughDstores,
            Refusal::FileAlreadyExists => Message::FileAlreadyExists,
            Refusal::FileDoesNotExist => Message::FileDoesNotExist { name: None },
            Refusal::AllTried => Message::LoadFailed,
        };
        self.connection.send(&reply)
    }
}

/// The outcome, unless it does not come in time or the Controller stops.
fn wait(outcome: &Receiver<Outcome>, timeout: Duration) -> Option<Outcome> {
    outcome.recv_timeout(timeout).ok()
}
