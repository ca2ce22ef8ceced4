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
//! was removed in this leadership: others may belong to a part of the past that was not restored.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::{MOST_OTHERS, Orders, PERIOD};
use crate::controller::Shared;
use crate::identity::{DstoreId, Epoch, Key};
use crate::namespace::Object;
use crate::namespace::change::DstoreRecord;
use crate::placement::{Presence, Step};

/// So many are judged under one hold of the lock.
const STEP: usize = 250;

/// Objects that no file named when they were looked at.
#[derive(Debug, Default)]
pub(super) struct Unnamed {
    /// In the order of time.
    since: VecDeque<(Instant, Key)>,
    /// True for those whose last file was removed in this leadership.
    noted: HashMap<Key, bool>,
}

impl Unnamed {
    /// No file names the object, as of now. The time of an earlier note stays.
    pub(super) fn note(&mut self, key: Key, now: Instant, was_released: bool) {
        match self.noted.get_mut(&key) {
            Some(released) => *released |= was_released,
            None => {
                self.noted.insert(key, was_released);
                self.since.push_back((now, key));
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.noted.len()
    }

    /// Those that were noted before, at most so many, with whether they were released.
    fn take(&mut self, until: Option<Instant>, most: usize) -> Vec<(Key, bool)> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some((since, key)) = self.since.front().copied()
            && until.is_some_and(|until| since <= until)
        {
            self.since.pop_front();
            taken.push((key, self.noted.remove(&key).unwrap_or_default()));
        }
        taken
    }
}

impl Shared {
    /// Has objects removed that no file names. True if there is more to do at once.
    pub(super) fn collect(&self, epoch: Epoch, records: &[(DstoreId, DstoreRecord)]) -> bool {
        let now = Instant::now();
        let (candidates, is_more) = {
            let mut state = self.state.lock();
            let options = state.healing.options;
            if now.duration_since(state.healing.started) < options.margin {
                return false;
            }
            // No more than every Dstore can be told to remove: the rest keeps its place.
            let burdens = state.healing.burdens();
            let room = burdens.values().map(|burden| MOST_OTHERS.saturating_sub(burden.others)).min();
            let most = room.map_or(STEP, |room| room.min(STEP));
            let taken = state.healing.unnamed.take(now.checked_sub(options.keep_removed), most);
            let is_more = taken.len() == STEP;
            let mut candidates = Vec::new();
            for (key, was_released) in taken {
                if state.is_leased(key, epoch) {
                    state.healing.agenda.add(key, now + options.lease.max(PERIOD)); // it is looked at again
                } else if was_released || key.history == epoch.history && key.term <= epoch.term {
                    candidates.push((key, was_released));
                }
            }
            (candidates, is_more)
        };
        if candidates.is_empty() {
            return is_more;
        }
        let judged = self.replica.read(|namespace| {
            candidates.into_iter().partition::<Vec<_>, _>(|(key, _)| namespace.object(*key).is_none())
        });
        let Ok((garbage, named)) = judged else { return false };
        let mut state = self.state.lock();
        // Committed since they were noted: they may lack copies.
        named.into_iter().for_each(|(key, _)| state.healing.look_at(key));
        let members = state.members(records);
        let mut orders = Orders { batches: Default::default(), burdens: state.healing.burdens() };
        for (key, was_released) in garbage {
            state.healing.backlog.remove(key);
            let object = Object { key, length: 0, checksum: Default::default() };
            for (at, _) in state.holdings.holders(key) {
                // Others are judged when they have reported what they have.
                let is_known = members.iter().any(|member| member.id == at && member.presence == Presence::Known);
                let is_busy = state.healing.under_way.contains_key(&(key, at));
                if is_known && (is_busy || !state.give(&Step::Remove { at }, &object, &mut orders)) {
                    state.healing.unnamed.note(key, now, was_released); // again, a little later
                }
            }
        }
        state.send(orders, epoch);
        is_more
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::History;

    #[test]
    fn an_object_waits_from_when_it_was_first_unnamed() {
        let key = |number| Key { history: History(1), term: 1, number };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut unnamed = Unnamed::default();
        unnamed.note(key(1), at(0), false);
        unnamed.note(key(2), at(1), true);
        unnamed.note(key(1), at(2), true);
        assert_eq!(unnamed.take(None, 9), []);
        assert_eq!(unnamed.take(Some(at(0)), 9), [(key(1), true)]);
        unnamed.note(key(1), at(3), false);
        assert_eq!(unnamed.take(Some(at(9)), 1), [(key(2), true)]);
        assert_eq!(unnamed.take(Some(at(9)), 9), [(key(1), false)]);
        assert_eq!(unnamed.len(), 0);
    }
}
