//! What happens, and when.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Something that happens to a simulated store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A disk fails for good.
    DiskFails {
        dstore: usize,
    },
    /// An empty one is put in its place.
    DiskReplaced {
        dstore: usize,
    },
    /// A machine is away until then.
    HostFails {
        host: usize,
    },
    HostReturns {
        host: usize,
    },
    /// A whole zone is.
    ZoneFails {
        zone: usize,
    },
    ZoneReturns {
        zone: usize,
    },
    /// The grace of a Dstore that went away this often is over.
    GraceEnds {
        dstore: usize,
        absence: u32,
    },
    /// A copy has arrived, unless it was given up meanwhile.
    CopyEnds {
        order: u64,
    },
    /// It is looked whether copies should move to emptier disks.
    Balance,
    /// What is most urgent is ordered.
    Round,
    /// Figures are taken for the picture.
    Sample,
}

struct At(f64, u64, Event);

impl PartialEq for At {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for At {}

impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for At {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.total_cmp(&self.0).then(other.1.cmp(&self.1)) // the earliest is the greatest
    }
}

/// What is to come, by time.
#[derive(Default)]
pub struct Events {
    heap: BinaryHeap<At>,
    count: u64,
}

impl Events {
    /// It happens at that time, in seconds; after what was entered for the same time.
    pub fn enter(&mut self, at: f64, event: Event) {
        self.count += 1;
        self.heap.push(At(at, self.count, event));
    }

    /// The next one, unless that is later.
    pub fn next_until(&mut self, end: f64) -> Option<(f64, Event)> {
        self.heap.peek().filter(|at| at.0 <= end)?;
        self.heap.pop().map(|At(at, _, event)| (at, event))
    }
}
