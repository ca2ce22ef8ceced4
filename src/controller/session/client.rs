//! One client's connection: requests in, replies out. (spec 2.5, 2.6, 6.1)

use std::io;
use std::time::Duration;

use crate::controller::gate::Shut;
use crate::controller::shared::Controller;
use crate::index::DstoreId;
use crate::protocol::{Connection, FileName, Message};

/// A client that takes none of what it asked for is given up after the timeout, but not sooner than this. A client
/// that is merely idle never is. (spec 2.7)
const LEAST_STALL: Duration = Duration::from_secs(1);

pub(super) struct ClientSession<'a> {
    controller: &'a Controller,
    connection: Connection,
    /// The load that a RELOAD would go on with: the file, and which Dstores have been offered. (spec 4.3)
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
        let controller = self.controller;
        // Forgotten with any request but a RELOAD. (spec 4.3)
        let load = self.load.take();
        let reply = match request {
            Message::Store { name, size } => {
                let tell = |dstores| self.connection.send(&Message::StoreTo { dstores });
                controller.store(&name, size, tell)?
            }
            Message::Load { name } => Some(self.load(name, None)?),
            Message::Reload { name } => Some(self.load(name, load)?),
            Message::Remove { name } => controller.remove(&name)?,
            Message::List { names } if names.is_empty() => return self.connection.send_line(&controller.list()?),
            _ => {
                self.connection.ignore(&"not a request"); // spec 2.6
                self.load = load;
                None
            }
        };
        reply.map_or(Ok(()), |reply| self.connection.send(&reply))
    }

    fn load(&mut self, name: FileName, earlier: Option<(FileName, Vec<DstoreId>)>) -> Result<Message, Shut> {
        // A RELOAD of another file is like a LOAD. (spec 7.23)
        let mut tried = match earlier {
            Some((loading, tried)) if loading == name => tried,
            _ => Vec::new(),
        };
        let reply = self.controller.load(&name, &mut tried)?;
        self.load = Some((name, tried));
        Ok(reply)
    }
}
