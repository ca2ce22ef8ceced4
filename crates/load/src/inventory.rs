//! What one client believes of its files. No two clients share a name, so each knows what has to happen.

use crate::mix::Kind;
use kit::Rng;

/// The client's names, by number, and what is to be found under each. Takes the same memory however long it is used.
pub struct Inventory {
    stored: Vec<u32>,
    absent: Vec<u32>,
    /// An operation on it failed: there may be a file or not.
    doubtful: Vec<u32>,
    /// How many stores of each name have been begun: no content comes twice.
    generations: Vec<u32>,
}

/// One store's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name's number.
    pub number: u32,
    /// Which of the stores under that name.
    pub generation: u32,
    /// Whether it is known that there is a file.
    pub is_certain: bool,
}

impl Inventory {
    /// So many names, and no file yet.
    pub fn new(names: u32) -> Self {
        Self {
            stored: Vec::new(),
            absent: (0..names).rev().collect(),
            doubtful: Vec::new(),
            generations: vec![0; names as usize],
        }
    }

    /// How many files there certainly are.
    pub fn stored(&self) -> usize {
        self.stored.len()
    }

    /// How many files there may be besides.
    pub fn doubtful(&self) -> usize {
        self.doubtful.len()
    }

    /// What can be done when `wanted` is asked for: a load needs a file, a store needs room.
    pub fn feasible(&self, wanted: Kind) -> Kind {
        let has_file = !self.stored.is_empty();
        let has_room = !self.absent.is_empty();
        match wanted {
            Kind::Load | Kind::Remove if !has_file && has_room => Kind::Store,
            Kind::Load if !has_file => Kind::Remove,
            Kind::Store if !has_room => Kind::Remove,
            feasible => feasible,
        }
    }

    /// A file to load; it stays. [`feasible`](Self::feasible) has said that there is one.
    pub fn pick_for_load(&self, rng: &mut Rng) -> File {
        self.file(self.stored[rng.below(self.stored.len())], true)
    }

    /// Takes out a name to store a file under; what became of it has to be told.
    pub fn take_for_store(&mut self, rng: &mut Rng) -> File {
        let number = self.absent.swap_remove(rng.below(self.absent.len()));
        self.generations[number as usize] = self.generations[number as usize].wrapping_add(1);
        self.file(number, false)
    }

    /// Takes out a file to remove, those in doubt first; what became of it has to be told.
    pub fn take_for_remove(&mut self, rng: &mut Rng) -> File {
        match self.doubtful.pop() {
            Some(number) => self.file(number, false),
            None => {
                let number = self.stored.swap_remove(rng.below(self.stored.len()));
                self.file(number, true)
            }
        }
    }

    /// There is a file now.
    pub fn note_stored(&mut self, file: File) {
        self.stored.push(file.number);
    }

    /// There is no file now.
    pub fn note_absent(&mut self, file: File) {
        self.absent.push(file.number);
    }

    /// There may be a file or not, whether it was taken out for the operation that failed or not.
    pub fn note_doubtful(&mut self, file: File) {
        self.stored.retain(|&number| number != file.number);
        // Oldest last, to be looked at first: the newest may be a name that cannot be removed.
        self.doubtful.insert(0, file.number);
    }

    /// How many names contradict a list that holds these numbers: stored and not listed, or listed and absent.
    pub fn contradictions(&self, listed: impl Iterator<Item = u32>) -> usize {
        let mut is_listed = vec![false; self.generations.len()];
        let mut unheard_of = 0;
        for number in listed {
            match is_listed.get_mut(number as usize) {
                Some(is_listed) => *is_listed = true,
                None => unheard_of += 1,
            }
        }
        let missing = self.stored.iter().filter(|&&number| !is_listed[number as usize]).count();
        let surplus = self.absent.iter().filter(|&&number| is_listed[number as usize]).count();
        missing + surplus + unheard_of
    }

    fn file(&self, number: u32, is_certain: bool) -> File {
        File { number, generation: self.generations[number as usize], is_certain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feasible_operations_neither_lose_nor_double_a_name() {
        for seed in 0..200 {
            let mut rng = Rng(seed);
            let mut inventory = Inventory::new(1 + rng.below(4) as u32);
            for _ in 0..200 {
                let wanted = Kind::ALL[rng.below(4)];
                let fails = rng.below(3) == 0;
                match inventory.feasible(wanted) {
                    Kind::Store => {
                        let file = inventory.take_for_store(&mut rng);
                        if fails { inventory.note_doubtful(file) } else { inventory.note_stored(file) }
                    }
                    Kind::Load => {
                        let file = inventory.pick_for_load(&mut rng);
                        if fails {
                            inventory.note_doubtful(file);
                        }
                    }
                    Kind::Remove => {
                        let file = inventory.take_for_remove(&mut rng);
                        if fails { inventory.note_doubtful(file) } else { inventory.note_absent(file) }
                    }
                    Kind::List => {}
                }
                let mut all = [&inventory.stored[..], &inventory.absent, &inventory.doubtful].concat();
                all.sort_unstable();
                let expected: Vec<_> = (0..inventory.generations.len() as u32).collect();
                assert_eq!(all, expected, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_name_that_is_used_again_gets_another_generation() {
        let mut rng = Rng(1);
        let mut inventory = Inventory::new(1);
        let first = inventory.take_for_store(&mut rng);
        inventory.note_stored(first);
        let removed = inventory.take_for_remove(&mut rng);
        assert_eq!((removed.number, removed.generation), (first.number, first.generation));
        inventory.note_absent(removed);
        assert_ne!(inventory.take_for_store(&mut rng).generation, first.generation);
    }

    #[test]
    fn a_list_is_held_against_what_is_certain_only() {
        let mut rng = Rng(1);
        let mut inventory = Inventory::new(3);
        let (stored, doubtful) = (inventory.take_for_store(&mut rng), inventory.take_for_store(&mut rng));
        inventory.note_stored(stored);
        inventory.note_doubtful(doubtful);
        let absent = 3 - stored.number - doubtful.number;
        assert_eq!(inventory.contradictions([stored.number].into_iter()), 0);
        assert_eq!(inventory.contradictions([stored.number, doubtful.number].into_iter()), 0);
        assert_eq!(inventory.contradictions([].into_iter()), 1);
        assert_eq!(inventory.contradictions([stored.number, absent].into_iter()), 1);
        assert_eq!(inventory.contradictions([stored.number, 77].into_iter()), 1);
    }
}
