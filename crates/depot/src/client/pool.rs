//! Connections that are kept for the next request. (depot 5.1)

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::identity::ClusterId;
use crate::wire::{Access, Address, Connection, HandshakeError, Role, connect};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(3);

/// A peer that takes nothing for so long has gone.
const STALL: Duration = Duration::from_secs(10);

/// So many idle connections are kept to one server.
const MOST_IDLE: usize = 64;

/// Connections to the servers of one store.
pub(super) struct Pool {
    access: Access,
    cluster: ClusterId,
    idle: Mutex<HashMap<Address, Vec<Connection>>>,
}

impl Pool {
    pub(super) fn new(access: Access, cluster: ClusterId) -> Self {
        Self { access, cluster, idle: Mutex::default() }
    }

    /// A connection to a server, which is one in this role: a kept one, or a new one.
    pub(super) fn take(&self, address: &Address, role: Role) -> Result<Connection, HandshakeError> {
        self.take_announced(address, role, |_| ())
    }

    /// The same. `announce` gets the socket before anything is waited for, so that another thread can end the wait by shutting it down.
    pub(super) fn take_announced(
        &self,
        address: &Address,
        role: Role,
        announce: impl Fn(&Arc<TcpStream>),
    ) -> Result<Connection, HandshakeError> {
        let next = || self.idle.lock().get_mut(address).and_then(Vec::pop);
        while let Some(connection) = next() {
            // A server that was stopped has closed it; nothing else is said unasked.
            if !connection.has_news() {
                announce(connection.stream());
                return Ok(connection);
            }
        }
        let connection = connect(address, &self.access, self.cluster, role, CONNECT, announce)?;
        connection.limit_stalls(STALL)?;
        Ok(connection)
    }

    /// Keeps a connection on which every request was answered.
    pub(super) fn give_back(&self, address: &Address, connection: Connection) {
        let mut idle = self.idle.lock();
        let kept = idle.entry(address.clone()).or_default();
        if kept.len() < MOST_IDLE {
            kept.push(connection);
        }
    }
}
