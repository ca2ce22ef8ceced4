//! The objects that files name. (depot 2)
//!
//! Millions of them: 48 bytes each in one table, and five more to find one by its key. A file refers to its objects by
//! their place in the table, which is this process's own affair: nothing that replicas must agree on depends on it.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

use crate::checksum::Checksum;
use crate::identity::Key;
use crate::namespace::change::Replicas;
use crate::words::words;

/// One object as the namespace knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub key: Key,
    /// In bytes.
    pub length: u64,
    /// Of its bytes.
    pub checksum: Checksum,
}

words!(struct Object { key, length, checksum });

/// An object's place in the table, for as long as a file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

#[derive(Clone, Copy, Debug)]
struct Slot {
    object: Object,
    /// How many times files name it. A slot that none names is free.
    references: u32,
    /// What the files that have named it ask for. Over-estimated where one that asked for more is gone, until the next start.
    asked: Asked,
}

/// On how many Dstores files want an object: three bytes, which fit into a slot without making it larger.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// One wants it on so many Dstores as the settings say.
    as_set: bool,
    /// One wants it on all.
    all: bool,
    /// One wants it on so many.
    number: u8,
}

impl Asked {
    fn add(&mut self, replicas: Option<Replicas>) {
        match replicas {
            None => self.as_set = true,
            Some(Replicas::All) => self.all = true,
            Some(Replicas::Number(number)) => self.number = self.number.max(number),
        }
    }

    fn wanted(self, set: Replicas, dstores: impl Fn() -> usize) -> usize {
        let resolved = |replicas| match replicas {
            Replicas::Number(number) => usize::from(number),
            Replicas::All => dstores(),
        };
        let as_set = if self.as_set { resolved(set) } else { 0 };
        let all = if self.all { dstores() } else { 0 };
        as_set.max(all).max(usize::from(self.number))
    }
}

/// Every object that a file names.
#[derive(Debug, Default)]
pub(super) struct Objects {
    slots: Vec<Slot>,
    free: Vec<Place>,
    by_key: HashTable<Place>,
    hasher: DefaultHashBuilder,
}

impl Objects {
    /// The object at a place that a file has.
    pub(super) fn get(&self, place: Place) -> &Object {
        &self.slots[place.0 as usize].object
    }

    /// Where the object of this key is.
    pub(super) fn find(&self, key: Key) -> Option<Place> {
        self.by_key.find(self.hasher.hash_one(key), |place| self.get(*place).key == key).copied()
    }

    /// Enters an object that is not there yet. Nothing refers to it: a reference must follow.
    pub(super) fn enter(&mut self, object: Object) -> Place {
        let slot = Slot { object, references: 0, asked: Asked::default() };
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place.0 as usize] = slot;
                place
            }
            None => {
                if self.slots.len() == self.slots.capacity() {
                    // Doubling would leave half of it unused.
                    self.slots.reserve_exact(self.slots.len() / 8 + 64);
                }
                self.slots.push(slot);
                Place(u32::try_from(self.slots.len() - 1).expect("memory ends long before four billion objects"))
            }
        };
        let Self { slots, by_key, hasher, .. } = self;
        let hash = |place: &Place| hasher.hash_one(slots[place.0 as usize].object.key);
        by_key.insert_unique(hasher.hash_one(object.key), place, hash);
        place
    }

    /// One more file names it, which asks for so many replicas.
    pub(super) fn refer(&mut self, place: Place, replicas: Option<Replicas>) {
        let slot = &mut self.slots[place.0 as usize];
        slot.references += 1;
        slot.asked.add(replicas);
    }

    /// On how many Dstores it should be, if the settings say `set`; `dstores` says how many Dstores there are.
    pub(super) fn wanted(&self, place: Place, set: Replicas, dstores: impl Fn() -> usize) -> usize {
        self.slots[place.0 as usize].asked.wanted(set, dstores)
    }

    /// The keys of the objects in so many places of the table, from this one on, each with what [`wanted`](Self::wanted)
    /// says; `None` behind the last place.
    pub(super) fn walk(
        &self,
        from: usize,
        places: usize,
        set: Replicas,
        dstores: impl Fn() -> usize,
    ) -> Option<Vec<(Key, usize)>> {
        let slots = self.slots.get(from..).filter(|slots| !slots.is_empty())?;
        let named = slots.iter().take(places).filter(|slot| slot.references > 0);
        Some(named.map(|slot| (slot.object.key, slot.asked.wanted(set, &dstores))).collect())
    }

    /// One file less names it. The object, if that was the last.
    pub(super) fn release(&mut self, place: Place) -> Option<Object> {
        let slot = &mut self.slots[place.0 as usize];
        slot.references -= 1;
        if slot.references > 0 {
            return None;
        }
        let object = slot.object;
        let found = self.by_key.find_entry(self.hasher.hash_one(object.key), |entry| *entry == place);
        found.expect("every object can be found by its key").remove();
        self.free.push(place);
        Some(object)
    }

    /// Every object, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Object> {
        self.by_key.iter().map(|place| self.get(*place))
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_takes_no_more_room_than_is_said() {
        assert_eq!(size_of::<Slot>(), 48);
    }

    #[test]
    fn the_file_that_asks_for_the_most_copies_decides() {
        let wanted = |files: &[Option<Replicas>]| {
            let mut asked = Asked::default();
            files.iter().for_each(|replicas| asked.add(*replicas));
            asked.wanted(Replicas::Number(2), || 5)
        };
        assert_eq!(wanted(&[None]), 2);
        assert_eq!(wanted(&[Some(Replicas::Number(1))]), 1, "less than is set, if no file asks for more");
        assert_eq!(wanted(&[Some(Replicas::Number(1)), None]), 2);
        assert_eq!(wanted(&[Some(Replicas::Number(4)), None, Some(Replicas::Number(3))]), 4);
        assert_eq!(wanted(&[Some(Replicas::All), Some(Replicas::Number(3))]), 5);
    }
}
