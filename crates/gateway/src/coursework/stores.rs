//! Stores in progress: from STORE_TO to STORE_COMPLETE, or to their silent end. (spec 4.2)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use depot::checksum::Checksum;
use parking_lot::{Condvar, Mutex};
use stevedore::protocol::{FileName, Message, Outgoing};

/// A store that no byte comes for is over after this time: its name is free again.
const SILENCE: Duration = Duration::from_secs(30);

/// The stores in progress, by name. There is at most one of each name. (spec 3.2)
#[derive(Default)]
pub(super) struct Stores(Mutex<BTreeMap<FileName, Arc<Store>>>);

/// One of them.
pub(super) struct Store {
    /// The new file.
    pub(super) name: FileName,
    /// As the client has announced it.
    pub(super) size: u64,
    /// How many copies have to come.
    copies: usize,
    timeout: Duration,
    /// The client that waits.
    client: Outgoing,
    state: Mutex<State>,
    /// Told of each copy that has come, and of the end.
    changed: Condvar,
}

struct State {
    /// The Dstores that content comes to, or has come to.
    begun: BTreeSet<usize>,
    /// The checksums of the copies that have come.
    come: Vec<Checksum>,
    /// When something last came.
    heard: Instant,
    is_over: bool,
}

/// What a Dstore is to do with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Put it.
    Put,
    /// Compare it with the one that is put.
    Compare,
}

impl Stores {
    /// Begins a store; `None` if one of that name is in progress.
    pub(super) fn begin(
        &self,
        (name, size): (&FileName, u64),
        copies: usize,
        timeout: Duration,
        client: &Outgoing,
    ) -> Option<Arc<Store>> {
        let mut stores = self.0.lock();
        if stores.get(name).is_some_and(|store| !store.has_died_down()) {
            return None;
        }
        let state = State { begun: BTreeSet::new(), come: Vec::new(), heard: Instant::now(), is_over: false };
        let store = Arc::new(Store {
            name: name.clone(),
            size,
            copies,
            timeout,
            client: client.clone(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        stores.insert(name.clone(), Arc::clone(&store));
        Some(store)
    }

    /// The store of a file that a Dstore is sent, and what is to be done with that copy; `None` if it has not been asked for.
    pub(super) fn receive(&self, name: &FileName, size: u64, dstore: usize) -> Option<(Arc<Store>, Part)> {
        let store = Arc::clone(self.0.lock().get(name)?);
        let mut state = store.state.lock();
        if state.is_over || store.size != size || !state.begun.insert(dstore) {
            return None;
        }
        state.heard = Instant::now();
        let part = if state.begun.len() == 1 { Part::Put } else { Part::Compare };
        drop(state);
        Some((store, part))
    }

    /// Ends a store without a word to its client, if it has not ended.
    pub(super) fn abandon(&self, store: &Arc<Store>) {
        store.state.lock().is_over = true;
        store.changed.notify_all();
        self.remove(store);
    }

    /// Ends a store that is committed, and tells its client, if that still waits.
    pub(super) fn complete(&self, store: &Arc<Store>) {
        // The name is free before the client hears of it.
        self.remove(store);
        let mut state = store.state.lock();
        let waits = !state.is_over && state.heard.elapsed() <= store.timeout;
        state.is_over = true;
        if waits && let Err(error) = store.client.send(&Message::StoreComplete) {
            log::info!("{}: {}: stored, but not told: {error}", store.client.peer(), store.name);
        }
        if !waits {
            log::warn!("{}: {}: stored too late for the client to be told", store.client.peer(), store.name);
        }
        drop(state);
        store.changed.notify_all();
    }

    fn remove(&self, store: &Arc<Store>) {
        let mut stores = self.0.lock();
        if stores.get(&store.name).is_some_and(|one| Arc::ptr_eq(one, store)) {
            stores.remove(&store.name);
        }
    }
}

impl Store {
    /// Notes that the store goes on: more of a copy has come, for one. False if it is over: then none of it is wanted.
    pub(super) fn hear(&self) -> bool {
        let mut state = self.state.lock();
        state.heard = Instant::now();
        !state.is_over
    }

    /// Notes that a copy has come.
    pub(super) fn add_copy(&self, checksum: Checksum) {
        let mut state = self.state.lock();
        state.heard = Instant::now();
        state.come.push(checksum);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for the other copies, once the one that is put has come. False if they do not all come, or are not the same.
    pub(super) fn wait_for_copies(&self) -> bool {
        let mut state = self.state.lock();
        loop {
            let first = state.come.first();
            if state.is_over || state.come.iter().any(|copy| Some(copy) != first) {
                return false;
            }
            if state.come.len() == self.copies {
                return true;
            }
            let deadline = state.heard + SILENCE;
            if self.changed.wait_until(&mut state, deadline).timed_out() && state.heard.elapsed() >= SILENCE {
                return false;
            }
        }
    }

    /// Waits until the store is over, for a client that has said what it wants next before it could have its answer.
    pub(super) fn wait_for_end(&self) {
        let mut state = self.state.lock();
        while !state.is_over {
            let deadline = state.heard + self.timeout;
            if self.changed.wait_until(&mut state, deadline).timed_out() && state.heard.elapsed() >= self.timeout {
                return;
            }
        }
    }

    /// Whether nothing has come for long, and nothing is coming.
    fn has_died_down(&self) -> bool {
        let mut state = self.state.lock();
        let is_dead = state.begun.is_empty() && state.heard.elapsed() >= SILENCE.min(self.timeout);
        state.is_over |= is_dead;
        is_dead
    }
}
