//! Which objects are to be looked at, and when.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use crate::identity::Key;

/// Objects about which something was heard, each with a time. Work is in proportion to what changes. (depot 6.6)
#[derive(Debug, Default)]
pub(super) struct Agenda {
    times: HashMap<Key, Instant>,
    order: BTreeSet<(Instant, Key)>,
}

impl Agenda {
    /// Looks at the object at this time; if it is to be looked at earlier, that stays.
    pub(super) fn add(&mut self, key: Key, at: Instant) {
        match self.times.get(&key) {
            Some(earlier) if *earlier <= at => return,
            Some(later) => drop(self.order.remove(&(*later, key))),
            None => {}
        }
        self.times.insert(key, at);
        self.order.insert((at, key));
    }

    /// Objects whose time has come, at most so many.
    pub(super) fn take_due(&mut self, now: Instant, most: usize) -> Vec<Key> {
        let mut due = Vec::new();
        while due.len() < most
            && let Some((at, key)) = self.order.first().copied()
            && at <= now
        {
            self.order.pop_first();
            self.times.remove(&key);
            due.push(key);
        }
        due
    }

    /// Whether its time is still to come.
    pub(super) fn contains(&self, key: Key) -> bool {
        self.times.contains_key(&key)
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::History;

    #[test]
    fn an_object_is_looked_at_once_and_at_its_earliest_time() {
        let key = |number| Key { history: History(1), term: 1, number };
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut agenda = Agenda::default();
        for (number, seconds) in [(1, 5), (2, 3), (1, 9), (3, 1), (2, 1)] {
            agenda.add(key(number), at(seconds));
        }
        assert_eq!(agenda.next(), Some(at(1)));
        assert!(agenda.take_due(now, 9).is_empty());
        assert_eq!(agenda.take_due(at(4), 9), [key(2), key(3)]);
        assert!(agenda.contains(key(1)) && !agenda.contains(key(2)));
        agenda.add(key(2), at(5));
        assert_eq!(agenda.take_due(at(5), 1), [key(1)], "no more than are asked for");
        assert_eq!(agenda.take_due(at(9), 9), [key(2)]);
        assert_eq!(agenda.next(), None);
    }
}
