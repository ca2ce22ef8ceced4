//! The layout that the plan leads to: which Dstores are to hold each file. Step 1 makes it, and the plan is read off it in the
//! end.

use super::Holdings;
use crate::index::rebalance::{Plan, Removal, Transfer};

/// Where the copies are to be when the plan has been carried out.
pub(super) struct Layout<'a> {
    pub holdings: &'a Holdings,
    pub replicas: usize,
    /// `replicas` Dstores for each file, one file after the other.
    pub slots: Vec<u32>,
    /// How many copies each Dstore is to have.
    pub loads: Vec<usize>,
}

impl<'a> Layout<'a> {
    /// The cheapest layout with `replicas` copies of each file, only roughly balanced.
    pub fn settle(holdings: &'a Holdings, replicas: usize) -> Self {
        let mut loads = vec![0; holdings.dstores()];
        for file in 0..holdings.files() {
            for &dstore in holdings.holders(file) {
                loads[dstore as usize] += 1;
            }
        }
        let mut slots = Vec::with_capacity(holdings.files() * replicas);
        for file in 0..holdings.files() {
            let start = slots.len();
            slots.extend_from_slice(holdings.holders(file));
            let kept = &mut slots[start..];
            if kept.len() > replicas {
                kept.sort_unstable_by_key(|&d| (loads[d as usize], d));
                // One that has not just joined is kept before all others.
                if let Some(at) = kept.iter().position(|&d| !holdings.is_newcomer(d)) {
                    kept[..=at].rotate_right(1);
                }
                for &dropped in &kept[replicas..] {
                    loads[dropped as usize] -= 1;
                }
            }
            slots.resize(start + replicas, 0);
        }
        let mut layout = Self { holdings, replicas, slots, loads };
        layout.fill();
        layout
    }

    /// Assigns the copies that files lack to the Dstores that have the fewest.
    fn fill(&mut self) {
        let loads = &mut self.loads;
        let mut by_load: Vec<u32> = (0..self.holdings.dstores() as u32).collect();
        by_load.sort_by_key(|&d| loads[d as usize]);
        for file in 0..self.holdings.files() {
            let slots = &mut self.slots[file * self.replicas..][..self.replicas];
            for slot in self.holdings.holders(file).len()..self.replicas {
                let place = by_load.iter().position(|d| !slots[..slot].contains(d));
                let place = place.expect("R is at most N");
                let dstore = by_load[place];
                slots[slot] = dstore;
                // The order stays true if the last of its equals is the one to grow.
                let load = loads[dstore as usize];
                let last = by_load.partition_point(|&d| loads[d as usize] <= load) - 1;
                by_load.swap(place, last);
                loads[dstore as usize] += 1;
            }
        }
    }

    /// Whether the copy of `file` on `dstore` is the only one that is not on a newcomer.
    pub fn is_last_of_old(&self, file: usize, dstore: u32) -> bool {
        let is_old = |&d: &u32| !self.holdings.is_newcomer(d);
        is_old(&dstore) && self.slots(file).iter().copied().filter(is_old).all(|d| d == dstore)
    }

    /// How to get from the holdings to this layout.
    pub fn into_plan(self) -> Plan {
        let mut plan = Plan::default();
        let mut sent = vec![0_usize; self.holdings.dstores()];
        let mut losers = Vec::new();
        let mut receivers = Vec::new();
        for file in 0..self.holdings.files() {
            let (holders, slots) = (self.holdings.holders(file), self.slots(file));
            losers.clear();
            losers.extend(holders.iter().copied().filter(|d| !slots.contains(d)));
            receivers.clear();
            receivers.extend(slots.iter().copied().filter(|d| !holders.contains(d)));

            // Each copy that goes is sent to one that comes, by the Dstore that loses it: if the
            // send fails, the old copy is still there. (spec 7.17) Copies that go beyond those are
            // more than R, and no file depends on them.
            losers.sort_by_key(|&d| sent[d as usize]);
            for (i, &to) in receivers.iter().enumerate() {
                let idlest = || holders.iter().copied().min_by_key(|&d| sent[d as usize]);
                let from = losers.get(i).copied().or_else(idlest).expect("a file has a holder");
                sent[from as usize] += 1;
                plan.transfers.push(Transfer { file: file as u32, from, to });
            }
            plan.removals.extend(losers.iter().map(|&from| Removal { file: file as u32, from }));
        }
        plan
    }

    /// The Dstores that `file` is to be on.
    pub fn slots(&self, file: usize) -> &[u32] {
        &self.slots[file * self.replicas..][..self.replicas]
    }

    /// Whether `file` has more holders than it may keep; if not, it keeps all of them until step 3.
    pub fn has_spare_holders(&self, file: usize) -> bool {
        self.holdings.holders(file).len() > self.replicas
    }

    /// Moves the copy of `file` that was to be on `from` to `to`.
    pub fn relocate(&mut self, file: usize, from: u32, to: u32) {
        let slots = &mut self.slots[file * self.replicas..][..self.replicas];
        let slot = slots.iter_mut().find(|slot| **slot == from);
        *slot.expect("only a copy that is there moves") = to;
        self.loads[from as usize] -= 1;
        self.loads[to as usize] += 1;
    }
}
