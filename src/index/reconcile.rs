//! Correcting the index by what the Dstores say they have. (spec 4.6.2, 7.16, 7.20)

use std::cmp::{Ordering, Reverse};
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::rebalance::Holdings;
use super::{Certainty, Copy, DstoreId, Index, State};
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
    /// The complete files of which at least one copy is certain, with their sizes.
    pub files: Vec<(FileName, u64)>,
    /// Who certainly holds each of them; both sides numbered by their place above.
    pub holdings: Holdings,
    /// Those of `dstores`, by place, that seem unable to store anything.
    pub suspects: BTreeSet<u32>,
    /// Copies that are to go: of files that the index does not have or is removing, and copies nobody ordered.
    pub unwanted: Vec<(DstoreId, FileName)>,
}

/// What the lists tell of a Dstore, by the number of its membership.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Left,
    Silent,
    /// It takes part, and this is its place in [`Inventory::dstores`].
    Answered(u32),
}

impl Index {
    /// Corrects the index by `lists`. No operation is in progress meanwhile. (spec 4.6.2)
    ///
    /// A copy on a Dstore where the index did not expect one may be the debris of an earlier file of the same name: it
    /// is not counted while an expected copy exists. Where all expected ones are certainly gone it is the file.
    pub fn reconcile(&mut self, lists: &Lists) -> Inventory {
        let mut dstores = Vec::new();
        let mut standings = vec![Standing::Left; self.joins as usize];
        for (&dstore, member) in &self.members {
            standings[dstore.place()] = if lists.answered.binary_search(&dstore).is_ok() {
                dstores.push((dstore, member.address.clone()));
                Standing::Answered(dstores.len() as u32 - 1)
            } else {
                Standing::Silent
            };
        }
        let mut loads = vec![0; standings.len()];
        let mut inventory = Inventory {
            holdings: Holdings::new(dstores.len()),
            dstores,
            files: Vec::new(),
            suspects: BTreeSet::new(),
            unwanted: Vec::new(),
        };
        // By membership: whether copies were coming, and whether any of them has come.
        let mut arrivals = vec![None; standings.len()];
        let is_silent = |dstore: &DstoreId| standings[dstore.place()] == Standing::Silent;

        let is_member = |dstore: DstoreId| standings[dstore.place()] != Standing::Left;
        let mut listed = lists.copies.iter().filter(|(_, dstore)| is_member(*dstore)).peekable();
        let mut listers = Vec::new();
        let files = self.files.len();
        self.files.retain(|name, file| {
            while let Some((orphan, dstore)) = listed.next_if(|(other, _)| other < name) {
                inventory.unwanted.push((*dstore, orphan.clone()));
            }
            listers.clear();
            while let Some((_, dstore)) = listed.next_if(|(other, _)| other == name) {
                listers.push(*dstore);
            }
            match &mut file.state {
                State::Removing(removing) if removing.abandoned => {
                    removing.awaited.retain(is_silent);
                    removing.awaited.extend(&listers);
                    inventory.unwanted.extend(listers.iter().map(|&dstore| (dstore, name.clone())));
                }
                State::Storing(_) | State::Removing(_) => {}
                State::Stored { copies } => {
                    copies.retain(|copy| is_member(copy.dstore));
                    for copy in copies.iter().filter(|copy| copy.certainty == Certainty::Coming) {
                        *arrivals[copy.dstore.place()].get_or_insert(false) |= listers.contains(&copy.dstore);
                    }
                    let unexpected = correct(copies, &listers, is_silent);
                    inventory.unwanted.extend(unexpected.into_iter().map(|dstore| (dstore, name.clone())));
                    let certain = copies.iter().filter(|copy| copy.is_certain());
                    let mut holders = certain
                        .filter_map(|copy| match standings[copy.dstore.place()] {
                            Standing::Answered(number) => Some(number),
                            Standing::Silent | Standing::Left => None,
                        })
                        .peekable();
                    if holders.peek().is_some() {
                        inventory.holdings.push(holders);
                        inventory.files.push((name.clone(), file.size));
                    }
                }
            }
            let mut holders = 0;
            file.state.for_each_holder(|dstore| {
                loads[dstore.place()] += 1;
                holders += 1;
            });
            holders > 0
        });
        self.version += u64::from(self.files.len() < files);
        inventory.unwanted.extend(listed.map(|(orphan, dstore)| (*dstore, orphan.clone())));
        // Once everybody has answered, nobody is still carrying out an order.
        let is_evident = inventory.dstores.len() == self.members.len();
        for (dstore, member) in &mut self.members {
            member.load = loads[dstore.place()];
            match arrivals[dstore.place()] {
                Some(true) => member.is_suspect = false,
                Some(false) if is_evident => member.is_suspect = true,
                _ => {}
            }
            if !is_silent(dstore) {
                member.pending_removes.clear(); // it has come to all earlier orders: lists are made between them
            }
        }
        let places = (0..).zip(&inventory.dstores);
        inventory.suspects =
            places.filter(|(_, (dstore, _))| self.members[dstore].is_suspect).map(|(place, _)| place).collect();
        inventory
    }
}

impl State {
    /// The Dstores that have a copy, may have one, or are about to get one.
    pub(super) fn for_each_holder(&self, mut see: impl FnMut(DstoreId)) {
        match self {
            Self::Storing(storing) => storing.acknowledged.iter().chain(&storing.awaited).copied().for_each(see),
            Self::Stored { copies } => copies.iter().for_each(|copy| see(copy.dstore)),
            Self::Removing(removing) => removing.awaited.iter().copied().for_each(see),
        }
    }
}

/// Makes a complete file's copies those that are listed and those that may yet turn out to exist; returns the listed
/// ones that are not to be trusted.
fn correct(copies: &mut Vec<Copy>, listers: &[DstoreId], is_silent: impl Fn(&DstoreId) -> bool) -> Vec<DstoreId> {
    let is_expected = |copies: &[Copy], dstore| copies.iter().any(|copy| copy.dstore == dstore);
    let (expected, unexpected): (Vec<_>, Vec<_>) =
        listers.iter().copied().partition(|&dstore| is_expected(copies, dstore));
    // An order that has not been reported concerns two Dstores: only when both are heard can their doubts settle.
    let is_heard = copies.iter().all(|copy| copy.is_certain() || !is_silent(&copy.dstore));
    copies.retain_mut(|copy| {
        if expected.contains(&copy.dstore) {
            copy.certainty = Certainty::Certain;
            return true;
        }
        if is_silent(&copy.dstore) {
            return true;
        }
        match copy.certainty {
            Certainty::Certain => false,
            Certainty::Coming | Certainty::Going => {
                if is_heard {
                    copy.certainty = Certainty::Settling;
                }
                true
            }
            Certainty::Settling => !is_heard,
        }
    });
    if copies.is_empty() {
        copies.extend(unexpected.into_iter().map(|dstore| Copy { dstore, certainty: Certainty::Certain }));
        return Vec::new();
    }
    // With only silent or doubtful holders, a copy nobody ordered may be the last one: neither used nor removed.
    if expected.is_empty() { Vec::new() } else { unexpected }
}
