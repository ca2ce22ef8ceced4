//! Members compare their namespaces: the same changes must have come to the same. (depot 4.8)
//!
//! Each notes its hash behind the first change of every thousand, and once it has been idle for two seconds; the sequences are
//! the same for all. Once a second it tells the others the newest. A member whose hash differs from one that most voters have
//! stops: it has a fault of its own, in its memory, on its disk or in its program, and no one may rely on what it says. Where there is no
//! such majority, as with two voters, it cannot be known which is right: that is reported.

use std::collections::BTreeMap;

use crate::identity::ControllerId;

use super::Message;
use super::core::{Core, Diverged};

/// A hash is noted behind the first of so many changes.
const STEP: u64 = 1000;
/// So many of each member are kept.
const KEPT: usize = 64;
/// In ticks: how often hashes are told, and how long nothing must have been applied for one to be noted.
const PERIOD: u64 = 10;
const IDLE: u64 = 20;

/// What each member's namespace was, by the sequence.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    hashes: BTreeMap<u64, BTreeMap<u64, u128>>,
    /// The last change that was applied here.
    last: u64,
    ticks: u64,
    /// When it was.
    last_tick: u64,
    /// Behind this change the members differ, and there is no majority.
    doubt: Option<u64>,
}

/// What a comparison shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Most voters have the hash that this member has, and none is known to have another.
    Agreed,
    /// Most voters have one hash, and this member has another.
    Diverged,
    /// The voters have several hashes, and none of them a majority.
    Doubt,
}

impl Comparison {
    /// The namespace is that of this sequence, whatever it was before.
    pub(super) fn begin(&mut self, sequence: u64) {
        self.last = sequence;
        self.hashes.clear();
    }

    /// A change was applied; true if the hash behind it is to be noted.
    pub(super) fn pass(&mut self, sequence: u64) -> bool {
        let is_due = sequence / STEP != self.last / STEP;
        (self.last, self.last_tick) = (sequence, self.ticks);
        is_due
    }

    pub(super) fn note(&mut self, member: u64, sequence: u64, hash: u128) {
        let of_member = self.hashes.entry(member).or_default();
        of_member.insert(sequence, hash);
        while of_member.len() > KEPT {
            of_member.pop_first();
        }
    }

    /// The last change behind which another member is known to have had the hash that this one had.
    pub(super) fn agreed(&self, this: u64, member: u64) -> Option<u64> {
        let (own, other) = (self.hashes.get(&this)?, self.hashes.get(&member)?);
        other.iter().rev().find(|(sequence, hash)| own.get(sequence) == Some(hash)).map(|(sequence, _)| *sequence)
    }

    /// What there is to be said of this sequence, if anything.
    pub(super) fn judge(&self, this: u64, voters: &[u64], sequence: u64) -> Option<Finding> {
        let hash_of = |member: &u64| self.hashes.get(member)?.get(&sequence).copied();
        let own = hash_of(&this)?;
        let known: Vec<u128> = voters.iter().filter_map(hash_of).collect();
        let count = |hash: u128| known.iter().filter(|other| **other == hash).count();
        match known.iter().find(|hash| count(**hash) > voters.len() / 2) {
            Some(right) if *right != own => Some(Finding::Diverged),
            Some(_) => known.iter().all(|hash| *hash == own).then_some(Finding::Agreed),
            // Some may not have said yet.
            None => (known.len() == voters.len() && known.iter().any(|hash| *hash != own)).then_some(Finding::Doubt),
        }
    }
}

impl Core {
    /// Time goes on; what is to be told to the others. `hash` is that of the namespace now.
    pub(super) fn compare_on(&mut self, hash: impl FnOnce() -> (u64, u128)) -> Vec<Message> {
        let comparison = &mut self.comparison;
        comparison.ticks += 1;
        if comparison.ticks == comparison.last_tick + IDLE {
            let (sequence, hash) = hash();
            comparison.note(self.id, sequence, hash);
            self.judge(sequence);
        }
        if !self.comparison.ticks.is_multiple_of(PERIOD) {
            return Vec::new();
        }
        let newest = self.comparison.hashes.get(&self.id).and_then(BTreeMap::last_key_value);
        let Some((&sequence, &hash)) = newest else { return Vec::new() };
        let members = self.node.store().members();
        let others = members.voters.iter().chain(&members.learners).filter(|id| **id != self.id);
        let from = ControllerId(self.id);
        others.map(|to| Message::Hash { from, to: ControllerId(*to), sequence, hash }).collect()
    }

    /// Another member says what its namespace is.
    pub(super) fn hear_hash(&mut self, from: u64, sequence: u64, hash: u128) {
        if self.is_member(from) {
            self.comparison.note(from, sequence, hash);
            self.judge(sequence);
        }
    }

    /// Judges what is known of this sequence. A member that has diverged serves nothing more; a leader hands over before it
    /// stops.
    pub(super) fn judge(&mut self, sequence: u64) {
        match self.comparison.judge(self.id, &self.node.store().members().voters, sequence) {
            Some(Finding::Diverged) if self.diverged.is_none() => {
                log::error!("the metadata of this Controller differs from most others' behind change {sequence}");
                self.diverged = Some(Diverged { sequence, at: self.comparison.ticks });
                self.end_epoch();
                self.hand_over();
            }
            Some(Finding::Doubt) if self.comparison.doubt.is_none() => {
                log::error!(
                    "the metadata of the Controllers differs behind change {sequence}, and there is no majority"
                );
                self.comparison.doubt = Some(sequence);
            }
            Some(Finding::Agreed) if self.comparison.doubt < Some(sequence) => self.comparison.doubt = None,
            _ => {}
        }
    }

    /// The change behind which this member has diverged, if it has, and leads no more, or has waited for that long enough.
    pub(super) fn has_to_stop(&self) -> Option<u64> {
        let diverged = self.diverged.as_ref()?;
        (!self.leads() || self.comparison.ticks >= diverged.at + IDLE).then_some(diverged.sequence)
    }

    pub(super) fn doubt(&self) -> Option<u64> {
        self.comparison.doubt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(hashes: &[(u64, u128)], this: u64, voters: &[u64]) -> Option<Finding> {
        let mut comparison = Comparison::default();
        hashes.iter().for_each(|(member, hash)| comparison.note(*member, 1000, *hash));
        comparison.judge(this, voters, 1000)
    }

    #[test]
    fn only_a_majority_of_the_voters_is_right() {
        let three = [1, 2, 3];
        assert_eq!(judged(&[(1, 7), (2, 7), (3, 7)], 1, &three), Some(Finding::Agreed));
        assert_eq!(judged(&[(1, 8), (2, 7), (3, 7)], 1, &three), Some(Finding::Diverged));
        assert_eq!(judged(&[(1, 7), (2, 7), (3, 8)], 1, &three), None, "not this one's fault");
        assert_eq!(judged(&[(1, 8), (2, 7)], 1, &three), None, "the third has not said");
        assert_eq!(judged(&[(1, 8), (2, 7), (3, 9)], 1, &three), Some(Finding::Doubt));
        assert_eq!(judged(&[(1, 8), (2, 7)], 1, &[1, 2]), Some(Finding::Doubt));
        assert_eq!(judged(&[(4, 8), (2, 7), (3, 7)], 4, &three), Some(Finding::Diverged), "a learner");
        assert_eq!(judged(&[(1, 7), (4, 8), (5, 8), (2, 7)], 1, &three), Some(Finding::Agreed), "learners have no say");
    }

    #[test]
    fn members_agree_up_to_the_last_hash_that_is_the_same() {
        let mut comparison = Comparison::default();
        for (member, sequence, hash) in
            [(1, 10, 7), (1, 20, 8), (1, 30, 9), (2, 10, 7), (2, 20, 8), (3, 10, 7), (3, 30, 1)]
        {
            comparison.note(member, sequence, hash);
        }
        assert_eq!([1, 2, 3, 4].map(|member| comparison.agreed(1, member)), [Some(30), Some(20), Some(10), None]);
    }

    #[test]
    fn all_note_the_first_change_of_every_thousand() {
        let mut comparison = Comparison::default();
        comparison.begin(990);
        let noted: Vec<u64> =
            [991, 999, 1001, 1002, 3500, 3999].into_iter().filter(|at| comparison.pass(*at)).collect();
        assert_eq!(noted, [1001, 3500]);
    }
}
