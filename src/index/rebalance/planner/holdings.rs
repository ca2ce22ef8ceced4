//! What a plan starts from: which Dstores hold which files.

/// Which Dstores hold which files, by number: Dstores from 0, files from 0 in the order pushed.
#[derive(Debug, Clone)]
pub struct Holdings {
    dstores: usize,
    /// By Dstore.
    newcomers: Vec<bool>,
    /// File `f` is held by `holders[starts[f]..starts[f + 1]]`.
    starts: Vec<usize>,
    holders: Vec<u32>,
}

impl Holdings {
    /// No files yet, on Dstores 0 to `dstores` - 1.
    pub fn new(dstores: usize) -> Self {
        Self { dstores, newcomers: vec![false; dstores], starts: vec![0], holders: Vec::new() }
    }

    /// From now on `dstore` is one that has just joined: of the plans that are equally good, that is made which leaves as
    /// many files as it can a copy on another. Without newcomers this costs nothing.
    pub fn mark_newcomer(&mut self, dstore: u32) {
        self.newcomers[dstore as usize] = true;
    }

    /// Whether `dstore` has just joined.
    pub fn is_newcomer(&self, dstore: u32) -> bool {
        self.newcomers[dstore as usize]
    }

    pub(super) fn has_newcomers(&self) -> bool {
        self.newcomers.contains(&true)
    }

    /// Adds the next file. It needs at least one holder, and its holders must be distinct.
    pub fn push(&mut self, holders: impl IntoIterator<Item = u32>) {
        let start = self.holders.len();
        self.holders.extend(holders);
        let added = &self.holders[start..];
        assert!(!added.is_empty(), "a file without a holder cannot be sent");
        assert!(added.iter().all(|&d| (d as usize) < self.dstores), "no such Dstore: {added:?}");
        debug_assert!((1..added.len()).all(|i| !added[..i].contains(&added[i])), "{added:?}");
        self.starts.push(self.holders.len());
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.starts.len() - 1
    }

    /// How many Dstores take part, whether or not they hold anything.
    pub fn dstores(&self) -> usize {
        self.dstores
    }

    /// The Dstores that hold `file`, in the order given to [`push`](Self::push).
    pub fn holders(&self, file: usize) -> &[u32] {
        &self.holders[self.starts[file]..self.starts[file + 1]]
    }
}
