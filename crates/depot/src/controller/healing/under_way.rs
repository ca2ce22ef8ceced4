//! Orders that Dstores were given and have not answered, and how much each Dstore has to do by them.

use std::collections::BTreeMap;

use crate::identity::{DstoreId, Key};
use crate::wire::message::OrderKind;

/// So many copies may be under way to a Dstore, or from one, and so many bytes; one copy always may. Small objects take less
/// time than a report of them and the next order: a hundred at a time would leave a Dstore idle most of the time.
const MOST_COPIES: usize = 1_000;
const MOST_COPY_BYTES: u64 = 256 << 20;

/// So many other orders may be under way to a Dstore.
const MOST_OTHERS: usize = 2_000;

/// An order that a Dstore was given.
pub(super) struct Task {
    pub(super) kind: OrderKind,
    /// The link over which it was given. When that has ended, so has the order.
    pub(super) connection: u64,
    /// Where a copy comes from.
    pub(super) from: Option<DstoreId>,
    pub(super) bytes: u64,
}

/// All of them, at most one for each object at each Dstore.
#[derive(Default)]
pub(super) struct UnderWay {
    tasks: BTreeMap<(Key, DstoreId), Task>,
    burdens: BTreeMap<DstoreId, Burden>,
}

/// What is under way to and from a Dstore.
#[derive(Clone, Copy, Default)]
struct Burden {
    copies: usize,
    bytes: u64,
    others: usize,
}

impl UnderWay {
    /// Enters an order to a Dstore.
    pub(super) fn insert(&mut self, key: Key, at: DstoreId, task: Task) {
        self.remove(key, at);
        for id in std::iter::once(at).chain(task.from) {
            let burden = self.burdens.entry(id).or_default();
            if task.kind == OrderKind::Copy {
                burden.copies += 1;
                burden.bytes += task.bytes;
            } else {
                burden.others += 1;
            }
        }
        self.tasks.insert((key, at), task);
    }

    /// The order has ended, or was not given.
    pub(super) fn remove(&mut self, key: Key, at: DstoreId) -> Option<Task> {
        let task = self.tasks.remove(&(key, at))?;
        for id in std::iter::once(at).chain(task.from) {
            let Some(burden) = self.burdens.get_mut(&id) else { continue };
            if task.kind == OrderKind::Copy {
                burden.copies -= 1;
                burden.bytes -= task.bytes;
            } else {
                burden.others -= 1;
            }
        }
        Some(task)
    }

    /// The order about an object at a Dstore.
    pub(super) fn get(&self, key: Key, at: DstoreId) -> Option<&Task> {
        self.tasks.get(&(key, at))
    }

    /// All orders about an object.
    pub(super) fn of(&self, key: Key) -> impl Iterator<Item = (DstoreId, &Task)> {
        self.tasks.range(super::at_all(key)).map(|((_, at), task)| (*at, task))
    }

    /// Copies that were ordered.
    pub(super) fn copies(&self) -> impl Iterator<Item = (Key, &Task)> {
        self.tasks.iter().filter(|(_, task)| task.kind == OrderKind::Copy).map(|((key, _), task)| (*key, task))
    }

    /// The orders of links that are not open any more.
    pub(super) fn ended(&self, is_open: impl Fn(DstoreId, u64) -> bool) -> Vec<(Key, DstoreId)> {
        self.tasks.iter().filter(|((_, at), task)| !is_open(*at, task.connection)).map(|(place, _)| *place).collect()
    }

    /// Whether a Dstore may be told to do this, or to give what is copied, beside what it does.
    pub(super) fn has_room(&self, dstore: DstoreId, kind: OrderKind, bytes: u64) -> bool {
        let burden = self.burdens.get(&dstore).copied().unwrap_or_default();
        match kind {
            OrderKind::Copy => {
                burden.copies == 0 || burden.copies < MOST_COPIES && burden.bytes + bytes <= MOST_COPY_BYTES
            }
            _ => burden.others < MOST_OTHERS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::History;

    #[test]
    fn what_has_ended_burdens_neither_dstore() {
        let key = |number| Key { history: History(1), term: 1, number };
        let (one, two) = (DstoreId(1), DstoreId(2));
        let copy = |bytes| Task { kind: OrderKind::Copy, connection: 7, from: Some(one), bytes };
        let mut under_way = UnderWay::default();
        under_way.insert(key(1), two, copy(MOST_COPY_BYTES - 1));
        assert!(under_way.has_room(one, OrderKind::Copy, 1) && !under_way.has_room(two, OrderKind::Copy, 2));
        under_way.insert(key(1), two, copy(10)); // in place of the other
        assert!(under_way.has_room(one, OrderKind::Copy, MOST_COPY_BYTES - 10));
        assert_eq!(under_way.ended(|_, connection| connection == 7), []);
        assert_eq!(under_way.ended(|_, connection| connection == 8), [(key(1), two)]);
        assert!(under_way.remove(key(1), two).is_some() && under_way.remove(key(1), two).is_none());
        for id in [one, two] {
            assert!(under_way.has_room(id, OrderKind::Copy, MOST_COPY_BYTES * 2), "one copy always may");
        }
        (0..MOST_COPIES as u64).for_each(|number| under_way.insert(key(number), two, copy(1)));
        assert!(!under_way.has_room(one, OrderKind::Copy, 1) && under_way.has_room(two, OrderKind::Verify, 0));
    }
}
