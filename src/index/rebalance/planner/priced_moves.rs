//! Step 3: direct moves, each of which adds one send.

use std::cmp::Reverse;

use super::layout::Layout;

impl Layout<'_> {
    /// Moves copies from Dstores with more than `above` to others with fewer than `below`, until
    /// there are none of the former or none of the latter. `below` is at most `above`.
    ///
    /// One pass is enough: it leaves a copy on a Dstore that has too many only if every Dstore that
    /// wants more has one too. If that held for all its copies, the others would have as many.
    /// Where there are newcomers, another pass before it leaves out each file's last copy elsewhere.
    pub fn move_at_a_price(&mut self, above: usize, below: usize) {
        if self.holdings.has_newcomers() {
            self.pass_along(above, below, true);
        }
        self.pass_along(above, below, false);
    }

    /// One pass; with `is_careful` no file's last copy on a Dstore that is no newcomer is moved to one.
    fn pass_along(&mut self, above: usize, below: usize, is_careful: bool) {
        let dstores = 0..self.holdings.dstores() as u32;
        let mut takers: Vec<u32> = dstores.filter(|&d| self.loads[d as usize] < below).collect();
        for file in 0..self.holdings.files() {
            if takers.is_empty() {
                return;
            }
            if is_careful {
                // From the fullest first: each of the older Dstores then keeps the last copy of some files.
                let slots = &mut self.slots[file * self.replicas..][..self.replicas];
                slots.sort_by_key(|&d| Reverse(self.loads[d as usize]));
            }
            for slot in 0..self.replicas {
                let from = self.slots(file)[slot];
                if self.loads[from as usize] <= above {
                    continue;
                }
                let is_last = is_careful && self.is_last_of_old(file, from);
                let is_refused = |d: u32| self.slots(file).contains(&d) || is_last && self.holdings.is_newcomer(d);
                if let Some(turn) = takers.iter().position(|&d| !is_refused(d)) {
                    let to = takers.remove(turn);
                    self.relocate(file, from, to);
                    // They take turns, so that no part of the plan waits for a single receiver.
                    if self.loads[to as usize] < below {
                        takers.push(to);
                    }
                }
            }
        }
    }
}
