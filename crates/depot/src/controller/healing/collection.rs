//! Objects that no file names: those of removed and replaced files, and of puts that came to nothing. (depot 5.3)
//!
//! A key is garbage if no file names it, and none ever will. A file can come to name it only by the commit of its put, which
//! needs a lease on the key; copies and moves start from files that exist. So the question is asked in this order:
//!
//! 1. Has the key a lease? A lease ends with its commit, after the change is applied. A key without one is not leased again.
//! 2. Does a file name it?
//!
//! ```text
//! commit       lease ─────────── applied ── lease ends
//! collection     1: leased, kept     1: leased, kept    1: no lease   2: named, kept
//! ```
//!
//! The other way round, a commit between the two questions would be missed: not named yet, and then not leased any more.
//!
//! Keys of this history, of this leadership and of earlier ones, are judged. Of earlier histories only those are whose last file
//! was removed in this leadership: they are *released*. The others are *unclaimed*: they may belong to a part of the past that
//! was not restored, so they are kept until an operator says that they can go. (depot 4.9)
//!
//! What is garbage stays garbage, as it is never leased again. So it is judged once, and then waits for each Dstore that has it
//! by itself: one that takes no more orders holds up no other. What a Dstore has that is away is judged again when it returns.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::ops::Bound;
use std::thread;
use std::time::Instant;

use super::{MOMENT, Orders, PERIOD};
use crate::controller::{Shared, State};
use crate::identity::{DstoreId, Epoch, Key};
use crate::namespace::Object;
use crate::namespace::change::DstoreRecord;
use crate::placement::{Member, Presence, Step};

/// So many are judged under one hold of the lock.
const STEP: usize = 250;

/// Objects that no file named when they were looked at.
#[derive(Debug, Default)]
pub(super) struct Unnamed {
    /// In the order of time.
    since: VecDeque<(Instant, Key)>,
    noted: HashSet<Key>,
    /// Their last file was removed in this leadership. Those of this history are forgotten once they are judged.
    released: BTreeSet<Key>,
    /// Of earlier histories and not released, with their lengths.
    unclaimed: BTreeMap<Key, u64>,
    /// Up to here it was looked whether unclaimed objects are still there.
    seen: Option<Key>,
    /// Garbage that a Dstore is to be told to remove.
    condemned: BTreeMap<DstoreId, BTreeSet<Key>>,
}

impl Unnamed {
    /// No file names the object, as of now. The time of an earlier note stays.
    pub(super) fn note(&mut self, key: Key, now: Instant) {
        if self.noted.insert(key) {
            self.since.push_back((now, key));
        }
    }

    /// A change of this leadership has removed its last file.
    pub(super) fn release(&mut self, key: Key, now: Instant) {
        self.released.insert(key);
        self.unclaimed.remove(&key);
        self.note(key, now);
    }

    /// A Dstore has an object of an earlier history that no file names.
    pub(super) fn reported(&mut self, key: Key, length: u64) {
        if !self.released.contains(&key) {
            self.unclaimed.insert(key, length);
        }
    }

    /// An operator has said that unclaimed objects can go. How many there are.
    pub(super) fn release_unclaimed(&mut self, now: Instant) -> u64 {
        let unclaimed = std::mem::take(&mut self.unclaimed);
        unclaimed.keys().for_each(|key| self.release(*key, now));
        unclaimed.len() as u64
    }

    /// Unclaimed objects, with their lengths; none are left.
    pub(super) fn take_unclaimed(&mut self) -> BTreeMap<Key, u64> {
        std::mem::take(&mut self.unclaimed)
    }

    /// How many objects are unclaimed, and how many bytes they have.
    pub(super) fn unclaimed(&self) -> (u64, u64) {
        (self.unclaimed.len() as u64, self.unclaimed.values().sum())
    }

    /// How many wait to be judged, or to be removed.
    pub(super) fn len(&self) -> usize {
        self.noted.len() + self.condemned.values().map(BTreeSet::len).max().unwrap_or(0)
    }

    /// The next Dstore at which something is condemned, by number.
    fn condemned_behind(&self, last: Option<DstoreId>) -> Option<DstoreId> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.condemned.range((from, Bound::Unbounded)).next().map(|(at, _)| *at)
    }

    /// Those that were noted before, at most so many.
    fn take(&mut self, until: Option<Instant>, most: usize) -> Vec<Key> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some((since, key)) = self.since.front().copied()
            && until.is_some_and(|until| since <= until)
        {
            self.since.pop_front();
            self.noted.remove(&key);
            taken.push(key);
        }
        taken
    }

    /// Whether an object without a name and a lease is garbage.
    fn is_garbage(&mut self, key: Key, epoch: Epoch) -> bool {
        if key.history == epoch.history {
            self.released.remove(&key);
            return key.term <= epoch.term;
        }
        self.released.contains(&key)
    }
}

impl Shared {
    /// Has objects removed that no file names. True if there is more to do at once.
    pub(super) fn collect(&self, epoch: Epoch, records: &[(DstoreId, DstoreRecord)]) -> bool {
        let Some(unleased) = self.ask_for_leases(epoch) else { return false };
        let is_more = !unleased.is_empty();
        let Some((garbage, named)) = self.ask_for_names(unleased) else { return false };
        {
            let mut state = self.state.lock();
            if state.epoch != Some(epoch) || !is_more && state.healing.unnamed.condemned.is_empty() {
                return false;
            }
            // Committed since they were noted: they may lack copies.
            named.into_iter().for_each(|key| state.healing.look_at(key));
            let members = state.members(records);
            garbage.into_iter().for_each(|key| state.condemn(key, &members));
        }
        self.remove_condemned(epoch, records) || is_more
    }

    /// Tells Dstores to remove what is condemned, as far as each takes orders: a moment at a time, as there may be a thousand of them.
    /// True if one may take more.
    fn remove_condemned(&self, epoch: Epoch, records: &[(DstoreId, DstoreRecord)]) -> bool {
        let (mut last, mut is_more) = (None, false);
        loop {
            let begun = Instant::now();
            {
                let mut state = self.state.lock();
                if state.epoch != Some(epoch) {
                    return false;
                }
                let members = state.members(records);
                let mut orders = Orders::new();
                let is_at_end = loop {
                    let Some(next) = state.healing.unnamed.condemned_behind(last) else { break true };
                    is_more |= state.remove_condemned_at(next, &members, &mut orders);
                    last = Some(next);
                    if begun.elapsed() >= MOMENT {
                        break false;
                    }
                };
                state.send(orders, epoch);
                if is_at_end {
                    return is_more;
                }
            }
            thread::park_timeout(begun.elapsed());
        }
    }

    /// The first question: which of the objects that have waited long enough may be garbage, as they have no lease? `None` if it
    /// is not the time to collect.
    pub(super) fn ask_for_leases(&self, epoch: Epoch) -> Option<Vec<Key>> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.epoch != Some(epoch) || !state.healing.collects(now) {
            return None;
        }
        state.see_what_is_unclaimed();
        let options = state.healing.options;
        let taken = state.healing.unnamed.take(now.checked_sub(options.keep_removed), STEP);
        let mut unleased = Vec::new();
        for key in taken {
            if state.keys.is_leased(key) {
                state.healing.agenda.add(key, now + options.lease.max(PERIOD)); // it is looked at again
            } else if state.healing.unnamed.is_garbage(key, epoch) {
                unleased.push(key);
            }
        }
        Some(unleased)
    }

    /// The second question: which of these does no file name, and which does one name?
    pub(super) fn ask_for_names(&self, keys: Vec<Key>) -> Option<(Vec<Key>, Vec<Key>)> {
        self.replica.read(|namespace| keys.into_iter().partition(|key| namespace.object(*key).is_none())).ok()
    }
}

impl State {
    /// The object is garbage: every Dstore that is there and has it is to remove it.
    fn condemn(&mut self, key: Key, members: &[Member]) {
        self.healing.backlog.remove(key);
        for (at, _) in self.holdings.holders(key) {
            if is_known(members, at) {
                self.healing.unnamed.condemned.entry(at).or_default().insert(key);
            }
        }
        self.forget_if_gone(key, members);
    }

    /// Tells a Dstore to remove some of what is condemned there, if it takes orders. True if it may take more.
    fn remove_condemned_at(&mut self, at: DstoreId, members: &[Member], orders: &mut Orders) -> bool {
        let Some(mut condemned) = self.healing.unnamed.condemned.remove(&at) else { return false };
        if !is_known(members, at) {
            return false; // what it has is judged again when it has reported
        }
        let before = condemned.len();
        for key in condemned.iter().copied().take(STEP).collect::<Vec<Key>>() {
            let object = Object { key, length: 0, checksum: Default::default() };
            let is_busy = self.healing.under_way.get(key, at).is_some();
            let is_there = self.holdings.state(key, at).is_some();
            if !is_there || !is_busy && self.give(&Step::Remove { at }, &object, orders) {
                condemned.remove(&key);
            }
        }
        let is_more = !condemned.is_empty() && condemned.len() < before;
        if !condemned.is_empty() {
            self.healing.unnamed.condemned.insert(at, condemned);
        }
        is_more
    }

    /// An object that was released is remembered as long as a Dstore may return with it.
    pub(super) fn forget_if_gone(&mut self, key: Key, members: &[Member]) {
        let is_complete = members.iter().all(|member| member.presence == Presence::Known);
        if is_complete && self.holdings.holders(key).is_empty() {
            self.healing.unnamed.released.remove(&key);
        }
    }

    /// Unclaimed objects may go with their Dstore: a few are looked at each time.
    fn see_what_is_unclaimed(&mut self) {
        let unnamed = &mut self.healing.unnamed;
        let from = unnamed.seen.map_or(Bound::Unbounded, Bound::Excluded);
        let some: Vec<Key> =
            unnamed.unclaimed.range((from, Bound::Unbounded)).map(|(key, _)| *key).take(STEP).collect();
        unnamed.seen = some.last().copied().filter(|_| some.len() == STEP);
        for key in some.into_iter().filter(|key| self.holdings.holders(*key).is_empty()) {
            unnamed.unclaimed.remove(&key);
        }
    }
}

fn is_known(members: &[Member], id: DstoreId) -> bool {
    let found = members.binary_search_by_key(&id, |member| member.id); // they are in the order of their numbers
    found.is_ok_and(|at| members[at].presence == Presence::Known)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::History;

    const EPOCH: Epoch = Epoch { history: History(2), term: 5, nonce: 1 };

    fn key(history: u64, term: u64, number: u64) -> Key {
        Key { history: History(history), term, number }
    }

    #[test]
    fn an_object_waits_from_when_it_was_first_unnamed() {
        let key = |number| key(2, 1, number);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut unnamed = Unnamed::default();
        unnamed.note(key(1), at(0));
        unnamed.release(key(2), at(1));
        unnamed.release(key(1), at(2));
        assert_eq!(unnamed.take(None, 9), []);
        assert_eq!(unnamed.take(Some(at(0)), 9), [key(1)]);
        unnamed.note(key(1), at(3));
        assert_eq!(unnamed.take(Some(at(9)), 1), [key(2)]);
        assert_eq!(unnamed.take(Some(at(9)), 9), [key(1)]);
        assert_eq!(unnamed.len(), 0);
    }

    #[test]
    fn an_earlier_historys_object_is_garbage_once_released() {
        let mut unnamed = Unnamed::default();
        let now = Instant::now();
        assert!(unnamed.is_garbage(key(2, 5, 1), EPOCH) && unnamed.is_garbage(key(2, 4, 1), EPOCH));
        assert!(!unnamed.is_garbage(key(2, 6, 1), EPOCH), "of a leadership that this one knows nothing of");
        unnamed.reported(key(1, 1, 1), 10);
        unnamed.reported(key(1, 1, 2), 5);
        assert!(!unnamed.is_garbage(key(1, 1, 1), EPOCH));
        assert_eq!(unnamed.unclaimed(), (2, 15));
        unnamed.release(key(1, 1, 3), now);
        unnamed.reported(key(1, 1, 3), 7);
        assert_eq!(unnamed.unclaimed(), (2, 15), "that one is released");
        assert!(unnamed.is_garbage(key(1, 1, 3), EPOCH) && unnamed.is_garbage(key(1, 1, 3), EPOCH), "for good");
        assert_eq!(unnamed.release_unclaimed(now), 2);
        assert!(unnamed.is_garbage(key(1, 1, 1), EPOCH) && unnamed.is_garbage(key(1, 1, 2), EPOCH));
        assert_eq!(unnamed.unclaimed(), (0, 0));
    }
}
