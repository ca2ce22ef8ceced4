//! From a plan to what each Dstore is told, and from what they report to what the index believes.
//! (spec 4.6.4, 4.6.6, 7.20)

use std::collections::BTreeSet;

use super::Plan;
use crate::index::replica::{Event, Replica};
use crate::index::{DstoreId, Index, Inventory, State, take};
use crate::protocol::{self, FileName, Order};

impl Inventory {
    /// Adds the removal of all that is unwanted to the plan.
    ///
    /// A Dstore that has an unwanted copy gets a good one only once the other is gone, in a later round: if the send
    /// failed, the next LIST could not tell the two apart.
    pub(super) fn clean_up(&self, plan: &mut Plan) {
        plan.cleanups = (0..self.unwanted.len() as u32).collect();
        let number = |name: &FileName| self.files.binary_search_by(|(other, _)| other.cmp(name)).ok();
        let places = self.unwanted.iter().filter_map(|(place, name)| Some((number(name)? as u32, *place)));
        let occupied: BTreeSet<(u32, u32)> = places.collect();
        if !occupied.is_empty() {
            plan.put_off_transfers(|transfer| !occupied.contains(&(transfer.file, transfer.to)));
        }
    }

    /// What each Dstore that takes part is told, in the same order; an empty order where it has nothing to do.
    /// (spec 4.6.4, 7.8)
    pub fn orders(&self, plan: &Plan) -> Vec<Order> {
        let mut orders: Vec<_> = self.dstores.iter().map(|_| Order::default()).collect();
        for transfer in &plan.transfers {
            let (name, to) = (&self.files[transfer.file as usize].0, self.dstores[transfer.to as usize].1.clone());
            let sends = &mut orders[transfer.from as usize].sends;
            match sends.last_mut() {
                // They come in the order of the files: one file's are neighbours.
                Some(last) if last.name == *name => last.to.push(to),
                _ => sends.push(protocol::Transfer { name: name.clone(), to: vec![to] }),
            }
        }
        for removal in &plan.removals {
            orders[removal.from as usize].removes.push(self.files[removal.file as usize].0.clone());
        }
        for &unwanted in &plan.cleanups {
            let (from, name) = &self.unwanted[unwanted as usize];
            orders[*from as usize].removes.push(name.clone());
        }
        orders
    }
}

impl Index {
    /// Makes the index say what is known to be true after the `plan` was given out, and the Dstores in `reported` said
    /// that they had done all of their parts. Where one did not, what it was to do may or may not have happened.
    /// (spec 4.6.6, 7.20)
    pub fn confirm(&mut self, inventory: &Inventory, plan: &Plan, reported: &BTreeSet<DstoreId>) {
        let is_done: Vec<_> = inventory.dstores.iter().map(|(dstore, _)| reported.contains(dstore)).collect();
        let dstore = |place: u32| inventory.dstores[place as usize].0;
        let file = |number: u32| &inventory.files[number as usize].0;
        for transfer in &plan.transfers {
            self.confirm_transfer(file(transfer.file), dstore(transfer.to), is_done[transfer.from as usize]);
        }
        for removal in &plan.removals {
            self.confirm_removal(file(removal.file), dstore(removal.from), is_done[removal.from as usize]);
        }
        for &unwanted in &plan.cleanups {
            let (from, name) = &inventory.unwanted[unwanted as usize];
            self.confirm_removal(name, dstore(*from), is_done[*from as usize]);
        }
    }

    fn confirm_transfer(&mut self, name: &FileName, to: DstoreId, is_done: bool) {
        // A Dstore that has left in the meantime has taken its copy with it.
        let Some(member) = self.members.get_mut(&to) else { return };
        member.is_suspect &= !is_done;
        let Some(State::Stored { replicas }) = self.files.get_mut(name).map(|file| &mut file.state) else { return };
        match replicas.iter_mut().find(|replica| replica.dstore == to) {
            Some(replica) => {
                replica.hear(if is_done { Event::Sent } else { Event::SendUnreported });
            }
            None => {
                replicas.push(if is_done { Replica::certain(to) } else { Replica::coming(to) });
                member.load += 1;
            }
        }
    }

    fn confirm_removal(&mut self, name: &FileName, from: DstoreId, is_done: bool) {
        match self.files.get_mut(name).map(|file| &mut file.state) {
            Some(State::Stored { replicas }) if replicas.iter().any(|replica| replica.dstore == from) => {
                if is_done {
                    replicas.retain(|replica| replica.dstore != from);
                    self.reduce_load(from);
                } else {
                    for replica in replicas.iter_mut().filter(|replica| replica.dstore == from) {
                        replica.hear(Event::RemovalUnreported);
                    }
                }
            }
            Some(State::Removing(removing)) if is_done => {
                if take(&mut removing.awaited, from) {
                    if removing.awaited.is_empty() {
                        self.files.remove(name);
                    }
                    self.reduce_load(from);
                }
            }
            _ if is_done => {}
            // The index does not say that it has the file; but when it comes to the order, it may have a new one.
            _ => drop(self.members.get_mut(&from).map(|member| member.pending_removes.insert(name.clone()))),
        }
    }
}
