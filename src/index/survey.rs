//! Correcting the index by what the Dstores say they have. (spec 4.6.2, 7.16, 7.20)

use std::collections::{BTreeMap, BTreeSet};

use super::rebalance::Holdings;
use super::{Copy, DstoreId, File, Index, State};
use crate::protocol::{Address, FileName};

/// The file lists of the Dstores that answered in time. The others are *silent*: nothing is known of their copies,
/// and silence is not proof of loss. (spec 7.16)
#[derive(Debug, Default)]
pub struct Survey {
    answered: BTreeSet<DstoreId>,
    /// In order of name, then Dstore; each pair once.
    copies: Vec<(FileName, DstoreId)>,
}

impl Survey {
    /// Sorts the answers; the costly part, and no lock is needed for it.
    pub fn new(lists: BTreeMap<DstoreId, Vec<FileName>>) -> Self {
        let answered = lists.keys().copied().collect();
        let mut copies = Vec::with_capacity(lists.values().map(Vec::len).sum());
        for (dstore, mut names) in lists {
            names.sort_unstable();
            copies.extend(names.into_iter().map(|name| (name, dstore)));
        }
        copies.sort(); // stable: takes the sorted lists as the runs that they are
        copies.dedup();
        Self { answered, copies }
    }
}

/// What a rebalance starts from, after the index has been corrected: the planner's input, with the names and
/// addresses behind its numbers.
#[derive(Debug)]
pub struct Situation {
    /// The Dstores that take part, in order of joining.
    pub dstores: Vec<(DstoreId, Address)>,
    /// The complete files of which at least one copy is certain, with their sizes.
    pub files: Vec<(FileName, u64)>,
    /// Who certainly holds each of them; both sides numbered by their place above.
    pub holdings: Holdings,
    /// Copies that are to go: of files that the index does not have or is removing, and copies nobody ordered.
    pub condemned: Vec<(DstoreId, FileName)>,
}

impl Index {
    /// Corrects the index by `survey`. No operation is in progress meanwhile. (spec 4.6.2)
    ///
    /// A copy on a Dstore where the index did not expect one may be the debris of an earlier file of the same name: it
    /// is not counted while an expected copy exists. Where all expected ones are certainly gone it is the file.
    pub fn reconcile(&mut self, survey: &Survey) -> Situation {
        let dstores: Vec<_> = self
            .members
            .iter()
            .filter(|(dstore, _)| survey.answered.contains(dstore))
            .map(|(&dstore, member)| (dstore, member.address.clone()))
            .collect();
        let number: BTreeMap<DstoreId, u32> = (0..).zip(&dstores).map(|(at, (dstore, _))| (*dstore, at)).collect();
        let mut situation =
            Situation { holdings: Holdings::new(dstores.len()), dstores, files: Vec::new(), condemned: Vec::new() };
        let is_silent = |dstore: &DstoreId| self.members.contains_key(dstore) && !number.contains_key(dstore);

        let mut listed = survey.copies.iter().filter(|(_, dstore)| number.contains_key(dstore)).peekable();
        let mut listers = Vec::new();
        self.files.retain(|name, file| {
            while let Some((orphan, dstore)) = listed.next_if(|(other, _)| other < name) {
                situation.condemned.push((*dstore, orphan.clone()));
            }
            listers.clear();
            while let Some((_, dstore)) = listed.next_if(|(other, _)| other == name) {
                listers.push(*dstore);
            }
            match &mut file.state {
                State::Storing(_) => {}
                State::Removing(removing) if !removing.abandoned => {}
                State::Removing(removing) => {
                    removing.awaited.retain(is_silent);
                    removing.awaited.extend(&listers);
                    situation.condemned.extend(listers.iter().map(|&dstore| (dstore, name.clone())));
                    return !removing.awaited.is_empty();
                }
                State::Stored { copies } => {
                    let unexpected = correct(copies, &listers, is_silent);
                    situation.condemned.extend(unexpected.into_iter().map(|dstore| (dstore, name.clone())));
                    let mut holders = certain(copies).filter_map(|dstore| number.get(&dstore).copied()).peekable();
                    if holders.peek().is_some() {
                        situation.holdings.push(holders);
                        situation.files.push((name.clone(), file.size));
                    }
                    return !copies.is_empty();
                }
            }
            true
        });
        situation.condemned.extend(listed.map(|(orphan, dstore)| (*dstore, orphan.clone())));
        self.recount();
        situation
    }

    /// Every member's load anew, from the copies themselves.
    pub(super) fn recount(&mut self) {
        self.members.values_mut().for_each(|member| member.load = 0);
        let mut count = |dstore: &DstoreId| {
            if let Some(member) = self.members.get_mut(dstore) {
                member.load += 1;
            }
        };
        for File { state, .. } in self.files.values() {
            match state {
                State::Storing(storing) => storing.acknowledged.iter().chain(&storing.awaited).for_each(&mut count),
                State::Stored { copies } => copies.iter().for_each(|copy| count(&copy.dstore)),
                State::Removing(removing) => removing.awaited.iter().for_each(&mut count),
            }
        }
    }
}

/// Makes a complete file's copies those that are listed and those that silent Dstores may have; returns the listed
/// ones that are not to be trusted.
fn correct(copies: &mut Vec<Copy>, listers: &[DstoreId], is_silent: impl Fn(&DstoreId) -> bool) -> Vec<DstoreId> {
    let is_expected = |copies: &[Copy], dstore| copies.iter().any(|copy| copy.dstore == dstore);
    let (expected, unexpected): (Vec<_>, Vec<_>) =
        listers.iter().copied().partition(|&dstore| is_expected(copies, dstore));
    copies.retain_mut(|copy| {
        let is_listed = expected.contains(&copy.dstore);
        copy.certain |= is_listed;
        is_listed || is_silent(&copy.dstore)
    });
    if copies.is_empty() {
        copies.extend(unexpected.into_iter().map(|dstore| Copy { dstore, certain: true }));
        return Vec::new();
    }
    // With only silent holders, a copy nobody ordered may be the last one: it is neither used nor removed.
    if expected.is_empty() { Vec::new() } else { unexpected }
}

fn certain(copies: &[Copy]) -> impl Iterator<Item = DstoreId> {
    copies.iter().filter(|copy| copy.certain).map(|copy| copy.dstore)
}
