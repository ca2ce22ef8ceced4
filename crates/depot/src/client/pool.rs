//! Connections that are kept for the next request. (depot 5.1)

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::identity::ClusterId;
use crate::wire::{Access, Address, Connection, HandshakeError, Role, connect};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(3);

/// A peer that takes nothing for so long has gone.
const STALL: Duration = Duration::from_secs(10);

/// So many idle connections are kept to one server.
const MOST_IDLE: usize = 64;

/// A connection that was used a shorter time ago is not looked at before it is used again: that takes a system call. Should the
/// server have ended since, the request fails as if it had ended a moment later.
const FRESH: Duration = Duration::from_millis(100);

/// Connections to the servers of one store.
pub(super) struct Pool {
    access: Access,
    cluster: ClusterId,
    /// Each with the time since when.
    idle: Mutex<BTreeMap<Address, Vec<(Connection, Instant)>>>,
}

impl Pool {
    pub(super) fn new(access: Access, cluster: ClusterId) -> Self {
        Self { access, cluster, idle: Mutex::default() }
    }

    /// A connection to a server, which is one in this role: a kept one, or a new one.
    pub(super) fn take(&self, address: &Address, role: Role) -> Result<Connection, HandshakeError> {
        self.take_used(FRESH, address, role, |_| ())
    }

    /// The same, for a request that is sent in vain only if the server ends in this moment: whether a change was made should be known.
    pub(super) fn take_seen(&self, address: &Address, role: Role) -> Result<Connection, HandshakeError> {
        self.take_used(Duration::ZERO, address, role, |_| ())
    }

    /// As [`take`](Self::take). `announce` gets the socket before anything is waited for, so that another thread can end the wait by shutting it down.
    pub(super) fn take_announced(
        &self,
        address: &Address,
        role: Role,
        announce: impl Fn(&Arc<TcpStream>),
    ) -> Result<Connection, HandshakeError> {
        self.take_used(FRESH, address, role, announce)
    }

    /// One that was used a shorter time ago than `fresh` is not looked at.
    fn take_used(
        &self,
        fresh: Duration,
        address: &Address,
        role: Role,
        announce: impl Fn(&Arc<TcpStream>),
    ) -> Result<Connection, HandshakeError> {
        let next = || self.idle.lock().get_mut(address).and_then(Vec::pop);
        while let Some((connection, since)) = next() {
            // A server that was stopped has closed it; nothing else is said unasked.
            if since.elapsed() < fresh || !connection.has_news() {
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
        let kept = match idle.get_mut(address) {
            Some(kept) => kept,
            None => idle.entry(address.clone()).or_default(),
        };
        if kept.len() < MOST_IDLE {
            kept.push((connection, Instant::now()));
        }
    }
}
