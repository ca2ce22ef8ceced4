//! From the lists of the Dstores to the orders for them. (spec 4.6)
//!
//! One round of a rebalance passes through here like this:
//!
//! ```text
//!   Lists ──reconcile──▶ Inventory ──plan──▶ Plan ──cut──▶ Plan ──orders──▶ REBALANCE messages
//!   what each            the holders of      copies to     what fits
//!   Dstore says          each file, as       send, to      one round        reports ──confirm──▶ Index
//!                        numbers             remove
//! ```
//!
//! A [`Plan`] is two lists of numbers: copies to send and copies to remove. All steps before the last work on it:
//!
//! 1. `planner`: the fewest sends that put every file on R Dstores, evenly.
//! 2. `suspects`: no file depends on a Dstore that seems unable to store.
//! 3. `newcomers`: a long-standing Dstore keeps a copy until the newcomer that is to have it has shown its own.
//! 4. `orders`: a Dstore removes an unwanted copy before it is sent a good one.
//! 5. `budget`: what does not fit into one round waits for the next.
//!
//! Steps 2 to 5 only take away from the plan, or send a copy to another Dstore. What they take away is *put off*: the
//! next round plans it anew from new lists, so that nothing has to be remembered.
//!
//! A plan keeps one promise through all steps: **a copy is removed only if no send that makes up for it can fail unnoticed.**
//! The Dstore that is to lose a copy sends it itself, and keeps it if that fails (spec 7.17). So where a send is put off, the
//! removal that comes with it is put off too.
//!
//! An order is no proof. The index counts a copy as there, or as gone, only when the Dstore has reported its whole order as
//! done, or when a later list shows it (spec 4.6.6, 7.20).

mod budget;
mod newcomers;
mod orders;
mod planner;
mod suspects;

pub use budget::Budget;
pub(super) use newcomers::is_newcomer;
pub use planner::{Holdings, plan};

use std::collections::BTreeSet;

use super::Inventory;

/// One copy to be sent from a holder to a Dstore that lacks the file. Files and Dstores go by their places in the
/// [`Inventory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// The file.
    pub file: u32,
    /// The Dstore that sends its copy.
    pub from: u32,
    /// The Dstore that receives one.
    pub to: u32,
}

/// One copy to be removed, once its holder has sent all it was to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// The file.
    pub file: u32,
    /// The Dstore that removes its copy.
    pub from: u32,
}

/// What has to happen in one round, and how much is left for later ones.
///
/// Whichever transfers fail, a file is left with R copies, or as many as it had if that was fewer, provided that a
/// Dstore keeps each file of which a transfer of its own has failed. (spec 7.17)
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Copies to send, in the order of the files; no copy twice to the same Dstore.
    pub transfers: Vec<Transfer>,
    /// Copies to remove, in the order of the files.
    pub removals: Vec<Removal>,
    /// Unwanted copies to remove, by their places in [`Inventory::unwanted`].
    pub cleanups: Vec<u32>,
    /// Transfers and removals that wait for a later round. (spec 7.19)
    pub put_off: usize,
}

impl Plan {
    /// Whether this round has nothing to do. (spec 7.8)
    pub fn is_empty(&self) -> bool {
        self.steps() == 0
    }

    /// How many copies this round sends and removes.
    pub fn steps(&self) -> usize {
        self.transfers.len() + self.removals.len() + self.cleanups.len()
    }

    /// Leaves out what these Dstores, by their places, were to do: they could not be told.
    pub fn leave_out(&mut self, inventory: &Inventory, unable: &BTreeSet<u32>) {
        if !unable.is_empty() {
            self.transfers.retain(|transfer| !unable.contains(&transfer.from));
            self.removals.retain(|removal| !unable.contains(&removal.from));
            self.cleanups.retain(|&unwanted| !unable.contains(&inventory.unwanted[unwanted as usize].0));
        }
    }

    /// Puts off what is not `kept`, and the removals that come with those transfers. (spec 7.17)
    fn put_off_transfers(&mut self, mut is_kept: impl FnMut(&Transfer) -> bool) {
        let before = self.steps();
        let mut unsent = Vec::new();
        self.transfers.retain(|transfer| {
            let is_kept = is_kept(transfer);
            if !is_kept {
                unsent.push((transfer.file, transfer.from));
            }
            is_kept
        });
        unsent.sort_unstable();
        self.removals.retain(|removal| unsent.binary_search(&(removal.file, removal.from)).is_err());
        self.put_off += before - self.steps();
    }
}

impl Inventory {
    /// What is to be done, in this round as far as it can be: every complete file to R Dstores, evenly (spec 4.6.3), and
    /// every unwanted copy away (spec 4.6.2).
    ///
    /// With fewer than `replicas` Dstores taking part no plan could give R copies, and there is none. (spec 4.6)
    pub fn plan(&self, replicas: usize) -> Plan {
        if self.dstores.len() < replicas {
            return Plan::default();
        }
        let mut plan = planner::plan(&self.holdings, replicas);
        self.spare_suspects(&mut plan);
        self.wait_for_newcomers(&mut plan);
        self.clean_up(&mut plan);
        plan
    }
}
