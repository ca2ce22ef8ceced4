//! Correcting the index by what the Dstores say they have. (spec 4.6.2, 7.16, 7.20)

use std::cmp::{Ordering, Reverse};
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::rebalance::{Holdings, is_newcomer};
use super::replica::{Event, Replica};
use super::{DstoreId, File, Index, Member, State};
use crate::protocol::{Address, FileName};

/// The file lists of the Dstores that answered in time. The others are *silent*: nothing is known of their copies,
/// and silence is not proof of loss. (spec 7.16)
#[derive(Debug, Default)]
pub struct Lists {
    answered: Vec<DstoreId>,
    /// In order of name, then Dstore; each pair once.
    copies: Vec<(FileName, DstoreId)>,
}

impl Lists {
    /// Sorts and merges the answers; the costly part, and no lock is needed for it.
    pub fn new(lists: BTreeMap<DstoreId, Vec<FileName>>) -> Self {
        let answered = lists.keys().copied().collect();
        let mut copies = Vec::with_capacity(lists.values().map(Vec::len).sum());
        // The next name of each list, the smallest on top: what is compared stays in the processor's cache.
        let mut heads = BinaryHeap::with_capacity(lists.len());
        for (dstore, mut names) in lists {
            names.sort_unstable();
            names.dedup();
            let mut rest = names.into_iter();
            heads.extend(rest.next().map(|name| Head(Reverse((name, dstore)), rest)));
        }
        while let Some(mut top) = heads.peek_mut() {
            let Head(Reverse(first), rest) = &mut *top;
            let copy = match rest.next() {
                Some(name) => {
                    let dstore = first.1;
                    std::mem::replace(first, (name, dstore))
                }
                None => PeekMut::pop(top).0.0,
            };
            copies.push(copy);
        }
        Self { answered, copies }
    }
}

/// The first copy that a list has left, and the list's other names. Ordered by the former.
struct Head(Reverse<(FileName, DstoreId)>, std::vec::IntoIter<FileName>);

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

/// What a rebalance starts from, after the index has been corrected: the planner's input, with the names and
/// addresses behind its numbers.
#[derive(Debug)]
pub struct Inventory {
    /// The Dstores that take part, in order of joining.
    pub dstores: Vec<(DstoreId, Address)>,
    /// The complete files of which at least one copy is certain, in order of name, with their sizes.
    pub files: Vec<(FileName, u64)>,
    /// The certain holders of each of them; files and Dstores are numbered by their places above.
    pub holdings: Holdings,
    /// Those of `dstores`, by place, that seem unable to store anything.
    pub suspects: BTreeSet<u32>,
    /// Copies that are to go, by Dstore: of files that the index does not have or is removing, and copies that were not
    /// ordered or were overwritten.
    pub unwanted: Vec<(u32, FileName)>,
}

impl Index {
    /// Corrects the index by `lists`. No operation is in progress meanwhile. (spec 4.6.2)
    ///
    /// A copy on a Dstore where the index did not expect one may be the debris of an earlier file of the same name: it
    /// is not counted while an expected copy exists. Where all expected ones are certainly gone it is the file.
    pub fn reconcile(&mut self, lists: &Lists) -> Inventory {
        let mut comparison = Comparison::new(self, lists);
        let before = self.files.len();
        self.files.retain(|name, file| comparison.correct(name, file));
        self.version += u64::from(self.files.len() < before);
        comparison.correct_members(&mut self.members)
    }
}

/// The index beside the lists, walked through together in order of name.
struct Comparison<'a> {
    /// What the lists tell of each Dstore, by the number of its membership.
    standings: Vec<Standing>,
    /// The listed copies that the walk has not come to.
    rest: &'a [(FileName, DstoreId)],
    /// The Dstores that list the file that is looked at.
    listers: Vec<DstoreId>,
    inventory: Inventory,
}

/// What the lists tell of a Dstore.
struct Standing {
    presence: Presence,
    /// Copies that the corrected index has on it.
    load: usize,
    /// Whether copies were coming to it, and whether any has come.
    arrivals: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Left,
    Silent,
    /// It takes part, and this is its place in [`Inventory::dstores`].
    Answered(u32),
}

impl<'a> Comparison<'a> {
    fn new(index: &Index, lists: &'a Lists) -> Self {
        let gone = || Standing { presence: Presence::Left, load: 0, arrivals: None };
        let mut standings: Vec<_> = (0..index.joins).map(|_| gone()).collect();
        let mut dstores = Vec::new();
        for (&dstore, member) in &index.members {
            standings[dstore.place()].presence = if lists.answered.binary_search(&dstore).is_ok() {
                dstores.push((dstore, member.address.clone()));
                Presence::Answered(dstores.len() as u32 - 1)
            } else {
                Presence::Silent
            };
        }
        let inventory = Inventory {
            holdings: Holdings::new(dstores.len()),
            dstores,
            files: Vec::new(),
            suspects: BTreeSet::new(),
            unwanted: Vec::new(),
        };
        Self { standings, rest: &lists.copies, listers: Vec::new(), inventory }
    }

    /// Corrects the next file; false if nothing is left of it. What is listed up to its name is unwanted.
    fn correct(&mut self, name: &FileName, file: &mut File) -> bool {
        self.walk_to(Some(name));
        match &mut file.state {
            State::Removing(removing) if removing.abandoned => {
                removing.awaited.retain(|dstore| self.presence(*dstore) == Presence::Silent);
                removing.awaited.extend(&self.listers);
                for at in 0..self.listers.len() {
                    self.discard(self.listers[at], name);
                }
            }
            State::Storing(_) | State::Removing(_) => {}
            State::Stored { replicas } => {
                replicas.retain(|replica| self.presence(replica.dstore) != Presence::Left);
                for replica in replicas.iter().filter(|replica| replica.is_coming()) {
                    let has_come = self.listers.contains(&replica.dstore);
                    *self.standings[replica.dstore.place()].arrivals.get_or_insert(false) |= has_come;
                }
                for dstore in self.correct_replicas(replicas) {
                    self.discard(dstore, name);
                }
                self.take_stock(name, file.size, replicas);
            }
        }
        let mut holders = 0;
        file.state.for_each_holder(|dstore| {
            self.standings[dstore.place()].load += 1;
            holders += 1;
        });
        holders > 0
    }

    /// Has `listers` be those of this file; whatever the lists have before it is of no file, and unwanted.
    fn walk_to(&mut self, name: Option<&FileName>) {
        self.listers.clear();
        while let Some(((listed, dstore), rest)) = self.rest.split_first()
            && name.is_none_or(|name| listed <= name)
        {
            self.rest = rest;
            if self.presence(*dstore) == Presence::Left {
                continue;
            }
            if Some(listed) == name { self.listers.push(*dstore) } else { self.discard(*dstore, listed) }
        }
    }

    /// Makes a complete file's replicas those that are listed and those that may yet turn out to exist; returns the
    /// Dstores whose copies are not to be trusted.
    fn correct_replicas(&self, replicas: &mut Vec<Replica>) -> Vec<DstoreId> {
        let is_silent = |dstore| self.presence(dstore) == Presence::Silent;
        // An order that has not been reported concerns two Dstores: only when both are heard can their doubts settle.
        let is_order_over = !replicas.iter().any(|replica| replica.is_under_order() && is_silent(replica.dstore));
        let mut untrusted = self.listers.clone();
        let mut has_trusted = false;
        replicas.retain_mut(|replica| {
            let dstore = replica.dstore;
            if is_silent(dstore) {
                return true;
            }
            if !self.listers.contains(&dstore) {
                return replica.hear(Event::NotListed { is_order_over });
            }
            replica.hear(Event::Listed);
            if replica.is_certain() {
                untrusted.retain(|&lister| lister != dstore);
                has_trusted = true;
            }
            true
        });
        let is_untrusted = |replica: &Replica| untrusted.contains(&replica.dstore);
        if has_trusted {
            replicas.retain(|replica| !is_untrusted(replica));
            return untrusted;
        }
        if replicas.iter().all(is_untrusted) {
            // Nothing better is left: this is the file.
            *replicas = untrusted.into_iter().map(Replica::certain).collect();
        }
        // Else, with only silent or doubtful replicas, one that is not trusted may be the last: neither used nor removed.
        Vec::new()
    }

    /// Enters a complete file into the inventory, unless no copy is certain.
    fn take_stock(&mut self, name: &FileName, size: u64, replicas: &[Replica]) {
        let certain = replicas.iter().filter(|replica| replica.is_certain());
        let place = |replica: &Replica| match self.standings[replica.dstore.place()].presence {
            Presence::Answered(place) => Some(place),
            Presence::Silent | Presence::Left => None,
        };
        let mut holders = certain.filter_map(place).peekable();
        if holders.peek().is_some() {
            self.inventory.holdings.push(holders);
            self.inventory.files.push((name.clone(), size));
        }
    }

    /// What the lists say of the members themselves.
    fn correct_members(mut self, members: &mut BTreeMap<DstoreId, Member>) -> Inventory {
        self.walk_to(None);
        // Once all Dstores have answered, none is still carrying out an order.
        let is_evident = self.inventory.dstores.len() == members.len();
        for (&dstore, member) in &mut *members {
            let standing = &self.standings[dstore.place()];
            member.load = standing.load;
            match standing.arrivals {
                Some(true) => member.is_suspect = false,
                Some(false) if is_evident => member.is_suspect = true,
                _ => {}
            }
            if standing.presence != Presence::Silent {
                member.pending_removes.clear(); // it has come to all earlier orders: lists are made between them
                member.lists_answered = member.lists_answered.saturating_add(1);
            }
        }
        let most = members.values().map(|member| member.lists_answered).max().unwrap_or(0);
        for (place, (dstore, _)) in (0..).zip(&self.inventory.dstores) {
            let member = &members[dstore];
            if member.is_suspect {
                self.inventory.suspects.insert(place);
            }
            if is_newcomer(member.lists_answered, most) {
                self.inventory.holdings.mark_newcomer(place);
            }
        }
        self.inventory
    }

    fn discard(&mut self, dstore: DstoreId, name: &FileName) {
        if let Presence::Answered(place) = self.presence(dstore) {
            self.inventory.unwanted.push((place, name.clone()));
        }
    }

    fn presence(&self, dstore: DstoreId) -> Presence {
        self.standings[dstore.place()].presence
    }
}
