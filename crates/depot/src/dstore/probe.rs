//! What a Dstore says of itself to the process that it runs in, for monitoring.

use std::io;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Shared, link};
use crate::identity::DstoreId;
use crate::pack::Usage;

/// Looks at a Dstore for as long as it runs. No answer waits for a Controller or a client.
#[derive(Clone)]
pub struct Probe(pub(super) Weak<Shared>);

/// A Dstore's figures.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Its number; `None` until it was first admitted.
    pub number: Option<DstoreId>,
    /// What its disk has, and has room for.
    pub usage: Usage,
    /// How long ago it had verified all that it has; if it never has, since when its disk is used.
    pub scrubbed_ago: Duration,
    /// Over so many links Controllers have admitted it.
    pub links: usize,
    /// Connections of clients and other Dstores.
    pub connections: usize,
    /// Requests of clients and other Dstores since it was started.
    pub requests: u64,
    /// Bytes of objects that were put.
    pub received_bytes: u64,
    /// Bytes of objects that were sent.
    pub sent_bytes: u64,
    /// Why it cannot serve now; `None` if it can.
    pub trouble: Option<String>,
}

/// What a Dstore was asked for.
#[derive(Default)]
pub(super) struct Traffic {
    pub(super) requests: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
}

impl Probe {
    /// Why the Dstore has failed for good, if it has.
    pub fn failure(&self) -> Option<String> {
        self.0.upgrade()?.failure()
    }

    /// How the Dstore is; `None` once it has ended. Fails if its disk does not say what room it has.
    pub fn look(&self) -> Option<io::Result<Figures>> {
        let shared = self.0.upgrade()?;
        Some(shared.figures())
    }
}

impl Shared {
    fn figures(&self) -> io::Result<Figures> {
        let Traffic { requests, received_bytes, sent_bytes } = &self.traffic;
        let links = link::admitted(self);
        let no_link = || (links == 0).then(|| "no Controller has admitted it".to_owned());
        Ok(Figures {
            number: self.disk.identity().number,
            usage: self.disk.usage()?,
            scrubbed_ago: self.scrub_round.lock().age(),
            links,
            connections: self.connections.load(Ordering::Acquire),
            requests: requests.load(Ordering::Relaxed),
            received_bytes: received_bytes.load(Ordering::Relaxed),
            sent_bytes: sent_bytes.load(Ordering::Relaxed),
            trouble: self.failure().or_else(no_link),
        })
    }
}
