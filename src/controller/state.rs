//! What the Controller's threads share under one mutex: the index, which client thread waits for which operation's end,
//! and which Dstore was offered when.
//!
//! Each method is one short critical section: no I/O, no wait.

use std::collections::BTreeMap;

use crate::index::{Departure, DstoreId, Index, Offer, Refusal};
use crate::protocol::{Address, FileName};
use crate::sync::one_shot::{Receiver, Sender, one_shot};

/// How an operation that a thread waits for ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every acknowledgement came: the client is to hear of it.
    Complete,
    /// It can no longer complete: nothing is said to the client. (spec 7.3)
    Failed,
}

/// What the Controller's threads share under one lock.
pub struct State {
    /// Which files exist, and where.
    pub index: Index,
    /// Rebalances that have ended since the start; a round of a larger one counts. (spec 7.19)
    pub rebalances: u64,
    /// Whether a rebalance runs, or a Dstore has joined that none has served yet.
    pub is_unsettled: bool,
    /// By file: a file has at most one operation in progress.
    waiting: BTreeMap<FileName, Sender<Outcome>>,
    /// For each Dstore that was offered for a load, which offer was its last. (spec 7.22)
    last_offers: BTreeMap<DstoreId, u64>,
    offers: u64,
    is_stopped: bool,
}

impl State {
    /// An empty index, and no operation in progress.
    pub fn new(replicas: usize) -> Self {
        Self {
            index: Index::new(replicas),
            rebalances: 0,
            is_unsettled: false,
            waiting: BTreeMap::new(),
            last_offers: BTreeMap::new(),
            offers: 0,
            is_stopped: false,
        }
    }

    /// Begins a store: where to, and where its outcome will be told.
    pub fn begin_store(&mut self, name: &FileName, size: u64) -> Result<(Vec<Address>, Receiver<Outcome>), Refusal> {
        let dstores = self.index.begin_store(name, size)?;
        Ok((dstores, self.wait_for(name)))
    }

    /// Chooses the Dstore that a client may load a file from: of its holders that are not in `tried`, the one whose last offer is
    /// the longest ago, so that holders take turns and loads spread over all Dstores. (spec 4.3, 7.22)
    pub fn offer(&mut self, name: &str, tried: &[DstoreId]) -> Result<Offer, Refusal> {
        let offer = self.index.offer(name, tried, |dstore| self.last_offers.get(&dstore))?;
        self.offers += 1;
        self.last_offers.insert(offer.dstore, self.offers);
        Ok(offer)
    }

    /// Begins a remove: which Dstores to tell, and where its outcome will be told. With none to tell it is complete.
    pub fn begin_remove(&mut self, name: &FileName) -> Result<(Vec<DstoreId>, Receiver<Outcome>), Refusal> {
        let holders = self.index.begin_remove(name)?;
        let outcome = self.wait_for(name);
        if holders.is_empty() {
            self.conclude(name, Outcome::Complete);
        }
        Ok((holders, outcome))
    }

    /// A Dstore says that it has stored a file.
    pub fn acknowledge_store(&mut self, name: &FileName, dstore: DstoreId) {
        if self.index.acknowledge_store(name, dstore) {
            self.conclude(name, Outcome::Complete);
        }
    }

    /// A Dstore says that it does not have a file any more.
    pub fn acknowledge_remove(&mut self, name: &FileName, dstore: DstoreId) {
        if self.index.acknowledge_remove(name, dstore) {
            self.conclude(name, Outcome::Complete);
        }
    }

    /// A store's time is up, unless its outcome has come in the same instant: then that counts.
    pub fn expire_store(&mut self, name: &FileName, outcome: &Receiver<Outcome>) -> Outcome {
        // Outcomes are told under the lock that the caller holds: either it is there now, or the operation goes on.
        outcome.try_recv().unwrap_or_else(|_| {
            self.index.abandon_store(name);
            self.waiting.remove(name);
            Outcome::Failed
        })
    }

    /// A remove's time is up, likewise.
    pub fn expire_remove(&mut self, name: &FileName, outcome: &Receiver<Outcome>) -> Outcome {
        outcome.try_recv().unwrap_or_else(|_| {
            self.index.abandon_remove(name);
            self.waiting.remove(name);
            Outcome::Failed
        })
    }

    /// A Dstore has left, which ends the operations that waited for it alone or in vain.
    pub fn leave(&mut self, dstore: DstoreId) {
        self.last_offers.remove(&dstore);
        let Departure { failed_stores, completed_removes } = self.index.leave(dstore);
        for name in failed_stores {
            self.conclude(&name, Outcome::Failed);
        }
        for name in completed_removes {
            self.conclude(&name, Outcome::Complete);
        }
    }

    /// Ends every wait, now and in future, without an outcome.
    pub fn stop(&mut self) {
        self.is_stopped = true;
        self.waiting.clear();
    }

    fn wait_for(&mut self, name: &FileName) -> Receiver<Outcome> {
        let (outcome, wait) = one_shot();
        if !self.is_stopped {
            self.waiting.insert(name.clone(), outcome);
        }
        wait
    }

    fn conclude(&mut self, name: &FileName, outcome: Outcome) {
        if let Some(waiting) = self.waiting.remove(name) {
            waiting.send(outcome); // a thread that has stopped waiting asks `expire_…` for it
        }
    }
}

#[cfg(all(test, shuttle))]
impl State {
    pub(super) fn is_any_thread_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
