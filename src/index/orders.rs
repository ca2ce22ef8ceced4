//! From a plan to what each Dstore is told, and from what they report to what the index believes.
//! (spec 4.6.4, 4.6.6, 7.19, 7.20)

use std::collections::{BTreeMap, BTreeSet};

use super::rebalance::{self, Plan};
use super::{Certainty, Copy, DstoreId, Index, Inventory, State, take};
use crate::protocol::{FileName, Order, Transfer};

/// What each Dstore that has anything to do is to do.
pub type Orders = BTreeMap<DstoreId, DstoreOrder>;

/// One Dstore's part of a plan. (spec 4.6.4)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DstoreOrder {
    /// The files to send.
    pub sends: Vec<FileTransfer>,
    /// The files to remove once everything is sent.
    pub removes: Vec<FileName>,
    /// There is more for it to do, in a later round.
    pub is_partial: bool,
}

/// One file that a Dstore is to send to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTransfer {
    /// The file.
    pub name: FileName,
    /// Its size in bytes.
    pub size: u64,
    /// Who is to get it.
    pub to: Vec<DstoreId>,
}

/// How much one Dstore is given to do in one round. (spec 7.19)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Copies sent.
    pub copies: usize,
    /// Bytes sent.
    pub bytes: u64,
    /// Files removed, which is much less work for each.
    pub removes: usize,
}

impl Inventory {
    /// Plans, and words the plan: the planner's moves, and everything unwanted. (spec 4.6.3, 4.6.4)
    ///
    /// With fewer than `replicas` Dstores taking part no plan could give R copies, and there is none. (spec 4.6)
    pub fn orders(&self, replicas: usize) -> Orders {
        if self.dstores.len() < replicas {
            return Orders::new();
        }
        let mut plan = rebalance::plan(&self.holdings, replicas);
        let waiting = self.spare_suspects(&mut plan);
        let Plan { sends, removes } = plan;
        let unwanted: BTreeSet<(DstoreId, &FileName)> =
            self.unwanted.iter().map(|(dstore, name)| (*dstore, name)).collect();
        let mut orders = Orders::new();
        // A Dstore that has a copy nobody trusts gets a good one only once the other is gone, in a later round: if the
        // send failed, the next LIST could not tell the two apart. Who was to send it keeps its own. (spec 7.17)
        let mut put_off = BTreeSet::new();
        for send in &sends {
            let (name, size) = &self.files[send.file as usize];
            let to = self.dstores[send.to as usize].0;
            let order: &mut DstoreOrder = orders.entry(self.dstores[send.from as usize].0).or_default();
            if unwanted.contains(&(to, name)) {
                put_off.insert((send.file, send.from));
                order.is_partial = true;
                continue;
            }
            match order.sends.last_mut() {
                // The planner's sends come in order of file: one file's are neighbours.
                Some(transfer) if transfer.name == *name => transfer.to.push(to),
                _ => order.sends.push(FileTransfer { name: name.clone(), size: *size, to: vec![to] }),
            }
        }
        for remove in removes.iter().filter(|remove| !put_off.contains(&(remove.file, remove.from))) {
            let order = orders.entry(self.dstores[remove.from as usize].0).or_default();
            order.removes.push(self.files[remove.file as usize].0.clone());
        }
        for (dstore, name) in &self.unwanted {
            orders.entry(*dstore).or_default().removes.push(name.clone());
        }
        for place in waiting {
            orders.entry(self.dstores[place as usize].0).or_default().is_partial = true;
        }
        orders
    }

    /// Replication comes before balance, and does not depend on a suspect: a copy that a file lacks is sent to somebody
    /// else where anybody is left. Of the copies that only balance asks for, a suspect gets one to prove itself by, and
    /// nothing is removed for that; returns who has more to do once it has.
    fn spare_suspects(&self, plan: &mut Plan) -> BTreeSet<u32> {
        let mut waiting = BTreeSet::new();
        if self.suspects.is_empty() {
            return waiting;
        }
        let mut loads = vec![0_usize; self.dstores.len()];
        let held = (0..self.holdings.files()).flat_map(|file| self.holdings.holders(file));
        held.copied().chain(plan.sends.iter().map(|send| send.to)).for_each(|place| loads[place as usize] += 1);
        plan.removes.iter().for_each(|remove| loads[remove.from as usize] -= 1);

        let (mut sends, mut stay, mut proving) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for of_file in plan.sends.chunk_by(|one, next| one.file == next.file) {
            let file = of_file[0].file;
            let removes = &plan.removes[plan.removes.partition_point(|remove| remove.file < file)..];
            let mut kept: Vec<rebalance::Send> = Vec::new();
            for (at, send) in of_file.iter().enumerate() {
                // The planner pairs each copy that goes with one that comes; the sends beyond those make up for a lack.
                let is_move = removes.get(at).is_some_and(|remove| (remove.file, remove.from) == (file, send.from));
                if !self.suspects.contains(&send.to) {
                    kept.push(*send);
                } else if is_move {
                    stay.insert((file, send.from));
                    waiting.insert(send.from);
                    if proving.insert(send.to) {
                        kept.push(*send);
                    }
                } else {
                    let has_or_gets = |place: &u32| {
                        let mut receivers = of_file.iter().chain(&kept).map(|send| send.to);
                        self.holdings.holders(file as usize).contains(place) || receivers.any(|to| to == *place)
                    };
                    let others = (0..self.dstores.len() as u32).filter(|place| !self.suspects.contains(place));
                    let idlest = others.filter(|place| !has_or_gets(place)).min_by_key(|place| loads[*place as usize]);
                    let to = idlest.unwrap_or(send.to);
                    loads[to as usize] += 1;
                    kept.push(rebalance::Send { to, ..*send });
                }
            }
            sends.extend(kept);
        }
        plan.sends = sends;
        plan.removes.retain(|remove| !stay.contains(&(remove.file, remove.from)));
        waiting
    }

    /// The order as the protocol words it.
    pub fn to_message(&self, order: &DstoreOrder) -> Order {
        let address = |dstore: &DstoreId| {
            let at = self.dstores.binary_search_by_key(dstore, |(other, _)| *other).expect("orders name participants");
            self.dstores[at].1.clone()
        };
        let word = |transfer: &FileTransfer| Transfer {
            name: transfer.name.clone(),
            to: transfer.to.iter().map(address).collect(),
        };
        Order { sends: order.sends.iter().map(word).collect(), removes: order.removes.clone() }
    }
}

impl DstoreOrder {
    /// Copies to send and files to remove.
    pub fn steps(&self) -> usize {
        let Budget { copies, removes, .. } = self.extent();
        copies + removes
    }

    /// What a budget must be to allow all of it.
    pub fn extent(&self) -> Budget {
        let bytes = |transfer: &FileTransfer| transfer.size.saturating_mul(transfer.to.len() as u64);
        Budget {
            copies: self.sends.iter().map(|transfer| transfer.to.len()).sum(),
            bytes: self.sends.iter().map(bytes).fold(0, u64::saturating_add),
            removes: self.removes.len(),
        }
    }

    /// Cuts the order down to what `budget` allows, but at least one step of each kind.
    ///
    /// A copy whose sending is put off is not removed either. (spec 7.17, 7.19)
    pub fn cut(&mut self, budget: Budget) {
        let mut left = budget;
        let mut sent = 0;
        for transfer in &self.sends {
            let copies = transfer.to.len();
            let bytes = transfer.size.saturating_mul(copies as u64);
            if sent > 0 && (copies > left.copies || bytes > left.bytes) {
                break;
            }
            left.copies = left.copies.saturating_sub(copies);
            left.bytes = left.bytes.saturating_sub(bytes);
            sent += 1;
        }
        let put_off: BTreeSet<FileName> = self.sends.drain(sent..).map(|transfer| transfer.name).collect();
        let removes = self.removes.len();
        self.removes.retain(|name| !put_off.contains(name));
        self.removes.truncate(budget.removes.max(1));
        self.is_partial |= !put_off.is_empty() || self.removes.len() < removes;
    }
}

impl Index {
    /// Makes the index say what is known to be true after `orders` were given and the Dstores in `reported` said that
    /// they had done all of theirs. Where one did not, what it was to do may or may not have happened.
    /// (spec 4.6.6, 7.20)
    pub fn confirm(&mut self, orders: &Orders, reported: &BTreeSet<DstoreId>) {
        for (&dstore, order) in orders {
            let is_done = reported.contains(&dstore);
            for transfer in &order.sends {
                for &to in &transfer.to {
                    self.confirm_send(&transfer.name, to, is_done);
                }
            }
            for name in &order.removes {
                self.confirm_remove(name, dstore, is_done);
            }
        }
    }

    fn confirm_send(&mut self, name: &FileName, to: DstoreId, is_done: bool) {
        // A Dstore that has left in the meantime has taken its copy with it.
        let Some(member) = self.members.get_mut(&to) else { return };
        member.is_suspect &= !is_done;
        let Some(State::Stored { copies }) = self.files.get_mut(name).map(|file| &mut file.state) else { return };
        match copies.iter_mut().find(|copy| copy.dstore == to) {
            Some(copy) if is_done => copy.certainty = Certainty::Certain,
            Some(copy) if copy.is_certain() => {}
            Some(copy) => copy.certainty = Certainty::Coming,
            None => {
                let certainty = if is_done { Certainty::Certain } else { Certainty::Coming };
                copies.push(Copy { dstore: to, certainty });
                member.load += 1;
            }
        }
    }

    fn confirm_remove(&mut self, name: &FileName, from: DstoreId, is_done: bool) {
        let is_expected = match self.files.get(name).map(|file| &file.state) {
            Some(State::Stored { copies }) => copies.iter().any(|copy| copy.dstore == from),
            _ => false,
        };
        if let (false, false, Some(member)) = (is_done, is_expected, self.members.get_mut(&from)) {
            member.pending_removes.insert(name.clone());
        }
        let Some(file) = self.files.get_mut(name) else { return };
        match &mut file.state {
            State::Storing(_) => {}
            State::Stored { copies } => {
                let Some(at) = copies.iter().position(|copy| copy.dstore == from) else { return };
                if is_done {
                    copies.remove(at);
                    self.reduce_load(from);
                } else {
                    copies[at].certainty = Certainty::Going;
                }
            }
            State::Removing(removing) => {
                if is_done && take(&mut removing.awaited, from) {
                    if removing.awaited.is_empty() {
                        self.files.remove(name);
                    }
                    self.reduce_load(from);
                }
            }
        }
    }
}
