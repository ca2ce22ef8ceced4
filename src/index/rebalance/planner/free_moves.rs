//! Step 2: moves that need no further send, as a maximum flow by shortest paths (Dinic 1970).
//!
//! A copy of a file can move for free if the file has more holders than it may keep (then to another of these), or if the copy
//! is to be sent anyway (then to any Dstore that is not to have the file). Such a copy is called *loose*. In each round the
//! Dstores are layered by their distance, in moves, from those that are too full. Load then passes down one layer
//! a move, until it reaches a Dstore that is too empty. A Dstore from which no way leads down is left out for the rest of the
//! round. The rounds end when no Dstore that is too empty is in reach.

use super::layout::Layout;

/// The search for free moves from Dstores with more than `above` copies to others with fewer than `below`.
struct FreeMoves<'l, 'a> {
    layout: &'l mut Layout<'a>,
    above: usize,
    below: usize,
    /// For each Dstore, the files whose copy there could move for free.
    loose: Vec<Vec<u32>>,
    /// For each Dstore, how many of its loose files are known to lead nowhere in this round.
    cursors: Vec<usize>,
    /// For each Dstore, its layer; `NO_LAYER` if it is out of reach or leads nowhere.
    depths: Vec<usize>,
    /// The Dstores of each layer. Those that give are the first, and one that takes is in the last.
    layers: Vec<Vec<u32>>,
}

const NO_LAYER: usize = usize::MAX;

impl Layout<'_> {
    /// Shifts load from Dstores with more than `above` copies to others with fewer than `below`, as
    /// far as that takes no more sends.
    pub fn move_for_free(&mut self, above: usize, below: usize) {
        let dstores = self.holdings.dstores();
        let mut loose = vec![Vec::new(); dstores];
        for file in 0..self.holdings.files() {
            let holders = self.holdings.holders(file);
            if holders.len() != self.replicas {
                for dstore in self.slots(file) {
                    if self.has_spare_holders(file) || !holders.contains(dstore) {
                        loose[*dstore as usize].push(file as u32);
                    }
                }
            }
        }
        if self.holdings.has_newcomers() {
            // A file's last copy on a Dstore that is no newcomer is tried last.
            for (dstore, files) in (0..).zip(&mut loose) {
                files.sort_by_key(|&file| self.is_last_of_old(file as usize, dstore));
            }
        }
        let cursors = vec![0; dstores];
        let depths = vec![NO_LAYER; dstores];
        FreeMoves { layout: self, above, below, loose, cursors, depths, layers: Vec::new() }.run();
    }
}

impl FreeMoves<'_, '_> {
    fn run(&mut self) {
        while self.find_layers() {
            self.cursors.fill(0);
            for giver in self.layers[0].clone() {
                while self.layout.loads[giver as usize] > self.above && self.give(giver) {}
            }
        }
    }

    /// Layers the Dstores down to the first layer with one that takes; false if none is in reach.
    fn find_layers(&mut self) -> bool {
        let loads = &self.layout.loads;
        let dstores = 0..self.layout.holdings.dstores() as u32;
        let (givers, mut unreached): (Vec<u32>, Vec<u32>) = dstores.partition(|&d| loads[d as usize] > self.above);
        self.depths.fill(NO_LAYER);
        for &giver in &givers {
            self.depths[giver as usize] = 0;
        }
        self.layers = vec![givers];
        loop {
            let depth = self.layers.len();
            let mut layer = Vec::new();
            for &from in &self.layers[depth - 1] {
                for &file in &self.loose[from as usize] {
                    let file = file as usize;
                    let slots = self.layout.slots(file);
                    let mut is_reached = |to: &u32| {
                        let known = &mut self.depths[*to as usize];
                        if *known == NO_LAYER && !slots.contains(to) {
                            *known = depth;
                            layer.push(*to);
                        }
                        *known != NO_LAYER
                    };
                    if self.layout.has_spare_holders(file) {
                        for to in self.layout.holdings.holders(file) {
                            is_reached(to);
                        }
                    } else {
                        unreached.retain(|to| !is_reached(to));
                    }
                }
            }
            if layer.is_empty() {
                return false;
            }
            let is_last = layer.iter().any(|&d| loads[d as usize] < self.below);
            self.layers.push(layer);
            if is_last {
                return true;
            }
        }
    }

    /// Passes a unit of load on from `from`, layer by layer, to a Dstore that takes it; false if no
    /// way down is left in this round.
    fn give(&mut self, from: u32) -> bool {
        let depth = self.depths[from as usize] + 1;
        while let Some(&file) = self.loose[from as usize].get(self.cursors[from as usize]) {
            while let Some(to) = self.next_stop(file as usize, depth) {
                if self.layout.loads[to as usize] < self.below || self.give(to) {
                    self.layout.relocate(file as usize, from, to);
                    self.loose[from as usize].swap_remove(self.cursors[from as usize]);
                    self.loose[to as usize].push(file);
                    return true;
                }
            }
            self.cursors[from as usize] += 1;
        }
        self.depths[from as usize] = NO_LAYER;
        self.layers[depth - 1].retain(|&d| d != from);
        false
    }

    /// A Dstore in layer `depth` to which a loose copy of `file` can move for free.
    fn next_stop(&self, file: usize, depth: usize) -> Option<u32> {
        let stops = if self.layout.has_spare_holders(file) {
            self.layout.holdings.holders(file)
        } else {
            self.layers.get(depth)?
        };
        let slots = self.layout.slots(file);
        stops.iter().copied().find(|d| self.depths[*d as usize] == depth && !slots.contains(d))
    }
}
