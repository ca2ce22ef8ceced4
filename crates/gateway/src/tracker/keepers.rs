//! Which Dstore has a keeper where.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use depot::client::{DstoreState, Status};
use depot::identity::DstoreId;
use depot::namespace::change::{Duty, Replicas};
use parking_lot::Mutex;

use super::{CLIENTS, Node, Options, Tracker};
use crate::grpc::Runtime;

/// How often it is looked which Dstores there are: as often as keepers of the original gave a sign of life.
const PERIOD: Duration = Duration::from_secs(1);

/// The copies of a file that the original promises.
const COPIES: u8 = 3;

/// A keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keeper {
    /// Its Dstore.
    pub(super) dstore: DstoreId,
    pub(super) address: SocketAddr,
    /// Whether its Dstore is there.
    pub(super) is_alive: bool,
    /// Whether its Dstore takes new files.
    pub(super) takes_files: bool,
}

/// All keepers.
#[derive(Default)]
pub(super) struct Keepers {
    known: Mutex<Known>,
    turn: AtomicUsize,
}

#[derive(Default)]
struct Known {
    keepers: BTreeMap<DstoreId, Keeper>,
    /// How many copies a file gets, if that is not the store's business.
    replicas: Option<Replicas>,
}

impl Keepers {
    /// By the numbers of their Dstores.
    pub(super) fn all(&self) -> Vec<Keeper> {
        self.known.lock().keepers.values().copied().collect()
    }

    /// The keeper of a Dstore.
    pub(super) fn of(&self, dstore: DstoreId) -> Option<Keeper> {
        self.known.lock().keepers.get(&dstore).copied()
    }

    /// Where the next file is to be uploaded: each keeper in turn.
    pub(super) fn next_for_upload(&self) -> Option<Keeper> {
        let mut all = self.all();
        all.retain(|keeper| keeper.is_alive && keeper.takes_files);
        self.rotate(&mut all);
        all.first().copied()
    }

    /// Has another one be the first each time.
    pub(super) fn rotate(&self, keepers: &mut [Keeper]) {
        if !keepers.is_empty() {
            keepers.rotate_left(self.turn.fetch_add(1, Ordering::Relaxed) % keepers.len());
        }
    }

    /// How many copies a file gets; `None` for as many as the store says.
    pub(super) fn replicas(&self) -> Option<Replicas> {
        self.known.lock().replicas
    }
}

/// Three copies, unless the store makes as many or more by itself. With one Dstore there is no place for a second one, and a file
/// that asks for more would never be taken.
fn replicas(status: &Status, dstores: usize) -> Option<Replicas> {
    match status.settings.replicas {
        Replicas::Number(number) if number < COPIES && dstores > 1 => Some(Replicas::Number(COPIES)),
        _ => None,
    }
}

/// A thread that looks which Dstores there are, and opens and closes ports accordingly. Dropping it ends the thread.
pub(super) struct Watcher {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Looks once before it returns, so that a store that is there has its keepers at once.
    pub(super) fn start(
        runtime: Arc<Runtime>,
        tracker: Arc<Tracker>,
        ip: IpAddr,
        options: Options,
    ) -> io::Result<Self> {
        let (end, ended) = channel();
        let (is_away, unopened) = (Changes::default(), BTreeSet::new());
        let mut watch = Watch { runtime, tracker, ip, next_port: options.keepers, is_away, unopened };
        watch.look();
        let thread = thread::Builder::new().name("tracker-keepers".into()).spawn(move || {
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                watch.look();
            }
        })?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watch {
    runtime: Arc<Runtime>,
    tracker: Arc<Tracker>,
    /// Where keepers listen.
    ip: IpAddr,
    /// The port to try next; 0 for any.
    next_port: u16,
    /// The store does not answer.
    is_away: Changes,
    /// Dstores of which it was said that they get no keeper.
    unopened: BTreeSet<DstoreId>,
}

/// A condition that is said when it changes, and not each time that it is looked at.
#[derive(Default)]
struct Changes {
    holds: bool,
}

impl Changes {
    /// Whether it has changed.
    fn note(&mut self, holds: bool) -> bool {
        std::mem::replace(&mut self.holds, holds) != holds
    }
}

impl Watch {
    fn look(&mut self) {
        let status = self.tracker.files.status();
        if self.is_away.note(status.is_err()) {
            match &status {
                Ok(_) => log::info!("the tracker knows again which Dstores there are"),
                Err(error) => log::warn!("the tracker cannot ask which Dstores there are: {error}"),
            }
        }
        let Ok(status) = status else { return };
        let mut keepers = BTreeMap::new();
        for dstore in status.dstores.iter().filter(|dstore| dstore.duty != Duty::Removed) {
            let address = match self.tracker.keepers.of(dstore.id) {
                Some(keeper) => keeper.address,
                None => match self.open(dstore.id) {
                    Ok(address) => address,
                    Err(error) => {
                        if self.unopened.insert(dstore.id) {
                            log::error!("Dstore {} gets no keeper: {error}", dstore.id);
                        }
                        continue;
                    }
                },
            };
            let (is_alive, takes_files) = (dstore.state == DstoreState::Present, dstore.duty == Duty::Active);
            keepers.insert(dstore.id, Keeper { dstore: dstore.id, address, is_alive, takes_files });
        }
        let replicas = replicas(&status, keepers.len());
        let before = std::mem::replace(&mut *self.tracker.keepers.known.lock(), Known { keepers, replicas });
        for gone in before.keepers.values().filter(|keeper| self.tracker.keepers.of(keeper.dstore).is_none()) {
            self.runtime.close(gone.address);
        }
    }

    /// Opens a keeper's port: the next one that is free.
    fn open(&mut self, dstore: DstoreId) -> io::Result<SocketAddr> {
        let node = Arc::new(Node { tracker: Arc::clone(&self.tracker), keeper: Some(dstore) });
        let listener = self.listen()?;
        let address = listener.local_addr()?;
        self.runtime.serve(listener, node.services(&self.runtime))?;
        log::info!("keeper {dstore} listens on {address}");
        Ok(address)
    }

    fn listen(&mut self) -> io::Result<TcpListener> {
        if self.next_port == 0 {
            return stevedore::server::listen(Some(self.ip), 0);
        }
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).ok_or_else(|| io::Error::other("there are no ports left"))?;
            if port == CLIENTS {
                continue; // it is for the other side
            }
            match stevedore::server::listen(Some(self.ip), port) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    log::warn!("port {port} is taken: the keeper gets another one");
                }
                listener => return listener,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use depot::namespace::change::Settings;

    use super::*;

    #[test]
    fn a_file_gets_three_copies_at_least() {
        let of = |replicas| Status { settings: Settings { replicas, ..Settings::default() }, ..Status::default() };
        let three = Some(Replicas::Number(3));
        for (set, dstores, expected) in [
            (Replicas::Number(1), 4, three),
            (Replicas::Number(2), 2, three),
            (Replicas::Number(1), 1, None),
            (Replicas::Number(3), 4, None),
            (Replicas::Number(5), 9, None),
            (Replicas::All, 4, None),
        ] {
            assert_eq!(replicas(&of(set), dstores), expected, "{set:?} on {dstores}");
        }
    }

    #[test]
    fn a_store_that_is_away_is_said_once_when_it_goes_and_once_when_it_is_back() {
        let mut is_away = Changes::default();
        let said: Vec<bool> = [false, true, true, true, false, false, true].map(|is| is_away.note(is)).into();
        assert_eq!(said, [false, true, false, false, true, false, true]);
    }

    #[test]
    fn uploads_go_to_each_keeper_in_turn() {
        let keeper = |number: u32, is_alive, takes_files| {
            let address = SocketAddr::from(([127, 0, 0, 1], number as u16));
            (DstoreId(number), Keeper { dstore: DstoreId(number), address, is_alive, takes_files })
        };
        let keepers = Keepers::default();
        assert_eq!(keepers.next_for_upload(), None);
        keepers.known.lock().keepers =
            [keeper(1, true, true), keeper(2, false, true), keeper(3, true, false), keeper(4, true, true)].into();
        let turns: Vec<u32> = (0..4).map(|_| keepers.next_for_upload().unwrap().dstore.0).collect();
        assert_eq!([turns[0] + turns[1], turns[2] + turns[3]], [5, 5], "{turns:?}");
        assert_ne!(turns[0], turns[1]);
    }
}
