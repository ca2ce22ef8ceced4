//! How much one Dstore is given to do in one round. (spec 7.19)
//!
//! A Dstore reports once, when all of its order is done, and has the timeout to do it in. A plan of a million copies is
//! therefore cut into rounds. The coordinator learns how large they may be from how long the last ones took.

use super::Plan;
use crate::index::Inventory;

/// What one Dstore may be given to do, or what it is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Copies sent.
    pub copies: usize,
    /// Bytes sent.
    pub bytes: u64,
    /// Files removed, which is much less work for each.
    pub removes: usize,
}

impl Budget {
    /// The larger of the two in each respect.
    pub fn max(self, other: Self) -> Self {
        Self {
            copies: self.copies.max(other.copies),
            bytes: self.bytes.max(other.bytes),
            removes: self.removes.max(other.removes),
        }
    }
}

impl Plan {
    /// Puts off what goes beyond each Dstore's `budget`, but never all: at least one step of each kind stays.
    ///
    /// A copy whose sending is put off is not removed either. (spec 7.17, 7.19)
    pub fn cut(&mut self, inventory: &Inventory, budget: Budget) {
        let mut given = vec![Budget::default(); inventory.dstores.len()];
        // A Dstore's first copy that does not fit is the end of its order: large files have their turn, too.
        let mut is_full = vec![false; inventory.dstores.len()];
        self.put_off_transfers(|transfer| {
            let size = inventory.files[transfer.file as usize].1;
            let (given, is_full) = (&mut given[transfer.from as usize], &mut is_full[transfer.from as usize]);
            let fits = given.copies < budget.copies && given.bytes.saturating_add(size) <= budget.bytes;
            *is_full |= given.copies > 0 && !fits;
            if !*is_full {
                given.copies += 1;
                given.bytes = given.bytes.saturating_add(size);
            }
            !*is_full
        });
        let before = self.steps();
        let most = budget.removes.max(1);
        let mut takes = |from: u32| {
            let removes = &mut given[from as usize].removes;
            *removes += 1;
            *removes <= most
        };
        self.removals.retain(|removal| takes(removal.from));
        self.cleanups.retain(|&unwanted| takes(inventory.unwanted[unwanted as usize].0));
        self.put_off += before - self.steps();
    }

    /// What each Dstore is given to do, by its place in the inventory.
    pub fn extents(&self, inventory: &Inventory) -> Vec<Budget> {
        let mut extents = vec![Budget::default(); inventory.dstores.len()];
        for transfer in &self.transfers {
            let extent = &mut extents[transfer.from as usize];
            extent.copies += 1;
            extent.bytes = extent.bytes.saturating_add(inventory.files[transfer.file as usize].1);
        }
        let cleanups = self.cleanups.iter().map(|&unwanted| inventory.unwanted[unwanted as usize].0);
        for from in self.removals.iter().map(|removal| removal.from).chain(cleanups) {
            extents[from as usize].removes += 1;
        }
        extents
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Holdings, Removal, Transfer};
    use super::*;
    use crate::index::Index;
    use crate::protocol::Address;

    /// Three Dstores, and files of 7 bytes.
    fn inventory(files: &str) -> Inventory {
        let mut index = Index::new(1);
        let addresses = [1, 2, 3].map(|port| Address::local(port).unwrap());
        Inventory {
            dstores: addresses.map(|address| (index.join(address.clone()), address)).to_vec(),
            files: files.chars().map(|file| (file.to_string().parse().unwrap(), 7)).collect(),
            holdings: Holdings::new(3),
            suspects: BTreeSet::new(),
            unwanted: vec![(0, "x".parse().unwrap())],
        }
    }

    #[test]
    fn a_round_takes_what_fits_and_removes_no_file_still_to_be_sent() {
        // spec 7.17, 7.19
        let inventory = inventory("abc");
        let transfers = [(0, 1), (1, 1), (1, 2), (2, 2)].map(|(file, to)| Transfer { file, from: 0, to }).to_vec();
        let removals = [0, 1, 2].map(|file| Removal { file, from: 0 }).to_vec();
        let plan = Plan { transfers, removals, cleanups: vec![0], put_off: 0 };
        let all = Budget { copies: 4, bytes: 28, removes: 4 };
        assert_eq!(plan.extents(&inventory), [all, Budget::default(), Budget::default()]);
        let cut = |copies, bytes, removes| {
            let mut plan = plan.clone();
            plan.cut(&inventory, Budget { copies, bytes, removes });
            let order = inventory.orders(&plan).swap_remove(0);
            let sends = order.sends.iter().map(|send| send.name.to_string().repeat(send.to.len())).collect::<String>();
            (sends, order.removes.iter().map(|name| name.to_string()).collect::<String>(), plan.put_off)
        };
        let is = |sends: &str, removes: &str, put_off| (sends.to_owned(), removes.to_owned(), put_off);
        assert_eq!(cut(4, 28, 4), is("abbc", "abcx", 0));
        assert_eq!(cut(4, 28, 3), is("abbc", "abc", 1));
        assert_eq!(cut(4, 27, 9), is("abb", "abx", 2));
        assert_eq!(cut(2, 99, 9), is("ab", "ax", 4));
        assert_eq!(cut(2, 99, 1), is("ab", "a", 5));
        assert_eq!(cut(0, 1, 0), is("a", "a", 6), "at least one step of each kind, or it would never end");
    }

    #[test]
    fn each_dstore_has_a_budget_of_its_own() {
        // spec 7.19
        let inventory = inventory("ab");
        let transfers = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(file, from)| Transfer { file, from, to: 2 }).to_vec();
        let mut plan = Plan { transfers, ..Plan::default() };
        plan.cut(&inventory, Budget { copies: 1, bytes: u64::MAX, removes: 1 });
        assert_eq!(plan.transfers.iter().map(|transfer| transfer.from).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(plan.put_off, 2);
    }
}
