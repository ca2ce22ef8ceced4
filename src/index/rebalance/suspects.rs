//! What is asked of Dstores that seem unable to store anything. (spec 4.6.3, 7.17)
//!
//! A *suspect* is a member that did not acknowledge a store which others did, or does not have what a rebalance sent it
//! (see [`Member::is_suspect`](super::super::Member)): its disk is full, say, or it hangs. It holds fewest, so the planner
//! would give it the next copies again and again, and no file that lacks a copy would ever get one.
//!
//! So replication comes before balance. A copy that a file *lacks* goes to another Dstore, where there is one. Copies that
//! only *balance* would move to the suspect wait, all but one. With that one the suspect can prove that it stores, and nothing
//! is removed in its favour. Once it has been seen to store something it is a suspect no longer, and gets its share.

use std::collections::BTreeSet;

use super::{Plan, Transfer};
use crate::index::Inventory;

impl Inventory {
    /// Has no file depend on a suspect.
    pub(super) fn spare_suspects(&self, plan: &mut Plan) {
        if self.suspects.is_empty() {
            return;
        }
        let before = plan.steps();
        let mut loads = self.loads_after(plan);
        let (mut transfers, mut stay, mut proving) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for of_file in plan.transfers.chunk_by(|one, next| one.file == next.file) {
            let file = of_file[0].file;
            let removals = &plan.removals[plan.removals.partition_point(|removal| removal.file < file)..];
            let mut kept: Vec<Transfer> = Vec::new();
            for (at, transfer) in of_file.iter().enumerate() {
                // The planner pairs each copy that goes with one that comes; transfers beyond those make up for a lack.
                let is_move =
                    removals.get(at).is_some_and(|removal| (removal.file, removal.from) == (file, transfer.from));
                if !self.suspects.contains(&transfer.to) {
                    kept.push(*transfer);
                } else if is_move {
                    stay.insert((file, transfer.from));
                    if proving.insert(transfer.to) {
                        kept.push(*transfer);
                    }
                } else {
                    let has_or_gets = |place: &u32| {
                        let mut receivers = of_file.iter().chain(&kept).map(|transfer| transfer.to);
                        self.holdings.holders(file as usize).contains(place) || receivers.any(|to| to == *place)
                    };
                    let others = (0..self.dstores.len() as u32).filter(|place| !self.suspects.contains(place));
                    let idlest = others.filter(|place| !has_or_gets(place)).min_by_key(|place| loads[*place as usize]);
                    let to = idlest.unwrap_or(transfer.to);
                    loads[to as usize] += 1;
                    kept.push(Transfer { to, ..*transfer });
                }
            }
            transfers.extend(kept);
        }
        plan.transfers = transfers;
        plan.removals.retain(|removal| !stay.contains(&(removal.file, removal.from)));
        plan.put_off += before - plan.steps();
    }

    /// How many copies each Dstore has once the plan is carried out.
    fn loads_after(&self, plan: &Plan) -> Vec<usize> {
        let mut loads = vec![0_usize; self.dstores.len()];
        let held = (0..self.holdings.files()).flat_map(|file| self.holdings.holders(file).iter().copied());
        let sent = plan.transfers.iter().map(|transfer| transfer.to);
        held.chain(sent).for_each(|place| loads[place as usize] += 1);
        plan.removals.iter().for_each(|removal| loads[removal.from as usize] -= 1);
        loads
    }
}
