//! Which Dstore has which objects, as far as a Controller knows. (depot 4.6)
//!
//! A put names the Dstores that have stored its objects: these copies are *claimed*. A Dstore's own report makes a copy
//! *certain*. The two come over different connections, in any order, and a Dstore may lose an object between them. So each
//! Dstore numbers what it does by positions; a claim says the position at which the object was stored, and a report up to
//! which position it is complete. A claim is believed until the Dstore's reports have passed its position. Then the object
//! is in them, or it is not there.
//!
//! ```text
//! claimed at 7 ──▶ reports up to 5: still claimed ──▶ reports up to 9 ─┬─ with the object: certain
//!                                                                      └─ without it:     not there
//! ```
//!
//! When a Dstore connects anew it reports all that it has. Until that is complete, its copies from before are claimed
//! again; those that it did not report are then dropped, a few at a time.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::identity::{DstoreId, Key, Position};
use crate::wire::message::{CopyChange, CopyReport};

/// What is known of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CopyState {
    /// The Dstore has reported it on the connection that is open.
    Certain,
    /// A client has stored it there, or the Dstore reported it on an earlier connection.
    Claimed,
    /// The Dstore has found it damaged, or has something else than the namespace says. Some of its blocks may be good.
    Damaged,
}

/// Which Dstore has which objects.
#[derive(Debug, Default)]
pub struct Holdings {
    copies: BTreeMap<Key, Copies>,
    /// The copies of an object beyond its first three.
    more: BTreeMap<Key, Vec<Copy>>,
    dstores: BTreeMap<DstoreId, Dstore>,
}

/// What a Dstore has reported.
#[derive(Debug, Default)]
struct Dstore {
    /// Which of its connections the reports are from.
    generation: u16,
    /// Reports are complete up to here; `None` while the inventory is under way.
    reported: Option<Position>,
    /// Claims that its reports have not passed yet.
    claims: BTreeMap<Position, Key>,
}

/// One copy, in four bytes: there are millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Copy {
    dstore: u16,
    /// Of the connection it was reported on, 14 bits; and the state, 2 bits.
    report: u16,
}

const GENERATIONS: u16 = 1 << 14;

/// Three copies of one object; unused places say Dstore 0, which does not exist. With the key it takes 36 bytes.
type Copies = [Copy; 3];

const NONE: Copy = Copy { dstore: 0, report: 0 };

impl Copy {
    fn new(dstore: DstoreId, generation: u16, state: CopyState) -> Self {
        let state = match state {
            CopyState::Certain => 0,
            CopyState::Claimed => 1,
            CopyState::Damaged => 2,
        };
        Self { dstore: number(dstore), report: generation << 2 | state }
    }

    fn id(self) -> DstoreId {
        DstoreId(u32::from(self.dstore))
    }

    fn generation(self) -> u16 {
        self.report >> 2
    }

    fn state(self) -> CopyState {
        match self.report & 3 {
            0 => CopyState::Certain,
            1 => CopyState::Claimed,
            _ => CopyState::Damaged,
        }
    }
}

/// Dstores beyond 65,535 are never admitted.
fn number(dstore: DstoreId) -> u16 {
    u16::try_from(dstore.0).expect("so many Dstores are not admitted")
}

impl Holdings {
    /// A client says that a Dstore has stored an object at this position. What is known of the copy then.
    pub fn claim(&mut self, key: Key, dstore: DstoreId, position: Position) -> Option<CopyState> {
        let state = self.state(key, dstore);
        let known = self.dstores.entry(dstore).or_default();
        if known.reported.is_some_and(|reported| reported >= position) {
            return state; // it has been reported, or is not there
        }
        let generation = known.generation;
        known.claims.insert(position, key);
        if matches!(state, Some(CopyState::Certain | CopyState::Damaged)) {
            return state;
        }
        self.set(key, Copy::new(dstore, generation, CopyState::Claimed));
        Some(CopyState::Claimed)
    }

    /// A Dstore has connected: what it reported before is claimed until its inventory is complete.
    pub fn connected(&mut self, dstore: DstoreId) {
        let known = self.dstores.entry(dstore).or_default();
        known.generation = (known.generation + 1) % GENERATIONS;
        known.reported = None;
    }

    /// A Dstore has a copy, says its inventory. A copy that is not what the namespace says counts as damaged: the caller
    /// knows that.
    pub fn reported(&mut self, dstore: DstoreId, copy: &CopyReport) {
        let generation = self.dstores.entry(dstore).or_default().generation;
        let state = if copy.is_damaged { CopyState::Damaged } else { CopyState::Certain };
        self.set(copy.key, Copy::new(dstore, generation, state));
    }

    /// The inventory of a Dstore is complete up to a position. [`sweep`](Self::sweep) is due.
    pub fn inventory_ended(&mut self, dstore: DstoreId, position: Position) {
        self.dstores.entry(dstore).or_default().reported = Some(position);
        self.drop_passed_claims(dstore, position);
    }

    /// Drops copies that a Dstore had reported before and not in its inventory, of up to `most` objects behind `after`.
    /// Where to go on; `None` when there are no more.
    pub fn sweep(&mut self, dstore: DstoreId, after: Option<Key>, most: usize) -> Option<Key> {
        let known = self.dstores.get(&dstore)?;
        known.reported?; // it has connected again, and what it has is still to come
        let generation = known.generation;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        let mut seen = 0;
        let mut dropped = Vec::new();
        for key in self.copies.range((from, Bound::Unbounded)).map(|(key, _)| *key).take(most) {
            if self.copy(key, dstore).is_some_and(|copy| copy.generation() != generation) {
                dropped.push(key);
            }
            last = Some(key);
            seen += 1;
        }
        dropped.into_iter().for_each(|key| self.remove(key, dstore));
        if seen < most { None } else { last }
    }

    /// A Dstore says what has changed, up to a position.
    pub fn changed(&mut self, dstore: DstoreId, position: Position, changes: &[CopyChange]) {
        for change in changes {
            match change {
                CopyChange::Stored { copy } => self.reported(dstore, copy),
                CopyChange::Removed { key } => self.remove(*key, dstore),
            }
        }
        let known = self.dstores.entry(dstore).or_default();
        if known.reported.is_some() {
            known.reported = Some(position);
            self.drop_passed_claims(dstore, position);
        }
    }

    /// A Dstore was asked, and says that it has the object. True if that was not certain before.
    pub fn confirmed(&mut self, key: Key, dstore: DstoreId) -> bool {
        let was_claimed = self.state(key, dstore) == Some(CopyState::Claimed);
        if was_claimed {
            let generation = self.dstores.entry(dstore).or_default().generation;
            self.set(key, Copy::new(dstore, generation, CopyState::Certain));
        }
        was_claimed
    }

    /// A Dstore was asked, and says that it does not have the object. True if that was claimed before.
    ///
    /// A copy that it has reported since stays. Reports are in the order of what happened on its disk, and an answer may be
    /// older than the report that came before it.
    pub fn denied(&mut self, key: Key, dstore: DstoreId) -> bool {
        let was_claimed = self.state(key, dstore) == Some(CopyState::Claimed);
        if was_claimed {
            self.remove(key, dstore);
        }
        was_claimed
    }

    /// A Dstore belongs to the store no longer: what it has does not count. [`sweep`](Self::sweep) is due.
    pub fn forget(&mut self, dstore: DstoreId) {
        self.connected(dstore);
        let known = self.dstores.entry(dstore).or_default();
        known.reported = Some(Position { start: u64::MAX, number: u64::MAX });
        known.claims.clear();
    }

    /// What is known of a Dstore's copy of an object.
    pub fn state(&self, key: Key, dstore: DstoreId) -> Option<CopyState> {
        let known = self.dstores.get(&dstore)?;
        Self::view(known, self.copy(key, dstore)?)
    }

    /// The Dstores that have an object, or may have it, by number.
    pub fn holders(&self, key: Key) -> Vec<(DstoreId, CopyState)> {
        let known = self.copies_of(key).filter_map(|copy| {
            let state = Self::view(self.dstores.get(&copy.id())?, copy)?;
            Some((copy.id(), state))
        });
        let mut holders: Vec<_> = known.collect();
        holders.sort_unstable_by_key(|(dstore, _)| *dstore);
        holders
    }

    /// The objects that some Dstore has, or may have, behind `after`: up to `most`.
    pub fn keys(&self, after: Option<Key>, most: usize) -> Vec<Key> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.copies.range((from, Bound::Unbounded)).take(most).map(|(key, _)| *key).collect()
    }

    /// Of how many copies of an object `counts` is true.
    pub fn count(&self, key: Key, counts: impl Fn(DstoreId, CopyState) -> bool) -> usize {
        let counted = |copy: &Copy| {
            let state = self.dstores.get(&copy.id()).and_then(|known| Self::view(known, *copy));
            state.is_some_and(|state| counts(copy.id(), state))
        };
        self.copies_of(key).filter(counted).count()
    }

    /// A copy as it counts now: one of an earlier connection is claimed, and not there once the inventory is complete.
    fn view(known: &Dstore, copy: Copy) -> Option<CopyState> {
        if copy.generation() == known.generation {
            return Some(copy.state());
        }
        match copy.state() {
            _ if known.reported.is_some() => None,
            CopyState::Damaged => Some(CopyState::Damaged),
            CopyState::Certain | CopyState::Claimed => Some(CopyState::Claimed),
        }
    }

    fn copies_of(&self, key: Key) -> impl Iterator<Item = Copy> {
        let first = self.copies.get(&key).into_iter().flatten().filter(|copy| **copy != NONE);
        // Hardly any object has more; most of the time the map is empty.
        first.chain(self.more.get(&key).into_iter().flatten()).copied()
    }

    fn copy(&self, key: Key, dstore: DstoreId) -> Option<Copy> {
        self.copies_of(key).find(|copy| copy.id() == dstore)
    }

    fn set(&mut self, key: Key, copy: Copy) {
        let first = self.copies.entry(key).or_insert([NONE; 3]);
        let more = self.more.get_mut(&key).into_iter().flatten();
        if let Some(other) = first.iter_mut().chain(more).find(|other| other.dstore == copy.dstore) {
            *other = copy;
        } else if let Some(free) = first.iter_mut().find(|other| **other == NONE) {
            *free = copy;
        } else {
            self.more.entry(key).or_default().push(copy);
        }
    }

    fn remove(&mut self, key: Key, dstore: DstoreId) {
        if let Some(more) = self.more.get_mut(&key) {
            more.retain(|copy| copy.id() != dstore);
            if more.is_empty() {
                self.more.remove(&key);
            }
        }
        let Some(first) = self.copies.get_mut(&key) else { return };
        first.iter_mut().filter(|copy| copy.id() == dstore).for_each(|copy| *copy = NONE);
        if *first == [NONE; 3] && !self.more.contains_key(&key) {
            self.copies.remove(&key);
        }
    }

    fn drop_passed_claims(&mut self, dstore: DstoreId, position: Position) {
        let Some(known) = self.dstores.get_mut(&dstore) else { return };
        let still_claimed = known.claims.split_off(&Position { number: position.number + 1, ..position });
        for key in std::mem::replace(&mut known.claims, still_claimed).into_values() {
            if self.state(key, dstore) == Some(CopyState::Claimed) {
                self.remove(key, dstore);
            }
        }
        // Later ones were made on this connection, or outlived the one before: their copies must count.
        let Some(known) = self.dstores.get(&dstore) else { return };
        let generation = known.generation;
        let later: Vec<Key> = known.claims.values().copied().collect();
        for key in later {
            if self.copy(key, dstore).is_some_and(|copy| copy.generation() != generation) {
                self.set(key, Copy::new(dstore, generation, CopyState::Claimed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::checksum::Checksum;
    use crate::identity::History;

    const DSTORE: DstoreId = DstoreId(1);

    fn key(number: u64) -> Key {
        Key { history: History(1), term: 1, number }
    }

    fn copy(number: u64) -> CopyReport {
        CopyReport { key: key(number), length: 1, checksum: Checksum::EMPTY, is_damaged: false }
    }

    fn at(start: u64, number: u64) -> Position {
        Position { start, number }
    }

    #[test]
    fn a_claim_is_believed_until_reports_have_passed_it() {
        let mut holdings = Holdings::default();
        holdings.connected(DSTORE);
        holdings.inventory_ended(DSTORE, at(1, 0));
        holdings.claim(key(1), DSTORE, at(1, 7));
        holdings.claim(key(2), DSTORE, at(1, 8));
        assert_eq!(holdings.state(key(1), DSTORE), Some(CopyState::Claimed));
        holdings.changed(DSTORE, at(1, 5), &[]);
        assert_eq!(holdings.state(key(1), DSTORE), Some(CopyState::Claimed));
        holdings.changed(DSTORE, at(1, 9), &[CopyChange::Stored { copy: copy(1) }]);
        assert_eq!(holdings.state(key(1), DSTORE), Some(CopyState::Certain));
        assert_eq!(holdings.state(key(2), DSTORE), None, "the reports went past it and lack it");
        holdings.claim(key(3), DSTORE, at(1, 9));
        assert_eq!(holdings.state(key(3), DSTORE), None, "reports up to its position lack it");
    }

    #[test]
    fn after_a_reconnection_only_the_inventory_counts() {
        let mut holdings = Holdings::default();
        holdings.connected(DSTORE);
        (1..=3).for_each(|number| holdings.reported(DSTORE, &copy(number)));
        holdings.inventory_ended(DSTORE, at(1, 3));
        holdings.claim(key(9), DSTORE, at(2, 4));
        holdings.connected(DSTORE);
        assert_eq!(holdings.state(key(1), DSTORE), Some(CopyState::Claimed), "until the inventory is complete");
        holdings.reported(DSTORE, &copy(1));
        assert_eq!(holdings.state(key(1), DSTORE), Some(CopyState::Certain));
        holdings.inventory_ended(DSTORE, at(2, 1));
        assert_eq!(holdings.holders(key(2)), [], "not in the inventory");
        assert_eq!(holdings.state(key(9), DSTORE), Some(CopyState::Claimed), "claimed behind the inventory");
        let mut after = None;
        while let Some(next) = holdings.sweep(DSTORE, after, 1) {
            after = Some(next);
        }
        assert_eq!(holdings.keys(None, 10), [key(1), key(9)]);
    }

    #[test]
    fn a_damaged_copy_stays_known_as_such() {
        let mut holdings = Holdings::default();
        holdings.connected(DSTORE);
        holdings.inventory_ended(DSTORE, at(1, 0));
        let damaged = CopyReport { is_damaged: true, ..copy(1) };
        holdings.changed(DSTORE, at(1, 1), &[CopyChange::Stored { copy: damaged }]);
        holdings.claim(key(1), DSTORE, at(1, 2));
        assert_eq!(holdings.state(key(1), DSTORE), Some(CopyState::Damaged));
        holdings.changed(DSTORE, at(1, 3), &[CopyChange::Stored { copy: copy(1) }]);
        assert_eq!(holdings.state(key(1), DSTORE), Some(CopyState::Certain));
        holdings.changed(DSTORE, at(1, 4), &[CopyChange::Removed { key: key(1) }]);
        assert_eq!(holdings.keys(None, 10), []);
    }

    #[test]
    fn a_sweep_ends_when_the_dstore_connects_again() {
        let mut holdings = Holdings::default();
        holdings.connected(DSTORE);
        (1..=4).for_each(|number| holdings.reported(DSTORE, &copy(number)));
        holdings.inventory_ended(DSTORE, at(1, 4));
        // An inventory without 1 to 4; while its sweep is under way, the Dstore connects again.
        holdings.connected(DSTORE);
        holdings.inventory_ended(DSTORE, at(1, 4));
        let after = holdings.sweep(DSTORE, None, 2);
        assert_eq!(after, Some(key(2)));
        holdings.connected(DSTORE);
        holdings.reported(DSTORE, &copy(3));
        assert_eq!(holdings.sweep(DSTORE, after, 2), None, "what it has is still to come");
        assert_eq!(holdings.state(key(3), DSTORE), Some(CopyState::Certain));
        assert_eq!(holdings.state(key(4), DSTORE), Some(CopyState::Claimed), "it may have that, too");
        holdings.reported(DSTORE, &copy(4));
        holdings.inventory_ended(DSTORE, at(1, 4));
        assert_eq!(holdings.sweep(DSTORE, None, 9), None);
        assert_eq!(holdings.keys(None, 9), [key(3), key(4)]);
    }

    #[test]
    fn an_answer_does_not_undo_what_was_reported_after_it() {
        let mut holdings = Holdings::default();
        holdings.connected(DSTORE);
        holdings.inventory_ended(DSTORE, at(1, 0));
        holdings.claim(key(1), DSTORE, at(1, 90));
        assert!(holdings.denied(key(1), DSTORE), "a claim that is wrong");
        assert_eq!(holdings.state(key(1), DSTORE), None);
        // It was asked twice, has got a copy after the second answer, and reports that before it sends the answer.
        holdings.changed(DSTORE, at(1, 1), &[CopyChange::Stored { copy: copy(1) }]);
        assert!(!holdings.denied(key(1), DSTORE));
        assert_eq!(holdings.state(key(1), DSTORE), Some(CopyState::Certain), "it would be copied again and again");
        assert!(!holdings.confirmed(key(1), DSTORE), "nothing new");
    }

    #[test]
    fn many_copies_of_one_object_are_all_known() {
        let mut holdings = Holdings::default();
        for number in 1..=9 {
            holdings.connected(DstoreId(number));
            holdings.reported(DstoreId(number), &copy(1));
        }
        assert_eq!(holdings.holders(key(1)).len(), 9);
        holdings.changed(DstoreId(4), at(1, 1), &[CopyChange::Removed { key: key(1) }]);
        let ids: Vec<u32> = holdings.holders(key(1)).iter().map(|(id, _)| id.0).collect();
        assert_eq!(ids, [1, 2, 3, 5, 6, 7, 8, 9]);
        let below_7 = |id: DstoreId, _| id.0 < 7;
        assert_eq!((holdings.count(key(1), below_7), holdings.count(key(2), below_7)), (5, 0));
    }

    /// A Dstore stores, removes, reports late, and reconnects; clients claim what it stored, in any order. Whenever all
    /// that happened is reported, the holdings are what the Dstore has; and before that, they never lack an object that
    /// was claimed and is there.
    #[test]
    fn when_all_is_reported_holdings_are_what_the_dstore_has() {
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut holdings = Holdings::default();
            let mut has: BTreeSet<u64> = BTreeSet::new();
            let mut position = at(1, 0);
            let mut unreported: Vec<CopyChange> = Vec::new();
            let mut unclaimed: BTreeMap<u64, Position> = BTreeMap::new();
            let mut claimed: BTreeSet<u64> = BTreeSet::new();
            holdings.connected(DSTORE);
            holdings.inventory_ended(DSTORE, position);
            for number in 1..200 {
                match random.u8(..10) {
                    0..=3 => {
                        position.number += 1;
                        has.insert(number);
                        unreported.push(CopyChange::Stored { copy: copy(number) });
                        unclaimed.insert(number, position);
                    }
                    4 => {
                        let Some(gone) = has.iter().nth(random.usize(..has.len().max(1))).copied() else { continue };
                        position.number += 1;
                        has.remove(&gone);
                        claimed.remove(&gone);
                        unreported.push(CopyChange::Removed { key: key(gone) });
                    }
                    5..=6 => {
                        let Some((&number, &position)) = unclaimed.iter().nth(random.usize(..unclaimed.len().max(1)))
                        else {
                            continue;
                        };
                        unclaimed.remove(&number);
                        holdings.claim(key(number), DSTORE, position);
                        if has.contains(&number) {
                            claimed.insert(number);
                        }
                    }
                    7..=8 => holdings.changed(DSTORE, position, &std::mem::take(&mut unreported)),
                    _ => {
                        // The link breaks; the Dstore may have been restarted.
                        holdings.connected(DSTORE);
                        unreported.clear();
                        if random.bool() {
                            position = at(position.start + 1, 0);
                        }
                        has.iter().for_each(|number| holdings.reported(DSTORE, &copy(*number)));
                        holdings.inventory_ended(DSTORE, position);
                        if random.bool() {
                            let mut after = None;
                            while let Some(next) = holdings.sweep(DSTORE, after, 7) {
                                after = Some(next);
                            }
                        }
                    }
                }
                for key in (1..200).map(key) {
                    let count = holdings.count(key, |_, state| state == CopyState::Certain);
                    let is_certain = holdings.holders(key) == [(DSTORE, CopyState::Certain)];
                    assert_eq!(count, usize::from(is_certain), "seed {seed}: {key}");
                }
                for number in &claimed {
                    assert!(
                        holdings.state(key(*number), DSTORE).is_some(),
                        "seed {seed}: {number} is there and claimed"
                    );
                }
            }
            holdings.changed(DSTORE, position, &unreported);
            let known: BTreeSet<u64> =
                (1..200).filter(|number| holdings.state(key(*number), DSTORE).is_some()).collect();
            assert_eq!(known, has, "seed {seed}");
        }
    }
}
